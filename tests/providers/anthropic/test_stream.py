"""Streams of the Messages API, whole and broken."""

from __future__ import annotations

import json
from typing import Any

import pytest

import relay_anthropic
from relay.errors import UpstreamBusy, UpstreamError, UpstreamProtocol
from relay.events import ChoiceStop, Event, Failure, MessageStart, MessageStop, OpaqueEvent, PartStart, UsageSeen
from relay.fold import Fold
from relay.ir import Opaque, Response, StopReason, Text, Thinking, ToolCall, Usage
from relay_anthropic.citation import citation_of
from relay_anthropic.stream import MessagesDecoder

OWN = "anthropic-messages"


def frame(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}  \n\n".encode()


def started(**message: Any) -> bytes:
    value = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-test",
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 1},
        **message,
    }
    return frame("message_start", message=value)


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> bytes:
    return b"".join(
        [
            frame("content_block_start", index=index, content_block=start),
            *(frame("content_block_delta", index=index, delta=delta) for delta in deltas),
            frame("content_block_stop", index=index),
        ]
    )


def ended(reason: str = "end_turn", sequence: str | None = None, **fields: Any) -> bytes:
    usage = fields.pop("usage", {"output_tokens": 20})
    delta = {"stop_reason": reason, "stop_sequence": sequence, **fields}
    return frame("message_delta", delta=delta, usage=usage) + frame("message_stop")


CITATION = {"type": "char_location", "cited_text": "caf\u00e9"}
SEARCHED = {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": [{"url": "https://a.test"}]}

RICH = b"".join(
    [
        started(),
        frame("ping"),
        block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "Let me"},
            {"type": "thinking_delta", "thinking": " see"},
            {"type": "signature_delta", "signature": "abc="},
        ),
        block(1, {"type": "redacted_thinking", "data": "secret"}),
        block(
            2,
            {"type": "text", "text": "", "citations": []},
            {"type": "text_delta", "text": "H\u00e9llo "},
            {"type": "citations_delta", "citation": CITATION},
            {"type": "text_delta", "text": "\U0001f600"},
        ),
        block(
            3,
            {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {}},
            {"type": "input_json_delta", "partial_json": '{"q": "x"}'},
        ),
        block(4, SEARCHED),
        block(
            5,
            {"type": "tool_use", "id": "toolu_1", "name": "get", "input": {}},
            {"type": "input_json_delta", "partial_json": ""},
            {"type": "input_json_delta", "partial_json": '{"a": '},
            {"type": "input_json_delta", "partial_json": "1.0}"},
        ),
        block(6, {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}}),
        block(7, {"type": "compaction", "content": None}, {"type": "compaction_delta", "content": "sum"}),
        ended(
            "tool_use", usage={"input_tokens": 30, "output_tokens": 20, "output_tokens_details": {"thinking_tokens": 7}}
        ),
    ]
)

SAME = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-test",
    "content": [
        {"type": "thinking", "thinking": "Let me see", "signature": "abc="},
        {"type": "redacted_thinking", "data": "secret"},
        {"type": "text", "text": "H\u00e9llo \U0001f600", "citations": [CITATION]},
        {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": '{"q": "x"}'},
        SEARCHED,
        {"type": "tool_use", "id": "toolu_1", "name": "get", "input": '{"a": 1.0}'},
        {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
        {"type": "compaction", "content": "sum"},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 30,
        "cache_read_input_tokens": 5,
        "output_tokens": 20,
        "output_tokens_details": {"thinking_tokens": 7},
    },
}


def decode(data: bytes, size: int = 0) -> list[Event]:
    decoder = MessagesDecoder()
    events: list[Event] = []
    for start in range(0, len(data), size or len(data)):
        events += decoder.feed(data[start : start + (size or len(data))])
    return events + decoder.close()


def fold(events: list[Event]) -> Response:
    collected = Fold()
    collected.add(events)
    assert collected.complete
    return collected.response()


def failure_of(events: list[Event]) -> UpstreamError:
    assert [type(event) for event in events].count(Failure) == 1
    last = events[-1]
    assert isinstance(last, Failure)
    assert isinstance(last.error, UpstreamError)
    return last.error


def test_every_kind_of_block_arrives() -> None:
    response = fold(decode(RICH))
    assert response.choices[0].parts == [
        Thinking("Let me see", signature="abc=", dialect=OWN),
        Thinking("", signature="secret", redacted=True, dialect=OWN),
        Text("H\u00e9llo \U0001f600", citations=[citation_of(CITATION)]),
        ToolCall("srv_1", "web_search", '{"q": "x"}', server=True, extra={OWN: {"type": "server_tool_use"}}),
        Opaque(OWN, SEARCHED),
        ToolCall("toolu_1", "get", '{"a": 1.0}'),
        ToolCall("toolu_2", "now", "{}"),
        Opaque(OWN, {"type": "compaction", "content": "sum"}),
    ]
    assert response.choices[0].stop == StopReason("tool_calls", "tool_use")
    assert response.usage is not None
    assert (response.usage.input, response.usage.output, response.usage.cache_read) == (35, 20, 5)
    assert response.usage.reasoning == 7


def test_a_complete_answer_says_the_same_as_its_stream() -> None:
    assert relay_anthropic.translate_response(body=json.dumps(SAME).encode()) == fold(decode(RICH))


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1000])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_any_cut_gives_the_same_events(size: int, line_end: bytes) -> None:
    assert decode(RICH.replace(b"\n", line_end), size) == decode(RICH)


