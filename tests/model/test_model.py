"""A real model behind the relay. It is small and talks nonsense, so only the form of its answers is looked at."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from relay.store import UsageRow
from tests.flow.conftest import Running
from tests.model.conftest import MODEL, children, idle_after

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="session")]

HI: Any = [{"role": "user", "content": "Say hello."}]
LONG: Any = [{"role": "user", "content": "Count from one to one thousand in words."}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
FINISHES = {"stop", "length", "tool_calls"}
WORDS = "Grüße, 世界! 🎉 Ωμέγα"
GRAMMAR = f'root ::= "{WORDS}"'
"""Makes the model say exactly this, in pieces that end inside of characters."""


async def newest(local: Running, count: int = 1) -> list[UsageRow]:
    """The last rows, newest first, once no call is under way."""
    async with asyncio.timeout(10):
        while local.relay.limiter.running():  # noqa: ASYNC110 - the relay has no event for what only tests await
            await asyncio.sleep(0.01)
    await local.relay.store.usage.flush()
    return await local.relay.store.usage.rows(limit=count)


def check_row(row: UsageRow, usage: Any, *, stream: bool) -> None:
    """The row says what the client was told, and that it came from the model's own server."""
    assert (row.outcome, row.status, row.usage_source, row.stream) == ("ok", 200, "provider", stream)
    assert (row.family, row.upstream, row.target_model, row.cost) == ("local", "local", MODEL, 0)
    assert row.usage is not None
    assert (row.usage.input, row.usage.output) == (usage.prompt_tokens, usage.completion_tokens)
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens > 0


@pytest.mark.parametrize("tools", [[], [TOOL]], ids=["plain", "tools"])
async def test_a_complete_answer(local: Running, sdk: AsyncOpenAI, tools: list[Any]) -> None:
    more: Any = {"tools": tools} if tools else {}
    raw = await sdk.chat.completions.with_raw_response.create(model=MODEL, messages=HI, max_tokens=16, **more)
    answer = raw.parse()
    (choice,) = answer.choices
    assert choice.finish_reason in FINISHES
    assert choice.message.content or choice.message.tool_calls
    assert raw.headers["x-relay-upstream"] == "local"
    assert ("x-relay-tool-arguments" in raw.headers) == bool(tools)
    (row,) = await newest(local)
    check_row(row, answer.usage, stream=False)


@pytest.mark.parametrize("tools", [[], [TOOL]], ids=["plain", "tools"])
async def test_a_stream(local: Running, sdk: AsyncOpenAI, tools: list[Any]) -> None:
    more: Any = {"tools": tools} if tools else {}
    text, calls, finishes, usages = "", 0, [], []
    async for chunk in await sdk.chat.completions.create(
        model=MODEL, messages=HI, max_tokens=16, stream=True, stream_options={"include_usage": True}, **more
    ):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            calls += len(choice.delta.tool_calls or ())
            finishes += [choice.finish_reason] if choice.finish_reason else []
        usages += [chunk.usage] if chunk.usage else []
    assert text or calls
    assert len(finishes) == len(usages) == 1
    assert finishes[0] in FINISHES
    (row,) = await newest(local)
    check_row(row, usages[0], stream=True)


async def test_a_stream_that_did_not_ask_for_usage_is_counted_all_the_same(local: Running, sdk: AsyncOpenAI) -> None:
    async for chunk in await sdk.chat.completions.create(model=MODEL, messages=HI, max_tokens=4, stream=True):
        assert chunk.usage is None
        assert chunk.choices
    (row,) = await newest(local)
    assert (row.outcome, row.usage_source) == ("ok", "provider")
    assert row.usage is not None
    assert 0 < (row.usage.output or 0) <= 4


