"""What happens when an attempt fails: who is asked again, who is asked next, and for how long."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from typing import Any

import pytest

from tests.flow.conftest import Start
from tests.flow.fake import (
    DONE,
    USAGE,
    FakeUpstream,
    Step,
    chat_chunk,
    chat_stream,
    stream,
)
from tests.promises.courses import (
    REFUSAL,
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


@pytest.mark.promise("F-04")
@pytest.mark.promise("F-05")
@plane_of
async def test_what_may_have_run_is_not_sent_again(start: Start, upstream: FakeUpstream, plane: str) -> None:
    upstream.scripts = [good(plane), ["fin"]]
    relay = await start(config(upstream, "a", "b"))
    assert answered(await ask(relay, plane))
    got = await ask(relay, plane)
    assert got.status == 502
    assert asked(upstream) == ["a", "a"]
    row, _ = await relay.rows()
    assert (row.attempts, row.outcome, row.error_code) == (1, "upstream_cut", "upstream_hung_up")


@pytest.mark.promise("F-04")
@plane_of
async def test_an_upstream_may_allow_that_it_is_sent_again(start: Start, upstream: FakeUpstream, plane: str) -> None:
    upstream.scripts = [good(plane), ["fin"], good(plane)]
    relay = await start(config(upstream, more="resend = true"))
    for attempts in (None, "2"):
        got = await ask(relay, plane)
        assert answered(got)
        assert got.headers.get("x-relay-attempts") == attempts
    assert len(upstream.seen) == 3
    assert [row.attempts for row in await relay.rows()] == [2, 1]


@pytest.mark.promise("F-04")
@plane_of
async def test_half_an_answer_is_never_sent_again(start: Start, upstream: FakeUpstream, plane: str) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
    upstream.scripts = [[head + b"{", "fin"]]
    relay = await start(config(upstream, "a", "b", more="resend = true"))
    assert (await ask(relay, plane)).status == 502
    assert asked(upstream) == ["a"]


@pytest.mark.promise("F-06")
@plane_of
@pytest.mark.parametrize(("status", "shown"), [(400, 400), (404, 404), (413, 413), (422, 422)])
async def test_what_is_wrong_with_a_request_is_asked_of_nobody_else(
    start: Start, upstream: FakeUpstream, plane: str, status: int, shown: int
) -> None:
    upstream.answer = by_model(a=refused(status), b=good(plane))
    relay = await start(config(upstream, "a", "b"))
    for _ in range(8):
        assert (await ask(relay, plane)).status == shown
    assert asked(upstream) == ["a"] * 8


@pytest.mark.promise("F-06")
@plane_of
async def test_a_refused_key_is_left_alone_and_the_others_serve(
    start: Start, upstream: FakeUpstream, plane: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    upstream.answer = lambda seen: refused(401) if "key-1" in seen.headers["authorization"] else good(plane)
    text = config(upstream, more='api_keys = ["sk-CANARY-key-1", "sk-CANARY-key-2"]')
    relay = await start(text)
    for _ in range(9):
        assert answered(await ask(relay, plane))
    used = Counter(seen.headers["authorization"].removeprefix("Bearer ") for seen in upstream.seen)
    assert used["sk-CANARY-key-1"] == 1
    assert sorted(used.values()) == [1, 4, 5]
    assert "up/a with key 2 failed: upstream_credentials (401)" in caplog.text
    assert "CANARY" not in caplog.text
    rows = await relay.rows()
    assert sum(row.attempts for row in rows) == 10
    assert "CANARY" not in repr(rows)


@pytest.mark.promise("F-07")
@plane_of
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
async def test_a_refusal_that_passes_is_followed_by_one_answer(
    start: Start, upstream: FakeUpstream, plane: str, status: int
) -> None:
    upstream.scripts = [refused(status), good(plane)]
    relay = await start(config(upstream))
    got = await ask(relay, plane)
    assert answered(got)
    assert got.headers["x-relay-attempts"] == "2"
    assert len(upstream.seen) == 2
    row = await relay.row()
    assert (row.attempts, row.outcome, row.status) == (2, "ok", 200)
    assert row.usage is not None
    assert row.usage.output == USAGE["completion_tokens"]


@pytest.mark.promise("F-07")
@plane_of
async def test_retries_end_and_the_last_word_is_told_with_their_number(
    start: Start, upstream: FakeUpstream, plane: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    upstream.answer = lambda seen: refused(500)
    relay = await start(config(upstream, "a", "b", max_attempts=2))
    got = await ask(relay, plane)
    assert (got.status, got.headers["x-relay-attempts"]) == (502, "3")
    assert b"not now" in got.body
    assert asked(upstream) == ["a", "b", "a"]
    assert (await relay.row()).attempts == 3
    assert [caplog.text.count(f"attempt {number} at up/") for number in (1, 2, 3, 4)] == [1, 1, 1, 0]


@pytest.mark.promise("F-07")
async def test_after_the_first_byte_nothing_is_asked_again(start: Start, upstream: FakeUpstream) -> None:
    error = b"data: " + json.dumps(REFUSAL).encode() + b"\n\n"
    upstream.answer = by_model(
        a=stream(chat_chunk({"content": "Hello"}), 0.05, error, DONE), b=chat_stream("another answer")
    )
    relay = await start(config(upstream, "a", "b"))
    with pytest.raises(Exception, match="payload"):
        await ask(relay, "stream")
    assert asked(upstream) == ["a"]
    assert (await relay.row()).attempts == 1


@pytest.mark.promise("F-07")
async def test_an_error_at_the_beginning_of_a_stream_is_before_the_first_byte(
    start: Start, upstream: FakeUpstream
) -> None:
    opening = chat_chunk({"role": "assistant", "content": ""})
    error = b"data: " + json.dumps(REFUSAL).encode() + b"\n\n"
    upstream.answer = by_model(a=stream(opening, error, DONE), b=chat_stream())
    relay = await start(config(upstream, "a", "b"))
    got = await ask(relay, "stream")
    assert answered(got)
    assert b"not now" not in got.body
    assert asked(upstream) == ["a", "b"]


@pytest.mark.promise("F-07")
@plane_of
async def test_one_deadline_is_above_all_attempts(start: Start, upstream: FakeUpstream, plane: str) -> None:
    upstream.answer = by_model(a=[0.3, *refused(503)], b=["stall"], c=good(plane))
    relay = await start(config(upstream, "a", "b", "c", deadline_seconds=1.2))
    began = time.monotonic()
    got = await ask(relay, plane)
    assert got.status == 504
    assert time.monotonic() - began > 1.1
    assert asked(upstream) == ["a", "b"]
    row = await relay.row()
    assert (row.outcome, row.attempts, row.cost or 0) == ("timeout", 2, 0)


@pytest.mark.promise("F-07")
@plane_of
@pytest.mark.parametrize("script", ["nothing", "a head", "half of it"])
async def test_the_deadline_holds_for_a_single_attempt_too(
    start: Start, upstream: FakeUpstream, plane: str, script: str
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
    late: dict[str, list[Step]] = {
        "nothing": ["stall"],
        "a head": [head, "stall"],
        "half of it": [head, *[b"{", 0.05] * 40, "stall"],
    }
    upstream.scripts = [good(plane), late[script]]
    relay = await start(config(upstream, deadline_seconds=0.4))
    assert answered(await ask(relay, plane))
    assert (await ask(relay, plane)).status == 504
    assert (await relay.latest()).outcome == "timeout"
    assert relay.relay.limiter.running() == 0


@pytest.mark.promise("F-08")
@plane_of
async def test_an_upstream_that_is_down_is_asked_little_more_often_than_it_would_be_anyway(
    start: Start, upstream: FakeUpstream, plane: str
) -> None:
    all_asked = asyncio.Event()
    upstream.answer = lambda seen: [all_asked, *refused(500)]
    relay = await start(config(upstream, failures=1000))
    calls = [asyncio.create_task(ask(relay, plane)) for _ in range(100)]
    await until(lambda: len(upstream.seen) == 100)
    all_asked.set()
    got = await asyncio.gather(*calls)
    assert {one.status for one in got} == {502}
    assert 100 < len(upstream.seen) <= 120
    dispatch = relay.relay.dispatch
    assert (dispatch.budget.taken, dispatch.open) == (0, 0)


@pytest.mark.promise("F-14")
async def test_300_streams_run_side_by_side(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: stream(chat_chunk({"content": "Hello"}), "stall", end=False)
    relay = await start(config(upstream))

    async def begin() -> Any:
        response = await relay.chat(stream=True)
        assert b"Hello" in await response.content.readany()
        return response

    relay.client.connector._limit = 0
    responses = await asyncio.gather(*(begin() for _ in range(300)))
    assert len(upstream.seen) == 300
    for response in responses:
        response.close()


@pytest.mark.promise("F-15")
async def test_a_stream_that_has_begun_may_take_as_long_as_it_likes(start: Start, upstream: FakeUpstream) -> None:
    words = [step for _ in range(8) for step in (chat_chunk({"content": "Hello "}), 0.1)]
    upstream.scripts = [chat_stream(), stream(*words, chat_chunk(finish="stop"), DONE)]
    relay = await start(config(upstream, deadline_seconds=0.4))
    assert answered(await ask(relay, "stream"))
    began = time.monotonic()
    got = await ask(relay, "stream")
    assert time.monotonic() - began > 0.6
    assert (got.status, got.body.count(b"Hello")) == (200, 8)
    assert got.body.endswith(DONE)
