"""Counting streams that pass through."""

from __future__ import annotations

from functools import partial

from relay.meter import Meter
from relay.mould import Mould
from relay.skim import SkimmingMeter
from relay_openai.mould import FILLED, chunk_mould
from relay_openai.stream import ChatDecoder

__all__ = ["chat_meter"]

BACKSLASH = 0x5C


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
    if not place or event.find(quoted, place) >= 0 or BACKSLASH in event or event.find(FILLED) >= 0:
        return begin, end, None
    return begin, end, Mould.of(event, (place, place + len(quoted) - 2))
