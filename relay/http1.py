"""HTTP/1.1 to upstreams: connections, their pool, and one request on each at a time. Parsing is httptools' (llhttp).

This is the relay's own client because a client is most of what a relay does: aiohttp's costs as much as the rest of a
passed-through call together. `relay.upstream` has the same interface on aiohttp's client and is the reference that this
one is tested against.

What it promises: no redirects, no cookies, no resending (a request that may have been carried out is never repeated);
every wait has a deadline; heads are bounded; a body that is shorter than announced is an error; a connection is used
again only after a complete answer with nothing behind it; leaving an answer early closes its connection, which is how
an upstream learns that its caller has gone.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import httptools

from relay.errors import RelayError, UpstreamError, UpstreamProtocol, UpstreamTimeout, UpstreamUnreachable
from relay.family import Sink, Upstream, UpstreamRequest
from relay.proxies import Proxy, proxy_for
from relay.version import __version__

__all__ = ["Http1Transport"]

IDLE_SECONDS = 15.0
"""How long an unused connection is kept: shorter than servers do, so that it is rarely one just being closed."""
IDLE_CONNECTIONS = 512
"""Unused connections kept per origin."""
HEAD_BYTES = 65_536
HEAD_FIELDS = 256
BUFFER_BYTES = 262_144
"""Body bytes that wait for a reader before the upstream is paused."""
INFLATED_BYTES = 33_554_432
"""What one piece of a compressed body may become."""
TICK = 0.1
"""Seconds between two looks at the deadlines: how late a timeout may be."""
NEVER = float("inf")
DEFAULT_HEADERS = f"user-agent: i8relay/{__version__}\r\naccept-encoding: identity\r\n"


class Origin(NamedTuple):
    """Where a connection leads."""

    scheme: str
    host: str
    port: int


@functools.lru_cache(maxsize=1024)
def _split(url: str) -> tuple[Origin, str, str]:
    """Origin, request target and Host header of a URL, none of it re-encoded. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http or https URL")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    usual = port == (443 if parts.scheme == "https" else 80)
    if any(ord(character) <= 32 or ord(character) == 127 for character in target + host):
        raise ValueError("a URL holds no blanks")
    return Origin(parts.scheme, parts.hostname, port), target, host if usual else f"{host}:{port}"


def _head(request: UpstreamRequest, target: str, host: str, extra: str) -> bytes:
    """The request's head. Raises ValueError for a header that would be more than one line."""
    lines = [f"{request.method} {target} HTTP/1.1\r\nhost: {host}\r\n{DEFAULT_HEADERS}{extra}"]
    for name, value in request.headers.items():
        lines.append(f"{name}: {value}\r\n")
    if request.body or request.method not in ("GET", "HEAD"):
        lines.append(f"content-length: {len(request.body)}\r\n")
    text = "".join(lines)
    # Every line ends once: a line break inside a name or a value would be one too many.
    if text.count("\n") != len(lines) + 1 + DEFAULT_HEADERS.count("\n") + extra.count("\n") or "\0" in text:
        raise ValueError("a header holds a line break")
    return (text + "\r\n").encode("latin-1")


