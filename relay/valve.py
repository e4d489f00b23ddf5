"""What lets whole chunks of plain text through from an upstream's connection to a client's, as they came.

It runs for every read of every stream, so there are two of it: this one, and the same in C (`relay/native/valve.c`),
with which such a chunk meets no Python function between the event loop and the outbox.
"""

from __future__ import annotations

from collections.abc import Callable

import orjson

from relay.mould import Mould, chunks
from relay.outbox import Buffer, Writable

__all__ = ["COMPILED", "Valve"]

LONGEST = 16 * 1024 * 1024
"""Bytes of text that is kept of what passes: with more of it, nothing does, and whoever reads the rest counts it."""


def _sound(text: bytearray) -> bool:
    """Whether it may be the inside of a string."""
    try:
        orjson.loads(b'"' + text + b'"')
    except orjson.JSONDecodeError:
        return False
    return True


class Valve:
    """Stands where an upstream's bytes arrive: call it with them.

    What passes is given to `write` (see `relay.outbox.Outbox.write`), all else to `rest`. It is shut until somebody
    says `let`, and while it is not `open`. What is raised in between is told to `broken`, and the bytes are dropped.
    """

    __slots__ = ("_broken", "_into", "_mould", "_out", "_rest", "_to", "_write", "last", "open", "passed", "text")

    def __init__(
        self,
        write: Callable[[Writable, Buffer], None],
        rest: Callable[[bytes], None],
        broken: Callable[[BaseException], None],
        /,
    ) -> None:
        self._write = write
        self._rest = rest
        self._broken = broken
        self._to: Writable | None = None
        self._mould: Mould | None = None
        self._into: bytearray | None = None
        self._out: tuple[bytes, bytes] | None = None
        self.open = False
        """Whether what comes next begins with a chunk of a chunked body. Set by whoever reads the rest."""
        self.text = 0
        """Bytes of text that passed so far, by whichever stream."""
        self.passed = 0
        """Bytes that passed so far, framing and all."""
        self.last: Buffer | None = None
        """What passed last, if anything has since somebody said what may."""

    def let(
        self,
        to: Writable,
        mould: Mould,
        into: bytearray | None = None,
        out: tuple[bytes, bytes] | None = None,
        /,
    ) -> None:
        """Let chunks of this mould pass to that client, while nothing waits to be sent to it.

        Their texts are appended to `into`, as they are spelled in JSON, as long as there is room for them. A client
        that speaks another dialect gets them between the two parts of `out`, of which the second begins with the
        quote that ends a string: all that come together as one event, and only what any reader of JSON takes.
        """
        self._to = to
        self._mould = mould
        self._into = into
        self._out = out
        self.last = None

    def shut(self) -> None:
        """Let nothing pass."""
        self._to = self._mould = self._into = self._out = self.last = None

    def through(self, data: bytes, begin: int, /) -> int:
        """Let pass what can from `begin` on; where the rest begins. Raises what `write` does."""
        to, mould = self._to, self._mould
        if to is None or mould is None or not self.open:
            return begin
        into, out = self._into, self._out
        said = None if into is None and out is None else bytearray()
        end, text = chunks(data, begin, mould, said)
        if into is not None and len(into) + text > LONGEST:
            return begin
        # Whatever waits to be sent says that a client may be slow.
        if end == begin or to.is_closing() or to.get_write_buffer_size():
            return begin
        if out is not None:
            if not said or not _sound(said):
                return begin
            size = len(out[0]) + text + len(out[1])
            piece: Buffer = b"%x\r\n%b%b%b\r\n" % (size, out[0], bytes(said), out[1])
        else:
            piece = data if not begin and end == len(data) else memoryview(data)[begin:end]
        if into is not None and said is not None:
            into += said
        self._write(to, piece)
        self.last = piece
        self.text += text
        self.passed += end - begin
        return end

    def __call__(self, data: bytes, /) -> None:
        """What has arrived."""
        try:
            begin = self.through(data, 0)
        except BaseException as error:
            self._broken(error)
            return
        if begin < len(data):
            self._rest(data[begin:] if begin else data)


COMPILED = True
"""Whether the twin in C is used."""
try:
    from relay._native import Valve  # type: ignore[assignment]
except ImportError:
    COMPILED = False
