"""Delivering one streamed answer: preamble, pieces, keep-alives, and the ways in which it can end.

Until the first real output the answer is held back, bounded in bytes and time: an upstream that opens its stream and
then fails can still be answered with a true HTTP status, or be replaced by the next target. After that there is no way
back: a failure becomes the dialect's own error event, and the body ends without its last chunk, so that no client can
take what it got for complete.

Once the stream is open, `take` runs for each piece in the very turn of the event loop in which it arrived, and writes
to the client's transport: no task is woken, no future made, and one read of the upstream is one write to the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import HttpVersion11, web

from relay.call import Call
from relay.dialect import Forward
from relay.errors import PluginError, RelayError, UpstreamError, UpstreamProtocol
from relay.events import Event, KeepsAlive, StreamDecoder, StreamMeter, TellsFailure
from relay.family import Answer, Sink
from relay.meter import Meter
from relay.secret import Secret

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["Delivery", "bad_arguments", "safe_header"]

PREAMBLE_BYTES = 65_536
PREAMBLE_SECONDS = 5.0
DRAIN_SECONDS = 1.0
"""Time that an upstream gets to close its stream after the last event, so that the connection can be used again."""

log = logging.getLogger("relay.stream")
_UNSAFE = re.compile(r"[^\x20-\x7e]")


def safe_header(text: str) -> str:
    """`text` as a header value: what is not printable ASCII becomes `?`."""
    return text if text.isascii() and text.isprintable() else _UNSAFE.sub("?", text)


def bad_arguments(fault: str) -> RelayError:
    """The error of strict mode: the model's tool call does not fit the tool."""
    return UpstreamProtocol(fault, code="invalid_tool_arguments")


