from __future__ import annotations

import json
from typing import Any

import pytest

from relay.errors import BadParameter
from relay.ir import (
    Cache,
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
from relay_openai.custom import custom_tool
from relay_openai.dialect import OpenAIChat

PNG = "iVBORw0KGgo="
USER: dict[str, Any] = {"role": "user", "content": "Hi"}
FUNCTION = {"type": "function", "function": {"name": "f"}}


def parse(**fields: Any) -> Request:
    dialect = OpenAIChat()
    raw = json.dumps({"model": "m", "messages": [USER], **fields}).encode()
    return dialect.parse(dialect.peek(raw, "generate", {}, {}))


def said(*messages: dict[str, Any]) -> list[Message]:
    return parse(messages=list(messages)).messages


def part(value: Any) -> Any:
    return said({"role": "user", "content": [value]})[0].parts[0]


def test_every_role_becomes_a_turn() -> None:
    system, developer, user, assistant, tool = said(
        {"role": "system", "content": "S"},
        {"role": "developer", "content": [{"type": "text", "text": "D"}], "name": "n"},
        {"role": "user", "content": "U", "name": "bob"},
        {
            "role": "assistant",
            "content": "A",
            "refusal": "R",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"b":1, "a":2}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "T", "name": "f"},
    )
    assert system == Message("system", [Text("S")])
    assert developer == Message("system", [Text("D")], "n", {"openai-chat": {"role": "developer"}})
    assert user == Message("user", [Text("U")], "bob")
    assert assistant == Message("assistant", [Text("A"), Refusal("R"), ToolCall("c1", "f", '{"b":1, "a":2}')])
    result = ToolResult("c1", [Text("T")], name="f", extra={"openai-chat": {"name": "f"}})
    assert tool == Message("user", [result])


def test_calls_of_the_interface_before_tools_find_their_answers() -> None:
    turns = said(
        USER,
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "2"},
    )
    calls = [p for turn in turns for p in turn.parts if isinstance(p, ToolCall)]
    results = [p for turn in turns for p in turn.parts if isinstance(p, ToolResult)]
    assert [call.id for call in calls] == [result.call_id for result in results]
    assert len({call.id for call in calls}) == 2


def test_parts_become_media() -> None:
    assert part({"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "low"}}) == Media(
        "image", url="https://x.test/a.png", detail="low"
    )
    assert part({"type": "image_url", "image_url": "https://x.test/a.png"}).url == "https://x.test/a.png"
    assert part({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}) == Media(
        "image", "image/png", data=PNG
    )
    assert part({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}) == Media(
        "audio", "audio/mpeg", data="AAAA"
    )
    assert part({"type": "file", "file": {"file_id": "file-1"}}) == Media("document", file_id="file-1")
    assert part({"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}}) == (
        Media("document", "application/pdf", data="AAAA", name="a.pdf")
    )
    assert part({"type": "file", "file": {"file_data": "JVBERi0xAAAA"}}).media_type == "application/pdf"
    assert part({"type": "video_url", "video_url": {"url": "https://x.test/v.mp4"}}) == Media(
        "video", url="https://x.test/v.mp4"
    )


def test_a_part_of_an_unknown_kind_is_carried_as_it_is() -> None:
    block = {"type": "hologram", "hologram": {"depth": 3}}
    assert part(block) == Opaque("openai-chat", block)


def test_cache_markers_are_kept_on_parts_messages_and_tools() -> None:
    assert part({"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}).cache == Cache("1h")
    turn = said({"role": "user", "content": "x", "cache_control": {"type": "ephemeral"}})[0]
    assert turn.parts[0].cache == Cache()
    tool = parse(tools=[{**FUNCTION, "cache_control": {"type": "ephemeral"}}]).tools[0]
    assert isinstance(tool, Tool)
    assert tool.cache == Cache()


def test_reasoning_comes_back_for_its_own_host() -> None:
    details = [{"type": "reasoning.text", "text": "why", "signature": "s", "format": "vendor-1"}]
    turn = said(USER, {"role": "assistant", "content": "A", "reasoning": "why", "reasoning_details": details})[1]
    thinking = turn.parts[0]
    assert isinstance(thinking, Thinking)
    assert (thinking.text, thinking.dialect) == ("why", "openai-chat")
    assert thinking.extra == {"openai-chat": {"reasoning": "why", "reasoning_details": details}}


def test_reasoning_that_the_relay_signed_goes_back_to_the_dialect_that_it_came_from() -> None:
    details = [
        {"type": "reasoning.text", "text": "one", "signature": "s1", "format": "relay:other", "index": 0},
        {"type": "reasoning.encrypted", "data": "secret", "format": "relay:other", "index": 1},
    ]
    turn = said(USER, {"role": "assistant", "content": "A", "reasoning_content": "one", "reasoning_details": details})[
        1
    ]
    assert turn.parts[:2] == [
        Thinking("one", "s1", dialect="other"),
        Thinking("", "secret", redacted=True, dialect="other"),
    ]
    assert len(turn.parts) == 3


def test_every_parameter_finds_its_place() -> None:
    request = parse(
        tools=[
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}, "strict": True}},
            {"type": "custom", "custom": {"name": "c"}},
        ],
        tool_choice={"type": "function", "function": {"name": "f"}},
        parallel_tool_calls=False,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 1}, "strict": True}},
        temperature=0.5,
        top_p=1,
        top_k=4,
        stop="END",
        seed=7,
        n=2,
        frequency_penalty=0.1,
        presence_penalty=-0.1,
        logprobs=True,
        top_logprobs=3,
        max_tokens=9,
        max_completion_tokens=10,
        reasoning_effort="low",
        user="u",
        stream=True,
        service_tier="flex",
        logit_bias={"1": 2},
    )
    assert request.tools == [
        Tool("f", "d", {}, True),
        custom_tool("c", "", None, {"openai-chat": {"type": "custom", "custom": {"name": "c"}}}),
    ]
    assert request.tool_choice == ToolChoice("tool", "f")
    assert request.parallel_tools is False
    assert request.output == Output("schema", {"a": 1}, "n", strict=True)
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.stop) == (0.5, 1, 4, ["END"])
    assert (sampling.seed, sampling.choices, sampling.max_tokens) == (7, 2, 10)
    assert (sampling.frequency_penalty, sampling.presence_penalty) == (0.1, -0.1)
    assert (sampling.logprobs, sampling.top_logprobs) == (True, 3)
    assert request.reasoning == Reasoning(effort="low")
    assert (request.user, request.stream) == ("u", True)
    assert request.extra == {"openai-chat": {"service_tier": "flex", "logit_bias": {"1": 2}}}


