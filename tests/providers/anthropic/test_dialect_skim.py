"""The cheap meter must come to the same end as the decoder it stands before, however the bytes are cut."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import relay_anthropic
from relay.errors import UpstreamError
from relay.ir import Usage
from relay.meter import Meter
from relay.skim import SkimmingMeter
from relay_anthropic.mould import delta_mould
from relay_anthropic.skim import messages_meter
from relay_anthropic.stream import MessagesDecoder
from tests.effort import times


def event(kind: str, padding: int = 0, **fields: Any) -> bytes:
    text = json.dumps({"type": kind, **fields}, separators=(",", ":"), ensure_ascii=False)
    return f"event: {kind}\ndata: {text[:-1]}{' ' * padding}}}\n\n".encode()


def delta(text: str, kind: str = "text_delta", field: str = "text", padding: int = 0, index: int = 0) -> bytes:
    return event("content_block_delta", padding, index=index, delta={"type": kind, field: text})


START = event("message_start", message={"id": "i", "model": "m", "usage": {"input_tokens": 5, "output_tokens": 1}})
OPEN = event("content_block_start", index=0, content_block={"type": "text", "text": ""})
ENDING = event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 40})
STOP = event("message_stop")
ERROR = event("error", error={"type": "overloaded_error", "message": "busy"})


def end(meter: Any) -> tuple[Any, ...]:
    return meter.complete, meter.begun, meter.usage, meter.error and (type(meter.error), meter.error.message)


def skimmed(data: bytes, cuts: list[int]) -> SkimmingMeter:
    meter = messages_meter()
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, stop in itertools.pairwise(places):
        if not meter.complete and meter.error is None:
            meter.feed(data[start:stop])
    if not meter.complete and meter.error is None:
        meter.close()
    return meter


def decoded(data: bytes) -> Meter:
    meter, decoder = Meter(), MessagesDecoder()
    meter.add(decoder.feed(data))
    meter.add(decoder.close())
    return meter


WORDS = st.sampled_from(
    ["a", "hello world", "message_stop", '"usage"', "error", "data:", "\n\n", "\u00e9\u4e16", '"}', "}"]
)
PIECES = st.one_of(
    st.builds(delta, WORDS, padding=st.integers(0, 3)),
    st.builds(lambda text, pad: delta(text, "thinking_delta", "thinking", pad, 1), WORDS, st.integers(0, 2)),
    st.builds(lambda text: delta(text, "input_json_delta", "partial_json", index=2), WORDS),
    st.just(event("content_block_start", index=1, content_block={"type": "thinking", "thinking": ""})),
    st.just(event("content_block_start", index=2, content_block={"type": "tool_use", "id": "t", "name": "f"})),
    st.just(delta("sig", "signature_delta", "signature", index=1)),
    st.sampled_from([event("ping"), b": comment\n\n", b"data: {\n\n", b"\n", ENDING, STOP, ERROR]),
)


@settings(max_examples=times(120), deadline=None)
@given(st.lists(PIECES, max_size=12), st.lists(st.integers(0, 10_000), max_size=6), st.sampled_from(["\n", "\r\n"]))
def test_any_stream_cut_anywhere_ends_as_its_decoder_says(pieces: list[bytes], cuts: list[int], ends: str) -> None:
    data = b"".join([START, OPEN, *pieces]).replace(b"\n", ends.encode())
    assert end(skimmed(data, cuts)) == end(decoded(data))


def call_start(index: int, number: int) -> bytes:
    return event(
        "content_block_start", index=index, content_block={"type": "tool_use", "id": f"t{number}", "name": "f"}
    )


def call_delta(text: str, padding: int, index: int) -> bytes:
    return delta(text, "input_json_delta", "partial_json", padding, index)


ARGUMENTS = st.sampled_from(["", "a", "ab", '{"a": "', '"}', "\n", "\\", '\\"', "\x00é漢😀", "x" * 40])
CALL_PIECES = st.one_of(
    st.builds(call_delta, ARGUMENTS, st.integers(0, 2), st.sampled_from([1, 1, 1, 2])),
    st.builds(call_start, st.sampled_from([1, 1, 2]), st.integers(1, 3)),
    st.builds(lambda index: event("content_block_stop", index=index), st.sampled_from([1, 2])),
    st.builds(delta, WORDS),
    st.just(event("ping")),
)


@settings(max_examples=times(200), deadline=None)
@given(st.lists(CALL_PIECES, max_size=16), st.lists(st.integers(0, 10_000), max_size=4), st.booleans())
@example([call_start(1, 1)] + [call_delta("x", 0, 1)] * 9, [], True)
def test_calls_that_somebody_checks_are_put_together_as_if_all_were_read(
    pieces: list[bytes], cuts: list[int], each: bool
) -> None:
    pieces = [START, OPEN, *pieces]
    data, decoder, whole = b"".join(pieces), MessagesDecoder(), Meter(keep_calls=True)
    whole.add(decoder.feed(data))
    meter = messages_meter()
    meter.keep_calls = True
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for piece in pieces if each else [data[start:stop] for start, stop in itertools.pairwise(places)]:
        meter.feed(piece)
    if whole.error is None:
        assert meter.calls() == whole.calls()


@pytest.mark.parametrize("together", [1, 5])
def test_plain_deltas_are_not_decoded_and_yet_counted(together: int) -> None:
    fed: list[bytes] = []

    class Spy(MessagesDecoder):
        def feed(self, data: bytes, /) -> Any:
            fed.append(data)
            return super().feed(data)

    meter = SkimmingMeter(Spy(), delta_mould)
    meter.feed(START + OPEN)
    before = len(fed)
    for _ in range(100):
        meter.feed(delta("four letters") * together)
    assert len(fed) - before == 1
    assert meter.seen == pytest.approx(100 * together * 3, rel=0.02)


def test_padding_is_not_counted_as_text() -> None:
    meter = messages_meter()
    meter.feed(START + OPEN)
    for number in range(400):
        meter.feed(delta('four "}letters', padding=number % 16))
    assert meter.seen == pytest.approx(400 * 3.5, rel=0.1)


@pytest.mark.parametrize("between", [ENDING + STOP, STOP, ERROR, event("ping") + ENDING, b"data: {\n\n"])
def test_what_matters_is_found_between_any_deltas(between: bytes) -> None:
    text = delta("abc")
    for before in (1, 2, 5):
        data = START + OPEN + text * before + between + delta("x", padding=3) + text * 3 + between + text
        assert end(skimmed(data, [])) == end(decoded(data))
        assert end(skimmed(data, [len(START + OPEN), len(START + OPEN + text)])) == end(decoded(data))


@pytest.mark.parametrize(
    "body",
    [
        {"type": "message", "content": [], "usage": {"input_tokens": 5, "output_tokens": 2}},
        {"type": "message", "content": []},
        {"type": "message", "usage": {"input_tokens": 5}},
        {"type": "completion", "completion": "old"},
        {"type": "error", "error": {"type": "api_error", "message": "x"}},
    ],
)
def test_a_complete_answer_is_counted_or_left_to_the_full_reading(body: dict[str, Any]) -> None:
    usage = relay_anthropic.meter_response(json.dumps(body).encode())
    good = body["type"] == "message" and "content" in body and "usage" in body
    assert usage == (Usage(input=5, output=2, raw=body["usage"]) if good else None)


def test_what_is_no_json_is_no_answer() -> None:
    with pytest.raises(UpstreamError):
        relay_anthropic.meter_response(b"<html>")


@pytest.mark.shared
def test_recorded_streams_end_as_their_decoder_says(traffic: Any) -> None:
    count = 0
    for exchange in traffic.exchanges(str(Path(traffic.__file__).parent), streaming=True, status=200):
        if exchange["dialect"] != "anthropic-messages":
            continue
        data = traffic.body(exchange)
        count += 1
        full = decoded(data)
        for step in (len(data), 700, 7):
            meter = skimmed(data, list(range(step, len(data), step)))
            assert end(meter) == end(full), exchange["id"]
            if full.seen > 50:
                assert 0.5 < meter.seen / full.seen < 2, (exchange["id"], meter.seen, full.seen)
    assert count > 150
