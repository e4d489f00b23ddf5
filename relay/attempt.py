"""One try of one target: build the upstream's request, send it, bring back its answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from relay.bound import BoundFamily, guarded
from relay.call import Call, bad_arguments
from relay.dialect import Forward, Head, StreamFilter
from relay.errors import (
    PluginError,
    RateLimited,
    RelayError,
    Unsupported,
    UpstreamBusy,
    UpstreamError,
    UpstreamProtocol,
    UpstreamTimeout,
)
from relay.events import KeepsCalls, StreamEncoder, StreamMeter
from relay.family import Target, Transport, Upstream, UpstreamRequest
from relay.fold import unfold
from relay.ir import Loss, Response, Thinking, ToolCall
from relay.kit import error_for_status
from relay.limits import Limits, Reservation, Scope
from relay.lost import answer_losses, dropped
from relay.memory import place_of
from relay.meter import Meter, Told
from relay.outlet import Outlet, safe_header
from relay.shelf import Look
from relay.stream import Delivery

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["Attempt", "MAX_ANSWER", "MAX_ERROR", "content_type"]

MAX_ANSWER = 256 * 1024 * 1024
"""Bytes of a complete answer; images and sound come inside."""
MAX_ERROR = 1024 * 1024
"""Bytes of an error answer that are looked at."""
ESCAPED = b"\\u00"
"""How an escape of a letter begins."""

JSON = "application/json"
NO_HEADERS: Mapping[str, str] = MappingProxyType({})

log = logging.getLogger("relay.attempt")


class _NotAtHand(Exception):
    """Something that the request needs is not in memory, and has to be fetched."""


@lru_cache(maxsize=1024)
def _named(target: Target) -> tuple[str, str]:
    """A target's upstream and model as header values."""
    return safe_header(target.upstream.name), safe_header(target.model)


def content_type(headers: Mapping[str, str]) -> str:
    """What an answer that passes through says it is."""
    found = headers.get("content-type", JSON)
    return found if found == JSON else safe_header(found) or JSON


def _keeps_calls(meter: object) -> bool:
    """Have tool calls put together, to be judged. False: for that all of the stream has to be decoded."""
    if not isinstance(meter, KeepsCalls):
        return False
    meter.keep_calls = True
    return True


