"""Answers as Responses clients get them: judged by the SDK's own types, and by reading them back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from openai.types.responses import Response as SdkResponse
from openai.types.responses import ResponseStreamEvent

from relay import Head
from relay.errors import (
    BadParameter,
    InternalError,
    OutOfBudget,
    RelayError,
    UpstreamBusy,
    UpstreamProtocol,
    UpstreamRefused,
)
from relay.events import (
    ArgumentsDelta,
    ChoiceStop,
    Event,
    Failure,
    KeepsAlive,
    Logprobs,
    MessageStart,
    MessageStop,
    PartExtra,
    PartStart,
    PartStop,
    SignatureDelta,
    StreamEncoder,
    TellsFailure,
    TextDelta,
    ThinkingDelta,
    UsageSeen,
)
from relay.fold import Fold, unfold
from relay.ir import Citation, Media, Opaque, Refusal, Response, StopKind, StopReason, Text, Thinking, ToolCall, Usage
from relay_openai.responses.dialect import OpenAIResponses
from relay_openai.responses.items import citation_of
from relay_openai.responses.response import decode_response
from relay_openai.responses.stream import ResponsesDecoder
from relay_openai.responses.wire import DIALECT

(UNION, *_) = get_args(ResponseStreamEvent)
EVENTS = {get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(UNION)}
"""The SDK's class of each event."""
CITATION = {"type": "url_citation", "url": "https://u.test", "title": "U", "start_index": 0, "end_index": 2}
FILE = {"type": "file_citation", "file_id": "f", "index": 1, "filename": "a"}
TOKEN = {"token": "Hi", "bytes": [72, 105], "logprob": -0.1, "top_logprobs": []}
SEARCH = {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}}
PICTURE: Any = {DIALECT: {"id": "ig_1", "output_format": "webp"}}
RICH: list[Event] = [
    MessageStart("resp_1", "m-1", 1700000000),
    PartStart(0, Thinking("", dialect=DIALECT, extra={DIALECT: {"id": "rs_1"}})),
    ThinkingDelta(0, "Let me "),
    ThinkingDelta(0, "see."),
    SignatureDelta(0, "opaque"),
    PartExtra(0, extra={DIALECT: {"id": "rs_1", "summary": [{"type": "summary_text", "text": "Let me see."}]}}),
    PartStop(0),
    PartStart(1, Opaque(DIALECT, SEARCH)),
    PartStop(1),
    PartStart(2, Text("")),
    TextDelta(2, "Hi"),
    Logprobs([TOKEN]),
    TextDelta(2, ' \u00e9\u4e16\U0001f30d"\n'),
    PartExtra(2, citation=citation_of(CITATION)),
    PartStop(2),
    PartStart(3, Text("")),
    TextDelta(3, "More."),
    PartStop(3),
    PartStart(4, ToolCall("call_1", "f", "", extra={DIALECT: {"id": "fc_1"}})),
    ArgumentsDelta(4, '{"a"'),
    ArgumentsDelta(4, ":1}"),
    PartStop(4),
    PartStart(
        5, Media("image", "image/webp", data="UklGRgAA", extra={DIALECT: {"id": "ig_1", "output_format": "webp"}})
    ),
    PartStop(5),
    ChoiceStop(StopReason("tool_calls", "completed")),
    UsageSeen(Usage(10, 5, cache_read=4, cache_write_5m=0, reasoning=2)),
    MessageStop(),
]


def head(**data: Any) -> Head:
    return Head("generate", "m", b"", data)


def encoder(**data: Any) -> StreamEncoder:
    return OpenAIResponses(now=lambda: 1700000009, new_id=lambda: "resp_new").stream_encoder(head(**data))


def frames(data: bytes) -> Iterator[dict[str, Any]]:
    """Each event, checked to be framed well: a name, and the same name inside."""
    *blocks, rest = data.decode().split("\n\n")
    assert rest == ""
    for block in blocks:
        first, second = block.split("\n")
        value = json.loads(second.removeprefix("data: "))
        assert first == f"event: {value['type']}"
        yield value


def written(events: list[Event], **data: Any) -> list[dict[str, Any]]:
    return list(frames(encoder(**data).encode(events)))


def validate(value: dict[str, Any]) -> Any:
    """The event as the SDK's own class, every field checked."""
    return EVENTS[value["type"]].model_validate(value)


