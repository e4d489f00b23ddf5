"""What the smaller dialects carry survives, too: legacy completions, and vectors in both forms."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay import Head, Target, Upstream
from relay.fold import Fold, unfold
from relay.ir import Choice, EmbeddingRequest, EmbeddingResponse, Loss, Response, StopReason, Text, Usage
from relay.kit import loads
from relay_gemini.dialect import GenerateContent
from relay_gemini.embedding import embedding_body, embedding_response
from relay_openai.completions.dialect import OpenAICompletions
from relay_openai.completions.reader import TextReader, decode_text
from relay_openai.embeddings.answer import decode_answer
from relay_openai.embeddings.compose import compose_request
from relay_openai.embeddings.dialect import OpenAIEmbeddings
from relay_openai.stream import ChatDecoder
from tests import hub
from tests.effort import times

ROUNDS = settings(max_examples=times(50), deadline=None)
CREATED = 1_700_000_000
STOPS = st.sampled_from(
    [StopReason("stop", "stop"), StopReason("length", "length"), StopReason("filter", "content_filter")]
)


@st.composite
def answers(draw: Any) -> Response:
    choices = [Choice([Text(draw(hub.TEXTS))], draw(STOPS)) for _ in range(draw(st.integers(1, 3)))]
    return Response(draw(hub.IDS), draw(hub.NAMES), choices, draw(hub.usages("cache_read", "reasoning")), CREATED)


def plain(response: Response) -> Response:
    assert response.usage is not None
    return replace(response, usage=replace(response.usage, raw=None))


@ROUNDS
@given(answers(), st.integers(1, 40))
def test_any_text_survives_in_legacy_completions(response: Response, size: int) -> None:
    dialect = OpenAICompletions(now=lambda: 0.0, new_id=lambda: "new")
    head = Head("generate", "m", b"{}", {"model": "m", "stream_options": {"include_usage": True}}, stream=True)
    body = dialect.encode_response(response, head)
    assert plain(decode_text(loads(body), body)) == response
    encoder = dialect.stream_encoder(head)
    data = b"".join(encoder.encode([event]) for event in unfold(response))
    decoder, fold = ChatDecoder(reader=TextReader()), Fold()
    for start in range(0, len(data), size):
        fold.add(decoder.feed(data[start : start + size]))
    fold.add(decoder.close())
    assert fold.complete
    assert plain(fold.response()) == response


# Vectors.

NUMBERS = st.floats(-1, 1, width=32)
INPUTS = st.lists(hub.WORDS, min_size=1, max_size=3)
GEMINI_ONLY = ("query", "document", "similarity", "classification", "clustering", "question", "fact", "code_query")


@st.composite
def vectors(draw: Any) -> EmbeddingResponse:
    found = draw(st.lists(st.lists(NUMBERS, min_size=1, max_size=4), min_size=1, max_size=3))
    return EmbeddingResponse(found, "m", Usage(input=draw(hub.COUNTS), output=0))


@ROUNDS
@given(INPUTS, hub.maybe(st.integers(1, 3000)), hub.maybe(hub.WORDS))
def test_any_question_for_vectors_survives_in_openais_form(
    inputs: list[str], dimensions: int | None, user: str | None
) -> None:
    request = EmbeddingRequest("m", list(inputs), dimensions, user=user)
    losses: list[Loss] = []
    upstream = Upstream("up", "openai", "https://up.test/v1", dialects=frozenset({"openai-embeddings"}))
    body = compose_request(request, Target(upstream, "m"), losses)
    assert body is not None
    assert not losses
    dialect = OpenAIEmbeddings()
    read = dialect.parse_embedding(dialect.peek(body, "embeddings", {}, {}))
    # The relay reads numbers, not base64, and says so.
    assert set((read.extra or {}).get("openai-embeddings", {})) <= {"encoding_format"}
    assert replace(read, extra=None) == request


@ROUNDS
@given(vectors(), st.booleans())
def test_any_vectors_survive_in_openais_form(response: EmbeddingResponse, packed: bool) -> None:
    dialect = OpenAIEmbeddings()
    data = {"model": "m", "input": "x", **({"encoding_format": "base64"} if packed else {})}
    body = dialect.encode_embedding(response, dialect.peek(json.dumps(data).encode(), "embeddings", {}, {}))
    value = json.loads(body)
    if packed:
        for row in value["data"]:
            raw = base64.b64decode(row["embedding"])
            row["embedding"] = list(struct.unpack(f"<{len(raw) // 4}f", raw))
    read = decode_answer(value, body)
    assert read.usage is not None
    assert replace(read, usage=replace(read.usage, raw=None)) == response


@pytest.mark.parametrize("purpose", [None, *GEMINI_ONLY])
@settings(max_examples=times(20), deadline=None)
@given(inputs=INPUTS, dimensions=hub.maybe(st.integers(1, 3000)), title=hub.maybe(hub.WORDS))
def test_any_question_for_vectors_survives_in_geminis_form(
    purpose: Any, inputs: list[str], dimensions: int | None, title: str | None
) -> None:
    # A title is a document's.
    request = EmbeddingRequest("m", list(inputs), dimensions, purpose, title if purpose == "document" else None)
    losses: list[Loss] = []
    body = embedding_body(request, Target(Upstream("up", "gemini", "https://up.test"), "m"), losses)
    assert not losses
    dialect = GenerateContent(new_id=lambda: "new")
    read = dialect.parse_embedding(dialect.peek(body, "embeddings", {"model": "m", "batch": "x"}, {}))
    assert read == request


@ROUNDS
@given(vectors())
def test_any_vectors_survive_in_geminis_form(response: EmbeddingResponse) -> None:
    dialect = GenerateContent(new_id=lambda: "new")
    asked = {"requests": [{"content": {"parts": [{"text": "x"}]}} for _ in response.vectors]}
    head = dialect.peek(json.dumps(asked).encode(), "embeddings", {"model": "m", "batch": "x"}, {})
    read = embedding_response(dialect.encode_embedding(response, head))
    assert read.vectors == response.vectors
    assert read.usage is not None
    assert response.usage is not None
    assert read.usage.input == response.usage.input
