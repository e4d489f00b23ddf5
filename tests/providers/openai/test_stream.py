from __future__ import annotations

import json
from typing import Any

import pytest

from relay.errors import UpstreamBusy, UpstreamError, UpstreamProtocol, UpstreamRefused
from relay.events import (
    ArgumentsDelta,
    ChoiceStop,
    Event,
    Failure,
    Logprobs,
    MessageStart,
    MessageStop,
    PartExtra,
    PartStart,
    PartStop,
    SignatureDelta,
    TextDelta,
    ThinkingDelta,
    UsageSeen,
)
from relay.fold import Fold
from relay.ir import Media, Opaque, Refusal, Response, StopReason, Text, Thinking, ToolCall, Usage
from relay.secret import Secret
from relay_openai.shapes import citation_of
from relay_openai.stream import ChatDecoder, WholeDecoder

DONE = b"data: [DONE]\n\n"


def chunk(*choices: dict[str, Any], **fields: Any) -> bytes:
    value = {"id": "c1", "object": "chat.completion.chunk", "created": 5, "model": "m", "choices": choices, **fields}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def delta(*, index: int = 0, finish: str | None = None, **fields: Any) -> bytes:
    return chunk({"index": index, "delta": fields, "finish_reason": finish})


def decode(*frames: bytes, size: int = 0, **options: Any) -> list[Event]:
    data = b"".join(frames)
    decoder = ChatDecoder(**options)
    step = size or max(len(data), 1)
    events: list[Event] = []
    for start in range(0, len(data), step):
        events += decoder.feed(data[start : start + step])
    return events + decoder.close()


def response(*frames: bytes, **options: Any) -> Response:
    fold = Fold()
    fold.add(decode(*frames, **options))
    assert fold.error is None, fold.error
    assert fold.complete
    return fold.response()


def failure(events: list[Event]) -> Any:
    assert isinstance(events[-1], Failure)
    return events[-1].error


def test_a_plain_stream_becomes_these_events() -> None:
    events = decode(
        delta(role="assistant", content=None),
        delta(content="Hel"),
        delta(content="lo"),
        delta(finish="stop"),
        chunk(usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}),
        DONE,
    )
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert events == [
        MessageStart("c1", "m", 5),
        PartStart(0, Text("")),
        TextDelta(0, "Hel"),
        TextDelta(0, "lo"),
        UsageSeen(Usage(3, 2, raw=usage)),
        PartStop(0),
        ChoiceStop(StopReason("stop", "stop")),
        MessageStop(),
    ]


def rich() -> bytes:
    """A stream with everything that can be cut in two."""
    call = {"index": 0, "id": "t1", "type": "function", "function": {"name": "f", "arguments": ""}}
    return b"".join(
        [
            b"\xef\xbb\xbf: hello\n\n",
            b'data: {"id":"","model":"","choices":[],"prompt_filter_results":[1]}\n\n',
            delta(role="assistant", content="", reasoning="Hm "),
            delta(reasoning="ö", reasoning_details=[{"type": "reasoning.text", "text": "ö", "signature": "sig"}]),
            b": keep-alive\n\n",
            delta(content="Text 你好"),
            delta(tool_calls=[call]),
            delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a":'}}]),
            delta(tool_calls=[{"index": 0, "function": {"arguments": '"\\u00e9"}'}}]),
            delta(index=1, content="other"),
            chunk({"index": 1, "delta": {}, "finish_reason": "stop"}, {"index": 0, "delta": {}, "finish_reason": "x"}),
            chunk(usage={"prompt_tokens": 1, "completion_tokens": 2}),
            DONE,
        ]
    )


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_any_cut_gives_the_same_events(ending: bytes) -> None:
    data = rich()
    wanted = decode(data)
    data = data.replace(b"\n", ending)
    for place in range(1, len(data)):
        decoder = ChatDecoder()
        assert decoder.feed(data[:place]) + decoder.feed(data[place:]) + decoder.close() == wanted, place
    assert decode(data, size=1) == wanted
    assert decode(data, size=7) == wanted


