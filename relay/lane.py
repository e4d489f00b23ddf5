"""The lane: how a call that has to wait for nothing but its upstream goes through without a coroutine.

Nearly every call is like that: its body came with its head, its key is in memory, a connection to its upstream is open.
Such a call takes the same steps in the same order as in `relay.views.calls` and `relay.pipeline`, one function calling
the next, in the very turn of the event loop in which its bytes arrived; the answer's bytes are taken in the same way.
Whatever is otherwise (an unknown key, a bad body, a limit reached) is left to the usual way, which starts from the
beginning and says what is wrong; only a call that was sent already goes on from where it is, in a task of its own.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from aiohttp import HttpVersion11
from aiohttp.http import RawRequestMessage
from multidict import istr

from relay.attempt import MAX_ERROR, Attempt
from relay.body import deep
from relay.call import Call
from relay.dispatch import Course
from relay.envelope import new_request_id
from relay.errors import InternalError, NoKey, RelayError, UpstreamError, UpstreamProtocol
from relay.exchange import Exchange
from relay.family import UpstreamRequest
from relay.heads import KnownHead
from relay.http1 import Http1Transport
from relay.life import Stopping
from relay.middleware import error_headers
from relay.outlet import Outlet
from relay.routes import Routes
from relay.routing import PublicModel
from relay.store.keys import digest
from relay.stream import DRAIN_SECONDS, Delivery
from relay.views.auth import token_of

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["Lane", "Passage", "Side"]

HOST = istr("Host")
UNUSUAL = tuple(istr(name) for name in ("Content-Encoding", "Expect", "Idempotency-Key", "Origin", "Transfer-Encoding"))
"""Headers of requests that the lane does not take."""

log = logging.getLogger("relay.lane")


class Side(Protocol):
    """The client's connection, as the lane needs it."""

    def outlet(self, head: KnownHead) -> Outlet:
        """Where the answer to this request goes."""
        ...

    def passed(self, outlet: Outlet) -> None:
        """The call is over."""
        ...


