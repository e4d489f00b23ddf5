"""The official SDK as judge: what the relay answers, it must take for OpenAI."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import DONE, FakeUpstream, chat_answer, chat_chunk, chat_stream, http, stream
from tests.flow.test_chat import TOOL, body_of, tool_answer, tool_stream

HI: Any = [{"role": "user", "content": "Hi"}]


@pytest.fixture
async def connect() -> AsyncIterator[Any]:
    clients: list[AsyncOpenAI] = []

    def build(relay: Running, **options: Any) -> AsyncOpenAI:
        clients.append(AsyncOpenAI(base_url=f"{relay.url}/v1", api_key=relay.key, **{"max_retries": 0, **options}))
        return clients[-1]

    yield build
    for client in clients:
        await client.close()


DEMO = "[upstreams.demo]\n"


async def test_a_plain_answer(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    upstream.scripts = [chat_answer("Good day")]
    sdk = connect(await start(openai_config(upstream)))
    answer = await sdk.chat.completions.create(model="m", messages=HI)
    assert answer.choices[0].message.content == "Good day"
    assert answer.usage.total_tokens == 14


async def test_a_stream_with_usage(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    upstream.scripts = [chat_stream("Good day to you")]
    sdk = connect(await start(openai_config(upstream)))
    text, usage = "", None
    async for chunk in await sdk.chat.completions.create(
        model="m", messages=HI, stream=True, stream_options={"include_usage": True}
    ):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    assert text == "Good day to you"
    assert usage is not None
    assert usage.total_tokens == 14


async def test_a_stream_without_usage_shows_none(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    upstream.scripts = [chat_stream()]
    sdk = connect(await start(openai_config(upstream)))
    async for chunk in await sdk.chat.completions.create(model="m", messages=HI, stream=True):
        assert chunk.usage is None
        assert chunk.choices


async def test_tool_calls_streamed_and_whole(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    arguments = '{"city":"Oslo"}'
    upstream.scripts = [tool_answer(arguments), tool_stream(arguments)]
    sdk = connect(await start(openai_config(upstream)))
    whole = await sdk.chat.completions.create(model="m", messages=HI, tools=[TOOL])
    assert whole.choices[0].message.tool_calls[0].function.arguments == arguments
    async with sdk.chat.completions.stream(model="m", messages=HI, tools=[TOOL]) as events:
        final = await events.get_final_completion()
    call = final.choices[0].message.tool_calls[0]
    assert (call.id, call.function.name, call.function.arguments) == ("call_1", "weather", arguments)


class City(BaseModel):
    name: str
    people: int


async def test_structured_output_is_parsed(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    upstream.scripts = [chat_answer('{"name":"Oslo","people":700000}')]
    sdk = connect(await start(openai_config(upstream)))
    answer = await sdk.chat.completions.parse(model="m", messages=HI, response_format=City)
    assert answer.choices[0].message.parsed == City(name="Oslo", people=700000)
    assert upstream.seen[0].json["response_format"]["json_schema"]["strict"] is True


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
async def test_an_upstream_that_does_not_stream_is_made_to(
    start: Start, upstream: FakeUpstream, connect: Any, content_type: str
) -> None:
    """Event streams skip what they do not know: passed through, the answer would be empty without a word."""
    whole = body_of(chat_answer("Good day"))
    upstream.scripts = [http(whole, content_type=content_type)]
    relay = await start(openai_config(upstream))
    sdk = connect(relay)

    async def read() -> str:
        stream = await sdk.chat.completions.create(model="m", messages=HI, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    if content_type == "application/json":
        assert await read() == "Good day"
        assert ((await relay.row()).outcome, (await relay.row()).usage_source) == ("ok", "provider")
    else:
        with pytest.raises(openai.InternalServerError):
            await read()


async def test_a_refusal_is_a_refusal(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": None, "refusal": "I would rather not."},
        "finish_reason": "stop",
    }
    upstream.scripts = [chat_answer(choices=[choice])]
    sdk = connect(await start(openai_config(upstream)))
    answer = await sdk.chat.completions.parse(model="m", messages=HI, response_format=City)
    assert answer.choices[0].message.refusal == "I would rather not."


@pytest.mark.parametrize(
    ("script", "kind", "status"),
    [
        (http({"error": {"message": "wrong"}}, 400), openai.BadRequestError, 400),
        (http({"error": {"message": "none"}}, 404), openai.NotFoundError, 404),
        (http({"error": {"message": "slow"}}, 429), openai.RateLimitError, 429),
        (http({"error": {"message": "ours"}}, 401), openai.InternalServerError, 502),
        (http({"error": {"message": "boom"}}, 500), openai.InternalServerError, 502),
        (["fin"], openai.InternalServerError, 502),
    ],
)
async def test_upstream_errors_raise_the_right_class(
    start: Start, upstream: FakeUpstream, connect: Any, script: Any, kind: Any, status: int
) -> None:
    upstream.scripts = [script]
    sdk = connect(await start(openai_config(upstream)))
    with pytest.raises(kind) as raised:
        await sdk.chat.completions.create(model="m", messages=HI)
    assert raised.value.status_code == status
    assert raised.value.request_id.startswith("req_")


async def test_our_own_errors_raise_the_right_class(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    relay = await start(openai_config(upstream), key={"rpm": 1, "models": ["m"]})
    with pytest.raises(openai.AuthenticationError):
        await connect(relay, default_headers={"Authorization": "Bearer wrong"}).models.list()
    sdk = connect(relay)
    with pytest.raises(openai.NotFoundError):
        await sdk.chat.completions.create(model="none", messages=HI)
    with pytest.raises(openai.PermissionDeniedError):
        await sdk.chat.completions.create(model="up/else", messages=HI)
    with pytest.raises(openai.BadRequestError) as wrong:
        await sdk.chat.completions.create(model="m", messages=HI, n=0)
    assert wrong.value.param == "n"
    upstream.scripts = [chat_answer()]
    await sdk.chat.completions.create(model="m", messages=HI)
    with pytest.raises(openai.RateLimitError) as limited:
        await sdk.chat.completions.create(model="m", messages=HI)
    assert float(limited.value.response.headers["retry-after"]) > 50


async def test_a_cut_stream_raises(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    upstream.scripts = [stream(chat_chunk({"content": "one"}), 0.05, "fin", end=False)]
    sdk = connect(await start(openai_config(upstream)))
    seen = []

    async def read() -> None:
        async for chunk in await sdk.chat.completions.create(model="m", messages=HI, stream=True):
            seen.append(chunk.choices[0].delta.content)

    with pytest.raises(openai.APIError, match="broke off"):
        await read()
    assert seen == ["one"]


async def test_a_clients_timeout_reaches_the_upstream(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    upstream.scripts = [[5.0, *chat_answer()]]
    relay = await start(openai_config(upstream))
    with pytest.raises(openai.APITimeoutError):
        await connect(relay, timeout=0.3).chat.completions.create(model="m", messages=HI)
    import asyncio

    await asyncio.sleep(0.2)
    assert upstream.peer_left
    assert (await relay.row()).outcome == "client_abort"


async def test_models(start: Start, connect: Any) -> None:
    sdk = connect(await start(DEMO))
    models = [model async for model in sdk.models.list()]
    assert [model.id for model in models] == ["demo-echo"]
    assert (await sdk.models.retrieve("demo-echo")).owned_by == "demo"
    assert models[0].model_extra["pricing"]["input"] == 0.001


async def test_another_familys_answer_reads_the_same(start: Start, connect: Any) -> None:
    """The demo family has a format of its own, so this goes through the hub both ways."""
    relay = await start(DEMO)
    sdk = connect(relay)
    whole = await sdk.chat.completions.create(model="demo-echo", messages=HI)
    assert whole.choices[0].message.content == "You said: Hi"
    assert whole.choices[0].finish_reason == "stop"
    text, finish, usage = "", None, None
    async for chunk in await sdk.chat.completions.create(
        model="demo-echo", messages=HI, stream=True, stream_options={"include_usage": True}
    ):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
        usage = chunk.usage or usage
    assert (text, finish) == ("You said: Hi", "stop")
    assert usage == whole.usage
    rows = await relay.rows()
    assert rows[0].cost == rows[1].cost
    assert rows[0].cost is not None
    assert rows[0].cost > 0


async def test_another_familys_tool_calls_read_the_same(start: Start, connect: Any) -> None:
    sdk = connect(await start(DEMO))
    ask: Any = [{"role": "user", "content": "weather please"}]
    whole = await sdk.chat.completions.create(model="demo-echo", messages=ask, tools=[TOOL])
    call = whole.choices[0].message.tool_calls[0]
    assert json.loads(call.function.arguments) == {"city": "demo"}
    assert whole.choices[0].finish_reason == "tool_calls"
    async with sdk.chat.completions.stream(model="demo-echo", messages=ask, tools=[TOOL]) as events:
        final = await events.get_final_completion()
    streamed = final.choices[0].message.tool_calls[0]
    assert (streamed.id, streamed.function.arguments) == (call.id, call.function.arguments)
    again = [*ask, whole.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    answer = await sdk.chat.completions.create(model="demo-echo", messages=again, tools=[TOOL])
    assert answer.choices[0].message.content == "You said: sunny"


async def test_what_a_target_cannot_carry_is_told_and_refused_when_strict(start: Start, connect: Any) -> None:
    picture: Any = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
            ],
        }
    ]
    sdk = connect(await start(DEMO))
    raw = await sdk.chat.completions.with_raw_response.create(model="demo-echo", messages=picture)
    assert raw.headers["x-relay-dropped"] == "messages[0].content"
    strict = connect(await start(DEMO, key={"strict": True}))
    with pytest.raises(openai.BadRequestError) as refused:
        await strict.chat.completions.create(model="demo-echo", messages=picture)
    assert refused.value.param == "messages[0].content"


async def test_done_ends_every_good_stream(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_stream()]
    relay = await start(openai_config(upstream) + "    [upstreams.demo]\n")
    for model in ("m", "demo-echo"):
        async with relay.chat(model=model, stream=True) as response:
            assert (await response.read()).endswith(DONE)