def test_reasoning_text_and_tools_become_parts_in_order() -> None:
    folded = response(rich())
    assert folded.extra == {"openai-chat": {"prompt_filter_results": [1]}}
    first, second = folded.choices
    details = [{"type": "reasoning.text", "text": "ö", "signature": "sig"}]
    assert first.parts == [
        Thinking("Hm ö", "sig", dialect="openai-chat", extra={"openai-chat": {"reasoning_details": details}}),
        Text("Text 你好"),
        ToolCall("t1", "f", '{"a":"\\u00e9"}'),
    ]
    assert first.stop == StopReason("other", "x")
    assert second.parts == [Text("other")]


def test_keys_of_a_delta_mean_the_same_in_any_order() -> None:
    one = delta(content="b", reasoning_content="a", finish="stop")
    two = delta(reasoning_content="a", content="b", finish="stop")
    assert decode(one, DONE) == decode(two, DONE)
    assert [type(part) for part in response(one, DONE).choices[0].parts] == [Thinking, Text]


def test_reasoning_sent_under_two_names_counts_once() -> None:
    frames = delta(reasoning="a", reasoning_content="a"), delta(content="x", finish="stop"), DONE
    assert response(*frames).choices[0].parts[0] == Thinking("a", dialect="openai-chat")


def test_reasoning_that_comes_in_details_only_is_read_from_there() -> None:
    pieces = [{"type": "reasoning.summary", "summary": s, "index": 0, "format": "f"} for s in ("One ", "two")]
    locked = {"type": "reasoning.encrypted", "data": "zzz", "index": 1}
    frames = [delta(reasoning_details=[piece]) for piece in (*pieces, locked)]
    part = response(*frames, delta(finish="stop"), DONE).choices[0].parts[0]
    assert isinstance(part, Thinking)
    assert part.text == "One two"
    joined = {"type": "reasoning.summary", "summary": "One two", "index": 0, "format": "f"}
    assert part.extra == {"openai-chat": {"reasoning_details": [joined, locked]}}


def test_details_that_repeat_reasoning_already_sent_add_no_text() -> None:
    frames = [
        delta(reasoning="One"),
        delta(reasoning_details=[{"type": "reasoning.text", "text": "One", "signature": "s"}]),
        delta(finish="stop"),
        DONE,
    ]
    part = response(*frames).choices[0].parts[0]
    assert isinstance(part, Thinking)
    assert (part.text, part.signature) == ("One", "s")


def test_content_as_a_list_is_read_entry_by_entry() -> None:
    items = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]},
        {"type": "text", "text": "Yes"},
        {"type": "reference", "reference_ids": [1]},
        "plain",
    ]
    assert response(delta(content=items, finish="stop"), DONE).choices[0].parts == [
        Thinking("Hm", dialect="openai-chat"),
        Text("Yes"),
        Opaque("openai-chat", items[2]),
        Text("plain"),
    ]


def calls(*deltas: Any) -> list[tuple[str, str, str]]:
    frames = [delta(tool_calls=value) for value in deltas]
    parts = response(*frames, delta(finish="tool_calls"), DONE).choices[0].parts
    return [(part.id, part.name, part.arguments) for part in parts if isinstance(part, ToolCall)]


def fn(name: str | None = None, arguments: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **fields}


@pytest.mark.promise("U-07")
def test_tool_calls_are_told_apart_in_every_way_that_hosts_number_them() -> None:
    whole = [("a", "f", "{}"), ("b", "g", "[]")]
    # By number, interleaved.
    assert (
        calls(
            [fn("f", "", index=0, id="a")],
            [fn("g", "", index=1, id="b")],
            [fn(None, "[", index=1), fn(None, "{", index=0)],
            [fn(None, "}", index=0, id=""), fn("", "]", index=1, id=None)],
        )
        == whole
    )
    # Without numbers, whole.
    assert calls([fn("f", "{}", id="a"), fn("g", "[]", id="b")]) == whole
    # Without numbers, in pieces.
    assert calls([fn("f", "{", id="a")], [fn(None, "}")], [fn("g", "[", id="b")], [fn(None, "]", id="b")]) == whole
    # All numbered 0.
    assert calls([fn("f", "{}", index=0, id="a")], [fn("g", "[", index=0, id="b")], [fn(None, "]", index=0)]) == whole
    # The name repeated in every piece, and another id in every piece of one call.
    assert calls([fn("f", "{", index=0, id="a")], [fn("f", "}", index=0, id="a")]) == whole[:1]
    assert calls([fn("f", "{", index=0, id="a")], [fn(None, "}", index=0, id="zzz")]) == whole[:1]


