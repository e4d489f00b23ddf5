"""Vectors of texts: the hub's requests to `batchEmbedContents`, and answers from there to the hub and to callers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay import Target, kit
from relay.errors import Unsupported, UpstreamProtocol
from relay.ir import EmbeddingRequest, EmbeddingResponse, Loss, Purpose, Usage
from relay_gemini.endpoint import resource_of
from relay_gemini.errors import error_of, find_error
from relay_gemini.stream import DIALECT
from relay_gemini.usage import usage_of

__all__ = ["TASKS", "embedding_body", "embedding_object", "embedding_response"]

TASKS: Mapping[Purpose, str] = {
    "query": "RETRIEVAL_QUERY",
    "document": "RETRIEVAL_DOCUMENT",
    "similarity": "SEMANTIC_SIMILARITY",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
    "question": "QUESTION_ANSWERING",
    "fact": "FACT_VERIFICATION",
    "code_query": "CODE_RETRIEVAL_QUERY",
}
"""The vendor's word for each purpose."""


def embedding_body(request: EmbeddingRequest, target: Target, losses: list[Loss]) -> bytes:
    """The body of a batch, in which each input is a request of its own. Raises Unsupported for tokens."""
    settings: dict[str, Any] = {}
    if request.purpose is not None:
        settings["taskType"] = TASKS[request.purpose]
    if request.title is not None:
        settings["title"] = request.title
    if request.dimensions is not None:
        settings["outputDimensionality"] = request.dimensions
    model = "/".join(resource_of(target.model))
    requests = []
    for place, entry in enumerate(request.inputs):
        if not isinstance(entry, str):
            path = "input" if len(request.inputs) == 1 else f"input[{place}]"
            raise Unsupported("this upstream takes texts, not tokens: their numbers are another model's", param=path)
        requests.append({"model": model, "content": {"parts": [{"text": entry}]}, **settings})
    losses.extend(dict.fromkeys(kit.foreign_fields(request, DIALECT)))
    return kit.dumps({"requests": requests})


def embedding_response(body: bytes) -> EmbeddingResponse:
    """The vectors of an answer to one request, or to a batch. Older models count no tokens.

    Raises UpstreamError if it holds an error, UpstreamProtocol if it holds no vectors.
    """
    value = kit.upstream_json(body)
    error = find_error(value)
    if error is not None:
        raise error_of(error)
    rows = value.get("embeddings", [value.get("embedding")])
    if not isinstance(rows, list):
        raise UpstreamProtocol("the upstream's answer holds no embeddings")
    return EmbeddingResponse([_vector(row) for row in rows], usage=_usage(value))


def embedding_object(response: EmbeddingResponse, *, batch: bool) -> dict[str, Any]:
    """The answer to a caller of this dialect: one vector, or the list that a batch asks for."""
    rows = [{"values": vector} for vector in response.vectors]
    fields: dict[str, Any] = {"embeddings": rows} if batch else {"embedding": rows[0]}
    if response.usage is not None and response.usage.input is not None:
        fields["usageMetadata"] = {"promptTokenCount": response.usage.input}
    return fields


def _vector(row: Any) -> list[float]:
    vector = row.get("values") if isinstance(row, dict) else None
    if not isinstance(vector, list) or not set(map(type, vector)) <= {float, int}:
        raise UpstreamProtocol("the upstream's answer holds embeddings that are not lists of numbers")
    return vector


def _usage(value: Mapping[str, Any]) -> Usage | None:
    raw = value.get("usageMetadata")
    return usage_of(raw) if isinstance(raw, dict) else None
