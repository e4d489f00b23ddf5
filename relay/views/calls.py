"""A request in one of the dialects: authenticate, read, run, record."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from relay.body import deep
from relay.bound import failed
from relay.call import Call
from relay.dialect import Dialect, Route
from relay.errors import BadParameter, InternalError, RelayError, TooLarge
from relay.middleware import DIALECT, EXPECTED, INVALID, LEFT, STOPPED
from relay.outlet import Outlet, Written
from relay.repeats import HEADER
from relay.views.auth import authenticate

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["CallView"]

SLOWEST = 100_000
"""Bytes a second at which a body may come for as long as it takes."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Abandoned:
    """Keeps a call going whose client has left: until its end, or as long as the settings say."""

    def __init__(self, relay: Relay, work: asyncio.Task[web.StreamResponse]) -> None:
        self._relay = relay
        self._work = work
        self._limit = asyncio.get_running_loop().call_later(relay.settings.server.abandoned_seconds, work.cancel)
        relay.abandoned.add(self)
        work.add_done_callback(self._over)

    def stop(self, error: RelayError) -> None:
        """End it now."""
        self._work.cancel()

    def _over(self, work: asyncio.Task[web.StreamResponse]) -> None:
        self._limit.cancel()
        self._relay.abandoned.discard(self)
        if not work.cancelled():
            # Its errors are in its usage row; nobody else is there to be told.
            work.exception()


class CallView:
    """The handler of one route of one dialect."""

    def __init__(self, relay: Relay, dialect: Dialect, route: Route) -> None:
        self.relay = relay
        self.dialect = dialect
        self.operation = route.operation
        self.query = route.query

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request. Whatever happens after authentication, exactly one usage row is left."""
        relay, dialect = self.relay, self.dialect
        request[DIALECT] = dialect
        call = await authenticate(relay, request, self.operation, dialect)
        call.dialect = dialect
        if relay.pipeline.shares:
            call.wishes = ",".join(request.headers.getall("Cache-Control", ()))
        outlet = Outlet.of(request, relay.outbox)
        if not relay.may_drain(call.key):
            return await self._answer(request, call, outlet)
        # In a task of its own, which outlives the client.
        work = asyncio.create_task(self._answer(request, call, outlet))

        def left() -> None:
            if call.drains() and not work.done():
                call.abandoned = True
                outlet.leave()
                Abandoned(relay, work)

        request[LEFT] = left
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if call.abandoned:
                raise
            work.cancel()
            return await work

    async def _answer(self, request: web.Request, call: Call, outlet: Outlet) -> web.StreamResponse:
        relay, dialect = self.relay, self.dialect
        raw: bytes | None = None
        try:
            relay.crowd.enter()
            raw = self._at_hand(request)
            if raw is None:
                raw = await self._body(request)
            try:
                place = self._place(request) if self.query else request.match_info
                call.head = dialect.peek(raw, self.operation, place, request.headers)
            except RelayError:
                raise
            except Exception as error:
                raise deep(raw, error) or failed(f"dialect {dialect.name}", "peek", error) from error
            name = request.headers.get(HEADER)
            if name is None or self.operation == "count_tokens":
                await relay.pipeline.run(call, outlet)
            else:
                await relay.repeater.run(call, outlet, name, request.path_qs, raw)
            return Written(outlet)
        except RelayError as error:
            refusal = None if raw is None or call.count is not None else deep(raw, error)
            call.failed(refusal or error)
            if refusal is None:
                raise
            raise refusal from error
        except asyncio.CancelledError:
            reason, task = request.get(STOPPED), asyncio.current_task()
            if reason is None or task is None:
                call.left()
                raise
            task.uncancel()
            if call.delivery is None or not call.delivery.opened:
                call.failed(reason)
                raise reason from None
            call.delivery.fail(reason)
            return Written(outlet)
        except ConnectionError:
            call.left()
            raise
        except web.HTTPRequestEntityTooLarge:
            too_large = TooLarge(f"the request body is over {relay.settings.server.max_body_mb} MiB")
            call.failed(too_large)
            raise too_large from None
        except Exception as error:
            refusal = None if raw is None or call.count is not None else deep(raw, error)
            call.failed(refusal or InternalError("internal error"))
            if refusal is None:
                raise
            raise refusal from error
        finally:
            relay.finish(call)

    def _place(self, request: web.Request) -> Mapping[str, str]:
        """The parameters of the path, and those of the query that the route names."""
        asked = request.query
        return {**{name: asked[name] for name in self.query if name in asked}, **request.match_info}

    def _at_hand(self, request: web.Request) -> bytes | None:
        """The body if it came with the head, as nearly all do; None if it has to be waited for."""
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise BadParameter("compressed request bodies are not accepted", status=415, code="unsupported_encoding")
        content = request.content
        if not content.is_eof():
            return None
        raw = content.read_nowait(-1)
        if len(raw) > request.client_max_size:
            raise web.HTTPRequestEntityTooLarge(max_size=request.client_max_size, actual_size=len(raw))
        return raw

    async def _body(self, request: web.Request) -> bytes:
        """The body, as long as it comes at the least of speeds."""
        wait, most = self.relay.settings.server.body_timeout, request.client_max_size
        loop, content = asyncio.get_running_loop(), request.content
        if (request.content_length or 0) > most:
            raise web.HTTPRequestEntityTooLarge(max_size=most, actual_size=request.content_length or 0)
        if EXPECTED in request:
            # Not before: whoever has no key, or too much to say, is not asked to send it.
            Outlet.of(request, self.relay.outbox).write(CONTINUE)
        began, body = loop.time(), bytearray()
        try:
            async with asyncio.timeout_at(began + wait) as limit:
                while not content.at_eof():
                    body += await content.readany()
                    if len(body) > most:
                        raise web.HTTPRequestEntityTooLarge(max_size=most, actual_size=len(body))
                    limit.reschedule(began + wait + len(body) / SLOWEST)
        except TimeoutError:
            raise BadParameter(
                f"the request body did not arrive within {wait:g} seconds", status=408, code="request_timeout"
            ) from None
        except RequestPayloadError:
            raise BadParameter("the request body is not valid HTTP", code=INVALID) from None
        return bytes(body)
