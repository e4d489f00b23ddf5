"""Delivering one streamed answer: preamble, pieces, keep-alives, and the three ways in which it can end.

Until the first real output the answer is held back, bounded in bytes and time: an upstream that opens its stream and
then fails can still be answered with a true HTTP status, or be replaced by the next target. After that there is no way
back: a failure becomes the dialect's own error event, and the body ends without its last chunk, so that no client can
take what it got for complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from aiohttp import web

from relay.call import Call
from relay.dialect import Forward
from relay.errors import PluginError, RelayError, UpstreamProtocol
from relay.events import (
    Event,
    MessageStart,
    OpaqueEvent,
    PartExtra,
    PartStart,
    PartStop,
    StreamDecoder,
    UsageSeen,
)
from relay.family import Answer

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["Delivery", "bad_arguments", "safe_header"]

EVENTS = "text/event-stream"
PREAMBLE_BYTES = 65_536
PREAMBLE_SECONDS = 5.0
DRAIN_SECONDS = 1.0
"""Time that an upstream gets to close its stream after the last event, so that the connection can be used again."""

QUIET: frozenset[type[Any]] = frozenset({MessageStart, OpaqueEvent, PartExtra, PartStart, PartStop, UsageSeen})
"""Events that promise an answer without giving any of it."""

log = logging.getLogger("relay.stream")
_UNSAFE = re.compile(r"[^\x20-\x7e]")


def safe_header(text: str) -> str:
    """`text` as a header value: what is not printable ASCII becomes `?`."""
    return _UNSAFE.sub("?", text)


def bad_arguments(fault: str) -> RelayError:
    """The error of strict mode: the model's tool call does not fit the tool."""
    return UpstreamProtocol(fault, code="invalid_tool_arguments")


