"""What has failed is left alone, and exactly one call finds out whether it is back."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from email.utils import formatdate

import pytest

from tests.flow.conftest import Start
from tests.flow.fake import (
    FakeUpstream,
    chat_answer,
    chat_chunk,
    chat_stream,
    stream,
)
from tests.promises.courses import (
    Clock,
    answered,
    ask,
    asked,
    by_model,
    config,
    good,
    plane_of,
    refused,
)
from tests.promises.wire import until


@pytest.fixture
async def other() -> AsyncIterator[FakeUpstream]:
    fake = FakeUpstream()
    await fake.start()
    yield fake
    await fake.stop()


ASKED: dict[str, tuple[dict[str, str], float]] = {
    "seconds": ({"retry_after": "7"}, 7.0),
    "a fraction": ({"retry_after": "6.5"}, 6.5),
    "milliseconds": ({"retry_after_ms": "6250", "retry_after": "9"}, 6.25),
    "a duration": ({"x_ratelimit_reset_requests": "1m30s"}, 90.0),
    "too long": ({"retry_after": "1000000000"}, 300.0),
}


@pytest.mark.promise("F-09")
@plane_of
@pytest.mark.parametrize("form", ASKED)
async def test_a_wait_that_is_asked_for_is_kept_and_told(
    start: Start, upstream: FakeUpstream, plane: str, form: str
) -> None:
    headers, seconds = ASKED[form]
    clock = Clock()
    upstream.scripts = [refused(429, **headers), good(plane)]
    relay = await start(config(upstream), clock=clock)
    for _ in range(3):
        got = await ask(relay, plane)
        assert (got.status, got.headers["retry-after-ms"]) == (429, str(round(seconds * 1000)))
    assert len(upstream.seen) == 1
    clock.now += seconds - 0.001
    assert (await ask(relay, plane)).status == 429
    clock.now += 0.001
    assert answered(await ask(relay, plane))


@pytest.mark.promise("F-09")
async def test_a_date_is_a_wait_and_one_in_the_past_is_hardly_one(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [
        refused(503, retry_after=formatdate(time.time() - 60, usegmt=True)),
        good("whole"),
        refused(503, retry_after=formatdate(time.time() + 60, usegmt=True)),
    ]
    relay = await start(config(upstream))
    got = await ask(relay)
    assert answered(got)
    assert got.headers["x-relay-attempts"] == "2"
    got = await ask(relay)
    assert got.status == 503
    assert 50 < int(got.headers["retry-after"]) <= 60


@pytest.mark.promise("F-10")
@plane_of
async def test_if_everything_cools_down_the_answer_comes_at_once(
    start: Start, upstream: FakeUpstream, plane: str
) -> None:
    clock = Clock()
    upstream.answer = by_model(a=refused(429, retry_after="30"), b=refused(429, retry_after="20"), c=refused(500))
    relay = await start(config(upstream, "a", "b", failures=1, cool_down_seconds=40), clock=clock)
    assert (await ask(relay, plane)).status == 429
    assert asked(upstream) == ["a", "b"]
    clock.now += 5
    got = await ask(relay, plane)
    assert (got.status, got.headers["retry-after"]) == (429, "15")
    if plane != "messages":
        assert got.code == "upstream_cooling_down"
    assert asked(upstream) == ["a", "b"]
    row = await relay.latest()
    assert (row.outcome, row.attempts, row.cost, row.error_code) == ("rejected", 0, 0, "upstream_cooling_down")
    assert relay.relay.limiter.running() == 0


@pytest.mark.promise("F-10")
@plane_of
async def test_if_not_all_are_over_their_limits_it_is_a_503(start: Start, upstream: FakeUpstream, plane: str) -> None:
    upstream.answer = by_model(a=refused(429, retry_after="30"), b=refused(500))
    relay = await start(config(upstream, "a", "b", failures=1, cool_down_seconds=40), clock=Clock())
    await ask(relay, plane)
    got = await ask(relay, plane)
    assert got.status == 503
    assert got.headers["retry-after"] == "30"
    assert asked(upstream) == ["a", "b"]


@pytest.mark.promise("F-11")
@plane_of
async def test_of_200_callers_one_finds_out_whether_a_target_is_back(
    start: Start, upstream: FakeUpstream, plane: str
) -> None:
    clock = Clock()
    back = False
    told = asyncio.Event()
    told.set()
    upstream.answer = lambda seen: [told, *(good(plane) if back else refused(500))]
    relay = await start(config(upstream, failures=1, cool_down_seconds=40, max_attempts=1), clock=clock)
    assert (await ask(relay, plane)).status == 502
    for number, wait in enumerate((45, 100, 220), 2):
        back = number == 4
        clock.now += wait
        told.clear()
        calls = [asyncio.create_task(ask(relay, plane)) for _ in range(200)]
        # The one that asks goes on asking until all others have their answers.
        await until(lambda: sum(call.done() for call in calls) == 199)  # noqa: B023
        told.set()
        got = await asyncio.gather(*calls)
        assert len(upstream.seen) == number
        assert Counter(one.status for one in got) == {200 if back else 502: 1, 503: 199}
        assert all("retry-after" in one.headers for one in got if one.status == 503)
    assert not relay.relay.dispatch.health.circuits
    upstream.answer = lambda seen: good(plane)
    assert all(answered(one) for one in await asyncio.gather(*(ask(relay, plane) for _ in range(50))))


@pytest.mark.promise("F-11")
@plane_of
async def test_a_client_that_leaves_while_it_probes_lets_the_next_one_try(
    start: Start, upstream: FakeUpstream, plane: str
) -> None:
    clock = Clock()
    upstream.scripts = [refused(429, retry_after="30"), ["stall"], good(plane)]
    relay = await start(config(upstream), clock=clock)
    await ask(relay, plane)
    clock.now += 31
    probe = asyncio.create_task(ask(relay, plane))
    await until(lambda: len(upstream.seen) == 2)
    assert (await ask(relay, plane)).status == 429
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    await until(lambda: relay.relay.dispatch.open == 0)
    assert answered(await ask(relay, plane))


@pytest.mark.promise("F-11")
async def test_a_stream_that_has_begun_is_proof_enough(start: Start, upstream: FakeUpstream) -> None:
    clock = Clock()
    upstream.scripts = [
        refused(429, retry_after="30"),
        stream(chat_chunk({"content": "Hello"}), "stall", end=False),
        chat_stream(),
    ]
    relay = await start(config(upstream), clock=clock)
    await ask(relay)
    clock.now += 31
    async with relay.chat(stream=True) as open_stream:
        await open_stream.content.readany()
        assert answered(await ask(relay, "stream"))


@pytest.mark.promise("F-12")
@plane_of
async def test_what_cools_down_is_passed_over(start: Start, upstream: FakeUpstream, plane: str) -> None:
    upstream.answer = by_model(a=refused(429, retry_after="30"), b=refused(429, retry_after="1"), c=good(plane))
    relay = await start(config(upstream, "a", "b", "c"), clock=Clock())
    for _ in range(3):
        assert answered(await ask(relay, plane))
    assert asked(upstream) == ["a", "b", "c", "c", "c"]


@pytest.mark.promise("F-12")
async def test_what_is_found_to_cool_down_in_the_middle_of_a_call_is_passed_over(
    start: Start, upstream: FakeUpstream
) -> None:
    meanwhile = asyncio.Event()
    upstream.answer = by_model(a=[meanwhile, *refused(500)], b=refused(429, retry_after="30"), c=chat_answer())
    text = config(upstream, "a", "b", "c") + '[models.n]\ntargets = ["up/b"]\n'
    relay = await start(text)
    call = asyncio.create_task(ask(relay))
    await until(lambda: len(upstream.seen) == 1)
    assert (await ask(relay, model="n")).status == 429
    meanwhile.set()
    assert answered(await call)
    assert asked(upstream) == ["a", "b", "c"]


def black_hole() -> tuple[socket.socket, list[socket.socket]]:
    """A listener whose queue is full: who connects next hears nothing."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = []
    for _ in range(4):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
        waiting.append(client)
    return listener, waiting


