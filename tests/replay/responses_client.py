"""The Responses API, read by the `openai` SDK."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import openai
from openai import AsyncOpenAI, AsyncStream
from openai.types.responses import Response, ResponseStreamEvent

from tests.replay.chat_client import error_envelope
from tests.replay.client import Client, Envelope, Heard
from tests.replay.said import Counted, Said, arguments, words

ENDS = ("response.completed", "response.incomplete")
STRINGS = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.reasoning_summary_text.delta": "reasoning",
    "response.reasoning_text.delta": "reasoning",
}
PLAIN = frozenset({"message", "reasoning", "function_call", "custom_tool_call", "tool_search_call"})


class ResponsesClient(Client):
    """`responses`."""

    dialect: ClassVar[str] = "openai-responses"
    errors: ClassVar[tuple[type[Exception], ...]] = (openai.APIError,)
    error_types: ClassVar[Mapping[int, str]] = {
        400: "invalid_request_error",
        429: "rate_limit_exceeded",
        502: "api_error",
    }
    finish: ClassVar[Mapping[str, str]] = {
        "stop": "completed",
        "length": "incomplete: max_output_tokens",
        "tool_calls": "completed",
        "content_filter": "incomplete: content_filter",
        "error": "failed",
        "other": "completed",
    }

    def __init__(self, url: str, key: str) -> None:
        super().__init__(url, key)
        self.sdk = AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, http_client=self.http())

    async def close(self) -> None:
        await self.sdk.close()

    def question(self, model: str, *, stream: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"model": model, "input": "Please go on."}
        return body | ({"stream": True} if stream else {})

    async def ask(self, body: dict[str, Any], heard: Heard) -> None:
        if body.get("stream"):
            await self._stream(body, heard)
        else:
            self._whole(await self.sdk.post("/responses", body=body, cast_to=Response), heard)

    async def _stream(self, body: dict[str, Any], heard: Heard) -> None:
        """The pieces of all strings must spell what the last event holds, and the numbers must have no gap."""
        kind = AsyncStream[ResponseStreamEvent]
        stream = await self.sdk.post("/responses", body=body, cast_to=Response, stream=True, stream_cls=kind)
        pieces = {"text": "", "refusal": "", "reasoning": ""}
        number = 0
        async for event in stream:
            if event.sequence_number != number:
                heard.contradictions.append(f"event {number} is numbered {event.sequence_number}")
            number += 1
            name = STRINGS.get(event.type)
            if name is not None:
                pieces[name] += event.delta  # type: ignore[union-attr]  # by its type this event has one
            elif event.type in ENDS:
                self._whole(event.response, heard)  # type: ignore[union-attr]  # these have one
            elif event.type == "response.failed":
                # This is where clients stop. The SDK itself raises nothing for it.
                self._whole(event.response, heard)
                break
        if heard.choices:
            said = heard.choices[0]
            whole = {"text": said.text, "refusal": said.refusal, "reasoning": said.reasoning}
            if pieces != whole:
                heard.contradictions.append(f"the pieces spell {pieces!r}, the answer says {whole!r}")

    def _whole(self, answer: Response, heard: Heard) -> None:
        cause = answer.incomplete_details
        said = Said(finish=answer.status if cause is None else f"{answer.status}: {cause.reason}")
        heard.choices[0] = said
        heard.failed = answer.error.message if answer.error is not None else None
        for item in answer.output:
            match item.type:
                case "message":
                    for part in item.content:
                        if part.type == "output_text":
                            said.text += part.text
                            said.beside["citations"] += len(part.annotations or ())
                            said.pages += [
                                (note.url, words(part.text, note.start_index, note.end_index))
                                for note in part.annotations or ()
                                if note.type == "url_citation"
                            ]
                            said.beside["logprobs"] += len(part.logprobs or ())
                        else:
                            said.refusal = (said.refusal or "") + part.refusal
                case "reasoning":
                    shown = [entry.text for entry in (*item.summary, *(item.content or ()))]
                    said.reasoning += "\n\n".join(text for text in shown if text)
                case "function_call":
                    said.calls.append((item.name, arguments(item.arguments)))
                case "image_generation_call":
                    said.beside["media"] += 1
            if item.type not in PLAIN and item.type != "image_generation_call":
                said.beside["server_tools"] += 1
        usage = answer.usage
        if usage is not None:
            # Some hosts leave the details out, whatever the SDK's types say.
            details: Any = usage.input_tokens_details
            heard.counted = Counted(usage.input_tokens, usage.output_tokens, details.cached_tokens if details else None)

    def envelope(self, body: bytes) -> Envelope | None:
        return error_envelope(body)

    def broken_off(self, body: bytes) -> bytes | None:
        start, mark, last = body.rpartition(b"event: response.failed\ndata: ")
        if not mark or any(f"event: {kind}".encode() in start for kind in ENDS):
            return None
        response = json.loads(last)["response"]
        return start if response["status"] == "failed" and response["error"]["message"] else None