def test_the_newer_limit_of_output_wins_whatever_the_order() -> None:
    assert parse(max_completion_tokens=10, max_tokens=9).sampling.max_tokens == 10


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ("any", ToolChoice("required")),
        ({"function": {"name": "f"}}, ToolChoice("tool", "f")),
        ({"type": "custom", "custom": {"name": "c"}}, ToolChoice("tool", "c")),
        ({"type": "tool", "name": "f"}, ToolChoice("tool", "f")),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}}, ToolChoice("required")),
    ],
)
def test_a_choice_of_tools_is_understood_in_every_form(value: Any, wanted: ToolChoice) -> None:
    assert parse(tools=[FUNCTION], tool_choice=value).tool_choice == wanted


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"reasoning": {"max_tokens": 100}}, Reasoning(budget=100)),
        ({"reasoning": {"effort": "high", "enabled": True, "exclude": True}}, Reasoning(effort="high", enabled=True)),
        ({"thinking": {"type": "disabled"}}, Reasoning(enabled=False)),
        ({"reasoning_effort": "none"}, Reasoning(effort="none")),
    ],
)
def test_a_wish_about_reasoning_is_understood_in_every_form(fields: dict[str, Any], wanted: Reasoning) -> None:
    assert parse(**fields).reasoning == wanted


def message(**fields: Any) -> dict[str, Any]:
    return {"messages": [USER, fields]}


def content(value: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, value]}]}


def image(url: Any) -> dict[str, Any]:
    return content({"type": "image_url", "image_url": {"url": url}})


def call(**fields: Any) -> dict[str, Any]:
    return message(role="assistant", tool_calls=[fields])