class Delivery:
    """One stream on its way from upstream to client; the sink of the upstream's answer.

    There is either a decoder, whose events are counted and, unless `native`, encoded again; or a counter, which is all
    that a native stream needs.
    """

    def __init__(
        self,
        relay: Relay,
        call: Call,
        request: web.Request,
        forward: Forward,
        decoder: StreamDecoder | None,
        counter: StreamMeter | None,
        *,
        native: bool,
        plugin: str,
        secret: Secret | None = None,
    ) -> None:
        if call.dialect is None or call.head is None:
            raise AssertionError("a delivery follows the reading of the head")
        self.relay = relay
        self.call = call
        self.dialect = call.dialect
        self.stream_type = call.head.stream_type or call.dialect.stream_type
        self.request = request
        self.protocol = request.protocol
        self.filter = forward.filter
        self.native = native
        self.plugin = plugin
        self.secret = secret
        self.decoder = decoder
        self.counter = counter
        self.meter: Meter | StreamMeter = counter or Meter(keep_calls=call.check is not None)
        call.count = self.meter
        self.encoder = None if native else call.dialect.stream_encoder(call.head)
        self.strict = call.check is not None and relay.strict_tools(call)
        self.out: web.StreamResponse | None = None
        self.chunked = request.version >= HttpVersion11
        self.held: list[bytes] = []
        self.last = b""
        self.quiet = True
        """Whether nothing was sent since the keep-alive timer looked last."""
        self.timer: asyncio.TimerHandle | None = None

    async def run(self, answer: Answer) -> web.StreamResponse:
        """Deliver everything. Raises RelayError if it failed before anything was sent; else returns what was sent."""
        pieces = answer.chunks()
        try:
            if await self._open(pieces):
                await self._push(answer, pieces)
            if self.meter.error is not None:
                # It has passed through to the client in its own bytes.
                return await self._fail(self.meter.error, said=True)
            await self._end()
        except RelayError as error:
            if self.out is None:
                raise
            return await self._fail(error)
        finally:
            if self.timer is not None:
                self.timer.cancel()
        out = await self._commit()
        await out.write_eof()
        await self._drain(pieces)
        return out

    async def _open(self, pieces: AsyncIterator[bytes]) -> bool:
        """The preamble: take pieces until there is real output, too much of anything, or too long a wait.

        False if that was already the whole answer.
        """
        deadline = self.relay.clock() + PREAMBLE_SECONDS
        size = 0
        while True:
            try:
                async with asyncio.timeout(max(0.0, deadline - self.relay.clock())):
                    piece = await anext(pieces, None)
            except TimeoutError:
                await self._commit()
                return True
            if piece is None:
                return False
            data, go_on = self._work(piece)
            self.held.append(data)
            size += len(data)
            if self.meter.begun or self.meter.complete or size > PREAMBLE_BYTES:
                await self._commit()
                return go_on

    async def _push(self, answer: Answer, pieces: AsyncIterator[bytes]) -> None:
        # Asked for by name: to compare with a protocol costs as much as twenty pieces.
        pump: Callable[[Sink], Awaitable[None]] | None = getattr(answer, "pump", None)
        if pump is not None:
            await pump(self)
            return
        async for piece in pieces:
            go_on = self.take(piece)
            if self.full():
                await self.drain()
            if not go_on:
                return

    # The sink

    def take(self, piece: bytes) -> bool:
        """One piece of the upstream's, on to the client. False once the answer is complete or has failed."""
        data, go_on = self._work(piece)
        if data:
            self._send(data)
        return go_on

    def full(self) -> bool:
        """Whether the client is slower than the upstream."""
        return self.protocol.writing_paused

    async def drain(self) -> None:
        """Wait for the client."""
        await self.request.writer.drain()

    def _work(self, piece: bytes) -> tuple[bytes, bool]:
        """Count, judge, translate: what goes to the client, and whether more is expected.

        What must not look finished is found out here, before its last bytes are gone.
        """
        meter = self.meter
        counter = self.counter
        if counter is not None:
            try:
                counter.feed(piece)
            except RelayError as error:
                meter.error = error
            except Exception:
                self._broken()
            data = self.filter.feed(piece) if self.filter is not None else piece
            if meter.error is None:
                return data, not meter.complete
            events: list[Event] = []
        else:
            events = self._decode(piece)
            data = b""
        if meter.error is not None and not self._told(meter.error):
            raise self._masked(meter.error)
        if self.strict and meter.complete:
            self._check()
        if self.encoder is not None:
            data = self.encoder.encode(events) if events else b""
        elif counter is None:
            data = self.filter.feed(piece) if self.filter is not None else piece
        return data, not meter.complete and meter.error is None

    def _told(self, error: RelayError) -> bool:
        """Whether the bytes that are about to pass through tell of the error themselves, in the caller's dialect."""
        return self.native and self.out is not None and not isinstance(error, UpstreamProtocol)

    def _masked(self, error: RelayError) -> RelayError:
        if self.secret is not None and isinstance(error, UpstreamError):
            error.message = self.secret.mask(error.message)
        return error

    def _decode(self, piece: bytes | None) -> list[Event]:
        """Events of a piece, or of the end."""
        if self.decoder is None or not isinstance(self.meter, Meter):
            return []
        try:
            events = self.decoder.close() if piece is None else self.decoder.feed(piece)
        except RelayError as error:
            self.meter.error = error
            return []
        except Exception as error:
            self._broken(error)
            return []
        self.meter.add(events)
        return events

    def _broken(self, error: Exception | None = None) -> None:
        """A plugin's decoder failed. Where bytes pass through, that costs numbers, never the stream."""
        log.exception("plugin %s failed in reading a stream", self.plugin)
        if not self.native:
            name = type(error).__name__
            raise PluginError(self.plugin, f"failed in its stream decoder ({name})") from error
        self.decoder = self.counter = None
        self.meter.begun = True

    def _send(self, data: bytes) -> None:
        """Write one chunk straight to the client's transport, under aiohttp's response, whose head is out already."""
        transport = self.request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self.last = data
        self.quiet = False
        transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    # The end

    async def _end(self) -> None:
        """The upstream has ended its stream, or its last event was seen."""
        events: list[Event] = []
        meter = self.meter
        if not meter.complete:
            if self.counter is not None:
                self.counter.close()
            else:
                events = self._decode(None)
            if meter.error is not None:
                raise self._masked(meter.error)
            if self.counter is None and self.decoder is None:
                meter.complete = True
            elif not meter.complete:
                raise UpstreamProtocol("the upstream's stream ended before its answer was complete")
            if self.strict:
                self._check()
        if self.call.check is not None and self.call.tools is None:
            self._judge()
        if self.encoder is not None:
            data = self.encoder.encode(events) if events else b""
        else:
            data = self.filter.close() if self.filter is not None else b""
        await self._commit()
        if data:
            self._send(data)

    def _judge(self) -> str | None:
        return self.call.judge(self.meter.calls()) if isinstance(self.meter, Meter) else None

    def _check(self) -> None:
        if (fault := self._judge()) is not None:
            raise bad_arguments(fault)

    async def _commit(self) -> web.StreamResponse:
        """The point of no return: status and headers go out, with whatever was held back."""
        if self.out is not None:
            return self.out
        headers = {
            **self.call.headers,
            "Content-Type": self.stream_type,
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
        }
        if self.call.check is not None:
            headers["x-relay-tool-arguments"] = "see-usage"
        self.out = out = web.StreamResponse(headers=headers)
        if self.chunked:
            out.enable_chunked_encoding()
        await out.prepare(self.request)
        held = b"".join(self.held)
        self.held.clear()
        if held:
            self.last = held
            self.call.first_byte = self.relay.clock()
        # aiohttp keeps the head back until the first write, so this one goes through it, whatever it holds.
        await out.write(held)
        self.quiet = False
        if self.dialect.keep_alive:
            self._arm(self.relay.settings.server.keep_alive_seconds / 2)
        return out

    def _arm(self, seconds: float) -> None:
        self.timer = asyncio.get_running_loop().call_later(seconds, self._keep_alive)

    def _keep_alive(self) -> None:
        """Twice in the time that silence may last: was anything sent since? If not, send the dialect's nothing.

        Never into an event that is half sent. A look costs nothing to the pieces, which only leave a mark.
        """
        quiet, self.quiet = self.quiet, True
        self._arm(self.relay.settings.server.keep_alive_seconds / 2)
        if quiet and self._between_events() and not self.full():
            with contextlib.suppress(ConnectionError):
                last = self.last
                knows = self._writer()
                self._send(knows.keep_alive() if isinstance(knows, KeepsAlive) else self.dialect.keep_alive)
                # Two halves of the time in a row without a word: then the next ones count from here.
                self.last, self.quiet = last, False

    def _writer(self) -> object:
        """Who has seen all that was sent, if anybody has."""
        return self.encoder if self.encoder is not None else self.filter

    def _between_events(self) -> bool:
        return not self.native or not self.last or self.last.endswith((b"\n\n", b"\r\n\r\n", b"\r\r"))

    async def _fail(self, error: RelayError, *, said: bool = False) -> web.StreamResponse:
        """Tell the client in its own dialect, unless it was `said`, then end the body without its last chunk."""
        self.call.failed(error)
        out = await self._commit()
        with contextlib.suppress(ConnectionError):
            if not said and self.call.head is not None:
                knows = self._writer()
                encoder = knows if isinstance(knows, TellsFailure) else self.dialect.stream_encoder(self.call.head)
                gap = b"" if self._between_events() else b"\n\n"
                self._send(gap + encoder.failure(error))
            if self.request.transport is not None:
                self.request.transport.close()
        return out

    async def _drain(self, pieces: AsyncIterator[bytes]) -> None:
        """Read the end of the upstream's body, which makes its connection usable for the next call."""
        with contextlib.suppress(RelayError, TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                async for _ in pieces:
                    pass
