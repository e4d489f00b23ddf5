"""The mould of an event: its bytes around a text. What fits it is text again, and need not be decoded to be known.

`run` and `chunks` look at every byte of every stream that passes through, so there are two of them: these here, and the
same in C (`relay/native/mould.c`), which take a tenth of the time, or less, and are used where they could be built.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["COMPILED", "CRLF", "EVENT_END", "SIZE", "Mould", "chunks", "run"]

TEXT = re.compile(rb'[^"\\\n]*(?:\\.[^"\\\n]*)*')
"""What stands between the quotes of a JSON string."""
SIZE = re.compile(rb"([0-9a-fA-F]{1,7})\r\n")
"""The line before a chunk."""
CRLF = b"\r\n"
EVENT_END = b"\n\n"


class Mould(NamedTuple):
    """The bytes of an event around its text: `head`, text, `tail`.

    `tail` begins with the quote that ends the text and runs to the event's end, both included. Some vendors put filling
    of changing length into it; then `middle` is the tail up to the filling, and `tail` what follows that.

    Two events that begin and end alike may differ between: `"a"}]}` and `"a", "finish_reason": "stop"}]}` do. So what
    is between must be the inside of one string by its escapes, and filling must have no quotes but those it is known
    to have.
    """

    head: bytes
    tail: bytes
    middle: bytes = b""
    quotes: int = 0
    """Quotes between text and tail."""

    @staticmethod
    def of(event: bytes, text: tuple[int, int], filling: tuple[int, int] | None = None) -> Mould:
        """The mould of an event whose text is there, and its filling there."""
        begin, end = text
        if filling is None:
            return Mould(event[:begin], event[end:])
        return Mould(event[:begin], event[filling[1] :], event[end : filling[0]], event.count(b'"', end, filling[1]))

    def inside(self, event: bytes) -> bytes:
        """The text of an event that fits, as it is spelled in JSON."""
        begin = len(self.head)
        return event[begin : event.find(self.middle, begin) if self.middle else len(event) - len(self.tail)]


def run(data: bytes, begin: int, mould: Mould, into: bytearray | None = None, /) -> tuple[int, int]:
    """As many events of one mould as there are from `begin` on: where they end, and their bytes of text.

    Those are appended to `into`, as they are spelled in JSON.
    """
    reached, texts = _run(data, begin, len(data), mould)
    if into is not None:
        into += b"".join(texts)
    return reached, sum(map(len, texts))


def chunks(data: bytes, begin: int, mould: Mould, into: bytearray | None = None, /) -> tuple[int, int]:
    """The same for whole chunks of a chunked body, framing and all, that hold such events and nothing else."""
    found: list[bytes] = []
    while (line := SIZE.match(data, begin)) is not None:
        close = line.end() + int(line[1], 16)
        if close == line.end() or not data.startswith(CRLF, close):
            break
        reached, texts = _run(data, line.end(), close, mould)
        if reached != close:
            break
        begin = close + len(CRLF)
        found += texts
    if into is not None:
        into += b"".join(found)
    return begin, sum(map(len, found))


def _run(data: bytes, begin: int, end: int, mould: Mould) -> tuple[int, list[bytes]]:
    head, tail, middle, _ = mould
    texts: list[bytes] = []
    while begin < end and data.startswith(head, begin, end):
        text = TEXT.match(data, begin + len(head), end)
        if text is None:
            break
        rest = text.end()
        last = _filled(data, rest, end, mould) if middle else rest
        if last < rest or not data.startswith(tail, last, end) or last + len(tail) == begin:
            break
        begin = last + len(tail)
        texts.append(text[0])
    return begin, texts


def _filled(data: bytes, begin: int, end: int, mould: Mould) -> int:
    """Where the tail begins behind a filling; before `begin` if there is none that fits."""
    _, tail, middle, quotes = mould
    line = tail.find(b"\n")
    last = data.find(b"\n", begin, end) - line
    fits = line >= 0 and begin <= last and data.startswith(middle, begin, last)
    return last if fits and data.count(b'"', begin, last) == quotes else -1


COMPILED = True
"""Whether the twins in C are used."""
try:
    from relay._native import chunks, run
except ImportError:
    COMPILED = False