@pytest.mark.promise("U-07")
def test_an_id_that_comes_late_is_waited_for_and_one_that_never_comes_is_made_up() -> None:
    assert calls([fn("f", "", index=0)], [fn(None, "{}", index=0, id="late")]) == [("late", "f", "{}")]
    made = calls([fn("f", "{}", index=0, id=""), fn("g", "{}", index=1)], [fn(None, " ", index=0)])
    assert [(name, arguments) for _, name, arguments in made] == [("f", "{} "), ("g", "{}")]
    ids = [name for name, _, _ in made]
    assert len(set(ids)) == 2
    assert all(name.startswith("call_") and len(name) <= 40 for name in ids)
    # The same stream always gets the same ids, whatever the cut.
    assert made == calls([fn("f", "{}", index=0, id=""), fn("g", "{}", index=1)], [fn(None, " ", index=0)])


def test_a_call_without_any_arguments_is_still_a_call() -> None:
    assert calls([{"index": 0, "id": "a", "type": "function", "function": {"name": "f"}}]) == [("a", "f", "")]


def test_arguments_that_came_as_an_object_are_written_as_json() -> None:
    assert calls([{"index": 0, "id": "a", "function": {"name": "f", "arguments": {"x": 1}}}]) == [("a", "f", '{"x":1}')]


def test_a_custom_tool_keeps_its_kind_and_a_vendors_field_stays_with_its_call() -> None:
    custom = {"index": 0, "id": "a", "type": "custom", "custom": {"name": "patch", "input": "*** "}}
    more = {"index": 0, "custom": {"input": "end"}}
    parts = response(delta(tool_calls=[custom]), delta(tool_calls=[more]), delta(finish="tool_calls"), DONE)
    call = ToolCall("a", "patch", '{"input":"*** end"}', extra={"openai-chat": {"type": "custom"}})
    assert parts.choices[0].parts == [call]
    signed = fn("f", "{}", index=0, id="a", extra_content={"v": {"signature": "s"}})
    parts = response(delta(tool_calls=[signed], finish="tool_calls"), DONE)
    assert parts.choices[0].parts[0].extra == {"openai-chat": {"extra_content": {"v": {"signature": "s"}}}}


def test_the_old_function_call_is_a_tool_call() -> None:
    frames = [
        delta(function_call={"name": "f", "arguments": ""}),
        delta(function_call={"arguments": "{}"}),
        delta(finish="function_call"),
        DONE,
    ]
    choice = response(*frames).choices[0]
    assert isinstance(choice.parts[0], ToolCall)
    assert (choice.parts[0].name, choice.parts[0].arguments) == ("f", "{}")
    assert choice.stop == StopReason("tool_calls", "function_call")


def test_a_stop_after_tool_calls_tells_that_tools_are_to_be_run() -> None:
    choice = response(delta(tool_calls=[fn("f", "{}", index=0, id="a")], finish="stop"), DONE).choices[0]
    assert choice.stop == StopReason("tool_calls", "stop")


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("length", "length"),
        ("model_length", "length"),
        ("tool_calls", "tool_calls"),
        ("content_filter", "filter"),
        ("sensitive", "filter"),
        ("insufficient_system_resource", "error"),
        ("error", "error"),
        ("brand_new", "other"),
    ],
)
def test_a_finish_reason_keeps_its_word_beside_its_meaning(word: str, kind: Any) -> None:
    assert response(delta(content="x", finish=word), DONE).choices[0].stop == StopReason(kind, word)


def test_the_string_that_stopped_the_model_is_told() -> None:
    frame = chunk({"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"})
    assert response(frame, DONE).choices[0].stop == StopReason("stop", "stop", "END")


