"""One request and its answer, as the relay reads it: whole, in pieces, or pushed into a sink."""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import NamedTuple, Protocol

from relay.connection import Connection
from relay.errors import RelayError, UpstreamProtocol, UpstreamTimeout
from relay.family import Sink, Upstream, UpstreamRequest
from relay.proxies import Proxy
from relay.valve import Valve

__all__ = ["Exchange", "Inflater", "Listener", "Origin", "Pool", "Way"]

BUFFER_BYTES = 262_144
"""Body bytes that wait for a reader before the upstream is paused."""
INFLATED_BYTES = 16_777_216
"""What one piece of a compressed body may become."""
NEVER = float("inf")


class Origin(NamedTuple):
    """Where a connection leads."""

    scheme: str
    host: str
    port: int


class Way(NamedTuple):
    """Where a connection leads, and through which proxy."""

    origin: Origin
    proxy: Proxy | None


class Pool(Protocol):
    """What an exchange needs of the transport that it belongs to."""

    loop: asyncio.AbstractEventLoop
    busy: set[Exchange]

    def head(self, request: UpstreamRequest) -> tuple[Way, bytes]:
        """Where a request goes, and its head. Raises UpstreamUnreachable."""
        ...

    def enter(self, exchange: Exchange) -> None:
        """The exchange has its connection: from now on it is one of the `busy`, and its deadlines are looked at."""
        ...

    def idle(self, way: Way) -> Connection | None:
        """An open connection that nobody uses."""
        ...

    async def connect(self, way: Way, upstream: Upstream) -> Connection:
        """A new connection. Raises UpstreamUnreachable."""
        ...

    def keep(self, way: Way, connection: Connection) -> None:
        """Take back a connection after a complete answer."""
        ...


class Listener(Protocol):
    """Who is told of an exchange instead of waiting for it."""

    def changed(self) -> None:
        """The head is there, the answer has ended, or it failed: the exchange says which."""
        ...

    def overdue(self) -> None:
        """The time that the exchange was given has passed. It is told once."""
        ...


