"""The Gemini API on the wire: what passes through, what stands in the address, and what is listed and counted."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from google.genai import errors

from tests.flow.conftest import Start, openai_config
from tests.flow.fake import FakeUpstream, chat_chunk, http, stream
from tests.flow.gemini import DEMO, answer, connecting, frame, native, post, text_stream
from tests.flow.test_chat import body_of


@pytest.fixture
async def connect() -> AsyncIterator[Any]:
    async with connecting() as build:
        yield build


# The same dialect on both sides.


async def test_both_bodies_pass_through_byte_for_byte(start: Start, upstream: FakeUpstream) -> None:
    whole = http(json.dumps(answer({"text": "Good day"}, odd={"x": [1.0, None]}), indent=2).encode())
    upstream.scripts = [whole, text_stream("Good ", "day")]
    relay = await start(native(upstream, "publishers/a model"))
    raw = b'{ "contents" : [{"parts":[{"text":"\\u00e9"}]}], "generation_config":{}, "new_field":{"model":"x"}}'
    calls = (("generateContent", body_of(whole)), ("streamGenerateContent", body_of(text_stream("Good ", "day"))))
    for verb, wanted in calls:
        path = f"/v1/models/m:{verb}?alt=sse&key={relay.key}"
        async with post(relay, path, json=None, data=raw, headers={"x-goog-api-client": "c", "Cookie": "a=b"}) as got:
            assert await got.read() == wanted
        seen = upstream.seen[-1]
        assert seen.path.startswith(f"/v1beta/models/publishers%2Fa%20model:{verb}")
        assert seen.body == raw
        assert seen.headers["x-goog-api-key"] == "sk-goog-CANARY"
        assert not {"cookie", "authorization", "x-goog-api-client"} & seen.headers.keys()
        assert relay.key not in str(seen)
    streamed, complete = await relay.rows()
    for row in (complete, streamed):
        assert (row.outcome, row.usage_source, row.dialect, row.model) == ("ok", "provider", "gemini", "m")
        assert row.usage is not None
        assert (row.usage.input, row.usage.cache_read, row.usage.output, row.usage.reasoning) == (111, 100, 7, 4)
    assert (complete.stream, streamed.stream) == (False, True)


@pytest.mark.parametrize("version", ["v1", "v1beta"])
async def test_the_model_in_the_path_may_hold_anything(start: Start, upstream: FakeUpstream, version: str) -> None:
    upstream.scripts = [http(answer({"text": "Hi"}))]
    relay = await start(native(upstream))
    sent = {
        "models/up%2Fa%2Fb": "models/a%2Fb",
        "models/up/a/b": "models/a%2Fb",
        "models/up/llama3:8b": "models/llama3%3A8b",
        "models/up%2Fa%20%C3%A9": "models/a%20%C3%A9",
        "models/up/tunedModels/mine": "tunedModels/mine",
        "models/m": "models/m-1",
    }
    for asked, wanted in sent.items():
        async with post(relay, f"/{version}/{asked}:generateContent") as got:
            assert got.status == 200, asked
        assert upstream.seen[-1].path == f"/v1beta/{wanted}:generateContent"
    async with post(relay, f"/{version}/tunedModels/mine:generateContent") as got:
        assert (got.status, (await got.json())["error"]["status"]) == (404, "NOT_FOUND")


async def test_a_model_in_the_body_is_made_to_fit(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [http(answer({"text": "Hi"}))]
    relay = await start(native(upstream))
    body = b'{"contents":[{"parts":[{"text":"Hi"}]}], "model": "models/m"}'
    async with post(relay, "/v1/models/m:generateContent", json=None, data=body) as got:
        assert got.status == 200
    assert upstream.seen[-1].body == body.replace(b"models/m", b"models/m-1")
    async with post(relay, "/v1/models/m:generateContent", json=None, data=body.replace(b"models/m", b"other")) as got:
        error = (await got.json())["error"]
    assert (error["code"], error["details"][1]["fieldViolations"][0]["field"]) == (400, "model")
    twice = body[:-1] + b',"model":"models/m"}'
    async with post(relay, "/v1/models/m:generateContent", json=None, data=twice) as got:
        assert got.status == 400
    assert len(upstream.seen) == 1


async def test_without_alt_sse_a_stream_is_one_array(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [text_stream("Good ", "day")]
    relay = await start(native(upstream) + DEMO)
    for model in ("m", "demo-echo"):
        async with post(relay, f"/v1beta/models/{model}:streamGenerateContent") as got:
            assert got.headers["Content-Type"].startswith("application/json")
            pieces = json.loads(await got.read())
        assert len(pieces) > 1
        assert pieces[-1]["candidates"][0]["finishReason"] == "STOP"
    assert upstream.seen[-1].path.endswith(":streamGenerateContent?alt=sse")
    assert [row.usage_source for row in await relay.rows()] == ["provider", "provider"]


@pytest.mark.parametrize("config", [native, openai_config], ids=["native", "translated"])
async def test_an_array_that_is_cut_ends_with_the_error(start: Start, upstream: FakeUpstream, config: Any) -> None:
    first = frame(answer({"text": "Go"}, finish=None)) if config is native else chat_chunk({"content": "Go"})
    upstream.scripts = [stream(first, first[:40], "fin", end=False)]
    relay = await start(config(upstream))
    got: list[bytes] = []

    async def read(response: aiohttp.ClientResponse) -> None:
        async for piece in response.content.iter_any():
            got.append(piece)

    async with post(relay, "/v1beta/models/m:streamGenerateContent") as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await read(response)
    text, error = json.loads(b"".join(got))
    assert text["candidates"][0]["content"]["parts"][0]["text"] == "Go"
    assert error["error"]["status"] == "UNAVAILABLE"
    assert (await relay.row()).outcome == "upstream_cut"


# Keys.


async def test_a_key_is_taken_from_the_query_only_where_that_is_usual(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    relay = await start(DEMO)
    async with aiohttp.ClientSession() as bare:
        body = {"contents": [{"parts": [{"text": "Hi"}]}]}
        place = f"{relay.url}/v1beta/models/demo-echo:generateContent"
        for query, headers, status in (
            (f"?key={relay.key}", {}, 200),
            (f"?key={relay.key}", {"x-goog-api-key": relay.key}, 200),
            (f"?key={relay.key}", {"Authorization": f"Bearer {relay.key}"}, 200),
            (f"?key={relay.key}", {"Authorization": "Bearer sk-relay-other"}, 401),
            ("?key=wrong", {}, 401),
            ("?key=", {}, 401),
            ("", {}, 401),
        ):
            async with bare.post(place + query, json=body, headers=headers) as got:
                assert got.status == status, (query, headers)
                if status == 401:
                    assert (await got.json())["error"]["status"] == "UNAUTHENTICATED"
        chat = {"model": "demo-echo", "messages": [{"role": "user", "content": "Hi"}]}
        async with bare.post(f"{relay.url}/v1/chat/completions?key={relay.key}", json=chat) as got:
            assert got.status == 401
    assert relay.key not in caplog.text


# Counting and listing.


async def test_tokens_are_counted_by_the_upstream_or_estimated(
    start: Start, upstream: FakeUpstream, connect: Any
) -> None:
    upstream.scripts = [http({"totalTokens": 31}), http({"error": {"code": 404, "message": ""}}, 404)]
    relay = await start(native(upstream) + DEMO)
    sdk = connect(relay)
    counted = await sdk.models.count_tokens(model="m", contents="Hello there, how are you?")
    assert (counted.total_tokens, counted.sdk_http_response.headers["x-relay-token-count"]) == (31, "upstream")
    assert upstream.seen[0].path == "/v1beta/models/m-1:countTokens"
    for model in ("m", "demo-echo"):
        guess = await sdk.models.count_tokens(model=model, contents="Hello there, how are you?")
        assert guess.sdk_http_response.headers["x-relay-token-count"] == "estimate"
        assert 5 <= guess.total_tokens <= 15
    inner = {"model": "models/m", "contents": [{"parts": [{"text": "Hi"}]}]}
    upstream.scripts = [http({"totalTokens": 3})]
    async with post(relay, "/v1/models/m:countTokens", json={"generateContentRequest": inner}) as got:
        assert await got.json() == {"totalTokens": 3}
    assert upstream.seen[-1].json == {"generateContentRequest": {**inner, "model": "models/m-1"}}
    assert {row.operation for row in await relay.rows()} == {"count_tokens"}


async def test_models_are_listed_in_this_dialects_shape(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    relay = await start(native(upstream) + DEMO + '[models.long]\ntargets = ["up/a"]\ncontext_length = 123456\n')
    for version in ("v1beta", "v1"):
        sdk = connect(relay, api_version=version)
        found = [model async for model in await sdk.models.list(config={"page_size": 2})]
        assert [model.name for model in found] == ["models/m", "models/long", "models/demo-echo"]
        assert found[1].input_token_limit == 123456
        assert "generateContent" in found[0].supported_actions
        assert (await sdk.models.get(model="long")).input_token_limit == 123456
        with pytest.raises(errors.ClientError) as raised:
            await sdk.models.get(model="nobody")
        assert (raised.value.code, raised.value.status) == (404, "NOT_FOUND")
    async with relay.client.get(f"{relay.url}/v1/models") as got:
        assert (await got.json())["object"] == "list"
    async with relay.client.get(f"{relay.url}/v1beta/models?pageToken=%21") as got:
        assert (got.status, (await got.json())["error"]["status"]) == (400, "INVALID_ARGUMENT")
