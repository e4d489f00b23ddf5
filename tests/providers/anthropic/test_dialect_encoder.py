from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import BadParameter, OutOfBudget, RelayError, TooLarge, UpstreamProtocol, UpstreamTimeout
from relay.events import (
    ArgumentsDelta,
    ChoiceStop,
    Event,
    Failure,
    MessageStart,
    MessageStop,
    OpaqueEvent,
    PartExtra,
    PartStart,
    PartStop,
    SignatureDelta,
    TextDelta,
    ThinkingDelta,
    UsageSeen,
)
from relay.fold import Fold, unfold
from relay.ir import (
    Choice,
    Citation,
    Media,
    Opaque,
    Part,
    Refusal,
    Response,
    StopReason,
    Text,
    Thinking,
    ToolCall,
    Usage,
)
from relay_anthropic.citation import citation_of
from relay_anthropic.dialect import AnthropicMessages
from relay_anthropic.encoder import MessagesEncoder
from relay_anthropic.foreign import label_of
from relay_anthropic.message import message_body
from relay_anthropic.response import response_of
from relay_anthropic.shapes import usage_object
from relay_anthropic.stream import MessagesDecoder
from tests.effort import times

OWN = "anthropic-messages"
END = StopReason("stop", "end_turn")


def encode(*batches: list[Event]) -> bytes:
    encoder = MessagesEncoder(model="asked", new_id="msg_new")
    return b"".join(encoder.encode(batch) for batch in batches)


def decode(data: bytes, size: int = 0) -> list[Event]:
    decoder = MessagesDecoder()
    events: list[Event] = []
    for start in range(0, len(data), size or max(len(data), 1)):
        events += decoder.feed(data[start : start + (size or len(data))])
    return events + decoder.close()


def frames(data: bytes) -> list[dict[str, Any]]:
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        name, line = block.split("\n")
        value = json.loads(line.removeprefix("data: "))
        assert name == f"event: {value['type']}"
        found.append(value)
    return found


def whole(response: Response) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(message_body(response, model="asked", new_id="msg_new"))
    return value


def answer(*parts: Part, stop: StopReason | None = END, usage: Usage | None = None) -> Response:
    return Response("msg_1", "m-1", [Choice(list(parts), stop)], usage or Usage(input=5, output=7))


def bare(events: list[Event]) -> list[Event]:
    """Without the vendor's own object, which another vendor's count cannot have."""
    return [UsageSeen(replace(e.usage, raw=None)) if isinstance(e, UsageSeen) else e for e in events]


STREAM: list[Event] = [
    MessageStart("msg_1", "m-1"),
    UsageSeen(Usage(input=30, output=1, cache_read=10, cache_write_5m=5, cache_write_1h=3)),
    PartStart(0, Thinking("", dialect=OWN)),
    ThinkingDelta(0, "hm \u00e9"),
    ThinkingDelta(0, "\n"),
    SignatureDelta(0, "sig=="),
    PartStop(0),
    PartStart(1, Thinking("", "data==", redacted=True, dialect=OWN)),
    PartStop(1),
    PartStart(2, Text("")),
    TextDelta(2, 'quo"te'),
    PartExtra(2, citation=citation_of({"type": "char_location", "cited_text": "x"})),
    TextDelta(2, "\u4e16"),
    PartStop(2),
    PartStart(3, Opaque(OWN, {"type": "web_search_tool_result", "tool_use_id": "s", "content": []})),
    PartStop(3),
    PartStart(4, ToolCall("srv", "web_search", "", server=True, extra={OWN: {"type": "server_tool_use"}})),
    ArgumentsDelta(4, '{"query":"x"}'),
    PartStop(4),
    PartStart(5, ToolCall("toolu_1", "f", "", extra={OWN: {"caller": {"type": "direct"}}})),
    ArgumentsDelta(5, '{"b":'),
    ArgumentsDelta(5, " 1}"),
    PartStop(5),
    OpaqueEvent(OWN, {"type": "something_new", "x": 1}, "something_new"),
    UsageSeen(Usage(input=31, output=9, cache_read=10, cache_write_5m=5, cache_write_1h=3, reasoning=4)),
    ChoiceStop(
        StopReason("tool_calls", "tool_use"),
        extra={OWN: {"stop_details": {"type": "refusal"}, "context_management": {"applied_edits": []}}},
    ),
    MessageStop(),
]


