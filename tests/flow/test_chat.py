"""The main path: a client of the openai-chat dialect and an upstream that speaks it too."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import aiohttp
import pytest

from relay.bound import BoundFamily
from tests.flow.conftest import Start, openai_config, read_stream
from tests.flow.fake import DONE, USAGE, FakeUpstream, chat_answer, chat_chunk, chat_stream, http, stream


def body_of(steps: list[Any]) -> bytes:
    """The bytes that a scripted answer's body holds."""
    raw = b"".join(step for step in steps if isinstance(step, bytes))
    head, _, rest = raw.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return rest
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body += rest[:length]
        rest = rest[length + 2 :]
    return body


async def test_a_complete_answer_passes_through_byte_for_byte(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream))
    async with relay.chat() as response:
        assert response.status == 200
        assert await response.read() == body_of(chat_answer())
    row = await relay.row()
    assert (row.outcome, row.usage_source, row.status) == ("ok", "provider", 200)
    assert row.usage is not None
    assert (row.usage.input, row.usage.output) == (11, 3)
    # $1 and $2 per million tokens, in nano-dollars.
    assert row.cost == 11 * 1000 + 3 * 2000
    assert (row.model, row.upstream, row.target_model, row.family) == ("m", "up", "m-1", "openai")


async def test_the_request_goes_out_as_it_came_but_for_the_models_name(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream))
    raw = b'{ "messages":[{"role":"user","content":"\\u00e9 \xc3\xa9"}],\n "x_unknown": 1.0, "model" : "m", "seed":1e2}'
    async with relay.client.post(f"{relay.url}/v1/chat/completions", data=raw) as response:
        assert response.status == 200
    assert upstream.seen[0].body == raw.replace(b'"model" : "m"', b'"model" : "m-1"')
    assert upstream.seen[0].headers["authorization"] == "Bearer sk-CANARY-upstream-key"
    assert relay.key not in str(upstream.seen[0])


async def test_a_stream_that_asks_for_usage_passes_through_byte_for_byte(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_stream()]
    relay = await start(openai_config(upstream))
    async with relay.chat(stream=True, stream_options={"include_usage": True}) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert await response.read() == body_of(chat_stream())
    row = await relay.row()
    assert (row.outcome, row.usage_source, row.stream) == ("ok", "provider", True)
    assert row.cost == 11 * 1000 + 3 * 2000
    assert row.first_byte_ms is not None


async def test_usage_is_asked_for_and_hidden_from_callers_who_did_not_ask(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_stream()]
    relay = await start(openai_config(upstream))
    async with relay.chat(stream=True) as response:
        got = await response.read()
    assert upstream.seen[0].json["stream_options"] == {"include_usage": True}
    assert got == body_of(chat_stream()).replace(chat_chunk(choices=[], usage=USAGE), b"")
    assert (await relay.row()).usage_source == "provider"


async def test_every_answer_carries_its_id_and_its_limits(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_answer(), chat_stream()]
    relay = await start(openai_config(upstream), key={"rpm": 10, "tpm": 100_000})
    for streamed in (False, True):
        async with relay.chat(stream=streamed) as response:
            await response.read()
            headers = response.headers
        assert headers["x-request-id"].startswith("req_")
        assert headers["x-ratelimit-limit-requests"] == "10"
        assert headers["x-ratelimit-remaining-requests"] == ("8" if streamed else "9")
        assert headers["x-ratelimit-reset-requests"].endswith("s")
        assert headers["x-ratelimit-limit-tokens"] == "100000"
        assert int(headers["x-ratelimit-remaining-tokens"]) < 100_000
        assert headers["Server"] == "i8relay"
    ids = {row.request_id for row in await relay.rows()}
    assert headers["x-request-id"] in ids


@pytest.mark.promise("L-01")
@pytest.mark.promise("L-09")
async def test_limits_refuse_with_the_exact_wait_and_leave_a_row(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream), key={"rpm": 1})
    async with relay.chat() as response:
        assert response.status == 200
    async with relay.chat(stream=True) as response:
        assert response.status == 429
        error = (await response.json())["error"]
        assert (error["type"], error["code"]) == ("rate_limit_exceeded", "rate_limit_exceeded")
        assert 58 <= int(response.headers["Retry-After"]) <= 60
        assert response.headers["x-ratelimit-remaining-requests"] == "0"
    assert len(upstream.seen) == 1
    assert [(row.outcome, row.status) for row in await relay.rows()] == [("rejected", 429), ("ok", 200)]


@pytest.mark.promise("L-01")
@pytest.mark.parametrize(
    ("key", "config"),
    [
        ({"tpm": 50}, ""),
        ({"concurrency": 1, "rpm": 0}, ""),
        ({"model_limits": {"m": "rpm"}}, ""),
        ({}, "rpm = 1"),
    ],
)
async def test_each_kind_of_limit_fires(start: Start, upstream: FakeUpstream, key: Any, config: str) -> None:
    from relay.store import Limits

    if "model_limits" in key:
        key = {"model_limits": {"m": Limits(rpm=1)}}
    upstream.scripts = [[0.3, *chat_answer()]]
    relay = await start(openai_config(upstream) + "    " + config, key=key)
    if "tpm" in key:
        async with relay.chat(max_tokens=1000) as response:
            assert response.status == 429
        assert not upstream.seen
        return

    async def status() -> int:
        async with relay.chat() as response:
            return int(response.status)

    assert sorted(await asyncio.gather(status(), status())) == [200, 429]
    assert len(upstream.seen) == 1
    assert relay.relay.limiter.running() == 0


