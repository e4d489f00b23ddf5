"""One relay between an upstream that plays recordings and the official SDK."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import openai
from aiohttp.test_utils import TestServer
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from relay.app import RELAY, Relay, create_app
from relay.config import read_text
from relay.store import UsageRow
from tests.flow.fake import LAST_CHUNK, FakeUpstream, Seen, Step, chunk
from tests.replay.reading import Said, arguments
from tests.replay.recording import Exchange

CONFIG = """
[discovery]
environment = false
local = false
fallback = false

[upstreams.chat]
family = "openai"
base_url = "{url}/v1"
api_key = "sk-replay-chat"

[upstreams.silent]
family = "openai"
base_url = "{url}/v1"
api_key = "sk-replay-silent"
options = {{ finish_reason = false }}

[upstreams.messages]
family = "anthropic"
base_url = "{url}"
api_key = "sk-replay-messages"

[upstreams.gemini]
family = "gemini"
base_url = "{url}"
api_key = "sk-replay-gemini"
"""
MODEL = """
[models.replay-{name}]
targets = ["{name}/upstream-{name}"]
price = {{ input = 1.0, output = 2.0 }}
"""
UPSTREAMS = {"openai-chat": "chat", "anthropic-messages": "messages", "gemini": "gemini"}
PATHS = {
    ("chat", False): "/v1/chat/completions",
    ("chat", True): "/v1/chat/completions",
    ("silent", False): "/v1/chat/completions",
    ("silent", True): "/v1/chat/completions",
    ("messages", False): "/v1/messages",
    ("messages", True): "/v1/messages",
    ("gemini", False): "/v1beta/models/upstream-gemini:generateContent",
    ("gemini", True): "/v1beta/models/upstream-gemini:streamGenerateContent?alt=sse",
}
NANO_PER_INPUT = 1000
NANO_PER_OUTPUT = 2000
"""The prices above in nano-dollars per token."""
QUESTION = {"role": "user", "content": "Please go on."}
LISTING = {"object": "list", "data": [], "models": [], "has_more": False}
SILENT = frozenset({"snowflake"})
"""Hosts whose streams never say why the model stopped: they are configured with the option made for that."""


@dataclass
class Tape:
    """An answer of the relay as it came over the wire."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False
    """Whether the body ended as HTTP says it must."""
    sent: bytes = b""


class TapedStream(httpx2.AsyncByteStream):
    """Copies what passes."""

    def __init__(self, inner: httpx2.AsyncByteStream, tape: Tape) -> None:
        self._inner = inner
        self._tape = tape

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            self._tape.body += piece
            yield piece
        self._tape.whole = True

    async def aclose(self) -> None:
        await self._inner.aclose()


class Taping(httpx2.AsyncHTTPTransport):
    """The SDK's own transport, with a tape."""

    def __init__(self) -> None:
        super().__init__(retries=0)
        self.tape = Tape()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        tape = self.tape = Tape(sent=request.content)
        response = await super().handle_async_request(request)
        tape.status = response.status_code
        tape.headers = {name.lower(): value for name, value in response.headers.items()}
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = TapedStream(response.stream, tape)
        return response


@dataclass
class Played:
    """One exchange as the client and the upstream saw it."""

    exchange: Exchange
    upstream: str
    streamed: bool
    tape: Tape
    seen: list[Seen]
    error: openai.APIError | None = None
    """What the SDK raised. Nothing else may come out of it: a client catches the SDK's errors and no others."""
    choices: dict[int, Said] = field(default_factory=dict)
    usage: Any = None
    logged: list[str] = field(default_factory=list)
    """What the relay reported meanwhile as a fault of its own."""