@pytest.mark.parametrize("size", [0, 1, 7, 64])
def test_what_is_written_is_read_again_as_it_was(size: int) -> None:
    assert bare(decode(encode(STREAM), size)) == STREAM


def test_each_event_alone_gives_the_same_frames_but_for_the_first_count() -> None:
    together, alone = encode(STREAM), encode(*([event] for event in STREAM))
    assert frames(alone)[1:] == frames(together)[1:]
    assert frames(alone)[0]["message"]["usage"] == {"input_tokens": 0, "output_tokens": 0}
    first = frames(together)[0]["message"]
    assert first["usage"] == {
        "input_tokens": 12,
        "output_tokens": 1,
        "cache_read_input_tokens": 10,
        "cache_creation_input_tokens": 8,
        "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 3},
    }
    assert (first["id"], first["model"], first["content"], first["stop_reason"]) == ("msg_1", "m-1", [], None)


TEXTS = st.text(max_size=12)
ARGUMENTS = st.dictionaries(TEXTS, st.one_of(st.integers(-9, 9), TEXTS, st.none()), max_size=3).map(json.dumps)
PARTS: st.SearchStrategy[Part] = st.one_of(
    st.builds(Text, TEXTS),
    st.builds(Thinking, TEXTS, st.one_of(st.none(), st.just("sig")), dialect=st.just(OWN)),
    st.builds(ToolCall, st.from_regex(r"[a-zA-Z0-9_-]{1,9}", fullmatch=True), st.just("f"), ARGUMENTS),
    st.just(Opaque(OWN, {"type": "new", "x": [1]})),
)
COUNTS = st.one_of(st.none(), st.integers(0, 50))
USAGES = st.builds(
    Usage,
    input=st.integers(150, 10**6),
    output=st.integers(0, 10**6),
    cache_read=COUNTS,
    cache_write_5m=st.integers(0, 50),
    cache_write_1h=COUNTS,
    reasoning=COUNTS,
)
STOPS = st.sampled_from(
    [END, StopReason("length", "max_tokens"), StopReason("filter", "refusal"), StopReason("stop", "stop_sequence", "X")]
)


@settings(max_examples=times(100), deadline=None)
@given(st.lists(PARTS, max_size=5), USAGES, STOPS, st.integers(1, 50))
def test_any_answer_survives_both_forms(parts: list[Part], usage: Usage, stop: StopReason, size: int) -> None:
    response = answer(*parts, stop=stop, usage=usage)
    fold = Fold()
    fold.add(decode(encode(unfold(response)), size))
    assert fold.error is None
    assert fold.complete
    streamed, complete = fold.response(), response_of(message_body(response, model="asked", new_id="new"))
    for read in (streamed, complete):
        assert read.usage is not None
        assert replace(read.usage, raw=None) == usage
        assert read.choices[0].stop == stop
        assert (read.id, read.model) == ("msg_1", "m-1")
        assert len(read.choices[0].parts) == len(parts)
        for got, wanted in zip(read.choices[0].parts, parts, strict=True):
            if isinstance(wanted, ToolCall) and isinstance(got, ToolCall):
                assert json.loads(got.arguments) == json.loads(wanted.arguments)
                got = replace(got, arguments=wanted.arguments)
            assert got == wanted


def test_blocks_come_one_after_the_other_although_parts_are_open_side_by_side() -> None:
    """Two calls whose arguments arrive by turns: the second waits, unless the first has all it needs."""
    data = encode(
        [
            MessageStart("i", "m"),
            PartStart(0, ToolCall("a", "f", "")),
            ArgumentsDelta(0, '{"x":'),
            PartStart(1, ToolCall("b", "g", "")),
            ArgumentsDelta(1, '{"y":2}'),
            ArgumentsDelta(0, "1}"),
            PartStart(2, ToolCall("c", "h", "")),
            PartStop(1),
            PartStop(0),
            ArgumentsDelta(2, "{}"),
            PartStop(2),
            ChoiceStop(StopReason("tool_calls")),
            MessageStop(),
        ]
    )
    order = [(frame["type"], frame.get("index")) for frame in frames(data)]
    assert order == [
        ("message_start", None),
        ("content_block_start", 0),
        ("content_block_delta", 0),
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_delta", 1),
        ("content_block_stop", 1),
        ("content_block_start", 2),
        ("content_block_delta", 2),
        ("content_block_stop", 2),
        ("message_delta", None),
        ("message_stop", None),
    ]
    fold = Fold()
    fold.add(decode(data))
    assert [(part.id, part.arguments) for part in fold.response().choices[0].parts if isinstance(part, ToolCall)] == [
        ("a", '{"x":1}'),
        ("b", '{"y":2}'),
        ("c", "{}"),
    ]


