"""Upstreams that talk nonsense: what no format knows is passed over or ends the answer, and always in so many words."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest

from tests.flow.conftest import Running, Start
from tests.flow.fake import FakeUpstream, chat_chunk, http, stream
from tests.flow.test_anthropic_sdk import event
from tests.promises.families import SAID, STREAMS, WHOLES, Got, Way, ask, both_transports, config, told_by

EVENTS: Mapping[str, bytes] = {
    "half of an object": b'{"id": "x',
    "a word": b"nonsense",
    "a list": b"[]",
    "a list of objects": b'[{"a":1}]',
    "a number": b"5",
    "a text": b'"text"',
    "null": b"null",
    "NaN": b"NaN",
    "an empty object": b"{}",
    "NaN in an object": b'{"a": NaN}',
    "more depth than can be read": b'{"a":' + b"[" * 3000 + b"]" * 3000 + b"}",
    "bytes that are no text": b'{"a":"\xff\xfe"}',
    "half of a character": b'{"a":"\\ud800"}',
    "a number of many digits": b'{"a":1' + b"0" * 5000 + b"}",
    "infinity": b'{"a":1e999}',
    "one key twice": b'{"a":1,"a":2}',
    "no kind": b'{"type":null}',
    "a kind that is a number": b'{"type":5}',
    "a kind that nobody knows": b'{"type":"odd.kind","choices":{},"candidates":{},"delta":5}',
    "no error": b'{"error":null}',
    "a byte that no text holds": b'{"a":"\x00"}',
}
"""Data of an event in the middle of a stream."""
UNREADABLE = {
    *("half of an object", "a word", "more depth than can be read", "a number of many digits"),
    "a byte that no text holds",
}
NO_OBJECT = {"a number", "a text", "null", "NaN"}
FATAL: Mapping[str, set[str]] = {
    "openai-chat": {*UNREADABLE, "a list of objects"},
    "openai-responses": UNREADABLE,
    "anthropic-messages": {*UNREADABLE, *NO_OBJECT, "a list", "a list of objects"},
    # Its streams may be lists, so a list is read as what is in it.
    "gemini": {*UNREADABLE, *NO_OBJECT},
}
"""Those after which nothing that comes can be believed. All others say nothing, and are passed over."""
RAW = re.compile(
    r"Traceback|Error\(|Exception|object has no|NoneType|<class|unexpected|expected (str|int)|line \d+ col"
)
"""What Python says of itself, and no client should hear."""


def chunk(**choice: Any) -> bytes:
    return chat_chunk(choices=[{"index": 0, "delta": {}, "finish_reason": None, **choice}])


def call(**fields: Any) -> bytes:
    return chunk(delta={"tool_calls": [fields]})


def block(kind: str, **fields: Any) -> bytes:
    return event(f"content_block_{kind}", **fields)


def candidate(**fields: Any) -> bytes:
    return b"data: " + json.dumps({"candidates": [fields]}).encode() + b"\n\n"


def response(kind: str, **fields: Any) -> bytes:
    return event(f"response.{kind}", **fields)


VALUES: list[Any] = [None, 5, -1, 2**70, 0.5, True, "x", [], {}, [None], [5], {"a": 1}]
SHAPES: Mapping[str, list[bytes]] = {
    "openai-chat": [
        *(chat_chunk(choices=value) for value in VALUES),
        *(chunk(delta=value) for value in VALUES),
        *(chunk(index=value) for value in VALUES),
        *(chunk(logprobs=value) for value in VALUES),
        *(chunk(delta={"content": value}) for value in VALUES if value != "x"),
        *(call(index=value, function={"arguments": "{}"}) for value in VALUES),
        *(call(index=1, id=value, function={"name": value, "arguments": value}) for value in VALUES),
        call(index=3, id="c3", function={"name": "f"}) + call(index=0, function={"arguments": "{"}),
        call(index=0, id="a", function={"name": "f"}) + call(index=0, id="b", function={"name": "g"}),
        *(chunk(delta={"tool_calls": value}) for value in VALUES),
        *(chunk(delta={"audio": value, "images": value, "annotations": value}) for value in VALUES if value != "x"),
        *(chat_chunk(choices=[], usage=value, x_groq=value) for value in VALUES),
        b"data:\n\n",
        b"event: odd\ndata: {}\n\n",
        b'data: {"a":1,\ndata: "b":2}\n\n',
    ],
    "openai-responses": [
        *(response("odd", response=value) for value in VALUES),
        *(
            response("output_text.delta", delta=value, output_index=0, content_index=0)
            for value in VALUES
            if value != "x"
        ),
        *(response("output_item.added", item=value, output_index=9) for value in VALUES),
        *(response("output_item.done", item=value, output_index=value) for value in VALUES),
        *(response("content_part.added", part=value, output_index=value, content_index=value) for value in VALUES),
        *(response("function_call_arguments.delta", item_id=value, output_index=7) for value in VALUES),
        *(response("output_text.annotation.added", annotation=value, output_index=0) for value in VALUES),
        *(response("in_progress", response=value) for value in VALUES),
    ],
    "anthropic-messages": [
        *(block("start", index=value, content_block=value) for value in VALUES),
        *(block("delta", index=value, delta={"type": "text_delta", "text": 5}) for value in VALUES),
        *(block("delta", index=0, delta=value) for value in VALUES),
        *(block("delta", index=0, delta={"type": kind, "partial_json": "{"}) for kind in ("input_json_delta", "odd")),
        *(block("delta", index=0, delta={"type": "citations_delta", "citation": value}) for value in VALUES),
        *(block("stop", index=value) for value in VALUES if value is not True),
        *(event("message_delta", delta=value) for value in VALUES if not isinstance(value, dict)),
        *(event("message_start", message=value) for value in VALUES),
        event("ping", odd=1),
        b"event: odd\ndata: {}\n\n",
    ],
    "gemini": [
        *(b"data: " + json.dumps({"candidates": value}).encode() + b"\n\n" for value in VALUES if value != [5]),
        *(candidate(content=value) for value in VALUES),
        *(candidate(content={"parts": value}) for value in VALUES),
        *(candidate(content={"parts": [{"functionCall": value}]}) for value in VALUES if value != "x"),
        *(candidate(content={"parts": [{"inlineData": value}]}) for value in VALUES),
        *(candidate(content={"parts": [{"text": value}]}) for value in VALUES if value != "x"),
        *(candidate(logprobsResult=value, index=0) for value in VALUES),
        *(b"data: " + json.dumps({"usageMetadata": value}).encode() + b"\n\n" for value in VALUES),
        *(b"data: " + json.dumps({"promptFeedback": value}).encode() + b"\n\n" for value in VALUES),
    ],
}
"""Events of each format in which something is of another kind than it should be."""


async def told(relay: Running, upstream: FakeUpstream, way: Way, odd: bytes) -> Got:
    """A stream with something odd in it, which comes once the client has heard what precedes it."""
    found, heard = way.found, asyncio.Event()
    rest = b"".join((odd, found.word("a fine day"), *found.end(SAID)))
    upstream.answer = lambda seen: stream(*found.start, found.word("It is "), heard, rest)
    return await ask(relay, way, heard)


def clear(got: Got) -> None:
    """Nobody hears what Python says."""
    assert not RAW.search(got.error), got.error
    assert b"Traceback" not in got.body


@pytest.mark.promise("U-07")
@both_transports
async def test_what_is_no_event_ends_the_answer_or_says_nothing(
    start: Start, upstream: FakeUpstream, transport: str
) -> None:
    relay = await start(config(upstream, transport))
    for way, name in product(STREAMS, EVENTS):
        got = await told(relay, upstream, way, b"data: " + EVENTS[name] + b"\n\n")
        row = await relay.latest()
        clear(got)
        if name in FATAL[way.kind]:
            assert (got.text, got.finished) == ("It is ", False), (way, name)
            assert got.error, (way, name)
            assert row.outcome in ("upstream_cut", "upstream_error"), (way, name)
        else:
            assert (got.text, got.finished, got.error) == (SAID, True, ""), (way, name)
            assert row.outcome == "ok", (way, name)


@pytest.mark.promise("U-07")
async def test_events_of_odd_shape_break_nothing(start: Start, upstream: FakeUpstream) -> None:
    relay = await start(config(upstream))
    for way in STREAMS:
        for data in SHAPES[way.kind]:
            got = await told(relay, upstream, way, data)
            row = await relay.latest()
            clear(got)
            assert got.text.startswith("It is "), (way, data, got.body)
            if got.finished:
                assert (got.error, row.outcome) == ("", "ok"), (way, data, got.body)
                assert got.text.endswith("a fine day"), (way, data, got.body)
            else:
                assert got.error, (way, data, got.body)
                assert row.outcome in ("upstream_cut", "upstream_error"), (way, data, row)


EMPTY = {"openai-responses": b'{"output": []}', "anthropic-messages": b'{"content": []}'}
"""What is an answer, though it says nothing."""
ANSWERS: list[bytes] = [
    b"",
    b" ",
    *(data for name, data in EVENTS.items() if name != "an empty object"),
    *(
        json.dumps({name: value}).encode()
        for value in VALUES
        for name in ("choices", "output", "content", "candidates")
    ),
]
"""What is no complete answer in any format."""


@pytest.mark.promise("U-07")
@both_transports
async def test_what_is_no_answer_is_a_clear_error(start: Start, upstream: FakeUpstream, transport: str) -> None:
    relay = await start(config(upstream, transport))
    for way, data in product(WHOLES, ANSWERS):
        upstream.scripts = [http(data)]
        got = await ask(relay, way)
        row = await relay.latest()
        if data == EMPTY.get(way.kind):
            assert (got.status, row.outcome) == (200, "ok"), (way, data, got)
            continue
        assert (got.status, row.outcome) in ((502, "upstream_cut"), (502, "upstream_error")), (way, data, got)
        assert got.error, (way, data)
        clear(got)


ERRORS: Mapping[str, list[bytes]] = {
    "openai-chat": [
        b'data: {"error":{"message":"it broke","type":"server_error"}}\n\n',
        b'data: {"error":"it broke"}\n\n',
        # Nothing that clients would take for an error.
        b'data: [{"error":{"message":"it broke"}}]\n\n',
        b'data: {"base_resp":{"status_code":1013,"status_msg":"it broke"}}\n\n',
        b'event: error\ndata: {"object":"error","message":"it broke"}\n\n',
    ],
    "openai-responses": [
        b'event: response.failed\ndata: {"type":"response.failed","response":{"id":"resp_upstream1","status":"failed",'
        b'"output":[],"error":{"code":"server_error","message":"it broke"}}}\n\n',
    ],
    "anthropic-messages": [
        b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"it broke"}}\n\n',
        b'data: {"type":"error","error":{"type":"api_error","message":"it broke"}}\n\n',
    ],
    "gemini": [
        b'data: {"error":{"code":500,"message":"it broke","status":"INTERNAL"}}\n\n',
    ],
}
"""Errors as upstreams tell them in a stream."""


@pytest.mark.promise("U-03")
@pytest.mark.promise("U-07")
@both_transports
async def test_an_error_is_told_once_in_a_way_that_clients_see_and_nothing_follows_it(
    start: Start, upstream: FakeUpstream, transport: str
) -> None:
    relay = await start(config(upstream, transport))
    for way in STREAMS:
        for data in ERRORS[way.kind]:
            # With words before it and the end behind it, all in one piece.
            got = await told(relay, upstream, way, way.found.word("a fine ") + data)
            row = await relay.latest()
            assert (got.text, got.finished, got.proper) == ("It is a fine ", False, False), (way, data, got.body)
            assert "it broke" in told_by(got.events[-1]), (way, data, got.body)
            assert got.body.count(b"it broke") == 1, (way, data, got.body)
            assert row.outcome == "upstream_error", (way, data)
