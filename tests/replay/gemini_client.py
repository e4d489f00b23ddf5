"""The Gemini API, read by the `google-genai` SDK."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from google import genai
from google.genai import errors, types
from pydantic import ValidationError

from tests.replay.client import Client, Envelope, Heard
from tests.replay.recording import Exchange
from tests.replay.said import Counted, Said

INFO = "type.googleapis.com/google.rpc.ErrorInfo"
REQUEST = "type.googleapis.com/google.rpc.RequestInfo"


class GeminiClient(Client):
    """`generateContent`. Model and streaming stand in the URL: a request here is both of them and the body."""

    dialect: ClassVar[str] = "gemini"
    errors: ClassVar[tuple[type[Exception], ...]] = (errors.APIError, errors.UnknownApiResponseError)
    unreadable: ClassVar[tuple[type[Exception], ...]] = (ValidationError, AttributeError)
    error_types: ClassVar[Mapping[int, str]] = {
        400: "INVALID_ARGUMENT",
        404: "NOT_FOUND",
        413: "INVALID_ARGUMENT",
        422: "INVALID_ARGUMENT",
        429: "RESOURCE_EXHAUSTED",
        502: "UNAVAILABLE",
        503: "UNAVAILABLE",
    }
    finish: ClassVar[Mapping[str, str]] = {
        "stop": "STOP",
        "length": "MAX_TOKENS",
        "tool_calls": "STOP",
        "content_filter": "SAFETY",
        "error": "OTHER",
        "other": "OTHER",
    }
    several: ClassVar[bool] = True

    def __init__(self, url: str, key: str) -> None:
        super().__init__(url, key)
        self.client = self.http()
        options = types.HttpOptions(base_url=url, timeout=30_000, httpx_async_client=self.client)
        self.sdk = genai.Client(api_key=key, http_options=options)

    async def close(self) -> None:
        await self.sdk.aio.aclose()
        self.sdk.close()
        await self.client.aclose()

    def question(self, model: str, *, stream: bool) -> dict[str, Any]:
        contents = [{"role": "user", "parts": [{"text": "Please go on."}]}]
        config = {"thinkingConfig": {"includeThoughts": True}}
        return {"model": model, "stream": stream, "body": {"contents": contents, "generationConfig": config}}

    def request(self, exchange: Exchange, model: str) -> dict[str, Any]:
        asked = self.question(model, stream=exchange["streaming"])
        recorded = exchange["request_body"]
        if exchange["dialect"] == self.dialect and isinstance(recorded, dict) and recorded.get("contents"):
            asked["body"] = recorded
            if "model" in recorded:
                # It stands in the URL as well, and must be the same there.
                asked["body"] = {**recorded, "model": f"models/{model}"}
        return asked

    def sent(self, tape: Any, model: str, upstream: str) -> bytes:
        sent: bytes = tape.sent
        return sent.replace(b'"models/%b"' % model.encode(), b'"models/%b"' % upstream.encode())

    async def ask(self, body: dict[str, Any], heard: Heard) -> None:
        # What the SDK's own methods call, below their checks of a request that somebody else has made.
        api = self.sdk._api_client
        path = f"models/{body['model']}"
        if not body["stream"]:
            answer = await api.async_request("post", f"{path}:generateContent", body["body"])
            self._piece(answer, heard)
            return
        pieces = await api.async_request_streamed("post", f"{path}:streamGenerateContent?alt=sse", body["body"])
        async for piece in pieces:
            self._piece(piece, heard)

    def _piece(self, answer: Any, heard: Heard) -> None:
        """A whole answer, or one of a stream's objects."""
        parsed = types.GenerateContentResponse._from_response(
            response=json.loads(answer.body) if answer.body else {}, kwargs={}
        )
        for place, candidate in enumerate(parsed.candidates or ()):
            said = heard.choices.setdefault(place if candidate.index is None else candidate.index, Said())
            if candidate.finish_reason is not None:
                said.finish = candidate.finish_reason.value
            for part in (candidate.content.parts if candidate.content else None) or ():
                if part.text is not None and part.thought:
                    said.reasoning += part.text
                elif part.text is not None:
                    said.text += part.text
                elif part.function_call is not None:
                    said.calls.append((part.function_call.name, part.function_call.args or {}))
                elif part.inline_data is not None:
                    said.beside["media"] += 1
                else:
                    said.beside["server_tools"] += 1
            grounded = candidate.grounding_metadata
            chunks = (grounded.grounding_chunks if grounded else None) or []
            said.beside["citations"] += len(chunks)
            for support in (grounded.grounding_supports if grounded else None) or ():
                segment = support.segment
                for number in support.grounding_chunk_indices or ():
                    page = chunks[number].web
                    if page is not None and page.uri and segment is not None:
                        said.pages.append((page.uri, bytes_of(said.text, segment.start_index, segment.end_index)))
            weighed = candidate.logprobs_result
            said.beside["logprobs"] += len((weighed.chosen_candidates if weighed else None) or ())
        feedback = parsed.prompt_feedback
        if feedback is not None and feedback.block_reason is not None and not heard.choices:
            heard.choices[0] = Said(finish=feedback.block_reason.value)
        usage = parsed.usage_metadata
        if usage is not None:
            made = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
            heard.counted = Counted(usage.prompt_token_count or 0, made, usage.cached_content_token_count or 0)

    def adapted(self, said: Said, *, streamed: bool) -> Said:
        adapted = super().adapted(said, streamed=streamed)
        if said.refusal is not None:
            # The format has no part for a refusal: its words are text.
            adapted.text += said.refusal
        if said.refusal != "" and said.finish in ("stop", "other"):
            adapted.finish = self.finish["content_filter"]
        adapted.refusal = ""
        adapted.calls = [(name, _input(value)) for name, value in said.calls]
        return adapted

    def envelope(self, body: bytes) -> Envelope | None:
        try:
            value = json.loads(body)
        except ValueError:
            return None
        if not isinstance(value, dict) or value.keys() != {"error"}:
            return None
        error = value["error"]
        details = {entry["@type"]: entry for entry in error["details"]}
        code = details[INFO]["reason"].lower()
        return Envelope(error["message"], error["status"], code, details.get(REQUEST, {}).get("requestId"))

    def broken_off(self, body: bytes) -> bytes | None:
        start, mark, last = body.rpartition(b'data: {"error":')
        if not mark:
            return None
        error = json.loads(b'{"error":' + last)["error"]
        return start if error["status"] == "UNAVAILABLE" and error["message"] else None


def bytes_of(text: str, start: int | None, end: int | None) -> str:
    """The words that stand there: the format counts bytes, of all that is said."""
    return text.encode()[start or 0 : end or 0].decode("utf-8", "replace")


def _input(value: Any) -> Any:
    """A call's arguments as the SDK shows them: what is no object is told inside of one."""
    return {"arguments": value} if isinstance(value, str) else value or {}