def test_a_complete_call_does_not_hold_up_the_next_part() -> None:
    encoder = MessagesEncoder(model="m", new_id="i")
    encoder.encode([MessageStart("i", "m"), PartStart(0, ToolCall("a", "f", "")), ArgumentsDelta(0, '{"x":1}')])
    data = encoder.encode([PartStart(1, Text("")), TextDelta(1, "now")])
    assert [frame["type"] for frame in frames(data)] == [
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
    ]
    assert encoder.encode([PartStop(0)]) == b""


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("", {}),
        (" ", {}),
        ("null", {}),
        ('{"a":1}', {"a": 1}),
        ("[1]", {"arguments": "[1]"}),
        ("not json", {"arguments": "not json"}),
    ],
)
def test_arguments_are_always_an_object_to_clients(written: str, shown: dict[str, Any]) -> None:
    """They parse while they read: anything else would make them raise."""
    response = answer(ToolCall("a", "f", written))
    assert whole(response)["content"] == [{"type": "tool_use", "id": "a", "name": "f", "input": shown}]
    pieces: list[Event] = [ArgumentsDelta(0, letter) for letter in written]
    data = encode([MessageStart("i", "m"), PartStart(0, ToolCall("a", "f", "")), *pieces, PartStop(0), MessageStop()])
    deltas = [frame["delta"]["partial_json"] for frame in frames(data) if frame["type"] == "content_block_delta"]
    assert json.loads("".join(deltas) or "{}") == shown


def test_call_ids_are_in_the_alphabet_that_the_vendor_accepts() -> None:
    call = whole(answer(ToolCall("functions.f:0", "f", "{}")))["content"][0]
    again = whole(answer(ToolCall("functions.f:0", "f", "{}")))["content"][0]
    assert call["id"] == again["id"] != "functions.f:0"
    assert call["id"].replace("_", "").isalnum()


def test_foreign_reasoning_carries_a_label_instead_of_a_signature() -> None:
    part = Thinking("hm", "sig", dialect="gemini", extra={"gemini": {"k": 1}})
    label = label_of("gemini", "sig", {"gemini": {"k": 1}})
    assert whole(answer(part))["content"] == [{"type": "thinking", "thinking": "hm", "signature": label}]
    events = decode(encode(unfold(answer(part))))
    assert [event for event in events if isinstance(event, SignatureDelta)] == [SignatureDelta(0, label)]
    late: list[Event] = [
        MessageStart("i", "m"),
        PartStart(0, Thinking("", dialect="gemini")),
        ThinkingDelta(0, "hm"),
        SignatureDelta(0, "s"),
        SignatureDelta(0, "ig"),
        PartExtra(0, extra={"gemini": {"k": 1}}),
        PartStop(0),
        MessageStop(),
    ]
    assert [event for event in decode(encode(late)) if isinstance(event, SignatureDelta)] == [SignatureDelta(0, label)]
    hidden = Thinking("", "data", redacted=True, dialect="other")
    block = {"type": "redacted_thinking", "data": label_of("other", "data", None)}
    assert whole(answer(hidden))["content"] == [block]
    starts = [frame for frame in frames(encode(unfold(answer(hidden)))) if frame["type"] == "content_block_start"]
    assert starts[0]["content_block"] == block


@pytest.mark.parametrize(
    ("parts", "stop", "word"),
    [
        ([Text("a")], StopReason("stop", "stop"), "end_turn"),
        ([Text("a")], StopReason("length", "MAX_TOKENS"), "max_tokens"),
        ([Text("a")], StopReason("filter", "SAFETY"), "refusal"),
        ([Text("a")], StopReason("error", "error"), "end_turn"),
        ([Text("a")], StopReason("other", "pause_turn"), "pause_turn"),
        ([Text("a")], StopReason("length", "model_context_window_exceeded"), "model_context_window_exceeded"),
        ([Text("a")], StopReason("stop", None, "END"), "stop_sequence"),
        ([ToolCall("a", "f", "{}")], StopReason("tool_calls", "tool_calls"), "tool_use"),
        ([ToolCall("a", "f", "{}")], StopReason("stop", "stop"), "tool_use"),
        ([ToolCall("a", "f", "{}")], StopReason("length", "length"), "max_tokens"),
        ([ToolCall("a", "f", "{}")], None, "tool_use"),
        ([Refusal("no")], StopReason("stop", "stop"), "refusal"),
        ([Text("a")], None, None),
    ],
)
def test_stop_reasons(parts: list[Part], stop: StopReason | None, word: str | None) -> None:
    response = answer(*parts, stop=stop)
    sequence = None if stop is None else stop.sequence
    message = whole(response)
    assert (message["stop_reason"], message["stop_sequence"]) == (word, sequence)
    delta = next(frame["delta"] for frame in frames(encode(unfold(response))) if frame["type"] == "message_delta")
    assert (delta["stop_reason"], delta["stop_sequence"]) == (word, sequence)


