"""The client's end of a call: answers and streams, written straight to its connection.

aiohttp builds a response out of several objects and two dictionaries before it writes the same few lines, and wraps
each chunk of a stream in three calls. This writes them at once. Errors and everything that is not a call's answer go
aiohttp's way.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from types import MappingProxyType

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.base_protocol import BaseProtocol

from relay.outbox import Buffer, Outbox, Writable

__all__ = ["STANDING", "Outlet", "Written", "safe_header"]

STANDING: Mapping[str, str] = MappingProxyType(
    {
        "Server": "i8relay",
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
)
"""Headers of every answer. It is nobody's page: a browser that opens it shows it alone, runs nothing, keeps nothing."""

LINE = "\r\n"
LAST = b"0\r\n\r\n"
"""The end of a chunked body."""
SMALL = 16_384
"""Bytes that are put behind a head before they are written: to copy more of them takes longer than to write twice."""
_REASONS: Mapping[int, str] = {status.value: status.phrase for status in HTTPStatus}
_UNSAFE = re.compile(r"[^\x20-\x7e]")


def safe_header(text: str) -> str:
    """`text` as a header value: what is not printable ASCII becomes `?`."""
    return text if text.isascii() and text.isprintable() else _UNSAFE.sub("?", text)


@lru_cache(maxsize=1)
def _standing(second: int) -> str:
    """The header lines that all answers of one second have, but for the request's id."""
    lines = {"Date": formatdate(second, usegmt=True), **STANDING}
    return "".join(f"{name}: {value}\r\n" for name, value in lines.items())


class Nowhere:
    """Takes what a call says whose client has gone."""

    writing_paused = False

    @property
    def transport(self) -> Nowhere:
        """Itself."""
        return self

    def is_closing(self) -> bool:
        """Never."""
        return False

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def write(self, data: Buffer) -> None:
        """Nothing."""

    def writelines(self, pieces: Iterable[Buffer]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""

    async def _drain_helper(self) -> None:
        """At once."""


class Outlet:
    """Where one call's answer goes. Header names and values must be printable ASCII (see `safe_header`).

    Everything raises ConnectionResetError once the client has gone. Nothing waits: `full` says when it is time to.
    """

    __slots__ = ("_outbox", "_protocol", "chunked", "keep_alive", "lines")

    def __init__(self, protocol: BaseProtocol, outbox: Outbox, chunked: bool = True, keep_alive: bool = True) -> None:
        self._protocol: BaseProtocol | Nowhere = protocol
        self._outbox = outbox
        self.chunked = chunked
        """False for HTTP/1.0, where a stream ends with its connection."""
        self.keep_alive = keep_alive
        self.lines = ""
        """Lines of the head that its answer has in any case, each with its line end."""

    @classmethod
    def of(cls, request: web.BaseRequest, outbox: Outbox) -> Outlet:
        """The outlet of a request that aiohttp handles."""
        return cls(request.protocol, outbox, request.version >= HttpVersion11, request.keep_alive)

    @property
    def transport(self) -> Writable | None:
        """Where its bytes go; None once the client has gone."""
        return self._protocol.transport

    def write(self, data: bytes) -> None:
        """Bytes as they are."""
        transport = self._protocol.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self._outbox.write(transport, data)

    def _around(self, before: bytes, data: bytes, after: bytes = b"") -> None:
        """`data` with something around it. Much of it is not copied for that."""
        if len(data) < SMALL:
            self.write(before + data + after)
            return
        transport = self._protocol.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self._outbox.writelines(transport, (before, data, after))

    def _head(self, lines: str, headers: Mapping[str, str]) -> bytes:
        for name, value in headers.items():
            # In place, as nobody else has it.
            lines += f"{name}: {value}\r\n"
        if not self.keep_alive:
            lines += "Connection: close\r\n"
        elif not self.chunked:
            lines += "Connection: keep-alive\r\n"
        return f"{lines}\r\n".encode("latin-1")

    def answer(
        self, headers: Mapping[str, str], content_type: str, body: bytes, request_id: str, status: int = 200
    ) -> None:
        """A complete answer."""
        start = "HTTP/1.1 200 OK" if status == 200 else f"HTTP/1.1 {status} {_REASONS.get(status, '')}"
        lines = (
            f"{start}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
            f"{_standing(int(time.time()))}x-request-id: {request_id}\r\n{self.lines}"
        )
        self._around(self._head(lines, headers), body)

    def open(
        self, headers: Mapping[str, str], content_type: str, request_id: str, first: bytes, *, end: bool = False
    ) -> None:
        """The head of a stream, its first bytes if there are any, and its `end` if those are all."""
        if not self.chunked:
            self.keep_alive = False
        lines = (
            f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n"
            f"{'Transfer-Encoding: chunked' + LINE if self.chunked else ''}"
            f"{_standing(int(time.time()))}x-request-id: {request_id}\r\n{self.lines}"
        )
        head, last = self._head(lines, headers), LAST if end and self.chunked else b""
        if first and self.chunked:
            head, last = b"%b%x\r\n" % (head, len(first)), b"\r\n" + last
        self._around(head, first, last)

    def send(self, data: bytes) -> None:
        """More of a stream. Must not be empty, which would be its end."""
        # `write` and `_chunk`, written out: this runs for every piece of every stream.
        transport = self._protocol.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self._outbox.write(transport, b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def end(self, data: bytes = b"") -> None:
        """The last of a stream, and its proper end."""
        if self.chunked and data:
            self._around(b"%x\r\n" % len(data), data, b"\r\n" + LAST)
        elif self.chunked or data:
            self.write(data or LAST)

    def cut(self) -> None:
        """End a stream so that nobody can take it for complete: without its last chunk."""
        self.keep_alive = False
        transport = self._protocol.transport
        if transport is not None:
            self._outbox.release(transport)
            transport.close()

    def release(self) -> None:
        """Send what waits to be sent: aiohttp goes on with this connection, and writes or closes as it likes."""
        transport = self._protocol.transport
        if transport is not None:
            self._outbox.release(transport)

    def full(self) -> bool:
        """Whether the client reads more slowly than it is written to."""
        return self._protocol.writing_paused

    async def drain(self) -> None:
        """Wait until the client has read on. Raises ConnectionError if it has gone."""
        protocol = self._protocol
        try:
            await protocol._drain_helper()
        except ConnectionError:
            # Whoever was left meanwhile goes on without a client.
            if self._protocol is protocol:
                raise

    def leave(self) -> None:
        """The client has gone, and what is still said to it goes nowhere."""
        self._protocol = Nowhere()


class Written(web.StreamResponse):
    """What a handler returns once its answer is on its way: nothing is left to be done."""

    def __init__(self, outlet: Outlet) -> None:
        # The parent's state describes an answer that is still to be built; there is none.
        self._outlet = outlet

    @property
    def keep_alive(self) -> bool:
        """Whether the connection stays open."""
        return self._outlet.keep_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """The head is out already."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """So is the body, or it is on its way to a client that reads slowly."""
        self._outlet.release()
        if self._outlet.full():
            await self._outlet.drain()
