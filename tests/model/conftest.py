from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer
from openai import AsyncOpenAI

from relay.app import RELAY, create_app
from relay.config import read_text
from tests.flow.conftest import ALONE, Running

MODEL = "smollm2-135m"
CONFIG = f"""{ALONE}
[server]
keep_alive_seconds = 0.2
[upstreams.local]
family = "local"
options = {{ context = 1024, slots = 2 }}
"""


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Running]:
    """A relay with the real model behind it."""
    app = await create_app(read_text(CONFIG, "model.toml", {}), database=folder / "relay.db")
    _, key = await app[RELAY].store.keys.create("model")
    server = TestServer(app)
    await server.start_server(auto_decompress=False, access_log=None)
    client = aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"})
    try:
        await app[RELAY].listed.wait()
        yield Running(app[RELAY], server, key, client)
    finally:
        await client.close()
        await server.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def local(model_installed: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """One relay for all tests that leave it as it was."""
    async with serving(tmp_path_factory.mktemp("model")) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sdk(local: Running) -> AsyncIterator[AsyncOpenAI]:
    """The official SDK, connected to that relay."""
    async with AsyncOpenAI(base_url=f"{local.url}/v1", api_key=local.key, max_retries=0) as client:
        yield client


def busy(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def idle_after(pid: int) -> float:
    """Seconds until a process has done nothing for a while; at most ten."""
    start = time.monotonic()
    used = busy(pid)
    while time.monotonic() - start < 10:
        await asyncio.sleep(0.2)
        now = busy(pid)
        if now - used < 0.03:
            break
        used = now
    return time.monotonic() - start


def children(of: int = os.getpid()) -> set[int]:
    """Process ids of the models that a process has started, this one unless told otherwise."""
    found = set()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if int(parent) == of and b"relay_local.worker" in command:
            found.add(int(folder.name))
    return found
