"""The well-known tool for holding servers up with slow heads, slow bodies and slow readers: others are served all the
while, and those are let go."""

from __future__ import annotations

import asyncio
import re
import shutil
import textwrap
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.flow.conftest import openai_config
from tests.flow.fake import FakeUpstream, chat_answer
from tests.promises.served import Served, served
from tests.promises.test_load import descriptors

SECONDS = 6
CONNECTIONS = 150
MODES = {
    "slow heads": ("-H", "-i", "1", "-x", "10", "-t", "GET"),
    "slow bodies": ("-B", "-i", "1", "-s", "8192", "-x", "10", "-f", "application/json"),
    "slow readers": ("-X", "-n", "2", "-z", "32", "-k", "10"),
}
SETTINGS = "[server]\nhead_timeout = 2.0\nbody_timeout = 2.0\nwrite_timeout = 2.0\nwrong_keys_per_minute = 0\n"


async def attacked(program: str, relay: Served, mode: str) -> str:
    """What the tool says after its time."""
    path = "/v1/models" if mode == "slow readers" else "/v1/chat/completions"
    # It sends no header of ours but a cookie; behind that there is room for another line, and for a key that is good.
    key = f"a=1\r\nAuthorization: Bearer {relay.key}"
    process = await asyncio.create_subprocess_exec(
        *(program, *MODES[mode], "-c", str(CONNECTIONS), "-r", str(CONNECTIONS), "-l", str(SECONDS), "-p", "3"),
        *("-u", f"http://127.0.0.1:{relay.port}{path}", "-j", key),
        stdin=PIPE,
        stdout=PIPE,
        stderr=STDOUT,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), SECONDS * 4)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", out.decode("utf-8", "replace"))


@pytest.mark.promise("H-04")
@pytest.mark.timeout(SECONDS * 6)
async def test_the_tool_for_slow_attacks_holds_nobody_up(tmp_path: Path, upstream: FakeUpstream) -> None:
    program = shutil.which("slowhttptest")
    if program is None:
        missing("slowhttptest is not installed", "I8RELAY_REQUIRE_SLOWHTTPTEST")
    assert program is not None
    upstream.answer = lambda seen: chat_answer()
    models = "".join(f'[models.m{number}]\ntargets = ["up/m-{number}"]\n' for number in range(30))
    async with served(tmp_path, textwrap.dedent(openai_config(upstream)) + models + SETTINGS) as relay:
        attacks = asyncio.gather(*(attacked(program, relay, mode) for mode in MODES))
        answered = 0
        while not attacks.done():
            said = await relay.ask(relay.chat())
            assert said.status == 200
            answered += 1
            await asyncio.sleep(0.1)
        for mode, text in zip(MODES, await attacks, strict=True):
            verdicts = re.findall(r"service available:\s*(YES|NO)", text)
            assert verdicts, (mode, text[-2000:])
            assert set(verdicts) == {"YES"}, (mode, text[-2000:])
        assert answered > SECONDS
        # None of them is still there.
        deadline = asyncio.get_running_loop().time() + 10
        while descriptors(relay.process.pid) > 100:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.1)
        assert (await relay.ready())[0] == 200
        relay.process.terminate()
        status, log = await relay.end()
    assert status == 0
    assert "Traceback" not in log
