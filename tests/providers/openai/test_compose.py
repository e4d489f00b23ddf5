from __future__ import annotations

import base64
import json
from typing import Any

import orjson
import pytest

from relay import Target, Upstream
from relay.errors import Unsupported
from relay.ir import (
    Cache,
    Loss,
    Media,
    Message,
    Opaque,
    Output,
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
from relay_openai import translate_request
from relay_openai.compose import compose
from relay_openai.request import parse_request

USER = Message("user", [Text("Hi")])


def written(request: Request, model: str = "m", **options: Any) -> tuple[dict[str, Any], list[str]]:
    losses: list[Loss] = []
    target = Target(Upstream("u", "openai", "https://u.test/v1", options=options), model)
    body = translate_request(request, target, losses)
    return orjson.loads(body), [loss.field for loss in losses]


def messages(*turns: Message, **options: Any) -> tuple[list[Any], list[str]]:
    body, losses = written(Request("x", list(turns)), **options)
    return body["messages"], losses


def sent(**fields: Any) -> tuple[dict[str, Any], list[str]]:
    options = fields.pop("options", {})
    model = fields.pop("model", "m")
    body, losses = written(Request("x", [USER], **fields), model, **options)
    del body["messages"], body["model"]
    return body, losses


def test_a_turn_is_written_as_plainly_as_it_can_be() -> None:
    got, losses = messages(
        Message("system", [Text("One"), Text("Two")]),
        USER,
        Message("assistant", [Text("A"), Text("B")]),
        Message("user", [Text("x"), Text("y")]),
        Message("assistant", [Refusal("No")]),
        Message("user", [Text("")], name="bob"),
    )
    assert got == [
        {"role": "system", "content": "One\n\nTwo"},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "AB"},
        {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]},
        {"role": "assistant", "refusal": "No", "content": None},
        {"role": "user", "content": "", "name": "bob"},
    ]
    assert losses == []


def test_answers_of_tools_stand_right_after_their_calls_and_media_after_all_of_them() -> None:
    picture = Media("image", "image/png", data="AAAA")
    got, losses = messages(
        Message("assistant", [Text("Look"), ToolCall("a", "f", ""), ToolCall("b", "g", '{"x": 1}')]),
        Message("user", [ToolResult("a", [Text("one"), Text("two"), picture])]),
        Message("user", [Text("And?"), ToolResult("b", [], is_error=True)]),
        USER,
    )
    shown = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert got == [
        {
            "role": "assistant",
            "content": "Look",
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "b", "type": "function", "function": {"name": "g", "arguments": '{"x": 1}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "one\ntwo"},
        {"role": "tool", "tool_call_id": "b", "content": ""},
        {"role": "user", "content": [shown, {"type": "text", "text": "And?"}]},
        {"role": "user", "content": "Hi"},
    ]
    assert losses == ["tool result media", "tool result is_error"]


def test_media_of_the_last_answer_are_not_forgotten() -> None:
    got, _ = messages(Message("user", [ToolResult("a", [Media("image", url="https://x.test/a")])]))
    assert [message["role"] for message in got] == ["tool", "user"]
    got, _ = messages(
        Message("user", [ToolResult("a", [Media("image", url="https://x.test/a")])]),
        Message("assistant", [Text("I see")]),
    )
    assert [message["role"] for message in got] == ["tool", "user", "assistant"]


def test_media_are_written_in_their_own_forms() -> None:
    got, losses = messages(
        Message(
            "user",
            [
                Media("image", url="https://x.test/a.png", detail="high"),
                Media("audio", "audio/wav", data="AAAA"),
                Media("document", "application/pdf", data="BBBB"),
                Media("document", "application/pdf", data="BBBB", name="a.pdf"),
                Media("document", "text/plain", data=base64.b64encode("Grüße".encode()).decode()),
                Media("document", file_id="file-1"),
                Media("video", url="https://x.test/v"),
            ],
        )
    )
    assert got[0]["content"] == [
        {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "high"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,BBBB", "filename": "document.pdf"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,BBBB"}},
        {"type": "text", "text": "Grüße"},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "video_url", "video_url": {"url": "https://x.test/v"}},
    ]
    assert losses == []


