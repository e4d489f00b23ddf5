"""The vendor's list of models."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from relay import Model, ModelListing, Upstream, UpstreamRequest, kit
from relay.errors import UpstreamProtocol
from relay_anthropic.endpoint import headers_of, root_of

__all__ = ["listing_of", "models_of"]

CAPABILITIES = {
    "vision": "image_input",
    "structured_output": "structured_outputs",
    "reasoning": "thinking",
}
"""The relay's capability names, and what the vendor calls them. The others hold for all its models."""


def listing_of(upstream: Upstream) -> ModelListing:
    """How to ask for the models. One page holds a thousand, many times what there are."""
    headers = headers_of(upstream, {})
    del headers["content-type"]
    return ModelListing(UpstreamRequest(f"{root_of(upstream)}/v1/models?limit=1000", headers, method="GET"), models_of)


def models_of(body: bytes) -> Sequence[Model]:
    """The models in an answer, without those that are retired. Raises UpstreamProtocol if it is no list of models."""
    data = kit.upstream_json(body).get("data")
    if not isinstance(data, list):
        raise UpstreamProtocol("the upstream's model list has no data")
    return [
        Model(
            id=entry["id"],
            created=_created(entry.get("created_at")),
            owned_by="anthropic",
            context_length=kit.token_count(entry.get("max_input_tokens")) or None,
            capabilities=_capabilities(entry.get("capabilities")),
        )
        for entry in data
        if isinstance(entry, dict) and isinstance(entry.get("id"), str) and entry.get("lifecycle") != "retired"
    ]


def _created(text: Any) -> int | None:
    """Unix seconds; None where the vendor does not know, which it writes as 1970."""
    try:
        return int(datetime.fromisoformat(text).timestamp()) or None
    except (TypeError, ValueError, OverflowError):
        return None


def _capabilities(value: Any) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for name, theirs in CAPABILITIES.items() if isinstance(value, dict) else ():
        entry = value.get(theirs)
        if isinstance(entry, dict) and isinstance(entry.get("supported"), bool):
            found[name] = entry["supported"]
    return found
