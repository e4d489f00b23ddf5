"""Reasoning that clients drop, through the whole relay: it comes back to where it came from, and goes nowhere else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tests.clients.scripted import event
from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import FakeUpstream, Step, chat_chunk, http, stream

TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
THOUGHT = {"type": "thinking", "thinking": "They want Oslo.", "signature": "c2lnbmVkLWJ5LXRoZS12ZW5kb3I="}
HIDDEN = {"type": "redacted_thinking", "data": "b25seS10aGUtdmVuZG9yLXJlYWRzLXRoaXM="}
CALL = {"type": "tool_use", "id": "toolu_01", "name": "weather", "input": {"city": "Oslo"}}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m-1",
    "stop_sequence": None,
    "usage": {"input_tokens": 5, "output_tokens": 5},
}


def messages_answer(*blocks: dict[str, Any], stop: str = "tool_use") -> Sequence[Step]:
    return http({**MESSAGE, "content": list(blocks), "stop_reason": stop})


def messages_stream(*blocks: dict[str, Any]) -> Sequence[Step]:
    """The same, streamed."""
    pieces = [event("message_start", message={**MESSAGE, "content": [], "stop_reason": None})]
    for index, block in enumerate(blocks):
        if block["type"] == "thinking":
            shell = {**block, "thinking": "", "signature": ""}
            deltas = [
                {"type": "thinking_delta", "thinking": block["thinking"]},
                {"type": "signature_delta", "signature": block["signature"]},
            ]
        elif block["type"] == "tool_use":
            shell = {**block, "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
        else:
            shell, deltas = block, []
        pieces.append(event("content_block_start", index=index, content_block=shell))
        pieces += [event("content_block_delta", index=index, delta=delta) for delta in deltas]
        pieces.append(event("content_block_stop", index=index))
    pieces.append(event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 5}))
    return stream(*pieces, event("message_stop"))


def anthropic(upstream: FakeUpstream, name: str = "up") -> str:
    return f"""
    [upstreams.{name}]
    family = "anthropic"
    base_url = "{upstream.url}"
    api_key = "sk-CANARY-upstream-key"
    [models.m]
    targets = ["{name}/claude-sonnet-4-5"]
    """


def next_turn(call: str = "toolu_01", **more: Any) -> dict[str, Any]:
    """What a client that keeps no reasoning sends with the tool's result."""
    asked = {"id": call, "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
    return {
        "messages": [
            {"role": "user", "content": "Weather in Oslo?"},
            {"role": "assistant", "content": None, "tool_calls": [asked], **more},
            {"role": "tool", "tool_call_id": call, "content": "7 degrees"},
        ],
        "tools": [TOOL],
        "reasoning_effort": "low",
    }


async def first_turn(relay: Running, streamed: bool) -> None:
    question = [{"role": "user", "content": "Weather in Oslo?"}]
    async with relay.chat(stream=streamed, messages=question, tools=[TOOL], reasoning_effort="low") as response:
        assert response.status == 200
        assert b"weather" in await response.read()


def sent_turn(upstream: FakeUpstream) -> Any:
    """The model's own turn as the upstream last got it."""
    return next(message for message in upstream.seen[-1].json["messages"] if message["role"] == "assistant")


@pytest.mark.parametrize("streamed", [False, True])
async def test_signed_thinking_comes_back_although_the_client_dropped_it(
    start: Start, upstream: FakeUpstream, streamed: bool
) -> None:
    blocks = (THOUGHT, HIDDEN, CALL)
    first = messages_stream(*blocks) if streamed else messages_answer(*blocks)
    upstream.scripts = [first, messages_answer({"type": "text", "text": "7"}, stop="end_turn")]
    relay = await start(anthropic(upstream))
    await first_turn(relay, streamed)
    async with relay.chat(**next_turn()) as response:
        assert response.status == 200
    assert sent_turn(upstream)["content"] == [THOUGHT, HIDDEN, CALL]
    assert upstream.seen[-1].json["thinking"]["type"] == "enabled", "with its thoughts back it may think on"


async def test_another_key_another_upstream_and_a_switched_off_memory_get_nothing(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.answer = lambda seen: (
        messages_answer({"type": "text", "text": "7"}, stop="end_turn")
        if "tool_result" in seen.body.decode()
        else messages_answer(THOUGHT, CALL)
    )
    relay = await start(anthropic(upstream))
    await first_turn(relay, False)
    _, other = await relay.relay.store.keys.create("other")
    headers = {"Authorization": f"Bearer {other}"}
    async with relay.client.post(
        f"{relay.url}/v1/chat/completions", json={"model": "m", **next_turn()}, headers=headers
    ) as response:
        assert response.status == 200
    assert sent_turn(upstream)["content"] == [CALL]
    for config in (anthropic(upstream, "elsewhere"), anthropic(upstream) + "[memory]\nmegabytes = 0\n"):
        again = await start(config)
        if "memory" in config:
            await first_turn(again, False)
        async with again.chat(**next_turn()) as response:
            assert response.status == 200
        assert sent_turn(upstream)["content"] == [CALL]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_host_that_wants_its_reasoning_back_gets_it_from_clients_of_its_own_dialect(
    start: Start, upstream: FakeUpstream, streamed: bool
) -> None:
    asked = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
    message = {"role": "assistant", "content": None, "reasoning_content": "They want Oslo.", "tool_calls": [asked]}
    whole = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m-1",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
    pieces = stream(
        chat_chunk({"role": "assistant", "reasoning_content": "They want "}),
        chat_chunk({"reasoning_content": "Oslo."}),
        chat_chunk({"tool_calls": [{"index": 0, **asked}]}),
        chat_chunk(finish="tool_calls"),
        b"data: [DONE]\n\n",
    )
    upstream.scripts = [pieces if streamed else http(whole), http(whole), http(whole)]
    config = openai_config(upstream).replace("[models.m]", "options = { reasoning_memory = true }\n    [models.m]")
    relay = await start(config)
    await first_turn(relay, streamed)
    async with relay.chat(**next_turn("c1"), unknown_to_the_relay=1) as response:
        assert response.status == 200
    assert sent_turn(upstream)["reasoning_content"] == "They want Oslo."
    assert upstream.seen[-1].json["unknown_to_the_relay"] == 1
    async with relay.chat(**next_turn("c1", reasoning_content="its own")) as response:
        assert response.status == 200
    assert sent_turn(upstream)["reasoning_content"] == "its own"


async def test_signatures_on_calls_come_back_through_a_client_of_another_dialect(
    start: Start, upstream: FakeUpstream
) -> None:
    part = {"functionCall": {"name": "weather", "args": {"city": "Oslo"}, "id": "g1"}, "thoughtSignature": "c2lnbmVk"}
    counts = {"promptTokenCount": 5, "candidatesTokenCount": 5, "totalTokenCount": 10}

    def answer(*parts: dict[str, Any]) -> Sequence[Step]:
        candidate = {"content": {"role": "model", "parts": list(parts)}, "finishReason": "STOP", "index": 0}
        return http({"candidates": [candidate], "usageMetadata": counts, "modelVersion": "m", "responseId": "r"})

    upstream.scripts = [answer(part), answer({"text": "7"})]
    relay = await start(
        f"""
    [upstreams.up]
    family = "gemini"
    base_url = "{upstream.url}"
    api_key = "sk-goog-CANARY"
    [models.m]
    targets = ["up/gemini-3-flash"]
    """
    )
    question = [{"role": "user", "content": "Weather in Oslo?"}]
    async with relay.chat(messages=question, tools=[TOOL]) as response:
        got = (await response.json())["choices"][0]["message"]["tool_calls"][0]["id"]
    async with relay.chat(**next_turn(got)) as response:
        assert response.status == 200
    (turn,) = [one for one in upstream.seen[-1].json["contents"] if one["role"] == "model"]
    assert [one["thoughtSignature"] for one in turn["parts"] if "functionCall" in one] == ["c2lnbmVk"]


SIGNED_PARTS = [
    {"text": "It is "},
    {"text": "cold.", "thoughtSignature": "b24td29yZHM="},
    {"text": "", "thoughtSignature": "b24tbm90aGluZw=="},
]
COUNTS = {"promptTokenCount": 5, "candidatesTokenCount": 5, "totalTokenCount": 10}
GEMINI = """
[upstreams.up]
family = "gemini"
base_url = "{url}"
api_key = "sk-goog-CANARY"
[models.m]
targets = ["up/gemini-3-flash"]
"""


def signed_answer(streamed: bool) -> Sequence[Step]:
    def value(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
        candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0, **more}
        return {"candidates": [candidate], "usageMetadata": COUNTS, "modelVersion": "m", "responseId": "r"}

    if not streamed:
        return http(value(*SIGNED_PARTS, finishReason="STOP"))
    first, *others = SIGNED_PARTS
    values = [value(first), *(value(part) for part in others), value(finishReason="STOP")]
    return stream(*(b"data: " + json.dumps(one).encode() + b"\r\n\r\n" for one in values))


ASKED = {"role": "user", "content": "Is it cold?"}
MORE = {"role": "user", "content": "And tomorrow?"}
TALKS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai-chat": (
        "/v1/chat/completions",
        {"messages": [ASKED, {"role": "assistant", "content": "It is cold."}, MORE]},
    ),
    "anthropic-messages": (
        "/v1/messages",
        {
            "max_tokens": 100,
            "messages": [
                ASKED,
                {
                    "role": "assistant",
                    "content": [{"type": "text", "text": "It is "}, {"type": "text", "text": "cold."}],
                },
                MORE,
            ],
        },
    ),
    "openai-responses": (
        "/v1/responses",
        {
            "input": [
                ASKED,
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It is cold."}]},
                MORE,
            ]
        },
    ),
}
"""What clients of each dialect send with the next question, of which none has kept a signature."""


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("dialect", TALKS)
async def test_signatures_on_words_and_on_nothing_come_back_with_the_words(
    start: Start, upstream: FakeUpstream, dialect: str, streamed: bool
) -> None:
    path, talk = TALKS[dialect]
    upstream.scripts = [signed_answer(streamed), signed_answer(False)]
    relay = await start(GEMINI.replace("{url}", upstream.url))
    field = "input" if "input" in talk else "messages"
    first = {**talk, field: talk[field][:1], "stream": streamed}
    async with relay.client.post(f"{relay.url}{path}", json={"model": "m", **first}) as response:
        assert response.status == 200
        assert "signatures" not in response.headers.get("x-relay-dropped", "")
        said = await response.read()
        assert b"cold." in said
        if dialect == "anthropic-messages":
            # No block for what is said of nothing: the vendor refuses such blocks when they come back.
            assert said.count(b'"type":"content_block_start"' if streamed else b'"type":"text"') == 2
    async with relay.client.post(f"{relay.url}{path}", json={"model": "m", **talk}) as response:
        assert response.status == 200
    (turn,) = [one for one in upstream.seen[-1].json["contents"] if one["role"] == "model"]
    assert turn["parts"] == SIGNED_PARTS


async def test_a_signature_goes_back_with_no_other_words_and_to_no_other_key(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.answer = lambda seen: signed_answer(False)
    relay = await start(GEMINI.replace("{url}", upstream.url))
    _, other = await relay.relay.store.keys.create("other")
    said = {"role": "assistant", "content": "It is cold."}
    async with relay.chat(messages=[ASKED]) as response:
        assert response.status == 200
    for messages, key in (
        ([ASKED, {**said, "content": "It is cold!"}, MORE], relay.key),
        ([{**ASKED, "content": "Was it cold?"}, said, MORE], relay.key),
        ([ASKED, said, MORE], other),
    ):
        headers = {"Authorization": f"Bearer {key}"}
        body = {"model": "m", "messages": messages}
        async with relay.client.post(f"{relay.url}/v1/chat/completions", json=body, headers=headers) as response:
            assert response.status == 200
        assert b"thoughtSignature" not in upstream.seen[-1].body


async def test_where_nothing_is_kept_a_lost_signature_is_told(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [signed_answer(False)]
    relay = await start(GEMINI.replace("{url}", upstream.url) + "[memory]\nmegabytes = 0\n")
    async with relay.chat(messages=[ASKED]) as response:
        assert "signatures" in response.headers["x-relay-dropped"]
