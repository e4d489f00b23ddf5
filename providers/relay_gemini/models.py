"""The vendor's list of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from relay import CAPABILITIES, Model, ModelListing, Upstream, UpstreamRequest, kit
from relay.errors import UpstreamProtocol
from relay_gemini.endpoint import headers_of, root_of

__all__ = ["listing_of", "models_of"]

EMBEDDING_METHODS = frozenset({"embedContent", "batchEmbedContents"})
EMBEDS: Mapping[str, bool] = {name: name == "embeddings" for name in CAPABILITIES}
"""What a model can do that makes vectors and nothing else."""


def listing_of(upstream: Upstream) -> ModelListing:
    """How to ask for the models. One page holds a thousand, many times what there are."""
    headers = headers_of(upstream)
    del headers["content-type"]
    return ModelListing(UpstreamRequest(f"{root_of(upstream)}/models?pageSize=1000", headers, method="GET"), models_of)


def models_of(body: bytes) -> Sequence[Model]:
    """The models in an answer that generate content or make vectors. Raises UpstreamProtocol if it is no list."""
    entries = kit.upstream_json(body).get("models")
    if not isinstance(entries, list):
        raise UpstreamProtocol("the upstream's model list has no models")
    found = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            continue
        methods = entry.get("supportedGenerationMethods")
        generates = not isinstance(methods, list) or "generateContent" in methods
        embeds = isinstance(methods, list) and any(method in methods for method in EMBEDDING_METHODS)
        if not generates and not embeds:
            continue
        thinking = entry.get("thinking")
        can = {"embeddings": True} if embeds else {}
        if isinstance(thinking, bool):
            can["reasoning"] = thinking
        found.append(
            Model(
                id=entry["name"].removeprefix("models/"),
                owned_by="google",
                context_length=kit.token_count(entry.get("inputTokenLimit")) or None,
                capabilities=can if generates else EMBEDS,
            )
        )
    return found