PART = "messages[0].content[1]"
CALL = "messages[1].tool_calls[0]"
FAULTS: list[tuple[dict[str, Any], str]] = [
    (message(content="x"), "messages[1].role"),
    (message(role="robot", content="x"), "messages[1].role"),
    (message(role=3, content="x"), "messages[1].role"),
    (message(role="user"), "messages[1].content"),
    (message(role="system", content=None), "messages[1].content"),
    (message(role="user", content=5), "messages[1].content"),
    (message(role="user", content="x", name=5), "messages[1].name"),
    (message(role="assistant"), "messages[1].content"),
    (message(role="assistant", content="x", refusal=1), "messages[1].refusal"),
    (message(role="assistant", content="x", reasoning=1), "messages[1].reasoning"),
    (message(role="assistant", content="x", reasoning_details={}), "messages[1].reasoning_details"),
    (message(role="assistant", tool_calls={}), "messages[1].tool_calls"),
    (message(role="assistant", tool_calls=["x"]), CALL),
    (message(role="tool", content="x"), "messages[1].tool_call_id"),
    (message(role="tool", content="x", tool_call_id=7), "messages[1].tool_call_id"),
    (message(role="tool", content=7, tool_call_id="c"), "messages[1].content"),
    (message(role="function", content="x"), "messages[1].name"),
    (message(role="function", name="f", content=[]), "messages[1].content"),
    (message(role="assistant", function_call={"name": "f"}), "messages[1].function_call.arguments"),
    (message(role="assistant", function_call={"arguments": ""}), "messages[1].function_call.name"),
    (call(type="function", function={"name": "f", "arguments": ""}), f"{CALL}.id"),
    (call(id=1, type="function", function={"name": "f", "arguments": ""}), f"{CALL}.id"),
    (call(id="c", type="magic"), f"{CALL}.type"),
    (call(id="c", type="function"), f"{CALL}.function"),
    (call(id="c", type="function", function={"arguments": ""}), f"{CALL}.function.name"),
    (call(id="c", type="function", function={"name": "f", "arguments": {}}), f"{CALL}.function.arguments"),
    (call(id="c", type="custom", custom={"name": "f"}), f"{CALL}.custom.input"),
    (content("x"), PART),
    (content({"text": "x"}), f"{PART}.type"),
    (content({"type": "text"}), f"{PART}.text"),
    (content({"type": "text", "text": "x", "cache_control": "yes"}), f"{PART}.cache_control"),
    (content({"type": "image_url"}), f"{PART}.image_url"),
    (image(None), f"{PART}.image_url.url"),
    (image(""), f"{PART}.image_url.url"),
    (image("data:image/png,%89PNG"), f"{PART}.image_url.url"),
    (image("data:image/png;base64,***"), f"{PART}.image_url.url"),
    (image("data:image/png;base64,"), f"{PART}.image_url.url"),
    (image("data:;;;"), f"{PART}.image_url.url"),
    (content({"type": "image_url", "image_url": {"url": "https://x.test", "detail": 1}}), f"{PART}.image_url.detail"),
    (content({"type": "video_url", "video_url": {}}), f"{PART}.video_url.url"),
    (content({"type": "input_audio", "input_audio": {"data": "x"}}), f"{PART}.input_audio.format"),
    (content({"type": "input_audio", "input_audio": {"format": "wav"}}), f"{PART}.input_audio.data"),
    (content({"type": "file", "file": {}}), f"{PART}.file.file_id"),
    (content({"type": "file", "file": {"file_data": 1}}), f"{PART}.file.file_data"),
    (content({"type": "refusal"}), f"{PART}.refusal"),
    ({"tools": [{}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [FUNCTION, {"type": "function", "function": {}}]}, "tools[1].function.name"),
    ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]}, "tools[0].function.parameters"),
    ({"tools": [{"type": "function", "function": {"name": "f", "strict": 1}}]}, "tools[0].function.strict"),
    ({"tools": [{"type": "function", "function": {"name": "f", "description": 1}}]}, "tools[0].function.description"),
    ({"functions": [{}]}, "functions[0].name"),
    ({"tool_choice": "perhaps"}, "tool_choice"),
    ({"tool_choice": 1}, "tool_choice"),
    ({"tool_choice": {"type": "function"}}, "tool_choice.function"),
    ({"tool_choice": {"type": "function", "function": {}}}, "tool_choice.function.name"),
    ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools"),
    (
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "x"}}},
        "tool_choice.allowed_tools.mode",
    ),
    ({"function_call": "x"}, "function_call"),
    ({"function_call": {}}, "function_call.name"),
    ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": 1}}}, "response_format.json_schema.schema"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": []}, "top_p"),
    ({"top_k": 1.5}, "top_k"),
    ({"stop": 1}, "stop"),
    ({"stop": ["a", 1]}, "stop[1]"),
    ({"seed": "x"}, "seed"),
    ({"logprobs": 1}, "logprobs"),
    ({"top_logprobs": -1}, "top_logprobs"),
    ({"frequency_penalty": "x"}, "frequency_penalty"),
    ({"presence_penalty": "x"}, "presence_penalty"),
    ({"user": 1}, "user"),
    ({"reasoning_effort": 1}, "reasoning_effort"),
    ({"reasoning": 1}, "reasoning"),
    ({"reasoning": {"max_tokens": "x"}}, "reasoning.max_tokens"),
]


@pytest.mark.parametrize(("fields", "param"), FAULTS, ids=[f"{n}-{param}" for n, (_, param) in enumerate(FAULTS)])
def test_a_fault_is_named_by_its_path(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadParameter) as caught:
        parse(**fields)
    assert caught.value.param == param
    assert param in caught.value.message
    assert caught.value.status == 400


def test_the_tools_of_a_request_are_listed_with_the_paths_of_their_schemas() -> None:
    dialect = OpenAIChat()
    raw = json.dumps(
        {
            "model": "m",
            "messages": [USER],
            "tools": [{"type": "web_search"}, {"type": "function", "function": {"name": "f", "parameters": {"a": 1}}}],
            "functions": [{"name": "g"}],
        }
    ).encode()
    found = dialect.tools(dialect.peek(raw, "generate", {}, {}))
    assert found == [
        ("tools[1].function.parameters", Tool("f", parameters={"a": 1})),
        ("functions[0].parameters", Tool("g")),
    ]
