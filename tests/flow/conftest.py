"""The whole application on loopback, against upstreams that play scripts."""

from __future__ import annotations

import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from relay.app import RELAY, Relay, create_app
from relay.config import read_text
from relay.store import UsageRow
from tests.blocking import LONGEST, watching
from tests.flow.fake import FakeUpstream
from tests.flow.loops import RelayServer, factories

ALONE = "[discovery]\nenvironment = false\nlocal = false\nfallback = false\n"
STEADY = "[routing]\nmax_attempts = 1\nmax_cool_down_seconds = 0\n"
"""For tests of answers: nothing is asked twice, and no failure is held against anybody."""


@dataclass
class Running:
    """A relay that serves, with a key and a client that uses it."""

    relay: Relay
    server: TestServer
    key: str
    client: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return str(self.server.make_url("")).rstrip("/")

    def chat(self, **body: Any) -> Any:
        """Post a chat request; `model` and `messages` have defaults."""
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **body}
        return self.client.post(f"{self.url}/v1/chat/completions", json=body)

    async def rows(self) -> list[UsageRow]:
        """All usage rows, newest first."""
        await self.relay.store.usage.flush()
        return await self.relay.store.usage.rows(limit=1000)

    async def latest(self) -> UsageRow:
        """The newest row: where there are many, that is quicker than `rows`."""
        await self.relay.store.usage.flush()
        return (await self.relay.store.usage.rows(limit=1))[0]

    async def row(self) -> UsageRow:
        """The only row."""
        rows = await self.rows()
        assert len(rows) == 1, rows
        return rows[0]


@pytest.fixture(autouse=True)
def _nobody_holds_the_loop_up(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test of this folder fails if something of the relay's held the event loop up. `turns` allows more."""
    allowed = request.node.get_closest_marker("turns")
    with watching(LONGEST if allowed is None else allowed.args[0]) as watch:
        yield
    assert watch.found == []


Start = Callable[..., Awaitable[Running]]


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    fake = FakeUpstream()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start a relay with a configuration's text, and its database in a folder. `key` holds settings of the key that its
    client uses; with `like`, it is one more process beside (or after) another relay, with its database and its key."""
    running: list[Running] = []

    async def build(
        config: str = "",
        *,
        key: dict[str, Any] | None = None,
        keepalive_timeout: float = 75.0,
        like: Running | None = None,
        folder: Path = tmp_path,
        **options: Any,
    ) -> Running:
        text = ALONE + textwrap.dedent(config)
        database = folder / f"relay{len(running)}.db" if like is None else like.relay.store.database.path
        app = await create_app(read_text(text, "test.toml", {}), database=database, **options)
        secret = (await app[RELAY].store.keys.create("test", **(key or {})))[1] if like is None else like.key
        server = RelayServer(app)
        await server.start_server(keepalive_timeout=keepalive_timeout)
        client = aiohttp.ClientSession(headers={"Authorization": f"Bearer {secret}"})
        running.append(Running(app[RELAY], server, secret, client))
        await app[RELAY].listed.wait()
        return running[-1]

    yield build
    for one in running:
        await one.client.close()
        await one.server.close()


def openai_config(upstream: FakeUpstream, **options: Any) -> str:
    """A model `m` at an OpenAI-compatible upstream."""
    return f"""
    [upstreams.up]
    family = "openai"
    base_url = "{upstream.url}/v1"
    api_key = "sk-CANARY-upstream-key"
    [models.m]
    targets = ["up/m-1"]
    price = {{input = 1.0, output = 2.0}}
    """


async def read_stream(relay: Running, **body: Any) -> tuple[int, bytes, bool]:
    """Status, the bytes that came, and whether the body ended properly."""
    async with relay.chat(stream=True, **body) as response:
        got = b""
        try:
            async for piece in response.content.iter_any():
                got += piece
        except aiohttp.ClientPayloadError:
            return response.status, got, False
        return response.status, got, True


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Any:
    """Run all of this folder on the loop that was asked for."""
    return factories()
