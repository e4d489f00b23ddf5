"""A whole relay on loopback, for tests that call it as clients do."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.test_utils import TestServer
from aiohttp.web import BaseRunner

from relay.app import RELAY, Relay, create_app
from relay.config import read_text
from relay.door import RelayRunner
from relay.manager import Plugins
from relay.store import UsageRow

__all__ = ["ALONE", "Serving", "serving"]

ALONE = "[discovery]\nenvironment = false\nlocal = false\nfallback = false\n"
"""Nothing but what the configuration names."""


@dataclass(slots=True)
class Serving:
    """A relay that serves, a key of its, and a client that uses it."""

    relay: Relay
    url: str
    key: str
    client: aiohttp.ClientSession

    async def chat(self, text: str = "Hi", **fields: Any) -> tuple[int, bytes, bool]:
        """Ask the model `m` in the dialect of Chat Completions: status, body, and whether the body ended properly."""
        body = {"model": "m", "messages": [{"role": "user", "content": text}], **fields}
        got = b""
        async with self.client.post(f"{self.url}/v1/chat/completions", json=body) as response:
            try:
                async for piece in response.content.iter_any():
                    got += piece
            except aiohttp.ClientPayloadError:
                return response.status, got, False
            return response.status, got, True

    async def rows(self) -> list[UsageRow]:
        """The usage rows, newest first."""
        await self.relay.store.usage.flush()
        return await self.relay.store.usage.rows(limit=1000)


class _Server(TestServer):
    """Serves as `relay serve` does."""

    async def _make_runner(self, **options: Any) -> BaseRunner:
        return RelayRunner(self.app, **options)


@asynccontextmanager
async def serving(config: str, *, plugins: Plugins | None = None, **key: Any) -> AsyncIterator[Serving]:
    """A relay with this configuration's text and nothing else. `key`: settings of the key that its client uses."""
    with tempfile.TemporaryDirectory() as folder:
        app = await create_app(
            read_text(ALONE + config, "test.toml", {}), plugins=plugins, database=Path(folder) / "relay.db"
        )
        server = _Server(app)
        await server.start_server()
        relay = app[RELAY]
        try:
            _, secret = await relay.store.keys.create("test", **key)
            await relay.listed.wait()
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {secret}"}) as client:
                yield Serving(relay, str(server.make_url("")).rstrip("/"), secret, client)
        finally:
            await server.close()
