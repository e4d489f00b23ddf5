"""Legacy completions through the whole relay: to hosts that still take them, and to all others as a conversation."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI

from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import DONE, USAGE, FakeUpstream, chat_answer, chat_chunk, chat_stream, http, stream

DEMO = "[upstreams.demo]\n"


def native_config(upstream: FakeUpstream) -> str:
    """The usual upstream, which takes completions too."""
    return openai_config(upstream).replace(
        'family = "openai"', 'family = "openai"\n    dialects = ["openai-chat", "openai-completions"]'
    )


@pytest.fixture
async def connect() -> AsyncIterator[Any]:
    clients: list[AsyncOpenAI] = []

    def build(relay: Running, **options: Any) -> AsyncOpenAI:
        clients.append(AsyncOpenAI(base_url=f"{relay.url}/v1", api_key=relay.key, **{"max_retries": 0, **options}))
        return clients[-1]

    yield build
    for client in clients:
        await client.close()


def post(relay: Running, body: Any, path: str = "/v1/completions") -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return relay.client.post(f"{relay.url}{path}", data=raw, headers={"Content-Type": "application/json"})


async def streamed(relay: Running) -> tuple[bytes, bool]:
    """What came of a stream, and whether its body ended properly."""
    got = b""
    async with post(relay, {"model": "m", "prompt": "a", "stream": True}) as response:
        try:
            async for data in response.content.iter_any():
                got += data
        except aiohttp.ClientPayloadError:
            return got, False
    return got, True


def piece(text: str = "", finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    choice = {"text": text, "index": index, "logprobs": None, "finish_reason": finish}
    value = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m-1", "choices": [choice], **more}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def answer(*texts: str, **more: Any) -> bytes:
    choices = [
        {"text": text, "index": place, "logprobs": None, "finish_reason": "stop"} for place, text in enumerate(texts)
    ]
    value = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m-1", "choices": choices, **more}
    return json.dumps(value, indent=1).encode()


COUNT = piece(choices=[], usage=USAGE)


# Passed through.


@pytest.mark.parametrize("path", ["/v1/completions", "/completions"])
async def test_both_bodies_pass_through_but_for_the_models_name(
    start: Start, upstream: FakeUpstream, path: str
) -> None:
    body = answer("b", "c", usage=USAGE)
    upstream.scripts = [http(body)]
    relay = await start(native_config(upstream))
    raw = b'{ "prompt":["a",[1,2]], "suffix" : "z", "echo":true,"best_of":3, "n" :1, "model":"m" , "x": {"model": "m"}}'
    async with post(relay, raw, path) as response:
        assert (response.status, await response.read()) == (200, body)
    (seen,) = upstream.seen
    assert (seen.path, seen.body) == ("/v1/completions", raw.replace(b'"model":"m" ', b'"model":"m-1" '))
    row = await relay.row()
    assert (row.operation, row.dialect, row.outcome) == ("generate", "openai-completions", "ok")
    assert row.usage is not None
    assert (row.usage_source, row.usage.input, row.usage.output, row.cost) == ("provider", 11, 3, 17_000)


async def test_a_side_that_the_upstream_leaves_out_of_its_count_is_the_rest_of_the_sum(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.scripts = [http(answer("", usage={"prompt_tokens": 11, "total_tokens": 11}))]
    relay = await start(native_config(upstream))
    async with post(relay, {"model": "m", "prompt": "a"}) as response:
        assert response.status == 200
    row = await relay.row()
    assert row.usage is not None
    assert (row.usage_source, row.usage.input, row.usage.output) == ("provider", 11, 0)


async def test_a_stream_passes_through_counted_and_the_count_stays_with_the_relay(
    start: Start, upstream: FakeUpstream
) -> None:
    pieces = [piece("Good"), piece(" day"), piece(finish="stop")]
    upstream.scripts = [stream(*pieces, COUNT, DONE)]
    relay = await start(native_config(upstream))
    async with post(relay, {"model": "m", "prompt": "a", "stream": True}) as response:
        assert await response.read() == b"".join(pieces) + DONE
    assert upstream.seen[0].json["stream_options"] == {"include_usage": True}
    row = await relay.row()
    assert row.usage is not None
    assert (row.stream, row.usage_source, row.usage.input, row.usage.output) == (True, "provider", 11, 3)


async def test_who_asks_for_the_count_gets_it(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    upstream.scripts = [stream(piece("Good"), piece(" day"), piece(finish="length"), COUNT, DONE)]
    sdk = connect(await start(native_config(upstream)))
    text, finish, usage = "", None, None
    async for chunk in await sdk.completions.create(
        model="m", prompt="a", stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text, finish = text + choice.text, choice.finish_reason or finish
    assert (text, finish) == ("Good day", "length")
    assert usage is not None
    assert usage.total_tokens == 14


# Translated.


async def test_others_are_asked_as_in_a_conversation(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    upstream.scripts = [chat_answer("Good day")]
    relay = await start(openai_config(upstream))
    raw = await connect(relay).completions.with_raw_response.create(
        model="m", prompt=["Say it"], max_tokens=5, temperature=0, stop="\n", n=1, best_of=1, user="u", suffix=""
    )
    shown = raw.parse()
    assert (shown.object, shown.model, shown.id) == ("text_completion", "m-1", "chatcmpl-1")
    assert [(choice.text, choice.finish_reason, choice.index) for choice in shown.choices] == [("Good day", "stop", 0)]
    assert shown.usage.total_tokens == 14
    assert "x-relay-dropped" not in raw.headers
    (seen,) = upstream.seen
    assert (seen.path, seen.json) == (
        "/v1/chat/completions",
        {
            "model": "m-1",
            "messages": [{"role": "user", "content": "Say it"}],
            "max_tokens": 5,
            "temperature": 0,
            "stop": ["\n"],
            "n": 1,
            "user": "u",
        },
    )
    row = await relay.row()
    assert (row.dialect, row.outcome, row.usage_source) == ("openai-completions", "ok", "provider")


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_translated_stream_ends_only_after_its_finish(
    start: Start, upstream: FakeUpstream, connect: Any, wanted: bool
) -> None:
    upstream.scripts = [chat_stream("Good day to you")]
    relay = await start(openai_config(upstream))
    more: Any = {"stream_options": {"include_usage": True}} if wanted else {}
    text, finishes, usage = "", [], None
    async for chunk in await connect(relay).completions.create(model="m", prompt="Hi", stream=True, **more):
        usage = chunk.usage or usage
        assert chunk.object == "text_completion"
        for choice in chunk.choices:
            text += choice.text
            finishes.append(choice.finish_reason)
    assert (text, finishes[-1], set(finishes[:-1])) == ("Good day to you", "stop", {None})
    assert (usage is not None) == wanted
    async with post(relay, {"model": "m", "prompt": "Hi", "stream": True}) as response:
        body = await response.read()
    events = body.split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    assert b'"finish_reason":"stop"' in events[-3]


async def test_probabilities_are_told_in_the_old_form(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    tokens = [
        {"token": "Gü", "logprob": -0.5, "bytes": None, "top_logprobs": [{"token": "Gü", "logprob": -0.5}]},
        {"token": " day", "logprob": -1.5, "bytes": None, "top_logprobs": []},
    ]
    whole = {"index": 0, "message": {"content": "Gü day"}, "logprobs": {"content": tokens}, "finish_reason": "stop"}
    streamed = [
        chat_chunk(choices=[{"index": 0, "delta": {"content": token["token"]}, "logprobs": {"content": [token]}}])
        for token in tokens
    ]
    upstream.scripts = [chat_answer(choices=[whole]), stream(*streamed, chat_chunk(finish="stop"), DONE)]
    sdk = connect(await start(openai_config(upstream)))
    shown = await sdk.completions.create(model="m", prompt="Hi", logprobs=2)
    assert shown.choices[0].logprobs.model_dump() == {
        "tokens": ["Gü", " day"],
        "token_logprobs": [-0.5, -1.5],
        "top_logprobs": [{"Gü": -0.5}, {}],
        "text_offset": [0, 2],
    }
    assert (upstream.seen[0].json["logprobs"], upstream.seen[0].json["top_logprobs"]) == (True, 2)
    offsets = []
    async for chunk in await sdk.completions.create(model="m", prompt="Hi", logprobs=2, stream=True):
        offsets += [place for choice in chunk.choices if choice.logprobs for place in choice.logprobs.text_offset]
    assert offsets == [0, 2]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"suffix": "end"}, "suffix"),
        ({"echo": True}, "echo"),
        ({"best_of": 2}, "best_of"),
        ({"n": 2, "best_of": 3}, "best_of"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
    ],
)
async def test_what_no_conversation_can_say_is_refused_before_anybody_is_asked(
    start: Start, upstream: FakeUpstream, more: Any, param: str
) -> None:
    relay = await start(openai_config(upstream))
    async with post(relay, {"model": "m", "prompt": "a", **more}) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"], error["param"]) == (400, "unsupported_parameter", param)
    assert error["type"] == "invalid_request_error"
    assert not upstream.seen
    assert (await relay.row()).outcome == "rejected"


async def test_what_gets_lost_is_told_and_refused_to_strict_keys(start: Start, upstream: FakeUpstream) -> None:
    relay = await start(DEMO)
    body = {"model": "demo-echo", "prompt": "Hi", "temperature": 0.5, "min_tokens": 3}
    async with post(relay, body) as response:
        assert (await response.json())["choices"][0]["text"] == "You said: Hi"
        assert response.headers["x-relay-dropped"] == "temperature, min_tokens"
    strict = await start(DEMO, key={"strict": True})
    async with post(strict, body) as response:
        assert (response.status, (await response.json())["error"]["param"]) == (400, "temperature")
    async with post(strict, {"model": "demo-echo", "prompt": "Hi"}) as response:
        assert response.status == 200


# When it goes wrong.


@pytest.mark.parametrize("native", [True, False])
async def test_a_stream_that_is_cut_raises_and_never_looks_finished(
    start: Start, upstream: FakeUpstream, connect: Any, native: bool
) -> None:
    one = piece if native else (lambda text: chat_chunk({"content": text}))
    upstream.scripts = [stream(one("Good"), one(" day"), "fin", end=False)]
    relay = await start(native_config(upstream) if native else openai_config(upstream))
    text = ""
    chunks = aiter(await connect(relay).completions.create(model="m", prompt="a", stream=True))
    while text != "Good day":
        text += (await anext(chunks)).choices[0].text
    with pytest.raises(openai.APIError):
        await anext(chunks)
    upstream.scripts.append(upstream.scripts[0])
    got, whole = await streamed(relay)
    assert not whole
    assert b"[DONE]" not in got
    assert b'"upstream_protocol_error"' in got
    assert {row.outcome for row in await relay.rows()} == {"upstream_cut"}


@pytest.mark.parametrize("native", [True, False])
async def test_an_end_marker_without_a_finish_is_no_end(start: Start, upstream: FakeUpstream, native: bool) -> None:
    one = piece("Good") if native else chat_chunk({"content": "Good"})
    upstream.scripts = [stream(one, DONE)]
    relay = await start(native_config(upstream) if native else openai_config(upstream))
    got, whole = await streamed(relay)
    assert b"[DONE]" not in got
    assert b'"upstream_protocol_error"' in got
    # Where all of it came at once, it is a plain error.
    assert not whole or got.startswith(b'{"error"')
    assert (await relay.row()).outcome == "upstream_cut"


async def test_an_upstreams_error_keeps_its_words(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    said = {"message": "This is a chat model", "type": "invalid_request_error", "param": "model", "code": None}
    upstream.scripts = [http({"error": said}, 404)]
    sdk = connect(await start(native_config(upstream)))
    with pytest.raises(openai.NotFoundError, match="This is a chat model"):
        await sdk.completions.create(model="m", prompt="a")


async def test_another_target_answers_where_the_first_cannot(
    start: Start, upstream: FakeUpstream, connect: Any
) -> None:
    config = native_config(upstream).replace('["up/m-1"]', '["up/m-1", "up/m-2"]')
    upstream.scripts = [http({"error": {"message": "busy"}}, 503), http(answer("b", usage=USAGE))]
    relay = await start(config)
    shown = await connect(relay).completions.create(model="m", prompt="a")
    assert shown.choices[0].text == "b"
    assert [seen.json["model"] for seen in upstream.seen] == ["m-1", "m-2"]
    assert (await relay.row()).attempts == 2


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": 5}, "prompt"),
        ({"prompt": [{}]}, "prompt[0]"),
        ({"prompt": [1, "a"]}, "prompt[1]"),
        ({"prompt": ["a", [1, None]]}, "prompt[1][1]"),
        ({"prompt": "a", "n": 0}, "n"),
        ({"prompt": "a", "best_of": "2"}, "best_of"),
        ({"prompt": "a", "max_tokens": -1}, "max_tokens"),
        ({"prompt": "a", "stream": 1}, "stream"),
        ({"prompt": ""}, "prompt"),
        ({}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": "a", "logprobs": True}, "logprobs"),
        ({"prompt": "a", "stop": [1]}, "stop[0]"),
        ({"prompt": "a", "temperature": "hot"}, "temperature"),
    ],
)
async def test_a_wrong_parameter_is_named(start: Start, upstream: FakeUpstream, body: Any, param: str) -> None:
    relay = await start(openai_config(upstream))
    async with post(relay, {"model": "m", **body}) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"], error["param"]) == (400, "invalid_parameter", param)
    assert not upstream.seen


async def test_the_reservation_counts_every_text_that_is_generated(start: Start, upstream: FakeUpstream) -> None:
    relay = await start(native_config(upstream), key={"tpm": 1000})
    async with post(relay, {"model": "m", "prompt": ["a", "b"], "n": 2, "best_of": 5, "max_tokens": 100}) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"]) == (429, "request_over_token_limit")
    assert "1002 tokens" in error["message"]
    assert not upstream.seen
