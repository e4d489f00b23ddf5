"""Any answer that a dialect has room for survives being written and read again, whole and streamed; and of any other
answer that survives for which there is room, while the caller is told of the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay import Dialect, Head
from relay.events import Event, Logprobs, PartStart, PartStop, StreamDecoder
from relay.fold import Fold, unfold
from relay.ir import Choice, Citation, Media, Opaque, Part, Refusal, Response, StopReason, Text, Thinking, ToolCall
from relay.kit import loads
from relay.lost import answer_losses
from relay_anthropic.citation import citation_of as messages_citation
from relay_anthropic.dialect import AnthropicMessages
from relay_anthropic.response import response_of
from relay_anthropic.stream import MessagesDecoder
from relay_openai.custom import arguments_of
from relay_openai.dialect import OpenAIChat
from relay_openai.response import decode_response as decode_chat
from relay_openai.responses.dialect import OpenAIResponses
from relay_openai.responses.items import citation_of as responses_citation
from relay_openai.responses.response import decode_response as decode_responses
from relay_openai.responses.stream import ResponsesDecoder
from relay_openai.shapes import citation_of as chat_citation
from relay_openai.stream import ChatDecoder
from tests import hub
from tests.effort import times

CHAT, RESPONSES, MESSAGES = "openai-chat", "openai-responses", "anthropic-messages"
CREATED = 1_700_000_000


def named(values: Mapping[str, tuple[str, str]], called: bool) -> st.SearchStrategy[StopReason]:
    """Reasons in a dialect's own words. One whose call is complete has its own reason."""
    kinds = [kind for kind in values if (kind == "tool_calls") == called or kind in ("length", "filter")]
    return st.sampled_from([StopReason(values[kind][0], values[kind][1]) for kind in kinds])  # type: ignore[arg-type]


# What answers of each dialect hold.

CHAT_CITED = st.lists(
    st.builds(
        lambda url, at: chat_citation({"type": "url_citation", "url_citation": {"url": url, "start_index": at}}),
        hub.URLS,
        hub.COUNTS,
    ),
    min_size=1,
    max_size=2,
)
CHAT_STOPS = {
    "stop": ("stop", "stop"),
    "length": ("length", "length"),
    "tool_calls": ("tool_calls", "tool_calls"),
    "filter": ("filter", "content_filter"),
}


@st.composite
def chat_choices(draw: Any) -> Choice:
    parts: list[Part] = [Thinking(draw(hub.TEXTS), dialect=CHAT)] if draw(st.booleans()) else []
    parts.append(Text(draw(hub.TEXTS), citations=draw(hub.maybe(CHAT_CITED))))
    if draw(st.booleans()):
        parts.append(Refusal(draw(hub.TEXTS)))
    called = draw(hub.calls())
    if draw(st.booleans()):
        written = arguments_of(draw(hub.TEXTS))
        called.append(ToolCall("custom-call", "patch", written, extra={CHAT: {"type": "custom"}}))
    pictures = draw(st.lists(st.one_of(hub.media("image", "image/png"), hub.linked("image")), max_size=2))
    sound = st.builds(
        Media,
        st.just("audio"),
        media_type=st.none(),
        data=hub.DATA,
        extra=st.just({CHAT: {"id": "audio_1", "expires_at": 9, "transcript": "Hi"}}),
    )
    pictures += draw(st.lists(sound, max_size=1))
    return Choice([*parts, *called, *pictures], draw(named(CHAT_STOPS, bool(called))), draw(hub.maybe(hub.LOGPROBS)))


@st.composite
def chat_answers(draw: Any) -> Response:
    return Response(
        draw(hub.IDS),
        draw(hub.NAMES),
        draw(st.lists(chat_choices(), min_size=1, max_size=3)),
        draw(hub.usages("cache_read", "reasoning")),
        CREATED,
        draw(st.sampled_from([None, {CHAT: {"system_fingerprint": "fp_1"}}])),
    )


