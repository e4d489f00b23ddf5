"""Token counts and stop reasons of an answer, in the hub's terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay.ir import StopKind, StopReason, Usage
from relay.kit import token_count

__all__ = ["stop_reason", "usage_of"]

STOP_KINDS: Mapping[str, StopKind] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "filter",
    "content_filtered": "filter",
    "malformed_model_output": "error",
    "malformed_tool_use": "error",
}


def stop_reason(reason: str) -> StopReason:
    """The hub's reading of a `stopReason`."""
    return StopReason(STOP_KINDS.get(reason, "other"), reason)


def usage_of(raw: Mapping[str, Any]) -> Usage:
    """Hub usage. The vendor counts cached input beside `inputTokens`; the hub's `input` is the sum."""
    fresh = token_count(raw.get("inputTokens"))
    read = token_count(raw.get("cacheReadInputTokens"))
    written = token_count(raw.get("cacheWriteInputTokens"))
    short, long = written, None
    details = raw.get("cacheDetails")
    for entry in details if isinstance(details, list) and written is not None else ():
        if isinstance(entry, dict) and entry.get("ttl") == "1h":
            count = token_count(entry.get("inputTokens"))
            if count is not None:
                long = min((long or 0) + count, written or 0)
    if long is not None:
        short = (written or 0) - long
    return Usage(
        input=None if fresh is None else fresh + (read or 0) + (written or 0),
        output=token_count(raw.get("outputTokens")),
        cache_read=read,
        cache_write_5m=short,
        cache_write_1h=long,
        raw=dict(raw),
    )
