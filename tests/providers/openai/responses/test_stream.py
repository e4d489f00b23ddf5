"""Streams of hosts that speak Responses, each with a habit of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay import Secret
from relay.errors import UpstreamBusy, UpstreamError, UpstreamProtocol, UpstreamRefused
from relay.events import Event, Failure, MessageStart, MessageStop, TextDelta, UsageSeen
from relay.fold import Fold
from relay.ir import Media, Opaque, Refusal, StopReason, Text, Thinking, ToolCall
from relay_openai.responses.items import citation_of
from relay_openai.responses.response import decode_response
from relay_openai.responses.stream import ResponsesDecoder
from relay_openai.responses.wire import DIALECT
from relay_openai.stream import WholeDecoder

SECRET = Secret("sk-CANARY")
USAGE = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}


def answer(*output: Any, status: str = "completed", **more: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "status": status, "model": "m", "output": list(output), **more}


def message(text: str, **more: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": [], **more}]
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content}


def call(arguments: str = "{}", **more: Any) -> dict[str, Any]:
    return {"id": "fc_1", "type": "function_call", "call_id": "c1", "name": "f", "arguments": arguments, **more}


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", **fields}


CREATED = event("created", response=answer(status="in_progress", created_at=1700000000.5))


def completed(*output: Any, **more: Any) -> dict[str, Any]:
    return event("completed", response=answer(*output, usage=USAGE, **more))


def incomplete(reason: str) -> dict[str, Any]:
    return event("incomplete", response=answer(status="incomplete", incomplete_details={"reason": reason}))


def sse(*values: Any, named: bool = True) -> bytes:
    blocks = []
    for value in values:
        data = value if isinstance(value, str) else json.dumps(value)
        name = f"event: {value['type']}\n" if named and isinstance(value, dict) else ""
        blocks.append(f"{name}data: {data}\n\n")
    return "".join(blocks).encode()


def read(data: bytes, size: int = 0) -> list[Event]:
    decoder = ResponsesDecoder(secret=SECRET)
    step = size or max(len(data), 1)
    got: list[Event] = []
    for start in range(0, len(data), step):
        got += decoder.feed(data[start : start + step])
    return got + decoder.close()


def fold(*values: Any) -> Fold:
    folded = Fold()
    folded.add(read(sse(*values)))
    return folded


def parts(*values: Any) -> list[Any]:
    folded = fold(CREATED, *values)
    assert folded.error is None, folded.error
    assert folded.complete
    return folded.response().choices[0].parts


# Beginnings and ends.


@pytest.mark.parametrize("opening", ["created", "queued", "in_progress"])
def test_the_answer_begins_once(opening: str) -> None:
    first = event(opening, response=CREATED["response"])
    events = read(sse(first, CREATED, event("in_progress", response=CREATED["response"]), completed()))
    assert [item for item in events if isinstance(item, MessageStart)] == [MessageStart("resp_1", "m", 1700000000)]


def test_a_stream_without_a_beginning_has_one_all_the_same() -> None:
    events = read(sse(completed(message("x"))))
    assert isinstance(events[0], MessageStart)
    assert isinstance(events[-1], MessageStop)


@pytest.mark.parametrize(
    ("last", "stop"),
    [
        (completed(message("x")), StopReason("stop", "completed")),
        (completed(message("x"), call()), StopReason("tool_calls", "completed")),
        (
            incomplete("max_output_tokens"),
            StopReason("length", "max_output_tokens"),
        ),
        (
            incomplete("content_filter"),
            StopReason("filter", "content_filter"),
        ),
        (
            incomplete("steered"),
            StopReason("other", "steered"),
        ),
        (event("incomplete", response=answer(status="incomplete")), StopReason("other", "incomplete")),
    ],
)
def test_why_it_stopped(last: dict[str, Any], stop: StopReason) -> None:
    assert fold(CREATED, last).response().choices[0].stop == stop


def test_the_last_event_counts() -> None:
    usage = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 15,
    }
    seen = fold(CREATED, event("completed", response=answer(usage=usage))).response().usage
    assert seen is not None
    assert (seen.input, seen.output, seen.cache_read, seen.cache_write_5m, seen.reasoning) == (10, 5, 4, 1, 2)
    for broken in (None, {}, {"input_tokens": -1}, {"input_tokens": "3", "output_tokens": True}, 7):
        assert fold(CREATED, event("completed", response=answer(usage=broken))).response().usage is None


@pytest.mark.parametrize(
    "rest", [b"", b"data: [DONE]\n\n", b"event: x\ndata: {\n\n", b'data: {"type":"error"}\n\n', b"junk"]
)
def test_nothing_after_the_end_matters(rest: bytes) -> None:
    assert read(sse(CREATED, completed(message("x"))) + rest) == read(sse(CREATED, completed(message("x"))))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        sse(CREATED),
        sse(CREATED, event("output_text.delta", output_index=0, content_index=0, delta="half")),
        sse(CREATED, event("output_item.done", output_index=0, item=message("x"))),
        sse(CREATED, "[DONE]"),
        sse(CREATED) + b'data: {"type":"response.completed","resp',
    ],
)
def test_a_stream_without_its_end_is_cut(data: bytes) -> None:
    last = read(data)[-1]
    assert isinstance(last, Failure)
    assert isinstance(last.error, UpstreamProtocol)
    assert "ended before" in last.error.message


def test_an_end_without_its_blank_line_is_an_end() -> None:
    assert isinstance(read(sse(CREATED, completed()).rstrip())[-1], MessageStop)


@pytest.mark.parametrize(
    "broken", [sse("{not json"), sse(event("completed", response=None)), sse({"type": "response.completed"})]
)
def test_what_is_not_the_protocol_is_told(broken: bytes) -> None:
    last = read(sse(CREATED) + broken + sse(completed()))[-1]
    assert isinstance(last, Failure)
    assert isinstance(last.error, UpstreamProtocol)


# Errors.


def failed(**error: Any) -> dict[str, Any]:
    return event("failed", response=answer(status="failed", error=error or None, usage=USAGE))


@pytest.mark.parametrize(
    ("code", "kind", "status"),
    [
        ("rate_limit_exceeded", UpstreamBusy, 429),
        ("server_is_overloaded", UpstreamBusy, 503),
        ("context_length_exceeded", UpstreamRefused, 400),
        ("invalid_prompt", UpstreamRefused, 400),
        ("server_error", UpstreamError, 502),
        ("something_new", UpstreamError, 502),
    ],
)
def test_a_failed_answer_is_the_error_that_it_names(code: str, kind: type[UpstreamError], status: int) -> None:
    *before, last = read(sse(CREATED, failed(code=code, message="why, sk-CANARY")))
    assert isinstance(last, Failure)
    assert type(last.error) is kind
    assert (last.error.status, "CANARY" in last.error.message) == (status, False)
    assert last.error.message.startswith("why")
    assert isinstance(before[-1], UsageSeen)


def test_an_error_event_waits_for_the_failure_that_says_it_better() -> None:
    first = {"type": "error", "code": "server_error", "message": "first"}
    nested = {"type": "error", "error": {"code": "server_error", "message": "nested"}}
    bare = {"error": {"message": "bare"}}

    def told(*values: Any) -> str:
        events = read(sse(CREATED, *values, named=False))
        (failure,) = [item for item in events if isinstance(item, Failure)]
        return failure.error.args[0]

    assert told(first, failed(code="server_error", message="second")) == "second"
    assert told(first, failed()) == told(first) == told(first, "[DONE]") == "first"
    assert told(nested) == "nested"
    assert told(bare) == "bare"
    assert not [item for item in ResponsesDecoder().feed(sse(CREATED, first)) if isinstance(item, Failure)]


def test_a_complete_answer_that_failed_or_is_none() -> None:
    body = answer(status="failed", error={"code": "rate_limit_exceeded", "message": "slow"})
    with pytest.raises(UpstreamBusy, match="slow"):
        decode_response(body, json.dumps(body).encode())
    with pytest.raises(UpstreamError, match="odd"):
        decode_response({"error": {"message": "odd"}}, b"{}")
    with pytest.raises(UpstreamProtocol, match="no output"):
        decode_response({"id": "x"}, b"{}")


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelled"])
def test_an_answer_that_is_still_to_come_says_nothing(status: str) -> None:
    response = decode_response(answer(status=status), b"")
    assert (response.id, response.choices, response.usage) == ("resp_1", [], None)


# Habits of hosts.


def delta(text: str, **where: Any) -> dict[str, Any]:
    return event(
        "output_text.delta", **{"output_index": 0, "content_index": 0, "item_id": "msg_1", **where}, delta=text
    )


def done(item: dict[str, Any], place: int = 0) -> dict[str, Any]:
    return event("output_item.done", output_index=place, item=item)


ADDED = event("output_item.added", output_index=0, item={**message(""), "content": []})


def test_events_without_names_and_a_done_marker() -> None:
    events = read(sse(CREATED, ADDED, delta("Hi"), done(message("Hi")), completed(message("Hi")), named=False))
    assert events == read(sse(CREATED, ADDED, delta("Hi"), done(message("Hi")), completed(message("Hi"))))


def test_deltas_that_nobody_announced() -> None:
    assert parts(delta("H"), delta("i"), completed(message("Hi"))) == [Text("Hi")]


def test_text_that_comes_only_when_it_is_done() -> None:
    assert parts(ADDED, done(message("Hi")), completed()) == [Text("Hi")]
    assert parts(ADDED, completed(message("Hi"))) == [Text("Hi")]
    assert parts(completed(message("Hi"))) == [Text("Hi")]


def test_a_last_event_without_items_takes_nothing_back() -> None:
    assert parts(ADDED, delta("Hi"), done(message("Hi")), completed()) == [Text("Hi")]


def test_items_that_were_never_said_to_be_done_are() -> None:
    assert parts(ADDED, delta("Hi"), completed()) == [Text("Hi")]


def test_items_without_a_number_are_told_apart_by_their_id() -> None:
    def bare(value: dict[str, Any]) -> dict[str, Any]:
        return {key: item for key, item in value.items() if key != "output_index"}

    other = {**message("two"), "id": "msg_2"}
    values = [ADDED, delta("one"), delta("two", item_id="msg_2"), done(message("one")), done(other)]
    assert parts(*map(bare, values), completed(message("one"), other)) == [Text("one"), Text("two")]


def test_parts_that_are_counted_otherwise_in_the_message() -> None:
    assert parts(ADDED, delta("Hi", content_index=1), done(message("Hi")), completed(message("Hi"))) == [Text("Hi")]


def test_several_texts_in_one_message() -> None:
    item = {**message("a"), "content": [*message("a")["content"], {"type": "refusal", "refusal": "b"}, {"type": "new"}]}
    wanted = [Text("a"), Refusal("b"), Opaque(DIALECT, {"type": "new"})]
    refusal = event("refusal.delta", output_index=0, content_index=1, delta="b")
    assert parts(ADDED, delta("a"), refusal, done(item), completed(item)) == wanted
    assert parts(completed(item)) == wanted


def test_citations_are_told_once() -> None:
    one, two = {"type": "url_citation", "url": "1"}, {"type": "url_citation", "url": "2"}
    item = message("a", annotations=[one, two])
    added = event("output_text.annotation.added", output_index=0, content_index=0, annotation_index=0, annotation=one)
    cited = [citation_of(one), citation_of(two)]
    assert parts(ADDED, delta("a"), added, done(item), completed(item)) == [Text("a", citations=cited)]
    assert parts(completed(item)) == [Text("a", citations=cited)]


TOKEN = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}


@pytest.mark.parametrize("streamed", [True, False])
def test_log_probabilities_are_told_once(streamed: bool) -> None:
    item = message("a", logprobs=[TOKEN])
    piece = delta("a") | ({"logprobs": [TOKEN]} if streamed else {})
    choice = fold(CREATED, ADDED, piece, done(item), completed(item)).response().choices[0]
    assert choice.logprobs == [TOKEN]


def test_reasoning_in_parts() -> None:
    item = {
        "id": "rs_1",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}],
        "content": [{"type": "reasoning_text", "text": "c"}],
        "encrypted_content": "last",
    }
    kept = {key: item[key] for key in ("id", "summary", "content")}
    wanted = [Thinking("a\n\nb\n\nc", signature="last", dialect=DIALECT, extra={DIALECT: kept})]
    values = [
        event(
            "output_item.added", output_index=0, item={**item, "summary": [], "content": [], "encrypted_content": "1"}
        ),
        event("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="a"),
        event("reasoning_summary_text.delta", output_index=0, summary_index=1, delta="b"),
        event("reasoning_text.delta", output_index=0, content_index=0, delta="c"),
    ]
    assert parts(*values, done(item), completed(item)) == wanted
    assert parts(completed(item)) == wanted
    assert parts(values[0], done(item), completed()) == wanted


def test_calls_whole_and_in_pieces() -> None:
    wanted = [ToolCall("c1", "f", '{"a":1}', extra={DIALECT: {"id": "fc_1"}})]
    item = call('{"a":1}')
    added = event("output_item.added", output_index=0, item=call(""))
    pieces = [event("function_call_arguments.delta", output_index=0, delta=piece) for piece in ('{"a"', ":1}")]
    told = event("function_call_arguments.done", output_index=0, arguments='{"a":1}')
    assert parts(added, *pieces, told, done(item), completed(item)) == wanted
    assert parts(added, told, done(item), completed(item)) == wanted
    assert parts(pieces[0], done(item), completed(item)) == wanted
    assert parts(completed(item)) == wanted


def test_calls_of_custom_tools_are_those_of_a_function_of_one_string() -> None:
    text = 'a "b"\n\u00e9\U0001f30d\\'
    item = {"id": "ctc_1", "type": "custom_tool_call", "call_id": "c1", "name": "patch", "input": text}
    added = event("output_item.added", output_index=0, item={**item, "input": ""})
    pieces = [event("custom_tool_call_input.delta", output_index=0, delta=letter) for letter in text]
    for values in ([added, *pieces, done(item)], [added, done(item)], []):
        (part,) = parts(*values, completed(item))
        assert (part.id, part.name, json.loads(part.arguments)) == ("c1", "patch", {"input": text})
        assert part.extra == {DIALECT: {"id": "ctc_1", "type": "custom"}}


def test_a_call_in_a_namespace_has_its_name_before_its_own() -> None:
    (part,) = parts(completed(call(namespace="files")))
    assert (part.name, part.extra) == ("files__f", {DIALECT: {"id": "fc_1", "namespace": "files", "name": "f"}})


def test_a_search_for_tools_is_a_call_only_if_the_client_runs_it() -> None:
    item = {"id": "t", "type": "tool_search_call", "execution": "client", "call_id": "c", "arguments": {"query": "x"}}
    (part,) = parts(completed(item))
    assert (part.id, part.name, part.arguments) == ("c", "tool_search", '{"query":"x"}')
    server = {**item, "execution": "server", "call_id": None}
    assert parts(completed(server)) == [Opaque(DIALECT, server)]


@pytest.mark.parametrize("broken", [{"call_id": None}, {"name": 7}])
def test_a_call_that_cannot_be_answered_stays_what_it_is(broken: dict[str, Any]) -> None:
    item = call() | broken
    assert parts(completed(item)) == [Opaque(DIALECT, item)]


def test_pictures_and_the_vendors_own_tools() -> None:
    picture = {"id": "ig_1", "type": "image_generation_call", "status": "completed", "result": "AAAA"}
    search = {"id": "ws_1", "type": "web_search_call", "status": "completed"}
    searching = event("web_search_call.searching", output_index=0, item_id="ws_1")
    added = event("output_item.added", output_index=0, item=search)
    assert parts(added, searching, done(search), done(picture, 1), completed(search, picture)) == [
        Opaque(DIALECT, search),
        Media("image", "image/png", data="AAAA", extra={DIALECT: {"id": "ig_1"}}),
    ]


def test_events_of_unknown_kinds_and_shapes_are_passed_over() -> None:
    odd = [
        {"type": "keepalive", "sequence_number": 3},
        {"type": "response.new_thing", "delta": "x"},
        event("output_text.delta", output_index=0, content_index=0, delta=7),
        event("output_item.added", output_index=9),
        event("output_item.done", output_index=9, item="x"),
        event("function_call_arguments.delta", output_index=9, delta="x"),
        event("custom_tool_call_input.delta", output_index=9, delta="x"),
        event("reasoning_text.delta", output_index=9, delta=None),
        event("refusal.delta", output_index=9, delta=None),
        event("output_text.annotation.added", output_index=0),
        "[]",
        "7",
        '{"type":7}',
    ]
    assert parts(ADDED, *odd, delta("Hi"), done(message("Hi")), completed(message("Hi"))) == [Text("Hi")]


def test_a_meters_decoder_makes_up_for_no_texts_but_for_arguments_that_it_did_not_see() -> None:
    decoder = ResponsesDecoder(fill=False)
    item = {"id": "r", "type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}]}
    events = decoder.feed(
        sse(CREATED, ADDED, done(message("Hi")), done(call("{}"), 1), done(item, 2), completed(message("Hi")))
    )
    assert not [one for one in events if isinstance(one, TextDelta)]
    folded = Fold()
    folded.add(events)
    assert [getattr(part, "text", getattr(part, "arguments", "")) for part in folded.response().choices[0].parts] == [
        "{}",
        "",
    ]
    assert folded.complete


# Answers that do not stream.


def whole(data: bytes) -> list[Event]:
    decoder = WholeDecoder(SECRET, ResponsesDecoder(), decode_response)
    return [*decoder.feed(data[:5]), *decoder.feed(data[5:]), *decoder.close()]


def test_a_host_that_answers_whole_is_read_as_a_stream() -> None:
    folded = Fold()
    folded.add(whole(json.dumps(answer(message("Hi"), call(), usage=USAGE)).encode()))
    assert folded.complete
    assert [type(part) for part in folded.response().choices[0].parts] == [Text, ToolCall]


def test_a_host_that_says_so_and_streams_all_the_same() -> None:
    data = sse(CREATED, completed(message("Hi")))
    assert whole(data) == read(data)


def test_a_host_that_answers_with_an_error() -> None:
    (last,) = whole(b'{"error":{"message":"no","code":"rate_limit_exceeded"}}')
    assert isinstance(last, Failure)
    assert last.error.args[0] == "no"


@pytest.mark.promise("U-07")
@pytest.mark.parametrize("place", [[], {}, [1], 1.5, True])
def test_numbers_that_are_none_tell_nothing_apart(place: Any) -> None:
    delta = event("output_text.delta", output_index=place, content_index=place, item_id=place, delta="Hello")
    folded = fold(CREATED, delta, completed())
    assert folded.error is None
    assert [part.text for part in folded.response().choices[0].parts] == ["Hello"]
