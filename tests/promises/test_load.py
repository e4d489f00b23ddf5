"""Many streams, too many calls, and one caller who takes everything: each counted, and nothing of it timed."""

from __future__ import annotations

import asyncio
import gc
import os
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from relay.family import UpstreamRequest
from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import DONE, FakeUpstream, Seen, Step, chat_answer, chat_chunk, stream
from tests.promises.courses import PLANES, ask
from tests.promises.families import KINDS, both_transports, config
from tests.promises.served import Served, served
from tests.promises.wire import Wire, post, until, wire

STREAMS = 400
KILOBYTES = 40
"""What one open stream may take."""
AROUND = 24
"""Descriptors beside those of the streams."""


def kilobytes(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.promise("X-01")
async def test_an_open_stream_takes_two_descriptors_and_little_memory(tmp_path: Path, upstream: FakeUpstream) -> None:
    ends = [asyncio.Event()]

    def play(seen: Seen) -> Sequence[Step]:
        words = [chat_chunk({"content": f"word {number} "}) for number in range(5)]
        return stream(*words, ends[-1], chat_chunk({"content": "end"}, "stop"), DONE)

    upstream.answer = play

    async def opened(relay: Served, count: int) -> list[Wire]:
        found = []
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            found.append(Wire(reader, writer))
            found[-1].send(relay.chat(stream=True))
        for one in found:
            await asyncio.wait_for(one.reader.readuntil(b"word 4"), 20)
        return found

    async def closed(connections: list[Wire]) -> list[bytes]:
        ends[-1].set()
        rests = await asyncio.gather(*(one.rest_of_stream() for one in connections))
        for one in connections:
            one.writer.close()
        ends.append(asyncio.Event())
        return rests

    async with served(tmp_path, textwrap.dedent(openai_config(upstream))) as relay:
        pid = relay.process.pid
        # What is made once is no stream's.
        await closed(await opened(relay, 100))
        memory, files = kilobytes(pid), descriptors(pid)
        connections = await opened(relay, STREAMS)
        taken, held = kilobytes(pid) - memory, descriptors(pid) - files
        rests = await closed(connections)
        assert all(rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n") for rest in rests)
        relay.process.terminate()
        assert (await relay.end())[0] == 0
        rows = await relay.rows()
    # The connections of the first hundred to the upstream are still there, and are used again.
    assert held <= 2 * STREAMS + AROUND
    assert taken / STREAMS <= KILOBYTES, f"{taken / STREAMS:.1f} KB a stream"
    assert Counter(row["outcome"] for row in rows) == {"ok": STREAMS + 100}


@pytest.mark.promise("X-01")
@pytest.mark.parametrize("kind", KINDS)
@both_transports
async def test_what_was_sent_is_let_go_while_its_answer_comes(
    start: Start, upstream: FakeUpstream, transport: str, kind: str
) -> None:
    """A long prompt is there as long as somebody may have to send it again, and not for the hours of a stream."""
    found, end = KINDS[kind], asyncio.Event()
    upstream.answer = lambda seen: stream(*found.start, found.word("begun"), end, *found.end("begun"))
    relay = await start(config(upstream, transport))
    message = {"role": "user", "content": "long " * 100_000}
    async with relay.chat(model=kind, messages=[message], stream=True) as response:
        got = b""
        while b"begun" not in got:
            got += await response.content.readany()
        sent = [one for one in gc.get_objects() if isinstance(one, UpstreamRequest) and len(one.body) > 400_000]
        end.set()
        got += await response.read()
    assert sent == []
    assert got.endswith(b"data: [DONE]\n\n")
    assert len(upstream.seen[-1].body) > 500_000


@pytest.mark.promise("X-03")
async def test_more_than_a_model_may_have_is_refused_at_once_and_what_is_let_in_is_served(
    start: Start, upstream: FakeUpstream
) -> None:
    places, callers, each = 8, 40, 12
    at_once, most, waiting = 0, 0, asyncio.Condition()

    async def done() -> None:
        nonlocal at_once
        async with waiting:
            at_once -= 1
            waiting.notify_all()

    def play(seen: Seen) -> Sequence[Step]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(done()))
        return [0.002, *chat_answer()]

    upstream.answer = play
    relay = await start(openai_config(upstream) + f"    concurrency = {places}\n")
    counts: Counter[int] = Counter()

    async def caller(plane: str) -> None:
        for _ in range(each):
            got = await ask(relay, plane)
            counts[got.status] += 1
            if got.status == 429:
                assert float(got.headers["retry-after"]) >= 1
                assert got.code in ("concurrency_limit_exceeded", "")

    await asyncio.gather(*(caller(PLANES[1 + number % 2]) for number in range(callers)))
    assert set(counts) == {200, 429}
    assert counts.total() == callers * each
    assert len(upstream.seen) == counts[200], "nothing is asked that is refused"
    assert most <= places
    rows = Counter((row.outcome, row.status) for row in await all_rows(relay))
    assert rows == {("ok", 200): counts[200], ("rejected", 429): counts[429]}
    assert relay.relay.limiter.running() == 0
    # And then it is as if nothing had been.
    assert (await ask(relay)).status == 200


async def all_rows(relay: Running) -> list[object]:
    await relay.relay.store.usage.flush()
    return list(await relay.relay.store.usage.rows(limit=10_000))


@pytest.mark.promise("X-06")
@pytest.mark.parametrize("pipelined", [False, True], ids=["connections", "one connection"])
async def test_one_who_takes_everything_is_not_served_before_the_others(
    start: Start, upstream: FakeUpstream, pipelined: bool
) -> None:
    at_a_time, quiet, each = 64, 20, 10
    upstream.answer = lambda seen: chat_answer()
    relay = await start(openai_config(upstream))
    _, other = await relay.relay.store.keys.create("quiet")
    served_hog, stop = 0, False
    between: list[int] = []

    async def hog() -> None:
        nonlocal served_hog
        async with wire(relay) as connection:
            while not stop:
                connection.send(post(relay.key))
                assert (await connection.answer()).status == 200
                served_hog += 1

    async def greedy() -> None:
        """All of them on one connection, without waiting for an answer."""
        nonlocal served_hog
        async with wire(relay) as connection:
            connection.send(post(relay.key) * at_a_time)
            while not stop:
                assert (await connection.answer()).status == 200
                served_hog += 1
                connection.send(post(relay.key))

    async def caller() -> None:
        async with wire(relay) as connection:
            for number in range(each + 1):
                before = served_hog
                connection.send(post(other))
                assert (await connection.answer()).status == 200
                if number:
                    # The first may have to read its key, and to connect.
                    between.append(served_hog - before)

    hogs = [asyncio.create_task(greedy() if pipelined else hog()) for _ in range(1 if pipelined else at_a_time)]
    await until(lambda: served_hog > 2 * at_a_time)
    await asyncio.gather(*(caller() for _ in range(quiet)))
    stop = True
    await asyncio.gather(*hogs)
    between.sort()
    assert len(between) == quiet * each
    # Whoever comes is served when those are who came before: some rounds of the greedy one's, however greedy it is.
    assert between[len(between) // 2] <= 2 * at_a_time
    assert between[len(between) * 95 // 100] <= 4 * at_a_time