@pytest.mark.promise("F-13")
@plane_of
@pytest.mark.parametrize("fault", ["refused", "black hole", "silence"])
async def test_an_address_that_does_not_answer_delays_and_harms_nobody_else(
    start: Start, upstream: FakeUpstream, other: FakeUpstream, plane: str, fault: str
) -> None:
    upstream.scripts = [good(plane)]
    listener, waiting = black_hole()
    silent = fault == "silence"
    port = {"refused": 9, "black hole": listener.getsockname()[1], "silence": other.port}[fault]
    other.scripts = [["stall"]]
    text = (
        config(upstream, failures=3)
        + f"""
[upstreams.gone]
family = "openai"
base_url = "http://127.0.0.1:{port}/v1"
connect_timeout = 0.3
first_byte_timeout = 0.3
[models.n]
targets = ["gone/a", "up/a"]
"""
    )
    relay = await start(text)
    with closing(listener):
        first, second = await asyncio.gather(ask(relay, plane, model="n"), ask(relay, plane))
        assert answered(second)
        # What was sent and not answered is not sent elsewhere; what could not be sent is.
        assert first.status == (504 if silent else 200)
        for _ in range(3):
            await ask(relay, plane, model="n")
        # By now it is left alone.
        assert answered(await ask(relay, plane, model="n"))
        row = await relay.latest()
        assert (row.upstream, row.attempts) == ("up", 1)
    for client in waiting:
        client.close()
