"""The cheap meter must come to the same end as the decoder it stands before, however the bytes are cut."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay import Target, Upstream
from relay.meter import Meter
from relay.mould import chunks
from relay.skim import SkimmingMeter
from relay_openai.family import count_response
from relay_openai.reader import Reader
from relay_openai.skim import chat_meter
from relay_openai.stream import ChatDecoder
from relay_openai.usage import decode_usage
from tests.effort import times
from tests.hub import counts

TARGET = Target(Upstream("test", "openai", "https://upstream.test/v1"), "m")


def event(value: Any, spaced: bool = False) -> bytes:
    separators = (", ", ": ") if spaced else (",", ":")
    return b"data: " + json.dumps(value, separators=separators).encode() + b"\n\n"


def chunk(text: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def end(meter: Any) -> tuple[Any, ...]:
    error = meter.error and (type(meter.error), meter.error.message)
    return meter.complete, meter.begun, meter.ended, meter.filtered, counts(meter.usage), error


def skimmed(data: bytes, cuts: list[int]) -> SkimmingMeter:
    meter = chat_meter(ChatDecoder())
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, stop in itertools.pairwise(places):
        if not meter.complete and meter.error is None:
            meter.feed(data[start:stop])
    if not meter.complete and meter.error is None:
        meter.close()
    return meter


def decoded(data: bytes) -> Meter:
    meter, decoder = Meter(), ChatDecoder()
    meter.add(decoder.feed(data))
    meter.add(decoder.close())
    return meter


WORDS = st.sampled_from(
    ["a", "hello world", "[DONE]", '"usage"', "error", "data:", "\n\n", "\u00e9\u4e16", "event: x", "c", "m", "content"]
)
"""Some of them stand in other places of a chunk, too."""
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
COUNTS = st.sampled_from([None, 0, 3, 3, -1, 2.5, True, "4", 10**9 + 1, 10**30])
USAGES = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": st.one_of(st.just(5), COUNTS),
        "completion_tokens": st.one_of(st.just(7), COUNTS),
        "total_tokens": st.sampled_from([12, 12, 12, 15, None]),
        "prompt_tokens_details": st.one_of(
            st.sampled_from([None, [], {"cached_tokens": 2, "audio_tokens": 0, "cache_write_tokens": 1}]),
            st.dictionaries(st.sampled_from(["cached_tokens", "audio_tokens", "cache_write_tokens", "x"]), COUNTS),
        ),
        "completion_tokens_details": st.one_of(
            st.sampled_from([None, 5, {"reasoning_tokens": 3, "audio_tokens": 0}]),
            st.dictionaries(st.sampled_from(["reasoning_tokens", "audio_tokens", "x"]), COUNTS),
        ),
        "cached_tokens": COUNTS,
        "reasoning_tokens": COUNTS,
        "prompt_cache_hit_tokens": COUNTS,
        "cache_read_input_tokens": COUNTS,
        "cache_creation_input_tokens": COUNTS,
        "cache_creation": st.sampled_from([None, {}, {"ephemeral_1h_input_tokens": 2}]),
        "queue_time": st.just(0.5),
    },
)
CHUNKS = st.one_of(
    WORDS.map(chunk),
    WORDS.map(lambda text: chunk(text, usage=None)),
    st.just(chunk(finish="stop")),
    st.just(chunk("x", usage=USAGE)),
    st.just({**chunk(usage=USAGE), "choices": []}),
    st.just({"error": {"message": "broke"}}),
    st.just({"odd": 1}),
)
PIECES = st.one_of(
    st.tuples(CHUNKS, st.booleans()).map(lambda pair: event(*pair)),
    st.sampled_from([b": comment\n\n", b"data: [DONE]\n\n", b"event: error\ndata: {}\n\n", b"data: {\n\n", b"\n"]),
)


@settings(max_examples=times(90), deadline=None)
@given(st.lists(PIECES, max_size=12), st.lists(st.integers(0, 10_000), max_size=6), st.sampled_from(["\n", "\r\n"]))
def test_any_stream_cut_anywhere_ends_as_its_decoder_says(pieces: list[bytes], cuts: list[int], ends: str) -> None:
    data = b"".join(pieces).replace(b"\n", ends.encode())
    assert end(skimmed(data, cuts)) == end(decoded(data))


CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a"'}}
DELTAS = st.sampled_from(
    [
        {},
        None,
        "x",
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "hello"},
        {"content": "\u00e9\u4e16"},
        {"content": None, "role": "assistant"},
        {"content": "x", "unknown": {"a": 1}},
        {"content": ["a", {"type": "text", "text": "b"}, {"type": "odd"}]},
        {"content": {"a": 1}},
        {"content": 5},
        {"reasoning_content": "hm"},
        {"content": "x", "reasoning": "hm"},
        {"refusal": "no"},
        {"tool_calls": [CALL]},
        {"tool_calls": [], "function_call": None, "content": "x"},
        {"audio": {"id": "a", "transcript": "x"}},
    ]
)
CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "index": st.sampled_from([0, 0, 0, 1, "0", None, True]),
        "delta": DELTAS,
        "message": st.just({"content": "x"}),
        "finish_reason": st.sampled_from([None, "", "stop", "length", "content_filter", "tool_calls", 5]),
        "logprobs": st.sampled_from([None, {}, {"content": [{"token": "x"}]}, 5]),
    },
)
ODD_CHUNKS = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.one_of(
            CHOICES.map(lambda choice: [choice]),
            st.lists(CHOICES, max_size=2),
            st.sampled_from([None, {}, "x", [None], [[]]]),
        ),
        "usage": st.one_of(st.sampled_from([None, {}, USAGE, {"prompt_tokens": "5"}, 5, [1]]), USAGES),
        "id": st.sampled_from(["c", "", None, 5]),
        "x_groq": st.sampled_from([{"usage": USAGE}, {}, None]),
        "error": st.sampled_from([None, {"message": "broke"}, {}]),
        "base_resp": st.sampled_from([None, {"status_code": 0}, {"status_code": 1000, "status_msg": "no"}]),
        "prompt_filter_results": st.just([]),
    },
)
EVENTS = st.one_of(
    ODD_CHUNKS.map(event),
    CHOICES.map(lambda choice: event({"id": "c", "choices": [choice]})),
    st.sampled_from(
        [b": comment\n\n", b"data: [DONE]\n\n", b"event: error\ndata: {}\n\n", b"data: {\n\n", b"data: []\n\n"]
    ),
)


@settings(max_examples=times(300), deadline=None)
@given(st.lists(EVENTS, max_size=8))
def test_what_is_counted_without_events_is_what_the_events_say(events: list[bytes]) -> None:
    short, long, shortly, fully = Meter(), Meter(), ChatDecoder(), ChatDecoder()
    for one in events:
        shortly.count(one, short)
        long.add(fully.feed(one))
        assert (end(short), short.seen) == (end(long), long.seen)
    short.add(shortly.close())
    long.add(fully.close())
    assert (end(short), short.seen) == (end(long), long.seen)


@settings(max_examples=times(300), deadline=None)
@given(
    USAGES,
    st.sampled_from(["keep", "keep", "keep", [], None, [5], [{"index": 0, "message": {"content": "x"}}, 5]]),
    st.sampled_from([None, None, {}, {"message": "broke"}, "x"]),
)
def test_an_answer_counted_shortly_is_counted_as_if_it_were_read(usage: Any, choices: Any, error: Any) -> None:
    choices = [{"index": 0, "message": {"role": "assistant", "content": "x"}}] if choices == "keep" else choices
    body = {"id": "c", "choices": choices, "usage": usage, **({} if error is None else {"error": error})}
    answered = isinstance(choices, list) and choices and isinstance(choices[0], dict) and not error
    counted, read = count_response(TARGET, json.dumps(body).encode()), decode_usage(usage) if answered else None
    assert counts(counted) == counts(read)


def said(text: str, **more: Any) -> bytes:
    """An event with that text."""
    return event({"id": "c", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], **more})


TWO_TEXTS = event({"choices": [{"message": {"content": "x"}, "delta": {"content": ["ab", {"text": "c"}]}}]})


@settings(max_examples=times(300), deadline=None)
@given(st.lists(st.one_of(EVENTS, CHUNKS.map(event)), max_size=8), st.integers(1, 4))
@example([TWO_TEXTS, TWO_TEXTS, TWO_TEXTS], 3)
@example([TWO_TEXTS, TWO_TEXTS, TWO_TEXTS], 2)
@example([said("x", usage=USAGE), said("\n\n"), said('"usage"')], 2)
def test_as_much_is_seen_of_events_that_come_together_as_of_each_alone(events: list[bytes], together: int) -> None:
    each, several = chat_meter(ChatDecoder()), chat_meter(ChatDecoder())
    for one in events:
        if not each.complete and each.error is None:
            each.feed(one)
    for batch in (events[place : place + together] for place in range(0, len(events), together)):
        if not several.complete and several.error is None:
            several.feed(b"".join(batch))
    # What is measured and not read is measured as it is written: an escape takes up to six bytes for one letter.
    slack = sum(one.count(b"\\") for one in events) * 5 / 4
    assert (end(several), several.seen) == (end(each), pytest.approx(each.seen, abs=slack + 1e-6))


def test_nearly_all_answers_are_counted_without_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    # The package has a hook of the module's name.
    monkeypatch.setattr(sys.modules["relay_openai.family"], "upstream_json", None)
    details = {"prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 3}}
    body = {"choices": [{"index": 0, "message": {"content": "x"}}], "usage": {**USAGE, **details}, "error": None}
    counted = count_response(TARGET, json.dumps(body).encode())
    assert counted is not None
    assert (counted.input, counted.output, counted.cache_read, counted.reasoning) == (5, 7, 2, 3)


def test_nearly_all_events_are_counted_without_any_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reader, "read", None)
    monkeypatch.setattr(Meter, "add", None)
    meter = chat_meter(ChatDecoder())
    first = {"role": "assistant", "content": "", "refusal": None}
    meter.feed(event({"id": "c", "choices": [{"index": 0, "delta": first, "finish_reason": None}], "usage": None}))
    assert not meter.begun
    meter.feed(event(chunk("four letters")))
    meter.feed(event(chunk("four letters")) * 2 + event(chunk(finish="stop")))
    meter.feed(event({**chunk(usage=USAGE), "choices": []}) + b"data: [DONE]\n\n")
    assert (meter.seen, meter.ended, meter.complete) == (9, 1, True)
    assert meter.usage is not None
    assert meter.usage.output == 7


def test_plain_deltas_are_not_decoded_and_yet_counted() -> None:
    fed: list[bytes] = []

    class Spy(ChatDecoder):
        def count(self, data: bytes, meter: Meter, /) -> tuple[int, int, str | None]:
            fed.append(data)
            return super().count(data, meter)

    meter = chat_meter(Spy())
    for _ in range(500):
        meter.feed(event(chunk("four letters")))
    assert len(fed) == 1
    assert meter.seen == pytest.approx(500 * 3, rel=0.02)


@pytest.mark.parametrize(
    "between",
    [
        event(chunk("x", finish="stop")),
        event(chunk("x", usage=USAGE)),
        event({"error": {"message": "broke"}}),
        event({**chunk("x"), "id": "other"}) + event(chunk("x", finish="length")),
        b"event: error\ndata: {}\n\n",
        b"data: [DONE]\n\n",
    ],
)
def test_what_matters_is_found_between_any_deltas(between: bytes) -> None:
    text = event(chunk("abc"))
    for before in (1, 2, 5):
        data = text * before + between + event({**chunk("x"), "id": "other"}) + text * 3 + between + text
        assert end(skimmed(data, [])) == end(decoded(data))
        assert end(skimmed(data, [len(text)])) == end(decoded(data))


@pytest.mark.shared
def test_recorded_streams_end_as_their_decoder_says(traffic: Any) -> None:
    count = 0
    for exchange in traffic.exchanges(str(Path(traffic.__file__).parent), streaming=True, status=200):
        if exchange["dialect"] != "openai-chat":
            continue
        data = traffic.body(exchange)
        count += 1
        full = decoded(data)
        for step in (len(data), 700, 7):
            meter = skimmed(data, list(range(step, len(data), step)))
            assert end(meter) == end(full), exchange["id"]
            if full.seen > 50:
                assert 0.5 < meter.seen / full.seen < 2, (exchange["id"], meter.seen, full.seen)
    assert count > 400


def bare(delta: dict[str, Any], **more: Any) -> bytes:
    """A chunk of a host that leaves out what it has not."""
    return event({"choices": [{"delta": delta, **more}]})


LAST = b"data: [DONE]\n\n"
ALIKE = {
    "an error": [
        event({"choices": [{"delta": {"content": ""}}], "error": {"message": "no"}, "of": [{"a": {"b": "c"}}]}),
        bare({"content": "x"}, finish_reason="stop"),
        LAST,
    ],
    "a reason": [bare({"content": "x"}, finish_reason="stop", stop={"word": "end"}), bare({"content": "z"}), LAST],
    "a count": [
        bare({"content": "x"}, finish_reason="stop"),
        event({"choices": [{"delta": {"content": ""}}], "usage": USAGE, "of": [{"a": {"b": "c"}}]}),
        LAST,
    ],
}


@pytest.mark.promise("U-07")
@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("kind", ALIKE)
def test_chunks_that_begin_and_end_like_text_are_read_all_the_same(kind: str, cut: bool) -> None:
    pieces = [bare({"content": "a"}), bare({"content": "b"}), *ALIKE[kind]]
    data = b"".join(pieces)
    meter = chat_meter(ChatDecoder())
    for piece in pieces if cut else [data]:
        if not meter.complete and meter.error is None:
            meter.feed(piece)
    if not meter.complete and meter.error is None:
        meter.close()
    assert end(meter) == end(decoded(data))
    assert meter.complete or meter.error


def call_piece(index: int, number: int = 0, **more: Any) -> bytes:
    """A piece of a call's arguments, in which another call may begin."""
    said = {"index": index, **({"id": f"c{number}", "type": "function"} if number else {}), **more}
    return event(chunk() | {"choices": [{"index": 0, "delta": {"tool_calls": [said]}, "finish_reason": None}]})