def test_parts_are_numbered_without_gaps() -> None:
    starts = [event.index for event in decode(RICH) if isinstance(event, PartStart)]
    assert starts == list(range(8))


def test_every_prefix_of_a_stream_is_a_failure() -> None:
    for length in range(0, RICH.rindex(b"event: message_stop"), 5):
        error = failure_of(decode(RICH[:length], 64) if length else MessagesDecoder().close())
        assert isinstance(error, UpstreamProtocol)


def test_a_stream_may_end_without_its_last_blank_line() -> None:
    assert decode(RICH.rstrip(b"\n")) == decode(RICH)


def test_what_follows_the_end_is_ignored() -> None:
    assert decode(RICH + b"data: [DONE]\n\n" + RICH) == decode(RICH)


def test_events_without_names_are_understood() -> None:
    bare = b"\n".join(line for line in RICH.split(b"\n") if not line.startswith(b"event:"))
    assert decode(bare) == decode(RICH)


def test_an_error_as_the_first_event_is_busy_not_broken() -> None:
    body = frame("error", error={"type": "overloaded_error", "message": "Overloaded", "details": None})
    events = decode(body)
    error = failure_of(events)
    assert len(events) == 1
    assert isinstance(error, UpstreamBusy)
    assert (error.message, error.status, error.upstream_status) == ("Overloaded", 503, 529)


def test_an_error_in_the_middle_ends_the_stream_once() -> None:
    start = started() + frame("content_block_start", index=0, content_block={"type": "text", "text": ""})
    delta = frame("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hel"})
    error = frame("error", error={"type": "api_error", "message": "boom"})
    events = decode(start + delta + error + ended())
    assert failure_of(events).message == "boom"
    assert not [event for event in events if isinstance(event, ChoiceStop | MessageStop)]


def test_an_error_without_a_type_is_still_an_error() -> None:
    assert failure_of(decode(started() + b'event: error\ndata: {"error":{"message":"odd"}}\n\n')).message == "odd"
    assert failure_of(decode(b'data: {"error":{"message":"odd"}}\n\n')).message == "odd"


def test_an_empty_answer_is_an_answer() -> None:
    events = decode(started() + ended())
    assert [type(event) for event in events] == [MessageStart, UsageSeen, UsageSeen, ChoiceStop, MessageStop]


def test_a_second_start_changes_nothing() -> None:
    text = block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "x"})
    assert decode(started() + started(id="msg_2") + text + ended()) == decode(started() + text + ended())


def test_unknown_events_and_deltas_travel_on() -> None:
    odd = frame("weather_report", sun=True)
    strange = frame("content_block_delta", index=9, delta={"type": "sparkle_delta", "sparkle": 1})
    events = [event for event in decode(started() + odd + strange + ended()) if isinstance(event, OpaqueEvent)]
    assert [event.name for event in events] == ["weather_report", "content_block_delta"]
    assert events[0].data == {"type": "weather_report", "sun": True}
    assert events[0].dialect == OWN


def test_words_of_a_block_that_was_never_announced_are_kept() -> None:
    delta = frame("content_block_delta", index=0, delta={"type": "text_delta", "text": "lost?"})
    assert fold(decode(started() + delta + ended())).choices[0].text == "lost?"


def test_a_block_that_was_never_closed_is_closed() -> None:
    start = frame(
        "content_block_start", index=0, content_block={"type": "tool_use", "id": "t", "name": "n", "input": {}}
    )
    assert fold(decode(started() + start + ended("tool_use"))).choices[0].parts == [ToolCall("t", "n", "{}")]


def test_a_call_that_comes_whole_keeps_its_input() -> None:
    start = {"type": "tool_use", "id": "t", "name": "n", "input": {"a": 1}, "caller": {"type": "direct"}}
    part = fold(decode(started() + block(0, start) + ended("tool_use"))).choices[0].parts[0]
    assert part == ToolCall("t", "n", '{"a":1}', extra={OWN: {"caller": {"type": "direct"}}})


