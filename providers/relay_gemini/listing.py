"""The relay's models as this dialect's clients read lists of models."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from relay import Model
from relay.errors import BadParameter

__all__ = ["model_object", "models_object"]

MOST = 1000
"""Models on one page, at most."""


def model_object(model: Model) -> dict[str, Any]:
    """One model. What nobody knows is left out."""
    generates = model.capabilities.get("chat", True)
    fields: dict[str, Any] = {
        "name": f"models/{model.id}",
        "displayName": model.id,
        "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"] if generates else [],
    }
    if model.capabilities.get("embeddings"):
        fields["supportedGenerationMethods"] += ["embedContent", "batchEmbedContents"]
    if model.context_length is not None:
        fields["inputTokenLimit"] = model.context_length
    if "reasoning" in model.capabilities:
        fields["thinking"] = model.capabilities["reasoning"]
    return fields


def models_object(models: Sequence[Model], query: Mapping[str, str]) -> dict[str, Any]:
    """A page of the list; all of it where no `pageSize` is given. Raises BadParameter for a query without sense."""
    start = _start(models, query.get("pageToken"))
    size = _size(query.get("pageSize"))
    page = models[start:] if size is None else models[start : start + size]
    fields: dict[str, Any] = {"models": [model_object(model) for model in page]}
    if page and start + len(page) < len(models):
        fields["nextPageToken"] = base64.urlsafe_b64encode(page[-1].id.encode()).decode("ascii")
    return fields


def _start(models: Sequence[Model], token: str | None) -> int:
    """Where the page begins: behind the model that the token names."""
    if not token:
        return 0
    try:
        last = base64.urlsafe_b64decode(token.encode("ascii", "replace")).decode()
    except (binascii.Error, UnicodeDecodeError):
        last = ""
    for place, model in enumerate(models):
        if model.id == last:
            return place + 1
    raise BadParameter("pageToken is not one of this list", param="pageToken")


def _size(value: str | None) -> int | None:
    if value is None:
        return None
    size = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else -1
    if size < 0:
        raise BadParameter("pageSize must be a whole number", param="pageSize")
    # The vendor takes 0 for "as many as you like", and gives fewer than it is asked for.
    return min(size, MOST) or None
