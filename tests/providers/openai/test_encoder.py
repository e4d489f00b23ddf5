from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import orjson
import pytest

from relay import Head
from relay.errors import OutOfBudget, RateLimited, UpstreamProtocol
from relay.events import (
    ArgumentsDelta,
    ChoiceStop,
    Event,
    Failure,
    Logprobs,
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
    Refusal,
    Response,
    StopReason,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Usage,
)
from relay_openai.dialect import OpenAIChat
from relay_openai.encoder import ChatEncoder
from relay_openai.response import decode_response
from relay_openai.shapes import citation_of
from relay_openai.stream import ChatDecoder
from relay_openai.turns import parse_messages

CITATION = {"type": "url_citation", "url_citation": {"url": "https://x.test", "title": "X"}}
DETAILS = {"openai-chat": {"reasoning_details": [{"type": "reasoning.text", "text": "Hm", "format": "v"}]}}
TOKEN = {"token": "x", "logprob": -0.5, "bytes": None, "top_logprobs": []}
STOP = StopReason("stop", "stop")


def encode(events: list[Event], *, usage: bool = True, legacy: bool = False) -> bytes:
    return ChatEncoder(model="asked", created=7, new_id="made-up", usage=usage, legacy=legacy).encode(events)


def chunks(data: bytes) -> list[Any]:
    frames = data.decode().split("\n\n")
    assert frames.pop() == ""
    return [f if f == "data: [DONE]" else orjson.loads(f.removeprefix("data: ")) for f in frames]


def deltas(data: bytes) -> list[Any]:
    return [c["choices"][0]["delta"] for c in chunks(data) if isinstance(c, dict) and c["choices"]]


def decode(data: bytes) -> list[Event]:
    decoder = ChatDecoder()
    return decoder.feed(data) + decoder.close()


def around(*events: Event, stop: StopReason = STOP) -> list[Event]:
    """A stream of one choice around these events, in the order in which the decoder gives them."""
    return [MessageStart("c1", "m", 5), *events, ChoiceStop(stop), MessageStop()]