class Attempt:
    """Runs once. Raises RelayError only as long as nothing was sent to the client, so that another may be tried."""

    most = MAX_ANSWER
    """Bytes of an answer at most, if it is held: a complete one, or a stream that is translated or checked."""
    sent: UpstreamRequest | Awaitable[UpstreamRequest] | None = None
    """What `prepare` gave, if it was asked before."""

    def __init__(self, relay: Relay, call: Call, target: Target, outlet: Outlet) -> None:
        if call.dialect is None or call.head is None:
            raise AssertionError("an attempt follows the reading of the head")
        self.relay = relay
        self.call = call
        self.dialect = call.dialect
        self.head = call.head
        self.target = target
        self.outlet = outlet
        self.filter: StreamFilter | None = None
        self.family: BoundFamily = relay.plugins.families[target.upstream.family]
        name = call.dialect.name
        self.native = name in target.upstream.dialects
        self.speaks = name if self.native else ""
        """The dialect in which the upstream is asked; empty for its family's own format."""
        self.remembers = self.native and call.head.has_tools and bool(target.upstream.options.get("reasoning_memory"))
        """Whether this upstream wants its reasoning back from clients of its own dialect, who may have dropped it."""
        # What an earlier attempt saw was never shown to the client and is not billed.
        call.count = None

    async def run(self) -> None:
        """Bring the answer to the client."""
        upstream = self.target.upstream
        if not upstream.concurrency:
            await self._run()
            return
        place = await self._place(upstream)
        try:
            await self._run()
        finally:
            place.settle(0, self.relay.clock())

    async def _place(self, upstream: Upstream) -> Reservation:
        """A place at an upstream that gets so many calls at a time. Raises UpstreamBusy if there is none."""
        relay, taken = self.relay, []
        scope = Scope("upstream", upstream.name, Limits(concurrency=upstream.concurrency))

        def take() -> None:
            taken.append(relay.limiter.reserve([scope], 0, relay.clock()))

        try:
            try:
                take()
            except RateLimited:
                if not upstream.queue:
                    raise
                await relay.lines.wait(scope, self.call.key.id, take, upstream.queue, upstream.queue_seconds)
        except RateLimited as error:
            if taken:
                # It was its turn in the very moment in which its time was up.
                return taken[0]
            full = UpstreamBusy(
                f"the upstream {upstream.name!r} has all the calls that it is given at a time",
                code="upstream_full",
                retry_after=error.retry_after,
            )
            # That is how it was configured.
            full.blames = False
            raise full from None
        except asyncio.CancelledError:
            # Whoever left in the very moment in which it was its turn.
            for place in taken:
                place.settle(0, relay.clock())
            raise
        return taken[0]

    async def _run(self) -> None:
        sent = self.prepare() if self.sent is None else self.sent
        if not isinstance(sent, UpstreamRequest):
            sent = await self._ready(sent)
        async with self.transport.send(sent, self.target.upstream) as answer:
            # Not held while the answer comes: prompts are large, and streams are long.
            self.sent = None
            del sent
            if not 200 <= answer.status < 300:
                try:
                    body = await answer.read(MAX_ERROR) if answer.status >= 400 else b""
                except UpstreamError:
                    body = b""
                raise self.refusal(answer.status, answer.headers, body)
            if self.head.stream:
                await self.delivery(answer.headers).run(answer)
            else:
                self.whole(answer.status, answer.headers, await answer.read(self.most))

    @property
    def transport(self) -> Transport:
        """How the upstream is reached."""
        return self.family.family.transport or self.relay.transport

    def prepare(self) -> UpstreamRequest | Awaitable[UpstreamRequest]:
        """What to send, or what will tell."""
        try:
            forward = self._forward()
        except _NotAtHand:
            return self._fetched()
        self.filter = forward.filter
        head, lasting = self.head, self.target.lasting
        if not self.native or head.headers:
            return self._endpoint(forward.body)
        kind = (self.speaks, head.operation, head.stream)
        kept = lasting.get(kind)
        if kept is not None:
            return UpstreamRequest(kept.url, kept.headers, forward.body, kept.method)
        sent = self._endpoint(forward.body)
        if isinstance(sent, UpstreamRequest) and sent.lasting:
            lasting[kind] = UpstreamRequest(sent.url, sent.headers, b"", sent.method)
        return sent

    def _endpoint(self, body: bytes) -> UpstreamRequest | Awaitable[UpstreamRequest]:
        return self.family.endpoint(
            self.target,
            self.head.operation,
            body,
            self.head.stream,
            self.head.headers if self.native else NO_HEADERS,
            self.speaks,
        )

    def _forward(self) -> Forward:
        """The body to send: the caller's own bytes if the upstream speaks its dialect, else a translation."""
        losses = self.call.losses
        losses.clear()
        if self.dialect.keeps:
            self._resume()
        if self.native:
            head = self._reminded() if self.remembers else self.head
            forward = self.dialect.forward(head, self.target)
            losses += forward.losses
        else:
            forward = Forward(self._translated(losses))
        if losses and self.call.key.strict:
            for loss in losses:
                if not loss.hint:
                    raise Unsupported(f"{self.target} cannot carry {loss}", param=loss.field)
        return forward

    async def _fetched(self) -> UpstreamRequest:
        """What to send, once all that it takes is in memory."""
        await self.look.fetch()
        sent = self.prepare()
        return sent if isinstance(sent, UpstreamRequest) else await sent

    @property
    def look(self) -> Look:
        """What this call has looked for so far."""
        call = self.call
        if call.look is None:
            call.look = Look(call.key)
        return call.look

    def _complete(self) -> None:
        """Go on if all that was looked for is there, or known not to be."""
        look = self.call.look
        if look is not None and look.missing:
            raise _NotAtHand

    def _translated(self, losses: list[Loss]) -> bytes:
        """The request in the family's own format."""
        request, memory = self.call.request, self.relay.memory
        signs = self.family.family.signs
        if memory is not None and (self.head.has_tools or signs):
            request = memory.restored(self.look, self.target.upstream.name, request, signs=signs)
            self._complete()
        return self.family.translate_request(request, self.target, losses)

    def _resume(self) -> None:
        """Put in what the request refers to by name. Raises BadParameter if that is not there."""
        dialect, head = self.dialect, self.head
        try:
            resumed = guarded(
                f"dialect {dialect.name}", "resumed", lambda: dialect.resumed(head, self._recall, native=self.native)
            )
        except RelayError:
            self._complete()
            raise
        if self.call.look is not None:
            self._complete()
        if resumed is not head:
            self.head = resumed
            self.call.refocus(resumed)

    def _recall(self, name: str) -> bytes | None:
        shelf = self.relay.shelf
        if shelf is None:
            return None
        # A client that refers to what its vendor keeps waits for nobody here.
        self.look.patient = not self.native
        return self.look.get(shelf, self.dialect.name, name)

    def _shelve(self, answer: bytes | StreamEncoder) -> None:
        """Keep a translated answer for the requests that will refer to it."""
        shelf, dialect = self.relay.shelf, self.dialect
        if shelf is None:
            return
        try:
            kept = guarded(f"dialect {dialect.name}", "kept", lambda: list(dialect.kept(self.head, answer)))
        except PluginError:
            # It is in the log, and costs what comes later and not the answer that is there.
            return
        for name, document in kept:
            shelf.put(self.call.key, dialect.name, name, document)

    def _reminded(self) -> Head:
        """What passes through, with the reasoning that its client dropped and its upstream wants back."""
        memory, upstream = self.relay.memory, self.target.upstream.name
        if memory is None:
            return self.head
        places = self._places()

        def recall(call: str, number: int) -> Sequence[Thinking]:
            named = places.get(call, ())
            known = memory.recall(self.look, upstream, named[number]) if number < len(named) else None
            return () if known is None else known.thoughts

        reminded = guarded(f"dialect {self.dialect.name}", "remind", lambda: self.dialect.remind(self.head, recall))
        self._complete()
        return reminded

    def _places(self) -> Mapping[str, Sequence[str]]:
        """Under which names is kept what belongs to each call of the conversation, by its id, in order."""
        places: dict[str, list[str]] = {}
        try:
            messages = self.call.request.messages
        except RelayError:
            # Its upstream may read what nobody here can.
            return places
        for index, message in enumerate(messages):
            for part in message.parts if message.role == "assistant" else ():
                if isinstance(part, ToolCall):
                    before = messages[index - 1] if index else None
                    places.setdefault(part.id, []).append(place_of(part, before))
        return places

    def _keep(self, response: Response) -> None:
        """Remember what the model thought before it called tools, and how it signed its words."""
        memory = self.relay.memory
        if memory is not None and self.keeps:
            try:
                messages = self.call.request.messages
            except RelayError:
                return
            memory.keep(self.call.key, self.target.upstream.name, response, messages[-1] if messages else None)

    @property
    def keeps(self) -> bool:
        """Whether what the model thinks and signs is kept for the next turn."""
        if self.native:
            return self.remembers
        return self.relay.memory is not None and (self.head.has_tools or self.family.family.signs)

    async def _ready(self, answer: Awaitable[UpstreamRequest]) -> UpstreamRequest:
        """What to send, once the plugin is ready to say."""
        wait = self.target.upstream.first_byte_timeout
        # In a task of its own: one that does not let itself be cancelled holds nobody up.
        work = asyncio.ensure_future(answer)
        try:
            done, _ = await asyncio.wait({work}, timeout=wait)
            if not done:
                raise UpstreamTimeout(f"the upstream was not ready within {wait:g} seconds")
            return work.result()
        except RelayError:
            raise
        except Exception as error:
            log.exception("plugin %s failed in endpoint", self.family.plugin)
            raise PluginError(self.family.plugin, f"failed in endpoint ({type(error).__name__})") from error
        finally:
            if not work.done():
                work.cancel()

    def refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """The error that an answer without success means, without our credential in its text."""
        if status < 400:
            return UpstreamProtocol(f"the upstream answered with status {status}; redirects are not followed")
        error = self.family.translate_error(self.target, status, headers, body)
        if error is None:
            error = error_for_status(status, f"the upstream answered with status {status}", headers)
        error.hide(self.target.upstream.api_key)
        return error

    def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Count a complete answer and send it on. Raises RelayError if it is none."""
        call = self.call
        response = told = None
        if self.native and not self.remembers and (call.check is None or self._calls_nothing(body)):
            # What the meter of a passed-through answer cannot tell, or fails at, the full reading is asked.
            try:
                usage = self.family.meter_response(self.target, headers, body, self.speaks)
            except PluginError:
                usage = None
            if usage is not None and usage.input is not None and usage.output is not None:
                told = call.count = Told(usage)
                if call.check is not None:
                    self._check([])
        if told is None:
            meter = call.count = Meter()
            response = self._read(status, headers, body)
            meter.complete = True
            if response is not None:
                meter.whole(response)
                self._check(meter.calls())
                self._keep(response)
                if not self.native:
                    call.losses += answer_losses(
                        unfold(response), self.dialect.name, self.dialect.capacity, remembered=self.keeps
                    )
        call.first_byte = self.relay.clock()
        self.relay.bill(call)
        self._describe()
        if self.native:
            self.outlet.answer(call.headers, content_type(headers), body, call.id)
            return
        if response is None:
            raise AssertionError("a translated answer was read")
        encoded = guarded(
            f"dialect {self.dialect.name}",
            "encode_response",
            lambda: self.dialect.encode_response(response, self.head),
        )
        if self.dialect.keeps:
            self._shelve(encoded)
        self.outlet.answer(call.headers, JSON, encoded, call.id)

    def _calls_nothing(self, body: bytes) -> bool:
        """Whether it can be seen at once that an answer calls no tool."""
        words = self.dialect.call_words
        # Nobody writes such words with escapes; if somebody does, it is read.
        return bool(words) and ESCAPED not in body and not any(word in body for word in words)

    def _read(self, status: int, headers: Mapping[str, str], body: bytes) -> Response | None:
        """The answer as a hub value. Where it passes through, a fault of the reader costs its numbers and no more."""
        try:
            return self.family.translate_response(self.target, status, headers, body, self.speaks)
        except PluginError:
            if not self.native:
                raise
            return None

    def _check(self, calls: list[ToolCall]) -> None:
        fault = self.call.judge(calls)
        if self.call.tools is not None:
            self.call.headers["x-relay-tool-arguments"] = self.call.tools
        if fault is not None and self.relay.strict_tools(self.call):
            raise bad_arguments(fault)

    def delivery(self, headers: Mapping[str, str]) -> Delivery:
        """What brings this stream to the client."""
        # An event stream was asked for. Some answer whole all the same: that is read and written as events.
        native = self.native and not headers.get("content-type", "").lower().startswith(JSON)
        counter: StreamMeter | None = None
        keeps = (self.remembers or not native) and self.keeps
        if native and not self.remembers:
            counter = self.family.meter_stream(self.target, headers, self.speaks)
            if self.call.check is not None and not _keeps_calls(counter):
                counter = None
        decoder = None if counter else self.family.translate_stream(self.target, headers, self.speaks)
        self._describe()
        delivery = self.call.delivery = Delivery(
            self.relay,
            self.call,
            self.outlet,
            self.filter if native else None,
            decoder,
            counter,
            native,
            self.family.plugin,
            self.target.upstream.api_key,
            self._keep if keeps else None,
            self._shelve if self.dialect.keeps and not self.native else None,
            self.most,
        )
        return delivery

    def _describe(self) -> None:
        """Headers that say where the answer comes from and what was lost on the way."""
        headers = self.call.headers
        if self.dialect.request_id_header:
            headers[self.dialect.request_id_header] = self.call.id
        headers["x-relay-upstream"], headers["x-relay-model"] = _named(self.target)
        if self.call.losses:
            headers["x-relay-dropped"] = dropped(self.call.losses)
