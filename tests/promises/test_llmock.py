"""What somebody else's chaos server says of the relay as a client, call by call.

llmock breaks what it serves as it is told, keeps a journal of every attempt, and judges its client by that. It sees the
relay and not the relay's clients; so here these are as their SDKs are: they try again what they are told to try again,
and only then. A stream that was cut is asked for again if, and only if, its client was told that it was cut.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import missing
from tests.flow.conftest import Running, Start
from tests.promises.families import KINDS, STREAMS, WHOLES, Got, Way, ask
from tests.promises.served import environment

PROGRAM = Path(sys.executable).parent / "llmock"
BASES = {"openai-chat": "/v1", "openai-responses": "/v1", "anthropic-messages": "/anthropic", "gemini": "/gemini"}
LONGEST_WAIT = 3.0
"""Seconds that a client waits because it was told to; longer, and it gives up."""
TRIES = 4
AT_A_TIME = 30
"""Calls. The server is slow where the machine is, and must not be taken for one that stalls."""

ERRORS: dict[str, dict[str, Any]] = {
    "over its limit": {"status": 429, "retry_after": 0.3},
    "over its limit twice": {"status": 429, "retry_after": 0.3, "times": 2},
    "over its limit, and asks for nothing": {"status": 429},
    "overloaded": {"status": 503, "retry_after": 0.6},
    "overloaded in its own way": {"status": 529, "retry_after": 0.4},
    "broken": {"status": 500, "retry_after": 0.2},
    "a bad gateway": {"status": 502, "retry_after": 1.2},
    "wants a long rest": {"status": 503, "retry_after": 9.0},
    "a bad request": {"status": 400},
    "a bad key": {"status": 401},
    "forbidden": {"status": 403},
    "not there": {"status": 404},
    "not to be processed": {"status": 422},
}
FAULTS: dict[str, dict[str, Any]] = {
    f"{kind} after {chunks}": {
        "kind": kind,
        "after_chunks": chunks,
        **({"stall_seconds": 12.0} if kind == "stall" else {}),
    }
    for kind in ("disconnect", "truncate", "malformed", "stall")
    for chunks in (0, 1, 3)
}


@dataclass
class Asked:
    """One call of a client's, with all that it tried."""

    way: Way
    what: str
    model: str
    script: dict[str, Any]
    got: list[Got] = field(default_factory=list)


def calls() -> Iterator[Asked]:
    """Every fault in every format, each for a model of its own, so that it is known whose it is."""
    number = count()
    for way in (*STREAMS, *WHOLES):
        scripts = {name: {"type": "fail", **script} for name, script in ERRORS.items()}
        if way.streamed:
            scripts |= {name: {"type": "stream_fault", **script} for name, script in FAULTS.items()}
            scripts["a slow beginning"] = {"type": "slow_first_token", "seconds": 0.3}
        scripts["nothing"] = {}
        for what, script in scripts.items():
            yield Asked(way, what, f"mock-{next(number)}", script)


@asynccontextmanager
async def llmock(folder: Path, port: int) -> AsyncIterator[str]:
    """The server on that port; its address."""
    process = await asyncio.create_subprocess_exec(
        *(str(PROGRAM), "serve", "--host", "127.0.0.1", "--port", str(port), "--log-level", "critical"),
        env=environment(folder, LLMOCK_STREAM_CHUNK_DELAY_MS="5"),
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(20):
            while True:
                assert process.returncode is None, "it has ended"
                try:
                    async with session.get(f"{url}/health") as response:
                        if response.status == 200:
                            break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)
        yield url
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def config(url: str, asked: list[Asked], routing: str) -> str:
    """Upstreams of every format; those whose keys are refused have keys of their own."""
    upstreams = {}
    for one in asked:
        name = upstream_of(one)
        upstreams[name] = (
            f"[upstreams.{name}]\nfamily = '{KINDS[one.way.kind].family}'\napi_key = 'sk-CANARY-{name}'\n"
            f"base_url = '{url}{BASES[one.way.kind]}'\ndialects = ['{one.way.kind}']\n"
            "idle_timeout = 1.5\nfirst_byte_timeout = 4.0\n"
        )
    models = "".join(f"[models.{one.model}]\ntargets = ['{upstream_of(one)}/{one.model}']\n" for one in asked)
    return "".join(upstreams.values()) + models + f"[routing]\nretry_budget = 1.0\n{routing}\n"


def upstream_of(one: Asked) -> str:
    return f"{one.way.kind}-{one.model}" if one.script.get("status") in (401, 403) else one.way.kind


