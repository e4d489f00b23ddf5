"""Streams of the Gemini API in all its framings, whole and broken."""

from __future__ import annotations

import json
from typing import Any

import pytest

import relay_gemini
from relay.errors import UpstreamBusy, UpstreamError, UpstreamProtocol
from relay.events import ChoiceStop, Event, Failure, MessageStart, MessageStop, OpaqueEvent, UsageSeen
from relay.fold import Fold
from relay.ir import Choice, Media, Opaque, Refusal, Response, StopReason, Text, Thinking, ToolCall, Usage
from relay_gemini.stream import GeminiDecoder


def chunk(*parts: dict[str, Any], finish: Any = None, usage: dict[str, Any] | None = None, **more: Any) -> Any:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0, **more}
    if finish is not None:
        candidate["finishReason"] = finish
    return top([candidate], usage)


def top(candidates: list[Any] | None, usage: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    value: dict[str, Any] = {"modelVersion": "gemini-test", "responseId": "resp-1", **more}
    if candidates is not None:
        value["candidates"] = candidates
    if usage is not None:
        value["usageMetadata"] = usage
    return value


def sse(*chunks: Any) -> bytes:
    return b"".join(f"data: {json.dumps(value, ensure_ascii=False)}\r\n\r\n".encode() for value in chunks)


def array(*chunks: Any) -> bytes:
    return b"[" + b"\n,\r\n".join(json.dumps(value, indent=2).encode() for value in chunks) + b"\n]\n"


RICH = [
    chunk({"text": "Let me", "thought": True}, usage={"promptTokenCount": 9, "totalTokenCount": 9}),
    chunk({"text": ' "see" {[\\', "thought": True}, {"text": "Hé"}),
    chunk({"text": 'llo \U0001f600 }] " \\'}),
    chunk({"text": "", "thoughtSignature": "c2ln"}),
    chunk({"executableCode": {"language": "PYTHON", "code": "print('}')"}}),
    chunk({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "}"}}),
    chunk({"inlineData": {"mimeType": "image/png", "data": "AAAA"}}, {"inlineData": {"data": "BB"}, "thought": True}),
    chunk(
        {"functionCall": {"name": "get", "args": {"a": 1, "b": [True, None]}}, "thoughtSignature": "eHl6"},
        {"functionCall": {"name": "get", "args": {"a": 1, "b": [True, None]}}},
        {"functionCall": {"name": "now", "id": "their-id"}},
        safetyRatings=[{"category": "X"}],
    ),
    chunk({"text": ""}, finish="STOP", groundingMetadata={"webSearchQueries": ["q"]}),
    top(
        None,
        {
            "promptTokenCount": 9,
            "toolUsePromptTokenCount": 3,
            "cachedContentTokenCount": 4,
            "candidatesTokenCount": 20,
            "thoughtsTokenCount": 7,
            "totalTokenCount": 39,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 7}, {"modality": "AUDIO", "tokenCount": 2}],
            "candidatesTokensDetails": [{"modality": 4, "tokenCount": 5}],
        },
    ),
]


def decode(data: bytes, size: int = 0) -> list[Event]:
    decoder = GeminiDecoder()
    events: list[Event] = []
    for start in range(0, len(data), size or len(data)):
        events += decoder.feed(data[start : start + (size or len(data))])
    return events + decoder.close()


def fold(events: list[Event]) -> Response:
    collected = Fold()
    collected.add(events)
    assert collected.complete
    return collected.response()


def only(*chunks: Any) -> Choice:
    (choice,) = fold(decode(sse(*chunks))).choices
    return choice


def failure_of(events: list[Event]) -> UpstreamError:
    assert [type(event) for event in events].count(Failure) == 1
    last = events[-1]
    assert isinstance(last, Failure)
    assert isinstance(last.error, UpstreamError)
    return last.error


