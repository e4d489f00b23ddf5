"""The outermost edge: connections that say what is not HTTP, that say nothing, or that take nothing of what is said.

aiohttp answers what its parser refuses before the application sees it: as plain text that repeats the offending bytes.
Here it gets the envelope that every other error has. And aiohttp leaves the time to its applications: heads that drip
in, and answers that nobody reads, are ended here.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import struct
import termios
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import StreamReader
from aiohttp.typedefs import Middleware
from aiohttp.web_protocol import RequestPayloadError
from multidict import CIMultiDict, CIMultiDictProxy

from relay.envelope import error_body, new_request_id
from relay.errors import BadParameter, CallerError, InternalError, RelayError
from relay.middleware import CROSS_ORIGIN, EXPECTED, INVALID, LEFT, STOPPED, Handler
from relay.origins import preflight
from relay.outlet import Outlet, Written

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["Gate", "Gates", "Guard"]

UNREADABLE = BadParameter("the request is not valid HTTP", code=INVALID)
FAULTS: Mapping[type[BaseException], RelayError] = {
    LineTooLong: BadParameter("a line of the request's head is too long", status=431, code="head_too_large"),
}
"""What is said of each kind of thing that is not HTTP; of all others, no more than that."""
BYTES = struct.Struct("i")
AUTHORITY: web.RequestKey[str] = web.RequestKey("authority", str)
"""The host in a target of absolute form."""

log = logging.getLogger("relay.gate")


class Guard:
    """The middleware that decides whether a request is for this relay, and whether its page may ask."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def middleware(self) -> Middleware:
        """As aiohttp wants it."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return self._preflight(request) or await handler(request)

        return guard

    def _preflight(self, request: web.Request) -> web.StreamResponse | None:
        """Let a request pass, or answer a browser that asks beforehand. Raises CallerError."""
        headers, origins = request.headers, self._relay.origins
        host = headers.get(hdrs.HOST)
        for name in (host, request.get(AUTHORITY)):
            if not origins.answers_to(name):
                raise origins.refusal(name)
        if headers.get(hdrs.TRANSFER_ENCODING, "chunked").lower() != "chunked":
            # The parser takes an empty one for none; a proxy before us may not.
            raise UNREADABLE
        if request.get(EXPECTED, "100-continue") != "100-continue":
            raise CallerError("nothing but 100-continue can be expected", status=417, code="expectation_failed")
        origin = headers.get(hdrs.ORIGIN)
        if origin is None:
            return None
        request[CROSS_ORIGIN] = allowed = origins.headers(origin, host)
        if request.method == "OPTIONS" and hdrs.ACCESS_CONTROL_REQUEST_METHOD in headers and allowed:
            return web.Response(status=204, headers=preflight(headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "")))
        return None


class Gate(web.RequestHandler):
    """One connection."""

    __slots__ = ("dripping", "outstanding", "patience", "relay")

    def __init__(self, manager: web.Server, relay: Relay, *, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(manager, loop=loop, **options)
        self.relay = relay
        self.dripping: asyncio.TimerHandle | None = None
        self.patience: asyncio.TimerHandle | None = None
        self.outstanding = 0

    # What is not HTTP

    def _make_error_handler(self, err_info: Any) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
        async def refused(_: web.BaseRequest) -> web.StreamResponse:
            log.debug("refused a request: %s", type(err_info.exc).__name__)
            return self._say(FAULTS.get(type(err_info.exc), UNREADABLE))

        return refused

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What escaped the application."""
        log.error("a request failed outside of the application", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun already")
        return self._say(InternalError("internal error", status=status))

    def _say(self, error: RelayError) -> Written:
        """The connection's last word."""
        outlet = Outlet(self, self.relay.outbox, keep_alive=False)
        request_id = new_request_id(time.time_ns() // 1_000_000)
        outlet.answer({}, "application/json", error_body(error), request_id, status=error.status)
        return Written(outlet)

    # Who says nothing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected, and should say why before long."""
        super().connection_made(transport)
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
            wait = min(self._keepalive_timeout, self.relay.settings.server.head_timeout)
            self._next_keepalive_close_time = self._loop.time() + wait
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)

    def data_received(self, data: bytes) -> None:
        """Bytes of the client's."""
        super().data_received(data)
        if self._messages:
            self._check()
        else:
            self._unfinished()

    def _check(self) -> None:
        """If the last that came is no HTTP, whoever waits for a body waits in vain, and aiohttp does not tell them."""
        if type(self._messages[-1][0]) is RawRequestMessage:
            return
        waited = [payload for _, payload in self._messages]
        if self._current_request is not None:
            waited.append(self._current_request.content)
        for payload in waited:
            if not payload.is_eof() and payload.exception() is None:
                payload.set_exception(RequestPayloadError("the body is not valid HTTP"))

    def _unfinished(self) -> None:
        """If nothing but a part of a head has come: the rest of it is not waited for long."""
        waiter = self._waiter
        if waiter is not None and not waiter.done() and not self._messages and self.dripping is None:
            wait = self.relay.settings.server.head_timeout
            self.dripping = self._loop.call_later(wait, self._dripped, self._request_count)

    def _dripped(self, count: int) -> None:
        self.dripping = None
        waiter = self._waiter
        if waiter is not None and not waiter.done() and self._request_count == count:
            self.force_close()

    # The end of the server

    def busy(self) -> bool:
        """Whether there is a call, or one that waits for its turn."""
        return self._request_in_progress or bool(self._messages)

    def force_close(self) -> None:
        """Close the connection, once what was written to it in this turn is out."""
        if self.transport is not None:
            self.relay.outbox.release(self.transport)
        super().force_close()

    def stop(self, error: RelayError) -> None:
        """End what is going on, with this error for an answer or for the end of it."""
        self._messages.clear()
        if self._current_request is not None and self._task_handler is not None:
            self._current_request[STOPPED] = error
            self._task_handler.cancel()

    # Who takes nothing

    def pause_writing(self) -> None:
        """The client takes less than there is for it."""
        super().pause_writing()
        self.outstanding = self._waiting()
        self.patience = self._loop.call_later(self.relay.settings.server.write_timeout, self._look)

    def resume_writing(self) -> None:
        """The client has read on."""
        super().resume_writing()
        if self.patience is not None:
            self.patience.cancel()
            self.patience = None

    def _look(self) -> None:
        """Whether the client has taken anything at all since the last look; if not, it is let go."""
        transport = self.transport
        self.patience = None
        if transport is None:
            return
        waiting = self._waiting()
        if waiting < self.outstanding:
            self.outstanding = waiting
            self.patience = self._loop.call_later(self.relay.settings.server.write_timeout, self._look)
            return
        log.info("a client took nothing for %g seconds and is let go", self.relay.settings.server.write_timeout)
        transport.abort()

    def _waiting(self) -> int:
        """Bytes that the client has not taken yet: our own, and those that the kernel holds for it."""
        transport = self.transport
        if transport is None:
            return 0
        waiting = transport.get_write_buffer_size()
        found = transport.get_extra_info("socket")
        try:
            held = fcntl.ioctl(found.fileno(), termios.TIOCOUTQ, BYTES.pack(0))
        except (AttributeError, OSError):
            return waiting
        return waiting + int(BYTES.unpack(held)[0])

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client has gone."""
        for timer in (self.dripping, self.patience):
            if timer is not None:
                timer.cancel()
        if self._current_request is not None and LEFT in self._current_request:
            self._current_request[LEFT]()
        super().connection_lost(exc)


class Gates(web.Server):
    """Makes a gate for each connection."""

    def __init__(self, server: web.Server, relay: Relay) -> None:
        super().__init__(
            server.request_handler,
            request_factory=self._request,
            handler_cancellation=server.handler_cancellation,
            loop=server._loop,
        )
        self.relay = relay
        self.options = server._kwargs
        self._factory = server.request_factory

    def transports(self) -> list[asyncio.Transport]:
        """Those of all connections that are still there, also of those that are being closed."""
        return list(self._connections.values())

    def __call__(self) -> web.RequestHandler:
        """A new connection's."""
        return Gate(self, self.relay, loop=self._loop, **self.options)

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        """The request as the application gets it.

        Without its `Expect`, which aiohttp would answer before anybody has looked at the key: it is for whoever wants
        the body to say so. And with the host that a target in absolute form names.
        """
        expected = message.headers.get(hdrs.EXPECT)
        if expected is not None:
            rest = CIMultiDict(message.headers)
            del rest[hdrs.EXPECT]
            message = message._replace(headers=CIMultiDictProxy(rest))
        request = self._factory(message, payload, protocol, writer, task)
        if expected is not None and message.version >= HttpVersion11:
            request[EXPECTED] = expected.strip().lower()
        if not message.path.startswith("/") and message.url.absolute:
            request[AUTHORITY] = message.url.raw_authority
        return request
