"""Budgets of keys in money, through the whole relay: not exceeded by one call, and never leaking."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from relay.app import RELAY, create_app
from relay.config import read_text
from relay.manager import Plugins
from relay.reload import reload
from tests.flow.conftest import ALONE, Running, Start, openai_config
from tests.flow.fake import DONE, FakeUpstream, Seen, chat_answer, chat_chunk, chat_stream, http, stream
from tests.flow.loops import RelayServer
from tests.promises.wire import until

DOLLAR = 10**9
UNIT = 10_000 * 1000
"""What one call of `ask` can cost at most, in nano-dollars: 10,000 output tokens at a dollar for a million."""


def config(upstream: FakeUpstream, more: str = "") -> str:
    """A model whose output costs a dollar for a million tokens, and whose input costs nothing."""
    return openai_config(upstream).replace("{input = 1.0, output = 2.0}", "{output = 1.0}") + more


def used(tokens: int) -> dict[str, Any]:
    return {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": tokens + 5}


def spends(tokens: int, wait: float = 0.0) -> Callable[[Seen], list[Any]]:
    """An upstream that takes its time and uses so many tokens."""

    def answer(seen: Seen) -> list[Any]:
        if seen.json.get("stream"):
            script = stream(
                chat_chunk({"content": "x"}),
                chat_chunk(finish="stop"),
                chat_chunk(choices=[], usage=used(tokens)),
                DONE,
            )
            return [script[0], wait, *script[1:]]
        return [wait, *chat_answer(usage=used(tokens))]

    return answer


async def ask(relay: Running, **body: Any) -> tuple[int, dict[str, Any], Any]:
    async with relay.chat(**{"max_tokens": 10_000, **body}) as response:
        raw = await response.read()
        return response.status, json.loads(raw) if not body.get("stream") or response.status != 200 else {}, response


async def spent(relay: Running) -> int:
    return sum(row.cost or 0 for row in await relay.rows())


@pytest.mark.promise("L-02")
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("window", ["day", "month", "total"])
async def test_two_hundred_calls_at_once_do_not_exceed_a_budget_by_one(
    start: Start, upstream: FakeUpstream, window: str, streamed: bool
) -> None:
    upstream.answer = spends(10_000, wait=0.5)
    relay = await start(config(upstream), key={"budget": {window: 10 * UNIT}})
    answers = await asyncio.gather(*(ask(relay, stream=streamed) for _ in range(200)))
    assert sorted(status for status, _, _ in answers) == [200] * 10 + [402] * 190
    refused = [(body, response) for status, body, response in answers if status == 402]
    for body, response in refused:
        assert body["error"]["code"] == "budget_exceeded"
        assert response.headers["x-should-retry"] == "false"
        assert "$0.1 " in body["error"]["message"]
    assert len(upstream.seen) == 10
    assert relay.relay.ledger.held() == 0
    assert await spent(relay) == 10 * UNIT
    assert (await ask(relay))[0] == 402


@pytest.mark.promise("L-02")
async def test_what_a_call_did_not_use_is_there_for_the_next(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = spends(2_500)
    relay = await start(config(upstream), key={"budget": {"day": 2 * UNIT}})
    admitted = 0
    while (await ask(relay))[0] == 200:
        admitted += 1
    # After five calls of a quarter, not a whole unit is left.
    assert admitted == 5
    assert await spent(relay) == 5 * UNIT // 4
    assert (await ask(relay, max_tokens=7_500))[0] == 200
    assert (await ask(relay, max_tokens=5_001))[0] == 402
    # A budget that is raised counts at once, and so does one that is lowered.
    key = await relay.relay.store.keys.update("test", budget={"day": 3 * UNIT})
    assert (await ask(relay))[0] == 200
    await relay.relay.store.keys.update(key.id, budget={"day": 1})
    assert (await ask(relay, max_tokens=1))[0] == 402
    await relay.relay.store.keys.update(key.id, budget={"day": 0})
    assert (await ask(relay))[0] == 200


async def again(relay: Running, path: Path, text: str) -> Running:
    """Another process on the same database, as after a restart."""
    app = await create_app(read_text(ALONE + text, "test.toml", {}), database=path)
    server = RelayServer(app)
    await server.start_server()
    await app[RELAY].listed.wait()
    return Running(app[RELAY], server, relay.key, relay.client)


@pytest.mark.promise("L-02")
@pytest.mark.promise("L-05")
async def test_what_was_spent_is_known_after_a_restart(start: Start, upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.answer = spends(10_000)
    text = "\n".join(line.strip() for line in config(upstream).splitlines())
    relay = await start(text, key={"budget": {"month": 2 * UNIT}})
    assert (await ask(relay))[0] == 200
    await relay.rows()
    second = await again(relay, relay.relay.store.database.path, text)
    try:
        assert [(await ask(second))[0] for _ in range(3)] == [200, 402, 402]
    finally:
        await second.server.close()


@pytest.mark.promise("L-05")
async def test_a_day_that_begins_has_its_whole_budget(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = spends(10_000)
    relay = await start(config(upstream), key={"budget": {"day": UNIT}})
    now = 1_900_022_399.0  # a second before midnight
    relay.relay.wall = lambda: now
    assert [(await ask(relay))[0] for _ in range(2)] == [200, 402]
    now += 2
    assert [(await ask(relay))[0] for _ in range(2)] == [200, 402]
    now -= 3600
    assert (await ask(relay))[0] == 402, "a clock that is set back gives nothing"
    now += 2 * 86_400
    assert [(await ask(relay))[0] for _ in range(2)] == [200, 402]


async def test_the_configured_budget_holds_for_keys_without_their_own(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = spends(10_000)
    more = "\n    [keys.budget]\n    day = 0.01\n"
    relay = await start(config(upstream, more))
    assert [(await ask(relay))[0] for _ in range(2)] == [200, 402]
    _, rich = await relay.relay.store.keys.create("rich", budget={"day": 0})
    relay.client.headers["Authorization"] = f"Bearer {rich}"
    assert [(await ask(relay))[0] for _ in range(2)] == [200, 200]


async def test_a_configuration_that_is_read_again_brings_its_budget(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = spends(10_000)
    relay = await start(config(upstream))
    assert [(await ask(relay))[0] for _ in range(2)] == [200, 200]
    text = ALONE + "\n".join(line.strip() for line in config(upstream).splitlines())
    await reload(relay.relay, read_text(text + "\n[keys.budget]\nday = 0.03\n", "test.toml", {}))
    assert [(await ask(relay))[0] for _ in range(2)] == [200, 402]
    await reload(relay.relay, read_text(text, "test.toml", {}))
    assert (await ask(relay))[0] == 200


@pytest.mark.promise("L-04")
async def test_changing_a_key_while_it_spends_changes_nothing_of_what_it_spent(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.answer = spends(1000)
    relay = await start(config(upstream), key={"budget": {"total": 10 * DOLLAR}})

    async def change() -> None:
        for number in range(100):
            await relay.relay.store.keys.update("test", metadata={"number": number})

    calls = [asyncio.create_task(ask(relay, stream=bool(number % 2))) for number in range(60)]
    await change()
    assert {status for status, _, _ in await asyncio.gather(*calls)} == {200}
    (account,) = relay.relay.ledger.accounts.values()
    assert account.of("total", 0) == await spent(relay) == 60 * 1000 * 1000
    assert account.held == 0


async def test_a_budget_that_comes_while_calls_run_knows_them(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = spends(10_000, wait=0.3)
    relay = await start(config(upstream))
    running = [asyncio.create_task(ask(relay)) for _ in range(5)]
    await until(lambda: len(upstream.seen) == 5)
    await relay.relay.store.keys.update("test", budget={"total": 8 * UNIT})
    assert (await ask(relay))[0] == 200
    await asyncio.gather(*running)
    (account,) = relay.relay.ledger.accounts.values()
    assert account.of("total", 0) == await spent(relay) == 6 * UNIT
    assert [(await ask(relay))[0] for _ in range(3)] == [200, 200, 402]


@pytest.mark.promise("L-16")
async def test_a_model_without_a_price_is_refused_to_keys_with_a_budget_or_costs_nothing(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plugins, "price", lambda *_: None)
    upstream.answer = spends(10_000)
    bare = "\n".join(line for line in config(upstream).splitlines() if "price" not in line)
    relay = await start(bare, key={"budget": {"day": 1}})
    status, body, response = await ask(relay)
    assert (status, body["error"]["code"]) == (402, "price_unknown")
    assert response.headers["x-should-retry"] == "false"
    await relay.relay.store.keys.update("test", budget={})
    assert (await ask(relay))[0] == 200, "without a budget it is nobody's business"
    lax = await start(bare + '\n    [keys]\n    unpriced = "allow"\n', key={"budget": {"day": 1}})
    assert (await ask(lax))[0] == 200
    assert (await lax.row()).cost is None
    assert lax.relay.ledger.held() == 0


@pytest.mark.promise("L-16")
async def test_a_price_that_is_forgotten_in_mid_call_gives_no_money_away(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plugins, "price", lambda *_: None)
    upstream.answer = spends(10, wait=0.3)
    relay = await start(config(upstream), key={"budget": {"day": 5 * UNIT}})
    call = asyncio.create_task(ask(relay))
    await until(lambda: len(upstream.seen) == 1)
    (model,) = (model for model in relay.relay.router.models() if model.id == "m")
    model.price = None
    assert (await call)[0] == 200
    assert (await relay.row()).cost == UNIT


@pytest.mark.promise("L-08")
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 2**63}, "max_tokens"),
        ({"max_tokens": 1000.5}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"n": 10**9}, "n"),
        ({"n": 0}, "n"),
        ({"n": -1}, "n"),
    ],
)
async def test_numbers_that_are_no_bounds_are_refused_by_name_and_nothing_is_set_aside(
    start: Start, upstream: FakeUpstream, body: dict[str, Any], param: str
) -> None:
    upstream.answer = spends(1)
    relay = await start(config(upstream), key={"budget": {"day": 5 * UNIT}})
    assert (await ask(relay))[0] == 200
    status, said, _ = await ask(relay, **body)
    assert (status, said["error"]["param"]) == (400, param)
    assert len(upstream.seen) == 1
    assert relay.relay.ledger.held() == 0


@pytest.mark.promise("L-08")
async def test_what_is_set_aside_is_the_product_and_exact(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = spends(1)
    relay = await start(config(upstream), key={"budget": {"day": 4 * UNIT}})
    assert (await ask(relay, n=4))[0] == 200
    # One token was used, so that a thousand nano-dollars are missing for four whole choices.
    assert (await ask(relay, n=4))[0] == 402
    assert (await ask(relay, n=4, max_tokens=9_999))[0] == 200
    status, said, _ = await ask(relay, max_tokens=2**31 - 1, n=128)
    assert status == 402
    assert f"${(2**31 - 1) * 128 / 10**6:g}"[:6] in said["error"]["message"]


ENDINGS: dict[str, Any] = {
    "success": lambda seen: chat_stream() if seen.json.get("stream") else chat_answer(),
    "refused": lambda seen: http({"error": {"message": "no", "type": "invalid_request_error"}}, 400),
    "broken": lambda seen: http({"error": {"message": "oh"}}, 500),
    "busy": lambda seen: http({"error": {"message": "later"}}, 429),
    "reset": lambda seen: ["rst"],
    "garbage": lambda seen: http(b"not json"),
    "cut": lambda seen: [*stream(chat_chunk({"content": "x"}), end=False), "fin"],
    "silent": lambda seen: ["stall"],
    "stuck": lambda seen: [*stream(chat_chunk({"content": "x"}), end=False), "stall"],
    "abort": lambda seen: ["stall"],
    "abort later": lambda seen: [*stream(chat_chunk({"content": "x"}), end=False), "stall"],
    "plugin": lambda seen: chat_stream() if seen.json.get("stream") else chat_answer(),
}


@pytest.mark.promise("L-06")
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("ending", ENDINGS)
async def test_nothing_stays_reserved_however_a_call_ends(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, ending: str, path: str
) -> None:
    upstream.answer = ENDINGS["success"]
    limits = {"concurrency": 1, "budget": {"day": 10**6 * UNIT}}
    relay = await start(
        # Every one of these calls is to come to its own ending.
        config(upstream, "[routing]\n    max_cool_down_seconds = 0\n    max_attempts = 1\n").replace(
            'api_key = "', 'first_byte_timeout = 0.05\n    idle_timeout = 0.05\n    api_key = "'
        ),
        key=limits,
    )

    async def once(*, streamed: bool, leave: bool = False) -> int:
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100, "stream": streamed}
        asked = len(upstream.seen)
        call = asyncio.create_task(_post(relay, path, body))
        if leave:
            await until(lambda: len(upstream.seen) > asked)
            await asyncio.sleep(0.01 if "later" in ending else 0)
            call.cancel()
        try:
            return await call
        except (asyncio.CancelledError, aiohttp.ClientError):
            return 0

    assert await once(streamed=False) == 200
    upstream.answer = ENDINGS[ending]
    with monkeypatch.context() as patch:
        if ending == "plugin":
            calls = relay.relay.plugins.families["openai"]._calls
            for name in ("meter_response", "meter_stream", "translate_response", "translate_stream"):
                patch.setitem(calls, name, _raises)
        for number in range(20):
            await once(streamed=bool(number % 2), leave=ending.startswith("abort"))
            await until(lambda: relay.relay.limiter.running() == 0)
            assert relay.relay.ledger.held() == 0
    upstream.answer = ENDINGS["success"]
    for streamed in (False, True):
        assert await once(streamed=streamed) == 200
    await until(lambda: relay.relay.limiter.running() == 0)
    assert relay.relay.ledger.held() == 0
    rows = await relay.rows()
    assert len(rows) == 23
    (account,) = relay.relay.ledger.accounts.values()
    assert account.of("total", 0) == sum(row.cost or 0 for row in rows)


def _raises(*_: Any, **__: Any) -> Any:
    raise RuntimeError("a plugin's fault")


async def _post(relay: Running, path: str, body: dict[str, Any]) -> int:
    async with relay.client.post(relay.url + path, json=body) as response:
        await response.read()
        return response.status


@pytest.mark.promise("L-07")
async def test_a_stalled_writer_keeps_no_place_and_no_money(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = spends(10)
    relay = await start(config(upstream), key={"concurrency": 1, "budget": {"day": 5 * UNIT}})
    assert (await ask(relay))[0] == 200
    await relay.rows()
    release = asyncio.Event()

    async def held(_: Any) -> None:
        await release.wait()

    blocker = asyncio.create_task(relay.relay.store.database.write(held))
    began = time.monotonic()
    for _ in range(10):
        assert (await ask(relay))[0] == 200
        assert relay.relay.ledger.held() == 0
    assert time.monotonic() - began < 4
    release.set()
    await blocker
    assert len(await relay.rows()) == 11


async def test_a_database_that_cannot_be_read_refuses_whom_it_cannot_judge(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.answer = spends(10)
    relay = await start(config(upstream), key={"budget": {"day": 5 * UNIT}})

    async def broken(*_: Any) -> Any:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(relay.relay.store.spending, "of", broken)
        status, body, response = await ask(relay)
        assert (status, body["error"]["code"]) == (503, "unavailable")
        assert response.headers["retry-after"] == "1"
    assert (await ask(relay))[0] == 200
