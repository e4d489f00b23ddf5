"""The client dialect `openai-chat`: Chat Completions as clients speak it."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from relay import Dialect, Forward, Head, Route, Target
from relay.errors import RelayError
from relay.events import StreamEncoder
from relay.ir import Capacity, Request, Response, Thinking, Tool
from relay.kit import dumps, renamed
from relay.outline import Known, read_outline
from relay_openai.body import (
    TEXTS,
    estimate_input,
    max_output,
    read_choices,
    read_definitions,
    read_messages,
    read_model,
    read_stream,
)
from relay_openai.custom import custom_names
from relay_openai.encoder import ChatEncoder, error_body
from relay_openai.fault import tells_error
from relay_openai.metering import asks_for_usage, metered
from relay_openai.reminder import reminded
from relay_openai.request import parse_function, parse_request, parse_tool
from relay_openai.response import encode_response
from relay_openai.shapes import CAPACITY
from relay_openai.wire import DIALECT

__all__ = ["OpenAIChat"]


class OpenAIChat(Dialect):
    """Chat Completions.

    `now` (Unix seconds) and `new_id` are asked where an upstream tells neither when nor under which id it answered.
    """

    name: ClassVar[str] = DIALECT
    routes: ClassVar[tuple[Route, ...]] = (
        Route("POST", "/v1/chat/completions"),
        Route("POST", "/chat/completions"),
    )
    keep_alive: ClassVar[bytes] = b": keep-alive\n\n"
    tool_fields: ClassVar[tuple[str, ...]] = ("tools", "functions")
    call_words: ClassVar[tuple[bytes, ...]] = (b"tool_calls", b"function_call")
    capacity: ClassVar[Capacity] = CAPACITY
    bounds: ClassVar[frozenset[str]] = frozenset({"max_tokens", "max_completion_tokens", "n", "stream"})

    def __init__(
        self,
        now: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: f"chatcmpl-{uuid.uuid4().hex}",
    ) -> None:
        self._now = now
        self._new_id = new_id
        self._known = Known()

    def peek(self, raw: bytes, operation: str, path: Mapping[str, str], headers: Mapping[str, str]) -> Head:
        """Read what the core needs. No header passes: those of this format name the caller's own account."""
        told = read_outline(raw, TEXTS, self._known)
        # A plain tuple is taken apart in a fraction of the time.
        data, texts, _, listed, _, _ = told[:]
        model = read_model(data)
        read_messages(data)
        # What most bodies do not say is not asked for: a function takes as long as what it reads.
        stream = "stream" in data and read_stream(data)
        tools = False
        if "tools" in data or "functions" in data:
            tools = bool([*read_definitions(data, "tools"), *read_definitions(data, "functions")])
        # By their places: names cost a class as much as all else of the call.
        return Head(
            operation,
            model,
            raw,
            data,
            stream,
            max_output(data),
            read_choices(data) if "n" in data else 1,
            estimate_input(data, listed) + texts,
            tools,
            None,
            "",
            told,
            listed if "functions" not in data else None,
        )

    def parse(self, head: Head) -> Request:
        """The whole request as a hub value."""
        return parse_request(head.data)

    def forward(self, head: Head, target: Target) -> Forward:
        """The caller's bytes, but for the model's name and the wish to count tokens."""
        body = renamed(head, target.model)
        return metered(body, head, target) if head.stream else Forward(body)

    def remind(self, head: Head, recall: Callable[[str, int], Sequence[Thinking]]) -> Head:
        """Reasoning stands beside the calls of tools that it led to, as text under a name of the host's own."""
        seen: Counter[str] = Counter()
        messages = [reminded(message, recall, seen) for message in head.data["messages"]]
        if all(new is old for new, old in zip(messages, head.data["messages"], strict=True)):
            return head
        data = {**head.data, "messages": messages}
        return head.with_body(dumps(data), data)

    def tools(self, head: Head) -> Sequence[tuple[str, Tool]]:
        """The functions, in the new and in the old form."""
        found: list[tuple[str, Tool]] = []
        # The input of a custom tool is free text.
        customs = custom_names(head.fields)
        for place, value in enumerate(head.fields.get("tools") or ()):
            tool = parse_tool(value, f"tools[{place}]")
            if isinstance(tool, Tool) and tool.name not in customs:
                found.append((f"tools[{place}].function.parameters", tool))
        for place, value in enumerate(head.fields.get("functions") or ()):
            found.append((f"functions[{place}].parameters", parse_function(value, f"functions[{place}]")))
        return found

    def encode_response(self, response: Response, head: Head) -> bytes:
        """A `chat.completion` object.

        Reasoning is `reasoning_content`, with signed blocks in `reasoning_details`; pictures are `images`, sound is
        `audio`.
        """
        return encode_response(
            response,
            model=head.model,
            created=int(self._now()),
            new_id=self._new_id(),
            legacy=_legacy(head),
            customs=custom_names(head.fields),
        )

    def stream_encoder(self, head: Head) -> StreamEncoder:
        """An encoder of `chat.completion.chunk` frames."""
        return ChatEncoder(
            model=head.model,
            created=int(self._now()),
            new_id=self._new_id(),
            usage=asks_for_usage(head.fields),
            legacy=_legacy(head),
            customs=custom_names(head.fields),
        )

    def tells_failure(self, name: str, data: bytes) -> bool:
        """Clients look for an `error` in each chunk; some hosts have other forms for theirs."""
        return tells_error(data)

    def encode_error(self, error: RelayError, request_id: str) -> bytes:
        """The error object; the request's id travels in a header."""
        return dumps(error_body(error))


def _legacy(head: Head) -> bool:
    """Whether the caller knows functions only, and no tools."""
    return bool(head.fields.get("functions")) and not head.fields.get("tools")
