"""Every guard on every way in which a call can come: nothing that is refused reaches an upstream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp
import pytest

from relay.budget import Spent
from relay.store.keys import Limits
from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import FakeUpstream, Seen, Step, http
from tests.promises.ways import Way, answers, go, refusal, ways
from tests.promises.wire import until, wire

TINY = 1
KEYS: Mapping[str, dict[str, Any]] = {
    "key's requests": {"rpm": 1},
    "key's tokens": {"tpm": TINY},
    "key's calls at a time": {"concurrency": 1},
    "requests of a key and a model": {"model_limits": {"m": Limits(rpm=1)}},
    "tokens of a key and a model": {"model_limits": {"m": Limits(tpm=TINY)}},
    "calls at a time of a key and a model": {"model_limits": {"m": Limits(concurrency=1)}},
    "budget": {"budget": {"total": 1}},
    "models of the key": {"models": ["other"]},
}
"""Settings of a key that leave no room for a call, or for one beside another."""
MODELS: Mapping[str, str] = {
    "model's requests": "rpm = 1",
    "model's tokens": "tpm = 1",
    "model's calls at a time": "concurrency = 1",
}
GUARDS: Mapping[str, tuple[int, str]] = {
    "key's requests": (429, "key limit reached: 1 requests a minute"),
    "key's tokens": (429, "over the key limit of 1 a minute"),
    "key's calls at a time": (429, "key limit reached: 1 calls at a time"),
    "requests of a key and a model": (429, "key's model limit reached: 1 requests a minute"),
    "tokens of a key and a model": (429, "over the key's model limit of 1 a minute"),
    "calls at a time of a key and a model": (429, "key's model limit reached: 1 calls at a time"),
    "model's requests": (429, "model limit reached: 1 requests a minute"),
    "model's tokens": (429, "over the model limit of 1 a minute"),
    "model's calls at a time": (429, "model limit reached: 1 calls at a time"),
    "budget": (402, "does not suffice"),
    "models of the key": (403, "this key may not use the model"),
}
"""What each guard says."""
UNCOUNTED = ("count_tokens",)
"""What asks for no answer, and counts against no limit but that of the key's models."""


async def full(start: Start, upstream: FakeUpstream, guard: str) -> Running:
    """A relay in which there is no room left."""
    now = 1000.0
    more = f"    {MODELS[guard]}\n" if guard in MODELS else ""
    relay = await start(openai_config(upstream) + "\n" + more, key=KEYS.get(guard), clock=lambda: now)
    found = relay.relay
    key = (await found.store.keys.all())[0]
    model = found.router.resolve("m")
    scopes = found.pipeline._claims(key, model).scopes
    if "requests" in guard or "calls" in guard:
        # One call is under way, in the same minute.
        found.limiter.reserve(scopes, 0, now)
    if guard == "budget":
        found.ledger.account(key.id).take_in(Spent(), int(found.wall() * 1000))
    return relay


@pytest.mark.promise("L-01")
@pytest.mark.parametrize("guard", GUARDS)
async def test_each_guard_refuses_every_kind_of_call_and_nothing_is_sent(
    start: Start, upstream: FakeUpstream, guard: str
) -> None:
    upstream.answer = answers
    relay = await full(start, upstream, guard)
    status, told = GUARDS[guard]
    asked = [way for way in ways(relay.relay.plugins) if guard == "models of the key" or way.operation not in UNCOUNTED]
    assert len(asked) > 20
    # Twice: the first call of a key takes the usual way, and later ones the lane.
    for way in [*asked, *asked]:
        said = await go(relay, way)
        assert said.status == status, (str(way), said)
        assert told in refusal(said), (str(way), said)
        assert ("retry-after" in said.headers) is (status == 429)
    assert upstream.seen == []
    await relay.relay.store.usage.flush()
    rows = await relay.relay.store.usage.rows(limit=1000)
    assert {(row.outcome, row.status, row.cost) for row in rows} == {("rejected", status, 0)}
    assert len(rows) == 2 * len(asked)


@pytest.mark.promise("L-01")
async def test_without_a_guard_each_of_them_is_served(start: Start, upstream: FakeUpstream) -> None:
    """Else the test above would prove nothing."""
    upstream.answer = answers
    relay = await start(openai_config(upstream))
    for way in ways(relay.relay.plugins):
        assert (await go(relay, way)).status == 200, str(way)