def test_refusals_citations_logprobs_sound_and_pictures_are_read() -> None:
    token = {"token": "x", "logprob": -0.1}
    frames = [
        chunk(
            {"index": 0, "delta": {"content": "x"}, "logprobs": {"content": [token], "refusal": None}},
        ),
        delta(content="", annotations=[{"type": "url_citation", "url_citation": {"url": "u"}}]),
        chunk({"index": 0, "delta": {"refusal": "No"}, "logprobs": {"content": None, "refusal": [token]}}),
        delta(images=[{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]),
        delta(audio={"id": "a1", "data": "AA"}),
        delta(audio={"data": "BB", "transcript": "he"}),
        delta(audio={"transcript": "y", "expires_at": 9}),
        delta(finish="stop"),
        DONE,
    ]
    events = decode(*frames)
    assert Logprobs([token]) in events
    assert PartExtra(0, citation=citation_of({"type": "url_citation", "url_citation": {"url": "u"}})) in events
    choice = response(*frames).choices[0]
    assert choice.parts[1:] == [
        Refusal("No"),
        Media("image", "image/png", data="AAAA"),
        Media(
            "audio",
            data="AABB",
            extra={"openai-chat": {"id": "a1", "expires_at": 9, "transcript": "hey"}},
        ),
    ]
    assert choice.extra == {"openai-chat": {"refusal_logprobs": [token]}}


def usage(raw: Any, **fields: Any) -> Usage | None:
    return response(delta(content="x", finish="stop"), chunk(usage=raw, **fields), DONE).usage


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 1, "cache_write_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 0},
            },
            Usage(10, 5, cache_read=4, cache_write_5m=2, reasoning=3, audio_in=1, audio_out=0),
        ),
        ({"prompt_tokens": 10, "completion_tokens": 5, "prompt_cache_hit_tokens": 6}, Usage(10, 5, cache_read=6)),
        ({"prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 6}, Usage(10, 5, cache_read=6)),
        (
            {
                "prompt_tokens": 32,
                "completion_tokens": 40,
                "total_tokens": 696,
                "completion_tokens_details": {"reasoning_tokens": 624},
            },
            Usage(32, 664, reasoning=624),
        ),
        (
            {
                "prompt_tokens": 32,
                "completion_tokens": 664,
                "total_tokens": 696,
                "completion_tokens_details": {"reasoning_tokens": 624},
            },
            Usage(32, 664, reasoning=624),
        ),
        (
            {
                "prompt_tokens": 11,
                "completion_tokens": 15,
                "total_tokens": 401,
                "prompt_tokens_details": {"audio_tokens": 375},
            },
            Usage(386, 15, audio_in=375),
        ),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 1,
                "cache_creation_input_tokens": 30,
                "cache_creation": {"ephemeral_1h_input_tokens": 10},
            },
            Usage(100, 1, cache_write_5m=20, cache_write_1h=10),
        ),
        ({"prompt_tokens": 10, "completion_tokens": -1}, Usage(10, None)),
        ({"prompt_tokens": 10, "completion_tokens": 10**10}, Usage(10, None)),
        ({"prompt_tokens": True, "completion_tokens": 5}, Usage(None, 5)),
        ({"prompt_tokens": 1.0, "completion_tokens": 5}, Usage(None, 5)),
        ({"prompt_tokens": 1, "completion_tokens": 0, "prompt_tokens_details": 7}, Usage(1, 0)),
        ({"prompt_tokens": "1"}, None),
        ([], None),
        ("much", None),
    ],
)
def test_tokens_are_counted_where_hosts_put_them(raw: Any, wanted: Usage | None) -> None:
    seen = usage(raw)
    if wanted is None:
        assert seen is None
    else:
        assert seen is not None
        assert seen.raw == raw
        seen.raw = None
        assert seen == wanted


def test_the_last_count_wins_wherever_it_stands() -> None:
    early = {"prompt_tokens": 1, "completion_tokens": 1}
    late = {"prompt_tokens": 1, "completion_tokens": 9}
    counted = response(
        chunk({"index": 0, "delta": {"content": "x"}}, usage=early),
        chunk({"index": 0, "delta": {}, "finish_reason": "stop"}, usage=late),
        DONE,
    ).usage
    assert counted is not None
    assert counted.output == 9
    vendor = response(delta(content="x", finish="stop"), chunk(x_groq={"usage": late}), DONE).usage
    assert vendor is not None
    assert vendor.output == 9


def test_an_answer_is_complete_without_the_end_marker_once_every_choice_finished() -> None:
    assert isinstance(decode(delta(content="x", finish="stop"))[-1], MessageStop)
    # The blank line of the last event may be missing, too.
    assert isinstance(decode(delta(content="x"), delta(finish="stop").rstrip(b"\n"))[-1], MessageStop)


