"""Which target is asked, and what happens when one fails: over the wire, streamed, whole, and in another dialect."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import pytest

from relay import lane
from relay.config import read_text
from relay.reload import reload
from tests.flow.conftest import ALONE, Running, Start
from tests.flow.fake import (
    DONE,
    USAGE,
    FakeUpstream,
    Seen,
    Step,
    chat_answer,
    chat_chunk,
    chat_stream,
    http,
    stream,
)
from tests.flow.loops import LANE
from tests.promises.wire import until

PLANES = ("stream", "whole", "messages")
"""Streamed and whole as it passes through, and whole in a dialect that is translated."""
plane_of = pytest.mark.parametrize("plane", PLANES)
REFUSAL = {"error": {"message": "not now", "type": "server_error"}}


@dataclass
class Got:
    """One answer."""

    status: int
    headers: Any
    body: bytes

    @property
    def code(self) -> str:
        """The relay's word for what went wrong; the dialect of Messages does not carry it."""
        code: str = json.loads(self.body)["error"].get("code", "")
        return code


async def ask(relay: Running, plane: str = "whole", **more: Any) -> Got:
    """One call."""
    path = "/v1/messages" if plane == "messages" else "/v1/chat/completions"
    body = {"model": "m", "max_tokens": 20, "messages": [{"role": "user", "content": "Hi"}], **more}
    async with relay.client.post(relay.url + path, json={**body, "stream": plane == "stream"}) as response:
        return Got(response.status, response.headers, await response.read())


def good(plane: str) -> list[Step]:
    return chat_stream() if plane == "stream" else chat_answer()


def refused(status: int, **headers: str) -> list[Step]:
    return http(REFUSAL, status, **headers)


def answered(got: Got) -> bool:
    return got.status == 200 and b"Hello" in got.body


def by_model(**scripts: Sequence[Step]) -> Callable[[Seen], Sequence[Step]]:
    """A script for each model name: `a` for `x/a`."""
    return lambda seen: scripts[seen.json["model"]]


def asked(upstream: FakeUpstream) -> list[str]:
    return [seen.json["model"] for seen in upstream.seen]


def config(upstream: FakeUpstream, *targets: str, more: str = "", **routing: Any) -> str:
    """A model `m` whose targets are the models of these names at one upstream; each counts for itself."""
    names = ", ".join(f'"up/{name}"' for name in targets or ("a",))
    settings = "\n".join(f"{name} = {value}" for name, value in {"backoff_seconds": 0.02, **routing}.items())
    return f"""
[routing]
{settings}
[upstreams.up]
family = "openai"
base_url = "{upstream.url}/v1"
api_key = "sk-CANARY-upstream-key"
{more}
[models.m]
targets = [{names}]
"""


@pytest.fixture
async def other() -> AsyncIterator[FakeUpstream]:
    fake = FakeUpstream()
    await fake.start()
    yield fake
    await fake.stop()


