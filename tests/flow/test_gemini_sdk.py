"""The official SDK as judge: what the relay answers, it must take for the Gemini API, whoever the upstream is."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.genai import types

from tests.flow.conftest import Start, openai_config
from tests.flow.fake import FakeUpstream, Step, chat_answer, chat_chunk, http, stream
from tests.flow.gemini import DEMO, answer, ask, chunks, connecting, native, post, words
from tests.flow.test_anthropic_sdk import event, message
from tests.flow.test_anthropic_sdk import native as messages_config

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


@pytest.fixture
async def connect() -> AsyncIterator[Any]:
    async with connecting() as build:
        yield build


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