def decode(data: bytes, size: int = 0) -> list[Event]:
    decoder = ResponsesDecoder()
    step = size or max(len(data), 1)
    got: list[Event] = []
    for start in range(0, len(data), step):
        got += decoder.feed(data[start : start + step])
    return got + decoder.close()


def fold(events: list[Event]) -> Response:
    folded = Fold()
    folded.add(events)
    assert folded.error is None
    return folded.response()


def plain(response: Response) -> Response:
    if response.usage is not None:
        response.usage.raw = None
    return response


# Read back.


def test_what_is_written_reads_back_the_same() -> None:
    data = encoder().encode(RICH)
    assert plain(fold(decode(data))) == fold(RICH)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_any_cut_reads_the_same(size: int) -> None:
    data = encoder().encode(RICH)
    for text in (data, data.replace(b"\n", b"\r\n"), b"".join(line + b"\n" for line in data.split(b"\n"))[:-1]):
        assert repr(decode(text, size)) == repr(decode(text))


def test_a_complete_answer_is_what_its_stream_ends_with() -> None:
    events = [event for event in RICH if not isinstance(event, Logprobs)]
    response = fold(events)
    whole = json.loads(OpenAIResponses(now=lambda: 1700000009).encode_response(response, head()))
    assert whole == written(events)[-1]["response"]
    assert plain(decode_response(whole, b"")) == response


def test_one_event_at_a_time_writes_the_same_bytes() -> None:
    one = encoder()
    assert b"".join(one.encode([event]) for event in RICH) == encoder().encode(RICH)


# The SDK.


@pytest.mark.parametrize("events", [RICH, unfold(fold(RICH))], ids=["streamed", "unfolded"])
def test_the_sdk_validates_every_event(events: list[Event]) -> None:
    values = written(events, tools=[{"type": "function", "name": "f", "parameters": {}, "strict": False}])
    for number, value in enumerate(values):
        assert value["sequence_number"] == number
        validate(value)
    final = SdkResponse.model_validate(values[-1]["response"])
    assert [item.type for item in final.output] == [
        "reasoning",
        "web_search_call",
        "message",
        "function_call",
        "image_generation_call",
    ]
    assert final.output_text == 'Hi \u00e9\u4e16\U0001f30d"\nMore.'
    assert final.usage is not None
    assert final.usage.output_tokens_details.reasoning_tokens == 2


def test_items_are_numbered_and_their_events_say_which_they_belong_to() -> None:
    values = written(RICH)
    names: dict[int, str] = {}
    for value in values:
        if value["type"] == "response.output_item.added":
            names[value["output_index"]] = value["item"]["id"]
        elif "item_id" in value:
            assert value["item_id"] == names[value["output_index"]]
    assert sorted(names) == list(range(5))
    assert len(set(names.values())) == 5
    done = [value["output_index"] for value in values if value["type"] == "response.output_item.done"]
    assert sorted(done) == sorted(names)