def test_two_end_markers_two_finish_reasons_and_data_after_the_end_change_nothing() -> None:
    wanted = decode(delta(content="x"), delta(finish="stop"), DONE)
    assert decode(delta(content="x"), delta(finish="stop"), DONE, DONE, delta(content="y")) == wanted
    assert decode(delta(content="x"), delta(finish="stop"), delta(content="", finish="stop"), DONE) == wanted
    decoder = ChatDecoder()
    decoder.feed(b"".join((delta(content="x"), delta(finish="stop"), DONE)))
    assert decoder.feed(delta(content="y")) == []
    assert decoder.close() == []


def test_an_end_marker_after_a_count_is_an_end() -> None:
    frames = delta(content="x"), chunk(usage={"prompt_tokens": 1, "completion_tokens": 1}), DONE
    assert response(*frames).choices[0].stop == StopReason("stop")


def test_a_stream_cut_short_is_never_complete() -> None:
    data = b"".join((delta(role="assistant"), delta(content="Hello"), delta(content=" you"), delta(finish="stop")))
    end = data.index(b'"finish_reason": "stop"')
    for place in range(end):
        error = failure(decode(data[:place]))
        assert isinstance(error, UpstreamProtocol)
        assert error.outcome == "upstream_cut"
    assert isinstance(failure(decode(delta(content="x"), DONE)), UpstreamProtocol)
    assert isinstance(failure(decode(delta(content="x", finish="stop"), delta(index=1, content="y"))), UpstreamProtocol)


def test_a_host_that_never_says_why_it_stopped_can_be_told_so() -> None:
    choice = response(delta(content="x"), DONE, finish_reason=False).choices[0]
    assert choice.stop == StopReason("stop")
    assert isinstance(failure(decode(DONE, finish_reason=False)), UpstreamProtocol)
    assert isinstance(failure(decode(delta(content="x"), finish_reason=False)), UpstreamProtocol)


@pytest.mark.parametrize(
    ("frame", "kind", "message", "code"),
    [
        (b'data: {"error":{"message":"Oh","code":502}}\n\n', UpstreamError, "Oh", "upstream_error"),
        (b'data: {"error":{"message":"Oh","type":"t","code":"c"}}\n\n', UpstreamError, "Oh", "c"),
        (b'event: error\ndata: {"error":{"message":"Oh","status_code":400}}\n\n', UpstreamRefused, "Oh", None),
        (b'event: error\ndata: {"message":"Oh","code":429}\n\n', UpstreamBusy, "Oh", None),
        (b'event: error\ndata: "Oh"\n\n', UpstreamError, "Oh", None),
        (b'data: {"object":"error","message":"Oh","code":503}\n\n', UpstreamBusy, "Oh", None),
        (b'data: [{"error":{"message":"Oh","code":400}}]\n\n', UpstreamRefused, "Oh", None),
        (b'data: {"choices":null,"base_resp":{"status_code":1008,"status_msg":"Oh"}}\n\n', UpstreamError, "Oh", "1008"),
        (b'data: {"error":"Oh"}\n\n', UpstreamError, "Oh", None),
        (b'data: {"error":{}, "object":"error"}\n\n', UpstreamError, "without a reason", None),
        (b"data: oops\n\n", UpstreamProtocol, "not JSON", None),
    ],
)
def test_an_error_in_mid_stream_ends_it_in_its_own_words(
    frame: bytes, kind: type[UpstreamError], message: str, code: str | None
) -> None:
    events = decode(delta(content="x"), frame, delta(content="y", finish="stop"), DONE)
    error = failure(events)
    assert isinstance(error, kind)
    assert message in error.message
    if code:
        assert error.code == code
    assert TextDelta(0, "y") not in events
    assert sum(isinstance(event, Failure) for event in events) == 1


def test_the_relays_own_key_is_never_in_an_error() -> None:
    secret = Secret("sk-live-123")
    frame = b'data: {"error":{"message":"key sk-live-123 is tired","code":500}}\n\n'
    assert "sk-live-123" not in failure(decode(frame, secret=secret)).message