def test_every_kind_of_part_arrives() -> None:
    response = fold(decode(sse(*RICH)))
    assert (response.id, response.model) == ("resp-1", "gemini-test")
    (choice,) = response.choices
    calls = [part for part in choice.parts if isinstance(part, ToolCall)]
    assert choice.parts == [
        Thinking('Let me "see" {[\\', dialect="gemini"),
        Text('Héllo \U0001f600 }] " \\'),
        Text("", extra={"gemini": {"thoughtSignature": "c2ln"}}),
        Opaque("gemini", {"executableCode": {"language": "PYTHON", "code": "print('}')"}}),
        Opaque("gemini", {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "}"}}),
        Media("image", "image/png", data="AAAA"),
        Opaque("gemini", {"inlineData": {"data": "BB"}, "thought": True}),
        ToolCall(calls[0].id, "get", '{"a":1,"b":[true,null]}', extra={"gemini": {"thoughtSignature": "eHl6"}}),
        ToolCall(calls[1].id, "get", '{"a":1,"b":[true,null]}'),
        ToolCall("their-id", "now", "{}"),
    ]
    assert choice.stop == StopReason("tool_calls", "STOP")
    assert choice.extra == {
        "gemini": {"safetyRatings": [{"category": "X"}], "groundingMetadata": {"webSearchQueries": ["q"]}}
    }
    assert response.usage is not None
    response.usage.raw = None
    assert response.usage == Usage(input=12, output=27, cache_read=4, reasoning=7, audio_in=2, audio_out=5)


def test_calls_without_an_id_get_stable_ones_that_differ() -> None:
    def ids(data: bytes) -> list[str]:
        return [part.id for part in fold(decode(data)).choices[0].parts if isinstance(part, ToolCall)]

    first = ids(sse(*RICH))
    assert len(set(first)) == 3
    assert first == ids(array(*RICH))
    other = [{**value, "responseId": "resp-2"} for value in RICH]
    assert not set(first[:2]) & set(ids(sse(*other)))


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1000])
@pytest.mark.parametrize("framing", [sse, array])
def test_any_cut_and_any_framing_gives_the_same_events(size: int, framing: Any) -> None:
    assert decode(framing(*RICH), size) == decode(sse(*RICH))


@pytest.mark.parametrize("line_end", [b"\n", b"\r"])
def test_line_ends_do_not_matter(line_end: bytes) -> None:
    assert decode(sse(*RICH).replace(b"\r\n", line_end), 3) == decode(sse(*RICH))


def test_a_byte_order_mark_and_white_space_come_before_any_framing() -> None:
    for framing in (sse, array):
        assert decode(b"\xef\xbb\xbf" + framing(*RICH), 1) == decode(sse(*RICH))
    assert decode(b" \r\n" + array(*RICH), 1) == decode(sse(*RICH))


@pytest.mark.parametrize("framing", [sse, array])
def test_every_prefix_of_a_stream_is_a_failure(framing: Any) -> None:
    data = framing(*RICH[:-1])
    for length in range(1, data.rindex(b'"finishReason"'), 5):
        assert isinstance(failure_of(decode(data[:length], 64)), UpstreamProtocol)
    assert isinstance(failure_of(GeminiDecoder().close()), UpstreamProtocol)


@pytest.mark.parametrize("framing", [sse, array])
def test_a_stream_cut_inside_its_last_object_is_a_failure(framing: Any) -> None:
    data = framing(*RICH)
    assert isinstance(failure_of(decode(data[: data.rindex(b"promptTokensDetails")])), UpstreamProtocol)


@pytest.mark.parametrize("framing", [sse, array])
def test_a_complete_answer_says_the_same_as_its_stream(framing: Any) -> None:
    parts = [part for value in RICH for entry in value.get("candidates", []) for part in entry["content"]["parts"]]
    extra = {"safetyRatings": [{"category": "X"}], "groundingMetadata": {"webSearchQueries": ["q"]}}
    whole = chunk(*parts, finish="STOP", usage=RICH[-1]["usageMetadata"], **extra)
    assert relay_gemini.translate_response(body=json.dumps(whole).encode()) == fold(decode(framing(*RICH)))


def test_a_stream_read_as_a_complete_answer_is_understood() -> None:
    assert relay_gemini.translate_response(body=array(*RICH)) == fold(decode(sse(*RICH)))


def test_the_end_comes_last_and_once() -> None:
    events = decode(sse(chunk({"text": "a"}, finish="STOP"), chunk({"text": "b"}, finish="MAX_TOKENS")))
    assert [event for event in events if isinstance(event, ChoiceStop)] == [
        ChoiceStop(StopReason("length", "MAX_TOKENS"))
    ]
    assert isinstance(events[-1], MessageStop)
    assert fold(events).choices[0].text == "ab"


