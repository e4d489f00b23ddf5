"""The official SDK's `responses` as judge, over upstreams that speak it and upstreams that do not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import FakeUpstream, chat_answer, chat_chunk, chat_stream, http, stream
from tests.flow.test_chat import body_of, tool_answer, tool_stream

TOOL: Any = {
    "type": "function",
    "name": "weather",
    "strict": False,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
DEMO = "[upstreams.demo]\n"


def native_config(upstream: FakeUpstream, more: str = "") -> str:
    """A model `m` at an upstream that speaks Responses itself."""
    return f"""
    [upstreams.up]
    family = "openai"
    base_url = "{upstream.url}/v1"
    api_key = "sk-CANARY-upstream-key"
    dialects = ["openai-chat", "openai-responses"]
    {more}
    [models.m]
    targets = ["up/m-1"]
    price = {{input = 1.0, output = 2.0}}
    """


def anthropic_config(upstream: FakeUpstream) -> str:
    return f"""
    [upstreams.up]
    family = "anthropic"
    base_url = "{upstream.url}"
    api_key = "sk-CANARY-upstream-key"
    [models.m]
    targets = ["up/m-1"]
    """


@pytest.fixture
async def connect() -> AsyncIterator[Any]:
    clients: list[AsyncOpenAI] = []

    def build(relay: Running, **options: Any) -> AsyncOpenAI:
        clients.append(AsyncOpenAI(base_url=f"{relay.url}/v1", api_key=relay.key, **{"max_retries": 0, **options}))
        return clients[-1]

    yield build
    for client in clients:
        await client.close()


# What an upstream of this dialect says. Spaces and key order are odd on purpose: they must arrive as they are.

USAGE = {
    "input_tokens": 11,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
    "output_tokens": 3,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 14,
}


def message(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content}


def answer(status: str = "completed", *output: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "object": "response",
        "id": "resp_upstream1",
        "created_at": 1700000000,
        "model": "m-1",
        "status": status,
        "output": list(output),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": USAGE if status in ("completed", "incomplete") else None,
        **more,
    }


def events(*values: dict[str, Any]) -> list[bytes]:
    numbered = [{**value, "sequence_number": number} for number, value in enumerate(values)]
    return [f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode() for value in numbered]


def text_events(text: str) -> list[dict[str, Any]]:
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    empty = {"type": "output_text", "text": "", "annotations": []}
    item = {**message(""), "status": "in_progress", "content": []}
    words = [word if number == 0 else f" {word}" for number, word in enumerate(text.split(" "))]
    return [
        {"type": "response.created", "response": answer("in_progress")},
        {"type": "response.in_progress", "response": answer("in_progress")},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.content_part.added", **where, "part": empty},
        *({"type": "response.output_text.delta", **where, "delta": word, "logprobs": []} for word in words),
        {"type": "response.output_text.done", **where, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **where, "part": {**empty, "text": text}},
        {"type": "response.output_item.done", "output_index": 0, "item": message(text)},
        {"type": "response.completed", "response": answer("completed", message(text))},
    ]


async def raw_post(relay: Running, **body: Any) -> tuple[int, bytes, Any]:
    """Status, bytes and headers of an answer, read without any SDK."""
    body = {"model": "m", "input": "Hi", **body}
    async with relay.client.post(f"{relay.url}/v1/responses", json=body) as response:
        try:
            return response.status, await response.read(), response.headers
        except aiohttp.ClientPayloadError:
            return response.status, b"", response.headers


# An upstream that speaks the dialect.


async def test_a_complete_answer_passes_through_byte_for_byte(start: Start, upstream: FakeUpstream) -> None:
    script = http(answer("completed", message("Good day")))
    upstream.scripts = [script]
    relay = await start(native_config(upstream))
    raw = b'{"input" : "Hi",\n  "model":"m", "unknown_field": [1, 2] }'
    async with relay.client.post(f"{relay.url}/responses", data=raw) as response:
        assert await response.read() == body_of(script)
    seen = upstream.seen[0]
    assert (seen.path, seen.body) == ("/v1/responses", raw.replace(b'"m"', b'"m-1"'))
    row = await relay.row()
    assert (row.dialect, row.outcome, row.usage_source) == ("openai-responses", "ok", "provider")
    assert row.usage is not None
    assert (row.usage.input, row.usage.output, row.usage.cache_read, row.usage.reasoning) == (11, 3, 4, 1)
    assert row.cost == 11 * 1000 + 3 * 2000


@pytest.mark.parametrize("cut", [1, 7, 100_000])
async def test_a_stream_passes_through_byte_for_byte(start: Start, upstream: FakeUpstream, cut: int) -> None:
    data = b"".join(events(*text_events("Good day to you all")))
    upstream.scripts = [stream(*(data[at : at + cut] for at in range(0, len(data), cut)))]
    relay = await start(native_config(upstream))
    status, got, _ = await raw_post(relay, stream=True)
    assert (status, got) == (200, data)
    row = await relay.row()
    assert (row.outcome, row.usage_source, row.status) == ("ok", "provider", 200)
    assert row.usage is not None
    assert row.usage.output == 3


async def test_the_sdk_reads_a_native_stream(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    upstream.scripts = [stream(*events(*text_events("Good day to you")))]
    sdk = connect(await start(native_config(upstream)))
    async with sdk.responses.stream(model="m", input="Hi") as got:
        final = await got.get_final_response()
    assert (final.id, final.output_text) == ("resp_upstream1", "Good day to you")


@pytest.mark.parametrize("part", [0.0, 0.5], ids=["between events", "inside of one"])
@pytest.mark.parametrize("words", [1, 2, 3, 4])
async def test_a_stream_that_breaks_off_fails_under_the_id_that_the_client_knows(
    start: Start, upstream: FakeUpstream, connect: Any, words: int, part: float
) -> None:
    script = events(*text_events("Good day to you all"))
    count = 4 + words
    half = script[count][: int(len(script[count]) * part)]
    upstream.scripts = [stream(*script[:count], *([half] if half else []), "fin", end=False)]
    relay = await start(native_config(upstream))
    sdk = connect(relay)
    seen: list[Any] = []

    async def read() -> None:
        async for event in await sdk.responses.create(model="m", input="Hi", stream=True):
            seen.append(event)

    with pytest.raises(openai.APIConnectionError):
        await read()
    assert [event.sequence_number for event in seen] == list(range(count + 1))
    assert seen[-1].type == "response.failed"
    assert seen[-1].response.id == "resp_upstream1"
    assert seen[-1].response.error.code == "server_error"
    assert (await relay.row()).outcome == "upstream_cut"


async def test_an_error_of_the_upstreams_passes_with_the_failure_that_follows_it(
    start: Start, upstream: FakeUpstream
) -> None:
    opening = text_events("Good day")[:5]
    error = {"code": "rate_limit_exceeded", "message": "slow down"}
    told = [{"type": "error", "error": error}, {"type": "response.failed", "response": answer("failed", error=error)}]
    script = events(*opening, *told)
    upstream.scripts = [stream(*script[:6], 0.05, script[6])]
    relay = await start(native_config(upstream))
    got = bytearray()

    async def read() -> None:
        body = {"model": "m", "input": "Hi", "stream": True}
        async with relay.client.post(f"{relay.url}/v1/responses", json=body) as response:
            async for piece in response.content.iter_any():
                got.extend(piece)

    with pytest.raises(aiohttp.ClientPayloadError):
        await read()
    assert bytes(got) == b"".join(script)
    row = await relay.row()
    assert (row.outcome, row.error_code) == ("upstream_error", "rate_limit_exceeded")


async def test_an_answer_that_fails_before_it_begins_has_a_true_status(
    start: Start, upstream: FakeUpstream, connect: Any
) -> None:
    error = {"code": "rate_limit_exceeded", "message": "slow down"}
    opening = text_events("x")[:2]
    upstream.scripts = [
        stream(*events(*opening, {"type": "response.failed", "response": answer("failed", error=error)}))
    ]
    sdk = connect(await start(native_config(upstream)))
    with pytest.raises(openai.RateLimitError, match="slow down"):
        await sdk.responses.create(model="m", input="Hi", stream=True)


async def test_a_native_answer_without_a_stream_is_made_one(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    call = {
        "id": "fc_1",
        "type": "function_call",
        "status": "completed",
        "call_id": "c",
        "name": "f",
        "arguments": "{}",
    }
    reasoning = {"id": "rs_1", "type": "reasoning", "encrypted_content": "opaque", "summary": []}
    search = {
        "id": "ws_1",
        "type": "web_search_call",
        "status": "completed",
        "action": {"type": "search", "query": "q"},
    }
    upstream.scripts = [http(answer("completed", reasoning, search, message("Good day"), call))]
    sdk = connect(await start(native_config(upstream)))
    async with sdk.responses.stream(model="m", input="Hi") as got:
        final = await got.get_final_response()
    assert [item.type for item in final.output] == ["reasoning", "web_search_call", "message", "function_call"]
    assert final.output_text == "Good day"
    assert final.output[0].encrypted_content == "opaque"
    assert [item.id for item in final.output if item.type != "message"] == ["rs_1", "ws_1", "fc_1"]
    assert final.usage.total_tokens == 14


async def test_only_the_formats_own_header_reaches_the_upstream(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [http(answer("completed", message("x")))]
    relay = await start(native_config(upstream))
    headers = {"OpenAI-Beta": "responses=experimental", "x-codex-turn-metadata": "/home/me", "OpenAI-Organization": "o"}
    async with relay.client.post(f"{relay.url}/v1/responses", json={"model": "m", "input": "Hi"}, headers=headers):
        pass
    sent = upstream.seen[0].headers
    assert sent["openai-beta"] == "responses=experimental"
    assert not {"x-codex-turn-metadata", "openai-organization"} & sent.keys()


async def test_an_answer_in_the_background_passes_through(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    upstream.scripts = [http(answer("queued", background=True))]
    relay = await start(native_config(upstream))
    waiting = await connect(relay).responses.create(model="m", input="Hi", background=True)
    assert (waiting.status, waiting.id) == ("queued", "resp_upstream1")
    assert (await relay.row()).outcome == "ok"


async def test_what_the_vendor_keeps_is_the_vendors(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    upstream.scripts = [http(answer("completed", message("x")))]
    sdk = connect(await start(native_config(upstream)))
    await sdk.responses.create(model="m", input="more", previous_response_id="resp_before")
    assert upstream.seen[0].json["previous_response_id"] == "resp_before"


async def test_arguments_of_native_calls_are_judged(start: Start, upstream: FakeUpstream) -> None:
    custom = {"type": "custom", "name": "patch", "format": {"type": "text"}}
    calls = [
        {
            "id": "ctc_1",
            "type": "custom_tool_call",
            "status": "completed",
            "call_id": "a",
            "name": "patch",
            "input": "x",
        },
        {"id": "fc_1", "type": "function_call", "status": "completed", "call_id": "b", "name": "weather"},
    ]
    relay = await start(native_config(upstream))
    for arguments, verdict in (('{"city":"Oslo"}', "valid"), ('{"city":3}', "invalid")):
        upstream.scripts = [http(answer("completed", calls[0], {**calls[1], "arguments": arguments}))]
        _, _, headers = await raw_post(relay, tools=[TOOL, custom])
        assert headers["x-relay-tool-arguments"] == verdict


# Upstreams that do not.


async def test_the_demo_answers_whole_and_streamed(start: Start, connect: Any) -> None:
    relay = await start(DEMO)
    sdk = connect(relay)
    whole = await sdk.responses.create(model="demo-echo", input="Hi", instructions="Be brief.", metadata={"a": "b"})
    assert whole.output_text == "You said: Hi"
    assert (whole.status, whole.instructions, whole.metadata) == ("completed", "Be brief.", {"a": "b"})
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
    async with sdk.responses.stream(model="demo-echo", input="Hi", instructions="Be brief.") as got:
        kinds = [event.type async for event in got]
        final = await got.get_final_response()
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert (final.output_text, final.usage) == (whole.output_text, whole.usage)
    rows = await relay.rows()
    assert {row.usage_source for row in rows} == {"provider"}
    assert rows[0].cost == rows[1].cost


async def test_every_raw_event_is_numbered_and_of_one_answer(start: Start, connect: Any) -> None:
    sdk = connect(await start(DEMO))
    seen = [event async for event in await sdk.responses.create(model="demo-echo", input="one two", stream=True)]
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    ids = {event.response.id for event in seen if hasattr(event, "response")}
    assert len(ids) == 1
    assert ids.pop().startswith("resp_")
    items = {event.item_id for event in seen if hasattr(event, "item_id")}
    assert items == {event.item.id for event in seen if hasattr(event, "item")}


async def test_a_limit_makes_the_answer_incomplete(start: Start, connect: Any) -> None:
    sdk = connect(await start(DEMO))
    cut = await sdk.responses.create(model="demo-echo", input="a b c d", max_output_tokens=2)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    streamed = await sdk.responses.create(model="demo-echo", input="a b c", max_output_tokens=2, stream=True)
    assert [event.type async for event in streamed][-1] == "response.incomplete"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_tools_round_trip(start: Start, upstream: FakeUpstream, connect: Any, streamed: bool) -> None:
    """An upstream that knows Chat Completions only."""
    arguments = '{"city":"Oslo"}'
    upstream.scripts = [tool_stream(arguments) if streamed else tool_answer(arguments), chat_answer("Sunny.")]
    sdk = connect(await start(openai_config(upstream)))
    asked: list[Any] = [{"role": "user", "content": "Weather?"}]
    if streamed:
        async with sdk.responses.stream(model="m", input=asked, tools=[TOOL]) as got:
            first = await got.get_final_response()
    else:
        first = await sdk.responses.create(model="m", input=asked, tools=[TOOL])
    (call,) = first.output
    assert (call.type, call.call_id, call.name, call.arguments) == ("function_call", "call_1", "weather", arguments)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}
    answer = await sdk.responses.create(model="m", input=[*asked, call, result], tools=[TOOL])
    assert answer.output_text == "Sunny."
    sent = upstream.seen[1].json
    assert upstream.seen[1].path == "/v1/chat/completions"
    assert sent["messages"][1]["tool_calls"][0] == {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": arguments},
    }
    assert sent["messages"][2] == {"role": "tool", "tool_call_id": "call_1", "content": "sun"}
    assert sent["tools"][0]["function"]["name"] == "weather"


async def test_a_custom_tool_is_a_function_for_models_that_know_no_other(
    start: Start, upstream: FakeUpstream, connect: Any
) -> None:
    patch = '*** Begin Patch\n*** "End" Patch'
    body = json.dumps({"input": patch})
    call = {"id": "call_9", "type": "function", "function": {"name": "apply_patch", "arguments": body}}
    pieces = [call | {"index": 0, "function": {"name": "apply_patch", "arguments": ""}}]
    pieces += [{"index": 0, "function": {"arguments": letter}} for letter in body]
    upstream.scripts = [
        stream(*(chat_chunk({"tool_calls": [piece]}) for piece in pieces), chat_chunk(finish="tool_calls")),
        chat_answer("Done."),
    ]
    sdk = connect(await start(openai_config(upstream)))
    tool: Any = {"type": "custom", "name": "apply_patch", "description": "Edits files.", "format": {"type": "text"}}
    seen = [event async for event in await sdk.responses.create(model="m", input="go", tools=[tool], stream=True)]
    item = next(event.item for event in seen if event.type == "response.output_item.done")
    assert (item.type, item.call_id, item.name, item.input) == ("custom_tool_call", "call_9", "apply_patch", patch)
    assert [event.input for event in seen if event.type == "response.custom_tool_call_input.done"] == [patch]
    offered = upstream.seen[0].json["tools"][0]["function"]
    assert (offered["name"], offered["parameters"]["required"]) == ("apply_patch", ["input"])
    result = {"type": "custom_tool_call_output", "call_id": "call_9", "output": "ok"}
    await sdk.responses.create(model="m", input=["go", item, result][1:], tools=[tool])
    back = upstream.seen[1].json["messages"]
    assert json.loads(back[0]["tool_calls"][0]["function"]["arguments"]) == {"input": patch}
    assert back[1]["content"] == "ok"


class City(BaseModel):
    name: str
    people: int


async def test_structured_output_is_parsed(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    upstream.scripts = [chat_answer('{"name":"Oslo","people":700000}')]
    sdk = connect(await start(openai_config(upstream)))
    answer = await sdk.responses.parse(model="m", input="Oslo?", text_format=City)
    assert answer.output_parsed == City(name="Oslo", people=700000)
    assert upstream.seen[0].json["response_format"]["json_schema"]["strict"] is True


def anthropic_stream(*blocks: list[dict[str, Any]], stop: str = "end_turn") -> list[Any]:
    """An answer of the Messages API: each block is its start and its deltas."""
    start = {"id": "msg_a", "type": "message", "role": "assistant", "model": "m-1", "content": []}
    values: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**start, "usage": {"input_tokens": 9, "output_tokens": 1}}}
    ]
    for index, (shell, *deltas) in enumerate(blocks):
        values.append({"type": "content_block_start", "index": index, "content_block": shell})
        values += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        values.append({"type": "content_block_stop", "index": index})
    values.append({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 7}})
    values.append({"type": "message_stop"})
    return stream(*(f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode() for value in values))


THOUGHT = [
    {"type": "thinking", "thinking": "", "signature": ""},
    {"type": "thinking_delta", "thinking": "Oslo, "},
    {"type": "thinking_delta", "thinking": "so rain."},
    {"type": "signature_delta", "signature": "c2lnbmVk"},
]
HIDDEN = [{"type": "redacted_thinking", "data": "aGlkZGVu"}]
CALL = [
    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}},
    {"type": "input_json_delta", "partial_json": '{"city":'},
    {"type": "input_json_delta", "partial_json": '"Oslo"}'},
]


async def test_reasoning_of_another_vendor_comes_back_to_it_as_it_was(
    start: Start, upstream: FakeUpstream, connect: Any
) -> None:
    said = [{"type": "text", "text": ""}, {"type": "text_delta", "text": "Let me look."}]
    upstream.scripts = [anthropic_stream(THOUGHT, HIDDEN, said, CALL, stop="tool_use")]
    sdk = connect(await start(anthropic_config(upstream)))
    asked: list[Any] = [{"role": "user", "content": "Weather?"}]
    options: Any = {"model": "m", "tools": [TOOL], "store": False, "include": ["reasoning.encrypted_content"]}
    async with sdk.responses.stream(input=asked, **options) as got:
        shown = "".join([e.delta async for e in got if e.type == "response.reasoning_summary_text.delta"])
        first = await got.get_final_response()
    assert shown == "Oslo, so rain."
    assert [item.type for item in first.output] == ["reasoning", "reasoning", "message", "function_call"]
    assert first.output[0].summary[0].text == shown
    assert first.output[1].summary == []
    assert first.usage.output_tokens == 7
    result = {"type": "function_call_output", "call_id": "toolu_1", "output": "rain"}
    items = [item.model_dump(exclude_none=True) for item in first.output]
    async for _ in await sdk.responses.create(input=[*asked, *items, result], stream=True, **options):
        pass
    assert upstream.seen[1].json["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Oslo, so rain.", "signature": "c2lnbmVk"},
        {"type": "redacted_thinking", "data": "aGlkZGVu"},
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
    ]


async def test_reasoning_of_a_chat_host_comes_back_to_it(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    thought = {"role": "assistant", "reasoning_content": "hm", "content": "Hello"}
    choice = {"index": 0, "message": thought, "finish_reason": "stop"}
    upstream.scripts = [chat_answer(choices=[choice]), chat_answer("Again")]
    sdk = connect(await start(openai_config(upstream)))
    first = await sdk.responses.create(model="m", input="Hi")
    more = [{"role": "user", "content": "Hi"}, *first.output, {"role": "user", "content": "And?"}]
    await sdk.responses.create(model="m", input=more)
    turn = upstream.seen[1].json["messages"][1]
    assert (turn["content"], turn["reasoning_content"]) == ("Hello", "hm")


# Errors.


@pytest.mark.parametrize(
    ("script", "kind", "status"),
    [
        (http({"error": {"message": "wrong"}}, 400), openai.BadRequestError, 400),
        (http({"error": {"message": "slow"}}, 429), openai.RateLimitError, 429),
        (http({"error": {"message": "ours"}}, 401), openai.InternalServerError, 502),
        (["fin"], openai.InternalServerError, 502),
    ],
)
@pytest.mark.parametrize("native", [True, False])
async def test_upstream_errors_raise_the_right_class(
    start: Start, upstream: FakeUpstream, connect: Any, script: Any, kind: Any, status: int, native: bool
) -> None:
    upstream.scripts = [script]
    sdk = connect(await start(native_config(upstream) if native else openai_config(upstream)))
    with pytest.raises(kind) as raised:
        await sdk.responses.create(model="m", input="Hi")
    assert raised.value.status_code == status


async def test_a_translated_stream_that_breaks_off_raises(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    upstream.scripts = [stream(chat_chunk({"content": "one"}), 0.05, "fin", end=False)]
    sdk = connect(await start(openai_config(upstream)))
    seen: list[Any] = []

    async def read() -> None:
        async for event in await sdk.responses.create(model="m", input="Hi", stream=True):
            seen.append(event)

    with pytest.raises(openai.APIConnectionError):
        await read()
    assert seen[-1].type == "response.failed"
    assert "broke off" in seen[-1].response.error.message
    assert {event.response.id for event in seen if hasattr(event, "response")} == {seen[0].response.id}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": 7}]}, "input[0].content"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(start: Start, connect: Any, body: dict[str, Any], param: str) -> None:
    sdk = connect(await start(DEMO))
    with pytest.raises(openai.BadRequestError) as wrong:
        await sdk.responses.create(**{"model": "demo-echo", "input": "Hi", **body})
    assert wrong.value.param == param


async def test_a_websocket_is_refused_in_the_way_that_sends_clients_back_to_http(start: Start) -> None:
    relay = await start(DEMO)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await relay.client.ws_connect(f"{relay.url}/v1/responses")
    assert refused.value.status == 426
    async with relay.client.get(f"{relay.url}/v1/responses") as plain:
        assert plain.status == 405
    async with relay.client.get(f"{relay.url}/v1/responses", headers={"Authorization": "Bearer x"}) as stranger:
        assert stranger.status == 401


# Long silences.


async def test_silence_before_the_answer_is_filled_with_its_beginning(
    start: Start, upstream: FakeUpstream, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.stream.PREAMBLE_SECONDS", 0.05)
    [head, *rest] = chat_stream("Good day")
    upstream.scripts = [[head, 1.3, *rest[:2], 1.3, *rest[2:]]]
    sdk = connect(await start("[server]\nkeep_alive_seconds = 0.5\n" + openai_config(upstream)))
    async with sdk.responses.stream(model="m", input="Hi") as got:
        kinds = [event.type async for event in got]
        final = await got.get_final_response()
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds.count("response.created") == 1
    assert kinds.count("keepalive") >= 2
    assert final.output_text == "Good day"


async def test_silence_of_a_native_stream_breaks_nothing(
    start: Start, upstream: FakeUpstream, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.stream.PREAMBLE_SECONDS", 0.05)
    script = events(*text_events("Good day"))
    upstream.scripts = [stream(1.3, *script[:5], 1.3, *script[5:])]
    relay = await start("[server]\nkeep_alive_seconds = 0.5\n" + native_config(upstream))
    async with connect(relay).responses.stream(model="m", input="Hi") as got:
        kinds = [event.type async for event in got]
        final = await got.get_final_response()
    assert kinds[0] == "response.created"
    assert "keepalive" in kinds
    assert final.output_text == "Good day"
    _, data, _ = await raw_post(relay, stream=True)
    assert data.startswith(b": keep-alive\n\n")