class Lane:
    """What all calls in it share."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.routes = Routes(relay.plugins.dialects.values())
        self.open = usable = isinstance(relay.transport, Http1Transport)
        """The other transport has no way without coroutines. Nor is anybody let in while the process is full."""

        def changed(full: bool) -> None:
            self.open = usable and not full

        relay.crowd.changed.append(changed)

    def head(self, message: RawRequestMessage) -> KnownHead | None:
        """The head of a request for the lane; None if it is for the usual way."""
        headers, origins = message.headers, self.relay.origins
        route = self.routes.find(message.path)
        if (
            route is None
            or not self.open
            or message.method != "POST"
            or message.upgrade
            or any(name in headers for name in UNUSUAL)
            or not origins.answers_to(headers.get(HOST))
        ):
            return None
        try:
            mark = digest(token_of(headers))
        except NoKey:
            return None
        chunked, keep_alive = message.version >= HttpVersion11, not message.should_close
        dialect, place = route
        return KnownHead(dialect, place, headers, mark, origins, chunked=chunked, keep_alive=keep_alive)

    def enter(self, side: Side, head: KnownHead, raw: bytes) -> Passage | None:
        """Take a request that has its body; None, and nothing has happened, if that is for the usual way."""
        relay = self.relay
        key = relay.store.ring.known(head.mark)
        if key is None or head.origins is not relay.origins:
            return None
        dialect = head.dialect
        at = int(relay.wall() * 1000)
        call = Call(new_request_id(at), key, "generate", relay.clock(), at)
        call.dialect = dialect
        try:
            call.head = dialect.peek(raw, "generate", head.place, head.headers)
            model = relay.pipeline.admit(call)
            target = relay.dispatch.first(model, call.head.stream)
            if target is None or target.upstream.apart:
                return None
            relay.pipeline.reserve(call, model)
        except Exception:
            # Nothing was taken yet. The usual way finds the same, and says it.
            return None
        call.target = target
        outlet = side.outlet(head)
        if call.reservation is not None:
            outlet.lines = dialect.limit_lines(*call.reservation.levels())
        return Passage(relay, side, call, model, outlet)


class Passage:
    """One call in the lane, from its reservation to its usage row. Listens to its upstream's exchange."""

    __slots__ = (
        "attempt",
        "call",
        "delivery",
        "exchange",
        "limit",
        "model",
        "outlet",
        "over",
        "relay",
        "side",
        "stopped",
        "task",
    )

    def __init__(self, relay: Relay, side: Side, call: Call, model: PublicModel, outlet: Outlet) -> None:
        self.relay = relay
        self.side = side
        self.call = call
        self.model = model
        self.outlet = outlet
        self.attempt: Attempt | None = None
        self.exchange: Exchange | None = None
        self.delivery: Delivery | None = None
        self.task: asyncio.Task[None] | None = None
        self.over = False
        self.stopped: RelayError | None = None
        self.limit: asyncio.TimerHandle | None = None
        """Until when a call without a client goes on."""

    def begin(self) -> None:
        """Ask the first target."""
        call = self.call
        target = call.target
        if target is None:
            raise AssertionError("the lane has chosen a target")
        call.attempts = 1
        try:
            attempt = self.attempt = Attempt(self.relay, call, target, self.outlet)
            sent = attempt.prepare()
            transport = self.relay.transport
            if isinstance(sent, UpstreamRequest) and isinstance(transport, Http1Transport):
                exchange = transport.send(sent, target.upstream)
                stream = attempt.head.stream
                most = MAX_ERROR if stream else attempt.most
                if exchange.start(self, most, self.relay.dispatch.settings.deadline_seconds, whole=not stream):
                    self.exchange = exchange
                    return
        except Exception as error:
            self._failed(error)
            return
        attempt.sent = sent
        self._go_on(self._course(), attempt)

    # What the exchange tells

    def changed(self) -> None:
        """The head is there, or the end, or a failure."""
        if self.over or self.exchange is None:
            return
        try:
            if self.delivery is None:
                self._head(self.exchange)
            else:
                self._stream(self.exchange, self.delivery)
        except Exception as error:
            self._failed(error)

    def _head(self, exchange: Exchange) -> None:
        attempt = self.attempt
        if attempt is None:
            raise AssertionError("an exchange is begun by an attempt")
        if exchange.error is not None and not (exchange.status >= 400):
            raise exchange.error
        if not 200 <= exchange.status < 300:
            if exchange.ended or exchange.error is not None or exchange.overfull:
                raise attempt.refusal(exchange.status, exchange.headers, exchange.body[:MAX_ERROR])
        elif attempt.head.stream:
            delivery = self.delivery = attempt.delivery(exchange.headers)
            exchange.push(delivery)
            if not self.over:
                self._stream(exchange, delivery)
        elif exchange.ended:
            attempt.whole(exchange.status, exchange.headers, exchange.body)
            self._done()
        elif exchange.overfull:
            raise UpstreamProtocol(f"the upstream's answer is longer than {attempt.most} bytes")

    def _stream(self, exchange: Exchange, delivery: Delivery) -> None:
        if exchange.raised is not None:
            raise exchange.raised
        if exchange.error is not None and not exchange.stopped:
            raise exchange.error
        if exchange.stopped or exchange.ended:
            delivery.finish()
            self._done()

    def overdue(self) -> None:
        """The call's time is up. A stream that has begun may take as long as it likes."""
        if not self.over and (self.delivery is None or not self.delivery.opened):
            self._failed(self.relay.dispatch.late())

    # The client

    def resume(self) -> None:
        """The client has read on."""
        if self.exchange is not None:
            self.exchange.resume()

    def left(self) -> None:
        """The client has gone."""
        if not self.over and self.call.drains():
            self._abandon()
        elif self.task is not None:
            self.task.cancel()
        elif not self.over:
            self.call.left()
            self._end()

    def _abandon(self) -> None:
        """Go on without a client, to know what the answer costs."""
        relay = self.relay
        self.call.abandoned = True
        self.outlet.leave()
        relay.abandoned.add(self)
        seconds = relay.settings.server.abandoned_seconds
        self.limit = asyncio.get_running_loop().call_later(seconds, self.stop, Stopping())
        self.resume()

    # The ends

    def stop(self, error: RelayError) -> None:
        """End it now, with this error."""
        if self.task is not None:
            self.stopped = error
            self.task.cancel()
        else:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        """What a step raised. A task has a way of its own with it."""
        if self.over:
            return
        opened = self.delivery is not None and self.delivery.opened
        if not opened and isinstance(error, UpstreamError) and self._elsewhere(error):
            return
        try:
            self._tell(error)
        except Exception:
            # A dialect that cannot even say what went wrong. Its client must not wait for that.
            log.exception("request %s failed, and its error cannot be told", self.call.id)
            self.outlet.cut()
        self._end()

    def _tell(self, error: BaseException) -> None:
        """Say to the client what went wrong."""
        call, delivery = self.call, self.delivery
        if isinstance(error, ConnectionError):
            call.left()
            self.outlet.cut()
        elif delivery is not None and delivery.opened and isinstance(error, RelayError):
            delivery.fail(error)
        else:
            self._refuse(self._told(error))

    def _told(self, error: BaseException) -> RelayError:
        """What the client is told of an error before it has anything of an answer."""
        call = self.call
        if call.head is not None and call.count is None and (refusal := deep(call.head.raw, error)) is not None:
            return refusal
        if isinstance(error, RelayError):
            return error
        log.error("request %s failed", call.id, exc_info=error)
        return InternalError(f"internal error; the log has it under {call.id}")

    def _refuse(self, error: RelayError) -> None:
        """Answer with an error; in a stream that had begun, end it."""
        call, dialect = self.call, self.call.dialect
        call.failed(error)
        if dialect is None:
            raise AssertionError("the head was read")
        try:
            if call.delivery is not None and call.delivery.opened:
                call.delivery.fail(error)
                return
            if dialect.request_id_header:
                call.headers[dialect.request_id_header] = call.id
            body = dialect.encode_error(error, call.id)
            headers = {**call.headers, **error_headers(error)}
            self.outlet.answer(headers, "application/json", body, call.id, status=error.status)
        except ConnectionError:
            call.left()

    def _elsewhere(self, error: UpstreamError) -> bool:
        """Whether the call goes on after its first target has failed."""
        course = self._course()
        try:
            self.relay.pipeline.failed(self.call, course, error)
        except UpstreamError:
            course.close()
            return False
        self._go_on(course)
        return True

    def _course(self) -> Course:
        """The way on from the first target."""
        call = self.call
        stream = call.head is not None and call.head.stream
        return self.relay.dispatch.course(self.model, stream, call.started, call.target)

    def _go_on(self, course: Course, attempt: Attempt | None = None) -> None:
        """Go on in a task: there is something to wait for."""
        self._let_go()
        self.call.course = course
        self.task = asyncio.get_running_loop().create_task(self._usual(course, attempt))
        # A task that is cancelled before its first turn runs nothing of its own.
        self.task.add_done_callback(self._settled)

    def _settled(self, task: asyncio.Task[None]) -> None:
        if not self.over:
            if self.call.course is not None:
                self.call.course.close()
            self._cancelled()
            self._end()

    def _cancelled(self) -> None:
        if self.stopped is None:
            self.call.left()
        else:
            self._refuse(self.stopped)

    async def _usual(self, course: Course, attempt: Attempt | None) -> None:
        call = self.call
        try:
            await self.relay.pipeline.tries(call, self.outlet, course, attempt)
        except asyncio.CancelledError:
            self._cancelled()
        except ConnectionError:
            call.left()
        except Exception as error:
            self._refuse(self._told(error))
        finally:
            self._end()

    def _done(self) -> None:
        """The client has all of its answer."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.leave_in(DRAIN_SECONDS)
        self._end()

    def _let_go(self) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.leave()
        if self.delivery is not None:
            self.delivery.close()
            self.delivery = None

    def _end(self) -> None:
        if self.over:
            return
        self.over = True
        self._let_go()
        if self.limit is not None:
            self.limit.cancel()
            self.relay.abandoned.discard(self)
        self.relay.finish(self.call)
        self.side.passed(self.outlet)
