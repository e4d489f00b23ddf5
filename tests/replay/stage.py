"""One relay between an upstream that plays recordings and the official SDKs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path

from aiohttp.test_utils import TestServer

from relay.app import RELAY, Relay, create_app
from relay.config import read_text
from relay.store import UsageRow
from tests.flow.fake import LAST_CHUNK, FakeUpstream, Seen, Step, chunk
from tests.replay.client import Client, Heard, Tape
from tests.replay.clients import CLIENTS
from tests.replay.reading import silent
from tests.replay.recording import Exchange

CONFIG = """
[discovery]
environment = false
local = false
fallback = false

# Each exchange is an answer of its own: nothing is asked twice, and no failure is held against anybody.
[routing]
max_attempts = 1
max_cool_down_seconds = 0

# Recordings of different conversations name their answers alike.
[memory]
answers_megabytes = 0

[upstreams.chat]
family = "openai"
base_url = "{url}/v1"
api_key = "sk-replay-chat"

[upstreams.silent]
family = "openai"
base_url = "{url}/v1"
api_key = "sk-replay-silent"
options = {{ finish_reason = false }}

[upstreams.responses]
family = "openai"
base_url = "{url}/v1"
api_key = "sk-replay-responses"
dialects = ["openai-responses"]

[upstreams.messages]
family = "anthropic"
base_url = "{url}"
api_key = "sk-replay-messages"

[upstreams.gemini]
family = "gemini"
base_url = "{url}"
api_key = "sk-replay-gemini"

[upstreams.bedrock]
family = "bedrock"
base_url = "{url}"
api_key = "sk-replay-bedrock"
"""
MODEL = """
[models.replay-{name}]
targets = ["{name}/upstream-{name}"]
price = {{ input = 1.0, output = 2.0 }}
"""
UPSTREAMS = {
    "openai-chat": "chat",
    "openai-responses": "responses",
    "anthropic-messages": "messages",
    "gemini": "gemini",
    "bedrock-converse": "bedrock",
}
SILENT = "silent"
"""The upstream for hosts whose streams never say why the model stopped."""
PATHS: Mapping[tuple[str, bool], str] = {
    ("chat", False): "/v1/chat/completions",
    ("chat", True): "/v1/chat/completions",
    (SILENT, False): "/v1/chat/completions",
    (SILENT, True): "/v1/chat/completions",
    ("responses", False): "/v1/responses",
    ("responses", True): "/v1/responses",
    ("messages", False): "/v1/messages",
    ("messages", True): "/v1/messages",
    ("gemini", False): "/v1beta/models/upstream-gemini:generateContent",
    ("gemini", True): "/v1beta/models/upstream-gemini:streamGenerateContent?alt=sse",
    ("bedrock", False): "/model/upstream-bedrock/converse",
    ("bedrock", True): "/model/upstream-bedrock/converse-stream",
}
NANO_PER_INPUT = 1000
NANO_PER_OUTPUT = 2000
"""The prices above in nano-dollars per token."""
LISTING = {"object": "list", "data": [], "models": [], "has_more": False}


@dataclass
class Played:
    """One exchange as the client and the upstream saw it."""

    exchange: Exchange
    client: Client
    upstream: str
    request: dict[str, object]
    tape: Tape = field(default_factory=Tape)
    seen: list[Seen] = field(default_factory=list)
    error: Exception | None = None
    """What the SDK raised."""
    heard: Heard = field(default_factory=Heard)
    logged: list[str] = field(default_factory=list)
    """What the relay reported meanwhile as a fault of its own."""

    @property
    def streamed(self) -> bool:
        """Whether the client asked for a stream."""
        return self.client.streams(self.request)

    @property
    def native(self) -> bool:
        """Whether client and upstream speak the same dialect."""
        return self.client.dialect == self.exchange["dialect"]


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
        self.errors = ErrorLog()
        self.clients = {dialect: client(url, key) for dialect, client in CLIENTS.items()}

    async def play(
        self, dialect: str, exchange: Exchange, script: Sequence[Step] | None = None, *, without: Sequence[str] = ()
    ) -> Played:
        """Let the upstream answer `exchange` (or play `script` instead) and read what a client of `dialect` gets.

        `without` are fields that the client's request does not have, whatever was recorded.
        """
        client = self.clients[dialect]
        name = SILENT if silent(exchange) else UPSTREAMS[exchange["dialect"]]
        body = client.request(exchange, f"replay-{name}")
        for field_name in without:
            body.pop(field_name, None)
        before = len(self.upstream.seen)
        steps = answer_of(exchange) if script is None else script
        self.upstream.answer = lambda _: steps
        played = Played(exchange, client, name, body)
        try:
            await client.ask(body, played.heard)
        except Exception as error:
            # What the SDK makes of a host's own bytes is between the two of them.
            if not played.native and not isinstance(error, (*client.errors, *client.unreadable)):
                raise
            played.error = error
        finally:
            await client.transport.release()
        played.tape = client.transport.tape
        played.logged, self.errors.lines = self.errors.lines, []
        played.seen = self.upstream.seen[before:]
        return played

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
    lengths = exchange.get("chunk_lens") or ()
    if sum(lengths) == len(body):
        edges = [0, *accumulate(lengths)]
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
    names = (*UPSTREAMS.values(), SILENT)
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
        for client in stage.clients.values():
            await client.close()
        await server.close()
        await upstream.stop()
