"""The upstream side of the plugin contract: families, hosts, upstreams, targets, and what is sent to them."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from relay.ir import LossKind
from relay.secret import Secret

__all__ = [
    "Answer",
    "CAPABILITIES",
    "Family",
    "Host",
    "Model",
    "ModelListing",
    "PushingAnswer",
    "Sink",
    "Target",
    "TargetOrder",
    "Transport",
    "Upstream",
    "UpstreamRequest",
    "is_loopback",
]

CAPABILITIES: tuple[str, ...] = (
    "chat",
    "completion",
    "streaming",
    "function_calling",
    "vision",
    "audio",
    "structured_output",
    "reasoning",
    "embeddings",
)
"""The capability names of `/v1/models`, in the order in which they are shown."""


@dataclass(frozen=True, slots=True, eq=False)
class Host:
    """One known place where a family is served: a row of data, so that adding a compatible vendor needs no code.

    An upstream whose name is a host's takes its settings from there. Without a configuration the relay uses every host
    whose key it finds in the environment (`env`) or whose `probe` answers.
    """

    name: str
    base_url: str
    env: tuple[str, ...] = ()
    """Environment variables that may hold the key; the first one set wins."""
    base_url_env: tuple[str, ...] = ()
    """Environment variables that may move `base_url`."""
    probe: str = ""
    """For servers on this machine: a URL that answers 200 with a JSON body if the server is there."""
    probe_key: str = ""
    """A top-level key that the probe's JSON must hold: several servers share the usual ports."""
    fallback: int = 0
    """Above 0: used only if nothing else was found, lowest number first."""
    models: tuple[str, ...] = ()
    """`fnmatch` patterns of model names that this host serves, for when its model list cannot be had."""
    dialects: frozenset[str] | None = None
    """Dialects this host speaks, if not all those of its family."""
    capabilities: Mapping[str, bool] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    """Quirks that the family's plugin understands."""


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """One kind of upstream. `dialects` are those it speaks natively: calls in them pass through untouched."""

    name: str
    dialects: frozenset[str] = frozenset()
    usual_dialects: frozenset[str] | None = None
    """Those that an upstream speaks of which nothing else is said; None: all of them."""
    hosts: Sequence[Host] = ()
    capabilities: Mapping[str, bool] = field(default_factory=dict)
    """What its models can do unless told otherwise, by the names in `CAPABILITIES`."""
    losses: Sequence[LossKind] = ()
    """What its requests cannot carry: declared for the documentation, reported by `translate_request`."""
    options: frozenset[str] = frozenset()
    """Settings that an `[upstreams.NAME.options]` table may hold for this family."""
    addressed: bool = True
    """False for families whose upstreams have no URL that anybody could configure."""
    transport: Transport | None = None
    """For families that are not reached over HTTP: how a request gets its answer."""
    signs: bool = False
    """True for families whose models sign what they say, and should find these marks when it comes back to them."""
    alone: bool = False
    """True for families that run something of their own beside the relay: several workers would each start one."""


RETRIED: frozenset[int] = frozenset({408, 429, 500, 502, 503, 504, 529})
"""Statuses with which upstreams refuse a request that they might take a moment later."""


