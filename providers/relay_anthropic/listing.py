"""The relay's models as this dialect's clients read lists of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from relay import Model
from relay.errors import BadParameter

__all__ = ["model_object", "models_object"]

MOST = 1000
"""Models on one page, at most."""


def model_object(model: Model) -> dict[str, Any]:
    """One model. A time of release that nobody knows is written as 1970, as the vendor does it."""
    created = datetime.fromtimestamp(model.created or 0, UTC)
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.id,
        "created_at": f"{created:%Y-%m-%dT%H:%M:%SZ}",
        "max_input_tokens": model.context_length,
        "max_tokens": None,
        "lifecycle": "active",
    }


def models_object(models: Sequence[Model], query: Mapping[str, str]) -> dict[str, Any]:
    """A page of the list; everything where no `limit` is given. Raises BadParameter for a query that makes no sense."""
    after, before = query.get("after_id"), query.get("before_id")
    if after is not None and before is not None:
        raise BadParameter("after_id and before_id cannot both be given", param="before_id")
    found = list(models)
    if after is not None:
        found = found[_place(models, after, "after_id") + 1 :]
    elif before is not None:
        found = found[: _place(models, before, "before_id")]
    limit = _limit(query.get("limit"))
    page = found if limit is None else found[-limit:] if before is not None else found[:limit]
    return {
        "data": [model_object(model) for model in page],
        "has_more": len(page) < len(found),
        "first_id": page[0].id if page else None,
        "last_id": page[-1].id if page else None,
    }


def _place(models: Sequence[Model], name: str, param: str) -> int:
    for place, model in enumerate(models):
        if model.id == name:
            return place
    raise BadParameter(f"{param} names no model of this list", param=param)


def _limit(value: str | None) -> int | None:
    if value is None:
        return None
    limit = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0
    if not 1 <= limit <= MOST:
        raise BadParameter(f"limit must be between 1 and {MOST}", param="limit")
    return limit
