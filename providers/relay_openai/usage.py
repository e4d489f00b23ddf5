"""Token counts of the `openai-chat` format, with the places where its hosts put them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay.ir import Usage
from relay.kit import MAX_TOKENS, token_count

__all__ = ["decode_usage", "encode_usage"]

_USUAL = frozenset(
    ("prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details")
)
_NOTHING: Mapping[str, Any] = {}


def decode_usage(raw: Any) -> Usage | None:
    """The hub's usage, or None if `raw` counts neither side of the call.

    The prompt's total includes cached tokens and the completion's total includes reasoning, with two known exceptions
    that only the grand total betrays: one vendor counts reasoning beside the completion, one counts audio beside the
    prompt. Both are added up here.
    """
    if not isinstance(raw, dict):
        return None
    prompt, completion, total = raw.get("prompt_tokens"), raw.get("completion_tokens"), raw.get("total_tokens")
    if (
        type(prompt) is int
        and type(completion) is int
        and prompt >= 0
        and completion >= 0
        and total == prompt + completion <= MAX_TOKENS
        and (len(raw) == 3 or raw.keys() <= _USUAL)
    ):
        # What most hosts send: nothing stands in an unusual place, and nothing is missing from the sum.
        usage = Usage(prompt, completion)
        usage.raw = raw
        inside, outside = raw.get("prompt_tokens_details"), raw.get("completion_tokens_details")
        # `token_count`, written out.
        if inside and type(inside) is dict:
            count = inside.get("cached_tokens")
            if type(count) is int and 0 <= count <= MAX_TOKENS:
                usage.cache_read = count
            count = inside.get("audio_tokens")
            if type(count) is int and 0 <= count <= MAX_TOKENS:
                usage.audio_in = count
            if "cache_write_tokens" in inside:
                usage.cache_write_5m = token_count(inside["cache_write_tokens"])
        if outside and type(outside) is dict:
            count = outside.get("reasoning_tokens")
            if type(count) is int and 0 <= count <= MAX_TOKENS:
                usage.reasoning = count
            count = outside.get("audio_tokens")
            if type(count) is int and 0 <= count <= MAX_TOKENS:
                usage.audio_out = count
        return usage
    prompt, completion, total = token_count(prompt), token_count(completion), token_count(total)
    if prompt is None and completion is None:
        return None
    if completion is None and prompt is not None and total is not None and total >= prompt:
        # A side that is empty is left out by the format's inventor, and only the sum tells.
        completion = total - prompt
    inside = _details(raw, "prompt_tokens_details")
    outside = _details(raw, "completion_tokens_details")
    usage = Usage(
        input=prompt,
        output=completion,
        cache_read=_first(
            inside.get("cached_tokens"),
            raw.get("prompt_cache_hit_tokens"),
            raw.get("cached_tokens"),
            raw.get("cache_read_input_tokens"),
        ),
        reasoning=_first(outside.get("reasoning_tokens"), raw.get("reasoning_tokens")),
        audio_in=token_count(inside.get("audio_tokens")),
        audio_out=token_count(outside.get("audio_tokens")),
        raw=raw,
    )
    _cache_writes(usage, raw, inside)
    if total is not None and prompt is not None and completion is not None and total > prompt + completion:
        missing = total - prompt - completion
        if missing == usage.reasoning:
            usage.output = completion + missing
        elif missing == usage.audio_in:
            usage.input = prompt + missing
    return usage


def _details(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = raw.get(name)
    return value if isinstance(value, dict) else _NOTHING


def _first(*values: Any) -> int | None:
    """The first of `values` that is a token count."""
    for value in values:
        count = token_count(value)
        if count is not None:
            return count
    return None


def _cache_writes(usage: Usage, raw: Mapping[str, Any], inside: Mapping[str, Any]) -> None:
    """Tokens written to a cache. Only some gateways report them, and fewer say for how long they are kept."""
    by_time = _details(raw, "cache_creation")
    usage.cache_write_1h = token_count(by_time.get("ephemeral_1h_input_tokens"))
    usage.cache_write_5m = token_count(by_time.get("ephemeral_5m_input_tokens"))
    if usage.cache_write_5m is None:
        written = _first(inside.get("cache_write_tokens"), raw.get("cache_creation_input_tokens"))
        if written is not None:
            usage.cache_write_5m = max(written - (usage.cache_write_1h or 0), 0)


def encode_usage(usage: Usage) -> dict[str, Any] | None:
    """`usage` in this format, or None if neither side is known. A detail that was not reported is left out."""
    if usage.input is None and usage.output is None:
        return None
    prompt = usage.input or 0
    completion = usage.output or 0
    written: int | None = None
    if usage.cache_write_5m is not None or usage.cache_write_1h is not None:
        written = (usage.cache_write_5m or 0) + (usage.cache_write_1h or 0)
    body: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    inside = {"cached_tokens": usage.cache_read, "cache_write_tokens": written, "audio_tokens": usage.audio_in}
    outside = {"reasoning_tokens": usage.reasoning, "audio_tokens": usage.audio_out}
    for name, details in (("prompt_tokens_details", inside), ("completion_tokens_details", outside)):
        known = {key: count for key, count in details.items() if count is not None}
        if known:
            body[name] = known
    return body
