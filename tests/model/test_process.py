"""The model's process: it stalls, it dies, it goes with the relay."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.flow.conftest import Running
from tests.model.conftest import CONFIG, MODEL, children, serving
from tests.model.test_model import HI, LONG, newest

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="session")]


async def gone(pid: int) -> bool:
    """Whether the process ends within a few seconds."""
    for _ in range(500):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        await asyncio.sleep(0.01)
    return False


async def own_child(sdk: AsyncOpenAI, before: set[int] | None = None) -> int:
    """The process of a relay's model, once it serves."""
    await sdk.chat.completions.create(model=MODEL, messages=HI, max_tokens=1)
    (pid,) = children() - (before or set())
    return pid


async def test_a_model_that_stalls_is_waited_for(local: Running, sdk: AsyncOpenAI) -> None:
    pid = await own_child(sdk)
    got = b""
    stopped = resumed = 0.0
    body: dict[str, Any] = {"model": MODEL, "messages": LONG, "max_tokens": 40, "stream": True}
    async with local.chat(**body) as response:
        try:
            async for piece in response.content.iter_any():
                got += piece
                if not stopped and got.count(b"data: ") > 3:
                    os.kill(pid, signal.SIGSTOP)
                    stopped = time.monotonic()
                elif stopped and not resumed and time.monotonic() - stopped > 1:
                    assert b": keep-alive\n\n" in piece
                    os.kill(pid, signal.SIGCONT)
                    resumed = time.monotonic()
        finally:
            os.kill(pid, signal.SIGCONT)
    assert resumed
    assert got.count(b": keep-alive\n\n") >= 3
    assert got.endswith(b"data: [DONE]\n\n")
    (row,) = await newest(local)
    assert (row.outcome, row.usage_source) == ("ok", "provider")
    assert row.duration_ms > 1000
    assert children() == {pid}


async def test_a_model_that_dies_is_told_of_and_started_again(local: Running, sdk: AsyncOpenAI) -> None:
    pid = await own_child(sdk)
    text = ""
    # The model must not come to an end by itself before it is killed.
    endless = {"ignore_eos": True}
    stream = await sdk.chat.completions.create(
        model=MODEL, messages=LONG, max_tokens=2000, stream=True, extra_body=endless
    )

    async def read() -> None:
        nonlocal text
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            if len(text) > 10:
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(openai.APIError, match="broke off"):
        await read()
    assert text
    (row,) = await newest(local)
    assert (row.outcome, row.error_code) == ("upstream_cut", "upstream_protocol_error")
    assert row.usage is not None
    assert (row.usage.output or 0) > 0
    # The system takes a moment to close all that the dead process had open.
    assert await gone(pid)
    answer = await sdk.chat.completions.create(model=MODEL, messages=HI, max_tokens=4)
    assert answer.usage is not None
    (again,) = children()
    assert again != pid
    assert (await newest(local))[0].outcome == "ok"


async def test_a_model_that_dies_before_an_answer_is_an_error_answer(local: Running, sdk: AsyncOpenAI) -> None:
    pid = await own_child(sdk)
    os.kill(pid, signal.SIGSTOP)
    call = asyncio.create_task(sdk.chat.completions.create(model=MODEL, messages=HI, max_tokens=4))
    await asyncio.sleep(0.3)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(openai.InternalServerError) as broken:
        await call
    assert broken.value.status_code == 502
    assert broken.value.code == "upstream_hung_up"
    assert (await newest(local))[0].outcome == "upstream_cut"
    assert await gone(pid)
    assert await own_child(sdk) != pid


async def test_the_model_ends_with_its_relay(local: Running, sdk: AsyncOpenAI, tmp_path: Path) -> None:
    mine = children()
    async with serving(tmp_path) as other:
        async with AsyncOpenAI(base_url=f"{other.url}/v1", api_key=other.key, max_retries=0) as client:
            pid = await own_child(client, mine)
        assert pid in children()
    assert await gone(pid)
    assert children() == mine


async def test_the_model_ends_even_with_a_relay_that_is_killed(model_installed: None, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    command = ("-m", "relay", "serve", "--config", str(config), "--db", str(tmp_path / "relay.db"), "--port", "0")
    relay = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        for _ in range(400):
            if mine := children(relay.pid):
                break
            await asyncio.sleep(0.05)
    finally:
        relay.kill()
        await relay.wait()
    (pid,) = mine
    assert await gone(pid)
