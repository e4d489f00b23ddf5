"""Requests with a name of their own are carried out once."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import Any

import aiohttp
import pytest

from relay.store import repeats as table
from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import FakeUpstream, chat_answer, chat_chunk, chat_stream, http, stream
from tests.promises.test_budgets import again
from tests.promises.ways import answers, go, ways
from tests.promises.wire import until

PLAIN_HEADERS = ("content-type", "x-relay-upstream", "x-relay-model")


async def ask(relay: Running, name: str, path: str = "/v1/chat/completions", **body: Any) -> tuple[int, bytes, Any]:
    value = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50, **body}
    async with relay.client.post(relay.url + path, json=value, headers={"Idempotency-Key": name}) as response:
        return response.status, await response.read(), response.headers


async def kept(relay: Running) -> None:
    """Wait until what was answered is stored."""
    await until(lambda: not relay.relay.repeater._running)


def config(upstream: FakeUpstream) -> str:
    return "\n".join(line.strip() for line in openai_config(upstream).splitlines())


@pytest.mark.promise("L-17")
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_the_same_request_gets_the_same_answer_also_after_a_restart(
    start: Start, upstream: FakeUpstream, streamed: bool, path: str
) -> None:
    upstream.answer = lambda seen: chat_stream() if seen.json.get("stream") else chat_answer()
    relay = await start(config(upstream))
    status, first, headers = await ask(relay, "one", path, stream=streamed)
    assert status == 200
    assert "idempotent-replayed" not in headers
    await kept(relay)
    second = await again(relay, relay.relay.store.database.path, config(upstream))
    try:
        for where in (relay, second, relay):
            status, body, told = await ask(where, "one", path, stream=streamed)
            assert (status, body, told["idempotent-replayed"]) == (200, first, "true")
            assert [told.get(name) for name in PLAIN_HEADERS] == [headers.get(name) for name in PLAIN_HEADERS]
            assert told["x-request-id"] != headers["x-request-id"]
    finally:
        await second.server.close()
    assert len(upstream.seen) == 1
    rows = await relay.rows()
    # Two processes wrote them, so their order says nothing.
    assert sorted((row.usage_source, row.cost) for row in rows) == [("cache", 0)] * 3 + [("provider", 17_000)]
    assert {row.outcome for row in rows} == {"ok"}


@pytest.mark.promise("L-17")
async def test_in_every_way_that_a_call_can_come_it_is_carried_out_once(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = answers
    relay = await start(config(upstream))
    for number, way in enumerate(ways(relay.relay.plugins, "generate", "embeddings")):
        said = []
        for _ in range(2):
            said.append(await go(relay, way, headers={"Idempotency-Key": f"name-{number}"}))
            await kept(relay)
        first, second = said
        assert (first.status, second.status, second.body) == (200, 200, first.body), str(way)
        assert "idempotent-replayed" not in first.headers
        assert second.headers["idempotent-replayed"] == "true", str(way)
        assert second.headers["content-type"] == first.headers["content-type"]
        assert len(upstream.seen) == number + 1, str(way)
    assert len(upstream.seen) > 20


@pytest.mark.promise("L-17")
async def test_while_the_first_is_under_way_a_repeat_is_told_to_wait(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: [0.3, *chat_answer()]
    relay = await start(config(upstream))
    first = asyncio.create_task(ask(relay, "one"))
    await until(lambda: len(upstream.seen) == 1)
    status, body, headers = await ask(relay, "one")
    assert (status, headers["retry-after"]) == (409, "1")
    assert b"idempotency_key_in_use" in body
    assert (await ask(relay, "one", max_tokens=51))[0] == 422
    assert (await first)[0] == 200
    await kept(relay)
    assert (await ask(relay, "one"))[0] == 200
    assert len(upstream.seen) == 1


@pytest.mark.promise("L-17")
async def test_another_request_under_the_same_name_is_refused(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: chat_answer()
    relay = await start(config(upstream))
    assert (await ask(relay, "one"))[0] == 200
    await kept(relay)
    for path, body in (("/v1/chat/completions", {"max_tokens": 51}), ("/v1/messages", {})):
        status, said, _ = await ask(relay, "one", path, **body)
        assert status == 422
        assert b"was used for another request" in said
    assert len(upstream.seen) == 1


@pytest.mark.promise("A-13")
@pytest.mark.promise("L-17")
async def test_names_belong_to_their_key(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: chat_answer(seen.json["messages"][0]["content"])
    relay = await start(config(upstream))
    _, secret = await relay.relay.store.keys.create("other")
    first = (await ask(relay, "one", messages=[{"role": "user", "content": "mine"}]))[1]
    await kept(relay)
    relay.client.headers["Authorization"] = f"Bearer {secret}"
    status, second, headers = await ask(relay, "one", messages=[{"role": "user", "content": "theirs"}])
    assert status == 200
    assert "idempotent-replayed" not in headers
    assert (b"mine" in first, b"theirs" in second, b"mine" in second) == (True, True, False)
    await relay.relay.store.keys.revoke("other")
    await kept(relay)
    assert (await ask(relay, "one", messages=[{"role": "user", "content": "theirs"}]))[0] == 401


@pytest.mark.promise("A-13")
async def test_what_is_kept_is_open_to_nobody_who_has_only_the_file(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: chat_answer("an answer for nobody else")
    relay = await start(config(upstream))
    _, first, _ = await ask(relay, "one", messages=[{"role": "user", "content": "a question of my own"}])
    await kept(relay)
    path = relay.relay.store.database.path
    for file in path.parent.glob(f"{path.name}*"):
        found = file.read_bytes()
        assert b"nobody else" not in found, file
        assert b"of my own" not in found, file
    ((digest, answer),) = await relay.relay.store.database.reader.fetch("SELECT digest, answer FROM repeats")
    assert digest == b""
    assert len(answer) > len(first)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE repeats SET answer = zeroblob(length(answer))")
    assert (await ask(relay, "one", messages=[{"role": "user", "content": "a question of my own"}]))[0] == 422
    assert len(upstream.seen) == 1


@pytest.mark.promise("L-17")
async def test_the_secret_that_a_key_had_before_is_the_one_that_opens_its_answers(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.answer = lambda seen: chat_answer()
    relay = await start(config(upstream))
    (key,) = await relay.relay.store.keys.all()
    first = (await ask(relay, "one"))[1]
    await kept(relay)
    old = relay.client.headers["Authorization"]
    _, secret = await relay.relay.store.keys.rotate(key.name, grace=3_600_000)
    for authorization, status in ((f"Bearer {secret}", 422), (old, 200), (f"Bearer {secret}", 422)):
        relay.client.headers["Authorization"] = authorization
        said = await ask(relay, "one")
        assert said[0] == status
        assert (said[1] == first) is (status == 200)
        assert (b"another secret" in said[1]) is (status == 422)
    assert len(upstream.seen) == 1


@pytest.mark.promise("L-17")
async def test_an_answer_that_was_stored_before_they_were_sealed_is_given_again(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.answer = lambda seen: chat_answer()
    relay = await start(config(upstream))
    first = (await ask(relay, "one"))[1]
    await kept(relay)
    store = relay.relay.store
    (key,) = [key for _, (key, _) in store.ring._hits.items()]
    found = await store.repeats.find(key, "one", int(relay.relay.wall() * 1000))
    assert found is not None
    with sqlite3.connect(store.database.path) as connection:
        connection.execute("UPDATE repeats SET digest = ?, answer = ?", found)
    status, body, headers = await ask(relay, "one")
    assert (status, body, headers["idempotent-replayed"]) == (200, first, "true")
    assert (await ask(relay, "one", max_tokens=51))[0] == 422


@pytest.mark.promise("L-17")
async def test_where_nothing_can_be_sealed_nobody_can_tell_and_nothing_is_carried_out_twice(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.answer = lambda seen: chat_answer()
    relay = await start(config(upstream))
    assert (await ask(relay, "one"))[0] == 200
    await kept(relay)

    def missing() -> Any:
        raise ImportError("there is no package for it")

    seals = relay.relay.store.repeats._seals
    seals._known.clear()
    seals._kind = None
    monkeypatch.setattr("relay.store.seals._load", missing)
    assert (await ask(relay, "one"))[0] == 503
    assert len(upstream.seen) == 1
    assert (await ask(relay, "two"))[0] == 200
    await kept(relay)
    assert "there is no package for it" in caplog.text


@pytest.mark.promise("A-13")
async def test_what_is_kept_goes_with_its_key(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: chat_answer()
    relay = await start(config(upstream))
    (key,) = await relay.relay.store.keys.all()
    await ask(relay, "one")
    await kept(relay)
    store = relay.relay.store
    with_secret = next(key for key, _ in store.ring._hits.values())
    await store.keys.revoke(key.name)
    assert await store.database.reader.fetch("SELECT count(*) FROM repeats") == [(0,)]
    # What was still under way then is not kept either.
    await store.repeats.store(with_secret, "late", b"d" * 32, b"{}", int(relay.relay.wall() * 1000))
    assert await store.database.reader.fetch("SELECT count(*) FROM repeats") == [(0,)]


@pytest.mark.promise("L-17")
@pytest.mark.parametrize(
    "script",
    [
        http({"error": {"message": "no"}}, 400),
        http({"error": {"message": "oh"}}, 500),
        [*stream(chat_chunk({"content": "x"}), end=False), "fin"],
    ],
)
async def test_what_failed_is_carried_out_again(start: Start, upstream: FakeUpstream, script: Any) -> None:
    streamed = len(script) > 1
    upstream.answer = lambda seen: script
    relay = await start(config(upstream))
    with contextlib.suppress(aiohttp.ClientPayloadError):
        await ask(relay, "one", stream=streamed)
    upstream.answer = lambda seen: chat_stream() if streamed else chat_answer()
    asked = len(upstream.seen)
    status, _, headers = await ask(relay, "one", stream=streamed)
    assert status == 200
    assert "idempotent-replayed" not in headers
    assert len(upstream.seen) == asked + 1


@pytest.mark.promise("L-17")
async def test_an_answer_is_forgotten_after_a_day(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: chat_answer()
    relay = await start(config(upstream))
    now = 1_900_000_000.0
    relay.relay.wall = lambda: now
    for passed, replayed in ((0, False), (86_399, True), (2, False)):
        now += passed
        assert ("idempotent-replayed" in (await ask(relay, "one"))[2]) is replayed
        await kept(relay)
    assert len(upstream.seen) == 2


@pytest.mark.promise("L-17")
async def test_the_table_and_each_answer_in_it_are_bounded(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "ROWS", 5)
    monkeypatch.setattr(table, "OFTEN", 1)
    monkeypatch.setattr("relay.repeats.LARGEST", 10_000)
    upstream.answer = lambda seen: chat_answer("x" * (20_000 if seen.json["max_tokens"] == 99 else 10))
    relay = await start(config(upstream))
    for number in range(12):
        await ask(relay, f"name {number}")
        await kept(relay)
    ((count,),) = await relay.relay.store.database.reader.fetch("SELECT count(*) FROM repeats")
    assert count == 5
    for _ in range(2):
        assert "idempotent-replayed" not in (await ask(relay, "large", max_tokens=99))[2]
        await kept(relay)


@pytest.mark.promise("L-17")
@pytest.mark.parametrize("name", ["", "x" * 256, "ä"])
async def test_a_name_that_cannot_be_kept_is_refused(start: Start, upstream: FakeUpstream, name: str) -> None:
    upstream.answer = lambda seen: chat_answer()
    relay = await start(config(upstream))
    status, body, _ = await ask(relay, name)
    assert status == 400
    assert b"Idempotency-Key" in body
    assert not upstream.seen


@pytest.mark.promise("L-17")
async def test_a_repeat_is_told_what_is_true_of_itself(start: Start, upstream: FakeUpstream) -> None:
    """The page that may read it, and its own limits' state, are the repeat's and not the first request's."""
    upstream.answer = lambda seen: chat_answer()
    pages = "https://a.example", "https://b.example"
    relay = await start(config(upstream) + f"\n[server]\norigins = {list(pages)}\n")
    for page in pages:
        relay.client.headers["Origin"] = page
        _, _, headers = await ask(relay, "one")
        assert headers.getall("Access-Control-Allow-Origin") == [page]
        await kept(relay)
    assert headers["idempotent-replayed"] == "true"
    assert len(upstream.seen) == 1