PAIRS: dict[str, list[Event]] = {
    "text": around(PartStart(0, Text("")), TextDelta(0, 'He"l\n'), TextDelta(0, "lo ☃"), PartStop(0)),
    "nothing": around(),
    "reasoning": around(
        PartStart(0, Thinking("", dialect="openai-chat")),
        ThinkingDelta(0, "H"),
        ThinkingDelta(0, "m"),
        PartExtra(0, extra=DETAILS),
        PartStop(0),
        PartStart(1, Text("")),
        TextDelta(1, "Yes"),
        PartStop(1),
    ),
    "citations": around(
        PartStart(0, Text("")),
        TextDelta(0, "x"),
        TextDelta(0, "y"),
        PartExtra(0, citation=citation_of(CITATION)),
        PartStop(0),
    ),
    "refusal": around(PartStart(0, Refusal("")), TextDelta(0, "No"), PartStop(0), stop=StopReason("stop", "stop")),
    "tools in parallel": around(
        PartStart(0, ToolCall("a", "f", "")),
        PartStart(1, ToolCall("b", "g", "")),
        ArgumentsDelta(0, '{"x":'),
        ArgumentsDelta(1, "{}"),
        ArgumentsDelta(0, '"\\n"}'),
        PartStop(0),
        PartStop(1),
        stop=StopReason("tool_calls", "tool_calls"),
    ),
    "custom tool": around(
        PartStart(0, ToolCall("a", "patch", "", extra={"openai-chat": {"type": "custom"}})),
        ArgumentsDelta(0, '{"input":"'),
        ArgumentsDelta(0, '*** \\"Begin\\"'),
        ArgumentsDelta(0, '"}'),
        PartStop(0),
        stop=StopReason("tool_calls", "tool_calls"),
    ),
    "signed call": around(
        PartStart(0, ToolCall("a", "f", "", extra={"openai-chat": {"extra_content": {"v": 1}}})),
        PartStop(0),
        stop=StopReason("tool_calls", "tool_calls"),
    ),
    "picture": around(PartStart(0, Media("image", "image/png", data="AAAA")), PartStop(0)),
    "sound": around(
        PartStart(
            0,
            Media(
                "audio",
                data="AAAA",
                extra={"openai-chat": {"id": "a1", "expires_at": 9, "transcript": "Hi"}},
            ),
        ),
        PartStop(0),
    ),
    "unknown block": around(PartStart(0, Opaque("openai-chat", {"type": "reference", "ids": [1]})), PartStop(0)),
    "logprobs": around(PartStart(0, Text("")), TextDelta(0, "x"), Logprobs([TOKEN]), PartStop(0)),
    "several choices": [
        MessageStart("c1", "m", 5, {"openai-chat": {"system_fingerprint": "fp", "provider": "p"}}),
        PartStart(0, Text("")),
        TextDelta(0, "a"),
        PartStart(1, Text(""), 1),
        TextDelta(1, "b"),
        TextDelta(0, "c"),
        PartStop(0),
        ChoiceStop(STOP),
        PartStop(1),
        ChoiceStop(StopReason("length", "length"), 1),
        MessageStop(),
    ],
    "usage": [
        MessageStart("c1", "m", 5),
        PartStart(0, Text("")),
        TextDelta(0, "a"),
        UsageSeen(
            Usage(10, 5, cache_read=4, cache_write_5m=2, reasoning=3, audio_in=0, audio_out=0),
        ),
        PartStop(0),
        ChoiceStop(StopReason("length", "length")),
        MessageStop(),
    ],
    "content filter": around(
        PartStart(0, Text("")), TextDelta(0, "a"), PartStop(0), stop=StopReason("filter", "content_filter")
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_what_is_written_is_read_as_it_was(name: str) -> None:
    events = PAIRS[name]
    again = decode(encode(events))
    for event in again:
        if isinstance(event, UsageSeen):
            event.usage.raw = None
    assert again == events


@pytest.mark.parametrize("name", PAIRS)
def test_events_one_by_one_give_the_same_bytes_as_all_at_once(name: str) -> None:
    encoder = ChatEncoder(model="asked", created=7, new_id="made-up", usage=True)
    assert b"".join(encoder.encode([event]) for event in PAIRS[name]) == encode(PAIRS[name])


@pytest.mark.parametrize("name", PAIRS)
def test_a_complete_answer_says_the_same_as_its_stream(name: str) -> None:
    fold = Fold()
    fold.add(PAIRS[name])
    response = fold.response()
    head = Head("generate", "asked", b"", {})
    body = OpenAIChat(lambda: 7, lambda: "made-up").encode_response(response, head)
    again = decode_response(json.loads(body), body)
    if again.usage is not None:
        again.usage.raw = None
    assert again == response


def test_the_frames_are_those_that_clients_know() -> None:
    start = MessageStart("c1", "m", 5, {"openai-chat": {"system_fingerprint": "fp", "service_tier": "x"}})
    events = [start, PartStart(0, Text("")), TextDelta(0, "Hi"), PartStop(0), UsageSeen(Usage(1, 2)), ChoiceStop(STOP)]
    got = chunks(encode([*events, MessageStop()]))
    shared = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 5,
        "model": "m",
        "system_fingerprint": "fp",
        "usage": None,
    }

    def one(delta: Any, finish: Any = None) -> Any:
        return {**shared, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}

    assert got == [
        {**one({"role": "assistant", "content": ""}), "service_tier": "x"},
        one({"content": "Hi"}),
        one({}, "stop"),
        {
            **shared,
            "choices": [],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        },
        "data: [DONE]",
    ]


def test_a_caller_who_did_not_ask_gets_no_usage_anywhere() -> None:
    data = encode(PAIRS["usage"], usage=False)
    assert b"usage" not in data
    assert data.endswith(b"data: [DONE]\n\n")


def test_what_the_upstream_does_not_say_is_filled_in() -> None:
    first = chunks(encode([MessageStart("", "")]))[0]
    assert (first["id"], first["model"], first["created"]) == ("made-up", "asked", 7)
    # Even a stream without a beginning is one that clients can read.
    assert chunks(encode([MessageStop()]))[-1] == "data: [DONE]"
    assert deltas(encode([PartStart(0, Text(""), 1), TextDelta(0, "x")]))[0]["role"] == "assistant"


def test_each_choice_names_its_role_once_and_numbers_its_own_calls() -> None:
    data = encode(
        [
            MessageStart("c1", "m", 5),
            PartStart(0, ToolCall("a", "f", "")),
            PartStart(1, ToolCall("b", "f", ""), 1),
            PartStart(2, ToolCall("c", "f", ""), 1),
            ArgumentsDelta(2, "{}"),
        ]
    )
    seen = [(c["choices"][0]["index"], c["choices"][0]["delta"]) for c in chunks(data)]
    assert [index for index, delta in seen if "role" in delta] == [0, 1]
    numbers = [(index, d["tool_calls"][0]["index"]) for index, d in seen if "tool_calls" in d]
    assert numbers == [(0, 0), (1, 0), (1, 1), (1, 1)]


def test_signed_reasoning_of_another_dialect_can_be_given_back_by_the_client() -> None:
    events = around(
        PartStart(0, Thinking("", dialect="other")),
        ThinkingDelta(0, "Let me "),
        ThinkingDelta(0, "see"),
        SignatureDelta(0, "si"),
        SignatureDelta(0, "g"),
        PartStop(0),
        PartStart(1, Thinking("", "locked", redacted=True, dialect="other")),
        PartStop(1),
        PartStart(2, Thinking("", dialect="other")),
        ThinkingDelta(2, " unsigned"),
        PartStop(2),
    )
    message: dict[str, Any] = {"role": "assistant", "content": "x", "reasoning_content": "", "reasoning_details": []}
    for delta in deltas(encode(events)):
        message["reasoning_content"] += delta.get("reasoning_content", "")
        message["reasoning_details"] += delta.get("reasoning_details", [])
    assert message["reasoning_content"] == "Let me see unsigned"
    wanted = [
        Thinking("Let me see", "sig", dialect="other"),
        Thinking("", "locked", redacted=True, dialect="other"),
    ]
    assert parse_messages([message])[0].parts[:-1] == wanted
    fold = Fold()
    fold.add(events)
    body = OpenAIChat().encode_response(fold.response(), Head("generate", "m", b"", {}))
    assert parse_messages([json.loads(body)["choices"][0]["message"]])[0].parts == wanted


def test_the_encoder_leaves_the_events_of_others_alone() -> None:
    part = Thinking("", dialect="openai-chat")
    before = replace(part)
    encode([PartStart(0, part), ThinkingDelta(0, "x"), PartExtra(0, extra=DETAILS), PartStop(0)])
    assert part == before


def test_tools_that_the_upstream_ran_by_itself_are_not_the_clients_to_run() -> None:
    events: list[Event] = [
        PartStart(0, ToolCall("s", "web_search", "", server=True)),
        ArgumentsDelta(0, "{}"),
        PartStop(0),
        PartStart(1, ToolResult("s", [Text("found")])),
        PartStop(1),
        PartStart(2, Opaque("other", {"type": "x"})),
        PartStop(2),
        OpaqueEvent("other", {"type": "y"}),
    ]
    assert deltas(encode([MessageStart("c", "m"), *events])) == [{"role": "assistant", "content": ""}]
    parts: list[Any] = [ToolCall("s", "web_search", "{}", server=True), ToolResult("s", []), Text("x")]
    response = Response("c", "m", [Choice(parts, STOP)])
    body = OpenAIChat().encode_response(response, Head("generate", "m", b"", {}))
    assert json.loads(body)["choices"][0]["message"] == {"role": "assistant", "content": "x", "refusal": None}


@pytest.mark.parametrize(
    ("citation", "wanted"),
    [
        (citation_of(CITATION), CITATION),
        (
            Citation("https://y.test", "Y", "z"),
            {
                "type": "url_citation",
                "url_citation": {"url": "https://y.test", "title": "Y", "start_index": 0, "end_index": 0},
            },
        ),
        (Citation(title="a book"), None),
        (citation_of("x"), None),
    ],
)
def test_citations_of_any_dialect_are_shown_if_they_name_a_url(citation: Citation, wanted: Any) -> None:
    events = [PartStart(0, Text("")), PartExtra(0, citation=citation), PartStop(0)]
    shown = [d["annotations"] for d in deltas(encode(around(*events))) if "annotations" in d]
    assert shown == ([] if wanted is None else [[wanted]])


def test_a_caller_of_old_functions_gets_an_old_function_call() -> None:
    events = PAIRS["tools in parallel"]
    data = encode(events, legacy=True)
    calls = [d["function_call"] for d in deltas(data) if "function_call" in d]
    assert calls[0] == {"name": "f", "arguments": ""}
    assert "".join(call["arguments"] for call in calls) == '{"x":"\\n"}'
    assert b"tool_calls" not in data
    assert chunks(data)[-2]["choices"][0]["finish_reason"] == "function_call"
    fold = Fold()
    fold.add(events)
    head = Head("generate", "m", b"", {"functions": [{"name": "f"}]})
    choice = json.loads(OpenAIChat().encode_response(fold.response(), head))["choices"][0]
    assert choice["message"]["function_call"]["name"] == "f"
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["content"] is None


def test_a_failure_is_said_once_and_nothing_follows_it() -> None:
    encoder = ChatEncoder(model="m", created=1, new_id="x", usage=True)
    encoder.encode([MessageStart("c", "m"), PartStart(0, Text("")), TextDelta(0, "x")])
    data = encoder.failure(UpstreamProtocol("it broke off"))
    assert data == (
        b'data: {"error":{"message":"it broke off","type":"api_error","param":null,"code":"upstream_protocol_error"}}'
        b"\n\n"
    )
    assert encoder.failure(UpstreamProtocol("again")) == b""
    assert encoder.encode([TextDelta(0, "y"), ChoiceStop(STOP), MessageStop()]) == b""
    inside = encode([MessageStart("c", "m"), Failure(UpstreamProtocol("it broke off")), MessageStop()])
    assert inside.endswith(data)
    assert b"[DONE]" not in inside


def test_errors_have_the_form_that_clients_raise() -> None:
    dialect = OpenAIChat()
    body = json.loads(dialect.encode_error(RateLimited("slow", limit="rpm", retry_after=1), "req_1"))
    assert body == {
        "error": {"message": "slow", "type": "rate_limit_exceeded", "param": None, "code": "rate_limit_exceeded"}
    }
    assert json.loads(dialect.encode_error(OutOfBudget("spent"), "r"))["error"]["code"] == "budget_exceeded"


def test_the_time_of_an_answer_is_the_upstreams_or_that_of_the_clock() -> None:
    dialect = OpenAIChat(now=lambda: 1234.9, new_id=lambda: "new")
    head = Head("generate", "asked", b"", {"stream_options": {"include_usage": True}})
    answer = json.loads(dialect.encode_response(Response("", "", [Choice([Text("x")], STOP)]), head))
    assert (answer["created"], answer["id"], answer["model"]) == (1234, "new", "asked")
    assert "usage" not in answer
    encoder = dialect.stream_encoder(head)
    data = encoder.encode(unfold(Response("", "", [Choice([Text("x")], STOP)], Usage(1, 1))))
    assert {c["created"] for c in chunks(data)[:-1]} == {1234}
    assert chunks(data)[-2]["usage"]["total_tokens"] == 2


def test_text_that_json_cannot_hold_as_utf8_is_still_written() -> None:
    data = encode([MessageStart("c", "m"), PartStart(0, Text("")), TextDelta(0, "\ud83d")])
    assert b"\\ud83d" in data
