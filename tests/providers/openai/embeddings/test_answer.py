"""Lists of vectors, between hosts, the hub and clients."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import relay_openai
from relay import Secret, Target, Upstream
from relay.errors import UpstreamError, UpstreamProtocol
from relay.ir import EmbeddingRequest, EmbeddingResponse, Loss, Usage
from relay_openai.embeddings.answer import decode_answer, encode_answer
from relay_openai.embeddings.compose import compose_request

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
VECTORS = st.integers(1, 8).flatmap(lambda size: st.lists(st.lists(FLOATS, min_size=size, max_size=size), min_size=1))


def target(**fields: Any) -> Target:
    fields.setdefault("dialects", frozenset({"openai-chat", "openai-embeddings"}))
    return Target(Upstream("u", "openai", "https://u.test/v1", Secret("sk-1"), **fields), "m-1")


@given(VECTORS)
def test_packed_vectors_are_little_endian_floats(vectors: list[list[float]]) -> None:
    shown = json.loads(encode_answer(EmbeddingResponse(vectors), model="m", packed=True))
    for place, row in enumerate(shown["data"]):
        packed = base64.b64decode(row["embedding"], validate=True)
        assert row["index"] == place
        assert list(struct.unpack(f"<{len(packed) // 4}f", packed)) == vectors[place]


@given(VECTORS, st.none() | st.integers(0, 1000))
def test_what_is_written_is_read_again(vectors: list[list[float]], tokens: int | None) -> None:
    usage = None if tokens is None else Usage(input=tokens, output=0)
    raw = encode_answer(EmbeddingResponse(vectors, "m-1", usage), model="m", packed=False)
    read = decode_answer(json.loads(raw), raw)
    assert (read.vectors, read.model) == (vectors, "m-1")
    assert read.usage is not None
    assert read.usage.input == (tokens or 0)


def test_numbers_beyond_the_packed_range_do_not_fail() -> None:
    shown = json.loads(encode_answer(EmbeddingResponse([[1e300, -0.0]]), model="m", packed=True))
    first, second = struct.unpack("<2f", base64.b64decode(shown["data"][0]["embedding"]))
    assert (math.isinf(first), second) == (True, 0.0)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"data": {}},
        {"data": [5]},
        {"data": [{"embedding": "AAAA"}]},
        {"data": [{"embedding": [1, "2"]}]},
        {"data": [{"embedding": [True]}]},
        {"data": [{"embedding": [1], "index": -1}]},
    ],
)
def test_what_holds_no_vectors_is_refused(value: Any) -> None:
    with pytest.raises(UpstreamProtocol):
        decode_answer(value, b"")


def test_an_error_in_place_of_vectors_is_raised_without_the_key() -> None:
    value = {"error": {"message": "sk-1 is over its quota", "code": 429}}
    with pytest.raises(UpstreamError, match="over its quota") as caught:
        decode_answer(value, b"", Secret("sk-1"))
    assert "sk-1" not in caught.value.message


def test_a_host_is_asked_for_numbers_and_told_what_it_takes() -> None:
    losses: list[Loss] = []
    request = EmbeddingRequest("m", ["a", [1, 2]], dimensions=8, user="u", purpose="query", title="T")
    request.extra = {"gemini": {"autoTruncate": True}, "openai-embeddings": {"own": 1}}
    options = {"drop": ["user"], "rename": {"dimensions": "output_dimension"}}
    body = compose_request(request, target(options=options), losses)
    assert body is not None
    assert json.loads(body) == {
        "model": "m-1",
        "input": ["a", [1, 2]],
        "encoding_format": "float",
        "output_dimension": 8,
    }
    assert {loss.field for loss in losses} == {"autoTruncate", "purpose", "title", "user"}


def test_one_input_is_sent_alone() -> None:
    for entry in ("a", [1, 2]):
        body = compose_request(EmbeddingRequest("m", [entry]), target(), [])
        assert body is not None
        assert json.loads(body)["input"] == entry


def test_a_host_without_embeddings_says_so() -> None:
    assert compose_request(EmbeddingRequest("m", ["a"]), target(dialects=frozenset({"openai-chat"})), []) is None


@pytest.mark.parametrize(
    ("value", "usage"),
    [
        ({"data": [], "usage": {"prompt_tokens": 3, "total_tokens": 3}}, (3, 0)),
        ({"data": [], "usage": {"total_tokens": 3}}, (3, 0)),
        ({"data": [], "usage": {"prompt_tokens": -3}}, (None, None)),
        ({"data": ["anything"]}, (None, None)),
    ],
)
def test_a_passing_answer_is_counted_without_being_read(value: Any, usage: Any) -> None:
    counted = relay_openai.meter_response(target(), json.dumps(value).encode(), "openai-embeddings")
    assert counted is not None
    assert (counted.input, counted.output) == usage


@pytest.mark.parametrize("value", [{"error": {"message": "x"}}, {"choices": []}])
def test_what_is_no_list_is_left_to_the_full_reading(value: Any) -> None:
    assert relay_openai.meter_response(target(), json.dumps(value).encode(), "openai-embeddings") is None