class Exchange:
    """One request and its answer; what `Transport.send` gives."""

    __slots__ = (
        "_begun",
        "_connection",
        "_ended",
        "_error",
        "_inflate",
        "_limit",
        "_paused",
        "_pieces",
        "_raised",
        "_sink",
        "_size",
        "_stopped",
        "_upstream",
        "_waiter",
        "deadline",
        "headers",
        "status",
    )

    def __init__(self, connection: Connection, upstream: Upstream) -> None:
        self._connection = connection
        self._upstream = upstream
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.deadline = NEVER
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._limit = 0
        self._sink: Sink | None = None
        self._begun = False
        self._stopped = False
        self._ended = False
        self._paused = False
        self._error: RelayError | None = None
        self._raised: BaseException | None = None
        self._inflate: Inflater | None = None
        self._waiter: asyncio.Future[None] | None = None

    # What the reader calls

    async def head(self) -> None:
        """Wait for status and headers."""
        while not self.status and self._error is None:
            await self._wait(self._upstream.first_byte_timeout)
        if self._error is not None:
            raise self._error

    async def read(self, limit: int) -> bytes:
        """The whole body, at most `limit` bytes."""
        self._limit = limit
        while not self._ended and self._error is None and self._size <= limit:
            self._resume()
            await self._wait(self._patience())
        if self._error is not None:
            raise self._error
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
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._resume()
            await self._wait(self._patience())
        piece = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return piece

    async def pump(self, sink: Sink) -> None:
        """Give the rest of the body to `sink` in the same turn of the event loop in which it arrives."""
        while self._pieces and not self._stopped:
            self._stopped = not sink.take(self._pieces.popleft())
            await sink.drain()
        self._size = 0
        self._sink = sink
        try:
            while not (self._stopped or self._ended or self._error or self._raised):
                self._resume()
                await self._wait(self._patience())
                if self._paused and not self._stopped:
                    await sink.drain()
        finally:
            self._sink = None
        if self._raised is not None:
            raise self._raised
        if self._error is not None and not self._stopped:
            raise self._error

    def _patience(self) -> float:
        return self._upstream.idle_timeout if self._begun else self._upstream.first_byte_timeout

    async def _wait(self, seconds: float) -> None:
        """Until something happened: a piece, the end, an error. `_look` makes it an error if nothing does."""
        loop = self._connection.loop
        self._waiter = loop.create_future()
        self.deadline = loop.time() + seconds
        try:
            await self._waiter
        finally:
            self._waiter = None
            self.deadline = NEVER

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._connection.resume()

    # What the connection calls

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """The head has arrived."""
        self.status = status
        self.headers = headers
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding and encoding != "identity":
            # Asked for identity; some send gzip all the same.
            if encoding not in ("gzip", "x-gzip", "deflate"):
                self.fail(UpstreamProtocol("the upstream's answer is compressed in a way that was not asked for"))
                return
            self._inflate = Inflater()
        self._wake()

    def data(self, piece: bytes) -> None:
        """More of the body."""
        if self._ended:
            # A second answer that nobody asked for; its connection is being closed.
            return
        if self._inflate is not None:
            try:
                piece = self._inflate.feed(piece)
            except UpstreamProtocol as error:
                self.fail(error)
                self._connection.abort()
                return
            if not piece:
                return
        self._begun = True
        sink = self._sink
        if sink is None:
            self._pieces.append(piece)
            self._size += len(piece)
            if self._limit:
                # `read` wants it all at once, so it is not woken for each piece.
                if self._size > self._limit:
                    self._pause()
                    self._wake()
                return
            if self._size > BUFFER_BYTES:
                self._pause()
            self._wake()
            return
        if self._stopped:
            return
        self.deadline = self._connection.loop.time() + self._upstream.idle_timeout
        try:
            go_on = sink.take(piece)
        except BaseException as error:
            # It belongs to whoever pumps, not to the event loop that happens to run this.
            self._raised = error
            self._stop()
            return
        if not go_on:
            self._stop()
        elif sink.full():
            self._pause()
            self._wake()

    def _stop(self) -> None:
        self._stopped = True
        self._wake()

    def end(self) -> None:
        """The body is complete."""
        if self._inflate is not None and not self._inflate.complete:
            self.fail(UpstreamProtocol("the upstream broke off its compressed answer"))
            return
        self._ended = True
        self._wake()

    def fail(self, error: RelayError) -> None:
        """There will be no more."""
        if not self._ended and self._error is None:
            self._error = error
            self._wake()

    def expire(self) -> None:
        """The deadline has passed."""
        if not self.status:
            wait = self._upstream.first_byte_timeout
            self.fail(UpstreamTimeout(f"the upstream did not answer within {wait:g} seconds"))
        else:
            self.fail(UpstreamTimeout(f"the upstream sent nothing for {self._patience():g} seconds"))
        self._connection.abort()

    def release(self) -> None:
        """The reader is done: whoever uses the connection next must find it reading."""
        self._resume()

    @property
    def ended(self) -> bool:
        """Whether the answer is complete."""
        return self._ended

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._connection.pause()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Inflater:
    """Undoes gzip and deflate, bounded, and knows whether the end was there."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
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


class Connection(asyncio.Protocol):
    """One connection. The parser calls its `on_...` methods."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self.idle_since = 0.0
        self.reusable = True
        self._parser: Any = httptools.HttpResponseParser(self)
        self._fields: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._bodies: list[bytes] = []
        self._headless = True
        self._until_close = False

    def begin(self, upstream: Upstream) -> Exchange:
        """Take the connection for one exchange."""
        self.exchange = Exchange(self, upstream)
        self._bodies.clear()
        self._headless = True
        self._until_close = False
        return self.exchange

    def write(self, head: bytes, body: bytes) -> None:
        """Send the request."""
        if self.transport is None:
            raise UpstreamProtocol("the upstream closed the connection without an answer")
        if len(body) < 16_384:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body))

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
        # A cast and no check: uvloop's transports are not of asyncio's class.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._deliver()
            context = error.__context__
            self._fail(context if isinstance(context, UpstreamError) else _invalid())
        else:
            if self._bodies:
                self._deliver()

    def _deliver(self) -> None:
        """Hand over what one read held of the body, as one piece however many chunks it came in."""
        bodies = self._bodies
        if bodies and self.exchange is not None:
            self._bodies = []
            self.exchange.data(bodies[0] if len(bodies) == 1 else b"".join(bodies))

    def eof_received(self) -> None:
        """The upstream will send no more; what that means is decided in `connection_lost`."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.reusable = False
        exchange = self.exchange
        if exchange is None:
            return
        if self._headless:
            exchange.fail(UpstreamProtocol("the upstream closed the connection without an answer"))
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

    def on_message_begin(self) -> None:
        """A head begins."""
        self._fields.clear()
        self._head_bytes = 0
        if self.exchange is None or self.exchange.ended:
            # Nobody asked: these bytes must never meet the next request.
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field; of a trailer too."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_BYTES or len(self._fields) >= HEAD_FIELDS:
            raise UpstreamProtocol("the head of the upstream's answer is too large")
        if self._headless:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is there; one with a status below 200 only announces another."""
        status = self._parser.get_status_code()
        if status == 101 or not 100 <= status < 600:
            raise _invalid()
        if status < 200 or self.exchange is None:
            return
        headers: dict[str, str] = {}
        for raw_name, raw_value in self._fields:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self._headless = False
        self._until_close = "content-length" not in headers and "transfer-encoding" not in headers
        self.exchange.begin(status, headers)

    def on_body(self, body: bytes) -> None:
        """More of the body, chunk framing undone."""
        self._bodies.append(body)

    def on_message_complete(self) -> None:
        """The answer is complete."""
        if self.exchange is not None and not self._headless:
            self._deliver()
            self.reusable = self.reusable and self._parser.should_keep_alive()
            self.exchange.end()


