"""Requests of `openai-responses` clients become the hub's, or are refused by the path of their fault."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.errors import BadParameter, Unsupported
from relay.ir import (
    Media,
    Message,
    Opaque,
    Output,
    Reasoning,
    Refusal,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from relay_openai.responses.dialect import OpenAIResponses
from relay_openai.responses.items import citation_of
from relay_openai.responses.sealed import seal
from relay_openai.responses.wire import DIALECT

PIXEL = "iVBORw0KGgo="


def parse(value: Any = "Hi", **more: Any) -> Request:
    dialect = OpenAIResponses()
    raw = json.dumps({"model": "m", "input": value, **more}).encode()
    return dialect.parse(dialect.peek(raw, "generate", {}, {}))


def user(*parts: Any) -> list[Any]:
    return [{"role": "user", "content": list(parts)}]


def only(value: Any) -> Any:
    (message,) = parse(user(value)).messages
    (part,) = message.parts
    return part


# Messages.


def test_a_string_is_what_the_user_says() -> None:
    assert parse("Hi").messages == [Message("user", [Text("Hi")])]


def test_instructions_come_first() -> None:
    roles = [(message.role, message.text) for message in parse("Hi", instructions="Be brief.").messages]
    assert roles == [("system", "Be brief."), ("user", "Hi")]


@pytest.mark.parametrize("kind", [{}, {"type": "message"}])
def test_messages_need_no_type(kind: dict[str, str]) -> None:
    items = [{"role": role, "content": role, **kind} for role in ("developer", "system", "user", "assistant")]
    messages = parse(items).messages
    assert [(message.role, message.text) for message in messages] == [
        ("system", "developer"),
        ("system", "system"),
        ("user", "user"),
        ("assistant", "assistant"),
    ]
    assert messages[0].extra == {DIALECT: {"role": "developer"}}


def test_text_media_and_refusals() -> None:
    assert only({"type": "input_text", "text": "a"}) == Text("a")
    assert only({"type": "output_text", "text": "a", "annotations": [], "logprobs": []}) == Text("a")
    assert only({"type": "refusal", "refusal": "no"}) == Refusal("no")
    assert only({"type": "input_image", "image_url": "https://u.test/a.png", "detail": "low"}) == Media(
        "image", url="https://u.test/a.png", detail="low"
    )
    assert only({"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"}) == Media(
        "image", "image/png", data=PIXEL
    )
    assert only({"type": "input_image", "file_id": "file-1"}) == Media("image", file_id="file-1")
    assert only({"type": "input_file", "file_data": "JVBERi0x", "filename": "a.pdf"}) == Media(
        "document", "application/pdf", data="JVBERi0x", name="a.pdf"
    )
    assert only({"type": "input_file", "file_url": "https://u.test/a.pdf"}) == Media(
        "document", url="https://u.test/a.pdf"
    )
    assert only({"type": "input_file", "file_id": "file-1"}) == Media("document", file_id="file-1")
    assert only({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}) == Media(
        "audio", "audio/mpeg", data="AAAA"
    )
    unknown = {"type": "input_hologram", "beam": 1}
    assert only(unknown) == Opaque(DIALECT, unknown)


def test_citations_of_an_earlier_answer_stay_with_their_text() -> None:
    citation = {"type": "url_citation", "url": "https://u.test", "title": "U", "start_index": 0, "end_index": 1}
    assert only({"type": "output_text", "text": "a", "annotations": [citation]}) == Text(
        "a", citations=[citation_of(citation)]
    )


# Turns.


def call(name: str = "f", call_id: str = "c1", **more: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": "{}", **more}


def output(call_id: str = "c1", value: Any = "ok") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": value}


def said(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def shape(items: list[Any]) -> list[tuple[str, list[str]]]:
    return [(m.role, [type(part).__name__ for part in m.parts]) for m in parse(items).messages]


THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}


def test_what_the_model_did_between_two_inputs_is_one_turn() -> None:
    items = [*user({"type": "input_text", "text": "go"}), THOUGHT, said("I will"), call(), call("g", "c2"), output()]
    items += [output("c2"), said("done")]
    assert shape(items) == [
        ("user", ["Text"]),
        ("assistant", ["Thinking", "Text", "ToolCall", "ToolCall"]),
        ("user", ["ToolResult", "ToolResult"]),
        ("assistant", ["Text"]),
    ]


def test_two_messages_of_the_model_are_two_turns() -> None:
    assert shape([said("a"), said("b")]) == [("assistant", ["Text"]), ("assistant", ["Text"])]


def test_nothing_comes_between_a_call_and_its_output() -> None:
    assert shape([said("a"), call(), said("b"), output()]) == [
        ("assistant", ["Text", "ToolCall", "Text"]),
        ("user", ["ToolResult"]),
    ]


def test_outputs_do_not_join_what_the_user_says() -> None:
    items = [call(), output(), *user({"type": "input_text", "text": "and?"})]
    assert shape(items) == [("assistant", ["ToolCall"]), ("user", ["ToolResult"]), ("user", ["Text"])]


def test_outputs_know_the_name_of_their_function_and_may_hold_pictures() -> None:
    picture = {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"}
    result = parse([call("look"), output(value=[{"type": "input_text", "text": "see"}, picture])]).messages[1].parts[0]
    assert result == ToolResult("c1", [Text("see"), Media("image", "image/png", data=PIXEL)], name="look")


def test_arguments_stay_the_string_that_they_were() -> None:
    part = parse([call(arguments='{ "b":1,\n"a":2}')]).messages[0].parts[0]
    assert isinstance(part, ToolCall)
    assert part.arguments == '{ "b":1,\n"a":2}'


# Reasoning.


def test_reasoning_of_this_dialect_keeps_all_it_came_with() -> None:
    item = {**THOUGHT, "encrypted_content": "opaque", "content": None}
    part = parse([item]).messages[0].parts[0]
    own = {"id": "rs_1", "summary": THOUGHT["summary"]}
    assert part == Thinking("hm", signature="opaque", dialect=DIALECT, extra={DIALECT: own})


@pytest.mark.parametrize(
    "thought",
    [
        Thinking("shown", signature="sig=", dialect="anthropic-messages"),
        Thinking("", signature="data", redacted=True, dialect="anthropic-messages"),
        Thinking("shown", dialect="openai-chat", extra={"openai-chat": {"reasoning_details": [{"text": "x"}]}}),
    ],
)
def test_sealed_reasoning_is_that_of_its_own_dialect_again(thought: Thinking) -> None:
    summary = [{"type": "summary_text", "text": thought.text}] if thought.text else []
    item = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": summary,
        "encrypted_content": seal(thought, thought.signature),
    }
    assert parse([item]).messages[0].parts == [thought]


@pytest.mark.parametrize("damaged", ["relay.1.", "relay.1.!!!", "relay.1.e30", "relay.1.W10"])
def test_a_damaged_seal_belongs_to_nobody_else(damaged: str) -> None:
    part = parse([{"type": "reasoning", "summary": [], "encrypted_content": damaged}]).messages[0].parts[0]
    assert part == Thinking("", signature=damaged, dialect=DIALECT, extra={DIALECT: {"summary": []}})


def test_the_parts_of_reasoning_are_told_apart() -> None:
    item = {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}],
        "content": [{"type": "reasoning_text", "text": "c"}],
    }
    part = parse([item]).messages[0].parts[0]
    assert isinstance(part, Thinking)
    assert part.text == "a\n\nb\n\nc"


# Items that only the vendor knows.


def test_reasoning_that_is_only_referred_to_can_be_missing() -> None:
    reference = {"type": "item_reference", "id": "rs_1"}
    assert parse([reference, call()]).messages[0].parts[0] == Opaque(DIALECT, reference)


@pytest.mark.parametrize("item", [{"type": "item_reference", "id": "msg_1"}, {"id": "msg_1"}])
def test_anything_else_that_is_only_referred_to_cannot(item: dict[str, Any]) -> None:
    with pytest.raises(Unsupported, match="send the item itself") as refused:
        parse([item])
    assert refused.value.param == "input[0]"


def test_items_of_the_vendors_own_tools_stay_whole() -> None:
    item = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}}
    assert parse([item, said("x")]).messages[0].parts == [Opaque(DIALECT, item), Text("x")]


# Tools.


def test_tools() -> None:
    function = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
    search = {"type": "web_search", "filters": {}}
    assert parse(tools=[function, search]).tools == [Tool("f", "d", {"type": "object"}, True), Opaque(DIALECT, search)]


def test_a_custom_tool_is_a_function_of_one_string() -> None:
    form = {"type": "grammar", "syntax": "lark", "definition": "start: WORD"}
    request = parse(tools=[{"type": "custom", "name": "patch", "description": "Edits.", "format": form}])
    (tool,) = request.tools
    assert isinstance(tool, Tool)
    assert tool.name == "patch"
    assert tool.description == "Edits.\n\nThe input must match this lark grammar:\nstart: WORD"
    assert tool.parameters is not None
    assert tool.parameters["required"] == list(tool.parameters["properties"]) == ["input"]
    # What no other vendor can promise is told as a loss.
    assert request.extra == {DIALECT: {"tools[0].format": form}}


def test_calls_of_a_custom_tool_are_calls_of_that_function() -> None:
    items = [
        {"type": "custom_tool_call", "call_id": "c1", "name": "patch", "input": 'a "b"\n'},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "ok"},
    ]
    messages = parse(items).messages
    assert messages[0].parts == [
        ToolCall(
            "c1", "patch", json.dumps({"input": 'a "b"\n'}, separators=(",", ":")), extra={DIALECT: {"type": "custom"}}
        )
    ]
    assert messages[1].parts == [ToolResult("c1", [Text("ok")], name="patch")]


NAMESPACE = {
    "type": "namespace",
    "name": "files",
    "tools": [{"type": "function", "name": "read", "parameters": {"type": "object"}}],
}


def test_functions_of_a_namespace_have_its_name_before_theirs() -> None:
    request = parse([call("read", namespace="files")], tools=[NAMESPACE], tool_choice="required")
    assert list(request.tool_names()) == ["files__read"]
    (part,) = request.messages[0].parts
    assert isinstance(part, ToolCall)
    assert (part.name, part.extra) == ("files__read", {DIALECT: {"namespace": "files"}})


def test_tools_that_a_search_has_found_are_offered_once() -> None:
    search = {"type": "tool_search", "execution": "client", "parameters": {"type": "object"}}
    asked = {"type": "tool_search_call", "execution": "client", "call_id": "c1", "arguments": {"query": "x"}}
    found = {"type": "tool_search_output", "execution": "client", "call_id": "c1", "tools": [NAMESPACE]}
    again = {"type": "additional_tools", "role": "developer", "tools": [NAMESPACE]}
    request = parse([asked, found, again], tools=[search])
    assert list(request.tool_names()) == ["tool_search", "files__read"]
    (turn, answer) = request.messages
    assert turn.parts == [ToolCall("c1", "tool_search", '{"query":"x"}', extra=turn.parts[0].extra)]
    (result,) = answer.parts
    assert isinstance(result, ToolResult)
    assert isinstance(result.parts[0], Text)
    assert json.loads(result.parts[0].text) == [NAMESPACE]


def test_the_path_of_every_schema_is_known() -> None:
    dialect = OpenAIResponses()
    data = {"model": "m", "input": "Hi", "tools": [{"type": "web_search"}, NAMESPACE, {"type": "custom", "name": "c"}]}
    head = dialect.peek(json.dumps(data).encode(), "generate", {}, {})
    assert [(path, tool.name) for path, tool in dialect.tools(head)] == [
        ("tools[1].tools[0].parameters", "files__read"),
        ("tools[2].parameters", "c"),
    ]


@pytest.mark.parametrize(
    ("value", "choice"),
    [
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ({"type": "function", "name": "f"}, ToolChoice("tool", "f")),
        ({"type": "function", "name": "f", "namespace": "n"}, ToolChoice("tool", "n__f")),
        ({"type": "custom", "name": "f"}, ToolChoice("tool", "f")),
        ({"type": "tool_search"}, ToolChoice("tool", "tool_search")),
    ],
)
def test_tool_choices(value: Any, choice: ToolChoice) -> None:
    request = parse(tool_choice=value)
    assert (request.tool_choice, request.extra) == (choice, None)


@pytest.mark.parametrize(
    ("value", "choice"),
    [
        ({"type": "allowed_tools", "mode": "required", "tools": []}, ToolChoice("required")),
        ({"type": "file_search"}, None),
    ],
)
def test_tool_choices_that_nobody_else_has_are_kept(value: Any, choice: Any) -> None:
    request = parse(tool_choice=value)
    assert (request.tool_choice, request.extra) == (choice, {DIALECT: {"tool_choice": value}})


# Everything else.


def test_sampling_and_limits() -> None:
    include = ["message.output_text.logprobs"]
    request = parse(max_output_tokens=9, temperature=0.5, top_p=1, top_logprobs=3, include=include, stream=True)
    sampling = request.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (9, 0.5, 1)
    assert (sampling.logprobs, sampling.top_logprobs, request.stream) == (True, 3, True)
    assert parse(top_logprobs=3).sampling.top_logprobs is None


def test_the_form_of_the_answer() -> None:
    assert parse(text={"format": {"type": "text"}}).output == Output("text")
    assert parse(text={"format": {"type": "json_object"}}).output == Output("json")
    form = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True, "description": None}
    assert parse(text={"format": form}).output == Output("schema", {"type": "object"}, "n", None, True)
    request = parse(text={"format": {"type": "grammar"}, "verbosity": "low"})
    assert (request.output, request.extra) == (
        None,
        {DIALECT: {"verbosity": "low", "text": {"format": {"type": "grammar"}}}},
    )


def test_reasoning_settings() -> None:
    assert parse(reasoning={"effort": "low", "summary": "auto"}).reasoning == Reasoning("low", summary="auto")
    assert parse(reasoning={"context": "all_turns", "effort": None}).reasoning is None


def test_the_end_user_by_either_name() -> None:
    assert parse(user="u").user == "u"
    assert parse(safety_identifier="u").user == "u"


def test_what_the_hub_does_not_know_is_kept() -> None:
    more = {
        "store": False,
        "prompt_cache_key": "k",
        "client_metadata": {"a": "b"},
        "new_thing": [1],
        "background": False,
    }
    assert parse(**more, service_tier=None).extra == {
        DIALECT: {key: value for key, value in more.items() if key != "background"}
    }


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": [7]}, "input[0]"),
        ({"input": []}, "input"),
        ({"input": [{"role": "boss", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [7]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"text": "x"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": 7}]}, "input[0].type"),
        ({"input": user({"type": "input_image"})}, "input[0].content[0].image_url"),
        ({"input": user({"type": "input_image", "image_url": "data:x"})}, "input[0].content[0].image_url"),
        ({"input": user({"type": "input_file"})}, "input[0].content[0].file_data"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": ""}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
        ({"input": [{"type": "reasoning", "summary": [{"text": 7}]}]}, "input[0].summary[0].text"),
        ({"input": [said("x"), {"type": "additional_tools", "tools": 7}]}, "input[1].tools"),
        ({"instructions": 7}, "instructions"),
        ({"tools": [{"type": "namespace", "name": "n"}]}, "tools[0].tools"),
        ({"tools": [{"type": "custom", "name": ""}]}, "tools[0].name"),
        ({"tool_choice": "some"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "x", "tools": []}}, "tool_choice.mode"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"reasoning": {"effort": 7}}, "reasoning.effort"),
        ({"temperature": "hot"}, "temperature"),
        ({"include": "all"}, "include"),
    ],
)
def test_a_fault_is_named_by_its_path(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadParameter) as wrong:
        parse(**{"value": "Hi", **{("value" if key == "input" else key): value for key, value in body.items()}})
    assert wrong.value.param == param


@pytest.mark.parametrize("name", ["previous_response_id", "conversation", "prompt", "background"])
def test_what_only_the_vendor_keeps_is_refused_in_words(name: str) -> None:
    with pytest.raises(Unsupported, match=f"^{name} ") as refused:
        parse(**{name: True if name == "background" else "x_1"})
    assert refused.value.param == name