@pytest.mark.parametrize(
    ("finish", "kind", "raw"),
    [
        ("STOP", "stop", "STOP"),
        (1, "stop", "STOP"),
        ("MAX_TOKENS", "length", "MAX_TOKENS"),
        (2, "length", "MAX_TOKENS"),
        ("SAFETY", "filter", "SAFETY"),
        (3, "filter", "SAFETY"),
        ("RECITATION", "filter", "RECITATION"),
        ("PROHIBITED_CONTENT", "filter", "PROHIBITED_CONTENT"),
        ("MALFORMED_FUNCTION_CALL", "error", "MALFORMED_FUNCTION_CALL"),
        ("UNEXPECTED_TOOL_CALL", "error", "UNEXPECTED_TOOL_CALL"),
        ("OTHER", "other", "OTHER"),
        ("BRAND_NEW", "other", "BRAND_NEW"),
        (99, "other", "99"),
    ],
)
def test_finish_reasons_by_name_and_number(finish: Any, kind: str, raw: str) -> None:
    stop = only(chunk({"text": "x"}, finish=finish)).stop
    assert stop is not None
    assert (stop.kind, stop.raw) == (kind, raw)


def test_a_call_cut_by_length_stays_a_cut() -> None:
    stop = only(chunk({"functionCall": {"name": "f", "args": {}}}, finish="MAX_TOKENS")).stop
    assert stop == StopReason("length", "MAX_TOKENS")


def test_a_blocked_prompt_is_a_refusal() -> None:
    feedback = {"blockReason": "PROHIBITED_CONTENT", "safetyRatings": []}
    value = top(None, {"promptTokenCount": 4, "totalTokenCount": 4}, promptFeedback=feedback)
    for response in (fold(decode(sse(value))), relay_gemini.translate_response(body=json.dumps(value).encode())):
        (choice,) = response.choices
        assert choice.parts == [Refusal("The upstream blocked the prompt: PROHIBITED_CONTENT.")]
        assert choice.stop == StopReason("filter", "PROHIBITED_CONTENT")
        assert choice.extra == {"gemini": {"promptFeedback": feedback}}
        assert response.usage is not None
        assert (response.usage.input, response.usage.output) == (4, 0)


def test_a_blocked_prompt_is_explained_in_the_vendors_words() -> None:
    choice = only(top(None, promptFeedback={"blockReason": 1, "blockReasonMessage": "Too risky"}))
    assert choice.parts == [Refusal("Too risky")]
    assert choice.stop == StopReason("filter", "SAFETY")


def test_a_blocked_answer_is_explained_in_the_vendors_words() -> None:
    choice = only(top([{"finishReason": "MODEL_ARMOR", "finishMessage": "Against the rules"}]))
    assert choice.parts == [Refusal("Against the rules")]
    assert choice.stop == StopReason("filter", "MODEL_ARMOR")
    assert only(chunk({"text": "so far"}, finish="SAFETY", finishMessage="no")).parts == [Text("so far")]


def test_an_empty_answer_is_an_answer() -> None:
    events = decode(sse(top([{"content": {"role": "model"}, "finishReason": "STOP"}])))
    assert [type(event) for event in events] == [MessageStart, ChoiceStop, MessageStop]


def test_several_candidates_are_kept_apart() -> None:
    def pair(first: str, second: str, finish: str | None = None) -> Any:
        entries = [{"index": i, "content": {"parts": [{"text": text}]}} for i, text in enumerate((first, second))]
        return top([{**entry, "finishReason": finish} if finish else entry for entry in entries])

    response = fold(decode(sse(pair("a", "x"), pair("b", "y", "STOP")), 5))
    assert [choice.text for choice in response.choices] == ["ab", "xy"]
    half = top([{"index": 0, "content": {"parts": []}, "finishReason": "STOP"}])
    assert isinstance(failure_of(decode(sse(pair("a", "x"), half))), UpstreamProtocol)


