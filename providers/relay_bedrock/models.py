"""The vendor's lists of models: those that answer by themselves, and the profiles through which others are reached."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from relay import Model, ModelListing, Upstream, kit
from relay.errors import UpstreamProtocol
from relay_bedrock.endpoint import request_to

__all__ = ["listing_of", "models_of", "profiles_of"]

_RUNTIME = re.compile(r"^(https?://)bedrock-runtime((?:-fips)?\.[a-z0-9.-]+)$")
MODALITIES: Mapping[str, tuple[str, str]] = {
    "vision": ("inputModalities", "IMAGE"),
    "audio": ("inputModalities", "SPEECH"),
}
"""The relay's capability names, and by what the vendor tells them."""


def listing_of(upstream: Upstream) -> ModelListing:
    """How to ask for the models. The vendor keeps its lists at an address beside that of the models."""
    base = _RUNTIME.sub(r"\1bedrock\2", upstream.base_url.rstrip("/"))
    profiles = ModelListing(
        request_to(upstream, f"{base}/inference-profiles?maxResults=1000", method="GET"), profiles_of
    )
    return ModelListing(request_to(upstream, f"{base}/foundation-models", method="GET"), models_of, more=(profiles,))


def _entries(body: bytes, name: str) -> list[dict[str, Any]]:
    entries = kit.upstream_json(body).get(name)
    if not isinstance(entries, list):
        raise UpstreamProtocol(f"the upstream's model list has no {name}")
    return [entry for entry in entries if isinstance(entry, dict)]


def models_of(body: bytes) -> Sequence[Model]:
    """The models that write text and answer under their own names. Raises UpstreamProtocol if it is no such list."""
    return [
        Model(
            id=entry["modelId"],
            created=_seconds(_fields(entry, "modelLifecycle").get("startOfLifeTime")),
            owned_by=_owner(entry.get("providerName")),
            capabilities=_capabilities(entry),
        )
        for entry in _entries(body, "modelSummaries")
        if isinstance(entry.get("modelId"), str)
        and "TEXT" in _words(entry, "outputModalities")
        and "ON_DEMAND" in _words(entry, "inferenceTypesSupported")
    ]


def profiles_of(body: bytes) -> Sequence[Model]:
    """The profiles. One that somebody made has a name that says nothing, and is asked for by it all the same."""
    return [
        Model(id=name, created=_seconds(entry.get("createdAt")), owned_by=_owner(_vendor(name)))
        for entry in _entries(body, "inferenceProfileSummaries")
        if entry.get("status", "ACTIVE") == "ACTIVE" and isinstance(name := _profile(entry), str)
    ]


def _profile(entry: Mapping[str, Any]) -> Any:
    return entry.get("inferenceProfileArn" if entry.get("type") == "APPLICATION" else "inferenceProfileId")


def _vendor(name: str) -> str | None:
    """The maker in a profile's name, as in `eu.vendor.model-v1:0`."""
    parts = name.split(".")
    return parts[1] if len(parts) > 2 else None


def _owner(name: Any) -> str:
    return name.lower() if isinstance(name, str) and name else "aws"


def _fields(entry: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = entry.get(name)
    return value if isinstance(value, dict) else {}


def _words(entry: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = entry.get(name)
    return value if isinstance(value, list) else ()


def _seconds(value: Any) -> int | None:
    try:
        return int(value if isinstance(value, (int, float)) else datetime.fromisoformat(value).timestamp())
    except (TypeError, ValueError, OverflowError):
        return None


def _capabilities(entry: Mapping[str, Any]) -> dict[str, bool]:
    found = {name: word in _words(entry, field) for name, (field, word) in MODALITIES.items()}
    if isinstance(entry.get("responseStreamingSupported"), bool):
        found["streaming"] = entry["responseStreamingSupported"]
    return found
