"""Counting streams that pass through: where the text of a chunk begins and ends."""

from __future__ import annotations

import re
from functools import partial

from relay.meter import Meter
from relay.mould import Mould
from relay.skim import EVENT_END, SkimmingMeter
from relay_openai.stream import ChatDecoder

__all__ = ["chat_meter", "chunk_mould", "places"]

_FILLING = re.compile(rb'"obfuscation":\s*"([^"\\]*)"')
_FILLED = b'"obfuscation"'
BACKSLASH = 0x5C


def places(*fields: str) -> re.Pattern[bytes]:
    """Finds the texts of these fields, as its group, and without one whatever says why or what: an end, a count."""
    text = rb'(?:%b)":\s*"([^"\\]*(?:\\.[^"\\]*)*)"' % "|".join(fields).encode()
    return re.compile(rb'"(?:%b|(?:finish_reason|usage)":\s*(?!null)[^\s,}])' % text)


_TEXT = places("content", "reasoning_content", "reasoning", "arguments")


def chat_meter(decoder: ChatDecoder) -> SkimmingMeter:
    """A meter that decodes what is no plain delta."""
    return SkimmingMeter(decoder, chunk_mould, count=partial(_count, decoder))


def _count(decoder: ChatDecoder, data: bytes, meter: Meter) -> tuple[int, int, Mould | None]:
    """Count to the end of the first event with text; and its mould, if that is a chunk whose text stands just there."""
    begin, end, text = decoder.count(data, meter)
    if not text:
        return begin, end, None
    event, quoted = data[begin:end], b'"%b"' % text.encode()
    place = event.find(quoted) + 1
    if not place or event.find(quoted, place) >= 0 or BACKSLASH in event or event.find(_FILLED) >= 0:
        return begin, end, None
    return begin, end, Mould.of(event, (place, place + len(quoted) - 2))


def chunk_mould(event: bytes, text: re.Pattern[bytes] = _TEXT) -> Mould | None:
    """The mould of a chunk with one text and neither a finish reason nor a count; None for any other."""
    if not event.startswith(b"data:") or event.find(b"\n") != len(event) - len(EVENT_END):
        return None
    found = list(text.finditer(event))
    if len(found) != 1 or found[0][1] is None:
        return None
    filling = _FILLING.search(event, found[0].end(1)) if event.find(_FILLED) >= 0 else None
    return Mould.of(event, found[0].span(1), None if filling is None else filling.span(1))
