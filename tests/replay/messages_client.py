"""The Messages API, read by the `anthropic` SDK."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import anthropic
from anthropic import AsyncAnthropic, AsyncStream
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from jiter import from_json

from tests.replay.client import Client, Envelope, Heard
from tests.replay.said import Counted, Reading, Said

MOST = 1000
"""`max_tokens` of the requests that are not the recorded ones."""
MEDIA = frozenset({"image", "document", "audio", "video"})
PLAIN = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})


class MessagesClient(Client):
    """`messages`."""

    dialect: ClassVar[str] = "anthropic-messages"
    exact: ClassVar[bool] = False
    errors: ClassVar[tuple[type[Exception], ...]] = (anthropic.APIError, ValueError)
    error_types: ClassVar[Mapping[int, str]] = {
        400: "invalid_request_error",
        404: "not_found_error",
        413: "request_too_large",
        422: "invalid_request_error",
        429: "rate_limit_error",
        502: "api_error",
        503: "overloaded_error",
    }
    finish: ClassVar[Mapping[str, str]] = {
        "stop": "end_turn",
        "length": "max_tokens",
        "tool_calls": "tool_use",
        "content_filter": "refusal",
        "error": "end_turn",
        "other": "end_turn",
    }

    def __init__(self, url: str, key: str) -> None:
        super().__init__(url, key)
        self.sdk = AsyncAnthropic(base_url=url, api_key=key, max_retries=0, http_client=self.http())

    async def close(self) -> None:
        await self.sdk.close()

    def question(self, model: str, *, stream: bool) -> dict[str, Any]:
        asked = [{"role": "user", "content": "Please go on."}]
        body: dict[str, Any] = {"model": model, "max_tokens": MOST, "messages": asked}
        return body | ({"stream": True} if stream else {})

    def usable(self, recorded: Any) -> bool:
        return isinstance(recorded, dict) and bool(recorded.get("messages")) and "max_tokens" in recorded

    async def ask(self, body: dict[str, Any], heard: Heard) -> None:
        if body.get("stream"):
            message = await self._stream(body)
        else:
            message = await self.sdk.post("/v1/messages", body=body, cast_to=Message)
        if message is None:
            return
        said = heard.choices[0] = Said(finish=message.stop_reason)
        for block in message.content:
            match block.type:
                case "text":
                    said.text += block.text
                    said.beside["citations"] += len(block.citations or ())
                    found: list[Any] = list(block.citations or ())
                    said.pages += [(note.url, block.text) for note in found if getattr(note, "url", None)]
                case "thinking":
                    said.reasoning += block.thinking
                case "tool_use":
                    said.calls.append((block.name, block.input))
            # The SDK's types know no media in answers, and take them all the same.
            if (kind := str(block.type)) in MEDIA:
                said.beside["media"] += 1
            elif kind not in PLAIN:
                said.beside["server_tools"] += 1
        usage = message.usage
        cached = usage.cache_read_input_tokens or 0
        given = usage.input_tokens + cached + (usage.cache_creation_input_tokens or 0)
        heard.counted = Counted(given, usage.output_tokens, cached)

    async def _stream(self, body: dict[str, Any]) -> Message | None:
        kind = AsyncStream[RawMessageStreamEvent]
        stream = await self.sdk.post("/v1/messages", body=body, cast_to=Message, stream=True, stream_cls=kind)
        message: Any = None
        buffers: dict[int, bytes] = {}
        async for event in stream:
            message = accumulate_event(event=event, current_snapshot=message, json_bufs=buffers)
        return message

    def wanted(self, reading: Reading, body: dict[str, Any], *, streamed: bool) -> Heard:
        heard = super().wanted(reading, body, streamed=streamed)
        # Never without a count, and cached tokens are counted beside the others: there cannot be more than all.
        counted = heard.counted or Counted()
        given = counted.input or 0
        heard.counted = Counted(given, counted.output or 0, min(counted.cached or 0, given))
        return heard

    def adapted(self, said: Said, *, streamed: bool) -> Said:
        adapted = super().adapted(said, streamed=streamed)
        if said.refusal is not None:
            # The format has no part for a refusal: its words are text.
            adapted.text += said.refusal
        if said.refusal != "" and said.finish in ("stop", "tool_calls"):
            adapted.finish = self.finish["content_filter"]
        adapted.refusal = ""
        adapted.calls = [(name, _input(value, streamed=streamed)) for name, value in said.calls]
        return adapted

    def envelope(self, body: bytes) -> Envelope | None:
        try:
            value = json.loads(body)
        except ValueError:
            return None
        if not isinstance(value, dict) or value.keys() != {"type", "error", "request_id"} or value["type"] != "error":
            return None
        error = value["error"]
        return Envelope(error["message"], error["type"], error["details"]["error_code"], value["request_id"])

    def broken_off(self, body: bytes) -> bytes | None:
        start, mark, last = body.rpartition(b"event: error\ndata: ")
        if not mark or b"message_stop" in start:
            return None
        error = json.loads(last)["error"]
        return start if error["type"] == "api_error" and error["message"] else None


def _input(value: Any, *, streamed: bool) -> Any:
    """A call's input as the SDK shows it: of arguments that break off, a stream gives what can be read so far."""
    if isinstance(value, str):
        return from_json(value.encode(), partial_mode=True) if streamed else {"arguments": value}
    return value or {}
