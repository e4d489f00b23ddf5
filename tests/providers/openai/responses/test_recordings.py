"""Recorded traffic, read by the decoders and by a naive reading written only for this test."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from relay import Head, Target, Upstream
from relay.errors import BadParameter, Unsupported, UpstreamProtocol
from relay.events import Event, Failure
from relay.fold import Fold, unfold
from relay.ir import Media, Opaque, Refusal, Response, Thinking, ToolCall
from relay.meter import Meter
from relay_openai.compose import compose
from relay_openai.family import count_response, read_error
from relay_openai.responses.dialect import OpenAIResponses
from relay_openai.responses.response import decode_response
from relay_openai.responses.skim import PassedStream, responses_meter
from relay_openai.responses.stream import ResponsesDecoder
from relay_openai.responses.wire import DIALECT

pytestmark = pytest.mark.shared

TARGET = Target(Upstream("test", "openai", "https://upstream.test/v1"), "m")
JOINED = {"0380eef814243054", "70dc06e9ae4f7fe6"}
"""Several streams that the recorder put one behind the other."""
EDITED = {"d2bf5bb6da2e44e7"}
"""A stream whose pieces somebody has shortened: they do not add up to what it says they are."""
LATE = {"7da1973c3978188e"}
"""A stream that tells two of its items only in its last event."""
FAILED = {"123bfbf733c86e67"}


def exchanges(traffic: Any, *, streaming: bool | None = None, good: bool | None = True) -> Iterator[Any]:
    for exchange in traffic.exchanges(traffic.folder, handmade=True, streaming=streaming):
        if exchange["dialect"] == DIALECT and (good is None or (exchange["status"] < 300) == good):
            yield exchange


def answers(traffic: Any) -> Iterator[tuple[str, bytes, Any]]:
    """Complete answers to generations; what else hosts answer under such paths is left out."""
    for exchange in exchanges(traffic, streaming=False):
        data = traffic.body(exchange)
        body = json.loads(data)
        if body.get("object") == "response":
            yield exchange["id"], data, body


def decode(data: bytes, size: int = 0) -> list[Event]:
    decoder = ResponsesDecoder()
    step = size or max(len(data), 1)
    events: list[Event] = []
    for start in range(0, len(data), step):
        events += decoder.feed(data[start : start + step])
    return events + decoder.close()


def fold(events: list[Event]) -> Fold:
    folded = Fold()
    folded.add(events)
    return folded


# A naive reading: dict work, nothing shared with the decoder.


def naive_call(item: dict[str, Any]) -> tuple[str, Any] | None:
    if item["type"] == "function_call":
        return f"{item['namespace']}__{item['name']}" if item.get("namespace") else item["name"], item["arguments"]
    if item["type"] == "custom_tool_call":
        return item["name"], {"input": item["input"]}
    if item["type"] == "tool_search_call" and item["execution"] == "client":
        return "tool_search", item["arguments"]
    return None


def naive_thought(item: dict[str, Any]) -> list[str]:
    return [entry["text"] for name in ("summary", "content") for entry in item.get(name) or () if entry["text"]]


def naive(output: list[Any], response: dict[str, Any]) -> dict[str, Any]:
    contents = [part for item in output if item["type"] == "message" for part in item["content"]]
    calls = [call for item in output if (call := naive_call(item)) is not None]
    thoughts = [item for item in output if item["type"] == "reasoning"]
    pictures = [item for item in output if item["type"] == "image_generation_call" and item["result"]]
    known = ("message", "reasoning", "image_generation_call")
    others = [item["type"] for item in output if item["type"] not in known and naive_call(item) is None]
    usage = response["usage"] or {}
    stop = "tool_calls" if calls else "stop"
    if response["status"] == "incomplete":
        stop = "length" if response.get("incomplete_details") else "other"
    return {
        "text": "".join(part["text"] for part in contents if part["type"] == "output_text"),
        "refusal": "".join(part["refusal"] for part in contents if part["type"] == "refusal"),
        "thinking": ["\n\n".join(naive_thought(item)) for item in thoughts],
        "signatures": [item.get("encrypted_content") or None for item in thoughts],
        "calls": [(name, json.loads(value) if isinstance(value, str) else value) for name, value in calls],
        "pictures": [item["result"] for item in pictures],
        "others": sorted(others),
        "usage": (
            usage.get("input_tokens"),
            usage.get("output_tokens"),
            (usage.get("input_tokens_details") or {}).get("cached_tokens"),
            (usage.get("output_tokens_details") or {}).get("reasoning_tokens"),
        ),
        "stop": stop,
    }


def naive_stream(text: str) -> dict[str, Any]:
    items: dict[Any, Any] = {}
    last: dict[str, Any] = {}
    for line in text.splitlines():
        if line.startswith("data:") and line[5:].strip() != "[DONE]":
            event = json.loads(line[5:])
            if event["type"] == "response.output_item.done":
                items[event["output_index"]] = event["item"]
            elif event["type"] in ("response.completed", "response.incomplete"):
                last = event["response"]
    return naive([items[place] for place in sorted(items)] or last["output"], last)


def summary(response: Response) -> dict[str, Any]:
    (choice,) = response.choices
    parts = choice.parts
    thoughts = [part for part in parts if isinstance(part, Thinking)]
    usage = response.usage
    assert choice.stop is not None
    return {
        "text": choice.text,
        "refusal": "".join(part.text for part in parts if isinstance(part, Refusal)),
        "thinking": [part.text for part in thoughts],
        "signatures": [part.signature for part in thoughts],
        "calls": [(part.name, json.loads(part.arguments)) for part in parts if isinstance(part, ToolCall)],
        "pictures": [part.data for part in parts if isinstance(part, Media)],
        "others": sorted(part.data["type"] for part in parts if isinstance(part, Opaque)),
        "usage": (usage.input, usage.output, usage.cache_read, usage.reasoning) if usage else (None,) * 4,
        "stop": choice.stop.kind,
    }


def test_every_recorded_stream_says_what_a_naive_reading_finds_however_it_is_cut(traffic: Any) -> None:
    outcomes: Counter[str] = Counter()
    for exchange in exchanges(traffic, streaming=True):
        name, data = exchange["id"], traffic.body(exchange)
        events = decode(data)
        assert repr(decode(data, 7)) == repr(events), name
        assert repr(decode(data.replace(b"\n", b"\r\n"), 11)) == repr(events), name
        if name in FAILED:
            assert isinstance(events[-1], Failure)
            outcomes["failed"] += 1
            continue
        folded = fold(events)
        assert folded.error is None, (name, folded.error)
        assert folded.complete, name
        if name not in JOINED | EDITED | LATE:
            assert summary(folded.response()) == naive_stream(data.decode()), name
            outcomes["equal"] += 1
    assert outcomes["equal"] > 215
    assert outcomes["failed"] == 1


def test_what_a_stream_tells_only_at_its_end_is_told(traffic: Any) -> None:
    for exchange in exchanges(traffic, streaming=True):
        if exchange["id"] in LATE:
            parts = fold(decode(traffic.body(exchange))).response().choices[0].parts
            assert [type(part).__name__ for part in parts] == ["Opaque", "Text", "Opaque", "Opaque"]
            return
    pytest.fail("the recording is missing")


def test_every_recorded_answer_says_what_a_naive_reading_finds(traffic: Any) -> None:
    read: Counter[str] = Counter()
    for name, data, body in answers(traffic):
        response = decode_response(body, data)
        read[body["status"]] += 1
        if body["status"] in ("queued", "cancelled"):
            assert not response.choices, name
            continue
        assert summary(response) == naive(body["output"], body), name
        counted = count_response(TARGET, data, DIALECT)
        assert counted == response.usage, name
    assert read["completed"] > 500
    assert read["incomplete"] > 5
    assert read["queued"] > 3


def test_meters_count_what_decoders_read(traffic: Any) -> None:
    measured, decoded = 0.0, 0.0
    for exchange in exchanges(traffic, streaming=True):
        data = traffic.body(exchange)
        meter = responses_meter(ResponsesDecoder(fill=False))
        for start in range(0, len(data), 997):
            meter.feed(data[start : start + 997])
        full = Meter()
        full.add(decode(data))
        assert (meter.complete, meter.usage, bool(meter.error)) == (full.complete, full.usage, bool(full.error))
        measured, decoded = measured + meter.seen, decoded + full.seen
    assert 0.9 < measured / decoded < 1.1


def test_every_recorded_stream_passes_untouched_and_its_failure_would_have_its_id(traffic: Any) -> None:
    dialect = OpenAIResponses()
    head = Head("generate", "m", b'{"model":"m"}', {"model": "m", "input": "Hi"}, stream=True)
    for exchange in exchanges(traffic, streaming=True):
        data = traffic.body(exchange)
        for size in (613, len(data)):
            passed = dialect.forward(head, TARGET).filter
            assert isinstance(passed, PassedStream)
            got = b"".join(passed.feed(data[start : start + size]) for start in range(0, len(data), size))
            assert got + passed.close() == data, exchange["id"]
        told = json.loads(passed.failure(UpstreamProtocol("cut")).partition(b"data: ")[2])
        assert told["response"]["id"] == fold(decode(data)).response().id, exchange["id"]


# Written again.


def written(response: Response) -> Any:
    body = OpenAIResponses().encode_response(response, Head("generate", "m", b"", {}))
    return json.loads(body), body


def test_recorded_answers_survive_being_written_again(traffic: Any) -> None:
    compared = 0
    for name, data, body in answers(traffic):
        if body["status"] not in ("completed", "incomplete"):
            continue
        response = decode_response(body, data)
        again = decode_response(*written(response))
        wanted, got = summary(response), summary(again)
        for one in (wanted, got):
            # What was not reported is zero in this format, and a reason of nobody's is none.
            one["usage"] = tuple(count or 0 for count in one["usage"])
            one["stop"] = "stop" if one["stop"] == "other" else one["stop"]
        assert got == wanted, name
        compared += 1
    assert compared > 500


def test_recorded_streams_survive_being_written_again(traffic: Any) -> None:
    compared = 0
    for exchange in exchanges(traffic, streaming=True):
        events = decode(traffic.body(exchange))
        if isinstance(events[-1], Failure):
            continue
        head = Head("generate", "m", b"", {})
        data = OpenAIResponses().stream_encoder(head).encode(events)
        wanted, got = summary(fold(events).response()), summary(fold(decode(data)).response())
        for one in (wanted, got):
            one["usage"] = tuple(count or 0 for count in one["usage"])
        assert got == wanted, exchange["id"]
        compared += 1
    assert compared > 215


def test_recorded_answers_are_whole_streams_too(traffic: Any) -> None:
    for name, data, body in answers(traffic):
        if body["status"] == "completed":
            response = decode_response(body, data)
            stream = OpenAIResponses().stream_encoder(Head("generate", "m", b"", {})).encode(unfold(response))
            again = fold(decode(stream)).response()
            assert {**summary(again), "usage": 0} == {**summary(response), "usage": 0}, name


# Requests and errors.


def test_every_recorded_request_is_read_and_can_be_asked_elsewhere(traffic: Any) -> None:
    dialect = OpenAIResponses()
    outcomes: Counter[str] = Counter()
    for exchange in exchanges(traffic, good=None):
        body = exchange["request_body"]
        if not isinstance(body, dict) or exchange["method"] != "POST" or body.get("model") is None:
            continue
        raw = json.dumps(body).encode()
        head = dialect.peek(raw, "generate", {}, {})
        assert (head.model, head.stream) == (body["model"], bool(body.get("stream")))
        assert json.loads(dialect.forward(head, TARGET).body) == {**body, "model": "m"}
        assert dialect.forward(head, Target(TARGET.upstream, body["model"])).body == raw
        try:
            request = dialect.parse(head)
            sent = compose(request, TARGET, [])
        except Unsupported as error:
            outcomes[f"refused: {(error.param or '').partition('[')[0]}"] += 1
            continue
        except BadParameter:
            outcomes["wrong" if exchange["status"] >= 400 else exchange["id"]] += 1
            continue
        outcomes["read"] += 1
        shown = json.dumps(sent["messages"], ensure_ascii=False)
        for item in [body["input"]] if isinstance(body["input"], str) else body["input"]:
            said = item if isinstance(item, str) else item.get("content")
            if isinstance(said, str):
                assert json.dumps(said, ensure_ascii=False)[1:-1] in shown, exchange["id"]
        names = {tool["name"] for tool in body.get("tools") or () if tool["type"] in ("function", "custom")}
        assert names <= {tool["function"]["name"] for tool in sent.get("tools", ())}, exchange["id"]
    assert outcomes["read"] > 650
    assert outcomes.pop("wrong") == 1
    del outcomes["read"]
    assert set(outcomes) == {
        "refused: previous_response_id",
        "refused: conversation",
        "refused: background",
        "refused: messages",
    }


def test_every_recorded_error_is_told_in_the_vendors_words(traffic: Any) -> None:
    told = 0
    for exchange in exchanges(traffic, good=False):
        error = read_error(TARGET, exchange["status"], exchange["response_headers"], traffic.body(exchange))
        assert 400 <= error.status < 600
        assert error.message
        assert error.message != f"the upstream answered with status {exchange['status']}", exchange["id"]
        told += 1
    assert told > 12