def test_the_answer_repeats_the_request() -> None:
    data = {
        "instructions": "Be brief.",
        "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": False}],
        "temperature": 0.5,
        "metadata": {"a": "b"},
        "text": {"verbosity": "low"},
        "reasoning": {"effort": "low"},
        "store": True,
    }
    shown = written(RICH, **data)[0]["response"]
    for name in ("instructions", "tools", "temperature", "metadata"):
        assert shown[name] == data[name]
    assert shown["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert shown["reasoning"] == {"effort": "low", "summary": None}
    assert shown["store"] is True
    assert written(RICH, store=False)[0]["response"]["store"] is False


def test_parts_that_are_open_side_by_side_keep_apart() -> None:
    values = written(
        [
            PartStart(0, Text("")),
            PartStart(1, ToolCall("c", "f", "")),
            TextDelta(0, "a"),
            ArgumentsDelta(1, "{"),
            TextDelta(0, "b"),
            ArgumentsDelta(1, "}"),
            PartStop(1),
            PartStart(2, Text("")),
            TextDelta(2, "c"),
            PartStop(0),
            PartStop(2),
            ChoiceStop(StopReason("tool_calls")),
            MessageStop(),
        ]
    )
    output = values[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["message", "function_call", "message"]
    assert [item["content"][0]["text"] for item in output[::2]] == ["ab", "c"]
    assert output[1]["arguments"] == "{}"
    for value in values:
        validate(value)


# What becomes of tools.


CUSTOM = {"type": "custom", "name": "patch"}
READ = {"type": "function", "name": "read", "strict": False, "parameters": {}}
NAMESPACE = {"type": "namespace", "name": "files", "description": "Files.", "tools": [READ]}
FINDER = {"type": "tool_search", "execution": "client"}


@pytest.mark.parametrize(
    ("name", "arguments", "wanted"),
    [
        ("f", "{}", {"type": "function_call", "name": "f", "arguments": "{}"}),
        ("patch", '{"input":"a\\nb"}', {"type": "custom_tool_call", "name": "patch", "input": "a\nb"}),
        ("patch", "not JSON", {"type": "custom_tool_call", "name": "patch", "input": "not JSON"}),
        ("patch", '{"other":1}', {"type": "custom_tool_call", "name": "patch", "input": '{"other":1}'}),
        ("files__read", "{}", {"type": "function_call", "name": "read", "namespace": "files", "arguments": "{}"}),
        (
            "tool_search",
            '{"query":"x"}',
            {"type": "tool_search_call", "execution": "client", "arguments": {"query": "x"}},
        ),
        ("tool_search", "oops", {"type": "tool_search_call", "execution": "client", "arguments": {}}),
    ],
)
def test_a_call_is_of_the_kind_that_the_client_defined(name: str, arguments: str, wanted: dict[str, Any]) -> None:
    events: list[Event] = [PartStart(0, ToolCall("c1", name, "")), ArgumentsDelta(0, arguments), PartStop(0)]
    values = written([*events, ChoiceStop(StopReason("tool_calls")), MessageStop()], tools=[CUSTOM, NAMESPACE, FINDER])
    (item,) = values[-1]["response"]["output"]
    assert item == {"id": item["id"], "status": "completed", "call_id": "c1", **wanted}
    for value in values:
        validate(value)


def test_tools_that_the_upstream_ran_are_not_the_clients() -> None:
    events: list[Event] = [
        PartStart(0, ToolCall("c", "search", "{}", server=True)),
        ArgumentsDelta(0, "x"),
        PartStop(0),
    ]
    assert written([*events, MessageStop()])[-1]["response"]["output"] == []


# How it ends.


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("other", "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("filter", "incomplete", "content_filter"),
        ("error", "failed", None),
    ],
)
def test_every_stop_has_its_ending(kind: StopKind, status: str, reason: str | None) -> None:
    last = written([MessageStart("x", "m"), ChoiceStop(StopReason(kind)), MessageStop()])[-1]
    assert (last["type"], last["response"]["status"]) == (f"response.{status}", status)
    assert (last["response"]["incomplete_details"] or {}).get("reason") == reason
    assert (last["response"]["error"] is not None) == (status == "failed")
    validate(last)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UpstreamProtocol("broke off"), "server_error"),
        (InternalError("ours"), "server_error"),
        (UpstreamBusy("slow"), "rate_limit_exceeded"),
        (OutOfBudget("spent"), "insufficient_quota"),
        (UpstreamRefused("no"), "invalid_prompt"),
        (UpstreamRefused("long", code="context_length_exceeded"), "context_length_exceeded"),
        (BadParameter("bad", param="p"), "invalid_prompt"),
    ],
)
def test_a_failure_is_a_failed_answer_and_nothing_follows(error: RelayError, code: str) -> None:
    one = encoder()
    events: list[Event] = [MessageStart("resp_1", "m"), PartStart(0, Text("")), TextDelta(0, "half")]
    values = [*frames(one.encode(events)), *frames(one.failure(error))]
    assert [value["sequence_number"] for value in values] == list(range(len(values)))
    assert values[-1]["type"] == "response.failed"
    failed = values[-1]["response"]
    assert (failed["id"], failed["status"]) == ("resp_1", "failed")
    assert (failed["error"]["code"], failed["error"]["message"]) == (code, error.message)
    if code not in ("insufficient_quota", "context_length_exceeded"):
        # Codes that clients act upon, and that the SDK's list leaves out.
        validate(values[-1])
    assert one.failure(error) == one.encode([TextDelta(0, "x"), MessageStop()]) == b""


def test_a_failure_inside_of_the_events_is_told_in_its_place() -> None:
    values = written([MessageStart("resp_1", "m"), Failure(UpstreamBusy("slow")), MessageStop()])
    assert [value["type"] for value in values] == ["response.created", "response.in_progress", "response.failed"]


def test_what_was_complete_before_a_failure_is_in_it() -> None:
    events: list[Event] = [PartStart(0, ToolCall("c", "f", "{}")), PartStop(0), PartStart(1, Text("x"))]
    one = encoder()
    one.encode(events)
    (last,) = frames(one.failure(InternalError("x")))
    assert [item["type"] for item in last["response"]["output"]] == ["function_call"]


