"""Every parser is given what nobody would send: it answers, or says what is wrong in an error of its own kind."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.config import ConfigError, read_text
from relay.dialect import Dialect, Head
from relay.errors import RelayError, UpstreamProtocol
from relay.kit import NdjsonDecoder, SseDecoder
from relay.manager import Plugins
from relay.retry import LONGEST_WAIT, retry_after
from tests.effort import EFFORT, times

DIALECTS = Plugins.load().dialects
BOUNDED = settings(
    max_examples=times(60),
    deadline=None,
    # Those of the usual run are always the same, so that nobody's change fails by bad luck.
    derandomize=EFFORT == 1,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)
SMALL = 64
"""Bytes of an event after which the decoders of these tests give up."""

SIGNS = st.sampled_from([b"data:", b"data: ", b"event:", b"id:", b":", b"\n", b"\r", b"\r\n", b"\xef\xbb\xbf", b"{}"])
STREAMS = st.lists(st.one_of(SIGNS, st.binary(max_size=8)), max_size=30).map(b"".join)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The bytes in pieces; some of them may be empty."""
    ends = sorted(place % (len(data) + 1) for place in places)
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


def decoded(decoder: SseDecoder | NdjsonDecoder, pieces: list[bytes]) -> list[Any]:
    found: list[Any] = []
    for piece in pieces:
        found += decoder.feed(piece)
    return found + list(decoder.flush())


@pytest.mark.promise("H-18")
@pytest.mark.parametrize("kind", [SseDecoder, NdjsonDecoder])
@given(data=STREAMS, places=st.lists(st.integers(0, 500), max_size=8))
@BOUNDED
def test_frames_are_the_same_however_their_bytes_are_cut(
    kind: Callable[[], SseDecoder | NdjsonDecoder], data: bytes, places: list[int]
) -> None:
    assert decoded(kind(), cut(data, places)) == decoded(kind(), [data])


@pytest.mark.promise("H-18")
@pytest.mark.parametrize("kind", [SseDecoder, NdjsonDecoder])
@given(data=STREAMS, places=st.lists(st.integers(0, 500), max_size=8))
@BOUNDED
def test_frames_that_are_too_long_are_an_upstreams_fault(
    kind: Callable[[int], SseDecoder | NdjsonDecoder], data: bytes, places: list[int]
) -> None:
    with contextlib.suppress(UpstreamProtocol):
        decoded(kind(SMALL), cut(data, places))


NUMBERS = st.one_of(st.integers().map(str), st.floats().map(str))
DATES = st.datetimes().map(lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S GMT"))
WAITS = st.one_of(
    NUMBERS,
    DATES,
    st.datetimes().map(str),
    st.tuples(NUMBERS, st.sampled_from(["s", "ms", "m", "h", "d", "m1s", "h2m3.5s"])).map("".join),
    st.text(max_size=120),
    st.text("0123456789.dhms -+:,TZGMT", max_size=120),
)


@pytest.mark.promise("H-18")
@given(
    headers=st.dictionaries(
        st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset-tokens", "x-ratelimit-remaining-tokens"]),
        WAITS,
    ),
    now=st.floats(0, 4e9),
    limited=st.booleans(),
)
@BOUNDED
def test_whatever_an_upstream_asks_to_wait_is_bounded(headers: dict[str, str], now: float, limited: bool) -> None:
    wait = retry_after(headers, now, limited=limited)
    assert wait is None or 0 <= wait <= LONGEST_WAIT


CONFIG = """
[server]
host = "127.0.0.1"
port = 8000
[routing]
max_attempts = 3
[upstreams.up]
family = "openai"
base_url = "http://127.0.0.1:1/v1"
api_key = "${NAME:-none}"
[models.m]
targets = ["up/a", "up/b"]
price = {input = 1.0, output = 2.0}
"""
WORDS = st.sampled_from(
    ["[", "]", "=", '"', "${", "}", "${file:/}", "$$", "[[models]]", "\n", "1e999", "nan", "{}", "-1", "\x00", "é"]
)


@pytest.mark.promise("H-18")
@given(
    text=st.text(max_size=200), places=st.lists(st.tuples(st.integers(0, 500), WORDS, st.integers(0, 20)), max_size=6)
)
@BOUNDED
def test_configurations_are_read_or_refused(text: str, places: list[tuple[int, str, int]]) -> None:
    damaged = CONFIG
    for place, word, gone in places:
        at = place % len(damaged)
        damaged = damaged[:at] + word + damaged[at + gone :]
    for one in (text, damaged):
        with contextlib.suppress(ConfigError):
            read_text(one, "test.toml", {})


TEXTS = st.sampled_from(["", "user", "assistant", "system", "tool", "text", "function", "m", "auto", "é\ud7ff", "\x00"])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([2**31, 2**63, -(2**64), 1e300, 0.5]), TEXTS
)
FIELDS = st.sampled_from(
    [
        "model",
        "messages",
        "input",
        "contents",
        "prompt",
        "role",
        "content",
        "parts",
        "text",
        "type",
        "tools",
        "function",
        "name",
        "parameters",
        "stream",
        "max_tokens",
        "tool_choice",
        "tool_calls",
        "arguments",
        "id",
        "call_id",
        "stop",
        "n",
        "temperature",
        "response_format",
        "generationConfig",
        "requests",
        "source",
        "data",
        "media_type",
        "image_url",
        "url",
        "system",
        "thinking",
        "reasoning",
        "metadata",
    ]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(FIELDS, inner, max_size=5)),
    max_leaves=25,
)
TOOL = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
PICTURE = "data:image/png;base64,iVBORw0KGgo="
TALK = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": [{"type": "text", "text": "u"}, {"type": "image_url", "image_url": {"url": PICTURE}}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c", "content": "r"},
]
BLOCKS: list[Any] = [
    {"role": "user", "content": "u"},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "r"}]},
]
ITEMS: list[Any] = [
    {"role": "user", "content": [{"type": "input_text", "text": "u"}]},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "r"},
]
TURNS: list[Any] = [
    {"role": "user", "parts": [{"text": "u"}, {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}]},
    {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]},
    {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"r": 1}}}]},
]
GOOD: Mapping[str, dict[str, Any]] = {
    "openai-chat": {
        "model": "m",
        "messages": TALK,
        "tools": [{"type": "function", "function": TOOL}],
        "stop": ["x"],
        "n": 1,
        "response_format": {"type": "json_object"},
        "max_tokens": 5,
        "temperature": 0.5,
        "stream": True,
    },
    "openai-responses": {
        "model": "m",
        "input": ITEMS,
        "tools": [{"type": "function", **TOOL}],
        "reasoning": {"effort": "low"},
        "max_output_tokens": 20,
        "text": {"format": {"type": "text"}},
    },
    "openai-completions": {"model": "m", "prompt": ["a"], "max_tokens": 5, "logprobs": 1, "stop": "x"},
    "openai-embeddings": {"model": "m", "input": ["a", "b"], "dimensions": 5, "encoding_format": "base64"},
    "anthropic-messages": {
        "model": "m",
        "max_tokens": 50,
        "messages": BLOCKS,
        "system": [{"type": "text", "text": "s"}],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "auto"},
    },
    "gemini": {
        "contents": TURNS,
        "tools": [{"functionDeclarations": [TOOL]}],
        "systemInstruction": {"parts": []},
        "generationConfig": {"maxOutputTokens": 5, "stopSequences": ["x"]},
    },
}
PLACES = st.lists(st.tuples(st.integers(0, 200), st.sampled_from(["put", "drop"]), VALUES), min_size=1, max_size=3)


