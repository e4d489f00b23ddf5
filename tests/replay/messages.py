"""The same exchanges for a client of the Messages API, read by that vendor's SDK."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import anthropic
import httpx2
from anthropic import AsyncAnthropic, AsyncStream
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from jiter import from_json

from relay.store import UsageRow
from tests.flow.fake import Seen, Step
from tests.replay.reading import Reading, Said, arguments, frames, openai_counts, read, words_of
from tests.replay.recording import Exchange
from tests.replay.stage import PATHS, QUESTION, SILENT, UPSTREAMS, Stage, Tape, Taping, answer_of
from tests.replay.verdict import FAILED, SHOWN, clip, expect, row

MOST = 1000
"""`max_tokens` of the requests that are not the recorded ones."""
ERRORS = {
    400: "invalid_request_error",
    404: "not_found_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    502: "api_error",
    503: "overloaded_error",
}
FINISH = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}

OWN = {
    "34292df0e61b5f02": "messages[0]",
    "3e9b69d9d459f169": "tools[0].input_schema",
    "c90073828d8da271": "tools[0].input_schema",
}
"""Requests that the relay refuses by itself, and the parameter. The upstream refused them too."""
UNREADABLE = frozenset({"f7e46dd85ac1ecc7"})
"""Streams that pass through and at whose end, behind the answer, their host has an event that the SDK cannot read."""


@dataclass
class Delivered:
    """One exchange as the client and the upstream saw it."""

    exchange: Exchange
    upstream: str
    streamed: bool
    tape: Tape
    seen: list[Seen] = field(default_factory=list)
    error: Exception | None = None
    message: Message | None = None
    logged: list[str] = field(default_factory=list)


class MessagesClient:
    """Asks the relay of a stage in the words of the Messages API."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.transport = Taping()
        self.sdk = AsyncAnthropic(
            base_url=str(stage.sdk.base_url).rstrip("/").removesuffix("/v1"),
            api_key=stage.sdk.api_key,
            max_retries=0,
            http_client=httpx2.AsyncClient(transport=self.transport, timeout=30),
        )

    async def close(self) -> None:
        await self.sdk.close()

    async def play(self, exchange: Exchange, script: Sequence[Step] | None = None) -> Delivered:
        """Let the upstream answer `exchange` (or play `script` instead) and read what the client gets."""
        name = "silent" if exchange["family"] in SILENT else UPSTREAMS[exchange["dialect"]]
        body = request_for(exchange, f"replay-{name}")
        upstream = self.stage.upstream
        before = len(upstream.seen)
        steps = answer_of(exchange) if script is None else script
        upstream.answer = lambda _: steps
        shown = Delivered(exchange, name, bool(body.get("stream")), Tape())
        try:
            if shown.streamed:
                shown.message = await self._stream(body)
            else:
                shown.message = await self.sdk.post("/v1/messages", body=body, cast_to=Message)
        except (anthropic.APIError, ValueError) as error:
            shown.error = error
        shown.tape = self.transport.tape
        shown.seen = upstream.seen[before:]
        shown.logged, self.stage.errors.lines = self.stage.errors.lines, []
        return shown

    async def _stream(self, body: dict[str, Any]) -> Message | None:
        kind = AsyncStream[RawMessageStreamEvent]
        stream = await self.sdk.post("/v1/messages", body=body, cast_to=Message, stream=True, stream_cls=kind)
        message: Any = None
        buffers: dict[int, bytes] = {}
        async for event in stream:
            message = accumulate_event(event=event, current_snapshot=message, json_bufs=buffers)
        return message


def request_for(exchange: Exchange, model: str) -> dict[str, Any]:
    """The recorded request under another model's name; for other dialects one of the same form."""
    recorded = exchange["request_body"]
    if exchange["dialect"] == "anthropic-messages" and isinstance(recorded, dict) and recorded.get("messages"):
        return {"max_tokens": MOST, **recorded, "model": model}
    body: dict[str, Any] = {"model": model, "max_tokens": MOST, "messages": [QUESTION]}
    if exchange["streaming"]:
        body["stream"] = True
    return body