def test_arguments_streamed_by_path_are_put_together() -> None:
    def call(**fields: Any) -> Any:
        return chunk({"functionCall": fields})

    def piece(path: str, **value: Any) -> Any:
        return call(partialArgs=[{"jsonPath": path, **value}], willContinue=True)

    choice = only(
        chunk({"functionCall": {"name": "put", "willContinue": True}, "thoughtSignature": "c2ln"}),
        piece("$.city", stringValue="Bos", willContinue=True),
        piece("$.city", stringValue="ton", willContinue=True),
        piece("$.city", stringValue=""),
        piece("$.items[0].price", numberValue=0.5),
        piece("$.items[0]['a b']", boolValue=True),
        piece("$.items[1].price", numberValue=2),
        piece("$.none", nullValue="NULL_VALUE"),
        call(),
        call(name="put", willContinue=True),
        piece("$.x", stringValue="again"),
        chunk({"functionCall": {}}, finish="STOP"),
    )
    first, second = choice.parts
    assert isinstance(first, ToolCall)
    assert isinstance(second, ToolCall)
    assert json.loads(first.arguments) == {
        "city": "Boston",
        "items": [{"price": 0.5, "a b": True}, {"price": 2}],
        "none": None,
    }
    assert first.extra == {"gemini": {"thoughtSignature": "c2ln"}}
    assert second.arguments == '{"x":"again"}'
    assert first.id != second.id
    assert choice.stop == StopReason("tool_calls", "STOP")


@pytest.mark.parametrize("path", ["$", "x", "$.a[", "$.list[999999999]", "$[0]", 5, None])
def test_a_broken_path_is_reported_and_harms_nothing(path: Any) -> None:
    events = decode(
        sse(
            chunk({"functionCall": {"name": "f", "willContinue": True}}),
            chunk({"functionCall": {"partialArgs": [{"jsonPath": path, "stringValue": "x"}], "willContinue": True}}),
            chunk({"functionCall": {"partialArgs": [{"jsonPath": "$.ok", "boolValue": True}]}}, finish="STOP"),
        )
    )
    assert len([event for event in events if isinstance(event, OpaqueEvent)]) == 1
    (call,) = fold(events).choices[0].parts
    assert isinstance(call, ToolCall)
    assert json.loads(call.arguments)["ok"] is True


def test_a_call_left_open_is_closed_at_the_end() -> None:
    choice = only(chunk({"functionCall": {"name": "f", "willContinue": True}}), chunk(finish="STOP"))
    (call,) = choice.parts
    assert isinstance(call, ToolCall)
    assert call.arguments == "{}"


def test_probabilities_take_the_common_shape() -> None:
    result = {
        "chosenCandidates": [{"token": "é", "logProbability": -0.5, "tokenId": 1}, {"token": "x"}],
        "topCandidates": [
            {"candidates": [{"token": "é", "logProbability": -0.5}, {"token": "e", "logProbability": -2}]}
        ],
    }
    choice = only(chunk({"text": "éx"}, finish="STOP", logprobsResult=result, avgLogprobs=-0.25))
    assert choice.logprobs == [
        {
            "token": "é",
            "logprob": -0.5,
            "bytes": [195, 169],
            "top_logprobs": [
                {"token": "é", "logprob": -0.5, "bytes": [195, 169]},
                {"token": "e", "logprob": -2, "bytes": [101]},
            ],
        },
        {"token": "x", "logprob": 0.0, "bytes": [120], "top_logprobs": []},
    ]
    assert choice.extra == {"gemini": {"avgLogprobs": -0.25}}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"promptTokenCount": 5, "candidatesTokenCount": 2}, Usage(input=5, output=2)),
        ({"promptTokenCount": 5, "thoughtsTokenCount": 3}, Usage(input=5, output=3, reasoning=3)),
        ({"promptTokenCount": 5, "totalTokenCount": 5}, Usage(input=5, output=0)),
        ({"promptTokenCount": 5, "totalTokenCount": 4}, Usage(input=5)),
        ({"candidatesTokenCount": 2}, Usage(output=2)),
        ({"promptTokenCount": 5, "candidatesTokenCount": -2}, Usage(input=5)),
        ({"promptTokenCount": 2**40, "candidatesTokenCount": 1}, Usage(output=1)),
        ({"promptTokenCount": True, "candidatesTokenCount": 1}, Usage(output=1)),
    ],
)
def test_usage_is_added_up_and_bounded(raw: dict[str, Any], expected: Usage) -> None:
    usage = fold(decode(sse(chunk({"text": "x"}, finish="STOP", usage=raw)))).usage
    assert usage is not None
    usage.raw = None
    assert usage == expected


