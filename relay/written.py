"""Complete answers, written to the client's transport in one piece.

aiohttp builds a response out of several objects and two dictionaries before it writes the same few lines. This writes
them at once; streams, errors and everything that is not a call's answer go aiohttp's way.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

__all__ = ["Written", "write_answer"]


class Written(web.StreamResponse):
    """What a handler returns once its answer is on its way: nothing is left to be done."""

    def __init__(self, request: web.Request, keep_alive: bool) -> None:
        # The parent's state describes an answer that is still to be built; there is none.
        self._request = request
        self._kept = keep_alive

    @property
    def keep_alive(self) -> bool:
        """Whether the connection stays open."""
        return self._kept

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """The head is out already."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """So is the body, or it is on its way to a client that reads slowly."""
        if self._request.protocol.writing_paused:
            await self._request.writer.drain()


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    """The Date header, made once a second."""
    return formatdate(second, usegmt=True)


def write_answer(
    request: web.Request, headers: Mapping[str, str], content_type: str, body: bytes, request_id: str
) -> web.StreamResponse:
    """Send status 200 with `body`. `headers` and `content_type` must be printable ASCII (see `safe_header`)."""
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has gone")
    keep_alive = request.keep_alive
    date = _date(int(time.time()))
    lines = [
        f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nDate: {date}\r\n"
        f"Server: i8relay\r\nX-Content-Type-Options: nosniff\r\nx-request-id: {request_id}\r\n"
    ]
    lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
    if not keep_alive:
        lines.append("Connection: close\r\n")
    elif request.version < (1, 1):
        lines.append("Connection: keep-alive\r\n")
    lines.append("\r\n")
    transport.write("".join(lines).encode("latin-1") + body)
    return Written(request, keep_alive)