@pytest.mark.parametrize(
    "part",
    [
        Media("image", file_id="file-1"),
        Media("audio", url="https://x.test/a"),
        Media("document", "text/plain", data="AAA"),
    ],
)
def test_content_that_the_model_could_not_see_is_refused(part: Media) -> None:
    with pytest.raises(Unsupported):
        messages(Message("user", [part]))


def test_reasoning_goes_back_only_to_the_dialect_it_came_from() -> None:
    details = [{"type": "reasoning.text", "text": "r", "signature": "s"}]
    own = Thinking("r", dialect="openai-chat", extra={"openai-chat": {"reasoning": "r", "reasoning_details": details}})
    got, losses = messages(
        Message("assistant", [own, Text("A")]),
        Message("assistant", [Thinking("plain", dialect="openai-chat"), Text("B")]),
        Message("assistant", [Thinking("secret", "sig", dialect="other"), Text("C")]),
    )
    assert got == [
        {"role": "assistant", "reasoning": "r", "reasoning_details": details, "content": "A"},
        {"role": "assistant", "reasoning_content": "plain", "content": "B"},
        {"role": "assistant", "content": "C"},
    ]
    assert losses == ["thinking"]


def test_what_has_no_place_is_a_loss_and_never_silent() -> None:
    request = Request(
        "x",
        [
            Message("user", [Text("x", cache=Cache("1h")), Opaque("other", {"type": "y"}), Opaque("other", 5)]),
            Message("assistant", [ToolCall("s", "web", "{}", server=True), ToolResult("s", []), Text("z")]),
            Message("assistant", [Media("image", data="AAAA"), Text("z")]),
        ],
        tools=[Opaque("other", {"type": "computer"}), Tool("f", cache=Cache())],
        sampling=Sampling(top_k=5),
        extra={"other": {"container": "c", "metadata": {"a": 1}}},
    )
    body, losses = written(request)
    assert losses == [
        "container",
        "content",
        "content",
        "cache_control",
        "server tool calls",
        "server tool results",
        "assistant media",
        "tools",
        "top_k",
    ]
    assert body["messages"][0] == {"role": "user", "content": "x"}
    assert body["messages"][1] == {"role": "assistant", "content": "z"}
    assert [tool["function"]["name"] for tool in body["tools"]] == ["f"]


def test_a_loss_is_told_once_for_each_kind() -> None:
    turns = [Message("user", [Text("x", cache=Cache())]) for _ in range(5)]
    assert messages(*turns)[1] == ["cache_control"]


def test_a_host_that_takes_cache_markers_gets_them() -> None:
    request = Request(
        "x",
        [Message("system", [Text("S", cache=Cache("1h"))]), Message("user", [ToolResult("a", [], cache=Cache())])],
        tools=[Tool("f", cache=Cache())],
    )
    body, losses = written(request, cache_control=True)
    assert losses == []
    marked = {"type": "text", "text": "S", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    assert body["messages"][0]["content"] == [marked]
    assert body["messages"][1]["cache_control"] == {"type": "ephemeral"}
    assert body["tools"][0]["cache_control"] == {"type": "ephemeral"}


def test_tools_are_written_with_everything_that_they_say() -> None:
    body, losses = sent(
        tools=[Tool("f", "d", {"type": "object"}, True), Tool("g"), Opaque("openai-chat", {"type": "custom"})],
        tool_choice=ToolChoice("tool", "f"),
        parallel_tools=False,
    )
    assert body == {
        "tools": [
            {
                "type": "function",
                "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True},
            },
            {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}},
            {"type": "custom"},
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
    }
    assert losses == []


@pytest.mark.parametrize("mode", ["auto", "none", "required"])
def test_a_choice_is_a_word_and_only_where_there_are_tools(mode: Any) -> None:
    assert sent(tools=[Tool("f")], tool_choice=ToolChoice(mode))[0]["tool_choice"] == mode
    assert sent(tool_choice=ToolChoice(mode), parallel_tools=True)[0] == {}


def test_sampling_is_passed_on_and_the_limit_is_named_as_the_host_wants_it() -> None:
    sampling = Sampling(
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        stop=["a"],
        seed=1,
        choices=2,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        logprobs=True,
        top_logprobs=4,
    )
    body, losses = sent(sampling=sampling, options={"top_k": True})
    assert body == {
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "stop": ["a"],
        "seed": 1,
        "n": 2,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
        "logprobs": True,
        "top_logprobs": 4,
    }
    assert losses == []
    body, _ = sent(sampling=Sampling(max_tokens=5), options={"max_tokens_field": "max_completion_tokens"})
    assert body == {"max_completion_tokens": 5}


def test_a_model_that_fixes_its_sampling_is_not_asked_to_change_it() -> None:
    body, losses = sent(model="o3", sampling=Sampling(temperature=0.2, top_p=1, max_tokens=5))
    assert body == {"max_tokens": 5}
    assert losses == ["temperature"]
    assert sent(model="gpt-4o", sampling=Sampling(temperature=0.2))[0] == {"temperature": 0.2}


@pytest.mark.parametrize(
    ("output", "options", "wanted", "losses"),
    [
        (Output("text"), {}, None, []),
        (Output("json"), {}, {"type": "json_object"}, []),
        (
            Output("schema", {"a": 1}, "n", "d", True),
            {},
            {
                "type": "json_schema",
                "json_schema": {"name": "n", "description": "d", "schema": {"a": 1}, "strict": True},
            },
            [],
        ),
        (
            Output("schema", {"a": 1}),
            {},
            {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"a": 1}}},
            [],
        ),
        (Output("schema", {"a": 1}), {"json_schema": False}, {"type": "json_object"}, ["output schema"]),
    ],
)
def test_the_form_of_the_answer_is_asked_for(
    output: Output, options: dict[str, Any], wanted: Any, losses: list[str]
) -> None:
    body, lost = sent(output=output, options=options)
    assert body.get("response_format") == wanted
    assert lost == losses


