"""Calls that wait for a place, through the whole relay: in turn, bounded, and gone when their client is."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import FakeUpstream, Seen, chat_answer, chat_stream, http
from tests.promises.wire import post, until, wire


def at_the_model(upstream: FakeUpstream, **settings: Any) -> str:
    lines = "".join(f"    {name} = {value}\n" for name, value in settings.items())
    return openai_config(upstream) + "\n" + lines


def at_the_upstream(upstream: FakeUpstream, **settings: Any) -> str:
    lines = "".join(f"{name} = {value}\n    " for name, value in settings.items())
    return openai_config(upstream).replace('api_key = "', lines + 'api_key = "')


PLACES = {"model": at_the_model, "upstream": at_the_upstream}
at = pytest.mark.parametrize("where", PLACES)


class Doorman:
    """An upstream whose calls end when the test says so."""

    def __init__(self, upstream: FakeUpstream) -> None:
        self.upstream = upstream
        self.open: list[asyncio.Event] = []
        upstream.answer = self.answer

    def answer(self, seen: Seen) -> Any:
        go = asyncio.Event()
        self.open.append(go)
        text = seen.json["messages"][0]["content"]
        return [go, *(chat_stream(text) if seen.json.get("stream") else chat_answer(text))]

    @property
    def order(self) -> list[str]:
        return [seen.json["messages"][0]["content"] for seen in self.upstream.seen]

    async def end(self, count: int) -> None:
        """End the oldest call, once there are so many."""
        await until(lambda: len(self.upstream.seen) >= count)
        self.open[count - 1].set()


def said(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


async def ask(relay: Running, text: str, secret: str = "", **body: Any) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {secret or relay.key}"}
    value = {"model": "m", **said(text), **body}
    async with relay.client.post(f"{relay.url}/v1/chat/completions", json=value, headers=headers) as response:
        raw = await response.read()
        return response.status, "" if response.status == 200 else json.loads(raw)["error"]["code"]


@pytest.mark.promise("L-11")
@at
async def test_calls_beyond_the_limit_wait_key_by_key_and_overflow_at_once(
    start: Start, upstream: FakeUpstream, where: str
) -> None:
    door = Doorman(upstream)
    relay = await start(PLACES[where](upstream, concurrency=1, queue=4))
    _, other = await relay.relay.store.keys.create("other")
    calls = [asyncio.create_task(ask(relay, "a1", stream=True))]
    await until(lambda: len(upstream.seen) == 1)
    for number, (text, secret) in enumerate((("a2", ""), ("a3", ""), ("b1", other), ("a4", "")), 1):
        calls.append(asyncio.create_task(ask(relay, text, secret)))
        await until(lambda: len(relay.relay.lines) == number)  # noqa: B023
    full = "queue_full" if where == "model" else "upstream_full"
    assert await ask(relay, "a5") == (429, full)
    # One of a key that has less in the line has its place: the newest of the other goes.
    calls.append(asyncio.create_task(ask(relay, "b2", other)))
    assert await calls[4] == (429, full)
    for count in range(1, 6):
        await door.end(count)
    assert [await call for call in calls] == [(200, "")] * 4 + [(429, full), (200, "")]
    assert door.order == ["a1", "a2", "b1", "a3", "b2"]
    assert len(relay.relay.lines) == 0
    assert relay.relay.limiter.running() == 0
    rows = await relay.rows()
    assert sorted(row.outcome for row in rows).count("ok") == 5
    assert len(rows) == 7


@pytest.mark.promise("L-11")
@at
async def test_a_client_that_leaves_gives_its_place_in_the_line_away(
    start: Start, upstream: FakeUpstream, where: str
) -> None:
    door = Doorman(upstream)
    relay = await start(PLACES[where](upstream, concurrency=1, queue=1))
    first = asyncio.create_task(ask(relay, "1"))
    await until(lambda: len(upstream.seen) == 1)
    async with wire(relay) as connection:
        connection.send(post(relay.key, **said("2")))
        await until(lambda: len(relay.relay.lines) == 1)
    await until(lambda: len(relay.relay.lines) == 0)
    third = asyncio.create_task(ask(relay, "3"))
    await until(lambda: len(relay.relay.lines) == 1)
    await door.end(1)
    await door.end(2)
    assert [await first, await third] == [(200, "")] * 2
    assert door.order == ["1", "3"]
    assert relay.relay.limiter.running() == 0
    rows = {row.outcome: row for row in await relay.rows()}
    assert sorted(rows) == ["client_abort", "ok"]
    assert rows["client_abort"].cost == 0


@pytest.mark.promise("L-11")
@at
async def test_nobody_waits_longer_than_was_said(start: Start, upstream: FakeUpstream, where: str) -> None:
    door = Doorman(upstream)
    relay = await start(PLACES[where](upstream, concurrency=1, queue=5, queue_seconds=0.05))
    first = asyncio.create_task(ask(relay, "1"))
    await until(lambda: len(upstream.seen) == 1)
    assert await ask(relay, "2") == (429, "queue_timeout" if where == "model" else "upstream_full")
    await door.end(1)
    assert await first == (200, "")
    assert relay.relay.limiter.running() == 0


@at
async def test_without_a_line_nobody_waits(start: Start, upstream: FakeUpstream, where: str) -> None:
    door = Doorman(upstream)
    relay = await start(PLACES[where](upstream, concurrency=1))
    first = asyncio.create_task(ask(relay, "1"))
    await until(lambda: len(upstream.seen) == 1)
    refused = "concurrency_limit_exceeded" if where == "model" else "upstream_full"
    assert await ask(relay, "2") == (429, refused)
    await door.end(1)
    assert await first == (200, "")


@pytest.mark.promise("L-06")
@at
@pytest.mark.parametrize("how", ["ok", "400", "500", "cut", "left", "left in the middle", "no upstream"])
async def test_a_place_is_given_on_however_the_call_before_ends(
    start: Start, upstream: FakeUpstream, where: str, how: str
) -> None:
    scripts: dict[str, Any] = {
        "ok": chat_answer(),
        "400": http({"error": {"message": "no"}}, 400),
        "500": http({"error": {"message": "no"}}, 500),
        "cut": ["fin"],
        "left": ["stall"],
        "left in the middle": [*chat_stream()[:2], "stall"],
        "no upstream": ["rst"],
    }
    go = asyncio.Event()
    wait = [] if how.startswith("left") else [go]
    upstream.answer = lambda seen: [*wait, *scripts[how]] if len(upstream.seen) == 1 else chat_answer()
    once = "\n    [routing]\n    max_attempts = 1\n    max_cool_down_seconds = 0\n"
    relay = await start(PLACES[where](upstream, concurrency=1, queue=3) + once)
    async with wire(relay) as connection:
        connection.send(post(relay.key, stream=how == "left in the middle"))
        await until(lambda: len(upstream.seen) == 1)
        second = asyncio.create_task(ask(relay, "2"))
        await until(lambda: len(relay.relay.lines) == 1)
        go.set()
        if not how.startswith("left"):
            await connection.answer()
    assert await second == (200, "")
    assert relay.relay.limiter.running() == 0
    assert relay.relay.lines._lines == {}


async def test_a_full_upstream_is_passed_over_for_the_next_target(start: Start, upstream: FakeUpstream) -> None:
    door = Doorman(upstream)
    second = FakeUpstream(scripts=[chat_answer("elsewhere")])
    await second.start()
    try:
        config = at_the_upstream(upstream, concurrency=1).replace('["up/m-1"]', '["up/m-1", "b/m-1"]')
        relay = await start(config + f'\n    [upstreams.b]\n    family = "openai"\n    base_url = "{second.url}/v1"\n')
        first = asyncio.create_task(ask(relay, "1"))
        await until(lambda: len(upstream.seen) == 1)
        async with relay.chat() as response:
            assert (response.status, response.headers["x-relay-upstream"]) == (200, "b")
        assert not relay.relay.dispatch.health.circuits, "nothing is held against one that is merely full"
        await door.end(1)
        assert await first == (200, "")
    finally:
        await second.stop()


async def test_money_that_the_call_before_set_aside_is_there_for_the_one_that_waits(
    start: Start, upstream: FakeUpstream
) -> None:
    door = Doorman(upstream)
    relay = await start(at_the_model(upstream, concurrency=1, queue=2), key={"budget": {"total": 3_000_000}})
    first = asyncio.create_task(ask(relay, "1", max_tokens=1000))
    await until(lambda: len(upstream.seen) == 1)
    second = asyncio.create_task(ask(relay, "2", max_tokens=1000))
    # It would not fit beside the first one, which is known before it has to wait.
    assert await second == (402, "budget_exceeded")
    third = asyncio.create_task(ask(relay, "3", max_tokens=1))
    await until(lambda: len(relay.relay.lines) == 1)
    await door.end(1)
    await door.end(2)
    assert [await first, await third] == [(200, "")] * 2
