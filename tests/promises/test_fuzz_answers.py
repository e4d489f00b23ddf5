"""Every reader of what upstreams say is given what no upstream would say: it reads it, or says whose fault it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import ModelListing, Target, Upstream
from relay.bound import BoundFamily
from relay.connection import HEAD_BYTES, Connection
from relay.dialect import Dialect
from relay.errors import RelayError, UpstreamError
from relay.events import Event, Failure, MessageStop, StreamMeter
from relay.exchange import Inflater
from relay.kit import MAX_MESSAGE, SseDecoder, sse_frame
from relay.manager import Plugins
from relay.meter import Meter
from relay.mould import Mould
from relay.outbox import Buffer, Outbox
from relay.parted import parted
from relay.secret import Secret
from relay_bedrock.frames import FrameDecoder
from relay_gemini.framing import ObjectDecoder
from tests.core.chunks import unchunked
from tests.flow.fake import chat_chunk
from tests.flow.test_anthropic_sdk import event
from tests.flow.test_responses_sdk import answer as responses_answer
from tests.hub import counts
from tests.promises.families import KINDS
from tests.promises.test_fuzz import BOUNDED, SIGNS, VALUES, cut, damage
from tests.providers.bedrock import wire as frames

PLUGINS = Plugins.load()
CONVERSE = "converse"
"""A format that only upstreams have: nothing of it passes as it is."""
OTHER_KINDS = {"openai-completions": "openai", CONVERSE: "bedrock"}
FAMILIES: Mapping[str, BoundFamily] = {
    name: PLUGINS.families[family]
    for name, family in ({name: kind.family for name, kind in KINDS.items()} | OTHER_KINDS).items()
}
DIALECTS = {name: PLUGINS.dialects[name] for name in FAMILIES if name != CONVERSE}
SECRET = "sk-CANARY-0123456789"


def target(name: str) -> Target:
    upstream = Upstream("up", FAMILIES[name].family.name, "http://up/v1", Secret(SECRET), dialects=frozenset({name}))
    return Target(upstream, "m")


TOOL = {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]}
STREAMS: Mapping[str, list[bytes]] = {
    "openai-chat": [
        chat_chunk({"role": "assistant", "content": ""}),
        chat_chunk({"reasoning_content": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}),
        chat_chunk({"content": "Hello"}),
        chat_chunk({"content": [{"type": "text", "text": " you"}], "annotations": [{"url": "u"}]}),
        chat_chunk(TOOL),
        chat_chunk({"refusal": "no"}),
        chat_chunk(choices=[{"index": 0, "delta": {}, "logprobs": {"content": [{"token": "a"}]}}]),
        *KINDS["openai-chat"].end(""),
    ],
    "openai-completions": [
        chat_chunk(choices=[{"index": 0, "text": "Hello", "finish_reason": None}]),
        chat_chunk(choices=[{"index": 0, "text": " you", "logprobs": {"tokens": ["a"]}, "finish_reason": "stop"}]),
        chat_chunk(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 2}),
        b"data: [DONE]\n\n",
    ],
    "openai-responses": [
        *KINDS["openai-responses"].start,
        KINDS["openai-responses"].word("Hello"),
        event(
            "response.output_item.added",
            output_index=1,
            item={"type": "function_call", "id": "i", "call_id": "c", "name": "f", "arguments": ""},
        ),
        event("response.function_call_arguments.delta", output_index=1, item_id="i", delta='{"a":1}'),
        event("response.reasoning_summary_text.delta", output_index=2, summary_index=0, item_id="r", delta="hm"),
        *KINDS["openai-responses"].end("Hello"),
    ],
    "anthropic-messages": [
        *KINDS["anthropic-messages"].start,
        KINDS["anthropic-messages"].word("Hello"),
        event("content_block_start", index=1, content_block={"type": "tool_use", "id": "c", "name": "f", "input": {}}),
        event("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": '{"a":1}'}),
        event("content_block_start", index=2, content_block={"type": "thinking", "thinking": "", "signature": ""}),
        event("content_block_delta", index=2, delta={"type": "signature_delta", "signature": "x"}),
        event("content_block_start", index=3, content_block={"type": "odd", "data": "x"}),
        *KINDS["anthropic-messages"].end(""),
    ],
    "gemini": [
        KINDS["gemini"].word("Hello"),
        sse_frame(
            json.dumps(
                {
                    "candidates": [
                        {
                            "content": {
                                "parts": [
                                    {"functionCall": {"name": "f", "args": {"a": 1}}},
                                    {
                                        "inlineData": {"mimeType": "image/png", "data": "aGk="},
                                        "thoughtSignature": "c2ln",
                                    },
                                    {"text": "hm", "thought": True},
                                ]
                            },
                            "index": 0,
                        }
                    ]
                }
            ).encode()
        ),
        *KINDS["gemini"].end(""),
    ],
    CONVERSE: [
        frames.START,
        frames.delta(0, text="Hello"),
        frames.delta(0, citation={"title": "t", "location": {"web": {"url": "u"}}}),
        frames.stop(0),
        frames.began(1, toolUse={"toolUseId": "c", "name": "f"}),
        frames.delta(1, toolUse={"input": '{"a":1}'}),
        frames.stop(1),
        frames.delta(2, reasoningContent={"text": "hm"}),
        frames.delta(2, reasoningContent={"signature": "x"}),
        frames.delta(3, reasoningContent={"redactedContent": "aGk="}),
        frames.began(4, toolResult={"toolUseId": "c", "status": "success"}),
        frames.delta(4, toolResult=[{"text": "x"}]),
        frames.began(5, image={"format": "png"}),
        frames.delta(5, image={"source": {"bytes": "aGk="}}),
        frames.event("messageStop", {"stopReason": "end_turn"}),
        frames.event("metadata", {"usage": frames.USAGE, "metrics": {"latencyMs": 7}}),
    ],
}
"""Good streams with something of everything in them, event by event."""
CHANGES = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 60), st.sampled_from(["put", "drop"]), VALUES), max_size=4
)
MOVES = st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["drop", "again", "last", "junk"])), max_size=3)
each = pytest.mark.parametrize("name", FAMILIES)


def parts(event: bytes) -> list[tuple[Any, bytes]]:
    """What is known of the event of a stream beside its data, and its data."""
    found: list[tuple[Any, bytes]] = []
    with contextlib.suppress(UpstreamError):
        FrameDecoder().feed(event, lambda headers, payload: not found.append((headers, payload)))
        return found
    events = SseDecoder()
    return [*events.feed(event), *events.flush()]


def written(title: Any, data: bytes) -> bytes:
    """The same the other way round."""
    return sse_frame(data, title) if isinstance(title, str) else frames.message(title, data)


def damaged(events: Sequence[bytes], changes: Any, moves: Any) -> bytes:
    """A stream with something else in some of its events, and some of them missing, twice or late."""
    found = list(events)
    for number, place, what, value in changes:
        at = number % len(found)
        for title, data in parts(found[at]):
            with contextlib.suppress(ValueError, TypeError):
                found[at] = written(title, json.dumps(damage(json.loads(data), [(place, what, value)])).encode())
    for number, what in moves:
        at = number % len(found)
        if what == "drop" and len(found) > 1:
            del found[at]
        elif what == "again":
            found.insert(at, found[at])
        elif what == "last":
            found.append(found.pop(at))
        else:
            found[at] = found[at][: len(found[at]) // 2] + b"\n\n"
    return b"".join(found)


def head(dialect: Dialect) -> Any:
    bodies: dict[str, dict[str, Any]] = {
        "openai-responses": {"input": "x"},
        "openai-completions": {"prompt": "x"},
        "gemini": {"contents": [{"role": "user", "parts": [{"text": "x"}]}]},
    }
    body = {"model": "m", "stream": True, "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
    body = {"model": "m", "stream": True, **bodies[dialect.name]} if dialect.name in bodies else body
    path = {"model": "m", "collection": "models"} if dialect.name == "gemini" else {}
    return dialect.peek(json.dumps(body).encode(), "generate", path, {})


def told(events: Sequence[Event]) -> None:
    """A stream is over once, and nothing follows."""
    ends = [place for place, one in enumerate(events) if isinstance(one, MessageStop | Failure)]
    assert ends == [len(events) - 1], events[-3:]
    last = events[-1]
    if isinstance(last, Failure):
        assert isinstance(last.error, UpstreamError)
        assert 0 < len(last.error.message) <= MAX_MESSAGE + 200
        assert SECRET not in last.error.message


def counts_the_same(meter: StreamMeter, pieces: Sequence[bytes], events: Sequence[Event]) -> None:
    for piece in pieces:
        if not meter.complete and meter.error is None:
            meter.feed(piece)
    if not meter.complete and meter.error is None:
        meter.close()
    counted = Meter()
    counted.add(events)
    assert (meter.complete, type(meter.error)) == (counted.complete, type(counted.error))
    if counted.complete:
        assert counts(meter.usage) == counts(counted.usage)


@pytest.mark.promise("H-18")
@pytest.mark.promise("U-07")
@each
@given(changes=CHANGES, moves=MOVES, places=st.lists(st.integers(0, 5000), max_size=6))
@BOUNDED
def test_streams_that_were_damaged_end_once_in_an_end_or_a_failure(
    name: str, changes: Any, moves: Any, places: list[int]
) -> None:
    data = damaged(STREAMS[name], changes, moves)
    family, to = FAMILIES[name], target(name)
    decoder = family.translate_stream(to, {}, name)
    events = [one for piece in cut(data, places) for one in decoder.feed(piece)] + decoder.close()
    told(events)
    # Whoever only counts comes to the same end, and to the same count.
    meter = family.meter_stream(to, {}, name)
    assert (meter is None) == (name == CONVERSE)
    if meter is not None:
        counts_the_same(meter, cut(data, places), events)
        parted(data, lambda: family.translate_stream(to, {}, name))
    # And every dialect can write it down.
    for dialect in DIALECTS.values():
        encoder = dialect.stream_encoder(head(dialect))
        encoder.encode([one for one in events if not isinstance(one, Failure)])
        last = events[-1]
        if isinstance(last, Failure):
            assert encoder.failure(last.error)


BODIES: Mapping[str, dict[str, Any]] = {
    name: kind.whole("Hello") for name, kind in KINDS.items() if name != "openai-responses"
} | {
    "openai-responses": responses_answer(
        "completed",
        {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]},
        {"type": "function_call", "id": "i", "call_id": "c", "name": "f", "arguments": "{}"},
    ),
    "openai-completions": {
        "id": "c",
        "choices": [{"index": 0, "text": "Hello", "logprobs": {"tokens": ["a"]}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    },
    CONVERSE: {
        "output": {
            "message": {
                "role": "assistant",
                "content": [
                    {"text": "Hello"},
                    {"citationsContent": {"content": [{"text": "x"}], "citations": [{"title": "t", "source": "s"}]}},
                    {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "x"}}},
                    {"reasoningContent": {"redactedContent": "aGk="}},
                    {"toolUse": {"toolUseId": "c", "name": "f", "input": {"a": 1}}},
                    {"image": {"format": "png", "source": {"bytes": "aGk="}}},
                    {"odd": {"x": 1}},
                ],
            }
        },
        "stopReason": "end_turn",
        "usage": frames.USAGE,
        "trace": {"a": 1},
    },
}
SPOTS = st.lists(st.tuples(st.integers(0, 200), st.sampled_from(["put", "drop"]), VALUES), min_size=1, max_size=4)


@pytest.mark.promise("H-18")
@pytest.mark.promise("U-07")
@each
@given(changes=SPOTS, raw=st.binary(max_size=30))
@BOUNDED
def test_answers_that_were_damaged_are_read_or_refused(name: str, changes: Any, raw: bytes) -> None:
    family, to = FAMILIES[name], target(name)
    for body in (json.dumps(damage(BODIES[name], changes)).encode(), raw):
        with contextlib.suppress(UpstreamError):
            family.meter_response(to, {}, body, name)
        response = None
        with contextlib.suppress(UpstreamError):
            # Any other error is a fault of the reader's.
            response = family.translate_response(to, 200, {}, body, name)
        if response is None:
            continue
        for dialect in DIALECTS.values():
            json.loads(dialect.encode_response(response, head(dialect)))


ERRORS: list[Any] = [
    {"error": {"message": f"no {SECRET}", "type": "t", "code": "c", "param": "p", "status": "INVALID_ARGUMENT"}},
    [{"error": {"message": "no", "details": [{"reason": "API_KEY_INVALID", "retryDelay": "3s"}]}}],
    {"type": "error", "error": {"type": "overloaded_error", "message": "no"}},
    {"__type": "com.x#ThrottlingException", "message": "no"},
    {"detail": [{"loc": ["body", "x"], "msg": "m"}]},
    {"base_resp": {"status_code": 5, "status_msg": "no"}},
    {"error": {"message": "Provider returned error", "metadata": {"raw": '{"error":{"message":"no"}}'}}},
]


@pytest.mark.promise("H-18")
@each
@given(
    error=st.sampled_from(ERRORS),
    changes=SPOTS,
    status=st.sampled_from([400, 401, 402, 404, 408, 413, 422, 429, 500, 503, 529, 599]),
    raw=st.binary(max_size=40),
    wait=st.text(max_size=20),
)
@BOUNDED
def test_errors_that_were_damaged_are_short_errors_all_the_same(
    name: str, error: Any, changes: Any, status: int, raw: bytes, wait: str
) -> None:
    for body in (json.dumps(damage(error, changes)).encode(), raw, b"<html>" + raw):
        found = FAMILIES[name].translate_error(target(name), status, {"retry-after": wait}, body)
        assert found is not None
        found.hide(target(name).upstream.api_key)
        assert 0 < len(found.message) <= MAX_MESSAGE + 200
        assert SECRET not in found.message
        for dialect in DIALECTS.values():
            json.loads(dialect.encode_error(found, "req_1"))


LISTS: list[Any] = [
    {"object": "list", "data": [{"id": "a", "context_length": 5, "capabilities": {"vision": True}}, {"id": "b"}]},
    {"models": [{"name": "models/a", "inputTokenLimit": 5, "supportedGenerationMethods": ["generateContent"]}]},
    [{"id": "a", "created": 5, "owned_by": "x"}],
    {
        "modelSummaries": [
            {
                "modelId": "x.a-v1:0",
                "providerName": "X",
                "inputModalities": ["TEXT", "IMAGE"],
                "outputModalities": ["TEXT"],
                "inferenceTypesSupported": ["ON_DEMAND"],
                "responseStreamingSupported": True,
                "modelLifecycle": {"startOfLifeTime": "2025-01-01T00:00:00Z"},
            }
        ],
        "inferenceProfileSummaries": [
            {"inferenceProfileId": "eu.x.a-v1:0", "type": "SYSTEM_DEFINED", "status": "ACTIVE", "createdAt": 5},
            {"inferenceProfileArn": "arn:x", "type": "APPLICATION", "models": [{"modelArn": "a"}]},
        ],
    },
    {"data": ["a", "b"], "has_more": True, "last_id": "b"},
]


@pytest.mark.promise("H-18")
@each
@given(listed=st.sampled_from(LISTS), changes=SPOTS, raw=st.binary(max_size=30))
@BOUNDED
def test_lists_of_models_that_were_damaged_are_read_or_refused(
    name: str, listed: Any, changes: Any, raw: bytes
) -> None:
    listing = FAMILIES[name].list_models(target(name).upstream)
    assert isinstance(listing, ModelListing)
    for body in (json.dumps(damage(listed, changes)).encode(), raw):
        for one in (listing, *listing.more):
            with contextlib.suppress(UpstreamError):
                assert all(type(model.id) is str and model.id for model in one.parse(body))


@pytest.mark.promise("H-18")
@given(
    data=st.lists(
        st.one_of(SIGNS, st.sampled_from([b"[", b"]", b"{", b"}", b'"', b",", b"\\", b" "]), st.binary(max_size=4)),
        max_size=40,
    ).map(b"".join),
    places=st.lists(st.integers(0, 500), max_size=8),
)
@BOUNDED
def test_objects_are_the_same_however_their_bytes_are_cut(data: bytes, places: list[int]) -> None:
    def read(pieces: Sequence[bytes]) -> list[bytes] | str:
        decoder, found = ObjectDecoder(), []
        try:
            for piece in pieces:
                found += decoder.feed(piece)
            found += decoder.flush()
        except UpstreamError as error:
            return error.message
        return found

    assert read(cut(data, places)) == read([data])


HELLO = Mould(b'he"', b'"lo')


class Heard:
    """What a connection tells. Chunks may pass by the parser as they came, or all of them are read."""

    def __init__(self, connection: Connection, *, passing: bool) -> None:
        self.connection = connection
        self.ended = False
        self.told: list[Any] = []
        if passing:
            connection.valve.let(self, HELLO)

    def write(self, data: Buffer) -> None:
        for found in unchunked(bytes(data)):
            self.data(found)

    def writelines(self, pieces: Iterable[Buffer]) -> None:
        raise AssertionError("what passes is one piece")

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def broken(self, error: BaseException) -> None:
        raise error

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        assert not self.told
        assert 200 <= status < 600
        self.told.append((status, dict(headers)))

    def data(self, piece: bytes) -> None:
        assert self.told
        assert piece
        if self.told and isinstance(self.told[-1], bytes):
            self.told[-1] += piece
        else:
            self.told.append(piece)

    def end(self) -> None:
        assert not self.ended
        self.ended = True
        self.told.append("end")
        self.connection.exchange = None

    def fail(self, error: RelayError) -> None:
        assert isinstance(error, UpstreamError)
        self.told.append(type(error))


class Gone(asyncio.Transport):
    """A transport to nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted


