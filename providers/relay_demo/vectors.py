"""The demo's vectors: texts that share words point the same way, which is all that a first look at a search needs."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from typing import Any

from relay.errors import BadParameter, UpstreamProtocol
from relay.ir import EmbeddingRequest, EmbeddingResponse, Loss, LossKind, Usage
from relay.kit import Losses, dumps, estimate_tokens, foreign_fields

__all__ = ["VECTOR_LOSSES", "embedding_answer", "embedding_body", "embedding_response"]

PURPOSE = LossKind(
    "vectors.purpose",
    "purpose",
    "the demo's vectors are the same whatever they are for",
    "what vectors are for is said",
)
TITLE = LossKind("vectors.title", "title", "the demo reads no titles", "a text has a title")
VECTOR_LOSSES = (PURPOSE, TITLE)

DIMENSIONS = 256
MOST_DIMENSIONS = 4096


def embedding_body(request: EmbeddingRequest, losses: list[Loss]) -> bytes:
    """The inputs as the demo reads them. Raises BadParameter for vectors longer than the demo makes them."""
    found = Losses(losses)
    if request.purpose is not None:
        found.add(PURPOSE)
    if request.title is not None:
        found.add(TITLE)
    for loss in foreign_fields(request, "demo"):
        found.take(loss)
    dimensions = request.dimensions or DIMENSIONS
    if dimensions > MOST_DIMENSIONS:
        raise BadParameter(f"the demo's vectors have at most {MOST_DIMENSIONS} dimensions", param="dimensions")
    return dumps({"inputs": request.inputs, "dimensions": dimensions})


def embedding_answer(question: dict[str, Any]) -> dict[str, Any]:
    """The answer to such a body."""
    inputs: list[str | list[int]] = question["inputs"]
    return {
        "vectors": [_vector(entry, question["dimensions"]) for entry in inputs],
        "input": sum(estimate_tokens(entry) if isinstance(entry, str) else len(entry) for entry in inputs),
    }


def embedding_response(model: str, value: dict[str, Any]) -> EmbeddingResponse:
    """An answer as a hub value."""
    if "vectors" not in value:
        raise UpstreamProtocol("the demo answered no vectors")
    return EmbeddingResponse(value["vectors"], model, Usage(input=value["input"], output=0))


def _vector(entry: str | list[int], dimensions: int) -> list[float]:
    """The sum of the words' own directions, one axis each, with a length of one."""
    vector = [0.0] * dimensions
    for word in _words(entry):
        digest = hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()
        vector[int.from_bytes(digest[:8], "little") % dimensions] += 1.0 if digest[8] & 1 else -1.0
    length = math.sqrt(sum(number * number for number in vector))
    if not length:
        # Nothing but punctuation, or words that cancel each other out.
        vector[0] = length = 1.0
    return [number / length for number in vector]


def _words(entry: str | list[int]) -> Iterator[str]:
    if isinstance(entry, str):
        yield from re.findall(r"\w+", entry.lower())
    else:
        yield from (f"#{token}" for token in entry)