class Clock:
    """A time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# Authorised is what is called.


@pytest.mark.promise("A-08")
@plane_of
async def test_the_model_that_is_allowed_is_the_model_that_is_called(
    start: Start, upstream: FakeUpstream, plane: str
) -> None:
    upstream.answer = lambda seen: good(plane)
    text = config(upstream, "cheap-1") + '[models.dear]\ntargets = ["up/dear-1"]\n'
    relay = await start(text, key={"models": ["m"]})
    path = "/v1/messages" if plane == "messages" else "/v1/chat/completions"
    body: dict[str, Any] = {"max_tokens": 20, "messages": [{"role": "user", "content": "Hi"}]}
    body["stream"] = plane == "stream"
    tail = json.dumps(body)[1:].encode()
    for raw, query, headers, status in (
        (b'{"model": "m", ' + tail, "?model=dear", {"x-model": "dear", "openai-model": "dear"}, 200),
        (b'{"model": "dear", ' + tail, "?model=m", {"x-model": "m"}, 403),
        (b'{"model": "m", "model": "dear", ' + tail, "", {}, 400),
        (b'{"model": "dear", "model": "m", ' + tail, "", {}, 400),
        (b'{"model": "m", "mod\\u0065l": "dear", ' + tail, "", {}, 400),
        (b'{"model": "m", "extra_body": {"model": "dear"}, ' + tail, "", {}, 200),
        (b'{"model": ["m"], ' + tail, "", {}, 400),
        (b"{" + tail, "?model=m", {}, 400),
    ):
        async with relay.client.post(relay.url + path + query, data=raw, headers=headers) as response:
            assert response.status == status, (raw, await response.text())
    assert set(asked(upstream)) == {"cheap-1"}


SPELLINGS = [
    "acmez/m",
    "ACME/m",
    " acme/m",
    "acme/m ",
    "acme/m\u200b",
    "\uff41cme/m",
    "acm\u0435/m",
    "acme/../dear",
    "acme/../up/dear",
    "acme%2fm",
    "acme//m",
    "up/dear",
    "dear",
    "alias",
    "",
]


@pytest.mark.promise("A-09")
@plane_of
@pytest.mark.parametrize("allowed", ["acme/*", "acme/m"])
async def test_only_exact_names_of_what_is_allowed_pass(
    start: Start, upstream: FakeUpstream, plane: str, allowed: str
) -> None:
    upstream.answer = lambda seen: good(plane)
    text = config(upstream, "x") + (
        '[models."acme/m"]\ntargets = ["up/fine"]\n'
        '[models."acmez/m"]\ntargets = ["up/dear"]\n'
        '[models.dear]\ntargets = ["up/dear"]\n'
        '[models.alias]\ntargets = ["up/fine"]\n'
    )
    relay = await start(text, key={"models": [allowed]})
    assert answered(await ask(relay, plane, model="acme/m"))
    for name in SPELLINGS:
        got = await ask(relay, plane, model=name)
        assert got.status in (400, 403, 404), name
    assert asked(upstream) == ["fine"]
    rows = await relay.rows()
    assert {(row.outcome, row.attempts) for row in rows[:-1]} == {("rejected", 0)}


@pytest.mark.promise("A-09")
@plane_of
async def test_fall_backs_stay_within_the_model_and_its_limits_are_taken_once(
    start: Start, upstream: FakeUpstream, plane: str
) -> None:
    upstream.answer = lambda seen: refused(500)
    text = config(upstream, "a", "b", max_attempts=1) + 'rpm = 2\n[models.dear]\ntargets = ["up/dear"]\n'
    relay = await start(text, key={"models": ["m"]})
    for _ in range(2):
        assert (await ask(relay, plane)).status == 502
    assert (await ask(relay, plane)).status == 429
    assert asked(upstream) == ["a", "b", "a", "b"]


@pytest.mark.promise("A-11")
async def test_no_route_serves_a_key_that_may_not_use_the_model(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: chat_answer()
    relay = await start(config(upstream), key={"models": ["another"]})
    tried = 0
    for dialect in relay.relay.plugins.dialects.values():
        for route in dialect.routes:
            if route.method != "POST":
                continue
            tried += 1
            # Of a parameter with a pattern, the first word that fits.
            path = re.sub(r"\{model[^}]*\}", "m", route.path)
            path = re.sub(r"\{\w+:(\w+)[^}]*\}", r"\1", path)
            body = {
                "model": "m",
                "max_tokens": 5,
                "input": "Hi",
                "prompt": "Hi",
                "messages": [{"role": "user", "content": "Hi"}],
            }
            parts = {"parts": [{"text": "Hi"}]}
            own = {
                "batchEmbedContents": {"requests": [{"model": "models/m", "content": parts}]},
                "embedContent": {"content": parts},
            }
            if ":" in path:
                body = own.get(path.partition(":")[2], {"contents": [parts]})
            async with relay.client.post(relay.url + path, json=body) as response:
                assert response.status == 403, (path, await response.text())
    assert tried > 10
    assert not upstream.seen


# Retries and fall-backs.


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
    relay = await start(config(upstream, "a", "b", "c", deadline_seconds=0.6))
    began = time.monotonic()
    got = await ask(relay, plane)
    assert 0.5 < time.monotonic() - began < 3
    assert got.status == 504
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
    began = time.monotonic()
    got = await ask(relay, plane)
    assert time.monotonic() - began < 3
    assert got.status == 504
    assert (await relay.rows())[0].outcome == "timeout"
    assert relay.relay.limiter.running() == 0


@pytest.mark.promise("F-08")
@plane_of
async def test_an_upstream_that_is_down_is_asked_little_more_often_than_it_would_be_anyway(
    start: Start, upstream: FakeUpstream, plane: str
) -> None:
    # All are asked before the first is refused.
    upstream.answer = lambda seen: [0.5, *refused(500)]
    relay = await start(config(upstream, failures=1000))
    got = await asyncio.gather(*(ask(relay, plane) for _ in range(100)))
    assert {one.status for one in got} == {502}
    assert 100 < len(upstream.seen) <= 120
    dispatch = relay.relay.dispatch
    assert (dispatch.budget.taken, dispatch.open) == (0, 0)


# Cooling down.

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
    row = (await relay.rows())[0]
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
    # The probe is under way for as long as the others need to be told.
    upstream.answer = lambda seen: [0.7, *good(plane)] if back else [0.7, *refused(500)]
    relay = await start(config(upstream, failures=1, cool_down_seconds=40, max_attempts=1), clock=clock)
    assert (await ask(relay, plane)).status == 502
    for number, wait in enumerate((45, 100, 220), 2):
        back = number == 4
        clock.now += wait
        got = await asyncio.gather(*(ask(relay, plane) for _ in range(200)))
        assert len(upstream.seen) == number
        told = Counter(one.status for one in got)
        assert told == ({200: 1, 503: 199} if back else {502: 1, 503: 199})
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
    upstream.answer = by_model(a=[0.4, *refused(500)], b=refused(429, retry_after="30"), c=chat_answer())
    text = config(upstream, "a", "b", "c") + '[models.n]\ntargets = ["up/b"]\n'
    relay = await start(text)
    call = asyncio.create_task(ask(relay))
    await until(lambda: len(upstream.seen) == 1)
    assert (await ask(relay, model="n")).status == 429
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
        began = time.monotonic()
        first, second = await asyncio.gather(ask(relay, plane, model="n"), ask(relay, plane))
        assert answered(second)
        # What was sent and not answered is not sent elsewhere; what could not be sent is.
        assert first.status == (504 if silent else 200)
        assert time.monotonic() - began < 3
        for _ in range(3):
            await ask(relay, plane, model="n")
        # By now it is left alone, and costs no time.
        began = time.monotonic()
        assert answered(await ask(relay, plane, model="n"))
        assert time.monotonic() - began < 0.25
    for client in waiting:
        client.close()


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


# Shares, keys, policies.


@plane_of
async def test_calls_are_shared_by_weight(start: Start, upstream: FakeUpstream, plane: str) -> None:
    upstream.answer = lambda seen: good(plane)
    text = config(upstream).replace('"up/a"', '{to = "up/a", weight = 3}, {to = "up/b", weight = 1}, "up/c"')
    relay = await start(text)
    for _ in range(16):
        assert answered(await ask(relay, plane))
    assert Counter(asked(upstream)) == {"a": 12, "b": 4}


@plane_of
async def test_the_keys_of_an_upstream_take_turns(start: Start, upstream: FakeUpstream, plane: str) -> None:
    upstream.answer = lambda seen: good(plane)
    relay = await start(config(upstream, more='api_keys = ["sk-1", "sk-2"]'))
    for _ in range(6):
        assert answered(await ask(relay, plane))
    used = [seen.headers["authorization"] for seen in upstream.seen]
    assert used == ["Bearer sk-CANARY-upstream-key", "Bearer sk-1", "Bearer sk-2"] * 2


async def test_a_key_that_may_not_list_models_does_not_hide_them(start: Start, upstream: FakeUpstream) -> None:
    listed: list[str] = []

    def list_(seen: Any) -> list[Step]:
        listed.append(seen.headers["authorization"])
        return refused(401) if len(listed) == 1 else http({"object": "list", "data": [{"id": "found"}]})

    upstream.lists = list_
    relay = await start(config(upstream, more='api_keys = ["sk-1"]'))
    assert [model.id for model in relay.relay.router.models()] == ["m", "found"]
    assert listed == ["Bearer sk-CANARY-upstream-key", "Bearer sk-1"]


@plane_of
async def test_with_the_policy_the_quickest_is_asked(start: Start, upstream: FakeUpstream, plane: str) -> None:
    upstream.answer = by_model(a=[0.15, *good(plane)], b=good(plane))
    relay = await start(config(upstream, "a", "b") + '[plugins.options.latency]\nmodels = ["m"]\n')
    for _ in range(24):
        assert answered(await ask(relay, plane))
    # Nothing is known of `b` until it gets the twentieth call.
    assert asked(upstream) == ["a"] * 19 + ["b"] * 5


async def test_vectors_go_to_the_next_target_too(start: Start, upstream: FakeUpstream) -> None:
    vectors = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "model": "b"}
    upstream.answer = by_model(a=refused(429, retry_after="30"), b=http({**vectors, "usage": {"prompt_tokens": 1}}))
    relay = await start(config(upstream, "a", "b"))
    for attempts in ("2", None):
        async with relay.client.post(f"{relay.url}/v1/embeddings", json={"model": "m", "input": "Hi"}) as response:
            assert response.status == 200
            assert response.headers.get("x-relay-attempts") == attempts
    assert asked(upstream) == ["a", "b", "b"]


async def test_tokens_are_estimated_while_nobody_may_be_asked(start: Start, upstream: FakeUpstream) -> None:
    refusal = {"type": "error", "error": {"type": "rate_limit_error", "message": "not now"}}
    upstream.scripts = [http(refusal, 429, retry_after="30")]
    text = config(upstream).replace('family = "openai"', 'family = "anthropic"').replace("/v1", "")
    relay = await start(text)
    assert (await ask(relay, "messages")).status == 429
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    async with relay.client.post(f"{relay.url}/v1/messages/count_tokens", json=body) as response:
        assert (response.status, response.headers["x-relay-token-count"]) == (200, "estimate")
    assert len(upstream.seen) == 1


async def test_a_new_configuration_routes_by_its_own_rules(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [refused(429, retry_after="30"), good("whole"), refused(500)]
    relay = await start(config(upstream))
    assert (await ask(relay)).status == 429
    await reload(relay.relay, read_text(ALONE + config(upstream, max_attempts=1), "again.toml", {}))
    assert answered(await ask(relay))
    assert (await ask(relay)).status == 502
    assert len(upstream.seen) == 3


@pytest.mark.skipif(not LANE, reason="the lane is switched off")
async def test_a_client_that_leaves_before_its_call_goes_on_is_recorded_all_the_same(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = lane.Passage.begin

    def left(self: lane.Passage) -> None:
        begin(self)
        # No connection is open yet, so there is a task, and it has not had its first turn.
        assert self.task is not None
        self.left()

    upstream.answer = lambda seen: chat_answer()
    relay = await start(config(upstream))
    assert answered(await ask(relay))
    monkeypatch.setattr(lane.Passage, "begin", left)
    relay.relay.transport._idle.clear()  # type: ignore[attr-defined]
    with pytest.raises((asyncio.TimeoutError, ConnectionError)):
        async with asyncio.timeout(0.5):
            await ask(relay)
    assert [row.outcome for row in await relay.rows()] == ["client_abort", "ok"]
    assert relay.relay.limiter.running() == 0
    assert relay.relay.dispatch.open == 0
