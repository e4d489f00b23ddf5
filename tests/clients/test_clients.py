"""Each real client, with its normal settings, calls a tool once, on hosts of its own kind and of all the others."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.clients.programs import FOLDER, PROGRAMS, Place, Program, installed
from tests.clients.scripted import FINAL, MARK, Model
from tests.flow.conftest import Start
from tests.flow.fake import FakeUpstream

pytestmark = pytest.mark.clients
SECONDS = 90.0
REQUIRED = os.environ.get("I8RELAY_REQUIRE_CLIENTS") == "1"

FAMILIES: Mapping[str, str] = {
    "chat": 'family = "openai"\nbase_url = "{url}/v1"\n',
    "responses": 'family = "openai"\nbase_url = "{url}/v1"\ndialects = ["openai-responses"]\n',
    "messages": 'family = "anthropic"\nbase_url = "{url}"\n',
    "gemini": 'family = "gemini"\nbase_url = "{url}"\n',
}
"""An upstream of each kind, as the configuration says it."""
ASKED = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "gemini": "/v1beta/models/m-1:streamGenerateContent",
}
"""Where each kind is asked."""


async def run(program: Program, place: Place) -> str:
    """What a program prints, whichever way. Fails if it takes too long or ends with an error."""
    environment = {
        "PATH": f"{FOLDER / 'node_modules' / '.bin'}:{os.environ['PATH']}",
        "HOME": str(place.home),
        "CI": "1",
        "TERM": "dumb",
        "NO_PROXY": "127.0.0.1,localhost",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        **program.env(place),
    }
    work = place.home / "work"
    work.mkdir()
    process = await asyncio.create_subprocess_exec(
        *program.command(place),
        cwd=work,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(SECONDS):
            said, _ = await process.communicate()
    except TimeoutError:
        os.killpg(process.pid, 9)
        said, _ = await process.communicate()
        raise AssertionError(f"it took longer than {SECONDS:g} seconds; it said: {said.decode()[-2000:]}") from None
    text = said.decode(errors="replace")
    assert process.returncode == 0, text[-3000:]
    return text


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_real_client_calls_a_tool_through_the_relay(
    start: Start, upstream: FakeUpstream, tmp_path: Path, name: str, family: str
) -> None:
    if not installed("node") and not REQUIRED:
        pytest.skip("the clients are not installed (make clients)")
    program = PROGRAMS[name]
    model = Model()
    upstream.answer = model.answer
    relay = await start(
        "[upstreams.up]\n"
        + FAMILIES[family].replace("{url}", upstream.url)
        + 'api_key = "sk-CANARY-upstream-key"\n'
        + '[models."relay-model"]\ntargets = ["up/m-1"]\nprice = {input = 1.0, output = 2.0}\n'
    )
    home = tmp_path / "home"
    home.mkdir()

    text = await run(program, Place(relay.url, relay.key, "relay-model", home))

    if program.agent:
        assert MARK in text
    else:
        said = json.loads(next(line for line in text.splitlines() if line.startswith('{"text"')))
        assert said["calls"] == [{"city": "Oslo"}]
        assert " ".join(said["text"].split()) == FINAL
    assert model.saw_the_result(), "the upstream never got what the tool said"
    assert {seen.path.partition("?")[0] for seen in model.asked} == {ASKED[family]}
    assert all(model.streamed)
    assert all(
        "CANARY" in json.dumps(seen.headers) and relay.key not in json.dumps(seen.headers) for seen in model.asked
    )
    rows = await relay.rows()
    assert [row.outcome for row in rows] == ["ok"] * len(model.asked)
    assert {row.usage_source for row in rows} == {"provider"}
    assert all(row.usage is not None and (row.usage.input, row.usage.output) == (50, 7) for row in rows)
    assert all(row.cost == 50_000 + 14_000 for row in rows)
