"""Counting a stream that passes through without reading most of it.

Nearly all events of a stream are one and the same but for a few letters of text. Once one of them was decoded, its
bytes before and after that text are a mould: what fits it is text again, and need only be measured. Everything else
goes through the real decoder, so that ends, counts and errors are exactly the decoder's, in its order.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from relay.events import ArgumentsDelta, StreamDecoder
from relay.meter import Meter

__all__ = ["Mould", "SkimmingMeter"]

LONGEST = 65_536
"""Bytes of an incomplete event beyond which it is given to the decoder as it comes."""
MOULDS = 4
"""Moulds kept per stream: its text, its reasoning, its tool arguments."""
CRLF = b"\r\n"
DIGITS = 8
"""Bytes in which the line with a chunk's size ends."""
SIZES = 256
"""Sizes of chunks that are remembered for each mould."""
NEVER = b"\n"
"""What no chunk begins with."""
TRIES = 4
"""Runs of events that are looked for in one piece before its events are taken one by one."""
TEXT = re.compile(rb'[^"\\\n]*(?:\\.[^"\\\n]*)*')
"""What stands between the quotes of a JSON string."""
TEXTS = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*')
"""Several of them, a line each: no backslash is the last of its line."""
LINE_END, QUOTE, BACKSLASH = b'\n"\\'
"""As numbers: Python looks for a byte in bytes twice as fast as for bytes in bytes."""
NOWHERE = 0, 0


@dataclass(frozen=True)
class Mould:
    """The bytes of an event around its text: `head`, text, `tail`.

    `tail` begins with what ends the text and runs to the event's end, both included. Some vendors put filling of
    changing length into it; then `middle` is the tail up to the filling, and `tail` what follows that.

    Two events that begin and end alike may differ between: `"a"}]}` and `"a", "finish_reason": "stop"}]}` do. So what
    is between must have no quotes but those it is known to have, or be the inside of one string by its escapes.
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

    @cached_property
    def frame(self) -> int:
        """Bytes beside the text."""
        return len(self.head) + len(self.tail)

    @cached_property
    def seam(self) -> bytes:
        """What stands between the texts of two such events."""
        return self.tail + self.head

    @cached_property
    def lines(self) -> int:
        """Line ends of one such event."""
        return self.head.count(b"\n") + self.tail.count(b"\n")

    @cached_property
    def place(self) -> tuple[int, int, int]:
        """On which line of such an event its text is, where it begins there, and where it ends from the line's end."""
        return self.head.count(b"\n"), len(self.head) - self.head.rfind(b"\n") - 1, -self.tail.index(b"\n")

    @cached_property
    def marks(self) -> int:
        """Quotes of one such event."""
        return self.head.count(b'"') + self.tail.count(b'"')

    @cached_property
    def end(self) -> bytes:
        """How a chunk ends that holds one such event."""
        return self.tail + CRLF

    @cached_property
    def sizes(self) -> dict[int, tuple[bytes, int, int]]:
        """Of chunks of known sizes that hold one such event: how they begin, and where their text begins and ends."""
        return {}

    def text_of(self, chunk: bytes) -> int:
        """Bytes of text in a chunk of a chunked body, framing and all, that holds one such event. Else below 0."""
        start, begin, end = self.sizes.get(len(chunk)) or self._size(chunk)
        if not chunk.startswith(start) or not chunk.endswith(self.end):
            return -1
        text = chunk[begin:end]
        if LINE_END in text:
            return -1
        if self.middle:
            if text.count(b'"') != self.quotes:
                return self._escaped(chunk, begin, end)
            last = text.rfind(self.middle)
            return last if not text.endswith(b"\\", 0, last) else self._escaped(chunk, begin, end)
        if QUOTE in text or BACKSLASH in text:
            return self._escaped(chunk, begin, end)
        return end - begin

    def one(self, data: bytes, begin: int, end: int) -> int:
        """Bytes of text in what is there, if it is one such event. Else below 0."""
        text, tail = begin + len(self.head), end - len(self.tail)
        if text > tail or not data.startswith(self.head, begin) or not data.endswith(self.tail, begin, end):
            return -1
        if data.find(b"\n", text, tail) >= 0:
            return -1
        return self._escaped(data, text, tail)

    def _escaped(self, data: bytes, begin: int, end: int) -> int:
        """Bytes of text between head and tail, where escapes are; below 0 if there is anything else."""
        text = TEXT.match(data, begin, end)
        ends = begin if text is None else text.end()
        fits = data.startswith(self.middle, ends, end) and data.count(b'"', ends, end) == self.quotes
        return ends - begin if fits and (self.middle or ends == end) else -1

    def _size(self, chunk: bytes) -> tuple[bytes, int, int]:
        """The same of a chunk of another size; if it is not one whole chunk, bytes that it does not begin with."""
        place = chunk.find(CRLF, 0, DIGITS)
        line = chunk[: place + len(CRLF)]
        body = len(chunk) - len(line) - len(CRLF)
        if place < 0 or body <= 0 or line.lower() != b"%x\r\n" % body:
            return NEVER, 0, 0
        start = line + self.head
        known = start, len(start), len(chunk) - len(self.end)
        if len(self.sizes) < SIZES:
            self.sizes[len(chunk)] = known
        return known

    def run(self, data: bytes, begin: int, end: int) -> int:
        """Bytes of text if there is nothing but such events there, one behind the other; else below 0.

        What stands at the places of the texts is taken out, and the events are put together again around it. If that
        makes the same bytes, and every text is the inside of a string, then there is nothing else in them.
        """
        if self.middle or not data.startswith(self.head, begin) or not data.endswith(self.tail, begin, end):
            return -1
        run = data[begin:end]
        lines = run.split(b"\n")
        line, first, last = self.place
        texts = [one[first:last] for one in lines[line : -1 : self.lines]]
        if b"".join((self.head, self.seam.join(texts), self.tail)) != run:
            return -1
        text = b"\n".join(texts)
        if (QUOTE in text or BACKSLASH in text) and TEXTS.fullmatch(text) is None:
            return -1
        return len(text) - len(texts) + 1