@dataclass(frozen=True, slots=True, eq=False)
class Upstream:
    """One configured endpoint: a family, an address, a credential."""

    name: str
    family: str
    base_url: str
    api_key: Secret | None = None
    dialects: frozenset[str] = frozenset()
    headers: Mapping[str, str] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    """`fnmatch` patterns of names it serves without having listed them."""
    capabilities: Mapping[str, bool] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    host: str = ""
    """The known host that this upstream is, if any: prices are looked up by it."""
    connect_timeout: float = 10.0
    """Seconds for the connection to be made."""
    first_byte_timeout: float = 300.0
    """Seconds from sending until the first byte of the answer's body."""
    idle_timeout: float = 120.0
    """Seconds between two pieces of an answer."""
    allow_private: bool = False
    """Whether its name may lead to an address of a private network."""
    abort: Literal["cancel", "drain"] = "cancel"
    """What becomes of its answer once the client has gone: given up, or read to its end for the sake of its counts."""
    retried: frozenset[int] = RETRIED
    """Statuses after which it is asked again."""
    resend: bool = False
    """Whether a request may be sent again after the connection was closed without an answer: it may then run twice."""
    concurrency: int = 0
    """Calls that it gets at a time; 0: no limit."""
    queue: int = 0
    """Calls that may wait for a place there."""
    queue_seconds: float = 30.0
    """How long they wait at most."""
    apart: bool = False
    """Whether a call to it may have to wait for more than its answer: for a place, or for a way of its family's own."""
    pool: tuple[Upstream, ...] = ()
    """The same endpoint with each of its other keys."""
    key_number: int = 0
    """Which of several keys this has, from 1; 0: it has no others."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where one attempt goes: an upstream, and the model's name there."""

    upstream: Upstream
    model: str
    lasting: dict[tuple[str, str, bool], UpstreamRequest] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """What is sent there, but for the body, by dialect, operation and `stream`, where its family says that it lasts."""

    def __str__(self) -> str:
        return f"{self.upstream.name}/{self.model}"

    def variants(self) -> tuple[Target, ...]:
        """The same target with each of its upstream's keys."""
        pool = self.upstream.pool
        return (self, *(Target(upstream, self.model) for upstream in pool)) if pool else (self,)


@dataclass(slots=True)
class UpstreamRequest:
    """What is put on the wire: a complete URL (sent as it is, never re-encoded), headers, and the body's bytes."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """A family that sends the same ones with each request does best to give the same `MappingProxyType` each time."""
    body: bytes = b""
    method: str = "POST"
    lasting: bool = False
    """Whether all but the body is the same for every call of this target with this operation, dialect and `stream`,
    without headers of the caller's: then the hook need not be asked again. Credentials that expire do not last."""


class Sink(Protocol):
    """Where an answer's body can be pushed to."""

    def take(self, piece: bytes, /) -> bool:
        """The next piece. False: enough, the rest is not wanted."""
        ...

    def full(self) -> bool:
        """Whether more should wait until `drain` returns."""
        ...

    async def drain(self) -> None:
        """Wait until more can be taken. Raises ConnectionError if nothing can be any more."""
        ...


class Answer(Protocol):
    """An upstream's answer: status and headers are there, the body is still to come."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case; of several of one name the last."""

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises UpstreamProtocol if it is longer than `limit` bytes or breaks off."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces as they arrive. Asked for once.

        Raises UpstreamProtocol or UpstreamTimeout if it breaks off or stalls.
        """
        ...


@runtime_checkable
class PushingAnswer(Answer, Protocol):
    """An answer that can push its pieces, which is cheaper than having each one waited for."""

    async def pump(self, sink: Sink) -> None:
        """Give every piece to `sink` as it arrives, until the body ends or the sink has enough."""
        ...


class Transport(Protocol):
    """How a request reaches an upstream."""

    def send(self, request: UpstreamRequest, upstream: Upstream) -> AbstractAsyncContextManager[Answer]:
        """Send and wait for the head of the answer; leaving the context drops what was not read.

        Raises UpstreamUnreachable if nothing can have been sent, UpstreamTimeout or UpstreamProtocol otherwise.
        """
        ...


class TargetOrder(Protocol):
    """A policy: in which order the targets of a model are tried. Both methods are called for every call: be quick."""

    def order(self, model: str, targets: Sequence[Target], stream: bool, now: float) -> Sequence[Target]:
        """`targets` as they should be tried, or fewer of them; never others. `now` is in monotonic seconds.

        They come in the order in which they would be tried otherwise. What cools down is left out later.
        """
        ...

    def seen(self, target: Target, stream: bool, seconds: float, now: float) -> None:
        """A target has answered: `seconds` to the first output of a stream, or to the whole of another answer."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A model as an upstream lists it. None means that the upstream does not say."""

    id: str
    created: int | None = None
    owned_by: str | None = None
    context_length: int | None = None
    capabilities: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelListing:
    """How to ask an upstream for its models: the request, and what makes models of the answer's body."""

    request: UpstreamRequest
    parse: Callable[[bytes], Sequence[Model]]
    more: Sequence[ModelListing] = ()
    """Further lists, for upstreams that keep their models in several: all of them count."""


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