class Exchange:
    """One request and its answer; what `Transport.send` gives.

    As a context it takes a connection, sends, and waits for the answer's head; at its end it gives the connection back
    if the answer was complete, and closes it if not.

    Where a connection is open already there is nothing to wait for, and no coroutine needed: `start` sends, a listener
    is told of what comes, and `leave` ends it.
    """

    __slots__ = (
        "_begun",
        "_connection",
        "_inflate",
        "_limit",
        "_listener",
        "_paused",
        "_pieces",
        "_pool",
        "_request",
        "_sink",
        "_size",
        "_upstream",
        "_waiter",
        "_way",
        "_whole",
        "deadline",
        "ended",
        "error",
        "headers",
        "latest",
        "moved",
        "passed",
        "raised",
        "status",
        "stopped",
    )

    def __init__(self, pool: Pool, request: UpstreamRequest, upstream: Upstream) -> None:
        self._pool = pool
        self._request: UpstreamRequest | None = request
        """Until it is sent, and not while the answer comes: prompts are large, and streams are long."""
        self._upstream = upstream
        self._connection: Connection | None = None
        self._way: Way | None = None
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.deadline = NEVER
        """When something has to have happened."""
        self.latest = NEVER
        """When the listener is told that it takes too long, whatever happens."""
        self.ended = False
        self.moved = False
        """Whether something came since the deadline was looked at last, and, in bytes, what passed until then."""
        self.passed = 0
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._limit = 0
        self._sink: Sink | None = None
        self._begun = False
        self.stopped = False
        """Whether the sink has had enough."""
        self._paused = False
        self.error: RelayError | None = None
        """Why there will be no more."""
        self.raised: BaseException | None = None
        """What the sink raised."""
        self._inflate: Inflater | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._listener: Listener | None = None
        self._whole = False

    def start(self, listener: Listener, limit: int, seconds: float, *, whole: bool) -> bool:
        """Send at once. False if no connection is open: nothing was sent then. `limit`: bytes of the body kept.

        `seconds` is all the time there is. With `whole` the listener is not told of the head of an answer that has
        succeeded.
        """
        pool, request = self._pool, self._request
        if request is None:
            raise AssertionError("an exchange sends once")
        self._way, head = pool.head(request)
        connection = pool.idle(self._way)
        if connection is None:
            return False
        self._connection = connection
        self._listener = listener
        self._limit = limit
        self._whole = whole
        connection.begin(self)
        pool.enter(self)
        now = pool.loop.time()
        self.deadline = now + self._upstream.first_byte_timeout
        self.latest = now + seconds
        connection.write(head, request.body)
        self._request = None
        return True

    @property
    def overfull(self) -> bool:
        """Whether more came than is kept."""
        return 0 < self._limit < self._size

    @property
    def body(self) -> bytes:
        """What is there of the body and was not pushed."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def push(self, sink: Sink) -> None:
        """Give everything to `sink` from here on."""
        self._limit = 0
        self._sink = sink
        self._offer(sink)
        while self._pieces and not self.stopped:
            self._give(sink, self._pieces.popleft())
        self._size = 0

    def resume(self) -> None:
        """The sink can take more."""
        if self._paused:
            self.deadline = self._pool.loop.time() + self._patience()
        self._resume()

    def leave_in(self, seconds: float) -> None:
        """Nobody listens any more; if the answer's end comes in that time, its connection can be used again."""
        if self.ended or self.error is not None:
            self.leave()
            return
        self.stopped = True
        self._shut()
        self._resume()
        self._listener = Farewell(self)
        self.deadline = self._pool.loop.time() + seconds
        self.latest = NEVER
        self.moved = False

    async def __aenter__(self) -> Exchange:
        pool, request, upstream = self._pool, self._request, self._upstream
        if request is None:
            raise AssertionError("an exchange sends once")
        self._way, head = pool.head(request)
        connection = pool.idle(self._way)
        if connection is None:
            connection = await pool.connect(self._way, upstream)
        self._connection = connection
        connection.begin(self)
        pool.enter(self)
        try:
            connection.write(head, request.body)
            self._request = None
            del request
            while not self.status and self.error is None:
                await self._wait(upstream.first_byte_timeout)
            if self.error is not None:
                raise self.error
        except BaseException:
            self.leave()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Give the connection back if the answer was complete, and close it if not."""
        self._listener = None
        self._pool.busy.discard(self)
        connection, self._connection = self._connection, None
        if connection is None or self._way is None:
            return
        connection.exchange = None
        connection.valve.shut()
        if self._paused:
            # Whoever uses the connection next must find it reading.
            self._paused = False
            connection.resume()
        if self.ended and connection.reusable and connection.transport is not None:
            self._pool.keep(self._way, connection)
        else:
            connection.abort()

    # What the reader calls

    async def read(self, limit: int) -> bytes:
        """The whole body, at most `limit` bytes."""
        self._limit = limit
        while not self.ended and self.error is None and self._size <= limit:
            self._resume()
            await self._wait(self._patience())
        if self.error is not None:
            raise self.error
        if self._size > limit:
            raise UpstreamProtocol(f"the upstream's answer is longer than {limit} bytes")
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces as they arrive."""
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self.error is not None:
                raise self.error
            if self.ended:
                raise StopAsyncIteration
            self._resume()
            await self._wait(self._patience())
        piece = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return piece

    async def pump(self, sink: Sink) -> None:
        """Give the rest of the body to `sink` in the same turn of the event loop in which it arrives."""
        while self._pieces and not self.stopped:
            self.stopped = not sink.take(self._pieces.popleft())
            await sink.drain()
        self._size = 0
        self._sink = sink
        self._offer(sink)
        try:
            while not (self.stopped or self.ended or self.error or self.raised):
                self._resume()
                await self._wait(self._patience())
                if self._paused and not self.stopped:
                    await sink.drain()
        finally:
            self._sink = None
            self._shut()
        if self.raised is not None:
            raise self.raised
        if self.error is not None and not self.stopped:
            raise self.error

    def _patience(self) -> float:
        return self._upstream.idle_timeout if self._begun else self._upstream.first_byte_timeout

    async def _wait(self, seconds: float) -> None:
        """Until something happened: a piece, the end, an error. `_look` makes it an error if nothing does."""
        loop = self._pool.loop
        self._waiter = loop.create_future()
        self.deadline = loop.time() + seconds
        self.moved = False
        try:
            await self._waiter
        finally:
            self._waiter = None
            self.deadline = NEVER

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            if self._connection is not None:
                self._connection.resume()

    # What the connection calls

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """The head has arrived."""
        self.status = status
        self.headers = headers
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding and encoding != "identity":
            try:
                self._inflate = Inflater(encoding)
            except UpstreamProtocol as error:
                self.fail(error)
                return
        if self._listener is not None:
            self.deadline = self._pool.loop.time() + self._upstream.first_byte_timeout
            if self._whole and 200 <= status < 300:
                # What is wanted is its end.
                return
        self._wake()

    def broken(self, error: BaseException) -> None:
        """What the sink raised: it belongs to whoever pumps or listens, not to the event loop that runs this."""
        self.raised = error
        self._stop()

    def data(self, piece: bytes) -> None:
        """More of the body."""
        if self.ended:
            # A second answer that nobody asked for; its connection is being closed.
            return
        if self._inflate is not None:
            try:
                piece = self._inflate.feed(piece)
            except UpstreamProtocol as error:
                self.fail(error)
                self._abort()
                return
            if not piece:
                return
        if not self._begun:
            self._begun = True
            if self._listener is not None:
                self.deadline = self._pool.loop.time() + self._upstream.idle_timeout
        sink = self._sink
        if sink is None:
            self._pieces.append(piece)
            self._size += len(piece)
            self.moved = True
            if self._limit:
                # It is wanted all at once, so nobody is woken for each piece.
                if self._size > self._limit:
                    self._pause()
                    self._wake()
                return
            if self._size > BUFFER_BYTES:
                self._pause()
            self._wake()
            return
        if self.stopped:
            return
        self.moved = True
        # `_give`, written out: this runs for every piece of every stream.
        try:
            go_on = sink.take(piece)
        except BaseException as error:
            self.broken(error)
            return
        if not go_on:
            self._stop()
        elif sink.full():
            self._pause()
            self._wake()

    def _give(self, sink: Sink, piece: bytes) -> None:
        try:
            go_on = sink.take(piece)
        except BaseException as error:
            self.broken(error)
            return
        if not go_on:
            self._stop()
        elif sink.full():
            self._pause()
            self._wake()

    def _offer(self, sink: Sink) -> None:
        connection = self._connection
        if self._inflate is None and connection is not None:
            # Asked for by name: most sinks have no such way.
            attach: Callable[[Valve], bool] | None = getattr(sink, "attach", None)
            if attach is not None and attach(connection.valve):
                connection.valved = True
                self.passed = connection.valve.passed

    def _shut(self) -> None:
        """From here on nothing passes."""
        if self._connection is not None:
            self._connection.valve.shut()

    def _stop(self) -> None:
        self.stopped = True
        self._shut()
        self._wake()

    def end(self) -> None:
        """The body is complete."""
        if self._inflate is not None and not self._inflate.complete:
            self.fail(UpstreamProtocol("the upstream broke off its compressed answer"))
            return
        self.ended = True
        self._wake()

    def fail(self, error: RelayError) -> None:
        """There will be no more."""
        if not self.ended and self.error is None:
            self.error = error
            self._wake()

    def expire(self, now: float) -> None:
        """A deadline has passed; unless pieces were pushed meanwhile, for which it is not moved each time."""
        if self.latest <= now:
            self.latest = NEVER
            if self._listener is not None:
                self._listener.overdue()
            return
        passed = self.passed if self._connection is None else self._connection.valve.passed
        if self.moved or passed != self.passed:
            self.moved, self.passed = False, passed
            self.deadline = now + self._upstream.idle_timeout
            return
        if not self.status:
            wait = self._upstream.first_byte_timeout
            self.fail(UpstreamTimeout(f"the upstream did not answer within {wait:g} seconds"))
        else:
            self.fail(UpstreamTimeout(f"the upstream sent nothing for {self._patience():g} seconds"))
        self._abort()

    def _abort(self) -> None:
        if self._connection is not None:
            self._connection.abort()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            if self._connection is not None:
                self._connection.pause()
            if self._listener is not None:
                # It is the client's turn; the upstream owes nothing meanwhile.
                self.deadline = NEVER

    def _wake(self) -> None:
        listener = self._listener
        if listener is not None:
            listener.changed()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Farewell:
    """Listens for nothing but the end."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def changed(self) -> None:
        """That was it."""
        self._exchange.leave()

    def overdue(self) -> None:
        """Never told: there is no such time any more."""


class Inflater:
    """Undoes gzip and deflate, bounded, and knows whether the end was there.

    Identity is what upstreams are asked for; some send gzip all the same. Raises UpstreamProtocol for other encodings.
    """

    __slots__ = ("_state",)

    def __init__(self, encoding: str) -> None:
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise UpstreamProtocol("the upstream's answer is compressed in a way that was not asked for")
        # 32 + 15: gzip or zlib, whichever the first bytes say.
        self._state = zlib.decompressobj(wbits=47)

    @property
    def complete(self) -> bool:
        """Whether the compressed data had its end."""
        return self._state.eof

    def feed(self, data: bytes) -> bytes:
        """More plain bytes. Raises UpstreamProtocol."""
        try:
            plain = self._state.decompress(data, INFLATED_BYTES)
        except zlib.error:
            raise UpstreamProtocol("the upstream's compressed answer cannot be read") from None
        if self._state.unconsumed_tail:
            raise UpstreamProtocol("the upstream's compressed answer is too large")
        return plain
