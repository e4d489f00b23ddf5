"""Text of a translated stream: from the upstream's form into the client's without being decoded and encoded again.

Nearly all events of a stream are one and the same but for a few letters of text, in the upstream's dialect and in the
client's. Where the decoder knows what stands around that text and the encoder what is to stand around it, the text goes
on as it is spelled: a JSON string is one in every dialect. What has gone by is told to all who follow the stream as one
piece, before they are given anything else: so they come to know all of it, only later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from relay.events import Event, StreamEncoder, TextDelta, ThinkingDelta
from relay.fold import Fold
from relay.kit import loads
from relay.meter import Meter
from relay.mould import EVENT_END, Mould, run
from relay.outbox import Writable
from relay.valve import Valve

__all__ = ["Recast"]

Piece: TypeAlias = TextDelta | ThinkingDelta


class Recast:
    """What passes of one translated stream. `follow` says after each piece that was translated what may pass next."""

    __slots__ = ("_cast", "_event", "_into", "_mould", "_mould_of", "_tell")

    def __init__(
        self,
        mould_of: Callable[[bytes], Mould | None],
        cast: Callable[[Piece], tuple[bytes, bytes] | None],
        tell: Sequence[Callable[[list[Event]], object]],
    ) -> None:
        self._mould_of = mould_of
        self._cast = cast
        self._tell = tell
        """Who follows the stream: first who counts."""
        self._mould: Mould | None = None
        self._event: Piece | None = None
        """The last piece that was translated: what passes is more of its part."""
        self._into = bytearray()

    @staticmethod
    def of(decoder: object, encoder: StreamEncoder | None, meter: object, fold: Fold | None) -> Recast | None:
        """For a stream between these two, if both know what it takes (`relay.events.TellsMould`, `Casts`)."""
        # Asked for by name: to compare with a protocol costs as much as twenty pieces.
        mould_of, cast = getattr(decoder, "mould", None), getattr(encoder, "cast", None)
        if mould_of is None or cast is None or encoder is None or not isinstance(meter, Meter):
            return None
        return Recast(
            mould_of, cast, (meter.add, encoder.encode) if fold is None else (meter.add, fold.add, encoder.encode)
        )

    def follow(self, valve: Valve, to: Writable | None, piece: bytes, events: Sequence[Event]) -> None:
        """Let pass what is like this piece, if it was one event of text and nothing else; or nothing."""
        event = events[0] if len(events) == 1 else None
        if (
            isinstance(event, TextDelta | ThinkingDelta)
            and to is not None
            and (out := self._cast(event)) is not None
            and (mould := self._mould_for(piece, event)) is not None
        ):
            self._event = event
            valve.let(to, mould, self._into, out)
        else:
            valve.shut()

    def _mould_for(self, piece: bytes, event: Piece) -> Mould | None:
        known = self._mould
        if known is not None and run(piece, 0, known)[0] == len(piece):
            return known
        mould = self._mould_of(piece)
        if mould is None or not mould.tail.endswith(EVENT_END):
            return None
        try:
            said = loads(b'"%b"' % mould.inside(piece))
        except ValueError:
            return None
        if said != event.text:
            return None
        self._mould = mould
        return mould

    def catch_up(self, *, ended: bool = False) -> None:
        """Tell what has passed since this was asked last, as one piece. When all has `ended`, only who counts is told:
        nobody writes any more, and what a plugin raises then must not cost the call its row."""
        event, into = self._event, self._into
        if event is None or not into:
            return
        text = str(loads(b'"%b"' % bytes(into)))
        into.clear()
        for tell in self._tell[:1] if ended else self._tell:
            tell([type(event)(event.index, text)])
