from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay import Target, Upstream
from relay_openai.dialect import OpenAIChat
from relay_openai.metering import UsageFilter, WholeEvents, ask_for_usage

CHUNK = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"%b"}}],"usage":null}\n\n'
COUNT = b'data: {"id":"1","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
VERDICT = b'data: {"id":"","choices":[],"usage":null,"prompt_filter_results":[{"prompt_index":0}]}\n\n'
DONE = b"data: [DONE]\n\n"


def forward(raw: bytes, model: str = "m", **options: Any) -> Any:
    dialect = OpenAIChat()
    head = dialect.peek(raw, "generate", {}, {})
    target = Target(Upstream("u", "openai", "https://u.test/v1", options=options), model)
    return dialect.forward(head, target)


def test_bytes_that_need_no_change_are_the_same_object() -> None:
    for extra, kind in (
        (b"", type(None)),
        (b', "stream": false', type(None)),
        (b', "stream":true, "stream_options": {"include_usage" : true}', WholeEvents),
    ):
        raw = b'{ "model" : "m" ,"messages":[{}]' + extra + b"}\n"
        answer = forward(raw)
        assert answer.body is raw
        assert type(answer.filter) is kind


def test_only_the_name_of_the_model_changes_for_an_alias() -> None:
    raw = b'{ "messages":[{"role":"user","content":"\\u0041 \\"model\\": \\"m\\""}],\n "model" : "m" }'
    assert forward(raw, "vendor/x").body == raw.replace(b'"model" : "m"', b'"model" : "vendor/x"')


def test_a_stream_is_asked_to_count_tokens_and_nothing_else_changes() -> None:
    raw = b'\n{ "model" : "m", "stream": true ,"messages":[{"a":1.50}]}'
    answer = forward(raw)
    assert answer.body == b'\n{"stream_options":{"include_usage":true},' + raw[2:]
    assert isinstance(answer.filter, UsageFilter)


def test_a_renamed_stream_is_asked_too() -> None:
    answer = forward(b'{"model":"m","stream":true,"messages":[{}],"stream_options":{"x":[1, 2]}}', "other")
    assert answer.body == (
        b'{"model":"other","stream":true,"messages":[{}],"stream_options":{"include_usage":true,"x":[1, 2]}}'
    )


def test_a_host_that_refuses_the_question_is_not_asked() -> None:
    raw = b'{"model":"m","stream":true,"messages":[{}]}'
    answer = forward(raw, include_usage=False)
    assert answer.body is raw
    assert type(answer.filter) is WholeEvents


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"stream_options" : null', b'"stream_options" : {"include_usage":true}'),
        (b'"stream_options":{ }', b'"stream_options":{"include_usage":true}'),
        (b'"stream_options":{"include_usage": false}', b'"stream_options":{"include_usage": true}'),
        (b'"stream_options":{"include_usage":null,"a":1}', b'"stream_options":{"include_usage":true,"a":1}'),
        (b'"stream_options":\t{\n"a":{}}', b'"stream_options":\t{"include_usage":true,\n"a":{}}'),
    ],
)
def test_options_that_are_there_are_changed_in_place(before: bytes, after: bytes) -> None:
    decoy = b'{"x":{"stream_options":{"include_usage":false}},"y":{"stream_options":{}},"z":{"stream_options":null},'
    raw = decoy + before + b',"model":"m"}'
    assert ask_for_usage(raw, orjson.loads(raw)) == decoy + after + b',"model":"m"}'


def test_options_spelled_with_escapes_are_written_anew() -> None:
    raw = b'{"stream\\u005foptions":{},"model":"m"}'
    assert orjson.loads(ask_for_usage(raw, orjson.loads(raw))) == {
        "model": "m",
        "stream_options": {"include_usage": True},
    }


values = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text('aé"\\{}:, ', max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["stream_options", "include_usage", "model", "a"]), inner, max_size=3)
    ),
    max_leaves=12,
)
bodies = st.dictionaries(st.sampled_from(["messages", "stream_options", "x", "tools"]), values, max_size=4).map(
    lambda fields: {**fields, "model": "m"}
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bodies, st.sampled_from([None, 0, 2]), st.sampled_from([(",", ":"), (" , ", " : ")]), st.booleans())
def test_any_json_asked_for_usage_means_the_same_and_asks(
    data: dict[str, Any], indent: int | None, separators: tuple[str, str], ascii_only: bool
) -> None:
    raw = json.dumps(data, indent=indent, separators=separators, ensure_ascii=ascii_only).encode()
    old = data.get("stream_options")
    if isinstance(old, dict) and old.get("include_usage") is True:
        return
    asked = ask_for_usage(raw, orjson.loads(raw))
    wanted = {**data, "stream_options": {**(old if isinstance(old, dict) else {}), "include_usage": True}}
    assert orjson.loads(asked) == wanted
    if "stream_options" not in data:
        # Byte for byte: without what was put in, the original is back.
        assert asked.replace(b'"stream_options":{"include_usage":true},', b"", 1) == raw