@pytest.mark.parametrize(
    ("reasoning", "form", "wanted", "losses"),
    [
        (Reasoning(effort="low"), "effort", {"reasoning_effort": "low"}, []),
        (Reasoning(effort="max"), "effort", {"reasoning_effort": "high"}, ["reasoning effort"]),
        (Reasoning(budget=1024), "effort", {"reasoning_effort": "low"}, ["reasoning budget"]),
        (Reasoning(budget=10000), "effort", {"reasoning_effort": "medium"}, ["reasoning budget"]),
        (Reasoning(budget=32000), "effort", {"reasoning_effort": "high"}, ["reasoning budget"]),
        (Reasoning(enabled=True), "effort", {}, []),
        (Reasoning(enabled=False), "effort", {}, ["reasoning"]),
        (Reasoning(budget=1024, effort="low"), "object", {"reasoning": {"max_tokens": 1024}}, []),
        (Reasoning(effort="low", enabled=True), "object", {"reasoning": {"effort": "low", "enabled": True}}, []),
        (Reasoning(enabled=False), "object", {"reasoning": {"enabled": False}}, []),
        (Reasoning(summary="auto"), "object", {}, []),
        (Reasoning(enabled=False), "thinking", {"thinking": {"type": "disabled"}}, []),
        (Reasoning(effort="none"), "thinking", {"thinking": {"type": "disabled"}}, []),
        (
            Reasoning(effort="high"),
            "thinking",
            {"thinking": {"type": "enabled"}, "reasoning_effort": "high"},
            [],
        ),
        (Reasoning(budget=5), "thinking", {"thinking": {"type": "enabled"}}, ["reasoning budget"]),
        (Reasoning(effort="low"), "none", {}, ["reasoning"]),
        (Reasoning(enabled=False), "none", {}, []),
    ],
)
def test_reasoning_is_asked_for_in_the_hosts_own_way(
    reasoning: Reasoning, form: str, wanted: dict[str, Any], losses: list[str]
) -> None:
    assert sent(reasoning=reasoning, options={"reasoning": form}) == (wanted, losses)


def test_a_model_that_cannot_reason_is_not_told_how_to() -> None:
    assert sent(model="gpt-4o", reasoning=Reasoning(effort="low")) == ({}, ["reasoning"])
    assert sent(model="gpt-5", reasoning=Reasoning(effort="low"))[0] == {"reasoning_effort": "low"}


