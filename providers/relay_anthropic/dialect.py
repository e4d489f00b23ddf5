"""The client dialect `anthropic-messages`: the Messages API as clients speak it."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import ClassVar

from relay import Dialect, Forward, Head, LimitView, Model, Route, Target
from relay.body import read_model, read_stream
from relay.errors import RelayError
from relay.events import StreamEncoder
from relay.ir import Capacity, LossKind, Request, Response, Tool
from relay.kit import WholeEvents, dumps, renamed
from relay.outline import Known, read_outline
from relay_anthropic.block import DIALECT
from relay_anthropic.caller import parse_request, parse_tool
from relay_anthropic.encoder import MessagesEncoder
from relay_anthropic.foreign import LABEL, without_labelled
from relay_anthropic.head import TEXTS, caller_headers, check_messages, estimate_input, has_definitions, read_limit
from relay_anthropic.listing import model_object, models_object
from relay_anthropic.losses import FOREIGN, FOREIGN_CITATIONS
from relay_anthropic.message import message_body
from relay_anthropic.shapes import CAPACITY, error_object

__all__ = ["AnthropicMessages"]

_LABELLED = b'"' + LABEL.encode()


@lru_cache(maxsize=256)
def _moment(second: int) -> str:
    """A time of day as these headers name it. Many calls name the same few."""
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%SZ}"


class AnthropicMessages(Dialect):
    """The Messages API.

    `now` (Unix seconds) is asked for the times in rate-limit headers, `new_id` where an upstream does not tell under
    which id it answered.
    """

    name: ClassVar[str] = DIALECT
    routes: ClassVar[tuple[Route, ...]] = (
        Route("POST", "/v1/messages"),
        Route("POST", "/messages"),
        Route("POST", "/v1/messages/count_tokens", "count_tokens"),
        Route("POST", "/messages/count_tokens", "count_tokens"),
    )
    keep_alive: ClassVar[bytes] = b'event: ping\ndata: {"type": "ping"}\n\n'
    tool_fields: ClassVar[tuple[str, ...]] = ("tools",)
    call_words: ClassVar[tuple[bytes, ...]] = (b"tool_use",)
    capacity: ClassVar[Capacity] = CAPACITY
    losses: ClassVar[Sequence[LossKind]] = (FOREIGN, FOREIGN_CITATIONS)
    bounds: ClassVar[frozenset[str]] = frozenset({"max_tokens", "stream"})
    request_id_header: ClassVar[str] = "request-id"

    def __init__(
        self,
        now: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: f"msg_{uuid.uuid4().hex}",
    ) -> None:
        self._now = now
        self._new_id = new_id
        self._known = Known()

    def peek(self, raw: bytes, operation: str, path: Mapping[str, str], headers: Mapping[str, str]) -> Head:
        """Read what the core needs. Of the headers only the API version and the beta features pass."""
        told = read_outline(raw, TEXTS, self._known)
        data = told.data
        model = read_model(data)
        check_messages(data)
        generates = operation == "generate"
        return Head(
            operation=operation,
            model=model,
            raw=raw,
            data=data,
            stream=generates and read_stream(data),
            max_output=read_limit(data) if generates else None,
            input_estimate=estimate_input(data, told.listed) + told.tokens,
            has_tools=has_definitions(data),
            headers=caller_headers(headers),
            outline=told,
            definitions=told.listed,
        )

    def parse(self, head: Head) -> Request:
        """The whole request as a hub value."""
        return parse_request(head.data)

    def forward(self, head: Head, target: Target) -> Forward:
        """The caller's bytes, but for the model's name.

        Only a conversation that another vendor's model took part in is written anew, without that model's reasoning
        and citations: the relay labelled them so that they are known again, and the vendor would refuse them.
        """
        stream_filter = WholeEvents() if head.stream else None
        if head.labelled(_LABELLED):
            data, lost = without_labelled(head.data)
            if data is not head.data:
                losses = [kind.at() for kind in lost]
                return Forward(dumps({**data, "model": target.model}), stream_filter, losses)
        return Forward(renamed(head, target.model), stream_filter)

    def tools(self, head: Head) -> Sequence[tuple[str, Tool]]:
        """The functions. Tools of the vendor's own types have no schema to check."""
        found: list[tuple[str, Tool]] = []
        for place, value in enumerate(head.fields.get("tools") or ()):
            tool = parse_tool(value, f"tools[{place}]")
            if isinstance(tool, Tool):
                found.append((f"tools[{place}].input_schema", tool))
        return found

    def encode_response(self, response: Response, head: Head) -> bytes:
        """A `message` object."""
        return message_body(response, model=head.model, new_id=self._new_id())

    def stream_encoder(self, head: Head) -> StreamEncoder:
        """An encoder from `message_start` to `message_stop`."""
        return MessagesEncoder(model=head.model, new_id=self._new_id())

    def tells_failure(self, name: str, data: bytes) -> bool:
        """Clients go by the event's name."""
        return name == "error"

    def encode_error(self, error: RelayError, request_id: str) -> bytes:
        """The error object with the request's id in it."""
        return dumps({"type": "error", "error": error_object(error), "request_id": request_id})

    def limit_headers(self, requests: LimitView | None, tokens: LimitView | None) -> dict[str, str]:
        """The usual headers, and those that this dialect's clients know, which name the time of day."""
        headers = super().limit_headers(requests, tokens)
        for kind, view in (("requests", requests), ("tokens", tokens)):
            if view is not None:
                headers[f"anthropic-ratelimit-{kind}-limit"] = str(view.limit)
                headers[f"anthropic-ratelimit-{kind}-remaining"] = str(view.remaining)
                headers[f"anthropic-ratelimit-{kind}-reset"] = _moment(math.ceil(self._now() + view.reset))
        return headers

    def limit_lines(self, requests: tuple[int, int, float] | None, tokens: tuple[int, int, float] | None) -> str:
        """The same as lines of a head."""
        if requests is None or tokens is None:
            return super().limit_lines(requests, tokens)
        # As nearly always, written out: this runs for every call.
        now = self._now()
        limit, remaining, reset = requests
        most, left, after = tokens
        return super().limit_lines(requests, tokens) + (
            f"anthropic-ratelimit-requests-limit: {limit}\r\nanthropic-ratelimit-requests-remaining: {remaining}\r\n"
            f"anthropic-ratelimit-requests-reset: {_moment(math.ceil(now + reset))}\r\n"
            f"anthropic-ratelimit-tokens-limit: {most}\r\nanthropic-ratelimit-tokens-remaining: {left}\r\n"
            f"anthropic-ratelimit-tokens-reset: {_moment(math.ceil(now + after))}\r\n"
        )

    def encode_count(self, tokens: int) -> bytes:
        """`{"input_tokens": ...}`."""
        return dumps({"input_tokens": tokens})

    def claims_models(self, headers: Mapping[str, str], query: Mapping[str, str]) -> bool:
        """Every client of this dialect names the API version."""
        return "anthropic-version" in headers

    def encode_models(self, models: Sequence[Model], query: Mapping[str, str]) -> bytes:
        """All models, or the page that `limit`, `after_id` and `before_id` ask for."""
        return dumps(models_object(models, query))

    def encode_model(self, model: Model) -> bytes:
        """One model."""
        return dumps(model_object(model))
