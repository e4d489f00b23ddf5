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
import logging
import ssl
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import urlsplit

from relay.connection import Connection
from relay.errors import UpstreamProtocol, UpstreamUnreachable
from relay.exchange import Exchange, Origin, Way
from relay.family import Upstream, UpstreamRequest
from relay.guard import EXHAUSTED, Forbidden, connected, exhausted, permit_for, refusal
from relay.outbox import Outbox
from relay.proxies import Proxy, proxy_for
from relay.version import __version__

__all__ = ["Http1Transport"]

IDLE_SECONDS = 15.0
"""How long an unused connection is kept: shorter than servers do, so that it is rarely one just being closed."""
IDLE_CONNECTIONS = 512
"""Unused connections kept per origin."""
HEADS_KEPT = 1024
TICK = 0.1
"""Seconds between two looks at the deadlines: how late a timeout may be."""
SWEEP = 1.0
"""Seconds between two looks at the unused connections."""
log = logging.getLogger("relay.upstreams")
DEFAULT_HEADERS = f"user-agent: i8relay/{__version__}\r\naccept-encoding: identity\r\n"


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
    """The request's head but for its length and its end. Raises ValueError for a header of more than one line."""
    lines = [f"{request.method} {target} HTTP/1.1\r\nhost: {host}\r\n{DEFAULT_HEADERS}{extra}"]
    for name, value in request.headers.items():
        lines.append(f"{name}: {value}\r\n")
    text = "".join(lines)
    # Every line ends once: a line break inside a name or a value would be one too many.
    if text.count("\n") != len(lines) + 1 + DEFAULT_HEADERS.count("\n") + extra.count("\n") or "\0" in text:
        raise ValueError("a header holds a line break")
    return text.encode("latin-1")


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
        self.loop = asyncio.get_running_loop()
        self.busy: set[Exchange] = set()
        self.outbox = Outbox(self.loop, self.busy)
        self._context = context
        self._environ = environ
        self._idle: dict[Way, deque[Connection]] = {}
        self._heads: dict[int, tuple[Mapping[str, str], str, Way, bytes]] = {}
        self._proxies: dict[Origin, Proxy | None] = {}
        self._ticker: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    def send(self, request: UpstreamRequest, upstream: Upstream) -> Exchange:
        """Send and wait for the answer's head."""
        return Exchange(self, request, upstream)

    def enter(self, exchange: Exchange) -> None:
        """An exchange has its connection: from now on its deadlines are looked at."""
        self.busy.add(exchange)
        if self._ticker is None:
            self._ticker = self.loop.call_later(TICK, self._look)

    def in_flight(self) -> int:
        """Requests whose answers are not complete."""
        return len(self.busy)

    def head(self, request: UpstreamRequest) -> tuple[Way, bytes]:
        """Where a request goes, and its head. Families that send the same headers each time have it remembered."""
        known = self._heads.get(id(request.headers))
        if known is not None and known[0] is request.headers and known[1] == request.url:
            _, _, way, start = known
        else:
            way, start = self._start(request)
            if len(self._heads) >= HEADS_KEPT:
                self._heads.clear()
            if isinstance(request.headers, MappingProxyType):
                # Nobody can change it, so it will mean the same again; and as it is kept, nothing else gets its id.
                self._heads[id(request.headers)] = (request.headers, request.url, way, start)
        if request.body or request.method not in ("GET", "HEAD"):
            return way, b"%bcontent-length: %d\r\n\r\n" % (start, len(request.body))
        return way, start + b"\r\n"

    def _start(self, request: UpstreamRequest) -> tuple[Way, bytes]:
        try:
            origin, target, host = _split(request.url)
            proxy = self.proxy(origin)
            extra = ""
            if proxy is not None and origin.scheme == "http":
                target, extra = f"http://{host}{target}", proxy.authorization
            return Way(origin, proxy), _head(request, target, host, extra)
        except (ValueError, UnicodeEncodeError) as error:
            raise UpstreamUnreachable(f"the upstream's address or headers cannot be used: {error}") from None

    async def close(self) -> None:
        """Close all connections."""
        for timer in (self._ticker, self._sweeper):
            if timer is not None:
                timer.cancel()
        self._ticker = self._sweeper = None
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

    def idle(self, way: Way) -> Connection | None:
        """An open connection that nobody uses: the one used last, which is the least likely to be closed just now."""
        connections = self._idle.get(way)
        while connections:
            connection = connections.pop()
            if connection.reusable and connection.transport is not None and not connection.transport.is_closing():
                return connection
        return None

    def keep(self, way: Way, connection: Connection) -> None:
        """Take back a connection after a complete answer."""
        connections = self._idle.get(way)
        if connections is None:
            connections = self._idle[way] = deque()
        if len(connections) >= IDLE_CONNECTIONS:
            connections.popleft().abort()
        connection.idle_since = self.loop.time()
        connections.append(connection)
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(SWEEP, self._sweep)

    async def connect(self, way: Way, upstream: Upstream) -> Connection:
        """A new connection. Raises UpstreamUnreachable."""
        wait = upstream.connect_timeout
        try:
            async with asyncio.timeout(wait):
                return await self._connect(way.origin, way.proxy, upstream)
        except TimeoutError:
            raise UpstreamUnreachable(f"no connection to the upstream within {wait:g} seconds") from None
        except ssl.SSLError as error:
            if isinstance(error, ssl.SSLCertVerificationError):
                raise UpstreamUnreachable("the upstream's TLS certificate is not valid") from error
            raise UpstreamUnreachable("the upstream does not speak TLS as it should") from error
        except Forbidden as error:
            log.error("upstream %s: %s", upstream.name, error)
            raise refusal(error) from error
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise exhausted() from error
            raise UpstreamUnreachable("the upstream cannot be reached") from error

    async def _connect(self, origin: Origin, proxy: Proxy | None, upstream: Upstream) -> Connection:
        loop = self.loop
        context = self._trust() if origin.scheme == "https" else None
        name = origin.host if context is not None else None
        fresh = functools.partial(Connection, self.outbox)
        if proxy is None:
            direct = await connected(origin.host, origin.port, permit_for(origin.host, upstream))
            _, connection = await loop.create_connection(fresh, sock=direct, ssl=context, server_hostname=name)
        elif context is None:
            _, connection = await loop.create_connection(fresh, proxy.host, proxy.port)
        else:
            tunnel = await proxy.tunnel(origin.host, origin.port)
            _, connection = await loop.create_connection(fresh, sock=tunnel, ssl=context, server_hostname=name)
        return connection

    def _trust(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = ssl.create_default_context()
        return self._context

    # Deadlines: one timer for all exchanges, because arming one for each piece of each stream costs more than the rest.

    def _look(self) -> None:
        now = self.loop.time()
        late = [exchange for exchange in self.busy if exchange.deadline <= now or exchange.latest <= now]
        for exchange in late:
            try:
                exchange.expire(now)
            except Exception:
                # One call's fault must not cost all others their deadlines.
                log.exception("the end of a call that took too long failed")
                exchange.leave()
        # While there is nothing to look at, nobody wakes up for it.
        self._ticker = self.loop.call_later(TICK, self._look) if self.busy else None

    def _sweep(self) -> None:
        """Close the connections that nobody has used for long."""
        old = self.loop.time() - IDLE_SECONDS
        for connections in self._idle.values():
            while connections and connections[0].idle_since < old:
                connections.popleft().abort()
        if any(self._idle.values()):
            self._sweeper = self.loop.call_later(SWEEP, self._sweep)
        else:
            self._idle.clear()
            self._sweeper = None
