"""Token counts of an answer, in the hub's terms."""

from __future__ import annotations

from typing import Any

from relay.ir import Usage
from relay.kit import token_count
from relay_gemini.enums import is_audio

__all__ = ["is_count", "usage_of"]

COUNTS = (
    "promptTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
    "totalTokenCount",
    "toolUsePromptTokenCount",
)


def usage_of(raw: dict[str, Any]) -> Usage:
    """Hub usage of one `usageMetadata`.

    Thinking is counted beside the answer and what server tools fed in beside the prompt: both are added to their
    totals. A count of zero is left out on the wire, so an answer without tokens shows only in the total.
    """
    prompt = token_count(raw.get("promptTokenCount"))
    tools = token_count(raw.get("toolUsePromptTokenCount"))
    answer = token_count(raw.get("candidatesTokenCount"))
    thoughts = token_count(raw.get("thoughtsTokenCount"))
    total = token_count(raw.get("totalTokenCount"))
    given = prompt if tools is None else (prompt or 0) + tools
    made: int | None = None
    if answer is not None or thoughts is not None:
        made = (answer or 0) + (thoughts or 0)
    elif total is not None and given is not None and total >= given:
        made = total - given
    return Usage(
        input=given,
        output=made,
        cache_read=token_count(raw.get("cachedContentTokenCount")),
        reasoning=thoughts,
        audio_in=_audio(raw.get("promptTokensDetails")),
        audio_out=_audio(raw.get("candidatesTokensDetails")),
        raw=raw,
    )


def is_count(raw: dict[str, Any]) -> bool:
    """Whether a `usageMetadata` tells any number that a total is made of."""
    # Nearly all have the first.
    return token_count(raw.get(COUNTS[0])) is not None or any(token_count(raw.get(name)) is not None for name in COUNTS)


def _audio(details: Any) -> int | None:
    if not isinstance(details, list):
        return None
    counts = [
        token_count(entry.get("tokenCount"))
        for entry in details
        if isinstance(entry, dict) and is_audio(entry.get("modality"))
    ]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
