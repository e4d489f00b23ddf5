"""The client dialect `openai-responses`: Responses as clients speak it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from relay import Dialect, Forward, Head, Route, Target
from relay.body import read_model, read_stream
from relay.errors import CallerError, NoSuchMethod, RelayError
from relay.events import Event, Logprobs, PartStart, PartStop, StreamEncoder
from relay.fields import header
from relay.fold import unfold
from relay.ir import Capacity, Request, Response, Text, Tool
from relay.kit import dumps, loads, renamed
from relay.outline import Known, read_outline
from relay_openai.encoder import error_body
from relay_openai.responses.answer import Envelope
from relay_openai.responses.body import TEXTS, check_input, estimate_input, max_output, read_tools
from relay_openai.responses.encoder import KEEP_ALIVE, ResponsesEncoder
from relay_openai.responses.items import CAPACITY
from relay_openai.responses.request import parse_request
from relay_openai.responses.skim import PassedStream
from relay_openai.responses.stored import alone, deleted, input_items, kept, refers, resumed, shown
from relay_openai.responses.toolbox import brings_tools, defined, kinds
from relay_openai.responses.wire import DIALECT

__all__ = ["OpenAIResponses"]

_SOCKET = "socket"
"""The operation of a GET, which is how clients ask whether they may talk over a WebSocket."""
_HEADERS = ("openai-beta",)
"""What callers may tell an upstream of their own dialect: which version of the format they speak."""


class OpenAIResponses(Dialect):
    """Responses.

    `now` (Unix seconds) and `new_id` are asked where an upstream tells neither when nor under which id it answered.
    """

    name: ClassVar[str] = DIALECT
    routes: ClassVar[tuple[Route, ...]] = (
        Route("POST", "/v1/responses"),
        Route("POST", "/responses"),
        Route("GET", "/v1/responses", _SOCKET),
        Route("GET", "/responses", _SOCKET),
        Route("GET", "/v1/responses/{id}", "kept"),
        Route("GET", "/v1/responses/{id}/input_items", "kept_input"),
        Route("DELETE", "/v1/responses/{id}", "drop"),
    )
    keeps: ClassVar[bool] = True
    call_words: ClassVar[tuple[bytes, ...]] = (b'_call"',)
    bounds: ClassVar[frozenset[str]] = frozenset({"max_output_tokens", "stream"})
    keep_alive: ClassVar[bytes] = KEEP_ALIVE
    capacity: ClassVar[Capacity] = CAPACITY

    def __init__(
        self,
        now: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: f"resp_{uuid.uuid4().hex}",
    ) -> None:
        self._now = now
        self._new_id = new_id
        self._known = Known()

    def peek(self, raw: bytes, operation: str, path: Mapping[str, str], headers: Mapping[str, str]) -> Head:
        """Read what the core needs. Raises a 426 for a WebSocket, after which clients go on over HTTP at once."""
        if operation == _SOCKET:
            if headers.get("Upgrade", "").lower() == "websocket":
                raise CallerError("this relay serves no WebSocket here; use POST", status=426, code="upgrade_required")
            raise NoSuchMethod("this path answers POST; answers are not kept, so there is no list of them")
        told = read_outline(raw, TEXTS, self._known)
        data = told.data
        model = read_model(data)
        check_input(data)
        tools = read_tools(data)
        return Head(
            operation=operation,
            model=model,
            raw=raw,
            data=data,
            stream=read_stream(data),
            max_output=max_output(data),
            input_estimate=estimate_input(data, told.listed) + told.tokens,
            has_tools=bool(tools),
            headers={name: header(headers[name], name) for name in _HEADERS if name in headers},
            outline=told,
            definitions=None if brings_tools(data) else told.listed,
        )

    def parse(self, head: Head) -> Request:
        """The whole request as a hub value."""
        return parse_request(head.data)

    def forward(self, head: Head, target: Target) -> Forward:
        """The caller's bytes, but for the model's name."""
        return Forward(renamed(head, target.model), PassedStream(lambda: self._envelope(head)) if head.stream else None)

    def repeatable(self, head: Head) -> bool:
        """Only with `store` false: others can be referred to by their ids, by whoever got them."""
        return alone(head.fields)

    def resumed(self, head: Head, recall: Callable[[str], bytes | None], *, native: bool) -> Head:
        """`previous_response_id` and references to items, replaced by what they name."""
        if not refers(head.fields):
            return head
        data = resumed(head.data, recall, native=native)
        return head if data is head.data else head.with_body(dumps(data), data)

    def kept(self, head: Head, answer: bytes | StreamEncoder) -> Iterable[tuple[str, bytes]]:
        """The answer with its conversation, and its items, unless `store` is false."""
        if head.fields.get("store") is False:
            return ()
        final = loads(answer) if isinstance(answer, bytes) else getattr(answer, "final", None)
        return kept(head.data, final) if isinstance(final, dict) else ()

    def show_kept(self, operation: str, name: str, document: bytes, query: Mapping[str, str]) -> bytes | None:
        """A kept answer, a page of its input, or that it is gone."""
        response = shown(document)
        if response is None:
            return None
        show: Mapping[str, Callable[[], Any]] = {
            "kept": lambda: response,
            "kept_input": lambda: input_items(name, document, query),
            "drop": lambda: deleted(name),
        }
        return dumps(show[operation]())

    def tools(self, head: Head) -> Sequence[tuple[str, Tool]]:
        """The functions, and what becomes one for models (`toolbox`)."""
        # In definitions that stand among texts, what is no text may be missing.
        data = head.data if brings_tools(head.fields) else head.fields
        return [(path, tool) for path, tool in defined(data) if isinstance(tool, Tool)]

    def encode_response(self, response: Response, head: Head) -> bytes:
        """A `response` object: what the stream of the same answer would end with."""
        encoder = self.stream_encoder(head)
        encoder.encode(_weighed(unfold(response)))
        return dumps(encoder.final)

    def stream_encoder(self, head: Head) -> ResponsesEncoder:
        """An encoder of the stream's events."""
        return ResponsesEncoder(self._envelope(head), kinds(head.data), self._now)

    def encode_error(self, error: RelayError, request_id: str) -> bytes:
        """The error object; the request's id travels in a header."""
        return dumps(error_body(error))

    def _envelope(self, head: Head) -> Envelope:
        return Envelope(head.data, model=head.model, created=int(self._now()), new_id=self._new_id())


def _weighed(events: list[Event]) -> list[Event]:
    """`events` with log-probabilities moved to the last text: this format has them there, and not behind all parts."""
    found = [event for event in events if isinstance(event, Logprobs) and not event.choice]
    starts = [event for event in events if isinstance(event, PartStart) and not event.choice]
    texts = {event.index for event in starts if isinstance(event.part, Text)}
    if not found or not texts:
        return events
    rest = [event for event in events if event not in found]
    place = rest.index(PartStop(max(texts)))
    return [*rest[:place], *found, *rest[place:]]
