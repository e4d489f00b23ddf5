"""The meter must come to the same end as the decoder it stands in for, however the bytes are cut."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import relay_gemini
from relay.ir import Usage
from relay.meter import Meter
from relay_gemini.skim import ContentMeter
from relay_gemini.stream import GeminiDecoder
from tests.effort import times


def piece(*parts: Any, finish: Any = None, index: Any = 0, **fields: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": index}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], **fields}


def sse(*values: Any, ends: str = "\r\n") -> bytes:
    return b"".join(b"data: " + json.dumps(value).encode() + ends.encode() * 2 for value in values)


def end(meter: Any) -> tuple[Any, ...]:
    return meter.complete, meter.usage, meter.error and (type(meter.error), meter.error.message)


def fed(meter: Any, data: bytes, cuts: list[int]) -> Any:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, stop in itertools.pairwise(places):
        meter.feed(data[start:stop])
    meter.close()
    return meter


def decoded(data: bytes) -> Meter:
    meter, decoder = Meter(), GeminiDecoder()
    meter.add(decoder.feed(data))
    meter.add(decoder.close())
    return meter


USAGE = {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}
VALUES = st.one_of(
    st.builds(lambda text: piece({"text": text}), st.sampled_from(["a", "Hello", "\u4e16\n", 'data: {"x"}', "}]"])),
    st.builds(lambda text: piece({"text": text, "thought": True}), st.sampled_from(["", "hm"])),
    st.builds(lambda number: piece({"text": "x"}, index=number), st.sampled_from([0, 1, None, "1"])),
    st.builds(lambda reason: piece(finish=reason), st.sampled_from(["STOP", "SAFETY", 1, "", None, 99])),
    st.builds(lambda count: {"usageMetadata": {**USAGE, "candidatesTokenCount": count}}, st.integers(-1, 9)),
    st.sampled_from(
        [
            piece({"functionCall": {"name": "f", "args": {"a": 1}}}, usageMetadata=USAGE),
            piece({"functionCall": {}}),
            piece({"functionCall": "odd"}, 5, {"text": 5}),
            {"promptFeedback": {"blockReason": "SAFETY"}},
            {"promptFeedback": {}},
            {"error": {"code": 503, "message": "busy"}},
            {"candidates": {}},
            {"usageMetadata": []},
            {},
            [],
            [piece({"text": "in a list"})],
            5,
            "x",
        ]
    ),
)


@settings(max_examples=times(160), deadline=None)
@given(
    st.lists(VALUES, max_size=8),
    st.lists(st.integers(0, 10_000), max_size=6),
    st.sampled_from(["sse", "crlf", "array", "cut"]),
)
def test_any_stream_cut_anywhere_ends_as_its_decoder_says(values: list[Any], cuts: list[int], form: str) -> None:
    data = sse(*values, ends="\n" if form == "sse" else "\r\n")
    if form == "array":
        data = json.dumps(values, indent=1).encode()
    elif form == "cut":
        data = data[: len(data) // 2]
    assert end(fed(ContentMeter(), data, cuts)) == end(decoded(data))


CALLS = st.one_of(
    st.builds(
        lambda name, fields, index: piece({"functionCall": {**name, **fields}}, index=index),
        st.sampled_from([{"name": "f"}, {"name": "g", "id": "c"}, {}, {"name": 5}, {"name": ""}]),
        st.fixed_dictionaries(
            {},
            optional={
                "args": st.sampled_from([{"a": 1}, {"b": "é"}, {}, None, 5]),
                "partialArgs": st.sampled_from(
                    [[{"jsonPath": "$.a", "stringValue": "x", "willContinue": True}], [{"jsonPath": "$.a"}], [5], 5]
                ),
                "willContinue": st.booleans(),
            },
        ),
        st.sampled_from([0, 0, 0, 1]),
    ),
    st.builds(lambda text: piece({"text": text}), st.sampled_from(["", "a", "functionCall"])),
    st.just(piece({"text": "a"}, {"functionCall": {"name": "f", "args": {"c": 2}}}, {"text": "b"})),
    st.just(piece({"inlineData": {"mimeType": "image/png", "data": "AAAA"}})),
    st.sampled_from([piece({"functionCall": "odd"}), piece(finish="STOP"), {"usageMetadata": USAGE}, {}]),
)


@settings(max_examples=times(200), deadline=None)
@given(st.lists(CALLS, max_size=8), st.lists(st.integers(0, 10_000), max_size=4))
def test_calls_that_somebody_checks_are_put_together_as_if_all_were_read(values: list[Any], cuts: list[int]) -> None:
    data = sse(*values)
    whole, decoder = Meter(keep_calls=True), GeminiDecoder()
    whole.add(decoder.feed(data))
    whole.add(decoder.close())
    meter = ContentMeter()
    meter.keep_calls = True
    fed(meter, data, cuts)
    if whole.error is None:
        assert [(one.name, one.arguments) for one in meter.calls()] == [
            (one.name, one.arguments) for one in whole.calls()
        ]


@pytest.mark.parametrize(
    "values",
    [
        [{"promptFeedback": {"blockReason": "SAFETY"}}],
        [{"promptFeedback": {"blockReason": 1}}, {"usageMetadata": USAGE}],
        [{"promptFeedback": {"blockReason": "SAFETY"}}, piece({"text": "a"})],
        [piece({"text": "a"}, finish="STOP"), piece({"text": "b"}, index=1)],
        [piece({"text": "a"}, finish="STOP"), piece({"text": "b"}), {"usageMetadata": USAGE}],
        [piece({"text": "a"}, finish=1)],
        [{"usageMetadata": USAGE}],
        [{}],
    ],
)
def test_the_end_is_where_the_decoder_sees_it(values: list[Any]) -> None:
    assert end(fed(ContentMeter(), sse(*values), [])) == end(decoded(sse(*values)))


def test_output_begins_with_the_first_word() -> None:
    meter = ContentMeter()
    meter.feed(sse(piece({"text": ""}), {"usageMetadata": USAGE}))
    assert not meter.begun
    meter.feed(sse(piece({"text": "abcdefgh"})))
    assert (meter.begun, meter.complete, meter.seen) == (True, False, 2)
    meter.feed(sse(piece({"functionCall": {"name": "f", "args": {"a": "12345678"}}})))
    assert meter.seen == pytest.approx(6, abs=0.5)


def test_nothing_is_read_behind_an_error() -> None:
    meter = ContentMeter()
    meter.feed(sse({"error": {"code": 429, "message": "slow down"}}))
    assert meter.error is not None
    meter.feed(sse(piece({"text": "x"}, finish="STOP", usageMetadata=USAGE)))
    meter.close()
    assert (meter.complete, meter.usage, meter.error.status) == (False, None, 429)


@pytest.mark.parametrize(
    ("body", "good"),
    [
        ({**piece({"text": "a"}, finish="STOP"), "usageMetadata": USAGE}, True),
        (piece({"text": "a"}, finish="STOP"), False),
        ({"usageMetadata": USAGE}, False),
        ({"candidates": [], "usageMetadata": USAGE}, False),
        ({**piece({"text": "a"}), "usageMetadata": USAGE, "error": {"code": 500}}, False),
        ([piece({"text": "a"})], False),
        ("x", False),
    ],
)
def test_a_complete_answer_is_counted_or_left_to_the_full_reading(body: Any, good: bool) -> None:
    usage = relay_gemini.meter_response(json.dumps(body).encode())
    assert usage == (Usage(input=5, output=2, raw=USAGE) if good else None)
    assert relay_gemini.meter_response(b"<html>") is None
