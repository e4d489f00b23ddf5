"""Counting a stream that passes through without reading most of it.

Nearly all events of a stream are one and the same but for a few letters of text. Once one of them was decoded, its
bytes before and after that text are a mould: what fits it is text again, and need only be measured. Everything else
goes through the real decoder, so that ends, counts and errors are exactly the decoder's, in its order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeGuard

from relay.dialect import StreamFilter
from relay.events import ArgumentsDelta, StreamDecoder
from relay.kit import WholeEvents, estimate_tokens, loads
from relay.meter import Meter
from relay.mould import EVENT_END, Mould, run

__all__ = ["SkimmingMeter", "resting"]

LONGEST = 65_536
"""Bytes of an incomplete event beyond which it is given to the decoder as it comes."""
MOULDS = 4
"""Moulds kept per stream: its text, its reasoning, its tool arguments."""
FEW = 2048
"""Bytes of several events that are decoded together."""
CR = 0x0D
NOWHERE = 0, 0


def resting(filter: StreamFilter) -> TypeGuard[WholeEvents]:
    """Whether a filter need not be shown a whole event of plain text."""
    return isinstance(filter, WholeEvents) and filter.resting


def _alone(mould: Mould, event: bytes, seen: float, arguments: str | None) -> bool:
    """Whether the mould's text is all that was seen of its event, and not one of several, or another one.

    `arguments`: what was read of it, if that is a piece of a call's.
    """
    try:
        text = loads(b'"%b"' % mould.inside(event))
    except ValueError:
        return False
    if arguments is not None:
        return bool(text == arguments)
    return type(text) is str and seen in (len(text) / 4, estimate_tokens(text))


class SkimmingMeter(Meter):
    """A `StreamMeter` of server-sent events over a decoder.

    Of arguments that somebody will check, what fits a mould is kept as it is spelled (`Meter.room`) and read later.

    `mould` makes a mould of one event that was decoded, or says None if the event is not plain text. `count` does what
    `add(decoder.feed(data))` does with the meter that it is given, in a way of the decoder's own, to the end of the
    first event with text: it gives where that begins and ends, and its mould where it knows that.
    """

    __slots__ = ("_count", "_decoder", "_mould", "_moulds", "_slow", "_tail", "into", "span")

    def __init__(
        self,
        decoder: StreamDecoder,
        mould: Callable[[bytes], Mould | None],
        *,
        count: Callable[[bytes, Meter], tuple[int, int, Mould | None]] | None = None,
    ) -> None:
        super().__init__()
        self.span = NOWHERE
        """Where in the bytes that it was given last it saw whole events of plain text and nothing else."""
        self._decoder = decoder
        self._count = count
        self._mould = mould
        self._moulds: list[Mould] = []
        self.into: bytearray | None = None
        """Where the texts belong that fit `mould`, if those are arguments that somebody will check."""
        self._tail = b""
        self._slow = False

    def feed(self, data: bytes, /) -> None:
        """The next bytes. Any cut gives the same end, because only whole events are judged."""
        moulds, lone = self._moulds, False
        if not self._tail:
            reached = 0
            if moulds:
                # The way of nearly every piece: events of the kind that came last.
                reached, text = run(data, 0, moulds[0])
                if reached == len(data):
                    self.seen += text / 4
                    self.span = 0, reached
                    if self.into is not None:
                        # Only now: what fits in part is taken in otherwise.
                        run(data, 0, moulds[0], self.into)
                    return
            lone = not reached and len(moulds) < 2 and self._next(data, 0) == len(data)
        self.span = NOWHERE
        if lone and not self._slow and data.endswith(EVENT_END):
            # The first events of most streams, and their last ones.
            reached = self._read(data)
            if reached < len(data):
                self._sort(data, reached)
            return
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
        if not data.endswith(EVENT_END):
            end = data.rfind(EVENT_END) + len(EVENT_END)
            rest = data[end:] if end > 1 else data
            if CR in rest or len(rest) > LONGEST:
                # Line ends of another kind, or events so long that skimming saves nothing.
                self._slow = True
                self.into = None
                self._moulds.clear()
                self.add(self._decoder.feed(data))
                return
            self._tail = rest
            if end == 1:
                return
            data = data[:end]
        self._sort(data)

    @property
    def mould(self) -> Mould | None:
        """The kind of event that came last, if the next one may pass by `feed`: then add its text to `seen`."""
        return self._moulds[0] if self._moulds and not self._tail else None

    def close(self) -> None:
        """The end of the bytes."""
        if self._tail:
            self.add(self._decoder.feed(self._tail))
        self.add(self._decoder.close())

    def _sort(self, data: bytes, place: int = 0) -> None:
        """Events that fit a mould are measured, the others decoded, and new moulds made of them."""
        while place < len(data) and self.error is None and not self.complete:
            reached = self._skim(data, place) if self._moulds else place
            if reached == place:
                reached = place + self._read(data[place : self._next(data, place)])
            place = reached

    def _next(self, data: bytes, place: int) -> int:
        """How far to read what fits no mould."""
        if len(data) - place < FEW:
            if not self._moulds:
                if self._count is not None and not self.keep_calls:
                    # A stream's first events, most likely. The first one with text is where that stops.
                    return len(data)
            elif data.find(self._moulds[0].head, place) < 0:
                # Its last ones, most likely: nothing follows them that would be worth a mould.
                return len(data)
        end = data.find(EVENT_END, place) + len(EVENT_END)
        # At least one line end more than a blank line needs, where there is no event.
        return end if end > place else len(data)

    def _skim(self, data: bytes, place: int) -> int:
        """Measure the events of one kind that begin there; where something else begins."""
        for mould in self._moulds:
            into = self.into if mould is self._moulds[0] else None
            reached, text = run(data, place, mould, into)
            if reached > place:
                if into is None:
                    self._let_go()
                self.seen += text / 4
                if reached - place > self.span[1] - self.span[0]:
                    self.span = place, reached
                return reached
        return place

    def _let_go(self) -> None:
        """Read arguments again: something came between them, and the next may be of another call."""
        if self.into is not None:
            self.into = None
            del self._moulds[0]

    def _read(self, data: bytes) -> int:
        """Have events decoded or counted, and make a mould of the one with text. How far that went."""
        self._let_go()
        before, begin, end, mould = self.seen, 0, len(data), None
        piece: ArgumentsDelta | None = None
        if self._count is not None and not self.keep_calls:
            begin, end, mould = self._count(data, self)
        else:
            events = self._decoder.feed(data)
            self.add(events)
            if self.keep_calls:
                piece = next((one for one in events if type(one) is ArgumentsDelta), None)
                if piece is not None and len(events) > 1:
                    return end
        if self.seen <= before or len(data) > LONGEST:
            # To look for the place of a text takes long where that is long.
            return end
        if mould is None:
            mould = self._mould(data[begin:end])
            arguments = None if piece is None else piece.arguments
            if mould is not None and not _alone(mould, data[begin:end], self.seen - before, arguments):
                return end
        if mould is not None and mould.tail.endswith(EVENT_END) and mould not in self._moulds:
            into = None if piece is None else self.room(piece.index)
            if into is not None or piece is None:
                # The newest first: a stream comes back to the kind it had before less often than it goes on with one.
                self._moulds.insert(0, mould)
                del self._moulds[MOULDS:]
                self.into = into
        return end
