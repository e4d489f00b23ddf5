"""The cheap meter of passed-through completions comes to the decoder's end, however the bytes are cut."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import UpstreamError, UpstreamProtocol
from relay.meter import Meter
from relay_openai.completions.reader import TextReader, completions_meter, decode_text
from relay_openai.stream import ChatDecoder


def event(value: Any, spaced: bool = False) -> bytes:
    separators = (", ", ": ") if spaced else (",", ":")
    return b"data: " + json.dumps(value, separators=separators).encode() + b"\n\n"


def chunk(text: str | None = "", finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "id": "c",
        "model": "m",
        "choices": [{"index": index, "text": text, "logprobs": None, "finish_reason": finish}],
        **more,
    }


def decoder() -> ChatDecoder:
    return ChatDecoder(reader=TextReader())


def end(meter: Any) -> tuple[Any, ...]:
    return meter.complete, meter.usage, meter.error and (type(meter.error), meter.error.message)


def metered(data: bytes, cuts: list[int]) -> Any:
    meter = completions_meter(decoder())
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, stop in itertools.pairwise(places):
        if not meter.complete and meter.error is None:
            meter.feed(data[start:stop])
    if not meter.complete and meter.error is None:
        meter.close()
    return meter


def decoded(data: bytes) -> Meter:
    meter, reader = Meter(), decoder()
    meter.add(reader.feed(data))
    meter.add(reader.close())
    return meter


WORDS = st.sampled_from(["a", "hello world", "[DONE]", '"text"', '"usage":{}', "data:", "\n\n", "é世", "\\"])
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
CHUNKS = st.one_of(
    WORDS.map(chunk),
    WORDS.map(lambda text: chunk(text, index=1, usage=None)),
    st.just(chunk(None, "stop")),
    st.just(chunk("x", "length")),
    st.just(chunk(choices=[], usage=USAGE)),
    st.just({"error": {"message": "broke"}}),
)


@given(st.lists(CHUNKS, max_size=12), st.booleans(), st.booleans(), st.lists(st.integers(0, 2000), max_size=6))
def test_any_cut_of_any_stream_ends_like_the_decoder(
    chunks: list[Any], spaced: bool, done: bool, cuts: list[int]
) -> None:
    data = b"".join(event(one, spaced) for one in chunks) + (b"data: [DONE]\n\n" if done else b"")
    meter, judge = metered(data, cuts), decoded(data)
    assert end(meter) == end(judge)
    assert abs(meter.seen - judge.seen) <= 2 * len(chunks)


def test_plain_text_is_measured_and_not_decoded() -> None:
    class Counting(ChatDecoder):
        fed = 0

        def feed(self, data: bytes, /) -> list[Any]:
            self.fed += 1
            return super().feed(data)

    inner = Counting(reader=TextReader())
    meter = completions_meter(inner)
    for _ in range(50):
        meter.feed(event(chunk("word ")))
    assert inner.fed == 1
    assert meter.seen == 50 * 5 / 4


def test_a_complete_answer_is_read_as_the_texts_it_holds() -> None:
    body = {
        "id": "c",
        "choices": [
            {"text": "b", "index": 1, "logprobs": None, "finish_reason": "length"},
            {"text": "", "index": 0, "logprobs": {"tokens": []}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    }
    response = decode_text(body, b"")
    assert [(choice.text, choice.stop and choice.stop.kind) for choice in response.choices] == [
        ("", "stop"),
        ("b", "length"),
    ]
    assert response.usage is not None
    assert (response.usage.input, response.usage.output) == (5, 0)


def test_what_is_no_answer_is_an_error() -> None:
    for body, kind in (({"choices": []}, UpstreamProtocol), ({"error": {"message": "x", "code": 400}}, UpstreamError)):
        try:
            decode_text(body, json.dumps(body).encode())
        except kind:
            continue
        raise AssertionError(body)


@pytest.mark.promise("U-07")
def test_a_finish_that_begins_and_ends_like_text_is_one() -> None:
    # From a host that leaves out what it has not.
    data = [
        event({"choices": [{"index": 0, "text": "Hello"}]}),
        event({"choices": [{"index": 0, "text": " you", "finish_reason": "stop"}]}),
        b"data: [DONE]\n\n",
    ]
    for pieces in (data, [b"".join(data)]):
        meter = completions_meter(decoder())
        for piece in pieces:
            meter.feed(piece)
        assert end(meter) == end(decoded(b"".join(data))) == (True, None, None)