# What a chat answer says, read without any of the relay's code.


def chat_reading(exchange: Exchange) -> Reading:
    """The first choice of a Chat Completions answer, with the reasoning wherever its host puts it."""
    said, reading = Said(), Reading()
    spelled: dict[Any, list[str]] = {}
    body: bytes = exchange["body"]
    if exchange["streaming"]:
        chunks = []
        for _, data in frames(body):
            if data.strip() == b"[DONE]":
                break
            chunks.append(json.loads(data))
    else:
        chunks = [json.loads(body)]
    for chunk in chunks:
        for choice in chunk.get("choices") or ():
            if choice.get("index", 0) == 0:
                said.finish = choice.get("finish_reason") or said.finish
                _chat_piece(said, spelled, choice.get("delta" if exchange["streaming"] else "message") or {})
        groq = chunk.get("x_groq") or {}
        reading.counted = openai_counts(chunk.get("usage") or groq.get("usage"), reading.counted)
    said.calls = [(name, arguments(text)) for name, text in spelled.values()]
    reading.choices[0] = said
    return reading


def _chat_piece(said: Said, spelled: dict[Any, list[str]], piece: dict[str, Any]) -> None:
    content = piece.get("content")
    if isinstance(content, dict):
        # One host parses the JSON that the model wrote.
        content = json.dumps(content, separators=(",", ":"))
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content or ():
        if part.get("type") == "text":
            said.text += part["text"]
        elif part.get("type") == "thinking":
            inner = part["thinking"]
            said.reasoning += inner if isinstance(inner, str) else "".join(each.get("text") or "" for each in inner)
    details = [entry.get("text") or entry.get("summary") or "" for entry in piece.get("reasoning_details") or ()]
    said.reasoning += piece.get("reasoning_content") or piece.get("reasoning") or "".join(details)
    said.refusal += piece.get("refusal") or ""
    for call in piece.get("tool_calls") or ():
        # Some hosts number all calls alike, or none of them: then a new id is a new call.
        number = (call.get("index"), call.get("id") or next((key[1] for key in reversed(spelled)), None))
        if number not in spelled and not call.get("id"):
            number = next((key for key in spelled if key[0] == call.get("index")), number)
        known = spelled.setdefault(number, ["", ""])
        function = call.get("function") or {}
        known[0] += function.get("name") or ""
        given = function.get("arguments") or ""
        known[1] += given if isinstance(given, str) else json.dumps(given)
    old = piece.get("function_call") or {}
    if old.get("name") or old.get("arguments"):
        known = spelled.setdefault((None, "old"), ["", ""])
        known[0] += old.get("name") or ""
        known[1] += old.get("arguments") or ""


def reading_of(exchange: Exchange) -> Reading:
    return chat_reading(exchange) if exchange["dialect"] == "openai-chat" else read(exchange)


# Verdicts.


def faults(shown: Delivered, rows: list[UsageRow]) -> list[str]:
    """What is wrong with this exchange; empty if nothing is."""
    found = [f"logged: {line}" for line in shown.logged]
    if len(rows) != 1:
        return [*found, f"{len(rows)} usage rows"]
    exchange = shown.exchange
    if exchange["id"] in OWN:
        return [*found, *own_refusal(shown, rows[0])]
    if len(shown.seen) != 1:
        return [*found, f"the upstream was asked {len(shown.seen)} times"]
    expect(found, "path", shown.seen[0].path, PATHS[shown.upstream, shown.streamed])
    native = exchange["dialect"] == "anthropic-messages"
    if native:
        name = shown.upstream.encode()
        wanted = shown.tape.sent.replace(b"replay-" + name, b"upstream-" + name)
        if shown.seen[0].body != wanted:
            found.append("the request's bytes were changed")
    if exchange["status"] >= 400 or exchange["id"] in FAILED:
        refusal(shown, rows[0], found)
        return found
    if shown.error is not None and exchange["id"] not in UNREADABLE:
        return [*found, f"the SDK raised {type(shown.error).__name__}: {shown.error}"]
    if not shown.tape.whole and exchange["id"] not in UNREADABLE:
        found.append("the body did not end")
    if native:
        same = exchange["body"].startswith if "concatenated" in exchange["tags"] else exchange["body"].__eq__
        if not same(shown.tape.body):
            found.append("the answer's bytes were changed")
    else:
        translated(shown, reading_of(exchange), found)
    row(rows[0], shown, reading_of(exchange), found)  # type: ignore[arg-type]  # it needs what both kinds have
    return found