async def client(relay: Running, one: Asked) -> None:
    """Ask as an SDK does: again, after the time that was told, what can pass or was broken off."""
    for _ in range(TRIES):
        got = await ask(relay, one.way, model=one.model)
        one.got.append(got)
        if got.finished or got.headers.get("x-should-retry") == "false":
            return
        if got.status != 200 and got.status not in (408, 409, 429) and got.status < 500:
            return
        wait = float(got.headers.get("retry-after-ms", 100)) / 1000
        if wait > LONGEST_WAIT:
            return
        await asyncio.sleep(wait)


def is_late(record: dict[str, Any], of_its_model: list[dict[str, Any]]) -> bool:
    """The server went on with this broken stream when its client had already left, as far as it can tell."""
    if not (record["fault"] or "").startswith("stream:malformed"):
        return False
    return record["completed"] or any(
        record["started_at"] < later["started_at"] < record["ended_at"] for later in of_its_model
    )


@pytest.mark.timeout(120)
@pytest.mark.promise("F-07")
@pytest.mark.promise("F-09")
@pytest.mark.promise("U-01")
@pytest.mark.parametrize(
    "routing",
    ["", "max_cool_down_seconds = 0", "max_cool_down_seconds = 0\nmax_attempts = 4"],
    ids=["as it comes", "without cool-downs", "without cool-downs, with more retries"],
)
async def test_a_chaos_server_has_nothing_to_say_against_the_relay(
    start: Start, tmp_path: Path, unused_tcp_port: int, routing: str
) -> None:
    if not PROGRAM.exists():
        missing("llmock is not installed", "I8RELAY_REQUIRE_LLMOCK")
    asked = list(calls())
    async with llmock(tmp_path, unused_tcp_port) as url, aiohttp.ClientSession(base_url=url) as admin:
        behaviors = [{**one.script, "match": {"model": one.model}} for one in asked if one.script]
        async with admin.post("/_llmock/scenario", json={"behaviors": behaviors}) as response:
            assert response.status == 201, await response.text()
        relay = await start(config(url, asked, routing))
        places = asyncio.Semaphore(AT_A_TIME)

        async def placed(one: Asked) -> None:
            async with places:
                await client(relay, one)

        await asyncio.gather(*(placed(one) for one in asked))
        async with admin.get("/_llmock/requests") as response:
            records: list[dict[str, Any]] = (await response.json())["requests"]
        async with admin.get("/_llmock/verdict") as response:
            verdict: dict[str, Any] = await response.json()
        async with admin.get("/_llmock/scenario") as response:
            assert (await response.json())["pending"] == [], "every fault was met"
    await relay.relay.store.usage.flush()
    rows = [row for row in await relay.relay.store.usage.rows(limit=10_000) if row.operation == "generate"]
    by_model: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        by_model[record["model"]].append(record)
    for one in asked:
        mine = by_model[one.model]
        own = sorted((row for row in rows if row.model == one.model), key=lambda row: row.id or 0)
        where = (one, [(row.outcome, row.attempts) for row in own], mine)
        assert mine, where
        # Every attempt is in a row, and nothing else; every answer to a client has its row.
        assert sum(row.attempts for row in own) == len(mine), where
        assert len(own) == len(one.got), where
        # Whoever was not given a whole answer was told so.
        assert all(got.finished or got.error for got in one.got), where
        broken = [record for record in mine if (record["fault"] or "").startswith("stream:")]
        cut = [row for row in own if row.outcome in ("upstream_cut", "timeout")]
        assert len(broken) == len(cut) == (1 if one.what in FAULTS else 0), where
        if one.what in FAULTS or one.what == "nothing":
            assert one.got[-1].finished, where
        if one.script.get("status") in (400, 401, 403, 404, 422):
            assert len(mine) == 1, where
    findings = verdict["findings"]
    print(json.dumps({name: verdict[name] for name in ("calls", "attempts", "faults_injected", "errors", "warnings")}))
    assert verdict["passed"], findings
    assert verdict["faults_injected"] >= len(asked) - len(STREAMS) * 2 - len(WHOLES)
    # Who is told to wait for long does not come back: that is all there is to say. But where the server saw too late
    # that nobody wanted a broken stream any more, after its last byte or when the next call had already come, it does
    # not know that this one was asked for because of that one; each was matched with its row and what its client heard.
    codes = Counter(found["code"] for found in findings)
    late = [record for record in records if is_late(record, by_model[record["model"]])]
    assert codes.pop("gave_up") == len((*STREAMS, *WHOLES))
    assert codes.pop("malformed_chunk_ignored", 0) <= len(late)
    assert not codes