def spots(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a value: what holds it, and under which name or number."""
    pairs = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [spot for name, inner in pairs for spot in [(value, name), *spots(inner)]]


def damage(value: Any, changes: list[tuple[int, str, Any]]) -> Any:
    """The value with something else, or nothing, in some of its places."""
    found = json.loads(json.dumps(value))
    for place, what, other in changes:
        known = spots(found)
        if not known:
            break
        holder, name = known[place % len(known)]
        if what == "put":
            holder[name] = other
        else:
            del holder[name]
    return found


def read(dialect: Dialect, operation: str, raw: bytes) -> None:
    """All that the core asks of a dialect before something is sent."""
    path = {"model": "m", "collection": "models"} if dialect.name == "gemini" else {}
    with contextlib.suppress(RelayError):
        head: Head = dialect.peek(raw, operation, path, {})
        if operation == "embeddings":
            dialect.parse_embedding(head)
        else:
            dialect.parse(head)
            dialect.tools(head)


OPERATIONS = sorted(
    {
        (name, route.operation)
        for name, dialect in DIALECTS.items()
        for route in dialect.routes
        if route.operation in ("generate", "count_tokens", "embeddings")
    }
)
each = pytest.mark.parametrize(("name", "operation"), OPERATIONS)


@pytest.mark.promise("H-18")
@each
@given(value=st.dictionaries(FIELDS, VALUES, max_size=6), raw=st.binary(max_size=40))
@BOUNDED
def test_bodies_that_are_anything_are_read_or_refused(
    name: str, operation: str, value: dict[str, Any], raw: bytes
) -> None:
    for body in (raw, json.dumps(value).encode(), json.dumps({"model": "m", **value}).encode()):
        read(DIALECTS[name], operation, body)


@pytest.mark.promise("H-18")
@each
@given(changes=PLACES)
@BOUNDED
def test_good_bodies_that_were_damaged_are_read_or_refused(
    name: str, operation: str, changes: list[tuple[int, str, Any]]
) -> None:
    read(DIALECTS[name], operation, json.dumps(damage(GOOD[name], changes)).encode())


@pytest.mark.promise("H-18")
@pytest.mark.parametrize("name", GOOD)
def test_the_bodies_that_are_damaged_were_good(name: str) -> None:
    dialect = DIALECTS[name]
    path = {"model": "m", "collection": "models"} if name == "gemini" else {}
    operation = "embeddings" if name == "openai-embeddings" else "generate"
    head = dialect.peek(json.dumps(GOOD[name]).encode(), operation, path, {})
    found = dialect.parse_embedding(head) if operation == "embeddings" else dialect.parse(head)
    assert found is not None