GOOD_HTTP = [
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
    b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n9\r\nhe"you"lo\r\n7\r\nhe"-"lo\r\n0\r\n\r\n',
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nhello",
]
MARKS = st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b":",
        b" ",
        b"HTTP/1.1 ",
        b"200",
        b"chunked",
        b"Content-Length: 9\r\n",
        b"0\r\n\r\n",
        b"\xff",
    ]
)


NO_LOOP: Any = SimpleNamespace(call_soon=None)


def heard(pieces: Sequence[bytes], *, passing: bool = False) -> list[Any]:
    # No call is under way, so that nothing is kept for the end of a turn.
    connection = Connection(Outbox(NO_LOOP, ()))
    found = Heard(connection, passing=passing)
    connection.connection_made(Gone())
    connection.begin(found)
    connection.valved = passing
    for piece in pieces:
        if isinstance(connection.transport, Gone) and connection.transport.aborted:
            break
        if piece:
            connection.data_received(piece)
    if not found.ended and not any(isinstance(one, type) for one in found.told):
        connection.connection_lost(None)
    return found.told


@pytest.mark.promise("H-18")
@pytest.mark.promise("U-11")
@given(
    good=st.sampled_from(GOOD_HTTP),
    edits=st.lists(st.tuples(st.integers(0, 200), MARKS, st.integers(0, 6)), max_size=4),
    places=st.lists(st.integers(0, 500), max_size=6),
)
@BOUNDED
def test_answers_that_are_hardly_http_begin_once_and_end_or_fail_once(
    good: bytes, edits: list[tuple[int, bytes, int]], places: list[int]
) -> None:
    data = good
    for place, mark, gone in edits:
        at = place % (len(data) + 1)
        data = data[:at] + mark + data[at + gone :]
    assert len(data) < HEAD_BYTES
    told_of = heard(cut(data, places))
    assert heard(cut(data, places), passing=True) == told_of
    ends = [one for one in told_of if one == "end" or isinstance(one, type)]
    assert len(ends) == 1, (data, told_of)
    assert told_of[-1] == ends[0], (data, told_of)
    if not edits:
        assert ends == ["end"]


@pytest.mark.promise("H-18")
@pytest.mark.promise("U-08")
@given(
    encoding=st.one_of(st.sampled_from(["gzip", "x-gzip", "deflate", "br", "", "gzip, gzip"]), st.text(max_size=5)),
    data=st.binary(max_size=60),
)
@BOUNDED
def test_what_is_hardly_packed_is_unpacked_or_refused(encoding: str, data: bytes) -> None:
    try:
        inflater = Inflater(encoding)
        inflater.feed(data)
    except UpstreamError:
        return
    assert inflater.complete in (True, False)
