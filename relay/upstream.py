"""The way out on aiohttp's client: the reference that `relay.http1` is tested against, and a way back to it.

The settings are not aiohttp's defaults, each for a reason that was measured: no redirects (they carry keys and prompts
to other origins), no cookies (caller A's would be sent for caller B), no total timeout (300 s by default, which cuts
long streams), no connection limit (100 by default, each open stream holds one), no unpacking (a truncated gzip body
ends cleanly). What aiohttp raises becomes one of four errors that say whether anything can have been sent.
"""

from __future__ import annotations

import asyncio
import io
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiohttp
from yarl import URL

from relay.errors import (
    RelayError,
    UpstreamError,
    UpstreamHungUp,
    UpstreamProtocol,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from relay.exchange import Inflater
from relay.family import Answer, Upstream, UpstreamRequest
from relay.guard import EXHAUSTED, PERMIT, Forbidden, by_permit, exhausted, permit_for, refusal
from relay.version import __version__

__all__ = ["AiohttpTransport"]

USER_AGENT = f"i8relay/{__version__}"
IDLE_CONNECTION_SECONDS = 15.0
"""Shorter than what servers usually allow, so that a pooled connection is rarely one the server is just closing."""
LARGE_BODY = 1024 * 1024

log = logging.getLogger("relay.upstreams")


class AiohttpAnswer:
    """An answer whose head has arrived."""

    __slots__ = ("_first", "_inflate", "_response", "_upstream", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, upstream: Upstream) -> None:
        self._response = response
        self._upstream = upstream
        self._first = True
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
        encoding = self.headers.get("content-encoding", "").strip().lower()
        # Here and not by aiohttp, for which a body is whole that was cut while it was compressed.
        self._inflate = Inflater(encoding) if encoding and encoding != "identity" else None

    async def read(self, limit: int) -> bytes:
        """The whole body, at most `limit` bytes."""
        pieces: list[bytes] = []
        size = 0
        async for piece in self.chunks():
            size += len(piece)
            if size > limit:
                raise UpstreamProtocol(f"the upstream's answer is longer than {limit} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces as they arrive."""
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        # An object and not a generator: the relay gives up on one wait (to send a keep-alive) and comes back for more.
        while True:
            piece = await self._piece()
            if self._inflate is None:
                return piece
            if plain := self._inflate.feed(piece):
                return plain

    async def _piece(self) -> bytes:
        """The next bytes as they came."""
        wait = self._upstream.first_byte_timeout if self._first else self._upstream.idle_timeout
        try:
            async with asyncio.timeout(wait):
                piece = await self._response.content.readany()
        except TimeoutError:
            raise UpstreamTimeout(f"the upstream sent nothing for {wait:g} seconds") from None
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamProtocol(f"the upstream broke off its answer ({type(error).__name__})") from error
        if not piece:
            if self._inflate is not None and not self._inflate.complete:
                raise UpstreamProtocol("the upstream broke off its compressed answer")
            raise StopAsyncIteration
        self._first = False
        return piece


class AiohttpTransport:
    """One client session for all upstreams. `close` it when the relay stops."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=IDLE_CONNECTION_SECONDS, socket_factory=by_permit
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            trust_env=False,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            skip_auto_headers=("Content-Type",),
            max_line_size=16_384,
            max_field_size=32_768,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    def send(self, request: UpstreamRequest, upstream: Upstream) -> AbstractAsyncContextManager[Answer]:
        """Send and wait for the answer's head."""
        return self._send(request, upstream)

    @asynccontextmanager
    async def _send(self, request: UpstreamRequest, upstream: Upstream) -> AsyncIterator[Answer]:
        response = await self._head(request, upstream)
        # Not held while the answer comes: prompts are large, and streams are long.
        del request
        try:
            yield AiohttpAnswer(response, upstream)
        finally:
            # Closes the connection if the body was not read to its end: that is how an upstream learns that its
            # caller has left. A connection whose body was read goes back to the pool before this.
            response.close()

    async def _head(self, request: UpstreamRequest, upstream: Upstream) -> aiohttp.ClientResponse:
        wait = upstream.first_byte_timeout
        url = URL(request.url, encoded=True)
        permit = PERMIT.set(permit_for(url.raw_host or "", upstream))
        try:
            async with asyncio.timeout(wait):
                return await self._session.request(
                    request.method,
                    url,
                    headers=request.headers,
                    data=_payload(request.body),
                    allow_redirects=False,
                    # All of it: the name's resolution and TLS as well.
                    timeout=aiohttp.ClientTimeout(total=None, connect=upstream.connect_timeout),
                )
        except TimeoutError as error:
            raise _late(error, upstream) from error
        except (aiohttp.ClientError, OSError, ValueError, ssl.CertificateError) as error:
            raise _failed(error, upstream) from error
        finally:
            PERMIT.reset(permit)


def _payload(body: bytes) -> bytes | io.BytesIO | None:
    """The body in the form that aiohttp sends best: large ones piece by piece, so that other calls get their turn."""
    if not body:
        return None
    return body if len(body) <= LARGE_BODY else io.BytesIO(body)


def _late(error: TimeoutError, upstream: Upstream) -> UpstreamError:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return UpstreamUnreachable(f"no connection to the upstream within {upstream.connect_timeout:g} seconds")
    return UpstreamTimeout(f"the upstream did not answer within {upstream.first_byte_timeout:g} seconds")


def _failed(error: Exception, upstream: Upstream) -> RelayError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.CertificateError):
        return UpstreamUnreachable("the upstream's TLS certificate is not valid")
    if isinstance(error, OSError) and error.errno in EXHAUSTED:
        return exhausted()
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, Forbidden):
        log.error("upstream %s: %s", upstream.name, error.os_error)
        return refusal(error.os_error)
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.InvalidURL):
        return UpstreamUnreachable("the upstream cannot be reached")
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
        # It may have run the request before it hung up, so it must not be sent again unasked.
        return UpstreamHungUp("the upstream closed the connection without an answer")
    return UpstreamProtocol(f"the upstream's answer is not valid HTTP ({type(error).__name__})")