def test_pictures_come_in_the_form_that_requests_have_for_them() -> None:
    image = Media("image", "image/png", data="AAAA")
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    assert whole(answer(image, Media("image", url="https://x.test")))["content"] == [
        block,
        {"type": "image", "source": {"type": "url", "url": "https://x.test"}},
    ]
    starts = [frame for frame in frames(encode(unfold(answer(image)))) if frame["type"] == "content_block_start"]
    assert starts[0]["content_block"] == block


def test_what_this_format_has_no_place_for_leaves_no_hole() -> None:
    response = answer(
        Opaque("gemini", {"x": 1}),
        ToolCall("s", "code", "{}", server=True),
        Text("a", citations=[Citation(title="a book")]),
        Media("image"),
    )
    assert whole(response)["content"] == [{"type": "text", "text": "a"}]
    started = [frame["index"] for frame in frames(encode(unfold(response))) if frame["type"] == "content_block_start"]
    assert started == [0]


def test_only_the_first_of_several_choices_is_shown() -> None:
    response = Response("i", "m", [Choice([Text("a")], END), Choice([Text("b")], StopReason("length"))], Usage())
    assert whole(response)["content"] == [{"type": "text", "text": "a"}]
    shown = frames(encode(unfold(response)))
    assert [frame["delta"].get("text") for frame in shown if frame["type"] == "content_block_delta"] == ["a"]
    assert [frame["delta"]["stop_reason"] for frame in shown if frame["type"] == "message_delta"] == ["end_turn"]


def test_an_answer_without_anything_is_still_a_message() -> None:
    message = whole(Response("", "", []))
    assert (message["id"], message["model"], message["content"]) == ("msg_new", "asked", [])
    assert message["usage"] == {"input_tokens": 0, "output_tokens": 0}
    kinds = [frame["type"] for frame in frames(encode([MessageStop()]))]
    assert kinds == ["message_start", "message_delta", "message_stop"]


def test_more_cached_than_given_is_cut_to_the_total() -> None:
    shown = usage_object(Usage(input=10, output=1, cache_read=8, cache_write_5m=8))
    assert shown["input_tokens"] == 0
    assert shown["cache_read_input_tokens"] + shown["cache_creation_input_tokens"] == 10


def test_a_failure_is_the_last_thing_said() -> None:
    encoder = MessagesEncoder(model="m", new_id="i")
    start = encoder.encode([MessageStart("i", "m"), PartStart(0, Text("")), TextDelta(0, "a")])
    failed = encoder.encode([Failure(UpstreamProtocol("broke off")), TextDelta(0, "b"), MessageStop()])
    assert frames(failed) == [
        {
            "type": "error",
            "error": {
                "type": "api_error",
                "message": "broke off",
                "details": {"error_code": "upstream_protocol_error"},
            },
        }
    ]
    assert encoder.failure(UpstreamProtocol("again")) == b""
    assert encoder.encode([TextDelta(0, "c"), MessageStop()]) == b""
    last = decode(start + failed)[-1]
    assert isinstance(last, Failure)
    assert last.error.message == "broke off"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BadParameter("wrong", param="model"), "invalid_request_error"),
        (BadParameter("wrong", status=415), "invalid_request_error"),
        (OutOfBudget("spent"), "billing_error"),
        (TooLarge("large"), "request_too_large"),
        (UpstreamTimeout("slow"), "timeout_error"),
        (UpstreamProtocol("odd"), "api_error"),
    ],
)
def test_errors_have_the_type_that_their_status_has(error: RelayError, kind: str) -> None:
    body = json.loads(AnthropicMessages().encode_error(error, "req_1"))
    details = {"error_code": error.code} | ({"param": error.param} if error.param else {})
    assert body == {
        "type": "error",
        "error": {"type": kind, "message": error.message, "details": details},
        "request_id": "req_1",
    }