def cut(data: bytes, sizes: list[int]) -> bytes:
    """What the filter lets through if the stream arrives in pieces of these sizes, over and over."""
    kept = UsageFilter()
    out = b""
    place = turn = 0
    while place < len(data):
        size = sizes[turn % len(sizes)]
        out += kept.feed(data[place : place + size])
        place, turn = place + size, turn + 1
    return out + kept.close()


def test_the_chunk_that_counts_is_dropped_and_every_other_byte_stays_for_any_cut() -> None:
    first, second = CHUNK % b"a", CHUNK % b'\\"choices\\":[] \\"usage\\":{}'
    stream = b": comment\n\n" + VERDICT + first + b"\n" + second + COUNT + DONE
    wanted = stream.replace(COUNT, b"")
    for place in range(1, len(stream)):
        kept = UsageFilter()
        assert kept.feed(stream[:place]) + kept.feed(stream[place:]) + kept.close() == wanted, place
    for sizes in ([1], [2], [3, 5], [7], [1, 100]):
        assert cut(stream, sizes) == wanted
    crlf, expected = stream.replace(b"\n", b"\r\n"), wanted.replace(b"\n", b"\r\n")
    for place in range(1, len(crlf)):
        kept = UsageFilter()
        assert kept.feed(crlf[:place]) + kept.feed(crlf[place:]) + kept.close() == expected, place
    assert cut(crlf, [1]) == expected
    assert cut(stream.replace(b"\n", b"\r"), [1]) == wanted.replace(b"\n", b"\r")


def test_a_chunk_that_counts_and_says_something_passes() -> None:
    both = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}],"usage":{"prompt_tokens":1}}\n\n'
    assert UsageFilter().feed(both) == both
    error = b'data: {"choices":[],"usage":{"prompt_tokens":1},"error":{"message":"x"}}\n\n'
    assert UsageFilter().feed(error) == error


def test_complete_events_pass_at_once_and_only_the_open_one_waits() -> None:
    kept = UsageFilter()
    first = CHUNK % b"a"
    assert kept.feed(first) == first
    assert kept.feed(first + first[:10]) == first
    assert kept.feed(first[10:]) == first


def test_line_ends_before_a_count_are_kept() -> None:
    for data, wanted in ((b"\n" + COUNT + DONE, b"\n" + DONE), (b"\r\n" + COUNT.rstrip(b"\n"), b"\r\n")):
        for size in (1, 1000):
            assert cut(data, [size]) == wanted


def test_a_caller_who_asked_gets_every_byte_but_never_half_an_event() -> None:
    stream = b": comment\n\n" + CHUNK % b"a" + COUNT + DONE
    for data in (stream, stream.replace(b"\n", b"\r\n")):
        ends = [0, *(place for place in range(len(data) + 1) if data[:place].endswith((b"\n\n", b"\n\r\n")))]
        for place in range(1, len(data)):
            kept = WholeEvents()
            passed = kept.feed(data[:place])
            assert passed == data[: max(end for end in ends if end <= place)]
            assert passed + kept.feed(data[place:]) + kept.close() == data
    kept = WholeEvents()
    assert kept.feed(COUNT.rstrip(b"\n")) == b""
    assert kept.close() == COUNT.rstrip(b"\n")


def test_a_count_without_its_blank_line_is_dropped_at_the_end_and_half_of_one_is_not() -> None:
    kept = UsageFilter()
    assert kept.feed(COUNT.rstrip(b"\n")) == b""
    assert kept.close() == b""
    kept = UsageFilter()
    assert kept.feed(COUNT[:40]) == b""
    assert kept.close() == COUNT[:40]


def test_an_endless_event_is_not_collected_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.kit.MAX_EVENT", 100)
    long = b"data: " + b"x" * 500 + b"\n\n"
    stream = long + COUNT + DONE
    assert cut(stream, [50]) == long + DONE
    assert cut(stream.replace(b"\n", b"\r\n"), [50]) == (long + DONE).replace(b"\n", b"\r\n")
    kept = UsageFilter()
    kept.feed(b"data: " + b"x" * 200)
    assert kept.feed(b"y" * 200) == b"y" * 200


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from([CHUNK % b"a", COUNT, VERDICT, DONE, b": c\n\n", b"\n"]), max_size=8), st.data())
def test_any_stream_in_any_pieces_loses_exactly_its_counts(frames: list[bytes], data: Any) -> None:
    stream = b"".join(frames)
    sizes = data.draw(st.lists(st.integers(1, 90), min_size=1, max_size=5))
    wanted = b"".join(frame for frame in frames if frame != COUNT)
    assert cut(stream, sizes) == wanted
