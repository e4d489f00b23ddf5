"""Real answers, read by the decoders and by a naive reading written only for this test."""

from __future__ import annotations

import json
from typing import Any

import pytest

import relay_anthropic
from relay import Target, Upstream
from relay.errors import UpstreamError
from relay.events import Event, Failure
from relay.fold import Fold
from relay.ir import Choice, Loss, Message, Opaque, Request, Response, Text, Thinking, ToolCall
from relay_anthropic.stream import MessagesDecoder

pytestmark = pytest.mark.shared

TARGET = Target(Upstream("anthropic", "anthropic", "https://upstream.test"), "claude-test")
CALLS = ("tool_use", "server_tool_use", "mcp_tool_use")


def exchanges(traffic: Any) -> list[Any]:
    return [e for e in traffic.exchanges(traffic.folder) if e["dialect"] == "anthropic-messages"]


def decode(data: bytes, size: int) -> list[Event]:
    decoder = MessagesDecoder()
    events: list[Event] = []
    for start in range(0, len(data), size):
        events += decoder.feed(data[start : start + size])
    return events + decoder.close()


def naive_stream(text: str) -> dict[str, Any]:
    """The message that a stream spells, up to its first message_stop, by plain dict work."""
    message: dict[str, Any] = {}
    for line in text.splitlines():
        if not line.startswith("data:") or line[5:].strip() == "[DONE]":
            continue
        event = json.loads(line[5:])
        if event["type"] == "message_start":
            message = event["message"]
            message["content"] = []
        elif event["type"] == "content_block_start":
            block = event["content_block"]
            block["json"] = ""
            message["content"].append(block)
        elif event["type"] == "content_block_delta":
            block, delta = message["content"][event["index"]], event["delta"]
            if delta["type"] == "text_delta":
                block["text"] += delta["text"]
            elif delta["type"] == "thinking_delta":
                block["thinking"] += delta["thinking"]
            elif delta["type"] == "signature_delta":
                block["signature"] += delta["signature"]
            elif delta["type"] == "input_json_delta":
                block["json"] += delta["partial_json"]
            elif delta["type"] == "citations_delta":
                block["citations"] = [*(block.get("citations") or []), delta["citation"]]
        elif event["type"] == "message_delta":
            for name, value in event["usage"].items():
                if value is not None:
                    message["usage"][name] = value
            message["stop_reason"] = event["delta"]["stop_reason"]
            message["stop_sequence"] = event["delta"].get("stop_sequence")
        elif event["type"] == "message_stop":
            break
    for block in message["content"]:
        # Calls made by code that runs upstream come whole, in the start of their block.
        if spelled := block.pop("json"):
            block["input"] = spelled
    return message


def compare(choice: Choice, response: Response, message: dict[str, Any]) -> None:
    blocks = message["content"]
    assert [type(part) for part in choice.parts] == [
        Text
        if block["type"] == "text"
        else Thinking
        if "thinking" in block["type"]
        else ToolCall
        if block["type"] in CALLS
        else Opaque
        for block in blocks
    ]
    assert choice.text == "".join(block["text"] for block in blocks if block["type"] == "text")
    for part, block in zip(choice.parts, blocks, strict=True):
        if isinstance(part, Text):
            own = [one.extra["anthropic-messages"] for one in part.citations or () if one.extra is not None]
            assert own == (block.get("citations") or [])
        elif isinstance(part, Thinking):
            assert part.text == block.get("thinking", "")
            assert (part.signature or "") == (block["data"] if part.redacted else block["signature"])
        elif isinstance(part, ToolCall):
            assert (part.id, part.name) == (block["id"], block["name"])
            assert part.server == (block["type"] != "tool_use")
            expected = block["input"]
            assert part.arguments == expected if isinstance(expected, str) else json.loads(part.arguments) == expected
        else:
            assert isinstance(part, Opaque)
            assert part.data == block
    reason = message["stop_reason"]
    if reason is None:
        assert choice.stop is None
    else:
        assert choice.stop is not None
        assert choice.stop.raw == reason
        assert choice.stop.sequence == message.get("stop_sequence")
        kinds = {"end_turn": "stop", "stop_sequence": "stop", "tool_use": "tool_calls", "max_tokens": "length"}
        assert choice.stop.kind == kinds[reason]
    usage = message["usage"]
    extra = [entry for entry in usage.get("iterations") or [] if entry["type"] == "compaction"]
    assert response.usage is not None
    assert response.usage.output == usage["output_tokens"] + sum(entry["output_tokens"] for entry in extra)
    assert response.usage.input == sum(
        entry.get(name) or 0
        for entry in [usage, *extra]
        for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    )
    assert (response.usage.cache_read or 0) == (usage.get("cache_read_input_tokens") or 0)


def test_recorded_streams_say_what_a_naive_reading_says(traffic: Any) -> None:
    count = 0
    for exchange in exchanges(traffic):
        if not exchange["streaming"] or exchange["status"] >= 300:
            continue
        body = traffic.body(exchange)
        events = decode(body, len(body))
        assert not [event for event in events if isinstance(event, Failure)], exchange["id"]
        assert decode(body, 7) == events, exchange["id"]
        fold = Fold()
        fold.add(events)
        assert fold.complete
        response = fold.response()
        choice = response.choices[0] if response.choices else Choice([])
        compare(choice, response, naive_stream(body.decode()))
        count += 1
    assert count > 150


def test_recorded_answers_say_what_a_naive_reading_says(traffic: Any) -> None:
    count = 0
    for exchange in exchanges(traffic):
        if exchange["streaming"] or exchange["status"] >= 300:
            continue
        body = traffic.body(exchange)
        response = relay_anthropic.translate_response(body=body)
        message = json.loads(body)
        compare(response.choices[0], response, message)
        count += 1
    assert count > 300


def test_recorded_errors_keep_the_vendors_words(traffic: Any) -> None:
    count = 0
    for exchange in exchanges(traffic):
        if exchange["status"] < 400:
            continue
        status, body = exchange["status"], traffic.body(exchange)
        error = relay_anthropic.translate_error(
            target=TARGET, status=status, headers=exchange["response_headers"], body=body
        )
        assert isinstance(error, UpstreamError)
        assert error.upstream_status == status
        if status in (401, 403):
            assert error.code == "upstream_credentials"
            assert error.status == 502
        else:
            assert error.message == json.loads(body)["error"]["message"]
            assert error.status == status
            assert error.retryable is False
        count += 1
    assert count > 10


def test_recorded_answers_can_be_sent_back_as_they_were(traffic: Any) -> None:
    count = 0
    for exchange in exchanges(traffic):
        if exchange["streaming"] or exchange["status"] >= 300:
            continue
        body = traffic.body(exchange)
        blocks = [
            # Null fields and empty citations say nothing; blank text is refused when it comes back.
            {name: value for name, value in block.items() if name == "content" or value not in (None, [])}
            for block in json.loads(body)["content"]
            if block["type"] != "text" or block["text"].strip()
        ]
        if not blocks:
            continue
        parts = relay_anthropic.translate_response(body=body).choices[0].parts
        question = Message("user", [Text("go on")])
        losses: list[Loss] = []
        sent = relay_anthropic.translate_request(
            request=Request("m", [question, Message("assistant", parts), question]), target=TARGET, losses=losses
        )
        assert json.loads(sent)["messages"][1] == {"role": "assistant", "content": blocks}, exchange["id"]
        assert losses == []
        count += 1
    assert count > 300