def translated(shown: Delivered, reading: Reading, found: list[str]) -> None:
    """What the SDK read, against what the recording says."""
    message = shown.message
    if message is None:
        found.append("there is no message")
        return
    wanted = reading.choices.get(0, Said())
    said = Said()
    for block in message.content:
        match block.type:
            case "text":
                said.text += block.text
            case "thinking":
                said.reasoning += block.thinking
            case "tool_use":
                said.calls.append((block.name, block.input))
    expect(found, "text", said.text, wanted.text + wanted.refusal)
    expect(found, "reasoning", said.reasoning, wanted.reasoning)
    expect(found, "calls", said.calls, [(name, input_wanted(value, shown.streamed)) for name, value in wanted.calls])
    if wanted.finish or shown.exchange["dialect"] != "openai-chat":
        expect(found, "stop", message.stop_reason, stop_wanted(wanted))
    counted, usage = reading.counted, message.usage
    read_tokens = usage.cache_read_input_tokens or 0
    given = usage.input_tokens + read_tokens + (usage.cache_creation_input_tokens or 0)
    expect(found, "usage", (given, usage.output_tokens), (counted.input or 0, counted.output or 0))
    expect(found, "cached", read_tokens, min(counted.cached or 0, counted.input or 0))


def input_wanted(value: Any, streamed: bool) -> Any:
    """A call's input as the SDK shows it: of arguments that break off, a stream gives what can be read so far."""
    if isinstance(value, str):
        return from_json(value.encode(), partial_mode=True) if streamed else {"arguments": value}
    return value or {}


def stop_wanted(said: Said) -> str | None:
    word = None if said.finish is None else FINISH.get(said.finish, "end_turn")
    if said.finish in (None, "stop"):
        if said.refusal:
            return "refusal"
        if said.calls:
            return "tool_use"
    return word


def refusal(shown: Delivered, row: UsageRow, found: list[str]) -> None:
    """An error of the upstream's."""
    exchange = shown.exchange
    status: int = FAILED.get(exchange["id"]) or exchange["status"]
    wanted = SHOWN.get(status, 502)
    body: bytes = exchange["body"]
    said = words_of(frames(body)[-1][1] if exchange["streaming"] else body).strip()
    if "API key not valid" in said:
        wanted, status = 502, 401
    expect(found, "status", shown.tape.status, wanted)
    if not isinstance(shown.error, anthropic.APIStatusError):
        found.append(f"the SDK raised {shown.error!r}")
        return
    expect(found, "error type", shown.error.type, ERRORS[wanted])
    expect(found, "request id", shown.error.request_id, shown.tape.headers["x-request-id"])
    if status not in (401, 403) and said not in (shown.error.api_message or ""):
        found.append(f"message: {clip(shown.error.api_message)} instead of {clip(said)}")
    expect(found, "outcome", (row.outcome, row.status), ("upstream_error", wanted))


def own_refusal(shown: Delivered, row: UsageRow) -> list[str]:
    found: list[str] = []
    expect(found, "recorded status", shown.exchange["status"], 400)
    expect(found, "status", (shown.tape.status, row.status, row.outcome), (400, 400, "rejected"))
    expect(found, "requests upstream", len(shown.seen), 0)
    if not isinstance(shown.error, anthropic.BadRequestError):
        return [*found, f"the SDK raised {shown.error!r}"]
    param = OWN[shown.exchange["id"]]
    details = shown.error.body["error"]["details"] if isinstance(shown.error.body, dict) else {}
    expect(found, "param", details.get("param"), param)
    return found
