"""One connection to an upstream: bytes in, calls of the exchange that has it now out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, cast

import httptools

from relay.errors import RelayError, UpstreamError, UpstreamHungUp, UpstreamProtocol, UpstreamUnreachable
from relay.mould import CRLF, SIZE
from relay.outbox import Outbox
from relay.valve import Valve

__all__ = ["Connection", "Reader"]

HEAD_BYTES = 65_536
HEAD_FIELDS = 256
SMALL_BODY = 16_384
"""Bytes of a body that are put behind the head before they are written: to copy more of them takes longer."""
NAMES_KEPT = 1024
MUCH = 4096
"""Bytes of a read that begins an answer from which on it is worth while to see how it goes on."""
OPENING = 5
"""Chunks within which the first text has to come for that."""
HEAD_END = b"\r\n\r\n"

_names: dict[bytes, str] = {}


def _name(raw: bytes) -> str:
    """A header name in lower case; the same few come again and again."""
    name = _names.get(raw)
    if name is None:
        name = raw.decode("latin-1").lower()
        if len(_names) < NAMES_KEPT:
            _names[raw] = name
    return name


class Reader(Protocol):
    """What a connection tells of an answer."""

    ended: bool
    """Whether the answer is complete."""

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """The head has arrived."""
        ...

    def broken(self, error: BaseException) -> None:
        """What was raised while chunks were let through."""
        ...

    def data(self, piece: bytes) -> None:
        """More of the body."""
        ...

    def end(self) -> None:
        """The body is complete."""
        ...

    def fail(self, error: RelayError) -> None:
        """There will be no more."""
        ...


class Connection(asyncio.BaseProtocol):
    """One connection. The parser calls its `on_...` attributes, most of which are methods of lists and dictionaries:
    that spares a Python function for each header, each chunk and each beginning of an answer. So does its `valve`,
    which the event loop calls in place of `data_received`, for each piece that passes as it came."""

    data_received: Callable[[bytes], None]

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.transport: asyncio.Transport | None = None
        self.exchange: Reader | None = None
        self.idle_since = 0.0
        self.reusable = True
        self._fields: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._bodies: list[bytes] = []
        self._due: list[None] = []
        self._headless = True
        self._complete = False
        self._until_close = False
        self._inside: list[None] = []
        """Holds something while a chunk is incomplete."""
        self._chunked = False
        self.valve = self.data_received = Valve(outbox.write, self._received, self._broken)
        """Lets chunks pass by the parser. It is open while that stands between two of them."""
        self.valved = False
        """Whether the exchange makes use of that."""
        self.on_chunk_header: Callable[[], None] = partial(self._inside.append, None)
        self.on_chunk_complete: Callable[[], None] = self._inside.clear
        self.on_header: Callable[[bytes, bytes], None] = self._fields.__setitem__
        self.on_body: Callable[[bytes], None] = self._bodies.append
        self.on_message_begin: Callable[[], None] = self._due.pop
        """Takes one of the answers that are due. If none is, the bytes are of an answer that nobody asked for, and the
        error that this raises ends the connection: they must never meet the next request."""
        # Last, because the parser looks for the methods that it will call when it is made.
        self._parser: Any = httptools.HttpResponseParser(self)

    def begin(self, exchange: Reader) -> None:
        """Take the connection for one exchange."""
        self.exchange = exchange
        self._due.append(None)
        self._head_bytes = 0
        self._headless = True
        self._complete = False
        self._until_close = False
        self._chunked = self.valved = self.valve.open = False

    def write(self, head: bytes, body: bytes) -> None:
        """Send the request."""
        if self.transport is None:
            raise UpstreamUnreachable("the upstream closed the connection before anything was sent")
        if len(body) < SMALL_BODY:
            self._outbox.write(self.transport, head + body)
        else:
            self._outbox.writelines(self.transport, (head, body))

    def abort(self) -> None:
        """Close now, without sending what still waits."""
        self.reusable = False
        if self.transport is not None:
            self.transport.abort()

    def pause(self) -> None:
        """Stop reading: the upstream is faster than the client."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        # A cast and no check: uvloop's transports are not of asyncio's class.
        self.transport = cast(asyncio.Transport, transport)

    def _received(self, data: bytes) -> None:
        """Bytes of the upstream's that did not pass."""
        begin = 0
        if self._headless and len(data) > MUCH:
            begin = self._opening(data)
        if begin < len(data):
            self._read(data[begin:] if begin else data)

    def _broken(self, error: BaseException) -> None:
        """What was raised while chunks were let through."""
        if self.exchange is not None:
            self.exchange.broken(error)

    def _passed(self, data: bytes, begin: int) -> int:
        """Let pass what can from one place on; where the rest begins."""
        try:
            return self.valve.through(data, begin)
        except BaseException as error:
            self._broken(error)
            return len(data)

    def _opening(self, data: bytes) -> int:
        """Read the head of an answer and its first chunks by themselves: what follows may be like them, and pass.

        Where the rest begins. It is all the same to the answer how it was cut.
        """
        begin, edge = 0, data.find(HEAD_END) + len(HEAD_END)
        for number in range(OPENING):
            line = SIZE.match(data, edge)
            edge = len(data) if line is None else line.end() + int(line[1], 16) + len(CRLF)
            if edge >= len(data):
                break
            # No stream's first chunk is text.
            if number:
                self._read(data[begin:edge])
                if not self.reusable:
                    return len(data)
                begin = edge
                if not self.valve.open or (begin := self._passed(data, edge)) > edge:
                    # Nothing passes here, or what could has.
                    break
        return begin

    def _read(self, data: bytes) -> None:
        exchange = self.exchange
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._failed(error)
            return
        if self.valved:
            self.valve.open = self._chunked and not self._inside and data.endswith(CRLF)
        bodies = self._bodies
        if bodies and exchange is not None:
            # `_deliver`, written out: this runs for every read of every stream.
            piece = bodies[0] if len(bodies) == 1 else b"".join(bodies)
            bodies.clear()
            exchange.data(piece)
        if self._complete:
            # Only now: whoever uses the connection next must find that nothing came behind the answer.
            self._complete = False
            if self.exchange is not None:
                self.exchange.end()
        elif self._headless or self._fields:
            # In a head, or among trailers.
            self._head_bytes += len(data)
            if len(self._fields) > HEAD_FIELDS or (self._headless and self._head_bytes > HEAD_BYTES):
                self._fail(UpstreamProtocol("the head of the upstream's answer is too large"))

    def _failed(self, error: Exception) -> None:
        """The parser cannot go on."""
        self._deliver()
        self.reusable = self.valve.open = False
        if self._complete and self.exchange is not None:
            # What was asked for is there; only what follows it is wrong.
            self._complete = False
            self.exchange.end()
            self.abort()
            return
        context = error.__context__
        self._fail(context if isinstance(context, UpstreamError) else _invalid())

    def _deliver(self) -> None:
        """Hand over what one read held of the body, as one piece however many chunks it came in."""
        bodies = self._bodies
        if not bodies:
            return
        piece = bodies[0] if len(bodies) == 1 else b"".join(bodies)
        bodies.clear()
        if self.exchange is not None:
            self.exchange.data(piece)

    def eof_received(self) -> None:
        """The upstream will send no more; what that means is decided in `connection_lost`."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by whomever."""
        self.transport = None
        self.reusable = False
        exchange = self.exchange
        if exchange is None:
            return
        if self._headless:
            exchange.fail(UpstreamHungUp("the upstream closed the connection without an answer"))
        elif self._until_close and exc is None:
            # Without a length the close is all there is to mark the end; whether the answer is complete is for its
            # own format to say.
            exchange.end()
        else:
            exchange.fail(UpstreamProtocol("the upstream broke off its answer"))

    def _fail(self, error: UpstreamError) -> None:
        if self.exchange is not None:
            self.exchange.fail(error)
        self.abort()

    # httptools

    def on_headers_complete(self) -> None:
        """The head is there; one with a status below 200 only announces another."""
        fields = self._fields
        status = self._parser.get_status_code()
        if status == 101 or not 100 <= status < 600:
            raise _invalid()
        if status < 200:
            self._due.append(None)
            fields.clear()
            return
        if len(fields) > HEAD_FIELDS:
            raise UpstreamProtocol("the head of the upstream's answer is too large")
        if self.exchange is None:
            return
        headers = {_names.get(name) or _name(name): value.decode("latin-1") for name, value in fields.items()}
        fields.clear()
        self._headless = False
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self._until_close = "content-length" not in headers and "transfer-encoding" not in headers
        self.exchange.begin(status, headers)

    def on_message_complete(self) -> None:
        """The answer is complete."""
        if self._headless:
            return
        # Here, for what comes behind it belongs to nobody.
        self._deliver()
        self._fields.clear()
        self._complete = True
        if self.reusable:
            self.reusable = self._parser.should_keep_alive()


def _invalid() -> UpstreamProtocol:
    return UpstreamProtocol("the upstream's answer is not valid HTTP")
