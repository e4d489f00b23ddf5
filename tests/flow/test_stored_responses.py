"""Answers that are referred to later, with the official SDK as judge, on upstreams that keep none themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import FakeUpstream, chat_answer, chat_stream
from tests.flow.test_chat import tool_answer
from tests.flow.test_responses_sdk import TOOL, anthropic_config, native_config


@pytest.fixture
async def connect() -> AsyncIterator[Any]:
    clients: list[AsyncOpenAI] = []

    def build(relay: Running, key: str = "") -> AsyncOpenAI:
        clients.append(AsyncOpenAI(base_url=f"{relay.url}/v1", api_key=key or relay.key, max_retries=0))
        return clients[-1]

    yield build
    for client in clients:
        await client.close()


def said(upstream: FakeUpstream) -> list[tuple[str, Any]]:
    """The conversation as the upstream last got it."""
    return [(message["role"], message.get("content")) for message in upstream.seen[-1].json["messages"]]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_conversation_goes_on_from_the_answer_that_it_names(
    start: Start, upstream: FakeUpstream, connect: Any, streamed: bool
) -> None:
    upstream.scripts = [
        chat_stream() if streamed else chat_answer(),
        chat_answer(text="second"),
        chat_answer(text="third"),
    ]
    sdk = connect(await start(openai_config(upstream)))
    if streamed:
        async with sdk.responses.stream(model="m", input="one", instructions="Be brief.") as stream:
            first = await stream.get_final_response()
    else:
        first = await sdk.responses.create(model="m", input="one", instructions="Be brief.")
    assert first.store
    second = await sdk.responses.create(model="m", input="two", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    # Instructions hold for one answer only.
    assert said(upstream) == [("user", "one"), ("assistant", "Hello there"), ("user", "two")]
    await sdk.responses.create(model="m", input=[{"role": "user", "content": "three"}], previous_response_id=second.id)
    assert said(upstream) == [
        ("user", "one"),
        ("assistant", "Hello there"),
        ("user", "two"),
        ("assistant", "second"),
        ("user", "three"),
    ]
    # An earlier answer can be gone on from twice.
    await sdk.responses.create(model="m", input="another", previous_response_id=first.id)
    assert said(upstream) == [("user", "one"), ("assistant", "Hello there"), ("user", "another")]


async def test_a_tools_result_finds_its_call(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    upstream.scripts = [tool_answer('{"city": "Oslo"}'), chat_answer()]
    sdk = connect(await start(openai_config(upstream)))
    first = await sdk.responses.create(model="m", input="Weather?", tools=[TOOL])
    (call,) = [item for item in first.output if item.type == "function_call"]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "7 degrees"}
    await sdk.responses.create(model="m", input=[result], previous_response_id=first.id, tools=[TOOL])
    messages = upstream.seen[-1].json["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool"]
    assert messages[1]["tool_calls"][0]["id"] == messages[2]["tool_call_id"]
    reference = {"type": "item_reference", "id": call.id}
    await sdk.responses.create(model="m", input=[{"role": "user", "content": "?"}, reference, result], tools=[TOOL])
    assert [message["role"] for message in upstream.seen[-1].json["messages"]] == ["user", "assistant", "tool"]


@pytest.mark.promise("A-13")
async def test_answers_belong_to_the_key_they_were_given_to(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream))
    _, secret = await relay.relay.store.keys.create("other")
    mine, other = connect(relay), connect(relay, secret)
    first = await mine.responses.create(model="m", input="one")
    with pytest.raises(openai.BadRequestError) as unknown:
        await other.responses.create(model="m", input="two", previous_response_id=first.id)
    assert (unknown.value.code, unknown.value.param) == ("previous_response_not_found", "previous_response_id")
    for ask in (other.responses.retrieve, other.responses.input_items.list, other.responses.delete):
        with pytest.raises(openai.NotFoundError):
            await ask(first.id)
    assert (await mine.responses.retrieve(first.id)).output_text == "Hello there"


async def test_an_answer_can_be_read_and_deleted(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    upstream.scripts = [chat_answer()]
    sdk = connect(await start(openai_config(upstream)))
    items = [{"role": "user", "content": text} for text in ("one", "two", "three")]
    first = await sdk.responses.create(model="m", input=items)
    assert (await sdk.responses.retrieve(first.id)).model_dump() == first.model_dump()
    pages = [item.content async for item in sdk.responses.input_items.list(first.id, limit=2, order="asc")]
    assert pages == ["one", "two", "three"]
    newest = await sdk.responses.input_items.list(first.id, limit=1)
    assert (newest.data[0].content, newest.has_more) == ("three", True)
    await sdk.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        await sdk.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError):
        await sdk.responses.create(model="m", input="more", previous_response_id=first.id)


async def test_what_is_not_to_be_stored_is_not(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream))
    sdk = connect(relay)
    first = await sdk.responses.create(model="m", input="one", store=False)
    assert first.store is False
    assert relay.relay.shelf is not None
    assert len(relay.relay.shelf) == 0
    with pytest.raises(openai.BadRequestError, match="was not stored"):
        await sdk.responses.create(model="m", input="two", previous_response_id=first.id)


async def test_a_relay_that_keeps_nothing_says_so(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    upstream.scripts = [chat_answer()]
    sdk = connect(await start(openai_config(upstream) + "[memory]\nanswers_megabytes = 0\n"))
    first = await sdk.responses.create(model="m", input="one")
    with pytest.raises(openai.BadRequestError):
        await sdk.responses.create(model="m", input="two", previous_response_id=first.id)
    with pytest.raises(openai.NotFoundError):
        await sdk.responses.retrieve(first.id)


async def test_what_an_upstream_keeps_itself_passes_to_it_untouched(
    start: Start, upstream: FakeUpstream, connect: Any
) -> None:
    upstream.scripts = [[b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"]]
    sdk = connect(await start(native_config(upstream)))
    with pytest.raises(openai.InternalServerError):
        await sdk.responses.create(
            model="m", input=[{"type": "item_reference", "id": "msg_9"}], previous_response_id="resp_9"
        )
    sent = upstream.seen[-1].json
    assert (sent["previous_response_id"], sent["input"]) == ("resp_9", [{"type": "item_reference", "id": "msg_9"}])


async def test_an_answer_of_one_model_can_be_gone_on_from_with_another(
    start: Start, upstream: FakeUpstream, connect: Any
) -> None:
    upstream.scripts = [chat_answer(), chat_answer()]
    config = anthropic_config(upstream).replace("upstreams.up", "upstreams.claude").replace("up/m-1", "claude/m-1")
    relay = await start(openai_config(upstream) + config.replace("[models.m]", "[models.other]"))
    sdk = connect(relay)
    first = await sdk.responses.create(model="m", input="one")
    with pytest.raises(openai.APIStatusError):
        # The answer is no answer of that upstream's; what matters is what it was asked.
        await sdk.responses.create(model="other", input="two", previous_response_id=first.id)
    texts = [(one["role"], one["content"]) for one in upstream.seen[-1].json["messages"]]
    assert [role for role, _ in texts] == ["user", "assistant", "user"]
    assert "Hello there" in str(texts[1])
