"""The mould of a chunk: where its text begins and ends."""

from __future__ import annotations

import re
from typing import Any

from relay.kit import loads
from relay.mould import EVENT_END, Mould

__all__ = ["FILLED", "chunk_mould", "lone", "places"]

_FILLING = re.compile(rb'"obfuscation":\s*"([^"\\]*)"')
FILLED = b'"obfuscation"'
_LONE = ({"content"}, {"reasoning_content"}, {"reasoning"})
_FAULTS = ("error", "base_resp", "x_groq")


def places(*fields: str) -> re.Pattern[bytes]:
    """Finds the texts of these fields, as its group, and without one whatever says why or what: an end, a count."""
    text = rb'(?:%b)":\s*"([^"\\]*(?:\\.[^"\\]*)*)"' % "|".join(fields).encode()
    return re.compile(rb'"(?:%b|(?:finish_reason|usage)":\s*(?!null)[^\s,}])' % text)


_TEXT = places("content", "reasoning_content", "reasoning", "arguments")


def chunk_mould(event: bytes, text: re.Pattern[bytes] = _TEXT) -> Mould | None:
    """The mould of a chunk with one text and neither a finish reason nor a count; None for any other."""
    if not event.startswith(b"data:") or event.find(b"\n") != len(event) - len(EVENT_END):
        return None
    found = list(text.finditer(event))
    if len(found) != 1 or found[0][1] is None:
        return None
    filling = _FILLING.search(event, found[0].end(1)) if event.find(FILLED) >= 0 else None
    return Mould.of(event, found[0].span(1), None if filling is None else filling.span(1))


def lone(event: bytes) -> bool:
    """Whether a chunk is one piece of one text and nothing else, so that its reader is the same before and after it."""
    try:
        chunk: Any = loads(event.partition(b":")[2])
        (choice,) = chunk["choices"]
        said = {name for name, value in choice["delta"].items() if value and name != "role"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return (
        said in _LONE
        and not (chunk.get("usage") or choice.get("finish_reason") or choice.get("logprobs"))
        and not any(name in chunk for name in _FAULTS)
    )
