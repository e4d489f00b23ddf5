"""Answers in this dialect's words: what has no obvious place in it, and what must not get out of order."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay import Head
from relay.errors import UpstreamProtocol
from relay.events import (
    ArgumentsDelta,
    ChoiceStop,
    Event,
    Failure,
    MessageStart,
    MessageStop,
    PartExtra,
    PartStart,
    PartStop,
    TextDelta,
    ThinkingDelta,
    UsageSeen,
)
from relay.fold import unfold
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
from relay_gemini.dialect import GenerateContent

DIALECT = GenerateContent(new_id=lambda: "new")
STOP = StopReason("stop", "end_turn")


def head(**thinking: Any) -> Head:
    body = {"contents": [{}], "generationConfig": {"thinkingConfig": thinking}}
    return DIALECT.peek(json.dumps(body).encode(), "generate", {"model": "m", "stream": "s", "alt": "sse"}, {})


def objects(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in data.split(b"\n\n") if line]


def streamed(*events: Event, **thinking: Any) -> list[dict[str, Any]]:
    encoder = DIALECT.stream_encoder(head(**thinking))
    return objects(encoder.encode([MessageStart("r", "m"), *events]))


def whole(*parts: Part, stop: StopReason | None = STOP, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(
        DIALECT.encode_response(Response("r", "m", [Choice(list(parts), stop, **more)]), head())
    )
    return answer


def both(*parts: Part, stop: StopReason | None = STOP, **more: Any) -> list[dict[str, Any]]:
    """The last word of the answer whole, and streamed."""
    response = Response("r", "m", [Choice(list(parts), stop, **more)])
    return [whole(*parts, stop=stop, **more), streamed(*unfold(response)[1:])[-1]]


def parts_of(answers: list[dict[str, Any]]) -> list[Any]:
    return [part for answer in answers for one in answer["candidates"] for part in one["content"]["parts"]]


def test_calls_side_by_side_go_out_whole_each_when_it_is_complete() -> None:
    encoder = DIALECT.stream_encoder(head())
    first = encoder.encode(
        [
            MessageStart("r", "m"),
            PartStart(0, ToolCall("a", "f", "")),
            PartStart(1, ToolCall("b", "g", "")),
            ArgumentsDelta(0, '{"x"'),
            ArgumentsDelta(1, "{}"),
            PartStop(1),
            ArgumentsDelta(0, ":1}"),
        ]
    )
    (second,) = parts_of(objects(first))
    assert second["functionCall"] == {"id": "b", "name": "g", "args": {}}
    # The first that goes out is the first of the turn, to those who insist on a signature for that.
    assert "thoughtSignature" in second
    rest = encoder.encode([ChoiceStop(StopReason("tool_calls", "tool_calls")), MessageStop()])
    assert parts_of(objects(rest)) == [{"functionCall": {"id": "a", "name": "f", "args": {"x": 1}}}, {"text": ""}]
    assert objects(rest)[-1]["candidates"][0]["finishReason"] == "STOP"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [("", {}), ("null", {}), ('{"a": 1}', {"a": 1}), ("[1]", {"arguments": "[1]"}), ('{"a', {"arguments": '{"a'})],
)
def test_arguments_that_are_no_object_stand_inside_of_one(arguments: str, shown: Any) -> None:
    call = ToolCall("a", "f", arguments)
    (part,) = whole(call)["candidates"][0]["content"]["parts"]
    assert part["functionCall"]["args"] == shown
    assert parts_of(streamed(*unfold(Response("r", "m", [Choice([call])]))[1:]))[0] == part


def test_arguments_on_several_lines_stay_one_event() -> None:
    call = ToolCall("a", "f", '{\n\n "a":\r\n 1}')
    assert parts_of(streamed(*unfold(Response("r", "m", [Choice([call])]))[1:]))[0]["functionCall"]["args"] == {"a": 1}


def test_what_others_ran_by_themselves_is_not_offered_to_be_run() -> None:
    theirs = [ToolCall("a", "search", "{}", server=True), Opaque("other", {"x": 1}), Media("image")]
    for last in both(*theirs, Text("Hi")):
        assert not [part for part in last["candidates"][0]["content"]["parts"] if part.keys() != {"text"}]
    assert parts_of(streamed(*unfold(Response("r", "m", [Choice([*theirs])]))[1:])) == [{"text": ""}]


def test_pages_that_others_cite_ground_the_answer_each_once() -> None:
    chat = Citation("https://a.test", "A")
    messages = Citation("https://b.test", quote="b")
    other = Citation(extra={"anthropic-messages": {"type": "page_location", "document_index": 0}})
    for last in both(Text("x", citations=[chat, messages]), Text("y", citations=[chat, other])):
        metadata = last["candidates"][0]["groundingMetadata"]
        pages = [{"web": {"uri": "https://a.test", "title": "A"}}, {"web": {"uri": "https://b.test"}}]
        assert metadata["groundingChunks"] == pages
        assert metadata["groundingSupports"] == [
            {"segment": {"startIndex": 0, "endIndex": 1, "text": "x"}, "groundingChunkIndices": [0, 1]},
            {"segment": {"startIndex": 1, "endIndex": 2, "text": "y"}, "groundingChunkIndices": [0]},
        ]
    late = streamed(
        PartStart(0, Text("")),
        TextDelta(0, "x"),
        PartExtra(0, citation=chat),
        PartStop(0),
        ChoiceStop(STOP),
        MessageStop(),
    )
    assert late[-1]["candidates"][0]["groundingMetadata"]["groundingChunks"][0]["web"]["uri"] == "https://a.test"
    for last in both(Text("x", citations=[other])):
        assert "groundingMetadata" not in last["candidates"][0]


def test_a_refusal_is_text_that_ends_for_safety() -> None:
    for last in both(Refusal("I will not."), stop=StopReason("stop", "stop")):
        (candidate,) = last["candidates"]
        assert (candidate["content"]["parts"], candidate["finishReason"]) == ([{"text": "I will not."}], "SAFETY")


@pytest.mark.parametrize(
    ("stop", "extra", "feedback"),
    [
        (StopReason("filter", "content_filter"), None, {"blockReason": "SAFETY"}),
        (StopReason("filter", "BLOCKLIST"), None, None),
        (StopReason("filter", "IMAGE_SAFETY"), None, None),
        (
            StopReason("filter", "SAFETY"),
            {"gemini": {"promptFeedback": {"blockReason": "OTHER"}}},
            {"blockReason": "OTHER"},
        ),
        (StopReason("stop", "stop"), None, None),
    ],
)
def test_a_blocked_prompt_has_no_candidate(stop: StopReason, extra: Any, feedback: Any) -> None:
    for last in both(stop=stop, extra=extra):
        assert last.get("promptFeedback") == feedback
        assert ("candidates" in last) is (feedback is None)


@pytest.mark.parametrize(
    ("stop", "word"),
    [
        (None, "STOP"),
        (StopReason("stop", "stop_sequence", "END"), "STOP"),
        (StopReason("length", "max_tokens"), "MAX_TOKENS"),
        (StopReason("tool_calls", "tool_use"), "STOP"),
        (StopReason("tool_calls", "STOP"), "STOP"),
        (StopReason("error", None), "OTHER"),
        (StopReason("other", "pause_turn"), "OTHER"),
        (StopReason("other", "LANGUAGE"), "LANGUAGE"),
        # Another vendor's word that happens to be one of this one's, for something else.
        (StopReason("stop", "SAFETY"), "STOP"),
    ],
)
def test_an_end_is_told_in_this_vendors_words(stop: StopReason | None, word: str) -> None:
    for last in both(Text("x"), stop=stop):
        assert last["candidates"][0]["finishReason"] == word


def test_thoughts_are_for_those_who_ask() -> None:
    events = (PartStart(0, Thinking("", dialect="other")), ThinkingDelta(0, "hm"), PartStop(0), MessageStop())
    assert parts_of(streamed(*events, includeThoughts=False)) == [{"text": ""}]
    shown, last = parts_of(streamed(*events, includeThoughts=True))
    assert (shown["text"], shown["thought"], last) == ("hm", True, {"text": ""})


def test_the_count_stands_in_the_last_object() -> None:
    events = [PartStart(0, Text("")), TextDelta(0, "x"), UsageSeen(Usage(input=5)), ChoiceStop(STOP)]
    answers = streamed(*events, UsageSeen(Usage(input=5, output=7, reasoning=9, cache_read=2)), MessageStop())
    assert [one.get("usageMetadata") for one in answers] == [
        None,
        {
            "promptTokenCount": 5,
            # There cannot have been more thinking than output.
            "candidatesTokenCount": 0,
            "totalTokenCount": 12,
            "cachedContentTokenCount": 2,
            "thoughtsTokenCount": 7,
        },
    ]
    assert "usageMetadata" not in whole(Text("x"))


def test_a_failure_is_the_last_word() -> None:
    encoder = DIALECT.stream_encoder(head())
    text: list[Event] = [MessageStart("r", "m"), PartStart(0, Text("")), TextDelta(0, "x")]
    first, error = objects(encoder.encode([*text, Failure(UpstreamProtocol("cut")), TextDelta(0, "y"), MessageStop()]))
    assert first["candidates"][0]["content"]["parts"] == [{"text": "x"}]
    assert (error["error"]["code"], error["error"]["status"], error["error"]["message"]) == (502, "UNAVAILABLE", "cut")
    assert encoder.failure(UpstreamProtocol("again")) == b""


def test_what_the_upstream_does_not_name_is_filled_in() -> None:
    encoder = DIALECT.stream_encoder(head())
    (last,) = objects(encoder.encode([MessageStop()]))
    assert last == {"modelVersion": "m", "responseId": "new"}
