"""The official SDK as judge: what the relay answers, it must take for the Gemini API, whoever the upstream is."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import httpx2
import pytest
from google import genai
from google.genai import errors, types

from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import FakeUpstream, Step, chat_answer, chat_chunk, http, stream
from tests.flow.test_anthropic_sdk import event, message
from tests.flow.test_anthropic_sdk import native as messages_config
from tests.flow.test_chat import body_of

DEMO = "[upstreams.demo]\n"
WEATHER = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="weather",
            description="The weather.",
            parameters=types.Schema(
                type=types.Type.OBJECT, properties={"city": types.Schema(type=types.Type.STRING)}, required=["city"]
            ),
        )
    ]
)
TOOLS = types.GenerateContentConfig(
    tools=[WEATHER], automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True)
)
SIGNATURE = base64.b64encode(b"\xfb\xff signed").decode()
"""Its two alphabets differ."""


def native(upstream: FakeUpstream, target: str = "m-1") -> str:
    """A model `m` at an upstream of the same dialect."""
    return f"""
    [upstreams.up]
    family = "gemini"
    base_url = "{upstream.url}"
    api_key = "sk-goog-CANARY"
    [models.m]
    targets = ["up/{target}"]
    price = {{input = 1.0, output = 2.0}}
    """


def answer(*parts: dict[str, Any], finish: str | None = "STOP", **fields: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return {
        "candidates": [candidate],
        "usageMetadata": {
            "promptTokenCount": 111,
            "cachedContentTokenCount": 100,
            "candidatesTokenCount": 3,
            "thoughtsTokenCount": 4,
            "totalTokenCount": 118,
        },
        "modelVersion": "m-1",
        "responseId": "r-1",
        **fields,
    }


def frame(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\r\n\r\n"


def text_stream(*words: str) -> list[Step]:
    *first, last = words
    return stream(*(frame(answer({"text": word}, finish=None)) for word in first), frame(answer({"text": last})))


@pytest.fixture
async def connect() -> AsyncIterator[Any]:
    clients: list[genai.Client] = []
    async with httpx2.AsyncClient(timeout=20) as http_client:

        def build(relay: Running, *, key: str | None = None, own_transport: bool = False, **options: Any) -> Any:
            if not own_transport:
                # The SDK's own is aiohttp's, which complains of streams that the SDK leaves when it raises.
                options["httpx_async_client"] = http_client
            options = {"base_url": relay.url, "timeout": 20_000, **options}
            client = genai.Client(api_key=key or relay.key, http_options=types.HttpOptions(**options))
            clients.append(client)
            return client.aio

        yield build
        for client in clients:
            await client.aio.aclose()
            client.close()


async def ask(sdk: Any, contents: Any = "Hi", **fields: Any) -> Any:
    return await sdk.models.generate_content(model="m", contents=contents, **fields)


async def chunks(sdk: Any, contents: Any = "Hi", **fields: Any) -> list[Any]:
    return [one async for one in await sdk.models.generate_content_stream(model="m", contents=contents, **fields)]


def words(read: list[Any]) -> str:
    return "".join(one.text or "" for one in read)


def post(relay: Running, path: str, **options: Any) -> Any:
    options.setdefault("json", {"contents": [{"parts": [{"text": "Hi"}]}]})
    return relay.client.post(relay.url + path, **options)


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


# Text.


async def text_of(sdk: Any, upstream: FakeUpstream) -> None:
    """Both ways of asking give the same words, the same reason and the same count."""
    whole = await ask(sdk)
    pieces = await chunks(sdk)
    assert (whole.text, words(pieces)) == ("Good day", "Good day")
    assert whole.candidates[0].finish_reason == pieces[-1].candidates[0].finish_reason == types.FinishReason.STOP
    for counted in (whole.usage_metadata, pieces[-1].usage_metadata):
        assert (counted.prompt_token_count, counted.candidates_token_count) == (11, 3)
    assert {one.response_id for one in pieces} == {pieces[0].response_id}
    assert {one.model_version for one in pieces} == {"m-1"}


async def test_chat_upstreams_answer(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
    streamed = stream(
        chat_chunk({"role": "assistant", "content": ""}),
        chat_chunk({"content": "Good "}),
        chat_chunk({"content": "day"}),
        chat_chunk(finish="stop"),
        chat_chunk(choices=[], usage=usage),
        b"data: [DONE]\n\n",
    )
    upstream.scripts = [chat_answer("Good day"), streamed]
    relay = await start(openai_config(upstream))
    await text_of(connect(relay), upstream)
    assert upstream.seen[0].json["messages"] == [{"role": "user", "content": "Hi"}]
    assert [row.outcome for row in await relay.rows()] == ["ok", "ok"]


async def test_messages_upstreams_answer(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    usage = {"input_tokens": 11, "output_tokens": 3}
    streamed = stream(
        event("message_start", message=message(usage=usage)),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Good "}),
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": "day"}),
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3}),
        event("message_stop"),
    )
    upstream.scripts = [http(message({"type": "text", "text": "Good day"}, usage=usage)), streamed]
    relay = await start(messages_config(upstream))
    await text_of(connect(relay), upstream)


async def test_the_sdk_keeps_a_streamed_turn_in_its_chat(start: Start, connect: Any) -> None:
    relay = await start(DEMO)
    chat = connect(relay).chats.create(model="demo-echo")
    first = [one async for one in await chat.send_message_stream("one two")]
    again = await chat.send_message("three")
    assert "one two" in words(first)
    assert "three" in again.text
    assert [turn.role for turn in chat.get_history(curated=True)][:2] == ["user", "model"]
    said = [turn for turn in chat.get_history(curated=True) if turn.role == "user"]
    assert [turn.parts[0].text for turn in said] == ["one two", "three"]


# Tools.


async def test_a_tool_makes_the_round_on_a_chat_upstream(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    calls = [
        {"index": number, "id": f"call_{number}", "type": "function", "function": {"name": "weather", "arguments": ""}}
        for number in range(2)
    ]
    pieces = [{"index": 0, "function": {"arguments": '{"city": '}}, {"index": 0, "function": {"arguments": '"Oslo"}'}}]
    last = [{"index": 1, "function": {"arguments": '{"city":"Rome"}'}}]
    upstream.scripts = [
        stream(
            *(chat_chunk({"tool_calls": [call]}) for call in (calls[0], *pieces, calls[1], *last)),
            chat_chunk(finish="tool_calls"),
            b"data: [DONE]\n\n",
        ),
        chat_answer("Sunny in both"),
    ]
    relay = await start(openai_config(upstream))
    sdk = connect(relay)
    read = await chunks(sdk, config=TOOLS)
    made = [call for one in read for call in one.function_calls or ()]
    assert [(call.id, call.name, call.args) for call in made] == [
        ("call_0", "weather", {"city": "Oslo"}),
        ("call_1", "weather", {"city": "Rome"}),
    ]
    assert read[-1].candidates[0].finish_reason == types.FinishReason.STOP
    (function,) = (tool["function"] for tool in upstream.seen[0].json["tools"])
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    assert (function["name"], function["parameters"]) == ("weather", schema)
    said = types.Content(role="model", parts=[part for one in read for part in one.candidates[0].content.parts])
    results = [
        types.Part(function_response=types.FunctionResponse(id=call.id, name=call.name, response={"output": "sun"}))
        for call in made
    ]
    history = [types.Content(role="user", parts=[types.Part(text="Hi")]), said]
    whole = await ask(sdk, [*history, types.Content(role="user", parts=results)], config=TOOLS)
    assert whole.text == "Sunny in both"
    user, assistant, *tools = upstream.seen[1].json["messages"]
    assert user["content"] == "Hi"
    assert [call["id"] for call in assistant["tool_calls"]] == ["call_0", "call_1"]
    assert [json.loads(call["function"]["arguments"]) for call in assistant["tool_calls"]] == [
        {"city": "Oslo"},
        {"city": "Rome"},
    ]
    assert [(tool["tool_call_id"], tool["content"]) for tool in tools] == [("call_0", "sun"), ("call_1", "sun")]


async def test_calls_and_results_without_ids_find_each_other(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_answer("Good")]
    relay = await start(openai_config(upstream))
    call = {"functionCall": {"name": "weather", "args": {"city": "Oslo"}}}
    other = {"function_call": {"name": "time", "args": {}}}
    answers = [
        {"functionResponse": {"name": "time", "response": {"error": "no clock"}}},
        {"function_response": {"name": "weather", "response": {"result": "sun"}}},
        {"functionResponse": {"name": "weather", "response": {"degrees": 3}}},
    ]
    contents = [
        {"role": "user", "parts": [{"text": "Hi"}]},
        {"role": "model", "parts": [call, other, call]},
        {"role": "function", "parts": answers},
    ]
    async with post(relay, "/v1beta/models/m:generateContent", json={"contents": contents}) as got:
        assert got.status == 200
    _, assistant, *tools = upstream.seen[0].json["messages"]
    first, clock, second = (called["id"] for called in assistant["tool_calls"])
    assert len({first, clock, second}) == 3
    given = {tool["tool_call_id"]: tool["content"] for tool in tools}
    assert "no clock" in given[clock]
    assert given == {clock: given[clock], first: "sun", second: '{"degrees":3}'}


async def test_signed_thinking_makes_the_round_hidden_in_the_call(
    start: Start, upstream: FakeUpstream, connect: Any
) -> None:
    first = message(
        {"type": "thinking", "thinking": "hm", "signature": "EqQB"},
        {"type": "redacted_thinking", "data": "c2VjcmV0"},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
        stop="tool_use",
    )
    upstream.scripts = [http(first), http(message({"type": "text", "text": "Sun"}))]
    relay = await start(messages_config(upstream))
    sdk = connect(relay)
    read = await ask(sdk, config=TOOLS)
    # Nobody asked to see it, and many clients take the first part for the answer.
    said = read.candidates[0].content
    assert [(part.text, part.thought) for part in said.parts] == [("I look.", None), (None, None)]
    (call,) = read.function_calls
    result = types.Part.from_function_response(name="weather", response={"output": "sun"})
    result.function_response.id = call.id
    history = [types.Content(role="user", parts=[types.Part(text="Hi")]), said]
    final = await ask(sdk, [*history, types.Content(role="user", parts=[result])], config=TOOLS)
    assert final.text == "Sun"
    assert upstream.seen[1].json["messages"][1]["content"] == first["content"]


async def test_thoughts_are_shown_to_those_who_ask(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    blocks = [{"type": "thinking", "thinking": "hm hm", "signature": "EqQB"}, {"type": "text", "text": "Hi"}]
    streamed = stream(
        event("message_start", message=message()),
        event("content_block_start", index=0, content_block={"type": "thinking", "thinking": "", "signature": ""}),
        event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hm "}),
        event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hm"}),
        event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "EqQB"}),
        event("content_block_stop", index=0),
        event("content_block_start", index=1, content_block={"type": "text", "text": ""}),
        event("content_block_delta", index=1, delta={"type": "text_delta", "text": "Hi"}),
        event("content_block_stop", index=1),
        event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3}),
        event("message_stop"),
    )
    upstream.scripts = [http(message(*blocks)), streamed, http(message({"type": "text", "text": "Bye"}))]
    relay = await start(messages_config(upstream))
    sdk = connect(relay)
    config = types.GenerateContentConfig(thinking_config=types.ThinkingConfig(include_thoughts=True))
    whole = await ask(sdk, config=config)
    assert [(part.text, part.thought) for part in whole.candidates[0].content.parts] == [("hm hm", True), ("Hi", None)]
    read = await chunks(sdk, config=config)
    parts = [part for one in read for part in one.candidates[0].content.parts]
    assert "".join(part.text for part in parts if part.thought) == "hm hm"
    assert words(read) == "Hi"
    assert upstream.seen[0].json["thinking"]["type"] in ("enabled", "adaptive")
    # And they go back, in pieces as they came, as what they were.
    history = [
        types.Content(role="user", parts=[types.Part(text="Hi")]),
        *(one.candidates[0].content for one in read),
        types.Content(role="user", parts=[types.Part(text="And?")]),
    ]
    assert (await ask(sdk, history, config=config)).text == "Bye"
    assert upstream.seen[2].json["messages"][1]["content"] == blocks


async def test_another_vendors_thinking_is_not_shown_to_this_one(
    start: Start, upstream: FakeUpstream, connect: Any
) -> None:
    made = message(
        {"type": "thinking", "thinking": "secret plan", "signature": "EqQB"},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
        stop="tool_use",
    )
    upstream.scripts = [http(made), http(answer({"text": "Sun"}))]
    config = f"""
    [upstreams.one]
    family = "anthropic"
    base_url = "{upstream.url}"
    api_key = "k"
    [upstreams.two]
    family = "gemini"
    base_url = "{upstream.url}"
    api_key = "k"
    [models.m]
    targets = ["one/claude"]
    [models.n]
    targets = ["two/gemini-3-flash"]
    [models.old]
    targets = ["two/gemini-2.5-flash"]
    """
    relay = await start(config)
    sdk = connect(relay)
    shown = types.GenerateContentConfig(
        tools=[WEATHER], thinking_config=types.ThinkingConfig(include_thoughts=True), system_instruction="Be brief."
    )
    said = (await ask(sdk, config=shown)).candidates[0].content
    assert [part.thought for part in said.parts] == [True, None]
    result = types.Part.from_function_response(name="weather", response={"output": "sun"})
    history = [types.Content(role="user", parts=[types.Part(text="Hi")]), said]
    history.append(types.Content(role="user", parts=[result]))
    for model, signature in (("n", {"thoughtSignature": "skip_thought_signature_validator"}), ("old", {})):
        final = await sdk.models.generate_content(model=model, contents=history, config=shown)
        assert final.text == "Sun"
        assert final.sdk_http_response.headers["x-relay-dropped"] == "thought"
        sent = upstream.seen[-1].json
        call = {"functionCall": {"args": {"city": "Oslo"}, "id": "toolu_1", "name": "weather"}, **signature}
        assert sent["contents"][1]["parts"] == [call]
        assert sent["systemInstruction"]["parts"] == [{"text": "Be brief."}]
        assert b"secret" not in upstream.seen[-1].body


async def test_this_vendors_signatures_come_back_to_it_byte_for_byte(
    start: Start, upstream: FakeUpstream, connect: Any
) -> None:
    call = {"functionCall": {"name": "weather", "args": {"city": "Oslo"}}, "thoughtSignature": SIGNATURE}
    upstream.scripts = [http(answer({"text": "hm", "thought": True}, call)), http(answer({"text": "Sun"}))]
    relay = await start(native(upstream))
    sdk = connect(relay)
    said = (await ask(sdk, config=TOOLS)).candidates[0].content
    result = types.Part.from_function_response(name="weather", response={"output": "sun"})
    history = [types.Content(role="user", parts=[types.Part(text="Hi")]), said]
    await ask(sdk, [*history, types.Content(role="user", parts=[result])], config=TOOLS)
    back = upstream.seen[1].json["contents"][1]["parts"][1]["thoughtSignature"]
    assert base64.urlsafe_b64decode(back) == base64.b64decode(SIGNATURE)


# What else can be asked.


async def test_the_whole_configuration_reaches_a_chat_upstream(
    start: Start, upstream: FakeUpstream, connect: Any
) -> None:
    upstream.scripts = [chat_answer('{"a":1}')]
    relay = await start(openai_config(upstream))
    picture = base64.b64encode(b"\x89PNG\r\n\x1a\n\xfb\xff\xfe").decode()
    contents = [types.Part.from_bytes(data=base64.b64decode(picture), mime_type="image/png"), types.Part(text="What?")]
    config = types.GenerateContentConfig(
        system_instruction=["Be", "brief"],
        temperature=0.5,
        top_p=0.9,
        seed=7,
        max_output_tokens=100,
        stop_sequences=["END"],
        candidate_count=2,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        response_logprobs=True,
        logprobs=3,
        response_mime_type="application/json",
        response_schema=types.Schema(type=types.Type.OBJECT, properties={"a": types.Schema(type=types.Type.INTEGER)}),
        thinking_config=types.ThinkingConfig(thinking_level=types.ThinkingLevel.LOW),
        media_resolution=types.MediaResolution.MEDIA_RESOLUTION_LOW,
        tools=[WEATHER],
        tool_config=types.ToolConfig(
            function_calling_config=types.FunctionCallingConfig(
                mode=types.FunctionCallingConfigMode.ANY, allowed_function_names=["weather"]
            )
        ),
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    read = await ask(connect(relay), contents, config=config)
    assert read.parsed is not None or read.text == '{"a":1}'
    assert "x-relay-dropped" not in read.sdk_http_response.headers
    sent = upstream.seen[0].json
    image = {"url": f"data:image/png;base64,{picture}", "detail": "low"}
    assert sent["messages"][1]["content"] == [
        {"type": "image_url", "image_url": image},
        {"type": "text", "text": "What?"},
    ]
    assert sent["messages"][0]["role"] in ("system", "developer")
    plain = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["END"], "n": 2, "logprobs": True, "top_logprobs": 3}
    assert {name: sent[name] for name in plain} == plain
    assert (sent["presence_penalty"], sent["frequency_penalty"], sent["reasoning_effort"]) == (0.1, 0.2, "low")
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert sent["response_format"]["json_schema"]["schema"] == schema


async def test_what_a_target_cannot_carry_is_told(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream))
    body = {
        "contents": [{"parts": [{"text": "Hi"}]}],
        "tools": [{"googleSearch": {}}],
        "safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
        "cachedContent": "cachedContents/1",
        "generationConfig": {"responseModalities": ["TEXT", "IMAGE"]},
    }
    async with post(relay, "/v1beta/models/m:generateContent", json=body) as got:
        assert got.status == 200
        dropped = set(got.headers["x-relay-dropped"].split(", "))
    assert dropped == {"tools", "safetySettings", "cachedContent", "generationConfig"}
    idle = {**body, "tools": [], "safety_settings": [], "cachedContent": None, "generationConfig": {}}
    async with post(relay, "/v1beta/models/m:generateContent", json=idle) as got:
        assert "x-relay-dropped" not in got.headers


async def test_a_refusal_is_told_in_this_dialects_words(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    def choice(finish: str, **fields: Any) -> list[Step]:
        body = {"role": "assistant", "content": None, **fields}
        return chat_answer(choices=[{"index": 0, "message": body, "finish_reason": finish}])

    upstream.scripts = [choice("content_filter"), choice("stop", refusal="I will not."), choice("length", content="a")]
    relay = await start(openai_config(upstream))
    sdk = connect(relay)
    blocked = await ask(sdk)
    assert (blocked.candidates, blocked.prompt_feedback.block_reason) == (None, types.BlockedReason.SAFETY)
    refused = await ask(sdk)
    assert (refused.text, refused.candidates[0].finish_reason) == ("I will not.", types.FinishReason.SAFETY)
    assert (await ask(sdk)).candidates[0].finish_reason == types.FinishReason.MAX_TOKENS


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
    relay = await start(native(upstream))
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
