"""What a hub request becomes in the Messages API."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

import relay_anthropic
from relay import Target, Upstream
from relay.errors import BadParameter, Unsupported
from relay.ir import (
    Cache,
    Citation,
    Loss,
    Media,
    Message,
    Opaque,
    Output,
    Part,
    Reasoning,
    Refusal,
    Request,
    Sampling,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from relay_anthropic.citation import citation_of

OWN = "anthropic-messages"
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\nrest of the picture").decode()
JPEG = base64.b64encode(b"\xff\xd8\xff\xe0rest of the picture").decode()
PDF = base64.b64encode(b"%PDF-1.7 and so on").decode()


def send(request: Request, model: str = "claude-sonnet-4-6", **options: Any) -> tuple[dict[str, Any], list[Loss]]:
    upstream = Upstream("a", "anthropic", "https://upstream.test", options=options)
    losses: list[Loss] = []
    body = relay_anthropic.translate_request(request=request, target=Target(upstream, model), losses=losses)
    value = json.loads(body)
    assert isinstance(value, dict)
    return value, losses


def user(*parts: Part | str) -> Message:
    return Message("user", [Text(part) if isinstance(part, str) else part for part in parts])


def assistant(*parts: Part | str) -> Message:
    return Message("assistant", [Text(part) if isinstance(part, str) else part for part in parts])


def system(*parts: Part | str) -> Message:
    return Message("system", [Text(part) if isinstance(part, str) else part for part in parts])


def ask(**fields: Any) -> Request:
    return Request(model="public-name", messages=[user("hi")], **fields)


def fields_of(losses: list[Loss]) -> list[str]:
    return [loss.field for loss in losses]


def test_a_plain_question_is_small() -> None:
    body, losses = send(ask())
    assert body == {
        "model": "claude-sonnet-4-6",
        "max_tokens": 32_000,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    }
    assert losses == []


def test_model_and_streaming_stand_in_the_body() -> None:
    body, _ = send(ask(stream=True), model="claude-opus-9")
    assert body["model"] == "claude-opus-9"
    assert body["stream"] is True


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-3-haiku-20240307", 4096),
        ("claude-3-5-sonnet-latest", 8192),
        ("claude-opus-4-1", 32_000),
        ("claude-opus-12", 32_000),
    ],
)
def test_without_a_limit_the_model_gets_a_default_it_allows(model: str, expected: int) -> None:
    assert send(ask(), model)[0]["max_tokens"] == expected
    assert send(ask(), model, max_tokens=123)[0]["max_tokens"] == 123
    assert send(ask(sampling=Sampling(max_tokens=7)), model, max_tokens=123)[0]["max_tokens"] == 7


def test_leading_system_messages_become_the_system_prompt() -> None:
    request = Request("m", [system("one"), system(Text("two", cache=Cache("1h"))), user("hi")])
    body, losses = send(request)
    assert body["system"] == [
        {"type": "text", "text": "one"},
        {"type": "text", "text": "two", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ]
    assert losses == []


def test_a_late_system_message_keeps_its_place() -> None:
    request = Request("m", [user("a"), assistant("b"), system("from now on"), user("c")])
    body, losses = send(request)
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert [block["text"] for block in body["messages"][2]["content"]] == ["from now on", "c"]
    assert fields_of(losses) == ["messages[2].role"]

    body, losses = send(request, system_messages="native")
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "system", "user"]
    assert losses == []


def test_a_prompt_of_system_messages_alone_still_asks() -> None:
    body, losses = send(Request("m", [system("be brief"), system("write a poem")]))
    assert body["system"] == [{"type": "text", "text": "be brief"}]
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "write a poem"}]}]
    assert fields_of(losses) == ["messages[1].role"]


def test_an_empty_conversation_is_refused() -> None:
    with pytest.raises(Unsupported) as caught:
        send(Request("m", [user("")]))
    assert caught.value.param == "messages"


def test_turns_of_one_role_are_joined_and_blank_text_is_left_out() -> None:
    body, _ = send(Request("m", [user("a"), user(" "), user("b"), assistant(""), user("c")]))
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": text} for text in "abc"]}]


def test_an_answer_to_be_continued_does_not_end_in_white_space() -> None:
    body, _ = send(Request("m", [user("a"), assistant("The answer is ")]))
    assert body["messages"][-1]["content"] == [{"type": "text", "text": "The answer is"}]


def test_parallel_calls_and_their_results_come_first_in_one_turn() -> None:
    request = Request(
        "m",
        [
            user("weather?"),
            assistant("Let me look.", ToolCall("c1", "get", '{"b": 1.0, "a": 2}'), ToolCall("c2", "get", "")),
            user(ToolResult("c1", [Text("sun")])),
            user("and quickly", ToolResult("c2", [], is_error=True)),
        ],
    )
    body, losses = send(request)
    assert body["messages"][1]["content"][1:] == [
        {"type": "tool_use", "id": "c1", "name": "get", "input": {"b": 1.0, "a": 2}},
        {"type": "tool_use", "id": "c2", "name": "get", "input": {}},
    ]
    assert body["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "c1", "content": "sun"},
        {"type": "tool_result", "tool_use_id": "c2", "is_error": True},
        {"type": "text", "text": "and quickly"},
    ]
    assert losses == []


def test_arguments_are_sent_as_they_were_received() -> None:
    spelled = '{"b": 1.0,   "a": 10000000000000000000000}'
    request = Request("m", [user("x"), assistant(ToolCall("c1", "get", spelled)), user(ToolResult("c1", [Text("y")]))])
    target = Target(Upstream("a", "anthropic", "https://upstream.test"), "claude-test")
    assert spelled.encode() in relay_anthropic.translate_request(request=request, target=target, losses=[])


def test_broken_arguments_are_wrapped_and_reported() -> None:
    body, losses = send(Request("m", [user("x"), assistant(ToolCall("c1", "get", '{"cut'))]))
    assert body["messages"][1]["content"][0]["input"] == {"arguments": '{"cut'}
    assert fields_of(losses) == ["messages[1].tool_calls[].function.arguments"]


def test_foreign_call_ids_are_made_acceptable_and_still_match() -> None:
    body, _ = send(
        Request(
            "m",
            [
                user("x"),
                assistant(ToolCall("call:1/é", "a", "{}"), ToolCall("call:1/è", "b", "{}")),
                user(ToolResult("call:1/é", [Text("1")]), ToolResult("call:1/è", [Text("2")])),
            ],
        )
    )
    calls = [block["id"] for block in body["messages"][1]["content"]]
    results = [block["tool_use_id"] for block in body["messages"][2]["content"]]
    assert calls == results
    assert len(set(calls)) == 2
    assert all(name.replace("_", "").replace("-", "").isalnum() and name.isascii() for name in calls)


def test_tool_results_hold_text_and_pictures() -> None:
    parts: list[Part] = [Text("look"), Media("image", "image/png", data=PNG)]
    body, _ = send(Request("m", [user(ToolResult("c1", parts, cache=Cache()))]))
    assert body["messages"][0]["content"][0] == {
        "type": "tool_result",
        "tool_use_id": "c1",
        "content": [
            {"type": "text", "text": "look"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        ],
        "cache_control": {"type": "ephemeral"},
    }


@pytest.mark.parametrize(
    ("media", "block"),
    [
        (
            Media("image", url="https://pictures.test/cat.png"),
            {"type": "image", "source": {"type": "url", "url": "https://pictures.test/cat.png"}},
        ),
        (
            Media("image", url=f"data:image/png;base64,{JPEG}"),
            {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": JPEG}},
        ),
        (
            Media("image", "image/avif", data="AAAA"),
            {"type": "image", "source": {"type": "base64", "media_type": "image/avif", "data": "AAAA"}},
        ),
        (
            Media("image", file_id="file_123"),
            {"type": "image", "source": {"type": "file", "file_id": "file_123"}},
        ),
        (
            Media("document", data=PDF, name="report.pdf"),
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
                "title": "report.pdf",
            },
        ),
        (
            Media("document", "text/csv", data=base64.b64encode(b"a,b\n1,2").decode()),
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a,b\n1,2"}},
        ),
        (
            Media("document", url="https://papers.test/one.pdf", cache=Cache()),
            {
                "type": "document",
                "source": {"type": "url", "url": "https://papers.test/one.pdf"},
                "cache_control": {"type": "ephemeral"},
            },
        ),
    ],
)
def test_media_become_image_and_document_blocks(media: Media, block: dict[str, Any]) -> None:
    body, losses = send(Request("m", [user(media)]))
    assert body["messages"][0]["content"] == [block]
    assert losses == []


@pytest.mark.parametrize(
    ("media", "message"),
    [
        (Media("audio", "audio/wav", data="AAAA"), "no audio"),
        (Media("video", url="https://films.test/a.mp4"), "no video"),
        (Media("document", "application/zip", data="AAAA"), "not application/zip"),
        (Media("image", file_id="file-openai"), "another vendor"),
    ],
)
def test_media_that_no_model_takes_are_refused(media: Media, message: str) -> None:
    with pytest.raises(Unsupported, match=message) as caught:
        send(Request("m", [user("listen"), user(media)]))
    assert caught.value.param == "messages[1].content"


def test_a_broken_data_url_is_the_callers_fault() -> None:
    with pytest.raises(BadParameter) as caught:
        send(Request("m", [user(Media("image", url="data:image/png;base64,***"))]))
    assert caught.value.param == "messages[0].content"


def test_image_detail_is_reported_once() -> None:
    media = [Media("image", url="https://p.test/a.png", detail=detail) for detail in ("low", "low", "auto")]
    assert len(send(Request("m", [user(*media)]))[1]) == 1


def test_thinking_goes_back_only_to_where_it_came_from() -> None:
    request = Request(
        "m",
        [
            user("x"),
            assistant(
                Thinking("own", signature="sig", dialect=OWN),
                Thinking("", signature="secret", redacted=True, dialect=OWN),
                Thinking("foreign", dialect="openai-chat"),
                Thinking("unsigned", dialect=OWN),
                "said",
                Refusal("no"),
            ),
            user("y"),
        ],
    )
    body, losses = send(request)
    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "own", "signature": "sig"},
        {"type": "redacted_thinking", "data": "secret"},
        {"type": "text", "text": "said"},
        {"type": "text", "text": "no"},
    ]
    assert fields_of(losses) == ["messages[1].reasoning_content"] * 2


def test_unknown_blocks_return_to_their_own_dialect_only() -> None:
    block = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}
    request = Request(
        "m",
        [
            user("x"),
            assistant(
                ToolCall("s1", "web_search", '{"q":1}', server=True, extra={OWN: {"type": "server_tool_use"}}),
                Opaque(OWN, block),
                Opaque("gemini", {"executableCode": {}}),
                ToolCall("s2", "search", "{}", server=True),
            ),
        ],
    )
    body, losses = send(request)
    assert body["messages"][1]["content"] == [
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"q": 1}},
        block,
    ]
    assert fields_of(losses) == ["messages[1].content", "messages[1].tool_calls"]


def test_tools_keep_their_whole_schema() -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "string"}}}
    body, losses = send(
        ask(
            tools=[
                Tool("one", "does one", schema, strict=True, cache=Cache()),
                Tool("two"),
                Tool("three", parameters={"properties": {}}),
                Opaque(OWN, {"type": "web_search_20250305", "name": "web_search"}),
                Opaque("openai-responses", {"type": "file_search"}),
            ]
        )
    )
    assert body["tools"] == [
        {
            "name": "one",
            "description": "does one",
            "input_schema": schema,
            "strict": True,
            "cache_control": {"type": "ephemeral"},
        },
        {"name": "two", "input_schema": {"type": "object", "properties": {}}},
        {"name": "three", "input_schema": {"type": "object", "properties": {}}},
        {"type": "web_search_20250305", "name": "web_search"},
    ]
    assert losses == [Loss("tools[4]", "a tool of type 'file_search' exists only in openai-responses")]


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (None, None, None),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice("auto"), None, {"type": "auto"}),
        (ToolChoice("none"), False, {"type": "none"}),
        (ToolChoice("required"), False, {"type": "any", "disable_parallel_tool_use": True}),
        (ToolChoice("tool", "one"), None, {"type": "tool", "name": "one"}),
    ],
)
def test_tool_choice_in_every_form(choice: ToolChoice | None, parallel: bool | None, expected: Any) -> None:
    body, losses = send(ask(tools=[Tool("one")], tool_choice=choice, parallel_tools=parallel))
    assert body.get("tool_choice") == expected
    assert losses == []


def test_a_required_call_without_tools_is_refused() -> None:
    with pytest.raises(Unsupported) as caught:
        send(ask(tool_choice=ToolChoice("required")))
    assert caught.value.param == "tool_choice"


def test_an_answers_schema_is_closed_where_it_is_open() -> None:
    schema = {
        "type": "object",
        "properties": {"list": {"type": "array", "items": {"type": "object", "properties": {}}}},
        "$defs": {"Open": {"type": "object", "additionalProperties": {"type": "string"}}},
        "anyOf": [{"type": ["object", "null"]}],
    }
    body, losses = send(ask(output=Output("schema", schema, name="list", strict=True)))
    assert body["output_config"]["format"] == {
        "type": "json_schema",
        "schema": {
            "type": "object",
            "properties": {
                "list": {"type": "array", "items": {"type": "object", "properties": {}, "additionalProperties": False}}
            },
            "$defs": {"Open": {"type": "object", "additionalProperties": {"type": "string"}}},
            "anyOf": [{"type": ["object", "null"], "additionalProperties": False}],
            "additionalProperties": False,
        },
    }
    assert "additionalProperties" not in schema
    assert losses == []


def test_json_without_a_schema_is_a_loss() -> None:
    body, losses = send(ask(output=Output("json")))
    assert "output_config" not in body
    assert fields_of(losses) == ["response_format"]


@pytest.mark.parametrize(
    ("model", "reasoning", "thinking", "effort", "lost"),
    [
        ("claude-opus-9", Reasoning(effort="high"), {"type": "adaptive", "display": "summarized"}, "high", []),
        ("claude-opus-9", Reasoning(effort="minimal"), {"type": "adaptive", "display": "summarized"}, "low", []),
        ("claude-opus-9", Reasoning(effort="xhigh"), {"type": "adaptive", "display": "summarized"}, "xhigh", []),
        ("claude-opus-9", Reasoning(enabled=True), {"type": "adaptive", "display": "summarized"}, None, []),
        (
            "claude-opus-9",
            Reasoning(effort="low", summary="none"),
            {"type": "adaptive", "display": "omitted"},
            "low",
            [],
        ),
        (
            "claude-opus-9",
            Reasoning(budget=5000),
            {"type": "adaptive", "display": "summarized"},
            "medium",
            ["reasoning.max_tokens"],
        ),
        ("claude-opus-9", Reasoning(effort="none"), {"type": "disabled"}, None, []),
        ("claude-opus-9", Reasoning(enabled=False, effort="high"), {"type": "disabled"}, None, []),
        ("claude-opus-9", Reasoning(summary="auto"), None, None, []),
        (
            "claude-sonnet-4-6",
            Reasoning(effort="xhigh"),
            {"type": "adaptive", "display": "summarized"},
            "high",
            ["reasoning_effort"],
        ),
        ("claude-sonnet-4-6", Reasoning(budget=5000), {"type": "enabled", "budget_tokens": 5000}, None, []),
        ("claude-sonnet-4-5", Reasoning(effort="medium"), {"type": "enabled", "budget_tokens": 8192}, None, []),
        ("claude-sonnet-4@20250514", Reasoning(budget=1), {"type": "enabled", "budget_tokens": 1024}, None, []),
        ("vendor/claude-haiku-4.5", Reasoning(enabled=True), {"type": "enabled", "budget_tokens": 8192}, None, []),
        ("claude-3-5-haiku-latest", Reasoning(effort="high"), None, None, ["reasoning_effort"]),
        ("claude-3-5-haiku-latest", Reasoning(effort="none"), None, None, []),
    ],
)
def test_reasoning_by_generation(
    model: str, reasoning: Reasoning, thinking: Any, effort: str | None, lost: list[str]
) -> None:
    body, losses = send(ask(reasoning=reasoning), model)
    assert body.get("thinking") == thinking
    assert body.get("output_config", {}).get("effort") == effort
    assert fields_of(losses) == lost


def test_an_option_overrules_the_models_name() -> None:
    body, _ = send(ask(reasoning=Reasoning(effort="low")), "my-model", thinking="budget")
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2048}


@pytest.mark.parametrize(
    ("limit", "expected", "lost"),
    [(50_000, 16_384, []), (10_000, 5000, ["reasoning_effort"]), (1000, None, ["reasoning_effort"])],
)
def test_a_budget_leaves_room_for_the_answer(limit: int, expected: int | None, lost: list[str]) -> None:
    request = ask(reasoning=Reasoning(effort="high"), sampling=Sampling(max_tokens=limit))
    body, losses = send(request, "claude-sonnet-4-5")
    assert body["max_tokens"] == limit
    assert body.get("thinking", {}).get("budget_tokens") == expected
    assert fields_of(losses) == lost


def test_a_large_budget_raises_the_default_limit() -> None:
    body, losses = send(ask(reasoning=Reasoning(budget=60_000)), "claude-sonnet-4-5")
    assert body["max_tokens"] > 60_000
    assert losses == []


def test_older_models_do_not_think_where_they_would_refuse() -> None:
    reasoning = Reasoning(effort="high")
    forced, losses = send(
        ask(reasoning=reasoning, tools=[Tool("t")], tool_choice=ToolChoice("required")), "claude-opus-4-1"
    )
    assert "thinking" not in forced
    assert fields_of(losses) == ["reasoning_effort"]

    turns = [user("x"), assistant(ToolCall("c", "t", "{}")), user(ToolResult("c", [Text("y")]))]
    unsigned, losses = send(Request("m", turns, tools=[Tool("t")], reasoning=reasoning), "claude-opus-4-1")
    assert "thinking" not in unsigned
    assert fields_of(losses) == ["reasoning_effort"]

    turns[1].parts.insert(0, Thinking("t", signature="s", dialect=OWN))
    signed, losses = send(Request("m", turns, tools=[Tool("t")], reasoning=reasoning), "claude-opus-4-1")
    assert signed["thinking"]["type"] == "enabled"
    assert losses == []


def test_sampling_of_models_that_take_it() -> None:
    sampling = Sampling(max_tokens=5, temperature=0.5, top_k=40, stop=["END", "\n"])
    body, losses = send(ask(sampling=sampling), "claude-sonnet-4-5")
    assert {name: body[name] for name in ("max_tokens", "temperature", "top_k", "stop_sequences")} == {
        "max_tokens": 5,
        "temperature": 0.5,
        "top_k": 40,
        "stop_sequences": ["END"],
    }
    assert fields_of(losses) == ["stop"]


@pytest.mark.parametrize(
    ("model", "sampling", "sent", "lost"),
    [
        ("claude-sonnet-4-5", Sampling(temperature=1.7), {}, ["temperature"]),
        ("claude-sonnet-4-5", Sampling(temperature=0.0, top_p=0.9), {"temperature": 0.0}, ["top_p"]),
        ("claude-sonnet-4-5", Sampling(temperature=1.0, top_p=0.9), {"top_p": 0.9}, []),
        ("claude-sonnet-4-5", Sampling(temperature=0.5, top_p=1.0), {"temperature": 0.5}, []),
        ("claude-opus-4-8", Sampling(temperature=0.5, top_k=5), {}, ["temperature", "top_k"]),
        ("claude-opus-4-8", Sampling(temperature=1, top_p=1), {}, []),
    ],
)
def test_sampling_that_cannot_be_carried_is_reported(
    model: str, sampling: Sampling, sent: dict[str, Any], lost: list[str]
) -> None:
    body, losses = send(ask(sampling=sampling), model)
    assert {name: body[name] for name in ("temperature", "top_p", "top_k") if name in body} == sent
    assert fields_of(losses) == lost


def test_a_thinking_model_is_not_told_how_to_sample() -> None:
    request = ask(sampling=Sampling(temperature=0.2, top_k=3), reasoning=Reasoning(budget=2000))
    body, losses = send(request, "claude-sonnet-4-5")
    assert "temperature" not in body
    assert fields_of(losses) == ["temperature", "top_k"]
    request = ask(sampling=Sampling(top_p=0.97), reasoning=Reasoning(budget=2000))
    assert send(request, "claude-sonnet-4-5")[0]["top_p"] == 0.97


def test_fields_without_an_equivalent_are_reported() -> None:
    request = ask(
        sampling=Sampling(
            seed=0, frequency_penalty=0.1, presence_penalty=0.0, logprobs=True, top_logprobs=3, choices=1
        ),
        extra={"openai-chat": {"logit_bias": {"5": 1}, "service_tier": "flex", "store": True}},
        user="u-1",
    )
    body, losses = send(request)
    expected = ["seed", "logprobs", "top_logprobs", "frequency_penalty", "logit_bias", "service_tier"]
    assert fields_of(losses) == expected
    assert body["metadata"] == {"user_id": "u-1"}


def test_several_choices_are_refused() -> None:
    with pytest.raises(Unsupported) as caught:
        send(ask(sampling=Sampling(choices=2)))
    assert caught.value.param == "n"


def test_names_of_messages_are_reported() -> None:
    body, losses = send(Request("m", [Message("user", [Text("x")], name="bob")]))
    assert fields_of(losses) == ["messages[].name"]
    assert "name" not in body["messages"][0]


def test_the_dialects_own_fields_come_back() -> None:
    request = ask(
        user="u",
        output=Output("schema", {"type": "string"}),
        extra={OWN: {"service_tier": "standard_only", "metadata": {"x": 1}, "output_config": {"effort": "max"}}},
    )
    body, losses = send(request)
    assert body["service_tier"] == "standard_only"
    assert body["metadata"] == {"user_id": "u", "x": 1}
    assert body["output_config"].keys() == {"format", "effort"}
    assert losses == []


def test_citations_of_this_vendor_are_kept_and_others_reported() -> None:
    own = {"type": "page_location", "cited_text": "x"}
    cited = [Text("a", citations=[citation_of(own)]), Text("b", citations=[Citation("https://a.test")])]
    request = Request("m", [user("x"), assistant(*cited)])
    body, losses = send(request)
    assert body["messages"][1]["content"] == [
        {"type": "text", "text": "a", "citations": [own]},
        {"type": "text", "text": "b"},
    ]
    assert fields_of(losses) == ["messages[1].annotations"]
