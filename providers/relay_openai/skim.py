"""Counting streams that pass through: where the text of a chunk begins and ends."""

from __future__ import annotations

import re

from relay.mould import Mould
from relay.skim import EVENT_END, SkimmingMeter
from relay_openai.stream import ChatDecoder

__all__ = ["chat_meter"]

_TEXT = re.compile(rb'"(?:content|reasoning_content|reasoning|arguments)":\s*"([^"\\]*(?:\\.[^"\\]*)*)"')
_FILLING = re.compile(rb'"obfuscation":\s*"([^"\\]*)"')
_FILLED = b'"obfuscation"'
_NULL = re.compile(rb'"(?:finish_reason|usage)":\s*(?!null)[^\s,}]')


def chat_meter(decoder: ChatDecoder) -> SkimmingMeter:
    """A meter that decodes what is no plain delta."""
    return SkimmingMeter(decoder, chunk_mould, count=decoder.count)


def chunk_mould(event: bytes, text: re.Pattern[bytes] = _TEXT) -> Mould | None:
    """The mould of a chunk with one text and neither a finish reason nor a count; None for any other."""
    if not event.startswith(b"data:") or event.find(b"\n") != len(event) - len(EVENT_END):
        return None
    texts = list(text.finditer(event))
    if len(texts) != 1 or _NULL.search(event):
        return None
    filling = _FILLING.search(event, texts[0].end(1)) if _FILLED in event else None
    return Mould.of(event, texts[0].span(1), None if filling is None else filling.span(1))