MESSAGES_CITED = st.lists(
    st.builds(lambda at: messages_citation({"type": "page_location", "start_page_number": at}), hub.COUNTS),
    min_size=1,
    max_size=2,
)
MESSAGES_PARTS = st.one_of(
    st.builds(Text, hub.TEXTS, citations=hub.maybe(MESSAGES_CITED)),
    st.builds(Thinking, hub.TEXTS, hub.maybe(hub.IDS), dialect=st.just(MESSAGES)),
    st.builds(Thinking, st.just(""), hub.IDS, redacted=st.just(True), dialect=st.just(MESSAGES)),
    st.builds(Opaque, st.just(MESSAGES), st.just({"type": "web_search_tool_result", "content": []})),
    st.builds(
        ToolCall,
        hub.IDS,
        hub.NAMES,
        hub.ARGUMENTS,
        server=st.just(True),
        extra=st.just({MESSAGES: {"type": "server_tool_use"}}),
    ),
)
MESSAGES_STOPS = {
    "stop": ("stop", "end_turn"),
    "length": ("length", "max_tokens"),
    "tool_calls": ("tool_calls", "tool_use"),
    "filter": ("filter", "refusal"),
}


@st.composite
def messages_answers(draw: Any) -> Response:
    parts, called = draw(st.lists(MESSAGES_PARTS, max_size=4)), draw(hub.calls())
    stop = draw(named(MESSAGES_STOPS, bool(called)))
    if stop.kind == "stop" and draw(st.booleans()):
        stop = StopReason("stop", "stop_sequence", "END")
    extra = draw(st.sampled_from([None, {MESSAGES: {"container": {"id": "c_1"}}}]))
    usage = draw(hub.usages("cache_read", "cache_write_5m", "cache_write_1h", "reasoning"))
    return Response(draw(hub.IDS), draw(hub.NAMES), [Choice([*parts, *called], stop, extra=extra)], usage)


RESPONSES_CITED = st.lists(
    st.builds(
        lambda url, at: responses_citation(
            {"type": "url_citation", "url": url, "start_index": at, "end_index": at + 1}
        ),
        hub.URLS,
        hub.COUNTS,
    ),
    min_size=1,
    max_size=2,
)
PICTURE = {"id": "ig_1", "output_format": "png"}
RESPONSES_STOPS = {
    "stop": ("stop", "completed"),
    "length": ("length", "max_output_tokens"),
    "tool_calls": ("tool_calls", "completed"),
    "filter": ("filter", "content_filter"),
}


@st.composite
def responses_answers(draw: Any) -> Response:
    parts: list[Part] = []
    for number in range(draw(st.integers(0, 2))):
        text = draw(hub.TEXTS)
        own = {"id": f"rs_{number}", "summary": [{"type": "summary_text", "text": text}]}
        parts.append(Thinking(text, draw(hub.maybe(hub.IDS)), dialect=RESPONSES, extra={RESPONSES: own}))
    said = st.one_of(st.builds(Text, hub.TEXTS, citations=hub.maybe(RESPONSES_CITED)), st.builds(Refusal, hub.TEXTS))
    ran = st.sampled_from(
        [
            Opaque(RESPONSES, {"type": "web_search_call", "id": "ws_1", "status": "completed"}),
            Media("image", "image/png", data="iVBORw0KGgo=", extra={RESPONSES: PICTURE}),
        ]
    )
    parts += draw(st.lists(st.one_of(said, ran), max_size=4, unique_by=id))
    called = [replace(call, extra={RESPONSES: {"id": f"fc_{number}"}}) for number, call in enumerate(draw(hub.calls()))]
    if draw(st.booleans()):
        own = {"type": "custom", "id": "ctc_1"}
        called.append(ToolCall("custom-call", "patch", arguments_of(draw(hub.TEXTS)), extra={RESPONSES: own}))
    weighed = draw(hub.maybe(hub.LOGPROBS)) if any(isinstance(part, Text) for part in parts) else None
    choice = Choice([*parts, *called], draw(named(RESPONSES_STOPS, bool(called))), weighed)
    usage = draw(hub.usages("cache_read", "cache_write_5m", "reasoning"))
    return Response(f"resp_{draw(hub.IDS)}", draw(hub.NAMES), [choice], usage, CREATED)


# How they are written and read.


@dataclass(frozen=True)
class Way:
    """A dialect, and how its vendor's own format is read."""

    dialect: Dialect
    answers: st.SearchStrategy[Response]
    read: Callable[[bytes], Response]
    decoder: Callable[[], StreamDecoder]
    request: Mapping[str, Any]


