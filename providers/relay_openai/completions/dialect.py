"""The client dialect `openai-completions`: the legacy Completions API as clients speak it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from relay import Dialect, Forward, Head, Route, Target
from relay.body import read_body, read_model, read_stream
from relay.errors import RelayError
from relay.events import StreamEncoder
from relay.ir import Capacity, Request, Response, Tool
from relay.kit import dumps, splice_model
from relay_openai.completions.encoder import CompletionsEncoder, encode_response
from relay_openai.completions.request import estimate_prompts, max_output, parse_request, read_choices, read_prompts
from relay_openai.completions.wire import CAPACITY, DIALECT
from relay_openai.encoder import error_body
from relay_openai.fault import tells_error
from relay_openai.metering import asks_for_usage, metered

__all__ = ["OpenAICompletions"]


class OpenAICompletions(Dialect):
    """Completions.

    `now` (Unix seconds) and `new_id` are asked where an upstream tells neither when nor under which id it answered.
    """

    name: ClassVar[str] = DIALECT
    routes: ClassVar[tuple[Route, ...]] = (Route("POST", "/v1/completions"), Route("POST", "/completions"))
    bounds: ClassVar[frozenset[str]] = frozenset({"max_tokens", "n", "best_of", "stream"})
    keep_alive: ClassVar[bytes] = b": keep-alive\n\n"
    capacity: ClassVar[Capacity] = CAPACITY

    def __init__(
        self,
        now: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: f"cmpl-{uuid.uuid4().hex}",
    ) -> None:
        self._now = now
        self._new_id = new_id

    def peek(self, raw: bytes, operation: str, path: Mapping[str, str], headers: Mapping[str, str]) -> Head:
        """Read what the core needs. No header passes: those of this format name the caller's own account."""
        data = read_body(raw)
        model = read_model(data)
        prompts = read_prompts(data)
        return Head(
            operation=operation,
            model=model,
            raw=raw,
            data=data,
            stream=read_stream(data),
            max_output=max_output(data),
            choices=read_choices(data, len(prompts)),
            input_estimate=estimate_prompts(prompts),
        )

    def parse(self, head: Head) -> Request:
        """The whole request as a conversation of one turn."""
        return parse_request(head.data)

    def forward(self, head: Head, target: Target) -> Forward:
        """The caller's bytes, but for the model's name and the wish to count tokens."""
        body = splice_model(head.raw, head.data, target.model)
        return metered(body, head, target) if head.stream else Forward(body)

    def tools(self, head: Head) -> Sequence[tuple[str, Tool]]:
        """None: this format knows no tools."""
        return ()

    def encode_response(self, response: Response, head: Head) -> bytes:
        """A `text_completion` object. Reasoning, pictures and sound have no place in it."""
        return encode_response(response, model=head.model, created=int(self._now()), new_id=self._new_id())

    def stream_encoder(self, head: Head) -> StreamEncoder:
        """An encoder of `text_completion` frames."""
        return CompletionsEncoder(
            model=head.model, created=int(self._now()), new_id=self._new_id(), usage=asks_for_usage(head.data)
        )

    def tells_failure(self, name: str, data: bytes) -> bool:
        """Clients look for an `error` in each chunk; some hosts have other forms for theirs."""
        return tells_error(data)

    def encode_error(self, error: RelayError, request_id: str) -> bytes:
        """The error object; the request's id travels in a header."""
        return dumps(error_body(error))
