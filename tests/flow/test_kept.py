"""What is kept for the next turn, beyond the process that kept it: after a restart, and for another worker."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import FakeUpstream, chat_answer
from tests.flow.test_memory import (
    CALL,
    HIDDEN,
    THOUGHT,
    anthropic,
    first_turn,
    messages_answer,
    next_turn,
    sent_turn,
)

DONE = messages_answer({"type": "text", "text": "7"}, stop="end_turn")


@pytest.fixture
async def connect() -> AsyncIterator[Any]:
    clients: list[AsyncOpenAI] = []

    def build(relay: Running, key: str = "") -> AsyncOpenAI:
        clients.append(AsyncOpenAI(base_url=f"{relay.url}/v1", api_key=key or relay.key, max_retries=0))
        return clients[-1]

    yield build
    for client in clients:
        await client.close()


async def stop(relay: Running) -> None:
    await relay.client.close()
    await relay.server.close()


def stored(relay: Running) -> bytes:
    """All that is in the database's files."""
    path = relay.relay.store.database.path
    return b"".join(file.read_bytes() for file in path.parent.glob(path.name + "*"))


@pytest.mark.promise("M-09")
@pytest.mark.parametrize("other", ["after a restart", "at another worker"])
async def test_reasoning_comes_back(start: Start, upstream: FakeUpstream, other: str) -> None:
    upstream.scripts = [messages_answer(THOUGHT, HIDDEN, CALL), DONE, DONE]
    relay = await start(anthropic(upstream))
    await first_turn(relay, False)
    if other == "after a restart":
        await stop(relay)
    elif (kept := relay.relay.store.kept) is not None:
        assert await kept.flush()
    again = await start(anthropic(upstream), like=relay)
    for _ in range(2):
        async with again.chat(**next_turn()) as response:
            assert response.status == 200
        assert sent_turn(upstream)["content"] == [THOUGHT, HIDDEN, CALL]
    assert [row.outcome for row in await again.rows()][:2] == ["ok"] * 2


@pytest.mark.promise("A-05")
@pytest.mark.promise("S-13")
async def test_the_database_holds_no_word_of_what_is_kept(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    thought = {**THOUGHT, "thinking": "CANARY-thought", "signature": "CANARYsignature"}
    upstream.scripts = [messages_answer(thought, {**CALL, "id": "toolu_CANARY01"}), chat_answer("CANARY-answer")]
    chat = openai_config(upstream).replace("upstreams.up", "upstreams.chat").replace("up/m-1", "chat/m-1")
    relay = await start(anthropic(upstream) + chat.replace("[models.m]", "[models.n]"))
    await first_turn(relay, False)
    await connect(relay).responses.create(model="n", input="CANARY-prompt")
    kept = relay.relay.store.kept
    assert kept is not None
    assert await kept.flush()
    assert kept.written == 3
    assert b"CANARY" not in stored(relay)
    await stop(relay)
    assert b"CANARY" not in stored(relay)


async def test_an_answer_can_be_gone_on_from_after_a_restart(
    start: Start, upstream: FakeUpstream, connect: Any
) -> None:
    upstream.scripts = [chat_answer(), chat_answer("second")]
    relay = await start(openai_config(upstream))
    first = await connect(relay).responses.create(model="m", input="one")
    await stop(relay)
    again = await start(openai_config(upstream), like=relay)
    sdk = connect(again)
    assert (await sdk.responses.retrieve(first.id)).output_text == "Hello there"
    await sdk.responses.create(model="m", input="two", previous_response_id=first.id)
    said = [(one["role"], one["content"]) for one in upstream.seen[-1].json["messages"]]
    assert said == [("user", "one"), ("assistant", "Hello there"), ("user", "two")]
    _, secret = await again.relay.store.keys.create("other")
    with pytest.raises(Exception, match="there is no answer"):
        await connect(again, secret).responses.create(model="m", input="two", previous_response_id=first.id)


async def test_an_answer_that_one_worker_deletes_is_gone_at_all(
    start: Start, upstream: FakeUpstream, connect: Any
) -> None:
    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream))
    other = await start(openai_config(upstream), like=relay)
    here, there = connect(relay), connect(other)
    first = await here.responses.create(model="m", input="one")
    assert (await there.responses.retrieve(first.id)).id == first.id
    await there.responses.delete(first.id)
    with pytest.raises(Exception, match="no such answer"):
        await here.responses.retrieve(first.id)


async def test_a_damaged_database_costs_what_is_kept_and_no_call(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [messages_answer(THOUGHT, CALL), DONE]
    relay = await start(anthropic(upstream))
    await first_turn(relay, False)
    await stop(relay)
    with sqlite3.connect(relay.relay.store.database.path) as connection:
        assert connection.execute("UPDATE kept SET sealed = randomblob(length(sealed))").rowcount == 1
    again = await start(anthropic(upstream), like=relay)
    async with again.chat(**next_turn()) as response:
        assert response.status == 200
    assert sent_turn(upstream)["content"] == [CALL]


async def test_a_call_without_tools_and_without_a_name_of_another_asks_nothing_of_it(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.scripts = [chat_answer(), chat_answer()]
    relay = await start(openai_config(upstream))
    kept = relay.relay.store.kept
    assert kept is not None
    for body in ({}, {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}):
        async with relay.chat(**body) as response:
            assert response.status == 200
    assert kept._task is None
    assert kept._seals._kind is None