def test_other_vendors_ids_are_replaced() -> None:
    ids = {
        value["response"]["id"] for value in written([MessageStart("msg_1", "m"), MessageStop()]) if "response" in value
    }
    assert ids == {"resp_new"}


# Silence.


def test_silence_begins_the_answer_once_and_then_says_nothing() -> None:
    one = encoder()
    assert isinstance(one, KeepsAlive)
    assert isinstance(one, TellsFailure)
    values = list(frames(one.keep_alive() + one.keep_alive()))
    values += frames(one.encode([MessageStart("resp_late", "m"), PartStart(0, Text("")), TextDelta(0, "a")]))
    values += frames(one.keep_alive())
    assert [value["type"] for value in values] == [
        "response.created",
        "response.in_progress",
        "keepalive",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "keepalive",
    ]
    assert [value["sequence_number"] for value in values] == list(range(len(values)))


# Small things of the wire.


def test_refusals_and_their_ends() -> None:
    events: list[Event] = [PartStart(0, Refusal("")), TextDelta(0, "I "), TextDelta(0, "won't."), PartStop(0)]
    values = written([*events, ChoiceStop(StopReason("stop")), MessageStop()])
    for value in values:
        validate(value)
    assert [value["refusal"] for value in values if value["type"] == "response.refusal.done"] == ["I won't."]
    assert fold(decode(encoder().encode([*events, MessageStop()]))).choices[0].parts == [Refusal("I won't.")]


@pytest.mark.parametrize(
    ("citation", "shown"),
    [
        (citation_of(CITATION), CITATION),
        (Citation("https://u.test", "U"), CITATION),
        (Citation("https://u.test", "U", start=0, end=9), CITATION),
        (citation_of(FILE), FILE),
        (Citation(title="a", file_id="f"), {"type": "file_citation", "file_id": "f", "index": 2, "filename": "a"}),
    ],
)
def test_citations_of_every_vendor_have_this_formats_shape(citation: Citation, shown: Any) -> None:
    events: list[Event] = [PartStart(0, Text("ab")), PartExtra(0, citation=citation), PartStop(0), MessageStop()]
    values = written(events)
    added = [value["annotation"] for value in values if value["type"] == "response.output_text.annotation.added"]
    assert added == values[-1]["response"]["output"][0]["content"][0]["annotations"] == [shown]


def test_a_citation_without_a_source_is_left_out() -> None:
    for citation in (Citation(title="a book", quote="words"), citation_of("x")):
        values = written([PartStart(0, Text("ab")), PartExtra(0, citation=citation), PartStop(0), MessageStop()])
        assert values[-1]["response"]["output"][0]["content"][0]["annotations"] == []


def test_log_probabilities_stand_with_their_text_even_if_they_come_late() -> None:
    late: list[Event] = [PartStart(0, Text("")), TextDelta(0, "Hi"), PartStop(0), Logprobs([TOKEN]), MessageStop()]
    assert written(late)[-1]["response"]["output"][0]["content"][0]["logprobs"] == [TOKEN]
    assert written(RICH)[-1]["response"]["output"][2]["content"][0]["logprobs"] == [TOKEN]


def test_a_complete_answer_has_its_log_probabilities_with_the_text_even_before_a_call() -> None:
    whole = json.loads(OpenAIResponses().encode_response(fold(RICH), head()))
    assert [content["logprobs"] for content in whole["output"][2]["content"]] == [[], [TOKEN]]


def test_counts_that_were_not_reported_are_zero_and_none_at_all_is_none() -> None:
    values = written([UsageSeen(Usage(input=3)), MessageStop()])
    assert values[-1]["response"]["usage"] == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 3,
    }
    assert written([UsageSeen(Usage()), MessageStop()])[-1]["response"]["usage"] is None


def test_only_the_first_of_several_answers_has_a_place() -> None:
    events: list[Event] = [
        PartStart(0, Text("a")),
        PartStop(0),
        PartStart(1, Text("b"), 1),
        TextDelta(1, "c"),
        PartStop(1),
    ]
    events += [Logprobs([TOKEN], 1), ChoiceStop(StopReason("stop")), ChoiceStop(StopReason("length"), 1), MessageStop()]
    last = written(events)[-1]
    assert last["type"] == "response.completed"
    assert [item["content"][0]["text"] for item in last["response"]["output"]] == ["a"]