class Delivery:
    """One stream on its way from upstream to client."""

    def __init__(
        self,
        relay: Relay,
        call: Call,
        request: web.Request,
        forward: Forward,
        decoder: StreamDecoder,
        *,
        native: bool,
        plugin: str,
    ) -> None:
        if call.dialect is None or call.head is None:
            raise AssertionError("a delivery follows the reading of the head")
        self.relay = relay
        self.call = call
        self.meter = call.meter
        self.meter.keep_calls = call.check is not None
        self.dialect = call.dialect
        self.request = request
        self.filter = forward.filter
        self.native = native
        self.plugin = plugin
        self.decoder: StreamDecoder | None = decoder
        self.encoder = call.dialect.stream_encoder(call.head)
        self.strict = call.check is not None and relay.strict_tools(call)
        self.out: web.StreamResponse | None = None
        self.held = bytearray()
        self.opened = relay.clock()
        self.last = b""
        self.opening = native and call.dialect.stream_type == EVENTS

    async def run(self, answer: Answer) -> web.StreamResponse:
        """Deliver everything. Raises RelayError if it failed before anything was sent; else returns what was sent."""
        pieces = answer.chunks()
        try:
            async for piece in self._pieces(pieces):
                await self._take(piece)
                if self.meter.error is not None:
                    return await self._fail(self.meter.error, said=True)
                if self.meter.complete:
                    break
            await self._end()
        except RelayError as error:
            if self.out is None:
                raise
            return await self._fail(error)
        out = await self._commit()
        await out.write_eof()
        await self._drain(pieces)
        return out

    async def _pieces(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The upstream's pieces; while there are none, the client is kept waiting in good form."""
        while True:
            try:
                async with asyncio.timeout(self._patience()):
                    piece = await anext(pieces, None)
            except TimeoutError:
                if self.out is None:
                    await self._commit()
                elif self.dialect.keep_alive and self._between_frames():
                    await self.out.write(self.dialect.keep_alive)
                continue
            if piece is None:
                return
            yield piece

    def _patience(self) -> float | None:
        """Seconds until something must happen although the upstream is silent."""
        if self.out is None:
            return max(0.0, self.opened + PREAMBLE_SECONDS - self.relay.clock())
        return self.relay.settings.server.keep_alive_seconds if self.dialect.keep_alive else None

    def _between_frames(self) -> bool:
        return not self.native or self.last.endswith((b"\n\n", b"\r\n\r\n")) or not self.last

    async def _take(self, piece: bytes) -> None:
        """Decode, judge, then send: what must not look finished is found out before its last bytes are gone."""
        if self.opening:
            self._recognise(piece)
        events = self._look(piece)
        if self.meter.error is not None and not self._told(self.meter.error):
            raise self.meter.error
        if self.strict and self.meter.complete:
            self._check()
        data = self._pass(piece) if self.native else self._encode(events)
        if self.out is None and not self._begun(events):
            self.held += data
            if len(self.held) <= PREAMBLE_BYTES:
                return
            data = b""
        await self._write(data)

    def _recognise(self, piece: bytes) -> None:
        """See whether this is a stream at all: some hosts answer with one object whatever they were asked for.

        An event stream never begins with a brace, and clients that wait for events would pass over such a body without
        a word. So it does not pass through but is written again, as the stream that was asked for.
        """
        start = piece.lstrip()[:1]
        self.opening = not start
        if start == b"{":
            self.native = False
            self.filter = None

    def _told(self, error: RelayError) -> bool:
        """Whether the bytes that are about to pass through tell of the error themselves, in the caller's dialect."""
        return self.native and self.out is not None and not isinstance(error, UpstreamProtocol)

    def _begun(self, events: list[Event]) -> bool:
        return self.decoder is None or any(type(event) not in QUIET for event in events)

    def _look(self, piece: bytes | None) -> list[Event]:
        """Decode for the meter. Where bytes pass through, a broken decoder costs numbers, never the stream."""
        if self.decoder is None:
            return []
        try:
            events = self.decoder.close() if piece is None else self.decoder.feed(piece)
        except RelayError as error:
            self.meter.error = error
            return []
        except Exception as error:
            log.exception("plugin %s failed in its stream decoder", self.plugin)
            if not self.native:
                raise PluginError(self.plugin, f"failed in its stream decoder ({type(error).__name__})") from error
            self.decoder = None
            return []
        self.meter.add(events)
        return events

    def _pass(self, piece: bytes) -> bytes:
        return self.filter.feed(piece) if self.filter is not None else piece

    def _encode(self, events: list[Event]) -> bytes:
        return self.encoder.encode(events) if events else b""

    async def _end(self) -> None:
        """The upstream has ended its stream, or its last event was seen."""
        events: list[Event] = []
        if not self.meter.complete:
            events = self._look(None)
            if self.meter.error is not None:
                raise self.meter.error
            if self.decoder is None:
                self.meter.complete = True
            elif not self.meter.complete:
                raise UpstreamProtocol("the upstream's stream ended before its answer was complete")
            if self.strict:
                self._check()
        if self.call.check is not None and self.call.tools is None:
            self._judge()
        if self.native:
            await self._write(self.filter.close() if self.filter is not None else b"")
        else:
            await self._write(self._encode(events))

    def _judge(self) -> str | None:
        if self.call.check is None:
            return None
        fault = self.call.check.first_fault(self.meter.calls())
        self.call.tools = "valid" if fault is None else "invalid"
        return fault

    def _check(self) -> None:
        if (fault := self._judge()) is not None:
            raise bad_arguments(fault)

    async def _commit(self) -> web.StreamResponse:
        """The point of no return: status and headers go out, with whatever was held back."""
        if self.out is not None:
            return self.out
        headers = {
            **self.call.headers,
            "Content-Type": self.dialect.stream_type,
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
        }
        if self.call.check is not None:
            headers["x-relay-tool-arguments"] = "see-usage"
        self.out = web.StreamResponse(headers=headers)
        await self.out.prepare(self.request)
        if self.held:
            held, self.held = bytes(self.held), bytearray()
            await self._write(held)
        return self.out

    async def _write(self, data: bytes) -> None:
        out = await self._commit()
        if not data:
            return
        if self.call.first_byte is None:
            self.call.first_byte = self.relay.clock()
        self.last = data
        await out.write(data)

    async def _fail(self, error: RelayError, *, said: bool = False) -> web.StreamResponse:
        """Tell the client in its own dialect, unless it was `said`, then end the body without its last chunk."""
        self.call.failed(error)
        out = await self._commit()
        with contextlib.suppress(ConnectionError):
            if not said:
                gap = b"" if self._between_frames() else b"\n\n"
                await out.write(gap + self.encoder.failure(error))
            if self.request.transport is not None:
                self.request.transport.close()
        return out

    async def _drain(self, pieces: AsyncIterator[bytes]) -> None:
        """Read the end of the upstream's body, which makes its connection usable for the next call."""
        with contextlib.suppress(RelayError, TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                async for _ in pieces:
                    pass