ARGUMENTS = st.sampled_from(
    ["", "a", "ab", '{"a": "', '"}', "\n", "\\", '\\"', "\x00é漢😀", "\ud83d", "\ude00", "x" * 40]
)
CALL_PIECES = st.one_of(
    st.builds(
        lambda index, text: call_piece(index, function={"arguments": text}), st.sampled_from([0, 0, 0, 1]), ARGUMENTS
    ),
    st.builds(
        lambda index, number, text: call_piece(index, number, function={"name": "f", "arguments": text}),
        st.sampled_from([0, 0, 1]),
        st.integers(1, 3),
        ARGUMENTS,
    ),
    WORDS.map(chunk).map(event),
    st.just(event(chunk(usage=USAGE))),
    st.just(b": comment\n\n"),
)


@settings(max_examples=times(150), deadline=None)
@given(st.lists(CALL_PIECES, max_size=16), st.lists(st.integers(0, 10_000), max_size=4), st.booleans())
@example(
    [call_piece(0, 1, function={"name": "f", "arguments": ""})] + [call_piece(0, function={"arguments": "x"})] * 9,
    [],
    True,
)
def test_calls_that_somebody_checks_are_put_together_as_if_all_were_read(
    pieces: list[bytes], cuts: list[int], each: bool
) -> None:
    data, decoder, whole = b"".join(pieces), ChatDecoder(), Meter(keep_calls=True)
    whole.add(decoder.feed(data))
    meter = chat_meter(ChatDecoder())
    meter.keep_calls = True
    if each:
        for piece in pieces:
            meter.feed(piece)
    else:
        places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
        for start, stop in itertools.pairwise(places):
            meter.feed(data[start:stop])
    if whole.error is None:
        assert meter.calls() == whole.calls()
        assert meter.calls() == whole.calls()


