"""Chat Completions, read by the `openai` SDK."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import openai
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.replay.client import Client, Envelope, Heard
from tests.replay.said import Counted, Said, arguments

QUESTION = {"role": "user", "content": "Please go on."}


class ChatClient(Client):
    """`chat.completions`."""

    dialect: ClassVar[str] = "openai-chat"
    errors: ClassVar[tuple[type[Exception], ...]] = (openai.APIError,)
    error_types: ClassVar[Mapping[int, str]] = {
        400: "invalid_request_error",
        429: "rate_limit_exceeded",
        502: "api_error",
    }
    finish: ClassVar[Mapping[str, str]] = {
        "stop": "stop",
        "length": "length",
        "tool_calls": "tool_calls",
        "content_filter": "content_filter",
        "error": "error",
        "other": "stop",
    }
    several: ClassVar[bool] = True

    def __init__(self, url: str, key: str) -> None:
        super().__init__(url, key)
        self.sdk = AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, http_client=self.http())

    async def close(self) -> None:
        await self.sdk.close()

    def question(self, model: str, *, stream: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"model": model, "messages": [QUESTION]}
        return body | ({"stream": True, "stream_options": {"include_usage": True}} if stream else {})

    def counts(self, body: dict[str, Any]) -> bool:
        if not self.streams(body):
            return True
        options = body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    async def ask(self, body: dict[str, Any], heard: Heard) -> None:
        if body.get("stream"):
            await self._stream(body, heard)
            return
        answer = await self.sdk.post("/chat/completions", body=body, cast_to=ChatCompletion)
        for choice in answer.choices or ():
            message: Any = choice.message
            said = heard.choices.setdefault(choice.index, Said(finish=choice.finish_reason))
            self._piece(said, message)
            for call in message.tool_calls or ():
                if getattr(call, "function", None) is not None:
                    said.calls.append((call.function.name, arguments(call.function.arguments)))
            said.beside["logprobs"] += weighed(choice)
        self._usage(heard, answer.usage)

    async def _stream(self, body: dict[str, Any], heard: Heard) -> None:
        stream: AsyncStream[ChatCompletionChunk] = await self.sdk.post(
            "/chat/completions",
            body=body,
            cast_to=ChatCompletion,
            stream=True,
            stream_cls=AsyncStream[ChatCompletionChunk],
        )
        spelled: dict[tuple[int, int], list[str]] = {}
        async for piece in stream:
            for choice in piece.choices or ():
                said = heard.choices.setdefault(choice.index, Said())
                said.finish = choice.finish_reason or said.finish
                said.beside["logprobs"] += weighed(choice)
                delta: Any = choice.delta
                if delta is None:
                    continue
                self._piece(said, delta)
                for call in delta.tool_calls or ():
                    known = spelled.setdefault((choice.index, call.index), ["", ""])
                    if call.function is not None:
                        known[0] += call.function.name or ""
                        known[1] += call.function.arguments or ""
            self._usage(heard, piece.usage)
        for (index, _), (name, text) in sorted(spelled.items()):
            heard.choices[index].calls.append((name, arguments(text)))

    def _piece(self, said: Said, piece: Any) -> None:
        """A message, or a piece of one."""
        extra = piece.model_extra or {}
        said.text += piece.content if isinstance(piece.content, str) else ""
        said.refusal = (said.refusal or "") + (piece.refusal or "")
        said.reasoning += extra.get("reasoning_content") or ""
        notes = extra.get("annotations") or getattr(piece, "annotations", None) or ()
        said.beside["citations"] += len(notes)
        for note in notes:
            # A message's are parsed by the SDK, and a stream's are not.
            page = note["url_citation"] if isinstance(note, dict) else note.url_citation.model_dump()
            said.marks.append((page["url"], page["start_index"], page["end_index"]))
        said.beside["media"] += len(extra.get("images") or ())

    def _usage(self, heard: Heard, usage: Any) -> None:
        if usage is not None:
            details = usage.prompt_tokens_details
            cached = (details.cached_tokens if details else None) or 0
            heard.counted = Counted(usage.prompt_tokens, usage.completion_tokens, cached)

    def envelope(self, body: bytes) -> Envelope | None:
        return error_envelope(body)

    def broken_off(self, body: bytes) -> bytes | None:
        start, mark, last = body.rpartition(b'data: {"error":')
        if not mark or not last.endswith(b"}}\n\n") or b"[DONE]" in body:
            return None
        error = json.loads(b'{"error":' + last)["error"]
        return start if error["type"] == "api_error" and error["message"] else None


def weighed(choice: Any) -> int:
    """How many tokens have their probabilities. Some hosts have other forms of them."""
    return len(getattr(choice.logprobs, "content", None) or ())


def error_envelope(body: bytes) -> Envelope | None:
    """The error object that both of this vendor's dialects have."""
    try:
        value = json.loads(body)
    except ValueError:
        return None
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict) or value.keys() != {"error"}:
        return None
    if error.keys() != {"message", "type", "param", "code"}:
        return None
    return Envelope(error["message"], error["type"], error["code"])