class ErrorLog(logging.Handler):
    """What the relay reports as a fault of its own."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Stage:
    """Plays exchanges, one after the other."""

    def __init__(self, relay: Relay, upstream: FakeUpstream, url: str, key: str) -> None:
        self.relay = relay
        self.upstream = upstream
        self.transport = Taping()
        self.errors = ErrorLog()
        client = httpx2.AsyncClient(transport=self.transport, timeout=30)
        self.sdk = AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, http_client=client)

    async def play(
        self, exchange: Exchange, script: Sequence[Step] | None = None, *, without: Sequence[str] = ()
    ) -> Played:
        """Let the upstream answer `exchange` (or play `script` instead) and read what the client gets.

        `without` are fields that the client's request does not have, whatever was recorded.
        """
        name = "silent" if exchange["family"] in SILENT else UPSTREAMS[exchange["dialect"]]
        body = request_for(exchange, f"replay-{name}")
        for field_name in without:
            body.pop(field_name, None)
        streamed = bool(body.get("stream"))
        before = len(self.upstream.seen)
        steps = answer_of(exchange) if script is None else script
        self.upstream.answer = lambda _: steps
        played = Played(exchange, name, streamed, Tape(), [])
        try:
            if streamed:
                await self._stream(body, played)
            else:
                answer = await self.sdk.post("/chat/completions", body=body, cast_to=ChatCompletion)
                for choice in answer.choices:
                    read_message(played.choices.setdefault(choice.index, Said()), choice)
                played.usage = answer.usage
        except openai.APIError as error:
            played.error = error
        played.tape = self.transport.tape
        played.logged, self.errors.lines = self.errors.lines, []
        played.seen = self.upstream.seen[before:]
        return played

    async def _stream(self, body: dict[str, Any], played: Played) -> None:
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
                said = played.choices.setdefault(choice.index, Said())
                said.finish = choice.finish_reason or said.finish
                delta: Any = choice.delta
                if delta is None:
                    continue
                said.text += delta.content if isinstance(delta.content, str) else ""
                said.refusal += delta.refusal or ""
                said.reasoning += (delta.model_extra or {}).get("reasoning_content") or ""
                for call in delta.tool_calls or ():
                    known = spelled.setdefault((choice.index, call.index), ["", ""])
                    if call.function is not None:
                        known[0] += call.function.name or ""
                        known[1] += call.function.arguments or ""
            played.usage = piece.usage or played.usage
        for (index, _), (name, text) in sorted(spelled.items()):
            played.choices[index].calls.append((name, arguments(text)))

    async def settled(self) -> None:
        """Wait until no call is under way: a client has its answer a moment before the relay writes its row."""
        async with asyncio.timeout(10):
            while self.relay.limiter.running():  # noqa: ASYNC110 - the relay has no event for what only tests await
                await asyncio.sleep(0.005)

    async def rows(self, count: int) -> dict[str, list[UsageRow]]:
        """The newest usage rows, at most `count`, by request id."""
        await self.settled()
        await self.relay.store.usage.flush()
        found: dict[str, list[UsageRow]] = {}
        before = None
        while count > 0:
            rows = await self.relay.store.usage.rows(limit=min(count, 1000), before=before)
            if not rows:
                break
            for row in rows:
                found.setdefault(row.request_id, []).append(row)
            before, count = rows[-1].id, count - len(rows)
        return found


def read_message(said: Said, choice: Any) -> None:
    """A complete choice as the SDK shows it."""
    message = choice.message
    said.finish = choice.finish_reason
    said.text = message.content if isinstance(message.content, str) else ""
    said.refusal = message.refusal or ""
    said.reasoning = (message.model_extra or {}).get("reasoning_content") or ""
    for call in message.tool_calls or ():
        function = getattr(call, "function", None)
        if function is not None:
            said.calls.append((function.name, arguments(function.arguments)))


def request_for(exchange: Exchange, model: str) -> dict[str, Any]:
    """The recorded request under another model's name; for other dialects one of the same form."""
    recorded = exchange["request_body"]
    if exchange["dialect"] == "openai-chat" and isinstance(recorded, dict):
        return {**recorded, "model": model}
    body: dict[str, Any] = {"model": model, "messages": [QUESTION]}
    if exchange["streaming"]:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


CUTS = (0.31, 0.5, 0.83)
"""Where streams are cut into separate reads, as shares of their length."""


def head_of(exchange: Exchange, framing: str) -> bytes:
    """The head of the recorded answer, with those headers that the relay looks at."""
    recorded = exchange["response_headers"] or {}
    usual = "text/event-stream" if exchange["streaming"] else "application/json"
    lines = [f"HTTP/1.1 {exchange['status']} Recorded", f"Content-Type: {recorded.get('content-type') or usual}"]
    lines += [f"{name}: {recorded[name]}" for name in ("retry-after", "retry-after-ms") if name in recorded]
    return "\r\n".join([*lines, framing, "", ""]).encode()


def answer_of(exchange: Exchange) -> list[Step]:
    """The recorded answer as it goes over the wire: in the recorded pieces, else in a few odd ones."""
    body: bytes = exchange["body"]
    if not exchange["streaming"]:
        return [head_of(exchange, f"Content-Length: {len(body)}") + body]
    edges = [0, *(int(len(body) * share) for share in CUTS), len(body)]
    if exchange.get("chunk_lens"):
        edges = [0]
        for length in exchange["chunk_lens"]:
            edges.append(edges[-1] + length)
    steps: list[Step] = [head_of(exchange, "Transfer-Encoding: chunked")]
    for start, end in pairwise(edges):
        if end > start:
            # A wait of no time gives the relay its turn, so that it reads this piece by itself.
            steps += [chunk(body[start:end]), 0.0]
    return [*steps, LAST_CHUNK]


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Stage]:
    """A stage with everything running."""
    upstream = FakeUpstream(models=LISTING)
    await upstream.start()
    names = (*UPSTREAMS.values(), "silent")
    text = CONFIG.format(url=upstream.url) + "".join(MODEL.format(name=name) for name in names)
    app = await create_app(read_text(text, "replay.toml", {}), database=folder / "replay.db")
    relay = app[RELAY]
    _, key = await relay.store.keys.create("replay")
    server = TestServer(app)
    await server.start_server(auto_decompress=False, access_log=None)
    stage = Stage(relay, upstream, str(server.make_url("")).rstrip("/"), key)
    logging.getLogger().addHandler(stage.errors)
    try:
        await relay.listed.wait()
        yield stage
    finally:
        logging.getLogger().removeHandler(stage.errors)
        await stage.sdk.close()
        await server.close()
        await upstream.stop()


def envelope(tape: Tape) -> Any:
    """The error object of an answer; None if it is not exactly one."""
    try:
        value = json.loads(tape.body)
    except ValueError:
        return None
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict) or value.keys() != {"error"}:
        return None
    return error if error.keys() == {"message", "type", "param", "code"} else None
