"""Lists of vectors: from the family's hosts to the hub, and from the hub to `openai-embeddings` clients."""

from __future__ import annotations

import base64
import sys
from array import array
from typing import Any

from relay import Secret
from relay.errors import UpstreamProtocol
from relay.ir import EmbeddingResponse, Usage
from relay.kit import dumps, token_count
from relay_openai.fault import is_fault, upstream_error

__all__ = ["count_answer", "decode_answer", "decode_usage", "encode_answer"]


def decode_usage(raw: Any) -> Usage | None:
    """The hub's usage; None if nothing was counted. Some hosts give only the total, which is the same here."""
    if not isinstance(raw, dict):
        return None
    prompt = token_count(raw.get("prompt_tokens"))
    if prompt is None:
        prompt = token_count(raw.get("total_tokens"))
    return None if prompt is None else Usage(input=prompt, output=0, raw=raw)


def count_answer(value: dict[str, Any]) -> Usage | None:
    """What an answer that passes through used, empty if it does not say; None if it plainly is no list of vectors."""
    if is_fault(value) or not isinstance(value.get("data"), list):
        return None
    return decode_usage(value.get("usage")) or Usage()


def decode_answer(value: dict[str, Any], raw: bytes, secret: Secret | None = None) -> EmbeddingResponse:
    """The vectors that `value` (parsed from `raw`) holds, in the order of the inputs.

    Raises UpstreamError if it tells of an error, UpstreamProtocol if it holds no vectors of numbers.
    """
    if is_fault(value):
        raise upstream_error(value, raw, None, {}, secret)
    rows = value.get("data")
    if not isinstance(rows, list):
        raise UpstreamProtocol("the upstream's answer is no list of embeddings")
    vectors: dict[int, list[float]] = {}
    for position, row in enumerate(rows):
        place = row.get("index", position) if isinstance(row, dict) else None
        vector = row.get("embedding") if isinstance(row, dict) else None
        if type(place) is not int or not isinstance(vector, list) or not set(map(type, vector)) <= {float, int}:
            raise UpstreamProtocol("the upstream's answer holds embeddings that are not lists of numbers")
        vectors[place] = vector
    if sorted(vectors) != list(range(len(rows))):
        raise UpstreamProtocol("the upstream's answer does not say which embedding belongs to which input")
    model = value.get("model")
    return EmbeddingResponse(
        [vectors[place] for place in range(len(rows))],
        model if isinstance(model, str) else "",
        decode_usage(value.get("usage")),
    )


def encode_answer(response: EmbeddingResponse, *, model: str, packed: bool) -> bytes:
    """`response` as the list that clients expect, `packed` as base64. `model` is for upstreams that tell no name."""
    rows = [
        {"object": "embedding", "index": place, "embedding": _packed(vector) if packed else vector}
        for place, vector in enumerate(response.vectors)
    ]
    used = response.usage.input or 0 if response.usage is not None else 0
    return dumps(
        {
            "object": "list",
            "data": rows,
            "model": response.model or model,
            "usage": {"prompt_tokens": used, "total_tokens": used},
        }
    )


def _packed(vector: list[float]) -> str:
    """Base64 of a vector as little-endian float32."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")