def test_tool_calls_between_what_begins_and_ends_like_text_are_kept_for_who_checks_them() -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    data = [
        bare({"content": "a", "role": "assistant"}),
        bare({"content": "", "tool_calls": [call], "reasoning": "hm", "role": "assistant"}),
        bare({}, finish_reason="tool_calls"),
        LAST,
    ]
    meter = chat_meter(ChatDecoder())
    meter.keep_calls = True
    for piece in data:
        meter.feed(piece)
    assert [call.name for call in meter.calls()] == ["f"]


@pytest.mark.parametrize("text", ['say \\"hi\\"', "a\\\\", '\\\\\\"', "\\u00e9", ""])
@pytest.mark.parametrize("filled", [False, True])
def test_escapes_are_text_like_any_other(text: str, filled: bool) -> None:
    filling = ',"obfuscation":"ab"' if filled else ""

    def of(text: str) -> bytes:
        choice = f'{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}'
        return f'data: {{"choices":[{choice}]{filling}}}\n\n'.encode()

    meter = chat_meter(ChatDecoder())
    meter.feed(of("Hello"))
    mould, before = meter.mould, meter.seen
    assert mould is not None
    meter.feed(of(text))
    assert meter.seen - before == len(text) / 4, "it was measured, and not decoded"
    chunk = b"%x\r\n%s\r\n" % (len(of(text)), of(text))
    assert chunks(chunk, 0, mould) == (len(chunk), len(text))
    meter.feed(of(text) + of(text))
    assert meter.seen - before == 3 * len(text) / 4