def test_a_stream_is_asked_to_count_unless_the_host_refuses_the_question() -> None:
    assert sent(stream=True)[0] == {"stream": True, "stream_options": {"include_usage": True}}
    assert sent(stream=True, options={"include_usage": False})[0] == {"stream": True}
    own = {"openai-chat": {"stream_options": {"x": 1}}}
    assert sent(stream=True, extra=own)[0]["stream_options"] == {"x": 1, "include_usage": True}
    assert sent(extra=own)[0] == {}


def test_fields_are_dropped_and_renamed_as_the_host_needs_it() -> None:
    options = {"drop": ["user"], "rename": {"seed": "random_seed"}}
    body, losses = sent(user="u", sampling=Sampling(seed=3), options=options)
    assert body == {"random_seed": 3}
    assert losses == ["user"]


def test_ids_of_calls_fit_a_host_that_insists_on_their_length() -> None:
    turns = [
        Message("assistant", [ToolCall("toolu_01ABC", "f", "{}"), ToolCall("abcDEF123", "f", "{}")]),
        Message("user", [ToolResult("toolu_01ABC", [Text("x")]), ToolResult("abcDEF123", [Text("y")])]),
    ]
    got, _ = messages(*turns, tool_id_length=9)
    ids = [call["id"] for call in got[0]["tool_calls"]]
    assert [message["tool_call_id"] for message in got[1:]] == ids
    assert ids[1] == "abcDEF123"
    assert len(ids[0]) == 9
    assert ids[0].isalnum()


def test_the_role_of_a_developer_is_kept_where_hosts_know_it() -> None:
    turn = Message("system", [Text("D")], extra={"openai-chat": {"role": "developer"}})
    assert messages(turn)[0] == [{"role": "system", "content": "D"}]
    assert messages(turn, developer_role=True)[0] == [{"role": "developer", "content": "D"}]


def test_a_request_of_this_dialect_comes_back_equal() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
    body = {
        "model": "m",
        "messages": [
            {"role": "developer", "content": "D"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}},
                    picture,
                    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
                    {"type": "file", "file": {"file_id": "f", "vendor": 1}},
                    {"type": "hologram", "x": 1},
                ],
                "name": "bob",
            },
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "why",
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{ "z":1, "a" : 2.0}'}},
                    {"id": "b", "type": "custom", "custom": {"name": "c", "input": "***"}},
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "1", "name": "f"},
            {"role": "tool", "tool_call_id": "b", "content": "2", "cache_control": {"type": "ephemeral"}},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "h"}]}]},
            {"role": "user", "content": "y", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            {"role": "assistant", "content": "", "audio": {"id": "a1"}, "prefix": True},
        ],
        "tools": [
            {"type": "function", "function": {"name": "f", "parameters": {"b": 1, "a": 2}, "x": 1}, "y": 2},
            {"type": "custom", "custom": {"name": "c"}},
        ],
        "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}},
        "response_format": {"type": "json_object", "schema": {"a": 1}},
        "reasoning": {"max_tokens": 5, "exclude": True},
        "thinking": {"type": "enabled", "x": 1},
        "temperature": 1,
        "stop": ["a"],
        "stream": True,
        "stream_options": {"include_usage": True, "include_obfuscation": False},
        "store": False,
        "metadata": {"a": "b"},
        "logit_bias": {"5": -1},
        "user": "u",
    }
    options = {"developer_role": True, "cache_control": True}
    losses: list[Loss] = []
    target = Target(Upstream("u", "openai", "https://u.test/v1", options=options), "m")
    again = compose(parse_request(json.loads(json.dumps(body))), target, losses)
    wanted = json.loads(json.dumps(body))
    # Documented: an assistant turn of nothing but sound has no content.
    wanted["messages"][7]["content"] = None
    assert again == wanted
    assert losses == []


def test_old_functions_are_written_as_tools() -> None:
    body = {
        "model": "m",
        "messages": [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "1"},
        ],
        "functions": [{"name": "f", "parameters": {"type": "object"}}],
        "function_call": {"name": "f"},
    }
    got, losses = written(parse_request(body))
    call = got["messages"][1]["tool_calls"][0]
    assert call["function"] == {"name": "f", "arguments": "{}"}
    assert got["messages"][2] == {"role": "tool", "tool_call_id": call["id"], "content": "1"}
    assert got["tools"] == [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    assert got["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert "functions" not in got
    assert "function_call" not in got
    assert losses == []
