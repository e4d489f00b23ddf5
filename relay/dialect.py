"""The caller's side of the plugin contract: a wire format that clients speak."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from relay.body import check_bounds, read_object
from relay.errors import RelayError, Unsupported
from relay.events import StreamEncoder
from relay.family import Model, Target
from relay.ir import Capacity, EmbeddingRequest, EmbeddingResponse, Loss, LossKind, Request, Response, Thinking, Tool
from relay.limits import Level, View, duration
from relay.outline import Outline

__all__ = ["Dialect", "EmbeddingDialect", "Forward", "Head", "Route", "StreamFilter"]

REQUESTS, TOKENS = (
    tuple(f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining", "reset")) for kind in ("requests", "tokens")
)
"""Headers that tell how far a limit is used up."""


@dataclass(frozen=True, slots=True)
class Route:
    """A path that the dialect answers, and what for.

    `operation` is `generate`, `count_tokens`, `embeddings`, `models` (the list) or `model` (one of it; its name is the
    path's parameter `id`); for kept answers `kept`, `kept_input` and `drop`, with their `id` in the path.
    """

    method: str
    path: str
    operation: str = "generate"
    query: tuple[str, ...] = ()
    """Parameters of the query that `peek` finds beside those of the path; of several of one name the first."""


class Head:
    """What the core must know of a request before any translation, read by the dialect from the raw body."""

    __slots__ = (
        "_data",
        "choices",
        "definitions",
        "fields",
        "has_tools",
        "headers",
        "input_estimate",
        "max_output",
        "model",
        "operation",
        "outline",
        "raw",
        "stream",
        "stream_type",
    )

    def __init__(
        self,
        operation: str,
        model: str,
        raw: bytes,
        data: dict[str, Any],
        stream: bool = False,
        max_output: int | None = None,
        choices: int = 1,
        input_estimate: int = 0,
        has_tools: bool = False,
        headers: dict[str, str] | None = None,
        stream_type: str = "",
        outline: Outline | None = None,
        definitions: bytes | None = None,
    ) -> None:
        """`data` is the parsed body, or, if that is an outline's, what `relay.outline` has read of it."""
        self.operation = operation
        self.model = model
        self.raw = raw
        self.fields = data
        """The parsed body, from which long texts may be missing: for all fields but those that the dialect has named
        to `relay.outline`."""
        self._data = data if outline is None or outline.spot is None else None
        self.stream = stream
        self.max_output = max_output
        """Output tokens the caller allows per choice; None if it does not say."""
        self.choices = choices
        """Answers that the caller wants; 0 where nothing is generated."""
        self.input_estimate = input_estimate
        """Estimated tokens of the prompt, for the reservation that the real count later settles."""
        self.has_tools = has_tools
        self.headers = {} if headers is None else headers
        """Caller headers that the dialect lets through to an upstream of its own kind: an allow-list, never all."""
        self.stream_type = stream_type
        """The content type of this stream where it is not the dialect's usual one."""
        self.outline = outline
        """What was read of `raw`, if not all of it."""
        self.definitions = definitions
        """All that `Dialect.tools` reads, if that was written already: with the same bytes it says the same."""

    @property
    def data(self) -> dict[str, Any]:
        """The parsed body, all of it: read now, if nobody has asked for it before."""
        if self._data is None:
            self._data = self.fields = read_object(self.raw)
        return self._data

    def labelled(self, label: bytes) -> bool:
        """Whether a string of the body may begin with the only label that its outline looks for: `label`, quoted."""
        found = None if self.outline is None else self.outline.labelled
        return label in self.raw if found is None else found

    def check_bounds(self, names: Set[str]) -> None:
        """Refuse a body that says two things of what the call may cost, as `relay.body.check_bounds` does."""
        keyed = None if self.outline is None else self.outline.keyed
        raw, data = (self.raw, self.data) if keyed is None else keyed
        check_bounds(raw, data, names)

    def with_body(self, raw: bytes, data: dict[str, Any]) -> Head:
        """The same request with another body."""
        new = copy(self)
        new.raw, new.fields, new._data, new.outline, new.definitions = raw, data, data, None, None
        return new


class StreamFilter(Protocol):
    """Rewrites a passed-through stream where the relay itself changed what was asked for."""

    def feed(self, data: bytes, /) -> bytes:
        """What of `data`, and of bytes held back before, goes to the caller now."""
        ...

    def close(self) -> bytes:
        """What was still held back."""
        ...


@dataclass(slots=True)
class Forward:
    """A request passed through in its own dialect: the body to send, and a filter for the stream if one is needed."""

    body: bytes
    filter: StreamFilter | None = None
    losses: Sequence[Loss] = ()
    """What even the upstream's own dialect cannot carry there: parts of a conversation that others took part in."""


class Dialect(ABC):
    """A wire format. Instances are shared by all calls and hold no state of any of them; no method does I/O."""

    name: ClassVar[str]
    routes: ClassVar[tuple[Route, ...]]
    stream_type: ClassVar[str] = "text/event-stream"
    keep_alive: ClassVar[bytes] = b""
    """Bytes that clients of this dialect accept between two frames and ignore; empty if there are none.

    An encoder or a filter that is a `relay.events.KeepsAlive` is asked instead.
    """
    key_parameter: ClassVar[str] = ""
    """The parameter of the query in which clients of this dialect may send their key. It is never passed on."""
    capacity: ClassVar[Capacity] = Capacity()
    """What its answers have room for. Callers are told of the rest."""
    losses: ClassVar[Sequence[LossKind]] = ()
    """What even requests that pass through can lose: declared for the documentation, reported in `Forward.losses`."""
    keeps: ClassVar[bool] = False
    """Whether clients of this dialect may refer to earlier answers, which the relay keeps where no upstream does."""
    bounds: ClassVar[frozenset[str]] = frozenset()
    """The body's own fields that say how much a call may cost, in small letters: those that `peek` reads for it."""
    tool_fields: ClassVar[tuple[str, ...]] = ()
    """The fields of the body that `tools` reads. What it made of the same ones is remembered then; empty: never."""
    call_words: ClassVar[tuple[bytes, ...]] = ()
    """Words of which one is in every complete answer that calls a tool. One that has none of them is passed on without
    looking for calls in it; empty: each is looked at."""
    request_id_header: ClassVar[str] = ""
    """Where clients of this dialect look for the request's id, if not in `x-request-id`, which all answers have."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = vars(cls)
        mixed = cls.limit_headers is not Dialect.limit_headers and cls.limit_lines is Dialect.limit_lines
        if "limit_lines" not in own and ("limit_headers" in own or mixed):
            # Those that are written out in what it inherits from are not its own.
            cls.limit_lines = Dialect._limit_lines  # type: ignore[method-assign]

    @abstractmethod
    def peek(self, raw: bytes, operation: str, path: Mapping[str, str], headers: Mapping[str, str]) -> Head:
        """Read what the core needs. Raises BadParameter, naming the parameter, where it cannot be read."""

    @abstractmethod
    def parse(self, head: Head) -> Request:
        """The whole request as a hub value, every field checked. Raises BadParameter with the path of the fault."""

    @abstractmethod
    def forward(self, head: Head, target: Target) -> Forward:
        """The request for an upstream that speaks this dialect: the caller's bytes, but for the model's name."""

    @abstractmethod
    def tools(self, head: Head) -> Sequence[tuple[str, Tool]]:
        """The functions defined in the request, each with the path of its schema (`tools[0].function.parameters`)."""

    @abstractmethod
    def encode_response(self, response: Response, head: Head) -> bytes:
        """A complete answer."""

    @abstractmethod
    def stream_encoder(self, head: Head) -> StreamEncoder:
        """An encoder for one streamed answer."""

    @abstractmethod
    def encode_error(self, error: RelayError, request_id: str) -> bytes:
        """An error answer's body, as this dialect's clients expect it."""

    def tells_failure(self, name: str, data: bytes) -> bool:
        """Whether clients of this dialect take an event that passes through, in which an upstream tells of an error,
        for one. If not, the relay says it in its place."""
        return True

    def limit_headers(self, requests: View | None, tokens: View | None) -> dict[str, str]:
        """The tightest limits that apply to a call, as headers of its answer. None: there is no such limit."""
        headers: dict[str, str] = {}
        for names, view in ((REQUESTS, requests), (TOKENS, tokens)):
            if view is not None:
                limit, remaining, reset = view
                headers.update(zip(names, (str(limit), str(remaining), duration(reset)), strict=True))
        return headers

    def limit_lines(self, requests: Level | None, tokens: Level | None) -> str:
        """The same as lines of a head."""
        if requests is None or tokens is None:
            return self._limit_lines(requests, tokens)
        # As nearly always, written out: this runs for every call.
        limit, remaining, reset = requests
        most, left, after = tokens
        return (
            f"x-ratelimit-limit-requests: {limit}\r\nx-ratelimit-remaining-requests: {remaining}\r\n"
            f"x-ratelimit-reset-requests: {duration(reset)}\r\nx-ratelimit-limit-tokens: {most}\r\n"
            f"x-ratelimit-remaining-tokens: {left}\r\nx-ratelimit-reset-tokens: {duration(after)}\r\n"
        )

    def _limit_lines(self, requests: Level | None, tokens: Level | None) -> str:
        views = (None if level is None else View(*level) for level in (requests, tokens))
        return "".join([f"{name}: {value}\r\n" for name, value in self.limit_headers(*views).items()])

    def repeatable(self, head: Head) -> bool:
        """Whether the answer stands for itself: the request refers to nothing that is kept, nor will others to it.

        Asked only where answers may be given again.
        """
        return True

    # Asked only of dialects whose clients may refer to earlier answers (`keeps`).

    def resumed(self, head: Head, recall: Callable[[str], bytes | None], *, native: bool) -> Head:
        """The head with all that it refers to; the very same one if that is nothing.

        `recall` gives what `kept` once gave under a name. Where the upstream speaks this dialect (`native`), it may
        know what is not kept here. Raises BadParameter for what nobody can know.
        """
        return head

    def kept(self, head: Head, answer: bytes | StreamEncoder) -> Iterable[tuple[str, bytes]]:
        """What to keep of a complete answer, whole or streamed, by the names that clients will use."""
        return ()

    def show_kept(self, operation: str, name: str, document: bytes, query: Mapping[str, str]) -> bytes | None:
        """The answer to `kept`, `kept_input` or `drop`; None if the document is not of a kind that is shown."""
        return None

    def remind(self, head: Head, recall: Callable[[str, int], Sequence[Thinking]]) -> Head:
        """The head with the reasoning that its client dropped, for an upstream of this dialect that wants it back.

        `recall` tells what preceded a tool's call, as far as it is known, by the call's id, and how many calls with
        the same id stand before it in the conversation: some hosts only number their calls. The very same head if
        nothing is missing.
        """
        return head

    # Asked only of dialects that have such routes, or claim such requests.

    def encode_count(self, tokens: int) -> bytes:
        """The answer to a `count_tokens` request where no upstream of this dialect is there to give it."""
        raise Unsupported(f"the dialect {self.name} counts no tokens")

    def parse_embedding(self, head: Head) -> EmbeddingRequest:
        """A whole `embeddings` request as a hub value. Raises BadParameter as `parse`."""
        raise Unsupported(f"the dialect {self.name} asks for no embeddings")

    def encode_embedding(self, response: EmbeddingResponse, head: Head) -> bytes:
        """The answer to an `embeddings` request. Its usage is there, if need be estimated."""
        raise Unsupported(f"the dialect {self.name} asks for no embeddings")

    def claims_models(self, headers: Mapping[str, str], query: Mapping[str, str]) -> bool:
        """Whether this is a client of this dialect. All dialects share the path `/v1/models`."""
        return False

    def encode_models(self, models: Sequence[Model], query: Mapping[str, str]) -> bytes:
        """The model list, or the part that the query asks for. Raises BadParameter for a query it cannot read."""
        raise Unsupported(f"the dialect {self.name} lists no models")

    def encode_model(self, model: Model) -> bytes:
        """One model."""
        raise Unsupported(f"the dialect {self.name} lists no models")


class EmbeddingDialect(Dialect):
    """A wire format of embeddings and nothing else: all its routes have the operation `embeddings`."""

    @abstractmethod
    def parse_embedding(self, head: Head) -> EmbeddingRequest:
        """The whole request as a hub value. Raises BadParameter with the path of the fault."""

    @abstractmethod
    def encode_embedding(self, response: EmbeddingResponse, head: Head) -> bytes:
        """The answer. Its usage is there, if need be estimated."""

    def parse(self, head: Head) -> Request:
        """No request of this dialect is for a generation."""
        raise self._generates_nothing()

    def tools(self, head: Head) -> Sequence[tuple[str, Tool]]:
        """None."""
        return ()

    def encode_response(self, response: Response, head: Head) -> bytes:
        """No answer of this dialect is a generation."""
        raise self._generates_nothing()

    def stream_encoder(self, head: Head) -> StreamEncoder:
        """No answer of this dialect is a stream."""
        raise self._generates_nothing()

    def _generates_nothing(self) -> Unsupported:
        return Unsupported(f"the dialect {self.name} asks for embeddings only")
