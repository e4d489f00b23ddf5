"""Heads that came before: what is known of them, and when aiohttp's parser may be passed by."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import RawRequestMessage
from aiohttp.http_parser import HttpRequestParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.heads import Count, KnownHead, end_of
from relay.origins import Origins
from relay_openai.dialect import OpenAIChat
from tests.effort import times

HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sk-relay-0123456789\r\n"
    b"Content-Length: 57\r\nContent-Type: application/json\r\n\r\n"
)
PROBE = b"GET /probe HTTP/1.1\r\nHost: localhost\r\n\r\n"
FEW = settings(max_examples=times(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Parser:
    """aiohttp's, on its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._parser = HttpRequestParser(BaseProtocol(self._loop), self._loop, 2**16)

    def feed(self, data: bytes) -> list[RawRequestMessage]:
        """The messages that begin in `data`. Raises what the parser raises."""
        return [message for message, _ in self._parser.feed_data(data)[0]]

    def close(self) -> None:
        self._loop.close()


def known(head: bytes = HEAD) -> KnownHead:
    found = KnownHead(OpenAIChat(), {}, {}, b"mark", Origins("127.0.0.1", [], []), chunked=True, keep_alive=True)
    found.learn(head)
    return found


def parsed(data: bytes) -> list[RawRequestMessage]:
    parser = Parser()
    try:
        return parser.feed(data)
    finally:
        parser.close()


@pytest.mark.parametrize("length", [0, 1, 57, 262_144, 999_999_999])
def test_the_same_head_is_known_whatever_its_length(length: int) -> None:
    data = HEAD.replace(b"57", str(length).encode()) + b"{}"
    assert known().body(data) == (len(data) - 2, length)


@pytest.mark.parametrize(
    "length", [b"", b"+57", b"-1", b"5_7", b"5 7", b"0x39", b"57,57", b"\xb2", b" 57", b"57\r\nX: y", b"1234567890123"]
)
def test_what_is_no_plain_length_is_not_known(length: bytes) -> None:
    assert known().body(HEAD.replace(b"57", length) + b"{}") is None


@pytest.mark.parametrize(
    "head",
    [
        HEAD.replace(b"Content-Length: 57\r\n", b""),
        HEAD.replace(b"Content-Length: 57\r\n", b"Content-Length: 57\r\nContent-Length: 57\r\n"),
        HEAD.replace(b"Content-Length: 57", b"X-Content-Length: 57"),
    ],
)
def test_a_head_without_exactly_one_length_is_never_known_again(head: bytes) -> None:
    assert known(head).body(head) is None


def test_a_head_that_is_not_all_there_or_differs_is_not_known() -> None:
    head = known()
    assert all(head.body(HEAD[:cut]) is None for cut in range(len(HEAD)))
    assert head.body(HEAD.replace(b"localhost", b"elsewhere")) is None
    assert head.body(HEAD.replace(b"application/json", b"application/jsox")) is None


@FEW
@given(
    place=st.integers(0, len(HEAD)),
    removed=st.integers(0, 6),
    put=st.one_of(st.binary(max_size=8), st.sampled_from([b"\r\n", b"\n", b"0", b"Content-Length: 3\r\n", b" "])),
    spelling=st.sampled_from([b"Content-Length: ", b"content-length:", b"Content-Length:\t "]),
)
def test_what_is_known_is_what_the_parser_would_find(place: int, removed: int, put: bytes, spelling: bytes) -> None:
    # Whatever is done to a head: if it is still known, the parser finds the same head in it, and the same length.
    base = HEAD.replace(b"Content-Length: ", spelling)
    head = known(base)
    data = base[:place] + put + base[place + removed :]
    found = head.body(data)
    if found is not None:
        begin, length = found
        (message,), (before,) = parsed(data[:begin]), parsed(base)
        assert int(message.headers["Content-Length"]) == length
        assert (message.method, message.path, message.version) == (before.method, before.path, before.version)
        rest = [(name, value) for name, value in message.headers.items() if name.lower() != "content-length"]
        assert rest == [(name, value) for name, value in before.headers.items() if name.lower() != "content-length"]


REQUESTS = (
    b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /c HTTP/1.1\r\nHost: x\r\ncontent-length:\t12 \r\n\r\nGET / HTTP/1",
    b"POST /d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST /e HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    b"\r\nGET /f HTTP/1.1\r\nHost: x\r\n\r\n",
)


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[begin:end] for begin, end in itertools.pairwise(places)]


@FEW
@given(
    requests=st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 400), max_size=8),
    alone=st.booleans(),
)
def test_when_nothing_is_due_the_parser_stands_between_two_requests(
    requests: list[bytes], cuts: list[int], alone: bool
) -> None:
    parser, count = Parser(), Count()
    try:
        for stretch in requests if alone else [b"".join(requests)]:
            for piece in pieces(stretch, cuts):
                head = 0 if count.due else end_of(piece)
                messages = parser.feed(piece)
                count.given(piece, head, messages[0] if len(messages) == 1 else None)
                if count.due == 0:
                    assert [message.path for message in parser.feed(PROBE)] == ["/probe"]
    finally:
        parser.close()


def test_requests_that_come_one_by_one_leave_nothing_due() -> None:
    parser, count = Parser(), Count()
    try:
        for data in (REQUESTS[0], REQUESTS[1], REQUESTS[1][:60], REQUESTS[1][60:], REQUESTS[4], b""):
            head = 0 if count.due else end_of(data)
            messages = parser.feed(data)
            count.given(data, head, messages[0] if messages else None)
        assert count.due == 0
    finally:
        parser.close()
