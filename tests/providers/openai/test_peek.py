from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from relay.errors import BadParameter
from relay_openai.body import estimate_input
from relay_openai.dialect import OpenAIChat

USER = {"role": "user", "content": "Hi"}


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [USER], **fields}).encode()


def peek(raw: bytes) -> Any:
    return OpenAIChat().peek(raw, "generate", {}, {"openai-organization": "org-1", "authorization": "x"})


def test_the_head_holds_what_the_core_needs_and_no_header_of_the_caller() -> None:
    raw = body(stream=True, n=3, max_tokens=5, max_completion_tokens=7, tools=[{"type": "function"}])
    head = peek(raw)
    assert (head.model, head.stream, head.choices, head.max_output, head.has_tools) == ("m", True, 3, 7, True)
    assert head.raw is raw
    assert head.headers == {}


def test_null_means_the_same_as_absent() -> None:
    head = peek(body(stream=None, n=None, max_tokens=None, tools=None, functions=None))
    assert (head.stream, head.choices, head.max_output, head.has_tools) == (False, 1, None, False)


def test_old_functions_count_as_tools() -> None:
    assert peek(body(functions=[{"name": "f"}])).has_tools


@pytest.mark.parametrize(
    ("raw", "param", "words"),
    [
        (b"", None, "empty"),
        (b" \n", None, "empty"),
        (b'{"model": "m", ', None, "not JSON"),
        (b'{"model": NaN}', None, "not JSON"),
        (b"[1]", None, "must be a JSON object"),
        (b'"model"', None, "must be a JSON object"),
        (b"\xef\xbb\xbf{}", None, "byte order mark"),
        (b'{"model": "\xff"}', None, "byte 11"),
        (b"[" * 100_000, None, "not JSON"),
        (b'{"model":"a","messages":[{}],"model":"b"}', "model", "more than one model"),
        (b'{"model":"a","messages":[{}],"\\u006dodel":"b"}', "model", "more than one model"),
        (b'{"mod\\u0065l":"a","messages":[{}],"model":"b"}', "model", "more than one model"),
        (b"{}", "model", "missing"),
        (body(model=None), "model", "missing"),
        (body(model=""), "model", "empty"),
        (body(model=3), "model", "not a number"),
        (body(model="m" * 257), "model", "256"),
        (body(model="a\nb"), "model", "control"),
        (b'{"model":"m"}', "messages", "missing"),
        (body(messages=[]), "messages", "empty"),
        (body(messages={}), "messages", "an array, not an object"),
        (body(messages=[USER, "x"]), "messages[1]", "not a string"),
        (body(stream="yes"), "stream", "a boolean, not a string"),
        (body(stream=1), "stream", "a boolean"),
        (body(n=0), "n", "between 1 and 128"),
        (body(n=129), "n", "between"),
        (body(n=True), "n", "not a boolean"),
        (body(max_tokens=0), "max_tokens", "between"),
        (body(max_tokens=2**31), "max_tokens", "between"),
        (body(max_tokens=1.0), "max_tokens", "an integer"),
        (body(max_completion_tokens=True), "max_completion_tokens", "not a boolean"),
        (body(tools={}), "tools", "an array"),
        (body(tools=[1]), "tools[0]", "an object"),
        (body(functions="f"), "functions", "an array"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_with_the_place_and_the_reason(
    raw: bytes, param: str | None, words: str
) -> None:
    with pytest.raises(BadParameter, match=words) as caught:
        peek(raw)
    assert caught.value.param == param
    assert caught.value.status == 400


def test_a_fault_never_shows_what_the_body_holds() -> None:
    with pytest.raises(BadParameter) as caught:
        peek(b'{"model": "m", "secret-word": "s3cr3t" oops')
    assert "s3cr3t" not in caught.value.message
    assert "secret" not in caught.value.message


def test_a_model_key_inside_of_something_else_is_no_second_model() -> None:
    raw = b'{"tools":[{"model":"x"},{"model":"y"}],"model":"m","messages":[{"content":"\\"model\\": \\u0061"}]}'
    assert peek(raw).model == "m"


def test_deep_nesting_beside_a_suspicious_key_is_refused_and_not_a_crash() -> None:
    deep = b'{"a":' * 1000 + b"1" + b"}" * 1000
    raw = b'{"model":"m","messages":[{"model":1}],"x":' + deep + b"}"
    with pytest.raises(BadParameter, match=r"nested|not JSON"):
        peek(raw)


def test_the_estimate_counts_text_media_and_tools_but_never_base64() -> None:
    text = estimate_input(orjson.loads(body(messages=[{"role": "user", "content": "x" * 4000}])))
    assert 1000 <= text <= 1010
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    media = estimate_input(orjson.loads(body(messages=[{"role": "user", "content": [picture]}])))
    assert 500 <= media <= 2000
    tool = {"type": "function", "function": {"name": "f", "description": "d" * 400}}
    assert estimate_input(orjson.loads(body(tools=[tool]))) >= 100
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "y" * 400}}
    spoken = {"role": "assistant", "content": None, "reasoning_content": "z" * 400, "tool_calls": [call]}
    assert estimate_input(orjson.loads(body(messages=[spoken]))) >= 200


@pytest.mark.parametrize(
    "message",
    [
        {"content": 5},
        {"content": [5, {"type": 3}, {"type": "text", "text": None}]},
        {"tool_calls": "x"},
        {"tool_calls": [None, {"function": 7}, {"function": {"arguments": {}}}]},
        {"refusal": [], "reasoning_content": {}},
    ],
)
def test_the_estimate_survives_messages_that_are_not_what_they_should_be(message: dict[str, Any]) -> None:
    assert peek(body(messages=[message])).input_estimate >= 4
