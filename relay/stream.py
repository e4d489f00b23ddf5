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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from relay.call import Call, bad_arguments
from relay.dialect import StreamFilter
from relay.errors import PluginError, RelayError, UpstreamError, UpstreamProtocol, UpstreamTimeout
from relay.events import Event, Failure, KeepsAlive, KeepsCalls, StreamDecoder, StreamEncoder, StreamMeter, TellsFailure
from relay.family import Answer, Sink
from relay.fold import Fold
from relay.ir import Response
from relay.kit import WholeEvents
from relay.lost import answer_losses, dropped
from relay.meter import Meter
from relay.mould import EVENT_END
from relay.outlet import Outlet
from relay.parted import frames_of, parted
from relay.recast import Recast
from relay.secret import Secret
from relay.skim import SkimmingMeter, resting
from relay.valve import Valve

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["Delivery"]

PREAMBLE_BYTES = 65_536
PREAMBLE_SECONDS = 5.0
MOST_EVENTS = 100_000
"""Events that a decoder may make of one piece. It is a fault of its own if there are more."""
DRAIN_SECONDS = 1.0
"""Time that an upstream gets to close its stream after the last event, so that the connection can be used again."""

log = logging.getLogger("relay.stream")


class Delivery:
    """One stream on its way from upstream to client; the sink of the upstream's answer.

    There is either a decoder, whose events are counted and, unless `native`, encoded again; or a counter, which is all
    that a native stream needs. Whoever feeds it calls `finish` or `fail` in the end, and `close` in any case.
    """

    __slots__ = (
        "call",
        "choices",
        "counter",
        "decoder",
        "dialect",
        "early",
        "encoder",
        "ended",
        "filter",
        "fold",
        "held",
        "holds",
        "keep",
        "last",
        "loop",
        "meter",
        "most",
        "native",
        "opened",
        "outlet",
        "passed",
        "plugin",
        "quiet",
        "recast",
        "relay",
        "rest",
        "secret",
        "shelve",
        "size",
        "skimming",
        "stream_type",
        "strict",
        "taken",
        "text",
        "timer",
        "valve",
    )

    def __init__(
        self,
        relay: Relay,
        call: Call,
        outlet: Outlet,
        filter: StreamFilter | None,
        decoder: StreamDecoder | None,
        counter: StreamMeter | None,
        native: bool,
        plugin: str,
        secret: Secret | None,
        keep: Callable[[Response], None] | None,
        shelve: Callable[[StreamEncoder], None] | None,
        most: int,
    ) -> None:
        if call.dialect is None or call.head is None:
            raise AssertionError("a delivery follows the reading of the head")
        self.relay = relay
        self.call = call
        self.dialect = call.dialect
        self.stream_type = call.head.stream_type or call.dialect.stream_type
        self.choices = call.head.choices
        self.outlet = outlet
        self.filter = filter
        self.native = native
        self.plugin = plugin
        self.secret = secret
        self.decoder = decoder
        self.counter = counter
        self.meter: Meter | StreamMeter = counter or Meter(keep_calls=call.check is not None)
        call.count = self.meter
        self.encoder = None if native else call.dialect.stream_encoder(call.head)
        self.strict = call.check is not None and relay.strict_tools(call)
        self.keep = keep
        """Who is given the complete answer, put together; nobody where nobody needs it."""
        self.fold = None if keep is None else Fold()
        self.shelve = shelve
        """Who is given the encoder of a complete answer."""
        self.holds = not native or keep is not None or call.check is not None
        """Whether something of each piece may be held until the answer is complete: then there is a limit to it."""
        self.most, self.taken = most, 0
        """Bytes that came of such an answer, but for those that went by the valve."""
        self.skimming = counter if isinstance(counter, SkimmingMeter) and outlet.chunked else None
        self.recast = Recast.of(decoder, self.encoder, self.meter, self.fold) if outlet.chunked else None
        self.valve: Valve | None = None
        """By which plain text may pass as it comes; None: everything has to be read."""
        self.text = self.passed = 0
        """What had passed by the valve before: until this stream, and until the keep-alive timer looked last."""
        self.opened = False
        """Whether the head is out: the point of no return."""
        self.ended = False
        """Whether the client was given all that it will get: what comes later changes nothing of how the call ended."""
        self.held: list[bytes] = []
        self.early: list[Event] = []
        """The events before that, of a stream that is translated: what they lose can still be told in the head."""
        self.size = 0
        self.rest = b""
        """The answer's last bytes, which go out together with the end of the body."""
        self.last = b""
        self.quiet = True
        """Whether nothing was sent since the keep-alive timer looked last."""
        self.loop = asyncio.get_running_loop()
        self.timer = self.loop.call_later(PREAMBLE_SECONDS, self._look)

    async def run(self, answer: Answer) -> None:
        """Deliver everything. Raises RelayError if it failed before anything was sent."""
        pieces = answer.chunks()
        try:
            await self._pour(answer, pieces)
            self.finish()
        except RelayError as error:
            self.fail(error)
            return
        finally:
            self.close()
        await self._drain(pieces)

    async def _pour(self, answer: Answer, pieces: AsyncIterator[bytes]) -> None:
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

    def close(self) -> None:
        """Nothing more will come."""
        self.timer.cancel()
        valve, self.valve = self.valve, None
        if valve is not None:
            if self.recast is not None:
                self.recast.catch_up(ended=True)
            valve.shut()
            if self.skimming is not None:
                self.skimming.seen += (valve.text - self.text) / 4

    # The sink

    def attach(self, valve: Valve) -> bool:
        """Let plain text pass by this valve from here on, as it comes. False: all of it has to be read."""
        if self.skimming is None and self.recast is None:
            return False
        self.valve = valve
        self.text, self.passed = valve.text, valve.passed
        # That was of other streams.
        self.taken -= valve.passed
        if self.opened:
            self._learn()
        return True

    def take(self, piece: bytes) -> bool:
        """One piece of the upstream's, on to the client. False once the answer is complete or has failed."""
        if self.holds:
            self._grow(len(piece))
        if self.valve is not None and self.valve.last is not None:
            self._caught_up()
        counter = self.counter
        if counter is not None and self.opened:
            # The way of nearly every piece: `_work` and `_send`, written out.
            try:
                counter.feed(piece)
            except RelayError as error:
                counter.error = error
            except Exception:
                self._broken()
            if counter.error is None and not counter.complete:
                data = self._filtered(piece)
                if data:
                    self.last = data
                    self.quiet = False
                    self.outlet.send(data)
                self._learn()
                return True
            data, go_on = self._judged(piece, counter)
        else:
            data, go_on = self._work(piece)
        if not go_on:
            self.rest = data
        elif self.opened:
            if data:
                self._send(data)
        else:
            # The preamble: held back until there is real output, or too much of anything, or too long a wait.
            self.held.append(data)
            self.size += len(data)
            if self.meter.begun or self.size > PREAMBLE_BYTES:
                self._open()
                self._learn()
        return go_on

    def _grow(self, size: int) -> None:
        """So many bytes more. Raises UpstreamProtocol if that is more than may be held."""
        self.taken += size
        if self.taken + (0 if self.valve is None else self.valve.passed) > self.most:
            raise UpstreamProtocol(f"the upstream's answer is longer than {self.most} bytes")

    def _caught_up(self) -> None:
        """Show what passed to those who have to know of it, before anything else."""
        if self.recast is not None:
            self.recast.catch_up()
        last = None if self.valve is None else self.valve.last
        if last is not None and isinstance(self.filter, WholeEvents):
            self.filter.rested(bytes(last))

    def _learn(self) -> None:
        """Let pass what is like the last event, or nothing."""
        valve, skimming = self.valve, self.skimming
        if valve is None or skimming is None:
            return
        mould = skimming.mould if self.filter is None or resting(self.filter) else None
        transport = self.outlet.transport
        if mould is None or transport is None or not self.opened:
            valve.shut()
            return
        valve.let(transport, mould, skimming.into)
        # Nothing is held back, and what passes are whole events, too.
        self.last = EVENT_END

    def full(self) -> bool:
        """Whether the client is slower than the upstream."""
        return self.outlet.full()

    async def drain(self) -> None:
        """Wait for the client."""
        await self.outlet.drain()

    def _work(self, piece: bytes) -> tuple[bytes, bool]:
        """Count, judge, translate: what goes to the client, and whether more is expected."""
        counter = self.counter
        if counter is not None:
            try:
                counter.feed(piece)
            except RelayError as error:
                counter.error = error
            except Exception:
                self._broken()
            return self._judged(piece, counter)
        meter = self.meter
        events = self._decode(piece)
        if meter.error is not None:
            return self._broken_off(meter.error, piece, events), False
        if self.strict and meter.complete:
            self._check()
        if self.encoder is not None:
            try:
                data = self.encoder.encode(events) if events else b""
                if self.recast is not None and self.valve is not None and self.opened:
                    self.recast.follow(self.valve, self.outlet.transport, piece, events)
            except RelayError:
                raise
            except Exception as error:
                # Nothing that is an event does that.
                self._broken(error)
                data = b""
            if not self.opened:
                self.early += events
        else:
            data = self.filter.feed(piece) if self.filter is not None else piece
        return data, not meter.complete

    def _judged(self, piece: bytes, counter: StreamMeter) -> tuple[bytes, bool]:
        """The same for a piece that was counted.

        What must not look finished is found out here, before its last bytes are gone.
        """
        if counter.error is not None:
            return self._broken_off(counter.error, piece), False
        if self.strict and counter.complete:
            self._check()
        return self._filtered(piece), not counter.complete

    def _filtered(self, piece: bytes) -> bytes:
        """What of a piece that was counted goes to the client. Plain text need not be looked at again."""
        filter, skimming = self.filter, self.skimming
        if filter is None:
            return piece
        begin, end = (0, 0) if skimming is None else skimming.span
        if begin == end:
            return filter.feed(piece)
        before = filter.feed(piece[:begin]) if begin else b""
        if not resting(filter):
            return before + filter.feed(piece[begin:])
        plain = piece[begin:end]
        filter.rested(plain)
        after = filter.feed(piece[end:]) if end < len(piece) else b""
        return before + plain + after if before or after else plain

    def _broken_off(self, error: RelayError, piece: bytes, events: Iterable[Event] = ()) -> bytes:
        """What the client gets of the piece in which the upstream went wrong, if that tells of it in the client's way.

        Else it raises the error, and what comes before it in the piece waits to be sent first.
        """
        self._masked(error)
        if not self.opened:
            raise error
        if self.encoder is not None:
            self._translate_rest(events)
            raise error
        told = not isinstance(error, UpstreamProtocol)
        if self.filter is not None and not isinstance(self.filter, WholeEvents):
            # It makes another form of the events.
            data = self.filter.feed(piece)
        else:
            data = piece if self.filter is None else self.filter.last(piece)
            sound, fault = parted(data, self._reader)
            told = told and bool(fault) and all(self.dialect.tells_failure(*frame) for frame in frames_of(fault))
            data = sound + fault if told else sound
        if not told:
            self.rest = data
            raise error
        return data if self.secret is None else self.secret.mask_bytes(data)

    def _sound(self, events: Iterable[Event]) -> None:
        """Raise what the end of the bytes has shown to be wrong, if anything."""
        error = self.meter.error
        if error is not None:
            if self.opened:
                self._translate_rest(events)
            raise self._masked(error)

    def _translate_rest(self, events: Iterable[Event]) -> None:
        """Keep what is still to be sent before the error."""
        good: list[Event] = [event for event in events if not isinstance(event, Failure)]
        if self.encoder is not None and good:
            self.rest += self.encoder.encode(good)

    def _reader(self) -> StreamDecoder:
        """A decoder for one event of such a stream."""
        call = self.call
        if call.target is None:
            raise AssertionError("a stream comes from a target")
        family = self.relay.plugins.families[call.target.upstream.family]
        return family.translate_stream(call.target, {}, self.dialect.name if self.native else "")

    def _masked(self, error: RelayError) -> RelayError:
        if isinstance(error, UpstreamError):
            error.hide(self.secret)
        return error

    def _decode(self, piece: bytes | None) -> list[Event]:
        """Events of a piece, or of the end."""
        if self.decoder is None or not isinstance(self.meter, Meter):
            return []
        try:
            events = self.decoder.close() if piece is None else self.decoder.feed(piece)
            if type(events) is not list or len(events) > MOST_EVENTS:
                raise ValueError("no list of events, or too many at once")
            self.meter.add(events)
            if self.fold is not None:
                self.fold.add(events)
        except RelayError as error:
            self.meter.error = error
            return []
        except Exception as error:
            self._broken(error)
            return []
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
        self.last = data
        self.quiet = False
        self.outlet.send(data)

    # The end

    def finish(self) -> None:
        """The upstream has ended its stream, or its last event was seen: end the client's. Raises RelayError."""
        events: list[Event] = []
        meter = self.meter
        if self.recast is not None:
            self.recast.catch_up()
        if meter.error is not None:
            # It has passed through to the client in its own bytes.
            self._fail(meter.error, said=True)
            return
        if not meter.complete:
            if self.counter is not None:
                self.counter.close()
            else:
                events = self._decode(None)
            self._sound(events)
            if self.counter is None and self.decoder is None:
                meter.complete = True
            elif not meter.complete:
                raise UpstreamProtocol("the upstream's stream ended before its answer was complete")
            if self.choices > 1:
                self._count_choices()
            if self.strict:
                self._check()
        if self.call.check is not None and self.call.tools is None:
            self._judge()
        if self.keep is not None and self.fold is not None:
            self.keep(self.fold.response())
        data = self.rest
        if self.encoder is not None:
            try:
                data += self.encoder.encode(events) if events else b""
            except RelayError:
                raise
            except Exception as error:
                self._broken(error)
            if self.shelve is not None:
                self.shelve(self.encoder)
            if not self.opened:
                self.early += events
        elif self.filter is not None:
            data += self.filter.close()
        if self.opened:
            self.outlet.end(data)
        else:
            self.held.append(data)
            self._open(end=True)
        self.ended = True

    def _count_choices(self) -> None:
        """Nothing but the end of its bytes says that the stream is complete: so all that was asked for has to be there.

        What was never begun is missing from a stream that broke off, and from one whose filter let nothing through.
        """
        ended: int | None = getattr(self.meter, "ended", None)
        if self.counter is None and self.decoder is None:
            # It could not be read.
            return
        if ended is not None and ended < self.choices and not getattr(self.meter, "filtered", False):
            self.meter.complete = False
            raise UpstreamProtocol(f"the upstream's stream ended after {ended} of {self.choices} choices")

    def _judge(self) -> str | None:
        return self.call.judge(self.meter.calls()) if isinstance(self.meter, KeepsCalls) else None

    def _check(self) -> None:
        if (fault := self._judge()) is not None:
            raise bad_arguments(fault)

    def _open(self, *, end: bool = False) -> None:
        """The point of no return: status and headers go out, with whatever was held back, and with the `end`."""
        course = self.call.course
        if course is not None:
            course.answered()
        self.opened = True
        headers = {**self.call.headers, "X-Accel-Buffering": "no"}
        if self.call.check is not None:
            headers["x-relay-tool-arguments"] = "see-usage"
        if self.early and (
            lost := answer_losses(
                self.early, self.dialect.name, self.dialect.capacity, remembered=self.keep is not None
            )
        ):
            self.call.losses += lost
            headers["x-relay-dropped"] = dropped(self.call.losses)
        held = self.held[0] if len(self.held) == 1 else b"".join(self.held)
        self.held.clear()
        if held:
            self.last = held
            self.call.first_byte = self.relay.clock()
        self.quiet = False
        self.outlet.open(headers, self.stream_type, self.call.id, held, end=end)
        if not end and self.relay.settings.server.keep_alive_seconds / 2 < PREAMBLE_SECONDS:
            # The timer that runs would look too late; else it will do, as most streams are over by then.
            self._arm()

    def _arm(self) -> None:
        self.timer.cancel()
        if self.dialect.keep_alive:
            self.timer = self.loop.call_later(self.relay.settings.server.keep_alive_seconds / 2, self._look)

    def _look(self) -> None:
        """It is time to see whether the client has heard from here."""
        # First: whatever ends the call meanwhile ends the timer, too.
        self._arm()
        if self.opened:
            self._keep_alive()
        else:
            # The preamble has taken its time: from here on the client sees that there is somebody. If it is too late
            # for that, the call is being ended.
            with contextlib.suppress(ConnectionError, UpstreamTimeout):
                self._open()

    def _keep_alive(self) -> None:
        """Twice in the time that silence may last: was anything sent since? If not, send the dialect's nothing.

        Never into an event that is half sent. A look costs nothing to the pieces, which only leave a mark.
        """
        passed = self.passed if self.valve is None else self.valve.passed
        quiet, self.quiet, self.passed = self.quiet and passed == self.passed, True, passed
        if quiet and self.dialect.keep_alive and self._between_events() and not self.full():
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

    def fail(self, error: RelayError) -> None:
        """Tell the client in its own dialect, then end the body without its last chunk. Before the head: raises."""
        if not self.opened:
            raise error
        if not self.ended:
            self._fail(error)

    def _fail(self, error: RelayError, *, said: bool = False) -> None:
        self.call.failed(error)
        with contextlib.suppress(ConnectionError):
            if self.rest:
                self._send(self.rest)
            if not said and self.call.head is not None:
                self._caught_up()
                knows = self._writer()
                encoder = knows if isinstance(knows, TellsFailure) else self.dialect.stream_encoder(self.call.head)
                gap = b"" if self._between_events() else b"\n\n"
                self._send(gap + encoder.failure(error))
        self.outlet.cut()
        self.ended = True

    async def _drain(self, pieces: AsyncIterator[bytes]) -> None:
        """Read the end of the upstream's body, which makes its connection usable for the next call."""
        with contextlib.suppress(RelayError, TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                async for _ in pieces:
                    pass