@pytest.mark.parametrize(
    "data",
    [
        b"data: {broken\n\n",
        b"data: [1]\n\n",
        b"data: null\n\n",
        frame("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        frame("message_stop"),
        b"<html>busy</html>\n\n",
        b"",
    ],
)
def test_what_is_not_the_protocol_fails_as_such(data: bytes) -> None:
    decoder = MessagesDecoder()
    assert isinstance(failure_of(decoder.feed(data) + decoder.close()), UpstreamProtocol)
    assert decoder.feed(RICH) == []
    assert decoder.close() == []


def test_an_endless_event_is_cut_off() -> None:
    decoder = MessagesDecoder()
    events: list[Event] = []
    for _ in range(40):
        events += decoder.feed(b"x" * 1_000_000)
    assert isinstance(failure_of(events), UpstreamProtocol)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "filter"),
        ("pause_turn", "other"),
        ("brand_new_reason", "other"),
    ],
)
def test_stop_reasons(reason: str, kind: str) -> None:
    stop = fold(decode(started() + ended(reason, "END" if reason == "stop_sequence" else None))).choices[0].stop
    assert stop is not None
    assert (stop.kind, stop.raw) == (kind, reason)
    assert stop.sequence == ("END" if reason == "stop_sequence" else None)


def test_what_the_end_tells_is_kept_with_the_choice() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "no"}
    response = fold(decode(started(container={"id": "c"}) + ended("refusal", stop_details=details)))
    assert response.choices[0].extra == {OWN: {"stop_details": details}}
    message = {**SAME, "stop_reason": "refusal", "stop_details": details, "provider": "somebody"}
    whole = relay_anthropic.translate_response(body=json.dumps(message).encode())
    assert whole.choices[0].extra == {OWN: {"stop_details": details}}
    assert whole.extra == {OWN: {"provider": "somebody"}}


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ({"input_tokens": 3}, {"output_tokens": 4}, Usage(input=3, output=4)),
        ({"input_tokens": 3, "output_tokens": 1}, {"input_tokens": 9, "output_tokens": 4}, Usage(input=9, output=4)),
        ({"input_tokens": 3}, {"input_tokens": None, "output_tokens": 4}, Usage(input=3, output=4)),
        (
            {"input_tokens": 3, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 20},
            {"output_tokens": 0},
            Usage(input=33, output=0, cache_read=20, cache_write_5m=10),
        ),
        (
            {
                "input_tokens": 1,
                "cache_creation_input_tokens": 10,
                "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6},
            },
            {"output_tokens": 2},
            Usage(input=11, output=2, cache_write_5m=4, cache_write_1h=6),
        ),
        (
            {"input_tokens": 1, "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6}},
            {"cache_creation_input_tokens": 15, "output_tokens": 2},
            Usage(input=16, output=2, cache_write_5m=9, cache_write_1h=6),
        ),
        ({"input_tokens": -600}, {"output_tokens": 2**63}, Usage()),
        ({"input_tokens": True}, {"output_tokens": 1.5}, Usage()),
        (
            {"input_tokens": 5},
            {
                "output_tokens": 7,
                "iterations": [
                    {"type": "compaction", "input_tokens": 100, "output_tokens": 50},
                    {"type": "message", "input_tokens": 5, "output_tokens": 7},
                    {"type": "advisor_message", "input_tokens": 999, "output_tokens": 999},
                ],
            },
            Usage(input=105, output=57),
        ),
    ],
)
def test_usage_is_added_up_and_bounded(first: dict[str, Any], last: dict[str, Any], expected: Usage) -> None:
    usage = fold(decode(started(usage=first) + ended(usage=last))).usage
    assert usage is not None
    usage.raw = None
    assert usage == expected


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"not json", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "no content"),
        (b'{"content": "text"}', "list of blocks"),
        (b'{"content": [1]}', "list of blocks"),
    ],
)
def test_an_answer_that_is_no_message_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(UpstreamProtocol, match=message):
        relay_anthropic.translate_response(body=body)


def test_an_error_inside_an_answer_is_raised() -> None:
    body = json.dumps({"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}).encode()
    with pytest.raises(UpstreamBusy, match="slow down"):
        relay_anthropic.translate_response(body=body)


def test_broken_blocks_are_carried_as_they_are() -> None:
    content = [{"type": "text"}, {"type": "tool_use", "name": "x"}, {"type": "thinking"}, {"no": "type"}]
    body = json.dumps({**SAME, "content": content}).encode()
    parts = relay_anthropic.translate_response(body=body).choices[0].parts
    assert parts == [Opaque(OWN, block) for block in content]
