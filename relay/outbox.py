"""What is written in one turn of the event loop, sent at its end.

A write wakes the process on the other side, if that sleeps; that costs more than the write. With many calls under way,
one turn writes to many connections, and peers that are woken by the first write are still awake at the next, unless the
relay does its own work between the two. So what has to go out waits for the end of the turn, and pieces for the same
connection go out as one. Where there is only one call, nothing would gather, and nothing waits.

Everything that is written comes by here, so there are two of it: this one, and the same in C
(`relay/native/outbox.c`), which is used where it could be built.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence, Sized
from typing import Protocol

__all__ = ["COMPILED", "Buffer", "Outbox", "Writable"]

Buffer = bytes | memoryview
"""Bytes to be written, or some of them."""


class Writable(Protocol):
    """As much of a transport as is needed to write to it."""

    def write(self, data: Buffer) -> None:
        """Send; never waits."""
        ...

    def writelines(self, pieces: Iterable[Buffer]) -> None:
        """Send them one behind the other."""
        ...

    def is_closing(self) -> bool:
        """Whether nothing can be written any more."""
        ...

    def get_write_buffer_size(self) -> int:
        """Bytes that wait until the other side has taken more."""
        ...


class Outbox:
    """What waits to be written. `busy` are the calls under way."""

    __slots__ = ("_busy", "_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, busy: Sized, /) -> None:
        self._loop = loop
        self._busy = busy
        self._waiting: dict[Writable, Buffer | list[Buffer]] = {}
        """For each connection what is to be written: one piece, or a list of them."""

    def write(self, to: Writable, data: Buffer, /) -> None:
        """Send before this turn is over, in order with all else for the same connection."""
        waiting = self._waiting
        if not waiting:
            if len(self._busy) < 2:
                to.write(data)
                return
            self._loop.call_soon(self.flush)
        held = waiting.get(to)
        if held is None:
            waiting[to] = data
        elif isinstance(held, list):
            held.append(data)
        else:
            waiting[to] = [held, data]

    def writelines(self, to: Writable, pieces: Sequence[Buffer], /) -> None:
        """The same for several pieces, which are not put together."""
        if self._waiting or len(self._busy) > 1:
            for piece in pieces:
                self.write(to, piece)
        else:
            to.writelines(pieces)

    def release(self, to: Writable, /) -> None:
        """Send what waits for one connection now: it will be closed, or somebody else writes to it."""
        held = self._waiting.pop(to, None)
        if held is not None and not to.is_closing():
            if isinstance(held, list):
                to.writelines(held)
            else:
                to.write(held)

    def flush(self) -> None:
        """Send everything now."""
        waiting, self._waiting = self._waiting, {}
        for to, held in waiting.items():
            if not to.is_closing():
                # The same, written out.
                if isinstance(held, list):
                    to.writelines(held)
                else:
                    to.write(held)


COMPILED = True
"""Whether the twin in C is used."""
try:
    from relay._native import Outbox  # type: ignore[assignment]
except ImportError:
    COMPILED = False