class SkimmingMeter(Meter):
    """A `StreamMeter` of server-sent events over a decoder.

    `mould` makes a mould of one event that was decoded, or says None if the event is not plain text. `tells_calls`:
    whether its decoder tells all of a tool's arguments to whoever sees every piece of them and not every piece of text.
    """

    __slots__ = ("_decoder", "_mould", "_moulds", "_slow", "_tail", "span", "tells_calls")

    def __init__(
        self, decoder: StreamDecoder, mould: Callable[[bytes], Mould | None], *, tells_calls: bool = True
    ) -> None:
        super().__init__()
        self.tells_calls = tells_calls
        self.span = NOWHERE
        """Where in the bytes that it was given last it saw whole events of plain text and nothing else."""
        self._decoder = decoder
        self._mould = mould
        self._moulds: list[Mould] = []
        self._tail = b""
        self._slow = False

    def feed(self, data: bytes, /) -> None:
        """The next bytes. Any cut gives the same end, because only whole events are judged."""
        if self._moulds and not self._tail:
            # The way of nearly every piece: one event, of the kind that came last.
            mould = self._moulds[0]
            if (
                data.startswith(mould.head)
                and data.endswith(mould.tail)
                and not mould.middle
                and data.count(b'"') == mould.marks
                and data[-len(mould.tail) - 1] != BACKSLASH
                and data.find(b"\n\n") == len(data) - 2
            ):
                self.seen += (len(data) - mould.frame) / 4
                self.span = 0, len(data)
                return
        self.span = NOWHERE
        if self._slow:
            self.add(self._decoder.feed(data))
            return
        if held := self._tail:
            self._tail = b""
            self._take(held + data)
            # Those are places in other bytes.
            self.span = NOWHERE
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        if not data.endswith(b"\n\n"):
            end = data.rfind(b"\n\n") + 2
            rest = data[end:] if end > 1 else data
            if b"\r" in rest or len(rest) > LONGEST:
                # Line ends of another kind, or events so long that skimming saves nothing.
                self._slow = True
                self.add(self._decoder.feed(data))
                return
            self._tail = rest
            if end == 1:
                return
            data = data[:end]
        for mould in self._moulds:
            if data.startswith(mould.head) and self._skim(mould, data, 0, len(data)):
                return
        self._sort(data)

    @property
    def mould(self) -> Mould | None:
        """The kind of event that came last, if the next one may pass by `feed`: then add its text to `seen`."""
        return self._moulds[0] if self._moulds and not self._tail and not self._slow else None

    def close(self) -> None:
        """The end of the bytes."""
        if self._tail:
            self.add(self._decoder.feed(self._tail))
        self.add(self._decoder.close())

    def _skim(self, mould: Mould, data: bytes, begin: int, end: int) -> bool:
        """Measure what is there, if it is nothing but events of that kind."""
        text = mould.one(data, begin, end) if mould.middle else mould.run(data, begin, end)
        if text < 0:
            return False
        self.seen += text / 4
        if end - begin > self.span[1] - self.span[0]:
            self.span = begin, end
        return True

    def _sort(self, data: bytes) -> None:
        """Event by event: those that fit a mould are measured, the others decoded, and new moulds made of them."""
        place, tries = 0, TRIES
        while place < len(data) and self.error is None and not self.complete:
            mould = self._begun(data, place)
            if mould is not None and tries and (last := data.rfind(mould.tail, place)) >= 0:
                # What comes before the last event of this kind is most often nothing but events of this kind.
                tries -= 1
                end = last + len(mould.tail)
                if self._skim(mould, data, place, end):
                    place = end
                    continue
            end = data.find(b"\n\n", place) + 2
            if end == 1:
                # One line end more than a blank line needs.
                end = len(data)
            if mould is None or not self._skim(mould, data, place, end):
                self._read(data[place:end])
            place = end

    def _begun(self, data: bytes, place: int) -> Mould | None:
        """The kind of event that may begin there."""
        for mould in self._moulds:
            if data.startswith(mould.head, place):
                return mould
        return None

    def _read(self, event: bytes) -> None:
        before = self.seen
        events = self._decoder.feed(event)
        self.add(events)
        if self.keep_calls and any(type(one) is ArgumentsDelta for one in events):
            # They are wanted whole, so each of them is read.
            return
        if self.seen <= before or len(event) > LONGEST:
            # To look for the place of a text takes long where that is long.
            return
        if (mould := self._mould(event)) is not None and mould not in self._moulds:
            # The newest first: a stream comes back to the kind it had before less often than it goes on with one.
            self._moulds.insert(0, mould)
            del self._moulds[MOULDS:]
