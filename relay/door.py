"""The server's side of each client connection: aiohttp's own, with a lane for calls that need nothing to be waited for.

aiohttp parses requests and runs a coroutine for each connection, which takes up one request after the other. A request
that is for the lane (`relay.lane`) never reaches that coroutine: it is taken out of the queue in the turn in which its
last byte arrived. Whatever the lane does not take wakes the coroutine, as if there were no lane.

This leans on names of aiohttp's that are not public: `_waiter`, `_messages` and what ends a request, all in this one
module. `usable` says whether they are there; without them everything takes aiohttp's way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from aiohttp.hdrs import CONTENT_LENGTH
from aiohttp.http import RawRequestMessage
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy
from aiohttp.streams import StreamReader

from relay.app import RELAY, Relay
from relay.drain import drain
from relay.errors import RelayError
from relay.gate import Gate, Gates
from relay.heads import Count, KnownHead, end_of
from relay.lane import Lane, Passage
from relay.outlet import Outlet

__all__ = ["Door", "RelayRunner", "safe", "usable"]

LARGEST = 262_144
"""Bytes of a body beyond which aiohttp stops reading until somebody takes them: those go the usual way, at once."""
LARGEST_HELD = 1_048_576
"""The same for a body behind a head that is known, which is held here. There is no relay that takes less."""
PATIENCE = 0.05
"""Seconds that a body may come after its head, as it does from clients that write twice, and still enter the lane."""

USUAL: Mapping[str, Any] = {
    "access_log": None,
    "auto_decompress": False,
    "handler_cancellation": True,
    "keepalive_timeout": 75.0,
    "lingering_time": 2.0,
}

_NEEDED = {
    web.RequestHandler: ("_waiter", "_messages", "_keepalive_handle", "_request_in_progress", "_handler_waiter"),
    StreamReader: ("_buffer", "_buffer_offset"),
}


def safe() -> bool:
    """Whether aiohttp has its compiled parser. The other one, in Python, is where most of its holes were."""
    return HttpRequestParser is not HttpRequestParserPy


def usable() -> bool:
    """Whether this version of aiohttp has what the lane leans on."""
    return all(name in vars(kind) for kind, names in _NEEDED.items() for name in names)


class Door(Gate):
    """One connection."""

    __slots__ = ("begins", "count", "early", "held", "known", "lane", "late", "missing", "opening", "passage")

    def __init__(self, manager: web.Server, lane: Lane, *, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(manager, lane.relay, loop=loop, **options)
        self.lane = lane
        self.passage: Passage | None = None
        self.late: asyncio.TimerHandle | None = None
        self.count = Count()
        self.known: KnownHead | None = None
        """The head of the last request that was for the lane."""
        self.early: list[bytes] = []
        """What came before the coroutine was ready for it."""
        self.held: list[bytes] = []
        """A request with that head whose body is not all there, and of which aiohttp's parser knows nothing yet."""
        self.begins = 0
        """Where in the first piece of it the body begins."""
        self.missing = 0
        """Bytes of that body that have not come."""
        self.opening = b""
        """The head of the request that the parser has read last, if that was all it was given."""

    # The lane's side

    def outlet(self, head: KnownHead) -> Outlet:
        """Where the answer goes."""
        return Outlet(self, self.relay.outbox, head.chunked, head.keep_alive)

    def passed(self, outlet: Outlet) -> None:
        """The call is over: the next one may come."""
        self.passage = None
        self._request_in_progress = False
        if self._handler_waiter is not None:
            self._handler_waiter.set_result(None)
        if self.transport is None:
            return
        if not outlet.keep_alive or self._close or self._force_close:
            outlet.release()
            self.transport.close()
            return
        self._keepalive = True
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)
        if self._messages:
            # In a turn of its own, so that a client that sends many requests at once cannot hold the others up.
            self._loop.call_soon(self._next)

    def stop(self, error: RelayError) -> None:
        """End what is going on, with this error for an answer or for the end of it."""
        super().stop(error)
        if self.passage is not None:
            self.passage.stop(error)

    def busy(self) -> bool:
        """Whether there is a call, or one that waits for its turn or for its body."""
        return bool(self.held or self.early) or super().busy()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Bytes of the client's."""
        known, waiter = self.known, self._waiter
        if self.early:
            self.early.append(data)
        elif waiter is None and not (self._request_in_progress or self.count.due or self._messages):
            # The coroutine is on its way back to where it waits: a client may be faster than that.
            self.early.append(data)
            self._loop.call_soon(self._come)
        elif known is None or self.count.due or waiter is None or self.passage is not None or self._messages:
            self._parse(data)
        elif self.held:
            self._held(known, data)
        elif (place := known.body(data)) is None or waiter.done() or self._force_close or self._close:
            self._parse(data)
        else:
            begin, length = place
            missing = begin + length - len(data)
            if not missing:
                self._take(known, data[begin:], [data])
            elif missing > 0 and length <= LARGEST_HELD:
                self._hold(data, begin, missing)
            else:
                self._parse(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client has gone."""
        passage = self.passage
        if self.late is not None:
            self.late.cancel()
        super().connection_lost(exc)
        if passage is not None:
            passage.left()

    def resume_writing(self) -> None:
        """The client has read on."""
        super().resume_writing()
        if self.passage is not None:
            self.passage.resume()

    def _come(self) -> None:
        """What came early."""
        data = b"".join(self.early)
        self.early.clear()
        if self._waiter is None:
            self._parse(data)
        else:
            self.data_received(data)

    # Requests with the head of the one before: aiohttp's parser never learns of them

    def _take(self, known: KnownHead, body: bytes, pieces: list[bytes]) -> None:
        """One that is all there, in these pieces."""
        passage = self.lane.enter(self, known, body)
        if passage is None:
            self._parse(b"".join(pieces), wake=True)
            return
        self._request_count += 1
        self._begin(passage)
        passage.begin()

    def _hold(self, data: bytes, begin: int, missing: int) -> None:
        """One whose body is on its way."""
        self.held.append(data)
        self.begins, self.missing = begin, missing
        self._keepalive = False
        self.late = self._loop.call_later(PATIENCE, self._let_go)

    def _held(self, known: KnownHead, data: bytes) -> None:
        """More of it."""
        self.held.append(data)
        self.missing -= len(data)
        if self.missing <= 0:
            pieces, self.held = self.held, []
            if self.missing:
                # More than that came.
                self._parse(b"".join(pieces))
            else:
                self._in_time()
                self._take(known, b"".join((memoryview(pieces[0])[self.begins :], *pieces[1:])), pieces)

    def _let_go(self) -> None:
        """It takes too long."""
        self.late = None
        data = b"".join(self.held)
        self.held.clear()
        self._parse(data, wake=True)

    # All others

    def _parse(self, data: bytes, *, wake: bool = False) -> None:
        """Let aiohttp read it. `wake`: it is not for the lane."""
        waiter, count, messages = self._waiter, self.count, self._messages
        head, before = 0 if count.due else end_of(data), len(messages)
        if waiter is None:
            # The gate's own.
            super().data_received(data)
        else:
            # Out of sight, so that nobody is woken for what the lane takes.
            self._waiter = None
            try:
                web.RequestHandler.data_received(self, data)
            finally:
                self._waiter = waiter
        count.given(data, head, messages[-1][0] if len(messages) == before + 1 else None)
        if head:
            self.opening = data[:head] if count.due >= 0 else b""
        if waiter is not None and self.passage is None:
            if not messages:
                self._unfinished()
            elif wake:
                self._wake()
            else:
                self._next()

    def _next(self) -> None:
        """The first request of those that wait: into the lane, or to the coroutine that takes all others."""
        waiter = self._waiter
        if not self._messages or self.passage is not None or waiter is None or waiter.done():
            return
        message, payload = self._messages[0]
        head = self.lane.head(message) if type(message) is RawRequestMessage else None
        if head is None:
            self._wake()
            return
        if not payload.is_eof():
            if int(head.headers.get(CONTENT_LENGTH, "0")) > LARGEST:
                self._learn(head)
                self._wake()
            elif self.late is None:
                self.late = self._loop.call_later(PATIENCE, self._wake)
            return
        self._in_time()
        if not 0 < payload.total_bytes <= LARGEST or payload._buffer_offset or payload.exception() is not None:
            self._wake()
            return
        body = payload._buffer
        passage = self.lane.enter(self, head, body[0] if len(body) == 1 else b"".join(body))
        if passage is None:
            self._wake()
            return
        self._learn(head)
        # First, because reading on may bring more requests, which are not to overtake this one.
        self._begin(passage)
        self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        passage.begin()

    def _learn(self, head: KnownHead) -> None:
        """This head may come again."""
        if self.opening:
            head.learn(self.opening)
            self.known = head

    def _begin(self, passage: Passage) -> None:
        self.passage = passage
        self._request_in_progress = True
        # Else the timer, seeing a coroutine that waits for a request, would take the connection for idle.
        self._keepalive = False
        if self._manager is not None:
            self._manager.requests_count += 1

    def _in_time(self) -> None:
        """What was waited for is there."""
        if self.late is not None:
            self.late.cancel()
            self.late = None

    def _wake(self) -> None:
        self._in_time()
        if self._messages:
            self._check()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Doors(Gates):
    """Makes a door for each connection."""

    def __init__(self, server: web.Server, relay: Relay) -> None:
        super().__init__(server, relay)
        self.lane = Lane(relay)

    def __call__(self) -> web.RequestHandler:
        """A new connection's."""
        return Door(self, self.lane, loop=self._loop, **self.options)


class RelayRunner(web.AppRunner):
    """Serves a relay's application, as `relay serve` does: clients that leave are noticed, bodies stay as they come.

    Without `lane`, which is for tests, every call takes aiohttp's way.
    """

    __slots__ = ("_lane",)

    def __init__(self, app: web.Application, *, lane: bool = True, **options: Any) -> None:
        super().__init__(app, **{**USUAL, **options})
        self._lane = lane and usable()

    async def _make_server(self) -> web.Server:
        return (Doors if self._lane else Gates)(await super()._make_server(), self.app[RELAY])

    async def drain(self, seconds: float, hurry: asyncio.Event) -> int:
        """Let open calls finish, as `relay.drain` does. Nobody must be let in any more."""
        return await drain(self.server, seconds, hurry) if isinstance(self.server, Gates) else 0
