"""Token counts of the `openai-responses` format."""

from __future__ import annotations

from typing import Any

from relay.ir import Usage
from relay.kit import token_count

__all__ = ["decode_usage", "encode_usage"]


def decode_usage(raw: Any) -> Usage | None:
    """The hub's usage, or None if `raw` counts neither side of the call.

    The input's total includes cached tokens and the output's total includes reasoning.
    """
    if not isinstance(raw, dict):
        return None
    read, written = token_count(raw.get("input_tokens")), token_count(raw.get("output_tokens"))
    if read is None and written is None:
        return None
    inside, outside = raw.get("input_tokens_details"), raw.get("output_tokens_details")
    inside = inside if isinstance(inside, dict) else {}
    outside = outside if isinstance(outside, dict) else {}
    return Usage(
        input=read,
        output=written,
        cache_read=token_count(inside.get("cached_tokens")),
        cache_write_5m=token_count(inside.get("cache_write_tokens")),
        reasoning=token_count(outside.get("reasoning_tokens")),
        audio_in=token_count(inside.get("audio_tokens")),
        audio_out=token_count(outside.get("audio_tokens")),
        raw=raw,
    )


def encode_usage(usage: Usage | None) -> dict[str, Any] | None:
    """`usage` in this format, or None if neither side is known.

    Clients read the three details without asking whether they are there, so what was not reported is zero here.
    """
    if usage is None or (usage.input is None and usage.output is None):
        return None
    read, written = usage.input or 0, usage.output or 0
    inside: dict[str, int] = {
        "cached_tokens": usage.cache_read or 0,
        "cache_write_tokens": (usage.cache_write_5m or 0) + (usage.cache_write_1h or 0),
    }
    outside: dict[str, int] = {"reasoning_tokens": usage.reasoning or 0}
    if usage.audio_in is not None:
        inside["audio_tokens"] = usage.audio_in
    if usage.audio_out is not None:
        outside["audio_tokens"] = usage.audio_out
    return {
        "input_tokens": read,
        "input_tokens_details": inside,
        "output_tokens": written,
        "output_tokens_details": outside,
        "total_tokens": read + written,
    }
