"""The vendor's enumerations: names and, for callers of `enum-encoding=int`, their numbers."""

from __future__ import annotations

from typing import Any

from relay.ir import StopKind

__all__ = ["BLOCK_REASONS", "FINISH_REASONS", "STOP_KINDS", "block_reason", "finish_reason", "is_audio"]

_FINISH = (
    "FINISH_REASON_UNSPECIFIED",
    "STOP",
    "MAX_TOKENS",
    "SAFETY",
    "RECITATION",
    "OTHER",
    "LANGUAGE",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "MALFORMED_FUNCTION_CALL",
    "IMAGE_SAFETY",
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
)
_BLOCK = ("BLOCK_REASON_UNSPECIFIED", "SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY")

STOP_KINDS: dict[str, StopKind] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "filter",
    "RECITATION": "filter",
    "BLOCKLIST": "filter",
    "PROHIBITED_CONTENT": "filter",
    "SPII": "filter",
    "IMAGE_SAFETY": "filter",
    "IMAGE_PROHIBITED_CONTENT": "filter",
    "IMAGE_RECITATION": "filter",
    "MODEL_ARMOR": "filter",
    "MALFORMED_FUNCTION_CALL": "error",
    "MALFORMED_RESPONSE": "error",
    "UNEXPECTED_TOOL_CALL": "error",
    "TOO_MANY_TOOL_CALLS": "error",
    "MISSING_THOUGHT_SIGNATURE": "error",
}
"""What each finish reason means to everyone. Those not listed are `other`."""

FINISH_REASONS = frozenset(_FINISH) | STOP_KINDS.keys()
BLOCK_REASONS = frozenset(_BLOCK)
"""The vendor's own words."""


def finish_reason(value: Any) -> str | None:
    """The name of a finish reason; None if there is none yet."""
    return _name(value, _FINISH)


def block_reason(value: Any) -> str | None:
    """The name of the reason for which a prompt was blocked; None if it was not."""
    return _name(value, _BLOCK)


def _name(value: Any, names: tuple[str, ...]) -> str | None:
    if isinstance(value, str) and value:
        return value
    if type(value) is int:
        return names[value] if 0 <= value < len(names) else str(value)
    return None


def is_audio(modality: Any) -> bool:
    """Whether a modality is sound."""
    return modality in ("AUDIO", 4)
