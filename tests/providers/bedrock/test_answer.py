"""Answers in the form of Converse, whole and streamed, good and broken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import relay_bedrock
from relay import Target, Upstream
from relay.errors import UpstreamBusy, UpstreamError, UpstreamProtocol, UpstreamRefused
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
    TextDelta,
    UsageSeen,
)
from relay.fold import Fold
from relay.ir import Choice, Media, Opaque, Response, StopReason, Text, Thinking, ToolCall, Usage
from relay_bedrock.citation import citation_of
from relay_bedrock.stream import ConverseDecoder
from tests import hub
from tests.effort import times
from tests.providers.bedrock.wire import START, USAGE, began, delta, ended, event, exception, message, stop, streamed

CLAUDE, NOVA = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", "amazon.nova-lite-v1:0"
OWN, THEIRS = "bedrock-converse", "anthropic-messages"
HEADERS = {"x-amzn-requestid": "req-1"}


def target(model: str = CLAUDE) -> Target:
    return Target(Upstream("b", "bedrock", "https://x.test"), model)


def answer(content: list[dict[str, Any]], reason: str = "end_turn", **fields: Any) -> bytes:
    output = {"message": {"role": "assistant", "content": content}}
    value = {"output": output, "stopReason": reason, "usage": USAGE, "metrics": {"latencyMs": 7}, **fields}
    return json.dumps(value).encode()


def whole(body: bytes, model: str = CLAUDE) -> Response:
    return relay_bedrock.translate_response(target=target(model), headers=HEADERS, body=body)


def decoder(model: str = CLAUDE) -> ConverseDecoder:
    made = relay_bedrock.translate_stream(target=target(model), headers=HEADERS)
    assert isinstance(made, ConverseDecoder)
    return made


def read(body: bytes, model: str = CLAUDE, step: int = 1 << 20) -> list[Event]:
    one, events = decoder(model), []
    for place in range(0, len(body), step):
        events += one.feed(body[place : place + step])
    return events + one.close()


def folded(events: list[Event]) -> Response:
    fold = Fold()
    fold.add(events)
    return fold.response()


CITED = {
    "title": "a",
    "sourceContent": [{"text": "It is "}, {"text": "so."}],
    "location": {"documentChar": {"start": 1}},
}
PAGE = {"location": {"web": {"url": "https://a.test/x", "domain": "a.test"}}}
FOUND = {"source": "https://b.test", "location": {"searchResultLocation": {"searchResultIndex": 0}}}
RESULT = {"toolUseId": "s1", "status": "success", "type": "nova_result", "content": [{"text": "[HIDDEN]"}]}
RICH: list[dict[str, Any]] = [
    {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "sig"}}},
    {"reasoningContent": {"redactedContent": "QUJD"}},
    {"text": "Look: "},
    {"citationsContent": {"citations": [CITED, FOUND], "content": [{"text": "it is so."}]}},
    {"toolUse": {"toolUseId": "s1", "name": "search", "input": {"q": "x"}, "type": "server_tool_use"}},
    {"toolResult": RESULT},
    {"text": "Found."},
    {"citationsContent": {"citations": [PAGE]}},
    {"image": {"format": "png", "source": {"bytes": "AAECAw=="}}},
    {"toolUse": {"toolUseId": "t1", "name": "look", "input": {}}},
    {"toolUse": {"toolUseId": "t2", "name": "look", "input": {"at": "caf\u00e9"}, "type": "tool_use"}},
]
PARTS = [
    Thinking("Hm.", "sig", dialect=THEIRS),
    Thinking("", "QUJD", redacted=True, dialect=OWN),
    Text("Look: "),
    Text("it is so.", citations=[citation_of(CITED), citation_of(FOUND)]),
    ToolCall("s1", "search", '{"q":"x"}', server=True),
    Opaque(OWN, {"toolResult": RESULT}),
    Text("Found.", citations=[citation_of(PAGE)]),
    Media("image", "image/png", data="AAECAw=="),
    ToolCall("t1", "look", "{}"),
    ToolCall("t2", "look", '{"at":"caf\u00e9"}'),
]
TRACE = {"guardrail": {"actionReason": "none"}}


def expected(*, trace: bool = False) -> Response:
    return Response(
        "req-1",
        CLAUDE,
        [Choice(PARTS, StopReason("tool_calls", "tool_use"), extra={OWN: {"trace": TRACE}} if trace else None)],
        Usage(10, 5, raw=USAGE),
    )


def test_a_complete_answer() -> None:
    assert whole(answer(RICH, "tool_use", trace=TRACE)) == expected(trace=True)


def test_a_stream_says_the_same() -> None:
    assert folded(read(streamed(RICH, "tool_use", trace=TRACE))) == expected(trace=True)


def test_what_a_citation_says() -> None:
    cited, page, found = citation_of(CITED), citation_of(PAGE), citation_of(FOUND)
    assert (cited.url, cited.title, cited.quote) == (None, "a", "It is so.")
    assert (page.url, page.title, page.quote) == ("https://a.test/x", None, None)
    assert found.url == "https://b.test"
    assert citation_of("nonsense").extra is None


@pytest.mark.promise("U-05")
@pytest.mark.parametrize("step", [1, 2, 7, 64, 1000])
def test_any_cut_gives_the_same_events(step: int) -> None:
    body = streamed(RICH, "tool_use")
    assert read(body, step=step) == read(body)


BLOCKS = st.one_of(
    st.builds(lambda text: {"text": text}, hub.TEXTS),
    st.builds(lambda text: {"reasoningContent": {"reasoningText": {"text": text, "signature": "s"}}}, hub.TEXTS),
    st.builds(
        lambda text, cited: {"citationsContent": {"content": [{"text": text}], "citations": cited}},
        hub.TEXTS,
        st.lists(st.sampled_from([CITED, PAGE, FOUND]), min_size=1, max_size=2),
    ),
    st.just({"citationsContent": {"citations": [PAGE]}}),
    st.builds(
        lambda name, given: {"toolUse": {"toolUseId": "t", "name": name, "input": given}},
        hub.NAMES,
        hub.OBJECTS,
    ),
    st.builds(lambda data: {"image": {"format": "png", "source": {"bytes": data}}}, hub.DATA),
    st.builds(lambda data: {"reasoningContent": {"redactedContent": data}}, hub.DATA),
    st.just({"toolResult": RESULT}),
)


@settings(max_examples=times(70), deadline=None)
@given(st.lists(BLOCKS, max_size=6), st.integers(1, 200), st.sampled_from([CLAUDE, NOVA]))
def test_any_answer_is_the_same_whole_and_streamed_however_it_is_cut(
    content: list[dict[str, Any]], step: int, model: str
) -> None:
    events = read(streamed(content, "end_turn"), model, step)
    assert isinstance(events[-1], MessageStop)
    assert folded(events) == whole(answer(content), model)
    # A citation comes while its text is open, for those who cannot go back.
    open_parts: set[int] = set()
    for one in events:
        if isinstance(one, PartStart):
            open_parts.add(one.index)
        elif isinstance(one, PartStop):
            open_parts.remove(one.index)
        elif isinstance(one, PartExtra | TextDelta | ArgumentsDelta):
            assert one.index in open_parts
    assert not open_parts


def test_models_other_than_claude_keep_their_reasoning_to_this_vendor() -> None:
    content = [{"reasoningContent": {"reasoningText": {"text": "Hm."}}}]
    for response in (whole(answer(content), NOVA), folded(read(streamed(content, "end_turn"), NOVA))):
        assert response.choices[0].parts == [Thinking("Hm.", dialect=OWN)]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("tool_use", "tool_calls"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("guardrail_intervened", "filter"),
        ("content_filtered", "filter"),
        ("malformed_tool_use", "error"),
        ("malformed_model_output", "error"),
        ("tired", "other"),
    ],
)
def test_reasons_to_stop(reason: str, kind: Any) -> None:
    stopped = StopReason(kind, reason)
    assert whole(answer([{"text": "x"}], reason)).choices[0].stop == stopped
    assert ChoiceStop(stopped) in read(streamed([{"text": "x"}], reason))


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"inputTokens": 3, "outputTokens": 4}, Usage(3, 4)),
        (
            {"inputTokens": 3, "outputTokens": 4, "cacheReadInputTokens": 10, "cacheWriteInputTokens": 20},
            Usage(33, 4, cache_read=10, cache_write_5m=20),
        ),
        (
            {
                "inputTokens": 3,
                "outputTokens": 4,
                "cacheWriteInputTokens": 20,
                "cacheDetails": [{"ttl": "5m", "inputTokens": 5}, {"ttl": "1h", "inputTokens": 15}, "x"],
            },
            Usage(23, 4, cache_write_5m=5, cache_write_1h=15),
        ),
        ({"inputTokens": -1, "outputTokens": True}, Usage()),
    ],
)
def test_cached_tokens_are_part_of_the_input(usage: dict[str, Any], counted: Usage) -> None:
    counted.raw = usage
    assert whole(answer([], usage=usage)).usage == counted
    assert UsageSeen(counted) in read(streamed([], "end_turn", usage=usage))


def test_blocks_that_nobody_knows_are_carried_as_they_stand() -> None:
    odd = [{"hologram": 1}, {"text": 7}, {"toolUse": {"name": "x"}}, {"reasoningContent": {"other": 1}}, "nonsense"]
    assert whole(answer(odd)).choices[0].parts == [Opaque(OWN, block) for block in odd]
    events = read(
        START
        + began(0, hologram={"a": 1})
        + delta(0, hologram={"b": 2})
        + stop(0)
        + event("aside", {"x": 1})
        + delta(1, text=7)
        + event("contentBlockStart", {"contentBlockIndex": "x"})
        + ended()
    )
    assert [one.part for one in events if isinstance(one, PartStart)] == [Opaque(OWN, {"hologram": {"a": 1}})]
    assert [one.name for one in events if isinstance(one, OpaqueEvent)] == [
        "contentBlockDelta",
        "aside",
        "contentBlockDelta",
        "contentBlockStart",
    ]


def test_citations_without_any_text_are_not_lost() -> None:
    content = [{"toolUse": {"toolUseId": "t", "name": "f", "input": {}}}, {"citationsContent": {"citations": [PAGE]}}]
    cited = Text("", citations=[citation_of(PAGE)])
    for response in (whole(answer(content)), folded(read(streamed(content, "end_turn")))):
        assert response.choices[0].parts[1] == cited


def test_a_block_that_is_not_closed_is_closed_by_the_end() -> None:
    events = read(START + delta(0, text="Hi") + ended())
    assert [type(one) for one in events] == [
        MessageStart,
        PartStart,
        TextDelta,
        PartStop,
        ChoiceStop,
        UsageSeen,
        MessageStop,
    ]


def test_what_comes_behind_the_end_is_nothing() -> None:
    good = read(streamed([{"text": "Hi"}], "end_turn"))
    last = event("messageStop", {"stopReason": "end_turn"})
    late = last + delta(0, text="more") + event("metadata", {"usage": USAGE})
    assert read(START + delta(0, text="H") + delta(0, text="i") + stop(0) + late + b"rubbish") == good


def test_a_stream_without_its_beginning_is_read_all_the_same() -> None:
    assert read(delta(0, text="Hi") + ended())[0] == MessageStart("req-1", CLAUDE)


# Ends.


def test_an_answer_without_its_count_is_whole() -> None:
    body = START + delta(0, text="Hi") + event("messageStop", {"stopReason": "end_turn"})
    assert read(body)[-2:] == [ChoiceStop(StopReason("stop", "end_turn")), MessageStop()]


@pytest.mark.promise("U-01")
def test_every_cut_before_the_end_is_told() -> None:
    body = streamed([{"text": "Hello there"}], "end_turn")
    complete = len(body) - len(event("metadata", {"metrics": {"latencyMs": 7}, "usage": USAGE}))
    for place in range(len(body)):
        last = read(body[:place])[-1]
        if place == complete:
            assert isinstance(last, MessageStop)
        else:
            assert isinstance(last, Failure), place
            assert isinstance(last.error, UpstreamProtocol)


@pytest.mark.promise("U-03")
@pytest.mark.parametrize(
    ("message_of_error", "kind", "words"),
    [
        (exception("throttlingException", {"message": "Slow down"}), UpstreamBusy, "Slow down"),
        (exception("serviceUnavailableException", {"message": "Later"}), UpstreamBusy, "Later"),
        (exception("validationException", {"message": "Bad"}), UpstreamRefused, "Bad"),
        (exception("internalServerException", {"message": "Broken"}), UpstreamError, "Broken"),
        (
            exception("modelStreamErrorException", {"message": "It broke", "originalStatusCode": 500}),
            UpstreamError,
            "It broke",
        ),
        (
            exception("modelStreamErrorException", {"message": "Busy", "originalStatusCode": 429}),
            UpstreamBusy,
            "Busy",
        ),
        (exception("novelException", {}), UpstreamError, "novelException"),
        (
            message({":message-type": "error", ":error-code": "500", ":error-message": "Gone"}, b""),
            UpstreamError,
            "Gone",
        ),
        (message({":message-type": "exception"}, b"no json"), UpstreamError, "without a message"),
    ],
)
def test_an_error_inside_of_a_stream_ends_it(message_of_error: bytes, kind: type[Exception], words: str) -> None:
    events = read(START + delta(0, text="Hi") + message_of_error + ended())
    failure = events[-1]
    assert isinstance(failure, Failure)
    assert type(failure.error) is kind
    assert words in failure.error.message
    assert TextDelta(0, "Hi") in events


@pytest.mark.promise("U-07")
@pytest.mark.parametrize(
    "bad",
    [
        message({":event-type": "metadata", ":message-type": "event"}, b"no json"),
        message({":event-type": "metadata", ":message-type": "event"}, b"[]"),
        began(0, image={"format": "png"}) + delta(0, image={"source": {"bytes": "?"}}),
        b"data: {}\n\n" * 9,
    ],
)
def test_what_is_not_the_protocol_is_a_failure_and_no_exception(bad: bytes) -> None:
    last = read(START + bad + ended())[-1]
    assert isinstance(last, Failure)
    assert isinstance(last.error, UpstreamProtocol)


@pytest.mark.parametrize("body", [b"no json", b"[]", b"{}", b'{"output": {"message": {"content": "x"}}}'])
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(UpstreamProtocol):
        whole(body)


@pytest.mark.promise("U-07")
@pytest.mark.parametrize("content", [None, "x", {}])
def test_a_result_that_is_none_is_told_as_it_stands(content: Any) -> None:
    odd = {"contentBlockIndex": 0, "delta": {"toolResult": [{"text": "x"}]}}
    events = read(
        START + began(0, toolResult={"toolUseId": "c", "content": content}) + event("contentBlockDelta", odd) + ended()
    )
    assert isinstance(events[-1], MessageStop)
    assert [one.data["delta"] for one in events if isinstance(one, OpaqueEvent)] == [odd["delta"]]
