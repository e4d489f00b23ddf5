"""What the core is told of a request before it is translated, and what an upstream of the same dialect is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay import Target, Upstream
from relay.errors import BadParameter, CallerError, NoSuchMethod
from relay_openai.responses.dialect import OpenAIResponses
from relay_openai.responses.skim import PassedStream

TARGET = Target(Upstream("u", "openai", "https://u.test/v1"), "other")


def peek(body: Any, headers: dict[str, str] | None = None) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return OpenAIResponses().peek(raw, "generate", {}, headers or {})


def test_the_head() -> None:
    head = peek({"model": "m", "input": "Hi", "stream": True, "max_output_tokens": 5, "tools": [{"type": "x"}]})
    assert (head.model, head.stream, head.max_output, head.choices, head.has_tools) == ("m", True, 5, 1, True)
    bare = peek({"model": "m", "input": []})
    assert (bare.stream, bare.max_output, bare.has_tools, bare.headers) == (False, None, False, {})


def test_only_the_formats_own_header_passes() -> None:
    headers = {"openai-beta": "b=1", "authorization": "Bearer x", "openai-organization": "o", "session-id": "s"}
    assert peek({"model": "m", "input": "Hi"}, headers).headers == {"openai-beta": "b=1"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "Hi"}, "model"),
        ({"model": "m"}, "input"),
        ({"model": "m", "input": 7}, "input"),
        ({"model": "m", "input": ["x"]}, "input[0]"),
        ({"model": "m", "input": "Hi", "stream": 1}, "stream"),
        ({"model": "m", "input": "Hi", "max_output_tokens": 0}, "max_output_tokens"),
        ({"model": "m", "input": "Hi", "tools": {}}, "tools"),
        ({"model": "m", "input": "Hi", "tools": [7]}, "tools[0]"),
        (b'{"model":"a","input":"Hi","model":"b"}', "model"),
        (b"[]", None),
        (b"{", None),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(body: Any, param: str | None) -> None:
    with pytest.raises(BadParameter) as wrong:
        peek(body)
    assert wrong.value.param == param


@pytest.mark.parametrize("name", ["previous_response_id", "conversation", "prompt"])
def test_what_the_vendor_keeps_may_take_the_place_of_an_input(name: str) -> None:
    assert peek({"model": "m", name: "x"}).model == "m"


def test_the_estimate_counts_what_the_model_reads() -> None:
    long = "word " * 400
    base = peek({"model": "m", "input": "Hi"}).input_estimate
    for more in (
        {"input": long},
        {"input": [{"role": "user", "content": long}]},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": long}]}]},
        {"input": [{"type": "function_call", "arguments": long}]},
        {"input": [{"type": "custom_tool_call", "input": long}]},
        {"input": [{"type": "function_call_output", "output": long}]},
        {"input": [{"type": "reasoning", "summary": [{"text": long}]}]},
        {"instructions": long},
        {"tools": [{"type": "function", "description": long}]},
    ):
        estimate = peek({"model": "m", "input": "Hi", **more}).input_estimate
        assert 450 < estimate - base < 600, more.keys()
    picture = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 100_000}
    assert peek({"model": "m", "input": [{"role": "user", "content": [picture]}]}).input_estimate < 2000
    sealed = [{"type": "reasoning", "summary": [], "encrypted_content": "A" * 100_000}]
    assert peek({"model": "m", "input": sealed}).input_estimate < 100


def test_only_the_models_name_is_changed() -> None:
    raw = b'{ "metadata":{"model":"m"},"input" :"\\u00e9", "model": "m","x":1.0}'
    forward = OpenAIResponses().forward(peek(raw), TARGET)
    assert forward.body == raw.replace(b'"model": "m"', b'"model": "other"')
    assert forward.filter is None
    streamed = OpenAIResponses().forward(peek(raw.replace(b'"x":1.0', b'"stream":true')), TARGET)
    assert isinstance(streamed.filter, PassedStream)


@pytest.mark.parametrize(("upgrade", "status"), [("websocket", 426), ("WebSocket", 426), ("", 405), ("h2c", 405)])
def test_a_get_is_told_to_post(upgrade: str, status: int) -> None:
    with pytest.raises(CallerError) as refused:
        OpenAIResponses().peek(b"", "socket", {}, {"Upgrade": upgrade} if upgrade else {})
    assert refused.value.status == status
    assert isinstance(refused.value, NoSuchMethod) == (status == 405)
