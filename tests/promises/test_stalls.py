"""A plugin that holds the event loop up is named, by a thread, while it does so."""

from __future__ import annotations

import asyncio
import json
import sys
import textwrap
import time
from pathlib import Path

import pytest

from relay.stalls import LONG, LOOK, Stalls
from tests.flow.conftest import openai_config
from tests.flow.fake import FakeUpstream, chat_answer
from tests.promises.served import served

HOLD = 2 * (LOOK + LONG) + 0.3
"""Seconds in which there is a look in any case."""


def sleepy() -> None:
    until = time.monotonic() + HOLD
    while time.monotonic() < until:
        pass


@pytest.mark.promise("X-07")
async def test_whoever_holds_the_loop_up_is_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    stalls = Stalls(lambda: {__name__.partition(".")[0]})
    stalls.start()
    try:
        await asyncio.sleep(2 * LOOK)
        assert stalls.tell() == {"stalls": 0, "longest_ms": 0}, "to wait is not to hold anybody up"
        sleepy()
        await asyncio.sleep(LOOK)
        told = stalls.tell()
        assert told["stalls"] == 1
        assert told["longest_ms"] >= LONG * 1000
        assert f"in {__name__}.sleepy, line " in caplog.text
        # One more is counted, and not said so soon.
        sleepy()
        await asyncio.sleep(LOOK)
        assert stalls.count == 2
        assert caplog.text.count("was held up") == 1
    finally:
        stalls.stop()


async def test_what_nobody_known_does_is_not_counted() -> None:
    stalls = Stalls(lambda: {"nobody"})
    frame = sys._getframe()
    assert stalls._place(frame) is None
    assert stalls._place(None) is None
    mine = Stalls(lambda: {"tests", __name__.partition(".")[0]})._place(frame)
    assert mine is not None
    assert "test_what_nobody_known_does_is_not_counted" in mine


PLUGIN = """
import time
from relay import hookimpl

@hookimpl(wrapper=True)
def translate_response():
    time.sleep(1.2)
    return (yield)
"""


@pytest.mark.promise("X-07")
async def test_a_relay_that_serves_names_the_plugin(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_answer()]
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "sleepyhead.py").write_text(textwrap.dedent(PLUGIN))
    text = textwrap.dedent(openai_config(upstream)) + f"\n[plugins]\nfolder = '{folder}'\n"
    # Translated, so that it is asked.
    async with served(tmp_path, text) as relay:
        said = await relay.ask(relay.chat(path="/v1/messages", max_tokens=5))
        assert said.status == 200
        await asyncio.sleep(LOOK)
        _, told = await relay.ready()
        assert told["loop"]["stalls"] == 1, json.dumps(told)
        assert told["loop"]["longest_ms"] > 900
        relay.process.terminate()
        status, log = await relay.end()
    assert status == 0
    assert "sleepyhead" in log.partition("was held up")[2].partition("\n")[0], log
