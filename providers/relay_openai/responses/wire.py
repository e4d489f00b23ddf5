"""Words of the `openai-responses` wire format that more than one module needs, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay.ir import Extra, StopKind

__all__ = ["DELTAS", "DIALECT", "INCOMPLETE", "STOPPED", "TERMINAL", "own_extra", "own_fields"]

DIALECT = "openai-responses"

STOPPED: Mapping[str, StopKind] = {
    "max_output_tokens": "length",
    "max_tokens": "length",
    "content_filter": "filter",
}
"""What the reason of an incomplete answer means. A word that is not here is `other`."""

INCOMPLETE: Mapping[StopKind, str] = {"length": "max_output_tokens", "filter": "content_filter"}
"""The reason that clients are told; an answer that stopped for any other reason is complete."""

TERMINAL = frozenset(("response.completed", "response.incomplete", "response.failed"))
"""The events with which a stream ends."""

DELTAS: Mapping[str, str] = {
    "text": "response.output_text.delta",
    "refusal": "response.refusal.delta",
    "summary": "response.reasoning_summary_text.delta",
    "arguments": "response.function_call_arguments.delta",
}
"""The event that carries a piece of each kind of string."""


def own_fields(extra: Extra | None) -> dict[str, Any]:
    """What this dialect put into `extra`; empty if nothing."""
    return (extra or {}).get(DIALECT, {})


def own_extra(fields: dict[str, Any]) -> Extra | None:
    """`fields` as this dialect's `extra`; None if there are none."""
    return {DIALECT: fields} if fields else None
