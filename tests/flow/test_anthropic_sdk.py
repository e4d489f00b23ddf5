"""The official SDK as judge: what the relay answers, it must take for the Messages API, whoever the upstream is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anthropic
import pytest
from anthropic import AsyncAnthropic

from tests.flow.conftest import STEADY, Running, Start, openai_config
from tests.flow.fake import FakeUpstream, Step, chat_answer, chat_chunk, http, stream
from tests.flow.test_chat import body_of

HI: Any = [{"role": "user", "content": "Hi"}]
TOOL: Any = {
    "name": "weather",
    "description": "The weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
DEMO = "[upstreams.demo]\n"
SIGNATURE = "EqQBCkYIBRgC"


def native(upstream: FakeUpstream) -> str:
    """A model `m` at an upstream of the same dialect."""
    return f"""
    [upstreams.up]
    family = "anthropic"
    base_url = "{upstream.url}"
    api_key = "sk-ant-CANARY"
    [models.m]
    targets = ["up/m-1"]
    price = {{input = 1.0, output = 2.0}}
    """


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def message(*content: dict[str, Any], stop: str = "end_turn", **fields: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m-1",
        "content": list(content),
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {"input_tokens": 11, "cache_read_input_tokens": 100, "output_tokens": 3},
        **fields,
    }


def text_events(*words: str, end: bool = True) -> list[bytes]:
    events = [
        event("message_start", message={**message(), "usage": {"input_tokens": 11, "output_tokens": 1}}),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        event("ping"),
        *(event("content_block_delta", index=0, delta={"type": "text_delta", "text": word}) for word in words),
    ]
    if end:
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        events += [
            event("content_block_stop", index=0),
            event("message_delta", delta=delta, usage={"output_tokens": 3}),
            event("message_stop"),
        ]
    return events


def messages_stream(*words: str) -> list[Step]:
    return stream(*text_events(*words))


@pytest.fixture
async def connect() -> AsyncIterator[Any]:
    clients: list[AsyncAnthropic] = []

    def build(relay: Running, **options: Any) -> AsyncAnthropic:
        clients.append(AsyncAnthropic(base_url=relay.url, **{"api_key": relay.key, "max_retries": 0, **options}))
        return clients[-1]

    yield build
    for client in clients:
        await client.close()


async def ask(sdk: AsyncAnthropic, **fields: Any) -> Any:
    return await sdk.messages.create(**{"model": "m", "max_tokens": 100, "messages": HI, **fields})


async def read(sdk: AsyncAnthropic, **fields: Any) -> Any:
    """The message that a stream spells."""
    async with sdk.messages.stream(**{"model": "m", "max_tokens": 100, "messages": HI, **fields}) as events:
        return await events.get_final_message()


# The same dialect on both sides.


async def test_both_bodies_pass_through_byte_for_byte(start: Start, upstream: FakeUpstream) -> None:
    whole = http(message({"type": "text", "text": "Good day"}, odd={"x": [1.0, None]}))
    upstream.scripts = [whole, messages_stream("Good ", "day")]
    relay = await start(native(upstream))
    raw = b'{ "model" : "m","max_tokens":9, "thinking":{"type":"adaptive","new":1},'
    raw += b' "messages":[{"role":"user","content":"\\u00e9"}]%b}'
    for more, wanted in ((b"", body_of(whole)), (b',"stream":true', body_of(messages_stream("Good ", "day")))):
        headers = {"anthropic-version": "2026-10-21", "anthropic-beta": "a,b", "X-Claude-Code-Session-Id": "s"}
        async with relay.client.post(f"{relay.url}/v1/messages?beta=true", data=raw % more, headers=headers) as got:
            assert await got.read() == wanted
            assert got.headers["request-id"] == got.headers["x-request-id"]
        seen = upstream.seen[-1]
        assert seen.path == "/v1/messages"
        assert seen.body == (raw % more).replace(b'"model" : "m"', b'"model" : "m-1"')
        assert seen.headers["anthropic-version"] == "2026-10-21"
        assert seen.headers["anthropic-beta"] == "a,b"
        assert seen.headers["x-api-key"] == "sk-ant-CANARY"
        assert "x-claude-code-session-id" not in seen.headers
        assert relay.key not in str(seen)
    streamed, complete = await relay.rows()
    assert (complete.outcome, complete.usage_source, complete.dialect) == ("ok", "provider", "anthropic-messages")
    assert complete.usage is not None
    assert (complete.usage.input, complete.usage.cache_read, complete.usage.output) == (111, 100, 3)
    assert (streamed.outcome, streamed.usage_source, streamed.stream) == ("ok", "provider", True)
    assert streamed.usage is not None
    assert (streamed.usage.input, streamed.usage.output) == (11, 3)


async def test_signed_thinking_and_tools_make_the_round(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    first = message(
        {"type": "thinking", "thinking": "hm", "signature": SIGNATURE},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
        stop="tool_use",
    )
    upstream.scripts = [http(first), http(message({"type": "text", "text": "Sunny."}))]
    sdk = connect(await start(native(upstream)))
    answer = await ask(sdk, tools=[TOOL], thinking={"type": "adaptive"})
    assert [block.type for block in answer.content] == ["thinking", "tool_use"]
    turns = [
        *HI,
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}]},
    ]
    assert (await ask(sdk, tools=[TOOL], messages=turns)).content[0].text == "Sunny."
    sent = upstream.seen[1].json["messages"][1]["content"]
    assert (sent[0]["signature"], sent[1]["input"]) == (SIGNATURE, {"city": "Oslo"})


async def test_every_header_that_clients_put_keys_into_is_read(start: Start, connect: Any) -> None:
    relay = await start(DEMO)
    for options in ({}, {"api_key": None, "auth_token": relay.key}):
        answer = await ask(connect(relay, **options), model="demo-echo")
        assert answer.content[0].text == "You said: Hi"
    for headers in ({"x-api-key": relay.key}, {"Authorization": f"Bearer {relay.key}"}):
        body = {"model": "demo-echo", "max_tokens": 9, "messages": HI}
        async with (
            aiohttp.ClientSession() as client,
            client.post(f"{relay.url}/messages", json=body, headers=headers) as got,
        ):
            assert (await got.json())["role"] == "assistant"


# Other families.


async def test_another_familys_answer_reads_the_same(start: Start, connect: Any) -> None:
    """The demo family has a format of its own, so this goes through the hub both ways."""
    sdk = connect(await start(DEMO))
    whole = await ask(sdk, model="demo-echo")
    streamed = await read(sdk, model="demo-echo")
    for answer in (whole, streamed):
        assert [(block.type, block.text) for block in answer.content] == [("text", "You said: Hi")]
        assert (answer.stop_reason, answer.model) == ("end_turn", "demo-echo")
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 3)


async def test_another_familys_tools_make_the_round(start: Start, connect: Any) -> None:
    sdk = connect(await start(DEMO))
    for call in (ask, read):
        question: Any = [{"role": "user", "content": "weather please"}]
        answer = await call(sdk, model="demo-echo", messages=question, tools=[TOOL])
        (block,) = answer.content
        assert (block.type, block.name, block.input) == ("tool_use", "weather", {"city": "demo"})
        assert answer.stop_reason == "tool_use"
        result = {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "sunny"}]}
        turns = [*question, {"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
        again = await call(sdk, model="demo-echo", messages=turns, tools=[TOOL])
        assert again.content[0].text == "You said: sunny"


AGENT: dict[str, Any] = {
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": "What is here?"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "broken", "is_error": True}],
        },
        {"role": "system", "content": [{"type": "text", "text": "Remember."}]},
    ],
    "tools": [TOOL],
    "thinking": {"type": "adaptive", "display": "omitted"},
    "metadata": {"user_id": json.dumps({"device_id": "d" * 64, "session_id": "s" * 36})},
    "output_config": {"effort": "high"},
    "extra_body": {"context_management": {"edits": []}},
}


async def test_an_agents_request_fits_a_chat_upstream(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    pieces = [{"index": 0, "function": {"arguments": piece}} for piece in ('{"ci', 'ty":"Oslo"}')]
    upstream.scripts = [
        stream(
            chat_chunk({"role": "assistant", "reasoning_content": "Let me see."}),
            chat_chunk({"content": "I will "}),
            chat_chunk({"content": "look."}),
            chat_chunk({"tool_calls": [call]}),
            *(chat_chunk({"tool_calls": [piece]}) for piece in pieces),
            chat_chunk(finish="tool_calls"),
            chat_chunk(choices=[], usage={"prompt_tokens": 50, "completion_tokens": 9, "total_tokens": 59}),
            b"data: [DONE]\n\n",
        ),
        chat_answer("Done."),
    ]
    relay = await start(openai_config(upstream))
    sdk = connect(relay)
    answer = await read(sdk, **AGENT)
    sent = upstream.seen[0].json
    assert [turn["role"] for turn in sent["messages"]] == ["system", "user", "assistant", "tool", "system"]
    assert sent["messages"][3]["tool_call_id"] == "toolu_1"
    assert "broken" in sent["messages"][3]["content"]
    assert sent["tools"][0]["function"]["parameters"] == TOOL["input_schema"]
    assert len(sent["user"]) <= 64
    assert [block.type for block in answer.content] == ["thinking", "text", "tool_use"]
    assert answer.content[0].thinking == "Let me see."
    assert answer.content[1].text == "I will look."
    assert (answer.content[2].id, answer.content[2].input) == ("call_1", {"city": "Oslo"})
    assert (answer.stop_reason, answer.usage.input_tokens, answer.usage.output_tokens) == ("tool_use", 50, 9)
    # The next turn gives the reasoning back to the host that it came from.
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "sunny"}
    turns = [*HI, {"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    assert (await ask(sdk, messages=turns, tools=[TOOL])).content[0].text == "Done."
    replayed = upstream.seen[1].json["messages"][1]
    assert replayed["reasoning_content"] == "Let me see."
    assert json.loads(replayed["tool_calls"][0]["function"]["arguments"]) == {"city": "Oslo"}


async def test_a_conversation_moves_from_one_vendor_to_the_other(
    start: Start, upstream: FakeUpstream, connect: Any
) -> None:
    """The second is not shown what the first one thought, and strict keys may not move at all."""
    thought = {"index": 0, "message": {"role": "assistant", "content": "Hello.", "reasoning_content": "Greet."}}
    replies = {"/v1/chat/completions": chat_answer(choices=[{**thought, "finish_reason": "stop"}])}
    replies["/v1/messages"] = http(message({"type": "text", "text": "Yes."}))
    upstream.answer = lambda seen: replies[seen.path]
    config = f"""
    [upstreams.chat]
    family = "openai"
    base_url = "{upstream.url}/v1"
    api_key = "sk-1"
    [models.first]
    targets = ["chat/m-1"]
    """
    for strict in (False, True):
        sdk = connect(await start(native(upstream) + config, key={"strict": strict}))
        answer = await ask(sdk, model="first")
        assert [block.type for block in answer.content] == ["thinking", "text"]
        turns = [*HI, {"role": "assistant", "content": answer.content}, {"role": "user", "content": "Sure?"}]
        assert (await ask(sdk, model="first", messages=turns)).content[0].thinking == "Greet."
        assert upstream.seen[-1].json["messages"][1]["reasoning_content"] == "Greet."
        if strict:
            with pytest.raises(anthropic.BadRequestError, match="reasoning of another vendor"):
                await ask(sdk, messages=turns)
            continue
        raw = await sdk.messages.with_raw_response.create(model="m", max_tokens=9, messages=turns)
        assert raw.headers["x-relay-dropped"] == "thinking"
        assert [block["type"] for block in upstream.seen[-1].json["messages"][1]["content"]] == ["text"]


async def test_what_a_target_cannot_carry_is_told_and_refused_when_strict(
    start: Start, upstream: FakeUpstream, connect: Any
) -> None:
    upstream.scripts = [chat_answer()]
    search: Any = [TOOL, {"type": "web_search_20250305", "name": "web_search"}]
    sdk = connect(await start(openai_config(upstream)))
    raw = await sdk.messages.with_raw_response.create(model="m", max_tokens=9, messages=HI, tools=search)
    assert raw.headers["x-relay-dropped"] == "tools"
    assert len(upstream.seen[0].json["tools"]) == 1
    strict = connect(await start(openai_config(upstream), key={"strict": True}))
    with pytest.raises(anthropic.BadRequestError) as refused:
        await ask(strict, tools=search)
    assert refused.value.error_code == "unsupported_parameter"


# Errors.


@pytest.mark.parametrize("family", ["anthropic", "openai"])
@pytest.mark.parametrize(
    ("status", "kind", "shown", "word"),
    [
        (400, anthropic.BadRequestError, 400, "invalid_request_error"),
        (404, anthropic.NotFoundError, 404, "not_found_error"),
        (413, anthropic.APIStatusError, 413, "request_too_large"),
        (429, anthropic.RateLimitError, 429, "rate_limit_error"),
        (401, anthropic.InternalServerError, 502, "api_error"),
        (500, anthropic.InternalServerError, 502, "api_error"),
        (529, anthropic.APIStatusError, 503, "overloaded_error"),
    ],
)
async def test_upstream_errors_raise_the_right_class(
    start: Start, upstream: FakeUpstream, connect: Any, family: str, status: int, kind: Any, shown: int, word: str
) -> None:
    body = {"type": "error", "error": {"type": "some_error", "message": "the reason"}}
    upstream.scripts = [http(body, status, retry_after="7")]
    config = native(upstream) if family == "anthropic" else openai_config(upstream)
    sdk = connect(await start(config + STEADY))
    for call in (ask, read):
        with pytest.raises(kind) as raised:
            await call(sdk)
        assert (raised.value.status_code, raised.value.type) == (shown, word)
        assert raised.value.request_id.startswith("req_")
        if status != 401:
            assert raised.value.api_message == "the reason"
    if shown == 429:
        assert raised.value.response.headers["retry-after"] == "7"


async def test_our_own_errors_raise_the_right_class(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    relay = await start(native(upstream), key={"rpm": 1, "models": ["m"]})
    with pytest.raises(anthropic.AuthenticationError) as unknown:
        await ask(connect(relay, api_key="sk-relay-wrong"))
    assert unknown.value.response.headers["x-should-retry"] == "false"
    sdk = connect(relay)
    with pytest.raises(anthropic.NotFoundError):
        await ask(sdk, model="none")
    with pytest.raises(anthropic.PermissionDeniedError):
        await ask(sdk, model="up/else")
    with pytest.raises(anthropic.BadRequestError) as wrong:
        await ask(sdk, max_tokens=0)
    assert wrong.value.body["error"]["details"] == {"error_code": "invalid_parameter", "param": "max_tokens"}
    upstream.scripts = [http(message({"type": "text", "text": "x"}))]
    raw = await sdk.messages.with_raw_response.create(model="m", max_tokens=9, messages=HI)
    assert raw.headers["anthropic-ratelimit-requests-limit"] == "1"
    assert raw.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert raw.headers["request-id"] == raw.headers["x-request-id"]
    with pytest.raises(anthropic.RateLimitError) as limited:
        await ask(sdk)
    assert float(limited.value.response.headers["retry-after"]) > 50
    assert limited.value.response.headers["anthropic-ratelimit-requests-reset"].endswith("Z")


@pytest.mark.parametrize("family", ["anthropic", "openai"])
@pytest.mark.parametrize("ending", ["fin", "rst"])
async def test_a_cut_stream_raises(
    start: Start, upstream: FakeUpstream, connect: Any, family: str, ending: str
) -> None:
    begun = text_events("one", end=False) if family == "anthropic" else [chat_chunk({"content": "one"})]
    upstream.scripts = [stream(*begun, 0.05, ending, end=False)]
    relay = await start(native(upstream) if family == "anthropic" else openai_config(upstream))
    seen: list[str] = []
    with pytest.raises(anthropic.APIStatusError, match="broke off"):
        await collect(connect(relay), seen)
    assert seen == ["one"]
    assert (await relay.row()).outcome == "upstream_cut"


async def collect(sdk: AsyncAnthropic, seen: list[str]) -> None:
    async with sdk.messages.stream(model="m", max_tokens=9, messages=HI) as events:
        async for text in events.text_stream:
            seen.append(text)


async def pieces(response: aiohttp.ClientResponse, got: list[bytes]) -> None:
    async for piece in response.content.iter_any():
        got.append(piece)


async def test_half_an_event_never_reaches_the_client(start: Start, upstream: FakeUpstream) -> None:
    events = text_events("one", "two", end=False)
    whole = b"".join(events)
    upstream.scripts = [stream(whole[:-20], 0.05, "fin", end=False)]
    relay = await start(native(upstream))
    got: list[bytes] = []
    body = {"model": "m", "max_tokens": 9, "messages": HI, "stream": True}
    async with relay.client.post(f"{relay.url}/v1/messages", json=body) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await pieces(response, got)
    place = len(whole) - len(events[-1])
    passed, failed = b"".join(got)[:place], b"".join(got)[place:]
    assert passed == b"".join(events[:-1])
    assert failed.startswith(b'event: error\ndata: {"type":"error","error":{"type":"api_error"')


async def test_the_upstreams_own_error_event_passes_and_raises(
    start: Start, upstream: FakeUpstream, connect: Any
) -> None:
    failure = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    upstream.scripts = [stream(*text_events("one", end=False), 0.05, failure)]
    relay = await start(native(upstream))
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        await collect(connect(relay), [])
    assert (await relay.row()).outcome == "upstream_error"


async def test_an_error_before_any_text_has_a_true_status(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    failure = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    upstream.scripts = [stream(text_events()[0], failure)]
    with pytest.raises(anthropic.APIStatusError) as raised:
        await read(connect(await start(native(upstream))))
    assert raised.value.status_code == 503


async def test_long_silences_are_filled_with_pings(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    events = text_events("one", "two")
    upstream.scripts = [stream(*events[:4], 0.5, *events[4:])]
    relay = await start("[server]\nkeep_alive_seconds = 0.1\n" + native(upstream))
    body = {"model": "m", "max_tokens": 9, "messages": HI, "stream": True}
    async with relay.client.post(f"{relay.url}/v1/messages", json=body) as response:
        got = await response.read()
    ping = b'event: ping\ndata: {"type": "ping"}\n\n'
    assert got.count(ping) > events.count(ping)
    assert (await read(connect(relay))).content[0].text == "onetwo"


# Counting tokens.


async def test_tokens_are_counted_by_the_upstream_where_it_can(
    start: Start, upstream: FakeUpstream, connect: Any
) -> None:
    upstream.scripts = [http({"input_tokens": 1234})]
    relay = await start(native(upstream))
    raw = await connect(relay).messages.with_raw_response.count_tokens(model="m", messages=HI, tools=[TOOL])
    assert (await raw.parse()).input_tokens == 1234
    assert raw.headers["x-relay-token-count"] == "upstream"
    assert upstream.seen[0].path == "/v1/messages/count_tokens"
    assert upstream.seen[0].json == {"model": "m-1", "messages": HI, "tools": [TOOL]}
    row = await relay.row()
    assert (row.operation, row.outcome, row.usage, row.cost) == ("count_tokens", "ok", None, 0)


async def test_tokens_are_estimated_elsewhere_and_that_is_said(
    start: Start, upstream: FakeUpstream, connect: Any
) -> None:
    words = "The quick brown fox jumps over the lazy dog. " * 100
    sdk = connect(await start(openai_config(upstream) + "    [upstreams.demo]\n"))
    for model in ("m", "demo-echo"):
        raw = await sdk.messages.with_raw_response.count_tokens(
            model=model, messages=[{"role": "user", "content": words}]
        )
        assert raw.headers["x-relay-token-count"] == "estimate"
        assert 900 < (await raw.parse()).input_tokens < 1250
        assert (await sdk.messages.count_tokens(model=model, messages=[{"role": "user", "content": ""}])).input_tokens
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (
            http({"type": "error", "error": {"type": "invalid_request_error", "message": "bad"}}, 400),
            anthropic.BadRequestError,
        ),
        (
            http({"type": "error", "error": {"type": "not_found_error", "message": "model: x"}}, 404),
            anthropic.NotFoundError,
        ),
        (http({}, 429), anthropic.RateLimitError),
        (["fin"], anthropic.InternalServerError),
    ],
)
async def test_a_count_that_cannot_be_had_is_an_error_and_no_number(
    start: Start, upstream: FakeUpstream, connect: Any, script: Any, kind: Any
) -> None:
    upstream.scripts = [script]
    relay = await start(native(upstream))
    with pytest.raises(kind):
        await connect(relay).messages.count_tokens(model="m", messages=HI)
    assert (await relay.row()).operation == "count_tokens"


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_server_that_cannot_count_leaves_it_to_the_relay(
    start: Start, upstream: FakeUpstream, connect: Any, status: int
) -> None:
    upstream.scripts = [http(b"<html>no such page</html>", status, content_type="text/html")]
    raw = await connect(await start(native(upstream))).messages.with_raw_response.count_tokens(model="m", messages=HI)
    assert raw.headers["x-relay-token-count"] == "estimate"
    assert (await raw.parse()).input_tokens > 0


async def test_what_could_not_be_sent_is_not_counted_either(start: Start, connect: Any) -> None:
    broken: Any = [{"role": "user", "content": [{"type": "text"}]}]
    with pytest.raises(anthropic.BadRequestError, match="text must be a string"):
        await connect(await start(DEMO)).messages.count_tokens(model="demo-echo", messages=broken)


async def test_counting_is_outside_of_all_limits(start: Start, connect: Any) -> None:
    """An agent asked 31 times in 0.12 seconds."""
    relay = await start(DEMO, key={"rpm": 1, "concurrency": 1})
    sdk = connect(relay)
    counts = await asyncio.gather(*(sdk.messages.count_tokens(model="demo-echo", messages=HI) for _ in range(31)))
    assert {count.input_tokens for count in counts} == {5}
    assert (await ask(sdk, model="demo-echo")).role == "assistant"
    assert len(await relay.rows()) == 32


# Models.


async def test_models_in_this_dialects_form_and_in_the_other(start: Start, connect: Any) -> None:
    relay = await start(DEMO, key={"models": ["demo-*"]})
    sdk = connect(relay)
    models = [model async for model in sdk.models.list(limit=1)]
    assert [(model.id, model.type, model.display_name) for model in models] == [("demo-echo", "model", "demo-echo")]
    assert (await sdk.models.retrieve("demo-echo")).max_input_tokens == 8192
    async with relay.client.get(f"{relay.url}/v1/models") as response:
        assert (await response.json())["object"] == "list"
    with pytest.raises(anthropic.NotFoundError):
        await sdk.models.retrieve("other")
    with pytest.raises(anthropic.BadRequestError):
        await sdk.models.list(after_id="other")
    with pytest.raises(anthropic.AuthenticationError):
        await connect(relay, api_key="sk-relay-wrong").models.list()
