"""Every ending leaves one row, which says how the call ended and how its use is known."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import aiohttp
import pytest

from relay.store import Store
from relay.store.database import Database
from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import DONE, USAGE, FakeUpstream, chat_answer, chat_chunk, chat_stream, stream
from tests.promises.wire import post, until, wire

ROLE = chat_chunk({"role": "assistant", "content": ""})
TEXT = chat_chunk({"content": "four words of text"})
FINISH = chat_chunk(finish="stop")
COUNT = chat_chunk(choices=[], usage=USAGE)

POINTS: dict[str, tuple[bytes, ...] | None] = {
    "nothing": None,
    "preamble": (ROLE,),
    "text": (ROLE, TEXT),
    "last text": (ROLE, TEXT, FINISH),
    "count": (ROLE, TEXT, FINISH, COUNT),
}
"""How far the upstream comes."""
SEEN = {"nothing": "none", "preamble": "none", "text": "estimate", "last text": "estimate", "count": "partial"}
"""What is known of its use then, where the answer does not come to its end."""
WHOLE = b"".join(step for step in chat_answer() if isinstance(step, bytes))


def reached(point: str, then: str) -> list[Any]:
    """An upstream that comes so far and then does that."""
    pieces = POINTS[point]
    return [then] if pieces is None else [*stream(*pieces, end=False), then]


def config(upstream: FakeUpstream) -> str:
    return openai_config(upstream).replace(
        'api_key = "', 'first_byte_timeout = 0.2\n    idle_timeout = 0.2\n    api_key = "'
    )


async def finished(relay: Running, rows: int = 1) -> Any:
    """The row of the last call, once nothing is in flight."""
    await until(lambda: relay.relay.limiter.running() == 0)
    found = await relay.rows()
    assert len(found) == rows
    journal = relay.relay.store.journal
    assert journal is not None
    assert journal.in_use() == 0
    return found[0]


async def read(relay: Running, *, streamed: bool) -> None:
    with contextlib.suppress(aiohttp.ClientError):
        async with relay.chat(stream=streamed) as response:
            await response.read()


@pytest.mark.promise("F-03")
@pytest.mark.parametrize("point", POINTS)
async def test_a_client_that_leaves_a_stream(start: Start, upstream: FakeUpstream, point: str) -> None:
    upstream.answer = lambda seen: reached(point, "stall")
    relay = await start(openai_config(upstream))
    for number in range(5):
        task = asyncio.create_task(read(relay, streamed=True))
        await until(lambda number=number: len(upstream.seen) > number)  # type: ignore[misc]
        # Time for what was sent to come through; how much of it did is what the row tells.
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        row = await finished(relay, number + 1)
        assert (row.outcome, row.status, row.stream) == ("client_abort", 499, True)
        assert row.usage_source == SEEN[point]
        if SEEN[point] == "none":
            assert (row.usage, row.cost) == (None, 0)
        else:
            assert row.usage.output > 0
            assert row.cost > 0


@pytest.mark.promise("F-03")
@pytest.mark.parametrize(("then", "outcome"), [("fin", "upstream_cut"), ("rst", "upstream_cut"), ("stall", "timeout")])
@pytest.mark.parametrize("point", POINTS)
async def test_an_upstream_that_breaks_a_stream_off(
    start: Start, upstream: FakeUpstream, point: str, then: str, outcome: str
) -> None:
    upstream.answer = lambda seen: reached(point, then)
    relay = await start(config(upstream))
    await read(relay, streamed=True)
    row = await finished(relay)
    if point == "nothing" and outcome == "upstream_cut":
        # It never began to answer: that is no stream which was cut.
        assert row.outcome in ("upstream_cut", "upstream_error")
    else:
        assert row.outcome == outcome
    assert row.usage_source == SEEN[point]
    assert row.cost == 0 if SEEN[point] == "none" else row.cost > 0


@pytest.mark.promise("F-03")
@pytest.mark.parametrize("sent", [0, 1, 100, len(WHOLE) - 1])
@pytest.mark.parametrize("then", ["fin", "rst", "stall", "leave"])
async def test_a_complete_answer_that_never_is(start: Start, upstream: FakeUpstream, sent: int, then: str) -> None:
    upstream.answer = lambda seen: [WHOLE[:sent], "stall" if then == "leave" else then] if sent else ["stall"]
    relay = await start(openai_config(upstream) if then == "leave" else config(upstream))
    task = asyncio.create_task(read(relay, streamed=False))
    if then == "leave":
        await until(lambda: len(upstream.seen) == 1)
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    row = await finished(relay)
    expected = {"leave": {"client_abort"}, "stall": {"timeout"}}.get(then, {"upstream_cut", "upstream_error"})
    assert row.outcome in (expected if sent or then == "leave" else {"timeout"})
    assert (row.usage_source, row.usage, row.cost, row.stream) == ("none", None, 0, False)


@pytest.mark.promise("F-03")
@pytest.mark.parametrize("abort", ["cancel", "drain"])
@pytest.mark.parametrize("calls", [1, 2], ids=["a new connection", "an open one"])
async def test_a_client_that_leaves_with_its_whole_answer_is_no_abort(
    start: Start, upstream: FakeUpstream, calls: int, abort: str
) -> None:
    # The upstream has said everything and does not end its body: the client does not have to wait for that.
    upstream.scripts = [
        *[chat_stream()] * (calls - 1),
        [*stream(ROLE, TEXT, FINISH, COUNT, DONE, end=False), "stall"],
    ]
    relay = await start(openai_config(upstream).replace('api_key = "', f'abort = "{abort}"\n    api_key = "'))
    if calls == 2:
        await read(relay, streamed=True)
    async with wire(relay) as connection:
        connection.send(post(relay.key, stream=True))
        await connection.reader.readuntil(b"[DONE]")
    row = await finished(relay, calls)
    assert (row.outcome, row.status, row.usage_source) == ("ok", 200, "provider")


@pytest.mark.promise("F-03")
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_that_comes_to_its_end(start: Start, upstream: FakeUpstream, streamed: bool) -> None:
    upstream.answer = lambda seen: stream(ROLE, TEXT, FINISH, COUNT, DONE) if streamed else chat_answer()
    relay = await start(openai_config(upstream))
    await read(relay, streamed=streamed)
    row = await finished(relay)
    assert (row.outcome, row.usage_source, row.status) == ("ok", "provider", 200)
    assert row.cost == 11 * 1000 + 3 * 2000


@pytest.mark.promise("F-03")
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_plugin_that_raises(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    upstream.answer = lambda seen: chat_stream() if streamed else chat_answer()
    relay = await start(openai_config(upstream))

    def broken(*_: Any) -> Any:
        raise RuntimeError("a plugin's fault")

    monkeypatch.setitem(relay.relay.plugins.families["openai"]._calls, "endpoint", broken)
    await read(relay, streamed=streamed)
    row = await finished(relay)
    assert (row.outcome, row.status, row.error_code, row.cost) == ("upstream_error", 500, "plugin_error", 0)


@pytest.mark.promise("S-11")
@pytest.mark.promise("S-01")
async def test_a_disk_that_takes_its_time_holds_no_call_up(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.answer = lambda seen: chat_answer()
    relay = await start(openai_config(upstream))
    await read(relay, streamed=False)
    commits = 0
    run = Database._run

    async def slow(self: Database, sql: str, parameters: Any = ()) -> None:
        nonlocal commits
        if sql.startswith(("COMMIT", "INSERT")):
            # A statement by itself is a transaction, too.
            commits += 1
            await asyncio.sleep(0.5)
        await run(self, sql, parameters)

    store: Store = relay.relay.store
    await store.usage.flush()
    monkeypatch.setattr(Database, "_run", slow)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(50):
        await read(relay, streamed=False)
    # Fifty calls, each of which would have to wait for half a second.
    assert loop.time() - began < 10
    assert len(await relay.rows()) == 51
    assert 1 <= commits < 40
