"""Answers that are given again: to whom, which, and what everybody else gets meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
import pytest

from relay import lane
from relay.config import read_text
from relay.manager import Plugins
from relay.reload import reload
from relay_cache.policy import AnswerCache
from tests.flow.conftest import ALONE, Running, Start, openai_config
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
from tests.promises.wire import post, until, wire

OPTIONS: dict[str, Any] = {"enabled": True}
USER = {"role": "user", "content": "Hi"}
CHAT = "/v1/chat/completions"
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"model": "m", "messages": [USER]}),
    "chat, streamed": (CHAT, {"model": "m", "messages": [USER], "stream": True}),
    "responses": ("/v1/responses", {"model": "m", "input": "Hi", "store": False}),
    "responses, streamed": ("/v1/responses", {"model": "m", "input": "Hi", "store": False, "stream": True}),
    "messages": ("/v1/messages", {"model": "m", "max_tokens": 9, "messages": [USER]}),
    "messages, streamed": ("/v1/messages", {"model": "m", "max_tokens": 9, "messages": [USER], "stream": True}),
    "gemini": ("/v1beta/models/m:generateContent", {"contents": [{"parts": [{"text": "Hi"}]}]}),
    "gemini, streamed": ("/v1beta/models/m:streamGenerateContent?alt=sse", {"contents": [{"parts": [{"text": "Hi"}]}]}),
    "gemini, streamed as a list": (
        "/v1beta/models/m:streamGenerateContent",
        {"contents": [{"parts": [{"text": "Hi"}]}]},
    ),
    "completions": ("/v1/completions", {"model": "m", "prompt": "Hi"}),
    "completions, streamed": ("/v1/completions", {"model": "m", "prompt": "Hi", "stream": True}),
    "embeddings": ("/v1/embeddings", {"model": "m", "input": "Hi"}),
    "gemini embeddings": ("/v1beta/models/m:embedContent", {"content": {"parts": [{"text": "Hi"}]}}),
}
"""Each inference endpoint, whole and streamed."""
NATIVE = ("chat", "chat, streamed", "embeddings")


def numbered() -> Callable[[Seen], Sequence[Step]]:
    """An upstream that never says the same twice."""
    count = 0

    def answer(seen: Seen) -> Sequence[Step]:
        nonlocal count
        count += 1
        if seen.path.endswith("/embeddings"):
            return http(
                {
                    "object": "list",
                    "data": [{"object": "embedding", "index": 0, "embedding": [count, 0.5]}],
                    "model": "m-1",
                    "usage": {"prompt_tokens": 2, "total_tokens": 2},
                }
            )
        text = f"answer number {count}"
        return chat_stream(text) if seen.json.get("stream") else chat_answer(text)

    return answer


async def caching(start: Start, upstream: FakeUpstream, more: str = "", **options: Any) -> Running:
    """A relay that keeps answers."""
    upstream.answer = upstream.answer or numbered()
    plugins = Plugins.load(options={"cache": {**OPTIONS, **options}})
    return await start(openai_config(upstream) + more, plugins=plugins)


def answers(relay: Running) -> AnswerCache:
    (policy, _), *_ = relay.relay.pipeline._policies  # type: ignore[attr-defined]
    found: AnswerCache = policy._policy
    return found


async def ask(relay: Running, way: str = "chat", *, headers: Any = None, **more: Any) -> tuple[int, bytes, Any]:
    path, body = WAYS[way]
    sent = {"Authorization": f"Bearer {relay.key}", **(headers or {})}
    async with relay.client.post(relay.url + path, json={**body, **more}, headers=sent) as response:
        return response.status, await response.read(), response.headers


def said(answer: tuple[int, bytes, Any]) -> str | None:
    """What an answer says of where it comes from."""
    found: str | None = answer[2].get("x-relay-cache")
    return found


@pytest.mark.promise("L-12")
@pytest.mark.parametrize("way", WAYS)
async def test_the_same_question_gets_the_same_answer_in_every_dialect_and_costs_nothing(
    start: Start, upstream: FakeUpstream, way: str
) -> None:
    relay = await caching(start, upstream)
    first, second = await ask(relay, way), await ask(relay, way)
    assert (first[0], second[0]) == (200, 200)
    assert (said(first), said(second)) == ("miss", "hit")
    assert second[1] == first[1]
    assert len(upstream.seen) == 1
    for name in ("content-type", "x-relay-upstream", "x-relay-model", "x-relay-dropped"):
        assert second[2].get(name) == first[2].get(name), name
    assert second[2]["x-request-id"] != first[2]["x-request-id"]
    assert second[2]["age"] == "0"
    hit, miss = await relay.rows()
    assert (hit.usage_source, hit.cost, hit.usage, hit.outcome, hit.status) == ("cache", 0, None, "ok", 200)
    assert (hit.model, hit.upstream, hit.key_id) == ("m", None, miss.key_id)
    assert miss.usage_source == "provider"
    assert miss.cost is not None
    assert miss.cost > 0
    assert relay.relay.limiter.running() == 0


@pytest.mark.promise("L-12")
@pytest.mark.parametrize("way", [*NATIVE, "messages", "responses, streamed"])
async def test_an_answer_on_its_way_into_the_cache_is_the_one_that_others_get(
    start: Start, upstream: FakeUpstream, way: str
) -> None:
    relay = await caching(start, upstream)
    kept = await ask(relay, way)
    upstream.answer = numbered()
    plain = await start(openai_config(upstream))
    other = await ask(plain, way)
    assert "x-relay-cache" not in other[2]
    if way in NATIVE:
        assert kept[1] == other[1], "what passes through passes through untouched"
    rows = [(row.usage, row.cost, row.usage_source) for row in (await relay.row(), await plain.row())]
    assert rows[0] == rows[1]


DIFFERENT: dict[str, dict[str, Any]] = {
    "system text": {"messages": [{"role": "system", "content": "s"}, USER]},
    "temperature": {"temperature": 0.1},
    "user": {"user": "somebody"},
    "order of tools": {
        "tools": [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("b", "a")]
    },
    "stream": {"stream": True},
}


@pytest.mark.promise("L-12")
@pytest.mark.parametrize("what", DIFFERENT)
async def test_another_question_is_asked(start: Start, upstream: FakeUpstream, what: str) -> None:
    relay = await caching(start, upstream)
    base: dict[str, Any] = {}
    if what == "order of tools":
        base = {"tools": DIFFERENT[what]["tools"][::-1]}
    assert said(await ask(relay, **base)) == "miss"
    assert said(await ask(relay, **DIFFERENT[what])) == "miss"
    assert len(upstream.seen) == 2
    assert said(await ask(relay, **base)) == said(await ask(relay, **DIFFERENT[what])) == "hit"
    assert len(upstream.seen) == 2


@pytest.mark.promise("A-13")
@pytest.mark.promise("L-12")
@pytest.mark.parametrize("shared", [False, True])
async def test_answers_belong_to_their_key_unless_they_are_shared(
    start: Start, upstream: FakeUpstream, shared: bool
) -> None:
    relay = await caching(start, upstream, shared=shared)
    _, secret = await relay.relay.store.keys.create("other")
    other = {"Authorization": f"Bearer {secret}"}
    first = await ask(relay)
    second = await ask(relay, headers=other)
    assert said(second) == ("hit" if shared else "miss")
    assert (second[1] == first[1]) is shared
    # Tools make a conversation, in which the relay remembers things for each key.
    tools = DIFFERENT["order of tools"]
    assert said(await ask(relay, **tools)) == said(await ask(relay, headers=other, **tools)) == "miss"
    # Whoever may not use the model gets nothing of it, whoever has asked before; nor does one with no key left.
    _, poor = await relay.relay.store.keys.create("poor", models=["x"])
    refused = await ask(relay, headers={"Authorization": f"Bearer {poor}"})
    assert (refused[0], said(refused)) == (403, None)
    await relay.relay.store.keys.revoke("other")
    assert (await ask(relay, headers=other))[0] == 401


@pytest.mark.promise("L-12")
async def test_a_strict_key_gets_no_answer_that_it_would_be_refused(start: Start, upstream: FakeUpstream) -> None:
    relay = await caching(start, upstream, shared=True)
    _, secret = await relay.relay.store.keys.create("strict", strict=True)
    lossy = {"container": "c", "max_tokens": 9}
    first = await ask(relay, "messages", **lossy)
    assert (first[0], first[2]["x-relay-dropped"]) == (200, "container")
    assert said(await ask(relay, "messages", **lossy)) == "hit"
    assert (await ask(relay, "messages", headers={"Authorization": f"Bearer {secret}"}, **lossy))[0] == 400


@pytest.mark.promise("L-12")
async def test_a_hit_is_a_call_like_any_other_to_every_limit(start: Start, upstream: FakeUpstream) -> None:
    relay = await caching(start, upstream)
    _, secret = await relay.relay.store.keys.create("few", rpm=2)
    few = {"Authorization": f"Bearer {secret}"}
    assert [(await ask(relay, headers=few))[0] for _ in range(3)] == [200, 200, 429]
    _, secret = await relay.relay.store.keys.create("small", tpm=10)
    assert (await ask(relay, headers={"Authorization": f"Bearer {secret}"}))[0] == 429
    _, secret = await relay.relay.store.keys.create("poor", budget={"total": 3_000_000})
    poor = {"Authorization": f"Bearer {secret}"}
    assert said(await ask(relay, headers=poor, max_tokens=1000)) == "miss"
    assert said(await ask(relay, headers=poor, max_tokens=1000)) == "hit"
    account = relay.relay.ledger.accounts[(await relay.relay.store.keys.find("poor")).id]
    assert (account.held, account.of("total", 0)) == (0, 17_000), "the hit has cost nothing"
    await relay.relay.store.keys.update("poor", budget={"total": 17_001})
    assert (await ask(relay, headers=poor, max_tokens=1000))[0] == 402


@pytest.mark.promise("L-12")
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("why", ["error", "cut", "length", "filter", "no reason", "error in the stream", "client gone"])
async def test_what_is_not_whole_is_not_kept(start: Start, upstream: FakeUpstream, why: str, streamed: bool) -> None:
    text = chat_chunk({"content": "Hel"})
    ended = [chat_chunk(choices=[], usage=USAGE), DONE]
    whole = b"".join(step for step in chat_answer() if isinstance(step, bytes))
    scripts: dict[str, tuple[Sequence[Step], Sequence[Step]]] = {
        "error": (http({"error": {"message": "no"}}, 400), http({"error": {"message": "no"}}, 400)),
        "cut": ([whole[:-40], "fin"], [*stream(text, end=False), "fin"]),
        "length": (
            chat_answer(choices=[{"index": 0, "message": {"content": "Hel"}, "finish_reason": "length"}]),
            stream(text, chat_chunk(finish="length"), *ended),
        ),
        "filter": (
            chat_answer(choices=[{"index": 0, "message": {"content": "Hel"}, "finish_reason": "content_filter"}]),
            stream(text, chat_chunk(finish="content_filter"), *ended),
        ),
        "no reason": (
            chat_answer(choices=[{"index": 0, "message": {"content": "Hel"}, "finish_reason": "error"}]),
            stream(text, DONE),
        ),
        "error in the stream": (
            http({"error": {"message": "no"}}, 500),
            stream(text, b'data: {"error": {"message": "no"}}\n\n'),
        ),
        "client gone": ([whole[:-40], "stall"], [*stream(text, end=False), "stall"]),
    }
    upstream.answer = lambda seen: scripts[why][streamed]
    relay = await caching(
        start, upstream, more="\n    [routing]\n    max_attempts = 1\n    max_cool_down_seconds = 0\n"
    )
    way = "chat, streamed" if streamed else "chat"
    if why == "client gone":
        async with wire(relay) as connection:
            connection.send(post(relay.key, **WAYS[way][1]))
            await until(lambda: bool(upstream.seen))
            await asyncio.sleep(0.05)
        await until(lambda: len(upstream.peer_left) == 1)
    else:
        with contextlib.suppress(aiohttp.ClientPayloadError):
            await ask(relay, way)
    asked = len(upstream.seen)
    assert len(answers(relay).answers) == 0
    (_, room), *_ = relay.relay.pipeline._policies  # type: ignore[attr-defined]
    await until(lambda: room.left == answers(relay).room)
    upstream.answer = numbered()
    again = await ask(relay, way)
    assert (again[0], said(again)) == (200, "miss")
    assert len(upstream.seen) == asked + 1
    await until(lambda: relay.relay.limiter.running() == 0)


@pytest.mark.promise("L-12")
async def test_clients_say_whether_they_want_it(start: Start, upstream: FakeUpstream) -> None:
    relay = await caching(start, upstream)
    first = await ask(relay)
    anew = await ask(relay, headers={"Cache-Control": "no-cache"})
    assert (said(anew), anew[1] == first[1]) == ("miss", False)
    # What came then is what is kept now.
    assert (await ask(relay))[1] == anew[1]
    untouched = await ask(relay, headers={"Cache-Control": "no-store"})
    assert (said(untouched), len(upstream.seen)) == (None, 3)
    assert (await ask(relay))[1] == anew[1]
    assert said(await ask(relay, headers={"Cache-Control": "max-age=0"})) == "miss"
    assert said(await ask(relay, headers={"Cache-Control": "max-age=60"})) == "hit"


@pytest.mark.promise("L-12")
async def test_answers_grow_old_and_are_bounded(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = await caching(start, upstream, seconds=60, megabytes=1, largest_kilobytes=8)
    cache, now = answers(relay), 1000.0
    monkeypatch.setattr(cache, "_clock", lambda: now)
    assert said(await ask(relay)) == "miss"
    now = 1059.0
    hit = await ask(relay)
    assert (said(hit), hit[2]["age"]) == ("hit", "59")
    now = 1060.0
    assert said(await ask(relay)) == "miss"
    upstream.answer = lambda seen: chat_answer("x" * 10_000)
    assert said(await ask(relay, user="large")) == said(await ask(relay, user="large")) == "miss"
    upstream.answer = lambda seen: chat_stream("x" * 10_000)
    for _ in range(2):
        assert said(await ask(relay, "chat, streamed", user="large")) == "miss"
    assert cache.answers.size < 10_000


@pytest.mark.promise("L-12")
async def test_with_other_settings_of_the_target_it_is_another_question(start: Start, upstream: FakeUpstream) -> None:
    relay = await caching(start, upstream)
    before = relay.relay.config
    assert said(await ask(relay)) == "miss"
    for change in (("output = 2.0", "output = 3.0"), ("m-1", "m-2"), ("/v1", "/v1/"), ("m]", "m]\nowned_by = 'x'")):
        other = type(before)
        config = other(**{name: getattr(before, name) for name in before.__slots__})
        text = openai_config(upstream).replace(*change)
        await reload(relay.relay, _read(text))
        assert said(await ask(relay)) == ("hit" if change[0] == "m]" else "miss"), change
        await reload(relay.relay, config)
        assert said(await ask(relay)) == "hit"


def _read(text: str) -> Any:
    return read_text(ALONE + textwrap.dedent(text), "test.toml", {})


async def test_what_another_target_has_answered_is_given_only_while_that_would_be_asked(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.answer = lambda seen: (
        http({"error": {"message": "no"}}, 500) if seen.json["model"] == "a" else chat_answer("of the second")
    )
    config = openai_config(upstream).replace('["up/m-1"]', '["up/a", "up/b"]')
    config += "\n    [routing]\n    failures = 1\n    max_attempts = 1\n"
    plugins = Plugins.load(options={"cache": OPTIONS})
    now = 1000.0
    relay = await start(config, plugins=plugins, clock=lambda: now)
    first = await ask(relay)
    assert (said(first), first[2]["x-relay-model"], first[2]["x-relay-attempts"]) == ("miss", "b", "2")
    # As long as the first one rests, the second would be asked.
    hit = await ask(relay)
    assert (said(hit), hit[1], "x-relay-attempts" in hit[2]) == ("hit", first[1], False)
    now = 2000.0
    upstream.answer = lambda seen: chat_answer(f"of {seen.json['model']}")
    again = await ask(relay)
    assert (said(again), again[2]["x-relay-model"]) == ("miss", "a")
    assert said(await ask(relay)) == "hit"


async def test_models_and_keys_that_are_not_named_are_left_alone(start: Start, upstream: FakeUpstream) -> None:
    relay = await caching(start, upstream, keys=["other"])
    _, secret = await relay.relay.store.keys.create("other")
    for _ in range(2):
        assert said(await ask(relay)) is None
    other = {"Authorization": f"Bearer {secret}"}
    assert [said(await ask(relay, headers=other)) for _ in range(2)] == ["miss", "hit"]
    assert len(upstream.seen) == 3


@pytest.mark.parametrize("fields", [{}, {"store": True}, {"previous_response_id": "resp_1", "store": False}])
async def test_answers_that_can_be_referred_to_and_those_that_refer_are_not_kept(
    start: Start, upstream: FakeUpstream, fields: dict[str, Any]
) -> None:
    relay = await caching(start, upstream)
    path = "/v1/responses"
    body = {"model": "m", "input": "Hi", **fields}
    for _ in range(2):
        async with relay.client.post(relay.url + path, json=body) as response:
            assert "x-relay-cache" not in response.headers
    assert len(answers(relay).answers) == 0


# Those who ask the same at a time.


@pytest.mark.promise("L-13")
@pytest.mark.parametrize("way", ["chat", "chat, streamed", "messages"])
async def test_of_fifty_who_ask_the_same_at_a_time_one_is_asked(start: Start, upstream: FakeUpstream, way: str) -> None:
    answer = numbered()
    upstream.answer = lambda seen: [0.2, *answer(seen)]
    relay = await caching(start, upstream, coalesce=True)
    found = await asyncio.gather(*(ask(relay, way) for _ in range(50)))
    assert {one[0] for one in found} == {200}
    assert len({one[1] for one in found}) == 1
    assert sorted(map(str, map(said, found))) == ["hit"] * 49 + ["miss"]
    assert len(upstream.seen) == 1
    rows = await relay.rows()
    assert sorted(row.usage_source for row in rows) == ["cache"] * 49 + ["provider"]
    assert sum(row.cost or 0 for row in rows) == 17_000


async def test_without_that_each_asks_for_itself(start: Start, upstream: FakeUpstream) -> None:
    answer = numbered()
    upstream.answer = lambda seen: [0.1, *answer(seen)]
    relay = await caching(start, upstream)
    await asyncio.gather(*(ask(relay) for _ in range(5)))
    assert len(upstream.seen) == 5


@pytest.mark.promise("L-13")
@pytest.mark.parametrize("way", ["chat", "chat, streamed"])
async def test_when_the_one_who_asks_leaves_the_others_get_the_answer_it_would_have_had(
    start: Start, upstream: FakeUpstream, way: str
) -> None:
    go = asyncio.Event()
    first = chat_chunk({"content": "Hel"})
    upstream.answer = lambda seen: (
        stream(first, go, chat_chunk({"content": "lo"}), chat_chunk(finish="stop"), DONE)
        if seen.json.get("stream")
        else [go, *chat_answer()]
    )
    relay = await caching(start, upstream, coalesce=True)
    async with wire(relay) as leader:
        leader.send(post(relay.key, **WAYS[way][1]))
        await until(lambda: len(upstream.seen) == 1)
        others = [asyncio.create_task(ask(relay, way)) for _ in range(5)]
        (flight,) = answers(relay)._flights.values()
        await until(lambda: flight.waiting == 5)
    await until(lambda: len(relay.relay.abandoned) == 1)
    go.set()
    found = await asyncio.gather(*others)
    assert {(one[0], said(one)) for one in found} == {(200, "hit")}
    assert all(b"lo" in one[1] for one in found)
    assert len(upstream.seen) == 1
    rows = await relay.rows()
    assert sorted(row.outcome for row in rows) == ["client_abort"] + ["ok"] * 5
    assert not upstream.peer_left


@pytest.mark.promise("L-13")
async def test_one_who_asks_for_nobody_else_takes_its_upstream_along(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: ["stall"]
    relay = await caching(start, upstream, coalesce=True)
    async with wire(relay) as leader:
        leader.send(post(relay.key, **WAYS["chat"][1]))
        await until(lambda: len(upstream.seen) == 1)
        other = asyncio.create_task(ask(relay))
        (flight,) = answers(relay)._flights.values()
        await until(lambda: flight.waiting == 1)
        other.cancel()
        await until(lambda: flight.waiting == 0)
    await until(lambda: len(upstream.peer_left) == 1)
    await until(lambda: not answers(relay)._flights)
    assert relay.relay.limiter.running() == 0


@pytest.mark.promise("L-13")
async def test_if_the_answer_is_for_nobody_else_the_others_ask_for_themselves(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.answer = lambda seen: [0.1, *http({"error": {"message": "no"}}, 400)]
    relay = await caching(start, upstream, coalesce=True)
    leader = asyncio.create_task(ask(relay))
    await until(lambda: len(upstream.seen) == 1)
    upstream.answer = numbered()
    others = [asyncio.create_task(ask(relay)) for _ in range(3)]
    (flight,) = answers(relay)._flights.values()
    await until(lambda: flight.waiting == 3)
    assert (await leader)[0] == 400
    assert {(one[0], said(one)) for one in await asyncio.gather(*others)} == {(200, "miss")}
    assert len(upstream.seen) == 4


@pytest.mark.promise("L-13")
async def test_when_the_one_who_asks_is_lost_the_next_one_asks(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: ["stall"]
    relay = await caching(start, upstream, coalesce=True)
    leader = asyncio.create_task(ask(relay))
    await until(lambda: len(upstream.seen) == 1)
    others = [asyncio.create_task(ask(relay)) for _ in range(4)]
    (flight,) = answers(relay)._flights.values()
    await until(lambda: flight.waiting == 4)
    answer = numbered()
    upstream.answer = lambda seen: [0.05, *answer(seen)]
    leader.cancel()
    await until(lambda: len(relay.relay.abandoned) == 1)
    # As at the end of the time that a call without a client gets.
    next(iter(relay.relay.abandoned)).stop(Exception())  # type: ignore[arg-type]
    found = await asyncio.gather(*others)
    assert sorted(map(str, map(said, found))) == ["hit", "hit", "hit", "miss"]
    assert len(upstream.seen) == 2


@pytest.mark.promise("L-13")
async def test_nobody_waits_longer_than_was_said(start: Start, upstream: FakeUpstream) -> None:
    go = asyncio.Event()
    upstream.answer = lambda seen: [go, *chat_answer("late")]
    relay = await caching(start, upstream, coalesce=True, wait_seconds=0.05)
    leader = asyncio.create_task(ask(relay))
    await until(lambda: len(upstream.seen) == 1)
    upstream.answer = lambda seen: chat_answer("early")
    other = await ask(relay)
    assert (said(other), b"early" in other[1]) == ("miss", True)
    go.set()
    assert b"late" in (await leader)[1]


async def test_calls_that_no_policy_wants_stay_in_the_lane(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []
    begin = lane.Passage.begin
    monkeypatch.setattr(lane.Passage, "begin", lambda self: (found.append(self), begin(self))[1])
    relay = await caching(start, upstream, models=["other"])
    for _ in range(2):
        assert said(await ask(relay)) is None
    assert len(found) == (1 if LANE else 0)
    relay = await caching(start, upstream)
    for _ in range(3):
        await ask(relay)
    assert len(found) == (1 if LANE else 0)