def test_usage_without_counts_is_no_usage_and_the_last_one_wins() -> None:
    first, last = {"promptTokenCount": 5, "totalTokenCount": 9}, {"promptTokenCount": 5, "candidatesTokenCount": 2}
    events = decode(sse(chunk({"text": "x"}, usage={"trafficType": "ON_DEMAND"}), chunk({"text": "x"}, usage=first)))
    assert len([event for event in events if isinstance(event, UsageSeen)]) == 1
    stream = sse(chunk({"text": "x"}, usage=first), chunk({"text": "x"}, usage=first), chunk(finish="STOP", usage=last))
    events = decode(stream)
    assert len([event for event in events if isinstance(event, UsageSeen)]) == 2
    usage = fold(events).usage
    assert usage is not None
    assert usage.output == 2


@pytest.mark.parametrize("framing", [sse, array])
def test_an_error_as_the_first_object_is_busy_not_broken(framing: Any) -> None:
    events = decode(framing({"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}))
    error = failure_of(events)
    assert len(events) == 1
    assert isinstance(error, UpstreamBusy)
    assert (error.message, error.status, error.upstream_status) == ("overloaded", 503, 503)


def test_an_error_in_the_middle_ends_the_stream_once() -> None:
    error = {"error": {"message": "boom", "status": "INTERNAL"}}
    events = decode(sse(chunk({"text": "Hel"}), error, chunk({"text": "lo"}, finish="STOP")))
    assert failure_of(events).message == "boom"
    assert failure_of(events).upstream_status == 500


@pytest.mark.parametrize(
    "data",
    [b"data: {broken\n\n", b"data: 1\n\n", b"data: [[]]\n\n", b"[{]}", b"{}", b"[]", b"<html></html>", b"", b"[{}]"],
)
def test_what_is_not_the_protocol_fails_as_such(data: bytes) -> None:
    decoder = GeminiDecoder()
    assert isinstance(failure_of(decoder.feed(data) + decoder.close()), UpstreamProtocol)
    assert decoder.feed(sse(*RICH)) == []
    assert decoder.close() == []


@pytest.mark.parametrize("start", [b"data: ", b'[{"a": "'])
def test_an_endless_object_is_cut_off(start: bytes) -> None:
    decoder = GeminiDecoder()
    events = decoder.feed(start)
    for _ in range(40):
        events += decoder.feed(b"x" * 1_000_000)
    assert isinstance(failure_of(events), UpstreamProtocol)


def test_odd_parts_are_carried_as_they_are() -> None:
    odd: list[dict[str, Any]] = [
        {"text": 5},
        {"functionCall": "f"},
        {"functionCall": {"args": {}}},
        {"inlineData": {}},
        {"brandNew": {}},
    ]
    assert only(chunk(*odd, {}, finish="STOP")).parts == [Opaque("gemini", part) for part in odd]
    assert only(chunk({"thoughtSignature": "c2ln"}, finish="STOP")).parts == [
        Text("", extra={"gemini": {"thoughtSignature": "c2ln"}})
    ]


def test_when_it_was_made_and_what_else_the_vendor_says() -> None:
    value = {**chunk({"text": "x"}, finish="STOP"), "createTime": "2026-04-02T17:03:50.399550Z", "turnToken": "t"}
    response = fold(decode(sse(value)))
    assert response.created == 1_775_149_430
    assert response.extra == {"gemini": {"turnToken": "t"}}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"not json", "not JSON"),
        (b"5", "not a JSON object"),
        (b"[5]", "not a JSON object"),
        (b"{}", "no candidates"),
        (b'{"candidates": []}', "no candidates"),
    ],
)
def test_an_answer_that_is_none_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(UpstreamProtocol, match=message):
        relay_gemini.translate_response(body=body)


def test_an_error_inside_an_answer_is_raised() -> None:
    with pytest.raises(UpstreamBusy, match="slow down"):
        relay_gemini.translate_response(body=b'[{"error": {"code": 429, "message": "slow down"}}]')