@pytest.mark.promise("L-01")
async def test_no_kind_of_call_may_have_a_body_over_the_limit(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = answers
    relay = await start(openai_config(upstream) + "    [server]\n    max_body_mb = 1\n")
    for way in ways(relay.relay.plugins):
        said = await go(relay, way, padding="x" * 2**20)
        assert (said.status, refusal(said)) == (413, "the request body is over 1 MiB"), str(way)
    # Nor one of which nobody has said how long it will be.
    for way in ways(relay.relay.plugins, "embeddings"):
        head = f"POST {way.path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {relay.key}\r\n"
        async with wire(relay) as connection:
            connection.send(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            for _ in range(17):
                connection.send(b"10000\r\n" + b" " * 2**16 + b"\r\n")
            connection.send(b"0\r\n\r\n")
            assert (await connection.answer()).status == 413
    assert upstream.seen == []


COURSES: Mapping[str, Callable[[Seen], Sequence[Step]]] = {
    "well": answers,
    "refused": lambda seen: http({"error": {"message": "no"}}, 400),
    "failed": lambda seen: http({"error": {"message": "no"}}, 500),
    "no JSON": lambda seen: http(b"<html>"),
    "nothing": lambda seen: ["fin"],
    "cut": lambda seen: [*answers(seen)[0:1], "rst"],
}


@pytest.mark.promise("L-06")
async def test_every_kind_of_call_gives_its_place_back_however_it_ends(start: Start, upstream: FakeUpstream) -> None:
    once = "    [routing]\n    max_attempts = 1\n    max_cool_down_seconds = 0\n"
    relay = await start(openai_config(upstream) + once, key={"concurrency": 1})
    for name, course in COURSES.items():
        upstream.answer = course
        for way in ways(relay.relay.plugins):
            try:
                said = await go(relay, way)
            except aiohttp.ClientError:
                assert name == "cut"
            else:
                assert said.status != 429, (str(way), name, said)
                if name != "cut" and way.operation not in UNCOUNTED:
                    assert (said.status == 200) is (name == "well"), (str(way), name, said)
            await until(lambda: relay.relay.limiter.running() == 0)


@pytest.mark.promise("H-01")
async def test_no_kind_of_call_waits_for_the_body_of_one_without_a_key(start: Start, upstream: FakeUpstream) -> None:
    relay = await start(openai_config(upstream) + "    [server]\n    wrong_keys_per_minute = 0\n")
    for way in ways(relay.relay.plugins):
        for lines in ("", "Authorization: Bearer sk-relay-nobody-has-this-key\r\n", "Expect: 100-continue\r\n"):
            async with wire(relay) as connection:
                head = f"POST {way.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {2**30}\r\n{lines}\r\n"
                connection.send(head.encode() + b'{"model":')
                said = await connection.answer()
                assert (said.status, said.headers["connection"]) == (401, "close"), str(way)
    assert upstream.seen == []


LARGEST: Mapping[str, Any] = {
    "openai-chat": lambda value: {"max_tokens": value},
    "openai-responses": lambda value: {"max_output_tokens": value},
    "openai-completions": lambda value: {"max_tokens": value},
    "anthropic-messages": lambda value: {"max_tokens": value},
    "gemini": lambda value: {"generationConfig": {"maxOutputTokens": value}},
}
"""Where each dialect says how long an answer may be."""


@pytest.mark.promise("L-01")
@pytest.mark.promise("L-08")
async def test_no_kind_of_call_may_ask_for_an_absurd_answer(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = answers
    relay = await start(openai_config(upstream))
    for way in ways(relay.relay.plugins, "generate"):
        for value in (-1, 0, 2**31, 2**63, 2**200, 1e3 + 0.5, "5x", True):
            said = await go(relay, way, **LARGEST[way.dialect](value))
            assert said.status == 400, (str(way), value, said)
            (name,) = LARGEST[way.dialect](value)
            assert name in said.body.decode(), (str(way), value, said)
    assert upstream.seen == []
    await asyncio.sleep(0)
    assert relay.relay.limiter.running() == 0


@pytest.mark.promise("A-11")
async def test_no_kind_of_call_is_served_to_one_without_a_key(start: Start, upstream: FakeUpstream) -> None:
    relay = await start(openai_config(upstream) + "    [server]\n    wrong_keys_per_minute = 0\n")
    _, gone = await relay.relay.store.keys.create("gone")
    await relay.relay.store.keys.revoke("gone")
    _, old = await relay.relay.store.keys.create("old", expires_at=1)
    every: list[Way] = list(ways(relay.relay.plugins))
    for way in every:
        for secret in ("sk-relay-nobody-has-this-one", gone, old):
            said = await go(relay, way, secret)
            assert said.status == 401, str(way)
            assert refusal(said) == "the API key is unknown, expired or revoked"
    assert upstream.seen == []
    assert await relay.rows() == []
