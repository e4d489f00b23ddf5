"""Token counts and stop reasons of an answer, in the hub's terms."""

from __future__ import annotations

from typing import Any

from relay.ir import StopKind, StopReason, Usage
from relay.kit import token_count

__all__ = ["merge_usage", "stop_reason", "usage_of"]

STOP_KINDS: dict[str, StopKind] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "filter",
    # The turn is not over: the caller is meant to send it back and let the model go on.
    "pause_turn": "other",
    "compaction": "other",
}


def stop_reason(reason: str, sequence: Any = None) -> StopReason:
    """The hub's reading of a `stop_reason`, with the stop sequence that was met, if any."""
    return StopReason(STOP_KINDS.get(reason, "other"), reason, sequence if isinstance(sequence, str) else None)


def merge_usage(old: dict[str, Any], new: Any) -> dict[str, Any]:
    """The counts of `message_start` with those of a later `message_delta` laid over them.

    The later ones are totals too, and the truer ones: tools that run upstream raise `input_tokens` on the way. A field
    that the later event leaves out or leaves empty keeps its earlier value.
    """
    if not isinstance(new, dict):
        return old
    return {**old, **{name: value for name, value in new.items() if value is not None}}


def usage_of(raw: dict[str, Any]) -> Usage:
    """Hub usage. The vendor counts cached input beside `input_tokens`; the hub's `input` is the sum.

    Compaction runs are billed and stand only in `iterations`, so they are added. The other entries there are either in
    the totals already or were run by another model at other prices.
    """
    usage = _counts(raw)
    usage.raw = raw
    iterations = raw.get("iterations")
    for entry in iterations if isinstance(iterations, list) else []:
        if isinstance(entry, dict) and entry.get("type") == "compaction":
            _add(usage, _counts(entry))
    return usage


def _counts(raw: dict[str, Any]) -> Usage:
    fresh = token_count(raw.get("input_tokens"))
    read = token_count(raw.get("cache_read_input_tokens"))
    written = token_count(raw.get("cache_creation_input_tokens"))
    split = raw.get("cache_creation")
    short = long = None
    if isinstance(split, dict):
        short = token_count(split.get("ephemeral_5m_input_tokens"))
        long = token_count(split.get("ephemeral_1h_input_tokens"))
        if written is None and (short is not None or long is not None):
            written = (short or 0) + (long or 0)
    if written is not None:
        # The total is repeated at the end of a stream and the split is not, so the total decides.
        long = min(long, written) if long is not None else None
        short = written - (long or 0)
    details = raw.get("output_tokens_details")
    return Usage(
        input=None if fresh is None else fresh + (read or 0) + (written or 0),
        output=token_count(raw.get("output_tokens")),
        cache_read=read,
        cache_write_5m=short,
        cache_write_1h=long,
        reasoning=token_count(details.get("thinking_tokens")) if isinstance(details, dict) else None,
    )


_FIELDS = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h", "reasoning")


def _add(usage: Usage, more: Usage) -> None:
    for name in _FIELDS:
        old, new = getattr(usage, name), getattr(more, name)
        if new is not None:
            setattr(usage, name, (old or 0) + new)