def _invalid() -> UpstreamProtocol:
    return UpstreamProtocol("the upstream's answer is not valid HTTP")


class Sending:
    """The context of one exchange: takes a connection, and gives it back or closes it."""

    __slots__ = ("_connection", "_origin", "_request", "_transport", "_upstream")

    def __init__(self, transport: Http1Transport, request: UpstreamRequest, upstream: Upstream) -> None:
        self._transport = transport
        self._request = request
        self._upstream = upstream
        self._connection: Connection | None = None
        self._origin: tuple[Origin, Proxy | None] | None = None

    async def __aenter__(self) -> Exchange:
        request = self._request
        try:
            origin, target, host = _split(request.url)
            proxy = self._transport.proxy(origin)
            extra = ""
            if proxy is not None and origin.scheme == "http":
                target, extra = f"http://{host}{target}", proxy.authorization
            head = _head(request, target, host, extra)
        except (ValueError, UnicodeEncodeError) as error:
            raise UpstreamUnreachable(f"the upstream's address or headers cannot be used: {error}") from None
        self._origin = (origin, proxy)
        connection = self._transport.idle(self._origin) or await self._transport.connect(self._origin, self._upstream)
        self._connection = connection
        exchange = connection.begin(self._upstream)
        self._transport.busy.add(exchange)
        self._transport.watch()
        try:
            connection.write(head, request.body)
            await exchange.head()
        except BaseException:
            self._leave(exchange)
            raise
        return exchange

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None and self._connection.exchange is not None:
            self._leave(self._connection.exchange)

    def _leave(self, exchange: Exchange) -> None:
        self._transport.busy.discard(exchange)
        connection, self._connection = self._connection, None
        if connection is None or self._origin is None:
            return
        connection.exchange = None
        exchange.release()
        if exchange.ended and connection.reusable and connection.transport is not None:
            self._transport.keep(self._origin, connection)
        else:
            connection.abort()