async def test_every_character_arrives_as_it_was(local: Running, sdk: AsyncOpenAI) -> None:
    ask: Any = [{"role": "user", "content": f"Répète : {WORDS}"}]
    grammar: Any = {"extra_body": {"grammar": GRAMMAR}}
    whole = await sdk.chat.completions.create(model=MODEL, messages=ask, max_tokens=64, **grammar)
    assert whole.choices[0].message.content == WORDS
    pieces = [
        chunk.choices[0].delta.content or ""
        async for chunk in await sdk.chat.completions.create(
            model=MODEL, messages=ask, max_tokens=64, stream=True, **grammar
        )
    ]
    assert "".join(pieces) == WORDS
    assert len([piece for piece in pieces if piece]) > 5
    assert [row.outcome for row in await newest(local, 2)] == ["ok", "ok"]


async def test_an_answer_by_a_schema_fits_it(sdk: AsyncOpenAI) -> None:
    schema = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Köln"]}}, "required": ["city"]}
    form: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema, "strict": True}}
    answer = await sdk.chat.completions.create(model=MODEL, messages=HI, max_tokens=32, response_format=form)
    assert json.loads(answer.choices[0].message.content or "")["city"] in ("Oslo", "Köln")


async def test_more_calls_than_places_are_all_answered(local: Running, sdk: AsyncOpenAI) -> None:
    async def one(number: int) -> int:
        ask: Any = [{"role": "user", "content": f"Say {number}."}]
        if number % 2:
            answer = await sdk.chat.completions.create(model=MODEL, messages=ask, max_tokens=6)
            return answer.usage.completion_tokens if answer.usage else 0
        stream = await sdk.chat.completions.create(model=MODEL, messages=ask, max_tokens=6, stream=True)
        return len([chunk async for chunk in stream])

    counts = await asyncio.gather(*(one(number) for number in range(6)))
    assert min(counts) > 0
    rows = await newest(local, 6)
    assert {(row.outcome, row.usage_source) for row in rows} == {("ok", "provider")}
    assert len({row.request_id for row in rows}) == 6


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_that_is_too_long_is_the_callers_mistake(local: Running, sdk: AsyncOpenAI, stream: bool) -> None:
    ask: Any = [{"role": "user", "content": "far too long " * 1500}]
    with pytest.raises(openai.BadRequestError) as refused:
        await sdk.chat.completions.create(model=MODEL, messages=ask, max_tokens=4, stream=stream)
    assert refused.value.code == "context_length_exceeded"
    assert "1024" in refused.value.message
    (row,) = await newest(local)
    assert (row.outcome, row.status, row.usage_source, row.cost) == ("upstream_error", 400, "none", 0)


ENDLESS: Any = {"extra_body": {"ignore_eos": True}, "max_tokens": 900}
"""Keeps the model at work for many seconds."""


async def test_clients_that_leave_free_their_places(local: Running, sdk: AsyncOpenAI) -> None:
    (pid,) = children()
    streams = [await sdk.chat.completions.create(model=MODEL, messages=HI, stream=True, **ENDLESS) for _ in range(2)]
    for stream in streams:
        seen = 0
        async for chunk in stream:
            seen += len(chunk.choices[0].delta.content or "")
            if seen > 10:
                break
    for stream in streams:
        await stream.close()
    assert await idle_after(pid) < 1.5
    left = await newest(local, 2)
    assert [(row.outcome, row.status) for row in left] == [("client_abort", 499)] * 2
    assert all(row.usage is not None and 0 < (row.usage.output or 0) < 450 for row in left)
    assert {row.usage_source for row in left} <= {"estimate", "partial"}
    answer = await sdk.chat.completions.create(model=MODEL, messages=HI, max_tokens=2)
    assert answer.usage is not None


async def test_a_client_that_leaves_before_a_complete_answer_frees_its_place(local: Running, sdk: AsyncOpenAI) -> None:
    (pid,) = children()
    call = asyncio.create_task(sdk.chat.completions.create(model=MODEL, messages=HI, **ENDLESS))
    await asyncio.sleep(0.5)
    assert not call.done()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await idle_after(pid) < 1.5
    (row,) = await newest(local)
    assert (row.outcome, row.status) == ("client_abort", 499)
