"""Whatever this dialect claims to carry survives being written and read again, whole, streamed, and cut anywhere."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from relay import Head, Target, Upstream
from relay.events import ArgumentsDelta, Event, SignatureDelta, TextDelta, ThinkingDelta
from relay.fold import Fold, unfold
from relay.ir import (
    Choice,
    Loss,
    Media,
    Message,
    Opaque,
    Output,
    Part,
    Reasoning,
    Request,
    Response,
    Sampling,
    StopReason,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Usage,
)
from relay.kit import dumps
from relay_gemini.caller import parse_request
from relay_gemini.dialect import GenerateContent
from relay_gemini.encoder import ContentEncoder
from relay_gemini.foreign import is_labelled
from relay_gemini.frames import ArrayFilter, ArrayFrames, SseFrames
from relay_gemini.request import body_of
from relay_gemini.response import response_of
from relay_gemini.stream import DIALECT, GeminiDecoder
from tests.effort import times

DIALECT_ = GenerateContent(new_id=lambda: "new")

# What is carried.

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="{"), min_size=1, max_size=12)
NAMES = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)
SCALARS = st.one_of(st.integers(-(2**53), 2**53), st.booleans(), WORDS, st.none(), st.floats(-1e6, 1e6))
OBJECTS = st.dictionaries(WORDS, st.one_of(SCALARS, st.lists(SCALARS, max_size=2)), max_size=3)
ARGUMENTS = OBJECTS.map(lambda value: dumps(value).decode())
SIGNATURES = st.binary(min_size=1, max_size=9).map(lambda raw: base64.b64encode(b"\x00" + raw).decode())
SIGNED = SIGNATURES.map(lambda signature: {DIALECT: {"thoughtSignature": signature}})
DATA = st.binary(min_size=1, max_size=9).map(lambda raw: base64.b64encode(b"\x00" + raw).decode())
MEDIA = st.one_of(
    *(
        st.builds(Media, st.just(kind), media_type=st.just(media_type), data=DATA)
        for kind, media_type in (("image", "image/png"), ("audio", "audio/wav"), ("document", "application/pdf"))
    )
)
TEXTS = st.builds(Text, WORDS)
SIGNED_TEXTS = st.builds(Text, WORDS, extra=SIGNED)
SIGNED_NOTHING = st.builds(Text, st.just(""), extra=SIGNED)
LINKED = st.one_of(
    st.builds(Media, st.just("image"), media_type=st.just("image/png"), url=st.just("https://a.test/a.png")),
    st.builds(Media, st.just("video"), media_type=st.just("video/mp4"), file_id=st.just("files/abc")),
)
CODE = st.just(Opaque(DIALECT, {"executableCode": {"language": "PYTHON", "code": "1"}}))
OWN_THOUGHTS = st.builds(Thinking, WORDS, dialect=st.just(DIALECT), extra=st.one_of(st.none(), SIGNED))


def apart(parts: list[Part]) -> list[Part]:
    """Without neighbours that are pieces of one text, which nobody can tell from one piece."""
    found: list[Part] = []
    for part in parts:
        plain = isinstance(part, Text | Thinking) and not part.extra
        if not (plain and found and type(found[-1]) is type(part) and not found[-1].extra):
            found.append(part)
    return found


@st.composite
def conversations(draw: Any, nested: bool) -> list[Message]:
    """`nested`: the model takes pictures inside of results."""
    messages = []
    if draw(st.booleans()):
        messages.append(Message("system", [Text(draw(WORDS))]))
    waiting: list[ToolCall] = []
    for turn in range(draw(st.integers(1, 3))):
        results: list[Part] = [
            ToolResult(
                call.id,
                [Text(draw(WORDS)), *draw(st.lists(MEDIA, max_size=1 if nested else 0))],
                is_error=draw(st.booleans()),
                name=call.name,
            )
            for call in waiting
        ]
        messages.append(
            Message("user", [*results, *draw(st.lists(st.one_of(TEXTS, MEDIA, LINKED), min_size=1, max_size=3))])
        )
        waiting = [
            ToolCall(f"call-{turn}-{number}", draw(NAMES), draw(ARGUMENTS), extra=draw(SIGNED))
            for number in range(draw(st.integers(0, 2)))
        ]
        own = st.one_of(TEXTS, OWN_THOUGHTS, SIGNED_TEXTS, SIGNED_NOTHING, CODE, MEDIA)
        said = apart(draw(st.lists(own, min_size=1, max_size=4)))
        messages.append(Message("assistant", [*said, *waiting]))
    return messages if draw(st.booleans()) else messages[:-1]


TOOLS = st.lists(
    st.builds(Tool, NAMES, st.one_of(st.none(), WORDS), st.one_of(st.none(), st.just({"type": "object"}))),
    max_size=3,
    unique_by=lambda tool: tool.name,
)
SAMPLING = st.builds(
    Sampling,
    max_tokens=st.one_of(st.none(), st.integers(1, 9999)),
    temperature=st.one_of(st.none(), st.floats(0, 2)),
    top_p=st.one_of(st.none(), st.floats(0, 1)),
    top_k=st.one_of(st.none(), st.integers(1, 99)),
    stop=st.one_of(st.none(), st.lists(WORDS, min_size=1, max_size=5)),
    seed=st.one_of(st.none(), st.integers(0, 2**31 - 1)),
    choices=st.one_of(st.none(), st.integers(1, 4)),
    frequency_penalty=st.one_of(st.none(), st.floats(-2, 2)),
    presence_penalty=st.one_of(st.none(), st.floats(-2, 2)),
    logprobs=st.one_of(st.none(), st.just(True)),
)
SHOWN = st.sampled_from(["auto", "none"])
REASONING = {
    "gemini-3-flash": st.one_of(
        st.none(), st.builds(Reasoning, effort=st.sampled_from(["minimal", "low", "high"]), summary=SHOWN)
    ),
    "gemini-2.5-flash": st.one_of(
        st.none(),
        st.builds(Reasoning, budget=st.integers(1, 24_576), summary=SHOWN),
        st.builds(Reasoning, enabled=st.just(True), summary=SHOWN),
        st.just(Reasoning(enabled=False)),
    ),
}


@st.composite
def requests(draw: Any) -> tuple[str, Request]:
    model = draw(st.sampled_from(sorted(REASONING)))
    tools = draw(TOOLS)
    choices: list[ToolChoice | None] = [None]
    if tools:
        choices += [ToolChoice("auto"), ToolChoice("none"), ToolChoice("required"), ToolChoice("tool", tools[0].name)]
    choice = draw(st.sampled_from(choices))
    request = Request(
        model,
        draw(conversations(model.startswith("gemini-3"))),
        tools=[
            *([tools[0]] if choice is not None and choice.mode == "tool" else tools),
            *draw(st.lists(st.just(Opaque(DIALECT, {"googleSearch": {}})), max_size=1)),
        ],
        tool_choice=choice,
        output=draw(st.sampled_from([None, Output("json"), Output("schema", schema={"type": "object"})])),
        sampling=draw(SAMPLING),
        reasoning=draw(REASONING[model]),
    )
    return model, request


def snaked(value: Any) -> Any:
    """A request in the other spelling, but for what is the caller's own."""
    if isinstance(value, list):
        return [snaked(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for name, item in value.items():
        other = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
        mine = name in ("args", "response", "parametersJsonSchema", "responseJsonSchema")
        found[other] = item if mine else snaked(item)
    return found


@settings(max_examples=times(100), deadline=None)
@given(requests(), st.booleans())
def test_any_request_survives(asked: tuple[str, Request], other: bool) -> None:
    model, request = asked
    losses: list[Loss] = []
    body = body_of(request, Target(Upstream("up", "gemini", "https://upstream.test"), model), losses)
    assert losses == []
    data = json.loads(body)
    assert parse_request(snaked(data) if other else data, model, stream=False) == request


# Answers.

STOPS = st.sampled_from(
    [
        StopReason("stop", "STOP"),
        StopReason("length", "MAX_TOKENS"),
        StopReason("filter", "SAFETY"),
        StopReason("error", "MALFORMED_FUNCTION_CALL"),
        StopReason("other", "LANGUAGE"),
    ]
)
ENDINGS = st.sampled_from(
    [
        None,
        {DIALECT: {"safetyRatings": [{"category": "X"}], "avgLogprobs": 0.5}},
    ]
)
ANSWERS = st.lists(
    st.one_of(
        TEXTS,
        SIGNED_TEXTS,
        OWN_THOUGHTS,
        MEDIA,
        CODE,
        st.builds(ToolCall, NAMES, NAMES, ARGUMENTS, extra=st.one_of(st.none(), SIGNED)),
    ),
    min_size=1,
    max_size=5,
).map(apart)
TOKEN = st.builds(lambda word: {"token": word, "logprob": -0.5, "bytes": list(word.encode())}, WORDS)
LOGPROBS = st.one_of(
    st.none(),
    st.lists(
        st.builds(lambda token, tops: {**token, "top_logprobs": tops}, TOKEN, st.lists(TOKEN, max_size=2)),
        min_size=1,
        max_size=2,
    ),
)
USAGES = st.one_of(
    st.none(),
    st.builds(
        lambda given, made, thought, cached, heard: Usage(
            input=given, output=made + thought, reasoning=thought, cache_read=cached, audio_in=heard
        ),
        st.integers(0, 10**6),
        st.integers(0, 10**6),
        st.integers(0, 99),
        st.one_of(st.none(), st.integers(0, 99)),
        st.one_of(st.none(), st.integers(0, 99)),
    ),
)


@st.composite
def responses(draw: Any) -> Response:
    choices = []
    for _ in range(draw(st.integers(1, 2))):
        parts = draw(ANSWERS)
        stop = draw(STOPS)
        if stop.kind == "stop" and any(isinstance(part, ToolCall) for part in parts):
            stop = StopReason("tool_calls", "STOP")
        choices.append(Choice(parts, stop, draw(LOGPROBS), draw(ENDINGS)))
    extra = draw(st.sampled_from([None, {DIALECT: {"modelStatus": {"stage": "STABLE"}}}]))
    created = draw(st.one_of(st.none(), st.integers(0, 2**32)))
    return Response(draw(NAMES), draw(NAMES), choices, draw(USAGES), created, extra)


def head(*, shown: bool = True, array: bool = False, stream: bool = True) -> Head:
    body = {"contents": [{}], "generation_config": {"thinking_config": {"include_thoughts": shown}}}
    path = {"model": "m", **({"stream": "x"} if stream else {}), **({} if array else {"alt": "sse"})}
    return DIALECT_.peek(json.dumps(body).encode(), "generate", path, {})


def plain(response: Response) -> Response:
    """Without the vendor's own copy of the count, and without the labels of the relay."""
    choices = [replace(choice, parts=[unlabelled(part) for part in choice.parts]) for choice in response.choices]
    return replace(
        response, choices=choices, usage=None if response.usage is None else replace(response.usage, raw=None)
    )


def unlabelled(part: Part) -> Part:
    own = (part.extra or {}).get(DIALECT, {})
    return replace(part, extra=None) if is_labelled(own.get("thoughtSignature")) else part


def pieces(response: Response) -> list[Event]:
    """The answer as a stream that gives every text in two pieces."""
    events: list[Event] = []
    for event in unfold(response):
        match event:
            case TextDelta(index, text) | ThinkingDelta(index, text):
                kind = type(event)
                events += [kind(index, text[:1]), kind(index, text[1:])]
            case SignatureDelta(index, text):
                events += [SignatureDelta(index, text[:1]), SignatureDelta(index, text[1:])]
            case ArgumentsDelta(index, text):
                events += [ArgumentsDelta(index, text[:1]), ArgumentsDelta(index, text[1:])]
            case _:
                events.append(event)
    return events


def streamed(events: list[Event], cuts: list[int], asked: Head) -> bytes:
    encoder = DIALECT_.stream_encoder(asked)
    places = [0, *sorted(cut % (len(events) + 1) for cut in cuts), len(events)]
    return b"".join(encoder.encode(events[a:b]) for a, b in pairwise(places))


def folded(data: bytes, cuts: list[int]) -> Response:
    decoder, fold = GeminiDecoder(), Fold()
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for a, b in pairwise(places):
        fold.add(decoder.feed(data[a:b]))
    fold.add(decoder.close())
    assert fold.complete
    return fold.response()


CUTS = st.lists(st.integers(0, 5000), max_size=5)


@settings(max_examples=times(100), deadline=None)
@given(responses(), CUTS, st.booleans())
def test_any_answer_survives_whole_and_streamed(response: Response, cuts: list[int], array: bool) -> None:
    assert plain(response_of(DIALECT_.encode_response(response, head(stream=False)))) == response
    data = streamed(pieces(response), cuts, head(array=array))
    assert data == streamed(pieces(response), [], head(array=array))
    assert plain(folded(data, cuts)) == response
    if array:
        assert len(json.loads(data)) >= 1


@settings(max_examples=times(40), deadline=None)
@given(responses(), CUTS, st.sampled_from([b"\n", b"\r\n"]))
def test_an_array_is_made_of_the_events_own_bytes(response: Response, cuts: list[int], ends: bytes) -> None:
    data = streamed(unfold(response), [], head()).replace(b"\n", ends)
    stream_filter = ArrayFilter()
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    array = b"".join(stream_filter.feed(data[a:b]) for a, b in pairwise(places))
    array += stream_filter.close()
    wanted = [line[6:] for line in data.splitlines() if line]
    assert json.loads(array) == [json.loads(one) for one in wanted]
    assert all(one in array for one in wanted)


# What other vendors' models thought.

FOREIGN = st.builds(
    lambda text, signature, extra: Thinking(
        text, signature, dialect="other", extra={"other": {"x": extra}} if extra else None
    ),
    WORDS,
    WORDS,
    st.booleans(),
)
REDACTED = st.builds(lambda data: Thinking("", data, redacted=True, dialect="other"), WORDS)
UNSIGNED = st.builds(lambda text: Thinking(text, dialect="other"), WORDS)


@st.composite
def turns(draw: Any) -> list[Part]:
    """A turn that calls a function; thoughts without a signature stand alone, or nobody could tell them apart."""
    thoughts = draw(st.one_of(st.lists(st.one_of(FOREIGN, REDACTED), max_size=3), UNSIGNED.map(lambda one: [one])))
    text = [Text(draw(WORDS))] if draw(st.booleans()) else []
    calls = [ToolCall(f"call-{number}", draw(NAMES), draw(ARGUMENTS)) for number in range(3)]
    between = draw(st.lists(FOREIGN, max_size=1))
    return [*thoughts, *text, *calls[: draw(st.integers(1, 2))], *between, *calls[2 : 2 + len(between)]]


def spelled_otherwise(value: Any) -> Any:
    """What some clients do with signatures: decode them, and write them again in the other alphabet."""
    return json.loads(
        json.dumps(value), object_hook=lambda found: {name: respelled(name, item) for name, item in found.items()}
    )


def respelled(name: str, item: Any) -> Any:
    return item.replace("+", "-").replace("/", "_") if name == "thoughtSignature" else item


@settings(max_examples=times(100), deadline=None)
@given(turns(), st.booleans(), st.booleans(), CUTS, st.sampled_from(["as it is", "respelled", "without thoughts"]))
def test_thoughts_of_others_come_back_with_the_call(
    parts: list[Part], shown: bool, stream: bool, cuts: list[int], client: str
) -> None:
    response = Response("r", "m", [Choice(parts, StopReason("tool_calls", "tool_use"))])
    if stream:
        data = streamed(pieces(response), cuts, head(shown=shown))
        answers = [json.loads(line[6:]) for line in data.splitlines() if line]
    else:
        answers = [json.loads(DIALECT_.encode_response(response, head(shown=shown, stream=False)))]
    said = [answer["candidates"][0]["content"] for answer in answers]
    visible = "".join(part.text for part in parts if isinstance(part, Thinking)) if shown else ""
    assert "".join(part["text"] for one in said for part in one["parts"] if part.get("thought")) == visible
    if client == "respelled":
        said = spelled_otherwise(said)
    elif client == "without thoughts":
        said = [{**one, "parts": [part for part in one["parts"] if not part.get("thought")]} for one in said]
    data = json.dumps({"contents": [{"role": "user", "parts": [{"text": "Hi"}]}, *said]}).encode()
    request = parse_request(json.loads(data), "m", stream=False)
    assert request.messages[1].parts == parts
    # And none of it goes to this vendor, whose own clients would not have it either.
    asked = DIALECT_.peek(data, "generate", {"model": "m"}, {})
    forward = DIALECT_.forward(asked, Target(Upstream("up", "gemini", "https://upstream.test"), "gemini-3-flash"))
    sent = json.loads(forward.body)["contents"]
    kept = [part for content in sent for part in content["parts"]]
    assert not [part for part in kept if part.get("thought") or is_labelled(part.get("thoughtSignature"))]
    assert [part["functionCall"]["id"] for part in kept if "functionCall" in part] == [
        part.id for part in parts if isinstance(part, ToolCall)
    ]
    assert len(forward.losses) == 1


@settings(max_examples=times(60), deadline=None)
@given(st.one_of(FOREIGN, UNSIGNED), WORDS, st.booleans(), CUTS)
def test_thoughts_that_were_shown_come_back_with_their_text(
    thought: Thinking, text: str, stream: bool, cuts: list[int]
) -> None:
    response = Response("r", "m", [Choice([thought, Text(text)], StopReason("stop", "end_turn"))])
    if stream:
        data = streamed(pieces(response), cuts, head())
        said = [json.loads(line[6:])["candidates"][0]["content"] for line in data.splitlines() if line]
    else:
        data = DIALECT_.encode_response(response, head(stream=False))
        said = [json.loads(data)["candidates"][0]["content"]]
    request = parse_request({"contents": said}, "m", stream=False)
    assert [turn.parts for turn in request.messages] == [[thought, Text(text)]]


def test_nothing_follows_the_end_or_a_failure() -> None:
    for frames in (SseFrames(), ArrayFrames()):
        encoder = ContentEncoder(frames, model="m", new_id="n", thoughts=True)
        data = encoder.encode(unfold(Response("", "", [Choice([Text("a")], None)])))
        assert encoder.encode(unfold(Response("", "", [Choice([Text("b")], None)]))) == b""
        first = json.loads(data)[0] if data.startswith(b"[") else json.loads(data.split(b"\n")[0][6:])
        # The upstream named neither.
        assert (first["modelVersion"], first["responseId"]) == ("m", "n")
