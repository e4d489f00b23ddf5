"""Counting and guarding streams that pass through."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay import Head, Target, Upstream
from relay.errors import UpstreamProtocol
from relay.events import KeepsAlive, StreamMeter, TellsFailure
from relay.meter import Meter
from relay_openai.responses.dialect import OpenAIResponses
from relay_openai.responses.skim import PassedStream, piece_mould, responses_meter
from relay_openai.responses.stream import ResponsesDecoder
from tests.effort import times

ANSWER = {"id": "resp_1", "object": "response", "status": "in_progress", "output": []}
USAGE = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}
KINDS = ["output_text", "reasoning_summary_text", "reasoning_text", "function_call_arguments"]


def piece(text: str, number: int, *, kind: str = "output_text", filling: str | None = "x", late: bool = True) -> Any:
    value: dict[str, Any] = {"type": f"response.{kind}.delta"}
    if not late:
        value["sequence_number"] = number
    value |= {"content_index": 0, "delta": text, "item_id": "msg_1", "logprobs": []}
    if filling is not None:
        value["obfuscation"] = filling
    value["output_index"] = 0
    return value | ({"sequence_number": number} if late else {})


def frame(value: Any, named: bool = True) -> bytes:
    name = f"event: {value['type']}\n" if named else ""
    return f"{name}data: {json.dumps(value, separators=(',', ':'))}\n\n".encode()


def stream(*values: Any, end: bool = True, named: bool = True) -> bytes:
    first = {"type": "response.created", "response": ANSWER}
    last = {"type": "response.completed", "response": {**ANSWER, "status": "completed", "usage": USAGE}}
    return b"".join(frame(value, named) for value in [first, *values, *([last] if end else [])])


def skimmed(data: bytes, cuts: list[int]) -> Any:
    meter = responses_meter(ResponsesDecoder(fill=False))
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, stop in itertools.pairwise(places):
        if not meter.complete and meter.error is None:
            meter.feed(data[start:stop])
    if not meter.complete and meter.error is None:
        meter.close()
    return meter


def decoded(data: bytes) -> Meter:
    meter, decoder = Meter(), ResponsesDecoder()
    meter.add(decoder.feed(data))
    meter.add(decoder.close())
    return meter


def end(meter: Any) -> tuple[Any, ...]:
    return meter.complete, meter.usage, meter.begun, meter.error and (type(meter.error), meter.error.message)


WORDS = st.sampled_from(
    ["a", " hello", '"usage"', "error", "data:", "\n\n", "\u00e9\u4e16", "event: x", '","item_id":"']
)
FILLING = st.sampled_from([None, "", "x", "xyz"])
PIECES = st.builds(
    lambda text, kind, filling, late: piece(text, 3, kind=kind, filling=filling, late=late),
    WORDS,
    st.sampled_from(KINDS),
    FILLING,
    st.booleans(),
)
OTHERS = st.sampled_from(
    [
        {"type": "keepalive", "sequence_number": 1},
        {"type": "response.output_text.done", "text": "a", "output_index": 0, "content_index": 0},
        {"type": "error", "error": {"message": "odd"}},
        {"type": "response.failed", "response": {**ANSWER, "status": "failed", "error": {"message": "broke"}}},
        {"type": "response.incomplete", "response": {**ANSWER, "status": "incomplete", "usage": USAGE}},
    ]
)


VALUES = st.lists(st.one_of(PIECES, PIECES, OTHERS), max_size=12)


@given(VALUES, st.lists(st.integers(0, 9999), max_size=6), st.booleans())
@settings(max_examples=times(80), deadline=None)
def test_the_meter_ends_where_the_decoder_does(values: list[Any], cuts: list[int], complete: bool) -> None:
    data = stream(*values, end=complete)
    assert end(skimmed(data, cuts)) == end(decoded(data))


TEXTS = st.sampled_from(["a", "ab", '{"a": "', '"}', "\n", "\\", '\\"', "\x00é漢😀", "x" * 40])
PLACES = st.sampled_from([0, 0, 0, 1])
CALLED = st.sampled_from(["function_call", "function_call", "custom_tool_call"])


def item(kind: str, place: int, called: str, text: str = "") -> dict[str, Any]:
    """A call that is announced, or complete."""
    name = "input" if called == "custom_tool_call" else "arguments"
    fields = {"type": called, "id": f"fc_{place}", "call_id": f"c{place}", "name": "f", name: text}
    return {"type": f"response.output_item.{kind}", "output_index": place, "item": fields}


def call_delta(place: int, called: str, text: str, filling: str | None) -> dict[str, Any]:
    kind = "custom_tool_call_input" if called == "custom_tool_call" else "function_call_arguments"
    return piece(text, 7, kind=kind, filling=filling) | {"output_index": place, "item_id": f"fc_{place}"}


CALL_PIECES = st.one_of(
    st.builds(call_delta, PLACES, CALLED, TEXTS, FILLING),
    st.builds(call_delta, PLACES, st.just("function_call"), TEXTS, st.just("x")),
    st.builds(item, st.sampled_from(["added", "added", "done"]), PLACES, CALLED, TEXTS),
    st.builds(lambda text: piece(text, 3) | {"output_index": 5}, WORDS),
    st.just({"type": "keepalive", "sequence_number": 1}),
)


@settings(max_examples=times(200), deadline=None)
@given(st.lists(CALL_PIECES, max_size=16), st.lists(st.integers(0, 9999), max_size=4), st.booleans(), st.booleans())
@example([item("added", 0, "function_call"), *[call_delta(0, "function_call", "x", "x")] * 9], [], True, True)
def test_calls_that_somebody_checks_are_put_together_as_if_all_were_read(
    values: list[Any], cuts: list[int], each: bool, complete: bool
) -> None:
    output = [one["item"] for one in values if one["type"] == "response.output_item.done"] if complete else []
    answer = {**ANSWER, "status": "completed", "usage": USAGE, "output": output}
    first = {"type": "response.created", "response": ANSWER}
    frames = [*map(frame, [first, *values, {"type": "response.completed", "response": answer}])]
    data, decoder, whole = b"".join(frames), ResponsesDecoder(), Meter(keep_calls=True)
    whole.add(decoder.feed(data))
    meter = responses_meter(ResponsesDecoder(fill=False))
    meter.keep_calls = True
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for one in frames if each else [data[start:stop] for start, stop in itertools.pairwise(places)]:
        if not meter.complete:
            meter.feed(one)
    assert meter.calls() == whole.calls()
    assert meter.complete == whole.complete


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("filling", [None, "abc"])
@pytest.mark.parametrize("named", [True, False])
def test_pieces_are_measured_without_being_decoded(kind: str, filling: str | None, named: bool) -> None:
    pieces = [piece("word", number, kind=kind, filling=filling and filling * number) for number in range(1, 100)]
    added = {"type": "response.output_item.added", "output_index": 0}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}
    data = stream(*([added | {"item": call}] if "call" in kind else []), *pieces, end=False, named=named)
    read: list[bytes] = []

    class Decoder(ResponsesDecoder):
        def feed(self, data: bytes, /) -> Any:
            read.append(data)
            return super().feed(data)

    meter = responses_meter(Decoder(fill=False))
    for start in range(0, len(data), 500):
        meter.feed(data[start : start + 500])
    assert isinstance(meter, StreamMeter)
    assert len(read) < 6
    assert 95 <= meter.seen <= 120


def test_what_is_no_plain_piece_has_no_mould() -> None:
    assert piece_mould(frame(piece("a", 1))) is not None
    for value in (
        piece("a", 1, late=False),
        piece("a", 1, kind="refusal"),
        {"type": "response.completed", "response": {"delta": "x"}},
        {"type": "response.output_text.done", "text": "x"},
    ):
        assert piece_mould(frame(value)) is None
    assert piece_mould(frame(piece("a", 1)) * 2) is None


# The filter.


def passed() -> Any:
    dialect = OpenAIResponses(now=lambda: 1700000000, new_id=lambda: "resp_new")
    head = Head("generate", "m", b'{"model":"m"}', {"model": "m", "input": "Hi"}, stream=True)
    return dialect.forward(head, Target(Upstream("u", "openai", "https://u.test/v1"), "m")).filter


def failure(one: Any) -> Any:
    name, data, *_ = one.failure(UpstreamProtocol("broke off")).decode().split("\n")
    assert name == "event: response.failed"
    return json.loads(data.removeprefix("data: "))


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_whole_events_pass_untouched(size: int) -> None:
    data = stream(piece("a", 1), piece("b", 2))
    one = passed()
    got = b"".join(one.feed(data[at : at + size]) for at in range(0, len(data), size))
    assert got + one.close() == data


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_failure_goes_on_where_the_stream_broke_off(size: int) -> None:
    first = {"type": "response.created", "sequence_number": 0, "response": {"object": "response", **ANSWER}}
    data = frame(first) + frame(piece('{"id":"resp_fake"}', 1)) + frame(piece("b", 2)) + b'event: x\ndata: {"sequ'
    one = passed()
    for at in range(0, len(data), size):
        one.feed(data[at : at + size])
    told = failure(one)
    assert (told["response"]["id"], told["response"]["status"]) == ("resp_1", "failed")
    assert told["response"]["error"]["message"] == "broke off"
    assert told["sequence_number"] == 3


def test_a_failure_before_anything_was_said_has_an_id_of_its_own() -> None:
    told = failure(passed())
    assert (told["response"]["id"], told["sequence_number"]) == ("resp_new", 0)


def test_an_id_that_comes_behind_other_objects_is_found_and_nothing_else_is_taken_for_it() -> None:
    for response in (
        {"object": "response", "tools": [], "id": "resp_1"},
        {"created_at": 1, "model": 'a"b{', "id": "resp_1"},
    ):
        one = passed()
        one.feed(frame({"type": "response.created", "response": response}))
        assert failure(one)["response"]["id"] == "resp_1"
    one = passed()
    one.feed(frame({"type": "response.created", "response": {"reasoning": {"id": "no"}}}))
    assert failure(one)["response"]["id"] == "resp_new"


def test_silence_is_a_comment_until_the_answer_has_begun() -> None:
    one = passed()
    assert isinstance(one, PassedStream)
    assert isinstance(one, KeepsAlive)
    assert isinstance(one, TellsFailure)
    assert one.keep_alive().startswith(b":")
    one.feed(stream(end=False))
    assert one.keep_alive() == b'event: keepalive\ndata: {"type":"keepalive"}\n\n'