@pytest.mark.promise("A-10")
@pytest.mark.parametrize("header", ["Authorization", "x-api-key", "api-key", "x-goog-api-key"])
async def test_every_usual_key_header_works(start: Start, upstream: FakeUpstream, header: str) -> None:
    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream))
    value = f"Bearer {relay.key}" if header == "Authorization" else relay.key
    relay.client.headers.pop("Authorization")
    async with relay.client.post(
        f"{relay.url}/v1/chat/completions",
        json={"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
        headers={header: value},
    ) as response:
        assert response.status == 200


@pytest.mark.promise("A-15")
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer \udcff\udcfe"},
        {"Authorization": "Basic abc"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer a", "x-api-key": "b"},
        {"x-api-key": "' OR 1=1--"},
    ],
)
async def test_without_a_good_key_nothing_happens(start: Start, upstream: FakeUpstream, headers: Any) -> None:
    relay = await start(openai_config(upstream))
    async with aiohttp.ClientSession() as stranger:
        for path in ("/v1/chat/completions", "/v1/models"):
            method = "POST" if path.endswith("completions") else "GET"
            async with stranger.request(method, relay.url + path, headers=headers, data=b"{") as response:
                assert response.status == 401
                error = (await response.json())["error"]
                assert error["type"] == "authentication_error"
                assert set(error) == {"type", "code", "message", "param"}
                assert response.headers["x-should-retry"] == "false"
    assert not upstream.seen
    assert not await relay.rows()


@pytest.mark.promise("A-11")
async def test_a_key_sees_and_uses_only_its_models(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_answer()]
    config = openai_config(upstream) + '    [models.other]\n    targets = ["up/m-2"]\n'
    relay = await start(config, key={"models": ["m"]})
    async with relay.client.get(f"{relay.url}/v1/models") as response:
        assert [model["id"] for model in (await response.json())["data"]] == ["m"]
    for name in ("other", "up/m-2", "up/m-1"):
        async with relay.chat(model=name) as response:
            assert response.status == 403
            assert (await response.json())["error"]["code"] == "model_not_allowed"
    async with relay.client.get(f"{relay.url}/v1/models/other") as response:
        assert response.status == 404
    assert not upstream.seen


async def test_models_tell_what_they_can_and_cost(start: Start, upstream: FakeUpstream) -> None:
    config = openai_config(upstream) + "    context_length = 1000\n    capabilities = {vision = true}\n"
    relay = await start(config)
    async with relay.client.get(f"{relay.url}/v1/models") as response:
        listed = await response.json()
    assert listed["object"] == "list"
    model = listed["data"][0]
    assert model["id"] == "m"
    assert model["object"] == "model"
    assert isinstance(model["created"], int)
    assert model["owned_by"] == "up"
    assert model["context_length"] == 1000
    assert model["capabilities"]["vision"] is True
    assert model["capabilities"]["chat"] is True
    # $1 and $2 per million are $0.001 and $0.002 per thousand.
    assert (model["pricing"]["input"], model["pricing"]["output"]) == (0.001, 0.002)
    async with relay.client.get(f"{relay.url}/v1/models/m") as response:
        assert await response.json() == model


@pytest.mark.promise("A-14")
async def test_a_revoked_key_is_refused_within_a_second(start: Start, upstream: FakeUpstream) -> None:
    from relay.store import Store

    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream))
    async with relay.chat() as response:
        assert response.status == 200
    async with await Store.open(relay.relay.store.database.path) as other:
        await other.keys.revoke("test")
    await asyncio.sleep(1)
    async with relay.chat() as response:
        assert response.status == 401


@pytest.mark.promise("F-07")
async def test_the_next_target_is_tried_when_the_first_is_busy(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: (
        http({"error": {"message": "slow down"}}, 429) if seen.json["model"] == "m-1" else chat_answer()
    )
    config = openai_config(upstream).replace('["up/m-1"]', '["up/m-1", "up/m-2"]')
    relay = await start(config)
    async with relay.chat() as response:
        assert response.status == 200
        assert response.headers["x-relay-model"] == "m-2"
    row = await relay.row()
    assert (row.attempts, row.target_model, row.outcome) == (2, "m-2", "ok")


@pytest.mark.promise("F-06")
async def test_a_request_that_is_wrong_is_not_tried_elsewhere(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [http({"error": {"message": "bad temperature", "param": "temperature"}}, 400)]
    config = openai_config(upstream).replace('["up/m-1"]', '["up/m-1", "up/m-2"]')
    relay = await start(config)
    async with relay.chat(temperature=9) as response:
        assert response.status == 400
        error = (await response.json())["error"]
        assert (error["message"], error["param"]) == ("bad temperature", "temperature")
    assert len(upstream.seen) == 1


async def test_a_long_prompt_is_no_problem(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream))
    text = "x" * 5_000_000
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
    async with relay.client.post(f"{relay.url}/v1/chat/completions", data=io.BytesIO(body)) as response:
        assert response.status == 200
    assert upstream.seen[0].json["messages"][0]["content"] == text


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def call_delta(arguments: str, **more: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, "function": {"arguments": arguments}, **more}]}


