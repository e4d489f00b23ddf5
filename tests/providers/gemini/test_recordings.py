"""Real answers, read by the decoders and by a naive reading written only for this test."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

import relay_gemini
from relay import Target, Upstream
from relay.errors import UpstreamError
from relay.events import Event, Failure
from relay.fold import Fold
from relay.ir import Choice, Loss, Message, Request, Response, Text, Thinking, ToolCall
from relay_gemini.content import UNSIGNED
from relay_gemini.stream import GeminiDecoder

pytestmark = pytest.mark.shared

TARGET = Target(Upstream("gemini", "gemini", "https://upstream.test"), "gemini-test")
NUMBERS = {1: "STOP", 2: "MAX_TOKENS"}
KINDS = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "UNEXPECTED_TOOL_CALL": "error",
    "MODEL_ARMOR": "filter",
}


def exchanges(traffic: Any) -> list[Any]:
    return [e for e in traffic.exchanges(traffic.folder) if e["dialect"] == "gemini"]


def decode(data: bytes, size: int) -> list[Event]:
    decoder = GeminiDecoder()
    events: list[Event] = []
    for start in range(0, len(data), size):
        events += decoder.feed(data[start : start + size])
    return events + decoder.close()


def chunks_of(body: bytes) -> list[Any]:
    text = body.decode()
    if text.lstrip().startswith("["):
        found = json.loads(text)
        assert isinstance(found, list)
        return found
    if text.lstrip().startswith("{"):
        return [json.loads(text)]
    return [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:")]


def naive(chunks: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"text": "", "thought": "", "calls": [], "reason": None, "signatures": [], "usage": {}}
    for chunk in chunks:
        found["usage"] = chunk.get("usageMetadata", found["usage"])
        for candidate in chunk["candidates"]:
            found["reason"] = candidate.get("finishReason", found["reason"])
            for part in (candidate.get("content") or {}).get("parts", []):
                if "thoughtSignature" in part and not part.keys() & {"executableCode", "toolCall", "toolResponse"}:
                    found["signatures"].append(part["thoughtSignature"])
                if "text" in part:
                    found["thought" if part.get("thought") else "text"] += part["text"]
                if "name" in part.get("functionCall", {}):
                    call = part["functionCall"]
                    found["calls"].append([call["name"], call.get("args", {}), call.get("id")])
                for piece in part.get("functionCall", {}).get("partialArgs", []):
                    place(found["calls"][-1][1], piece)
    return found


def place(root: Any, piece: dict[str, Any]) -> None:
    """Put one streamed value where its path says, for the simple paths of the recordings."""
    keys: list[Any] = []
    for step in piece["jsonPath"].removeprefix("$.").split("."):
        name, _, rest = step.partition("[")
        keys.append(name)
        if rest:
            keys.append(int(rest.rstrip("]")))
    for key, following in pairwise(keys):
        if isinstance(key, int) and key == len(root):
            root.append([] if isinstance(following, int) else {})
        elif isinstance(key, str):
            root.setdefault(key, [] if isinstance(following, int) else {})
        root = root[key]
    if "stringValue" in piece:
        root[keys[-1]] = root.get(keys[-1], "") + piece["stringValue"]
    elif "numberValue" in piece:
        root[keys[-1]] = piece["numberValue"]
    else:
        root[keys[-1]] = piece.get("boolValue")


def compare(response: Response, chunks: list[Any], where: str) -> None:
    expected = naive(chunks)
    choice = response.choices[0] if response.choices else Choice([])
    assert choice.text == expected["text"], where
    assert "".join(part.text for part in choice.parts if isinstance(part, Thinking)) == expected["thought"], where
    calls = [part for part in choice.parts if isinstance(part, ToolCall)]
    assert [[call.name, json.loads(call.arguments)] for call in calls] == [call[:2] for call in expected["calls"]], (
        where
    )
    assert len({call.id for call in calls}) == len(calls), where
    for call, (_, _, given) in zip(calls, expected["calls"], strict=True):
        assert call.id == given or (given is None and call.id.startswith("call_")), where
    signatures = [
        part.extra["gemini"]["thoughtSignature"]
        for part in choice.parts
        if isinstance(part, Text | Thinking | ToolCall) and part.extra and "thoughtSignature" in part.extra["gemini"]
    ]
    assert signatures == expected["signatures"], where
    reason = NUMBERS.get(expected["reason"], expected["reason"])
    assert choice.stop is not None, where
    assert choice.stop.raw == reason, where
    kind = KINDS[reason]
    assert choice.stop.kind == ("tool_calls" if kind == "stop" and calls else kind), where
    usage = {name: value for name, value in expected["usage"].items() if value is not None}
    if not usage.keys() - {"trafficType"}:
        assert response.usage is None
        return
    assert response.usage is not None
    if "promptTokenCount" in usage:
        assert response.usage.input == usage["promptTokenCount"] + usage.get("toolUsePromptTokenCount", 0), where
    else:
        assert response.usage.input is None, where
    assert response.usage.output == usage.get("candidatesTokenCount", 0) + usage.get("thoughtsTokenCount", 0), where
    assert response.usage.reasoning == usage.get("thoughtsTokenCount"), where
    assert response.usage.cache_read == usage.get("cachedContentTokenCount"), where


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
        compare(fold.response(), chunks_of(body), exchange["id"])
        count += 1
    assert count > 130


def test_recorded_answers_say_what_a_naive_reading_says(traffic: Any) -> None:
    count = 0
    for exchange in exchanges(traffic):
        if exchange["streaming"] or exchange["status"] >= 300:
            continue
        body = traffic.body(exchange)
        compare(relay_gemini.translate_response(body=body), chunks_of(body), exchange["id"])
        count += 1
    assert count > 300


def test_recorded_errors_keep_the_vendors_words(traffic: Any) -> None:
    count = 0
    for exchange in exchanges(traffic):
        if exchange["status"] < 400:
            continue
        status, body = exchange["status"], traffic.body(exchange)
        error = relay_gemini.translate_error(
            target=TARGET, status=status, headers=exchange["response_headers"], body=body
        )
        assert isinstance(error, UpstreamError)
        message = json.loads(body)["error"]["message"]
        if "API key not valid" in message:
            assert error.code == "upstream_credentials"
            assert error.status == 502
        else:
            assert error.message == message
            assert error.status == status
            assert error.retryable == (status == 429)
        if b"retryDelay" in body:
            assert error.retry_after == 34.4
        count += 1
    assert count > 10


def joined(parts: list[Any]) -> list[Any]:
    """Parts without empty fields, plain pieces of text that follow each other joined, and arguments never missing."""
    found: list[Any] = []
    for raw in parts:
        part = {name: value for name, value in raw.items() if value is not None}
        if "functionCall" in part:
            part["functionCall"] = {"args": {}, **part["functionCall"]}
        if found and part.keys() == found[-1].keys() == {"text"}:
            found[-1] = {"text": found[-1]["text"] + part["text"]}
        elif part != {"text": ""}:
            found.append(part)
    return found


def test_recorded_answers_can_be_sent_back_as_they_were(traffic: Any) -> None:
    count = 0
    for exchange in exchanges(traffic):
        if exchange["streaming"] or exchange["status"] >= 300:
            continue
        body = traffic.body(exchange)
        expected = joined((json.loads(body)["candidates"][0].get("content") or {}).get("parts") or [])
        if not expected:
            continue
        parts = relay_gemini.translate_response(body=body).choices[0].parts
        question = Message("user", [Text("go on")])
        losses: list[Loss] = []
        sent = relay_gemini.translate_request(
            request=Request("m", [question, Message("assistant", parts), question]), target=TARGET, losses=losses
        )
        written = json.loads(sent)["contents"][1]["parts"]
        for part, original in zip(written, expected, strict=True):
            if "functionCall" in part and "id" not in original["functionCall"]:
                assert part["functionCall"].pop("id").startswith("call_")
            if "thoughtSignature" not in original and part.get("thoughtSignature") == UNSIGNED:
                del part["thoughtSignature"]
        assert written == expected, exchange["id"]
        assert losses == []
        count += 1
    assert count > 300
