"""Errors, cuts and silences, as Google's SDK is told of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.genai import errors

from tests.flow.conftest import STEADY, Start, openai_config
from tests.flow.fake import FakeUpstream, chat_chunk, http, stream
from tests.flow.gemini import DEMO, answer, ask, chunks, connecting, frame, native, post, words
from tests.flow.test_anthropic_sdk import event, message
from tests.flow.test_anthropic_sdk import native as messages_config


@pytest.fixture
async def connect() -> AsyncIterator[Any]:
    async with connecting() as build:
        yield build


# Errors.


async def test_the_relays_own_refusals_are_raised_as_what_they_are(start: Start, connect: Any) -> None:
    relay = await start(DEMO)
    sdk = connect(relay)
    with pytest.raises(errors.ClientError) as raised:
        await ask(sdk)
    assert (raised.value.code, raised.value.status) == (404, "NOT_FOUND")
    with pytest.raises(errors.ClientError) as raised:
        await ask(connect(relay, key="sk-relay-wrong"))
    assert (raised.value.code, raised.value.status) == (401, "UNAUTHENTICATED")
    for body, field in (
        ({}, "contents"),
        ({"contents": []}, "contents"),
        ({"contents": ["Hi"]}, "contents[0]"),
        ({"contents": [{"role": "robot", "parts": []}]}, "contents[0].role"),
        ({"contents": [{"parts": [{"text": 5}]}]}, "contents[0].parts[0].text"),
        ({"contents": [{}], "generationConfig": {"maxOutputTokens": 0}}, "generationConfig.maxOutputTokens"),
        ({"contents": [{}], "generationConfig": {"top_p": "x"}}, "generationConfig.topP"),
        ({"contents": [{"parts": [{"functionResponse": {"name": "f"}}]}]}, "contents[0].parts[0].functionResponse.id"),
    ):
        async with post(relay, "/v1beta/models/demo-echo:generateContent", json=body) as got:
            error = (await got.json())["error"]
        assert (got.status, error["code"], error["status"]) == (400, 400, "INVALID_ARGUMENT"), body
        violations = [detail for detail in error["details"] if detail["@type"].endswith("BadRequest")]
        assert violations[0]["fieldViolations"][0]["field"] == field


async def test_a_limit_says_when_to_come_back(start: Start, connect: Any) -> None:
    relay = await start(DEMO, key={"rpm": 1})
    sdk = connect(relay)
    await sdk.models.generate_content(model="demo-echo", contents="Hi")
    with pytest.raises(errors.ClientError) as raised:
        await sdk.models.generate_content(model="demo-echo", contents="Hi")
    assert (raised.value.code, raised.value.status) == (429, "RESOURCE_EXHAUSTED")
    (delay,) = [one["retryDelay"] for one in raised.value.details["error"]["details"] if "retryDelay" in one]
    assert 1 <= int(delay.removesuffix("s")) <= 60


async def test_an_upstreams_errors_keep_their_words(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    relay = await start(native(upstream) + STEADY)
    sdk = connect(relay)
    for status, wanted, word in (
        (400, 400, "INVALID_ARGUMENT"),
        (403, 502, "UNAVAILABLE"),
        (429, 429, "RESOURCE_EXHAUSTED"),
        (500, 502, "UNAVAILABLE"),
        (503, 503, "UNAVAILABLE"),
    ):
        upstream.scripts = [http({"error": {"code": status, "message": "so it goes", "status": "X"}}, status)]
        for call in (ask, chunks):
            with pytest.raises(errors.APIError) as raised:
                await call(sdk)
            assert (raised.value.code, raised.value.status) == (wanted, word)
            assert status == 403 or raised.value.message == "so it goes"


@pytest.mark.parametrize("ending", ["fin", "rst", "error"])
@pytest.mark.parametrize("config", [native, openai_config, messages_config], ids=["native", "chat", "messages"])
async def test_a_cut_stream_raises(
    start: Start, upstream: FakeUpstream, connect: Any, config: Any, ending: str
) -> None:
    begin = {
        native: [frame(answer({"text": "Go"}, finish=None))],
        openai_config: [chat_chunk({"content": "Go"})],
        messages_config: [
            event("message_start", message=message()),
            event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Go"}),
        ],
    }[config]
    failed: dict[Any, bytes] = {
        native: frame({"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}),
        openai_config: b'data: {"error": {"message": "overloaded"}}\n\n',
        messages_config: event("error", error={"type": "overloaded_error", "message": "overloaded"}),
    }
    # What comes at once is told with the status of the answer, and not within it.
    rest = failed[config] if ending == "error" else ending
    upstream.scripts = [stream(*begin, 0.2, rest, end=ending == "error")]
    relay = await start(config(upstream))
    sdk = connect(relay)
    got: list[Any] = []

    async def read() -> None:
        async for one in await sdk.models.generate_content_stream(model="m", contents="Hi"):
            got.append(one)

    with pytest.raises(errors.APIError) as raised:
        await read()
    assert words(got) == "Go"
    assert raised.value.code >= 500
    assert (await relay.row()).outcome == ("upstream_error" if ending == "error" else "upstream_cut")


async def test_a_stream_without_a_reason_is_not_taken_for_complete(
    start: Start, upstream: FakeUpstream, connect: Any
) -> None:
    upstream.scripts = [stream(frame(answer({"text": "Go"}, finish=None)))]
    relay = await start(native(upstream))
    with pytest.raises(errors.ServerError):
        await chunks(connect(relay))
    assert (await relay.row()).outcome == "upstream_cut"


# Silence.


@pytest.mark.filterwarnings("ignore:Inheritance class")
@pytest.mark.parametrize("own_transport", [True, False])
@pytest.mark.parametrize("config", [native, openai_config], ids=["native", "translated"])
async def test_silence_is_filled_with_what_the_sdk_reads_over(
    start: Start, upstream: FakeUpstream, connect: Any, config: Any, own_transport: bool
) -> None:
    if config is native:
        upstream.scripts = [stream(frame(answer({"text": "Go"}, finish=None)), 1.2, frame(answer({"text": "od"})))]
    else:
        upstream.scripts = [
            stream(
                chat_chunk({"content": "Go"}),
                1.2,
                chat_chunk({"content": "od"}),
                chat_chunk(finish="stop"),
                b"data: [DONE]\n\n",
            )
        ]
    relay = await start("[server]\nkeep_alive_seconds = 0.2\n" + config(upstream).replace("\n    ", "\n"))
    read = await chunks(connect(relay, own_transport=own_transport))
    assert words(read) == "Good"
    async with post(relay, "/v1beta/models/m:streamGenerateContent?alt=sse") as got:
        body = await got.read()
    assert b"\n\n\ndata: " in body or b"\r\n\r\n\ndata: " in body
    assert b": " not in body.replace(b"data: ", b"").replace(b'": ', b"")
