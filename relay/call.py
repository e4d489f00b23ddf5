"""One client request in flight: everything that is known of it, from its key to its usage row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from relay.budget import Hold
from relay.dialect import Dialect, Head
from relay.dispatch import Course
from relay.errors import CallerError, RelayError, UpstreamError, UpstreamProtocol, UpstreamRefused
from relay.family import Target
from relay.ir import Loss, Request, StopKind, ToolCall, Usage
from relay.life import Stopping
from relay.limits import Reservation
from relay.meter import Count
from relay.pricing import Price
from relay.routing import PublicModel
from relay.schemas import ArgumentCheck
from relay.store.keys import Key
from relay.store.usage import Outcome, UsageSource

if TYPE_CHECKING:
    from relay.shelf import Look
    from relay.stream import Delivery

__all__ = ["Call", "bad_arguments"]


class Call:
    """A request that passed authentication. It leaves exactly one usage row, however it ends."""

    __slots__ = (
        "_request",
        "abandoned",
        "asked",
        "at",
        "attempts",
        "awaited",
        "billed",
        "check",
        "cost",
        "count",
        "course",
        "delivery",
        "dialect",
        "error_code",
        "first_byte",
        "head",
        "headers",
        "hold",
        "id",
        "key",
        "look",
        "losses",
        "model",
        "operation",
        "outcome",
        "place",
        "price",
        "reservation",
        "started",
        "status",
        "stops",
        "target",
        "tools",
        "usage",
        "usage_source",
        "waits",
        "wishes",
    )

    def __init__(self, id: str, key: Key, operation: str, started: float, at: int) -> None:
        self.id = id
        self.key = key
        self.operation = operation
        self.started = started
        """Monotonic seconds."""
        self.at = at
        """Unix milliseconds."""
        self.headers: dict[str, str] = {}
        """Headers of ours for the answer, whatever becomes of it."""
        self.losses: list[Loss] = []
        self.hold: Hold | None = None
        """What is set aside of the key's budget; None if it has none."""
        self.check: ArgumentCheck | None = None
        self.abandoned = False
        """Whether it goes on although its client has gone."""
        self.billed = False
        self.outcome: Outcome = "ok"
        self.status = 200
        self.error_code: str | None = None
        self.tools: Literal["valid", "invalid"] | None = None
        """`valid` or `invalid` once the model's tool calls were checked."""
        self.dialect: Dialect | None = None
        self.head: Head | None = None
        self.model: PublicModel | None = None
        self.target: Target | None = None
        self.reservation: Reservation | None = None
        self.place = -1
        """Where the journal of calls in flight has it; -1: it has not."""
        self.count: Count | None = None
        """What was seen of the answer; None before there is one."""
        self.delivery: Delivery | None = None
        """What brings the stream to the client, once there is one."""
        self.waits = False
        """Whether it takes the usual way, on which a policy may make it wait."""
        self.wishes = ""
        """What its client's `Cache-Control` says; read only where a policy may want to know."""
        self.awaited = False
        """Whether somebody else waits for the same answer."""
        self.stops: dict[int, StopKind | None] | None = None
        """Why each choice of the answer stopped; None where nobody looks."""
        self.attempts = 0
        self.course: Course | None = None
        """Its way through the model's targets; None as long as there is but one step."""
        self.asked: float | None = None
        """Monotonic seconds when the target was asked; None: at once."""
        self.first_byte: float | None = None
        """Monotonic seconds when the first output went to the client."""
        self.usage: Usage | None = None
        self.usage_source: UsageSource = "none"
        self.price: Price | None = None
        self.cost: int | None = None
        self.look: Look | None = None
        """What it has looked for among what is kept for its key; None as long as that is nothing."""
        self._request: Request | None = None

    @property
    def request(self) -> Request:
        """The whole request as a hub value, parsed when first asked for: calls that pass through never are."""
        if self._request is None:
            if self.dialect is None or self.head is None:
                raise AssertionError("a call is parsed only after its head was read")
            self._request = self.dialect.parse(self.head)
        return self._request

    def refocus(self, head: Head) -> None:
        """The same request, with what it refers to put in."""
        self.head = head
        self._request = None

    def judge(self, calls: list[ToolCall]) -> str | None:
        """Check the model's tool calls, if anybody wants that, and keep the verdict. Returns the first fault."""
        if self.check is None:
            return None
        fault = self.check.first_fault(calls)
        self.tools = "valid" if fault is None else "invalid"
        return fault

    def failed(self, error: RelayError) -> None:
        """The call ends with an error answer, or with an error inside a stream that had begun and not ended."""
        if self.told():
            return
        self.status = error.status
        self.error_code = error.code
        if isinstance(error, Stopping):
            self.outcome = "shutdown"
        elif isinstance(error, UpstreamRefused):
            self.outcome = "upstream_error"
        elif isinstance(error, UpstreamError):
            self.outcome = error.outcome
        elif isinstance(error, CallerError):
            self.outcome = "rejected"
        else:
            self.outcome = "upstream_error" if self.attempts else "rejected"

    def drains(self) -> bool:
        """Whether its answer is read to the end even if the client goes.

        If nobody else waits for it: as the key says, or else the upstream.
        """
        target = self.target
        if self.attempts == 0 or target is None or self.told():
            return False
        return self.awaited or (self.key.abort or target.upstream.abort) == "drain"

    def told(self) -> bool:
        """Whether its stream was written to its end, good or bad: only the upstream's connection is left then."""
        return self.delivery is not None and self.delivery.ended

    def left(self) -> None:
        """The client hung up, unless it has all of its answer. 499 is what logs call that; no client ever sees it."""
        if self.told() and not self.abandoned:
            return
        self.outcome = "client_abort"
        self.status = 499


def bad_arguments(fault: str) -> RelayError:
    """The error of strict mode: the model's tool call does not fit the tool."""
    error = UpstreamProtocol(fault, code="invalid_tool_arguments")
    # Whoever asks decides how well a model can do that.
    error.blames = False
    return error
