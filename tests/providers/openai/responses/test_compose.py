"""Requests of other dialects, written for hosts that speak Responses and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay import Target, Upstream
from relay.errors import Unsupported, UpstreamError
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
from relay_openai import endpoint, translate_request, translate_response
from relay_openai.responses.wire import DIALECT

USER = Message("user", [Text("Hi")])


def target(model: str = "m", *dialects: str, **options: Any) -> Target:
    upstream = Upstream("u", "openai", "https://u.test/v1", dialects=frozenset(dialects or (DIALECT,)), options=options)
    return Target(upstream, model)


def written(request: Request, model: str = "m", **options: Any) -> tuple[dict[str, Any], list[str]]:
    losses: list[Loss] = []
    body = json.loads(translate_request(request, target(model, **options), losses))
    return body, [loss.field for loss in losses]


def items(*turns: Message) -> tuple[list[Any], list[str]]:
    body, losses = written(Request("x", list(turns)))
    return body["input"], losses


def test_the_dialects_of_an_upstream_decide_in_which_it_is_asked() -> None:
    for dialects, path in (
        ((DIALECT,), "/v1/responses"),
        (("openai-chat", DIALECT), "/v1/chat/completions"),
        (("openai-chat",), "/v1/chat/completions"),
        ((), "/v1/chat/completions"),
    ):
        upstream = Upstream("u", "openai", "https://u.test/v1", dialects=frozenset(dialects))
        asked = Target(upstream, "m")
        sent = endpoint(asked, "generate", b"", False, {}, "")
        assert sent is not None
        assert sent.url.endswith(path)
        body = json.loads(translate_request(Request("x", [USER]), asked, []))
        assert ("input" in body) == (path == "/v1/responses")


def test_an_answer_in_the_background_is_an_error_for_those_who_cannot_come_back_for_it() -> None:
    body = json.dumps({"object": "response", "status": "queued", "output": []}).encode()
    with pytest.raises(UpstreamError, match="in the background") as caught:
        translate_response(target(), body, "")
    assert (caught.value.code, caught.value.retryable) == ("upstream_background", False)
    assert translate_response(target(), body, DIALECT).choices == []


def test_a_question_is_told_in_a_few_words() -> None:
    body, losses = written(Request("x", [Message("system", [Text("Be brief.")]), USER], stream=True, user="ann"))
    assert body == {
        "model": "m",
        "instructions": "Be brief.",
        "input": [{"type": "message", "role": "user", "content": "Hi"}],
        "stream": True,
        "store": False,
        "user": "ann",
    }
    assert losses == []


def test_a_lone_system_message_is_the_input() -> None:
    body, _ = written(Request("x", [Message("system", [Text("Go.")])]))
    assert body["input"] == [{"type": "message", "role": "system", "content": "Go."}]
    assert "instructions" not in body
    with pytest.raises(Unsupported, match="nothing to answer"):
        written(Request("x", [Message("user", [])]))


def test_a_whole_conversation_is_a_row_of_items() -> None:
    thought = Thinking("Hm.", signature="enc", dialect=DIALECT, extra={DIALECT: {"id": "rs_1"}})
    call = ToolCall("call_1", "look", '{ "at": "sky" }')
    shown, losses = items(
        USER,
        Message("assistant", [thought, Text("Let me see."), call, ToolCall("call_2", "look", "")]),
        Message("user", [ToolResult("call_1", [Text("blue")]), ToolResult("call_2", []), Text("And now?")]),
        Message("assistant", [Refusal("No.")]),
    )
    assert shown == [
        {"type": "message", "role": "user", "content": "Hi"},
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "Hm."}],
            "encrypted_content": "enc",
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}],
        },
        {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": '{ "at": "sky" }'},
        {"type": "function_call", "call_id": "call_2", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "blue"},
        {"type": "function_call_output", "call_id": "call_2", "output": ""},
        {"type": "message", "role": "user", "content": "And now?"},
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    ]
    assert losses == []


def test_media_have_their_own_forms() -> None:
    shown, losses = items(
        Message(
            "user",
            [
                Media("image", "image/png", data="iVBO", detail="low"),
                Media("image", url="https://example.com/a.png"),
                Media("image", file_id="file-1"),
                Media("document", "application/pdf", data="JVBE", name="a.pdf"),
                Media("document", "text/plain", data="SGk="),
                Media("document", url="https://example.com/a.pdf"),
                Media("document", file_id="file-2"),
                Media("audio", "audio/mpeg", data="UklG"),
                Text("What is all this?"),
            ],
        )
    )
    assert shown[0]["content"] == [
        {"type": "input_image", "image_url": "data:image/png;base64,iVBO", "detail": "low"},
        {"type": "input_image", "image_url": "https://example.com/a.png"},
        {"type": "input_image", "file_id": "file-1"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"},
        {"type": "input_file", "file_data": "data:text/plain;base64,SGk=", "filename": "document"},
        {"type": "input_file", "file_url": "https://example.com/a.pdf"},
        {"type": "input_file", "file_id": "file-2"},
        {"type": "input_audio", "input_audio": {"data": "UklG", "format": "mp3"}},
        {"type": "input_text", "text": "What is all this?"},
    ]
    assert losses == []
    for media in (Media("video", url="https://example.com/a.mp4"), Media("audio", url="https://example.com/a.mp3")):
        with pytest.raises(Unsupported, match="the target takes"):
            items(Message("user", [media]))


def test_what_the_target_cannot_carry_is_told() -> None:
    request = Request(
        "x",
        [
            Message("user", [Text("Hi", cache=Cache()), Opaque("elsewhere", {})], name="ann"),
            Message(
                "assistant",
                [
                    Thinking("Hm.", signature="s", dialect="elsewhere"),
                    ToolCall("1", "search", "{}", server=True),
                    ToolResult("1", [Text("found")]),
                    Media("image", data="iVBO"),
                    Opaque("elsewhere", {}),
                    Text("Done."),
                ],
            ),
            Message("user", [ToolResult("2", [Text("broken")], is_error=True)]),
        ],
        tools=[Opaque("elsewhere", {"type": "search"})],
        sampling=Sampling(stop=["END"], seed=0, top_k=5, frequency_penalty=0.5, presence_penalty=0.5),
        reasoning=Reasoning(budget=4000),
        extra={"elsewhere": {"odd": 1}},
    )
    body, losses = written(request)
    assert losses == [
        "messages[].name",
        "cache_control",
        "content",
        "thinking",
        "server tool calls",
        "server tool results",
        "assistant media",
        "tool result is_error",
        "tools",
        "top_k",
        "stop",
        "seed",
        "frequency_penalty",
        "presence_penalty",
        "reasoning budget",
        "odd",
    ]
    assert body["input"][1]["content"][0]["text"] == "Done."


def test_tools_and_how_they_are_chosen() -> None:
    schema = {"type": "object", "properties": {}}
    request = Request(
        "x",
        [USER],
        tools=[
            Tool("one", "does one", {"type": "object", "properties": {"a": {"type": "string"}}}, strict=True),
            Tool("two", cache=Cache()),
            Opaque(DIALECT, {"type": "web_search"}),
        ],
        tool_choice=ToolChoice("tool", "one"),
        parallel_tools=False,
    )
    body, losses = written(request)
    assert body["tools"] == [
        {
            "type": "function",
            "name": "one",
            "description": "does one",
            "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
            "strict": True,
        },
        {"type": "function", "name": "two", "parameters": schema, "strict": False},
        {"type": "web_search"},
    ]
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ({"type": "function", "name": "one"}, False)
    assert losses == ["cache_control"]
    for choice, word in (
        (ToolChoice("required"), "required"),
        (ToolChoice("none"), "none"),
        (ToolChoice("tool"), "required"),
    ):
        request.tool_choice = choice
        assert written(request)[0]["tool_choice"] == word
    request.tools = []
    assert not written(request)[0].keys() & {"tools", "tool_choice", "parallel_tool_calls"}


def test_sampling_and_the_form_of_the_answer() -> None:
    sampling = Sampling(max_tokens=100, temperature=0.5, top_p=0.9, logprobs=True, top_logprobs=3, choices=1)
    output = Output("schema", {"type": "object"}, "place", "where", strict=True)
    own = {"verbosity": "low", "metadata": {"a": "b"}, "logit_bias": {"1": 1}}
    body, losses = written(Request("x", [USER], sampling=sampling, output=output, extra={"openai-chat": own}))
    del body["input"]
    assert body == {
        "model": "m",
        "max_output_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_logprobs": 3,
        "include": ["message.output_text.logprobs"],
        "text": {
            "format": {
                "type": "json_schema",
                "name": "place",
                "schema": {"type": "object"},
                "description": "where",
                "strict": True,
            },
            "verbosity": "low",
        },
        "metadata": {"a": "b"},
        "store": False,
    }
    assert losses == ["logit_bias"]
    for kind, schema, form in (("json", None, "json_object"), ("schema", None, "json_object"), ("text", None, "text")):
        body, _ = written(Request("x", [USER], output=Output(kind, schema)))  # type: ignore[arg-type]
        assert body["text"] == {"format": {"type": form}}
    with pytest.raises(Unsupported, match="one choice"):
        written(Request("x", [USER], sampling=Sampling(choices=2)))


def test_reasoning_models_are_told_what_they_take() -> None:
    asked = Request("x", [USER], sampling=Sampling(temperature=0.5, top_p=1, logprobs=True))
    body, losses = written(asked, "o3")
    assert not body.keys() & {"temperature", "top_p", "top_logprobs"}
    assert losses == ["temperature", "logprobs"]
    # Without a vendor that keeps the conversation, reasoning has to travel with it.
    assert body["include"] == ["reasoning.encrypted_content"]


@pytest.mark.parametrize(
    ("reasoning", "expected", "losses"),
    [
        (Reasoning(effort="low"), {"effort": "low", "summary": "auto"}, []),
        (Reasoning(effort="low", summary="none"), {"effort": "low"}, []),
        (Reasoning(enabled=False), {"effort": "none"}, []),
        (Reasoning(enabled=True), {"summary": "auto"}, []),
        (Reasoning(budget=1000), {"effort": "low", "summary": "auto"}, ["reasoning budget"]),
        (Reasoning(budget=10**5, summary="detailed"), {"effort": "high", "summary": "detailed"}, ["reasoning budget"]),
    ],
)
def test_reasoning_is_a_word(reasoning: Reasoning, expected: dict[str, str], losses: list[str]) -> None:
    body, lost = written(Request("x", [USER], reasoning=reasoning))
    assert (body["reasoning"], lost) == (expected, losses)
    _, lost = written(Request("x", [USER], reasoning=reasoning), reasoning="none")
    assert lost == ([] if reasoning.enabled is False else ["reasoning"])


def test_a_host_may_refuse_and_rename_fields() -> None:
    request = Request("x", [USER], user="ann", sampling=Sampling(temperature=0.5))
    body, losses = written(request, drop=["user", "store"], rename={"temperature": "heat"})
    assert (body.keys(), losses) == ({"model", "input", "heat"}, ["user"])