def tool_stream(arguments: str) -> list[Any]:
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    return stream(
        chat_chunk({"role": "assistant", "tool_calls": [first]}),
        *(chat_chunk(call_delta(letter)) for letter in arguments),
        chat_chunk(finish="tool_calls"),
        DONE,
    )


def tool_answer(arguments: str) -> list[Any]:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    choice = {"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": [call]}}
    return chat_answer(choices=[{**choice, "finish_reason": "tool_calls"}])


@pytest.mark.parametrize(("arguments", "verdict"), [('{"city":"Oslo"}', "valid"), ('{"city":3}', "invalid")])
async def test_tool_arguments_are_judged_and_the_verdict_is_kept(
    start: Start, upstream: FakeUpstream, arguments: str, verdict: str
) -> None:
    upstream.scripts = [tool_answer(arguments), tool_stream(arguments)]
    relay = await start(openai_config(upstream))
    async with relay.chat(tools=[TOOL]) as response:
        assert response.status == 200
        assert response.headers["x-relay-tool-arguments"] == verdict
        answer = await response.json()
        assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == arguments
    async with relay.chat(tools=[TOOL], stream=True) as response:
        assert await response.read() == body_of(tool_stream(arguments))
    assert [row.tools for row in await relay.rows()] == [verdict, verdict]


@pytest.mark.promise("H-09")
@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ({"content": "Sunny"}, False),
        ({"content": "Those are tool_calls"}, True),
        ({"content": "gr\u00fcn"}, True),
    ],
    ids=["no call", "the word for one", "an escape"],
)
async def test_only_an_answer_that_may_call_a_tool_is_read_for_that(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], read: bool
) -> None:
    seen: list[str] = []
    translate = BoundFamily.translate_response

    def noted(self: BoundFamily, *arguments: Any) -> Any:
        seen.append("read")
        return translate(self, *arguments)

    monkeypatch.setattr(BoundFamily, "translate_response", noted)
    choice = {"index": 0, "message": {"role": "assistant", **answer}, "finish_reason": "stop"}
    # As hosts in Python write it: with escapes for all that is not ASCII.
    body = json.dumps({"id": "1", "choices": [choice], "usage": USAGE}).encode()
    upstream.scripts = [http(body)]
    relay = await start(openai_config(upstream))
    async with relay.chat(tools=[TOOL]) as response:
        assert await response.read() == body
        assert response.headers["x-relay-tool-arguments"] == "valid"
    assert bool(seen) == read
    row = await relay.row()
    assert (row.tools, row.usage_source) == ("valid", "provider")


@pytest.mark.promise("H-09")
async def test_calls_under_an_escaped_name_are_judged_all_the_same(start: Start, upstream: FakeUpstream) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":3}'}}
    choice = {"index": 0, "message": {"role": "assistant", "tool_calls": [call]}, "finish_reason": "stop"}
    body = json.dumps({"id": "1", "choices": [choice], "usage": USAGE}).encode()
    upstream.scripts = [http(body.replace(b"tool_calls", b"tool\\u005fcalls"))]
    relay = await start(openai_config(upstream))
    async with relay.chat(tools=[TOOL]) as response:
        assert response.headers["x-relay-tool-arguments"] == "invalid"


@pytest.mark.promise("H-09")
async def test_strict_makes_bad_tool_arguments_an_error(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [tool_answer('{"city":3}'), tool_stream('{"city":3}')]
    relay = await start(openai_config(upstream) + '    [tools]\n    arguments = "strict"\n')
    async with relay.chat(tools=[TOOL]) as response:
        assert response.status == 502
        assert (await response.json())["error"]["code"] == "invalid_tool_arguments"
    _, got, proper = await read_stream(relay, tools=[TOOL])
    assert not proper
    assert b"[DONE]" not in got
    last = [line for line in got.split(b"\n") if line.startswith(b"data: ")][-1]
    assert json.loads(last[6:])["error"]["code"] == "invalid_tool_arguments"


@pytest.mark.promise("H-09")
async def test_a_tool_definition_that_is_no_schema_is_refused_with_its_path(
    start: Start, upstream: FakeUpstream
) -> None:
    relay = await start(openai_config(upstream))
    bad = {"type": "function", "function": {"name": "x", "parameters": {"type": "objekt"}}}
    async with relay.chat(tools=[TOOL, bad]) as response:
        assert response.status == 400
        assert (await response.json())["error"]["param"] == "tools[1].function.parameters"
    assert not upstream.seen