WAYS = {
    CHAT: Way(
        OpenAIChat(now=lambda: 0.0, new_id=lambda: "new"),
        chat_answers(),
        lambda body: decode_chat(loads(body), body),
        ChatDecoder,
        {"stream_options": {"include_usage": True}},
    ),
    RESPONSES: Way(
        OpenAIResponses(now=lambda: 0.0, new_id=lambda: "resp_new"),
        responses_answers(),
        lambda body: decode_responses(loads(body), body),
        ResponsesDecoder,
        {"input": "Hi"},
    ),
    MESSAGES: Way(AnthropicMessages(new_id=lambda: "new"), messages_answers(), response_of, MessagesDecoder, {}),
}


def head(way: Way, *, stream: bool) -> Head:
    return Head("generate", "asked", b"{}", {"model": "asked", **way.request}, stream=stream)


def whole(way: Way, response: Response) -> Response:
    return read_as(way.read(way.dialect.encode_response(deepcopy(response), head(way, stream=False))))


def streamed(way: Way, response: Response, size: int) -> Response:
    """Written event by event, and read in pieces of `size` bytes."""
    encoder = way.dialect.stream_encoder(head(way, stream=True))
    data = b"".join(encoder.encode([event]) for event in as_sent(unfold(deepcopy(response))))
    decoder, fold = way.decoder(), Fold()
    for start in range(0, len(data), size):
        fold.add(decoder.feed(data[start : start + size]))
    fold.add(decoder.close())
    assert fold.error is None
    assert fold.complete
    return read_as(fold.response())


def as_sent(events: list[Event]) -> list[Event]:
    """Log-probabilities with the last text of their choice, as hosts send them, and not behind everything."""
    sent = list(events)
    for event in events:
        if isinstance(event, Logprobs):
            starts = [one for one in events if isinstance(one, PartStart) and one.choice == event.choice]
            last = max((one.index for one in starts if isinstance(one.part, Text)), default=None)
            if last is not None:
                sent.remove(event)
                sent.insert(sent.index(PartStop(last)), event)
    return sent


def read_as(response: Response) -> Response:
    """Without what only the decoder adds: the vendor's own count."""
    assert response.usage is not None
    return replace(response, usage=replace(response.usage, raw=None))


@pytest.mark.parametrize("name", WAYS)
@settings(max_examples=times(50), deadline=None)
@given(data=st.data(), size=st.integers(1, 60))
def test_an_answer_that_there_is_room_for_survives(name: str, data: Any, size: int) -> None:
    way = WAYS[name]
    response = data.draw(way.answers)
    assert not answer_losses(unfold(response), name, way.dialect.capacity)
    assert whole(way, response) == response
    assert streamed(way, response, size) == response


FOREIGN: tuple[Part, ...] = (
    Opaque("elsewhere", {"type": "odd"}),
    ToolCall("ran", "search", "{}", server=True),
    Media("video"),
)


@pytest.mark.parametrize("name", WAYS)
@settings(max_examples=times(30), deadline=None)
@given(data=st.data(), size=st.integers(1, 60))
def test_of_any_other_answer_what_there_is_room_for_survives(name: str, data: Any, size: int) -> None:
    way = WAYS[name]
    wanted = data.draw(way.answers)
    response = deepcopy(wanted)
    first = response.choices[0]
    added = data.draw(st.lists(st.sampled_from(FOREIGN), min_size=1, max_size=2, unique_by=id))
    for part in added:
        first.parts.insert(data.draw(st.integers(0, len(first.parts))), deepcopy(part))
    texts = [part for part in first.parts if isinstance(part, Text)]
    if texts and data.draw(st.booleans()):
        texts[0].citations = [*(texts[0].citations or ()), Citation()]
    if not way.dialect.capacity.choices:
        response.choices.append(Choice([Text("Another.")], StopReason("stop", "stop")))
    if not way.dialect.capacity.logprobs:
        first.logprobs = [{"token": "a", "logprob": -0.5}]
    told = {loss.field for loss in answer_losses(unfold(response), name, way.dialect.capacity)}
    lost = {Opaque: "blocks", ToolCall: "server tools", Media: "media"}
    assert told >= {lost[type(part)] for part in added}
    assert ("choices" in told) == (len(response.choices) > len(wanted.choices))
    assert whole(way, response) == wanted
    assert streamed(way, response, size) == wanted