class Http1Transport:
    """All connections of one relay. `close` it when the relay stops.

    `context` stands in for the system's TLS trust, for tests; certificates are always verified.
    """

    def __init__(
        self,
        *,
        context: ssl.SSLContext | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.busy: set[Exchange] = set()
        self._context = context
        self._environ = environ
        self._idle: dict[tuple[Origin, Proxy | None], deque[Connection]] = {}
        self._proxies: dict[Origin, Proxy | None] = {}
        self._ticker: asyncio.TimerHandle | None = None

    def send(self, request: UpstreamRequest, upstream: Upstream) -> Sending:
        """Send and wait for the answer's head."""
        return Sending(self, request, upstream)

    async def close(self) -> None:
        """Close all connections."""
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        for exchange in tuple(self.busy):
            exchange.fail(UpstreamProtocol("the relay is stopping"))
        for connections in self._idle.values():
            for connection in connections:
                connection.abort()
        self._idle.clear()
        # A turn of the loop, in which the closed sockets are let go.
        await asyncio.sleep(0)

    def proxy(self, origin: Origin) -> Proxy | None:
        """The proxy that the environment names for an origin."""
        if origin not in self._proxies:
            self._proxies[origin] = proxy_for(origin.scheme, origin.host, origin.port, self._environ)
        return self._proxies[origin]

    def idle(self, origin: tuple[Origin, Proxy | None]) -> Connection | None:
        """An open connection that nobody uses: the one used last, which is the least likely to be closed just now."""
        connections = self._idle.get(origin)
        while connections:
            connection = connections.pop()
            if connection.reusable and connection.transport is not None and not connection.transport.is_closing():
                return connection
        return None

    def keep(self, origin: tuple[Origin, Proxy | None], connection: Connection) -> None:
        """Take back a connection after a complete answer."""
        connections = self._idle.get(origin)
        if connections is None:
            connections = self._idle[origin] = deque()
        if len(connections) >= IDLE_CONNECTIONS:
            connections.popleft().abort()
        connection.idle_since = connection.loop.time()
        connections.append(connection)

    async def connect(self, origin: tuple[Origin, Proxy | None], upstream: Upstream) -> Connection:
        """A new connection. Raises UpstreamUnreachable."""
        wait = upstream.connect_timeout
        try:
            async with asyncio.timeout(wait):
                return await self._connect(*origin)
        except TimeoutError:
            raise UpstreamUnreachable(f"no connection to the upstream within {wait:g} seconds") from None
        except ssl.SSLError as error:
            if isinstance(error, ssl.SSLCertVerificationError):
                raise UpstreamUnreachable("the upstream's TLS certificate is not valid") from error
            raise UpstreamUnreachable("the upstream does not speak TLS as it should") from error
        except OSError as error:
            raise UpstreamUnreachable("the upstream cannot be reached") from error

    async def _connect(self, origin: Origin, proxy: Proxy | None) -> Connection:
        loop = asyncio.get_running_loop()
        context = self._trust() if origin.scheme == "https" else None
        name = origin.host if context is not None else None
        make: Callable[[], Connection] = functools.partial(Connection, loop)
        if proxy is None:
            _, connection = await loop.create_connection(
                make, origin.host, origin.port, ssl=context, server_hostname=name
            )
        elif context is None:
            _, connection = await loop.create_connection(make, proxy.host, proxy.port)
        else:
            tunnel = await proxy.tunnel(origin.host, origin.port)
            _, connection = await loop.create_connection(make, sock=tunnel, ssl=context, server_hostname=name)
        return connection

    def _trust(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = ssl.create_default_context()
        return self._context

    # Deadlines: one timer for all exchanges, because arming one for each piece of each stream costs more than the rest.

    def watch(self) -> None:
        """Have the deadlines looked at for as long as there are exchanges."""
        if self._ticker is None:
            self._ticker = asyncio.get_running_loop().call_later(TICK, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for exchange in [exchange for exchange in self.busy if exchange.deadline <= now]:
            exchange.expire()
        for connections in self._idle.values():
            while connections and connections[0].idle_since < now - IDLE_SECONDS:
                connections.popleft().abort()
        if self.busy or any(self._idle.values()):
            self._ticker = loop.call_later(TICK, self._look)
        else:
            self._idle.clear()
            self._ticker = None