@pytest.mark.parametrize(
    "payload",
    [
        b"{}",
        b"[]",
        b"7",
        b'"x"',
        b"null",
        b"",
        b'{"choices":7}',
        b'{"choices":[7,null]}',
        b'{"choices":[{"delta":7}]}',
        b'{"choices":[{"delta":{"content":7,"reasoning":7,"tool_calls":7,"refusal":7,"audio":7,"images":7}}]}',
        b'{"choices":[{"delta":{"tool_calls":[7,{},{"function":7},{"function":{"name":7,"arguments":7}}]}}]}',
        b'{"choices":[{"delta":{"content":[7,{},{"type":"thinking"},{"type":"text","text":7}]}}]}',
        b'{"choices":[{"delta":{"reasoning_details":[7,{"text":7}],"annotations":7,"function_call":7}}]}',
        b'{"choices":[{"delta":{"images":[7,{"image_url":{"url":"data:x"}}]},"logprobs":7}]}',
        b'{"choices":[{"delta":{},"logprobs":{"content":7,"refusal":7}}],"usage":7,"x_groq":7}',
        b'{"id":7,"model":7,"created":"x","choices":[{"index":"0","delta":{}}]}',
        b'{"error":null,"choices":[]}',
    ],
)
def test_nonsense_in_a_chunk_never_breaks_the_decoder(payload: bytes) -> None:
    events = decode(b"data: " + payload + b"\n\n", delta(content="x", finish="stop"), DONE)
    assert isinstance(events[-1], MessageStop)
    assert any(isinstance(event, TextDelta) and event.text == "x" for event in events)


def test_an_event_without_end_is_a_fault_of_the_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = ChatDecoder()
    monkeypatch.setattr(decoder._frames, "_limit", 100)
    assert isinstance(failure(decoder.feed(b"data: " + b"x" * 200)), UpstreamProtocol)
    assert decoder.feed(DONE) == []


def test_a_host_that_answers_whole_instead_of_streaming_is_understood() -> None:
    body = {
        "id": "c1",
        "created": 5,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }
    raw = json.dumps(body).encode()
    decoder = WholeDecoder()
    assert decoder.feed(raw[:10]) + decoder.feed(raw[10:]) == []
    fold = Fold()
    fold.add(decoder.close())
    assert fold.complete
    assert fold.response().choices[0].text == "Hello"
    assert decoder.close() == []
    broken = WholeDecoder()
    broken.feed(b'{"error":{"message":"Oh"}}')
    assert failure(broken.close()).message == "Oh"
    broken = WholeDecoder()
    broken.feed(raw[:20])
    assert isinstance(failure(broken.close()), UpstreamProtocol)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_stream_that_is_announced_as_one_object_is_read_as_a_stream(size: int) -> None:
    frames = b"\n" + delta(content="Hello") + delta(finish="stop") + DONE
    decoder = WholeDecoder()
    events = [event for at in range(0, len(frames), size) for event in decoder.feed(frames[at : at + size])]
    assert events + decoder.close() == decode(frames)
    assert isinstance(events[-1], MessageStop)
    cut = WholeDecoder()
    cut.feed(frames[:40])
    assert isinstance(failure(cut.close()), UpstreamProtocol)


def test_deltas_reach_their_parts_by_index() -> None:
    """Parts may be open side by side: two choices, two calls."""
    events = decode(
        delta(content="a"),
        delta(index=1, reasoning_content="b"),
        delta(content="c"),
        delta(tool_calls=[fn("f", "{", index=0, id="x"), fn("g", "[", index=1, id="y")]),
        delta(tool_calls=[fn(None, "}", index=0), fn(None, "]", index=1)]),
        delta(finish="tool_calls"),
        delta(index=1, finish="stop"),
        DONE,
    )
    owners = {event.index: event.choice for event in events if isinstance(event, PartStart)}
    assert owners == {0: 0, 1: 1, 2: 0, 3: 0}
    opened: set[int] = set()
    for event in events:
        if isinstance(event, PartStart):
            opened.add(event.index)
        elif isinstance(event, TextDelta | ThinkingDelta | SignatureDelta | ArgumentsDelta):
            assert event.index in opened
        elif isinstance(event, PartStop):
            opened.remove(event.index)
    assert not opened


def test_a_field_for_calls_that_is_only_filled_in_is_no_call() -> None:
    empty = {"function_call": {"name": "", "arguments": ""}, "tool_calls": None}
    answer = response(delta(content="4", **empty), delta(finish="stop", **empty), DONE)
    assert answer.choices[0].parts == [Text("4")]
