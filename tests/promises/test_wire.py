"""What is not HTTP, or not for us: answered like every other error, and never taken for another request."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import FakeUpstream, chat_answer
from tests.promises.wire import Wire, post, wire

BODY = '{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
SIZE = len(BODY)
MARKER = "/marker-5f1c"
HEAD = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"

SMUGGLED = f"GET {MARKER} HTTP/1.1\r\nHost: localhost\r\n\r\n"
"""What the probes hide in their bodies: a request that only a mistaken reader sees. Nothing lives at its path."""


def chunked(lines: str, body: str = f"0\r\n\r\n{SMUGGLED}") -> str:
    return f"{HEAD}{lines}\r\n{body}"


PROBES = {
    "length and chunked": chunked(f"Content-Length: {SIZE}\r\nTransfer-Encoding: chunked\r\n"),
    "chunked and length": chunked("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"),
    "chunked twice": chunked("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
    "chunked twice in a line": chunked("Transfer-Encoding: chunked, chunked\r\n"),
    "chunked and identity": chunked("Transfer-Encoding: chunked, identity\r\n"),
    "identity": chunked("Transfer-Encoding: identity\r\n"),
    "xchunked": chunked("Transfer-Encoding: xchunked\r\n"),
    "chunkedx": chunked("Transfer-Encoding: chunkedx\r\n"),
    "quoted chunked": chunked('Transfer-Encoding: "chunked"\r\n'),
    "vertical tab before chunked": chunked("Transfer-Encoding: \x0bchunked\r\n"),
    "form feed behind chunked": chunked("Transfer-Encoding: chunked\x0c\r\n"),
    "NUL in the coding": chunked("Transfer-Encoding: chun\0ked\r\n"),
    "blank before the colon": chunked("Transfer-Encoding : chunked\r\n"),
    "tab before the colon": chunked("Transfer-Encoding\t: chunked\r\n"),
    "folded coding": chunked("Transfer-Encoding:\r\n chunked\r\n"),
    "blank first": chunked(" Transfer-Encoding: chunked\r\n"),
    "nothing as coding": chunked("Transfer-Encoding:\r\nContent-Length: 4\r\n"),
    "two lengths": chunked(f"Content-Length: {SIZE}\r\nContent-Length: 0\r\n", BODY),
    "two equal lengths": chunked(f"Content-Length: {SIZE}\r\nContent-Length: {SIZE}\r\n", BODY),
    "two lengths in a line": chunked(f"Content-Length: {SIZE}, {SIZE}\r\n", BODY),
    "plus": chunked(f"Content-Length: +{SIZE}\r\n", BODY),
    "minus": chunked("Content-Length: -1\r\n", BODY),
    "underscore": chunked("Content-Length: 5_7\r\n", BODY),
    "hexadecimal": chunked("Content-Length: 0x39\r\n", BODY),
    "blank in a length": chunked("Content-Length: 5 7\r\n", BODY),
    "empty length": chunked("Content-Length:\r\n", BODY),
    "wide digits": chunked("Content-Length: \xb2\r\n", BODY),
    "length beyond 64 bits": chunked(f"Content-Length: {2**64 + SIZE}\r\n", BODY),
    "blank before the length's colon": chunked(f"Content-Length : {SIZE}\r\n", BODY),
    "chunk of +2": chunked("Transfer-Encoding: chunked\r\n", f"+2\r\n{{}}\r\n0\r\n\r\n{SMUGGLED}"),
    "chunk of -2": chunked("Transfer-Encoding: chunked\r\n", f"-2\r\n{{}}\r\n0\r\n\r\n{SMUGGLED}"),
    "chunk of 0x2": chunked("Transfer-Encoding: chunked\r\n", f"0x2\r\n{{}}\r\n0\r\n\r\n{SMUGGLED}"),
    "chunk of 2_0": chunked("Transfer-Encoding: chunked\r\n", f"2_0\r\n{{}}\r\n0\r\n\r\n{SMUGGLED}"),
    "chunk beyond 64 bits": chunked("Transfer-Encoding: chunked\r\n", f"{'f' * 17}2\r\n{{}}\r\n0\r\n\r\n{SMUGGLED}"),
    "chunk without a size": chunked("Transfer-Encoding: chunked\r\n", f"\r\n{{}}\r\n0\r\n\r\n{SMUGGLED}"),
    "chunk longer than it says": chunked("Transfer-Encoding: chunked\r\n", f"1\r\n{{}}\r\n0\r\n\r\n{SMUGGLED}"),
    "line feed in an extension": chunked("Transfer-Encoding: chunked\r\n", f"2;a=\nb\r\n{{}}\r\n0\r\n\r\n{SMUGGLED}"),
    "bare line feeds between chunks": chunked("Transfer-Encoding: chunked\r\n", f"2\n{{}}\n0\n\n{SMUGGLED}"),
    "bare line feeds": chunked("X: y\r\n", BODY).replace("\r\n", "\n"),
    "bare carriage return": chunked(f"X: y\rContent-Length: {SIZE}\r\n", BODY),
    "NUL in a value": chunked("X: a\0b\r\n"),
    "NUL in a name": chunked("X\0: b\r\n"),
    "blank in a name": chunked("X y: b\r\n"),
    "no colon": chunked("nonsense\r\n"),
    "folded line": chunked("X: a\r\n b\r\n"),
    "no name": chunked(": b\r\n"),
    "two hosts": chunked("Host: other\r\n"),
    "no host": chunked("").replace("Host: localhost\r\n", ""),
    "HTTP/9.9": chunked("").replace("HTTP/1.1", "HTTP/9.9"),
    "no version": chunked("").replace(" HTTP/1.1", "", 1),
    "two blanks": chunked("").replace("POST /", "POST  /", 1),
    "a method of symbols": chunked("").replace("POST", "P@ST", 1),
    "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\x00" * 64 + SMUGGLED,
    "HTTP/2": f"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{SMUGGLED}",
}
"""Each one is ambiguous or broken. In all of them `SMUGGLED`, or the marker behind them, must not be a request."""


async def until_closed(connection: Wire) -> bytes:
    """All that came, whether the relay closed politely or not."""
    got = b""
    try:
        while piece := await asyncio.wait_for(connection.reader.read(65_536), 5):
            got += piece
    except ConnectionResetError:
        pass
    return got


@pytest.fixture
async def relay(start: Start, upstream: FakeUpstream) -> Running:
    upstream.scripts = [chat_answer()]
    return await start(openai_config(upstream))


@pytest.mark.promise("H-02")
@pytest.mark.promise("H-08")
async def test_what_can_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_served(
    relay: Running, upstream: FakeUpstream, subtests: pytest.Subtests
) -> None:
    marker = f"GET {MARKER} HTTP/1.1\r\nHost: localhost\r\nX-Last: yes\r\n\r\n"
    for name, probe in PROBES.items():
        with subtests.test(name):
            async with wire(relay) as connection:
                connection.send((probe.replace("{key}", relay.key) + marker).encode("latin-1"))
                got = await until_closed(connection)
            assert got.count(b"HTTP/1.1 ") == 1, "one answer, and the end"
            head, _, body = got.partition(b"\r\n\r\n")
            assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 ")), head
            assert b"\r\nConnection: close" in head
            assert json.loads(body)["error"]["code"]
            for word in (b"marker", b"Python", b"aiohttp", b"chunked", b"nonsense", relay.key.encode()):
                assert word not in got
            assert b"\r\nServer: i8relay\r\n" in head
            assert b"\r\nX-Content-Type-Options: nosniff" in head
            assert b"\r\nx-request-id: req_" in head
    assert len(PROBES) > 40
    assert upstream.seen == [], "none of them was a request"


@pytest.mark.promise("H-02")
async def test_good_requests_before_do_not_help_a_broken_one(
    relay: Running, upstream: FakeUpstream, subtests: pytest.Subtests
) -> None:
    # The head of the good ones is known by then, and broken ones begin like it.
    good = f"{HEAD}Content-Length: {SIZE}\r\n\r\n{BODY}".replace("{key}", relay.key).encode()
    for name, probe in PROBES.items():
        with subtests.test(name):
            before = len(upstream.seen)
            async with wire(relay) as connection:
                for _ in range(3):
                    connection.send(good)
                    assert (await connection.answer()).status == 200
                connection.send(probe.replace("{key}", relay.key).encode("latin-1"))
                said = await connection.answer()
                assert said.status in (400, 431)
                assert await connection.rest() == b""
            assert len(upstream.seen) == before + 3


@pytest.mark.promise("H-08")
async def test_every_refusal_is_the_envelope_and_repeats_nothing(relay: Running, subtests: pytest.Subtests) -> None:
    key = f"Authorization: Bearer {relay.key}\r\n"
    local = "Host: localhost\r\n"
    cases = {
        "nothing there": (404, "not_found", f"GET /canary-path HTTP/1.1\r\n{local}\r\n"),
        "no key, nothing there": (404, "not_found", f"GET /v1/canary-path HTTP/1.1\r\n{local}\r\n"),
        "wrong method": (405, "method_not_allowed", f"DELETE /v1/chat/completions HTTP/1.1\r\n{local}{key}\r\n"),
        "unknown method": (400, "invalid_http", f"CANARY /v1/chat/completions HTTP/1.1\r\n{local}{key}\r\n"),
        "options": (405, "method_not_allowed", f"OPTIONS /v1/chat/completions HTTP/1.1\r\n{local}{key}\r\n"),
        "compressed": (
            415,
            "unsupported_encoding",
            f"POST /v1/chat/completions HTTP/1.1\r\n{local}{key}Content-Encoding: br\r\nContent-Length: 2\r\n\r\n{{}}",
        ),
        "too large": (
            413,
            "request_too_large",
            f"POST /v1/chat/completions HTTP/1.1\r\n{local}{key}Content-Length: {2**40}\r\n\r\n",
        ),
        "strange expectation": (
            417,
            "expectation_failed",
            f"POST /v1/chat/completions HTTP/1.1\r\n{local}{key}Expect: canary\r\nContent-Length: 2\r\n\r\n{{}}",
        ),
        "a line too long": (431, "head_too_large", f"GET /healthz HTTP/1.1\r\n{local}X: {'canary' * 4000}\r\n\r\n"),
        "a path too long": (431, "head_too_large", f"GET /{'canary' * 4000} HTTP/1.1\r\n{local}\r\n"),
        "percent signs": (404, "not_found", f"GET /v1/canary%zz%%% HTTP/1.1\r\n{local}\r\n"),
        "percent signs of no text": (404, "not_found", f"GET /v1/canary%ff%fe HTTP/1.1\r\n{local}\r\n"),
        "broken chunks": (
            400,
            "invalid_http",
            f"POST /v1/chat/completions HTTP/1.1\r\n{local}{key}Transfer-Encoding: chunked\r\n\r\n2\r\n{{",
        ),
    }
    for name, (status, code, request) in cases.items():
        with subtests.test(name):
            async with wire(relay) as connection:
                connection.send(request.encode("latin-1"))
                if name == "broken chunks":
                    # The head is a good one; only what comes later shows that the body is not.
                    await asyncio.sleep(0.1)
                    connection.send(b"canary\r\n")
                said = await connection.answer()
            assert (said.status, said.error["code"]) == (status, code)
            assert said.headers["server"] == "i8relay"
            assert said.headers["x-content-type-options"] == "nosniff"
            assert said.headers["x-request-id"].startswith("req_")
            assert b"canary" not in said.body.lower()


@pytest.mark.promise("H-08")
async def test_head_has_the_headers_and_no_body(relay: Running) -> None:
    async with wire(relay) as connection:
        connection.send(b"HEAD /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.send(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        got = await until_closed(connection)
    first, second, rest = got.split(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 405 ")
    assert b"Allow: POST" in first
    assert second.startswith(b"HTTP/1.1 200 ")
    assert rest == b""


@pytest.mark.promise("H-01")
async def test_nobody_without_a_key_is_asked_for_a_body_or_waited_for(relay: Running, upstream: FakeUpstream) -> None:
    lines = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n{}Content-Length: 1073741824\r\n{}\r\n"
    for key in ("", "Authorization: Bearer sk-relay-nobody-has-this-key\r\n"):
        for expect in ("", "Expect: 100-continue\r\n"):
            async with wire(relay) as connection:
                connection.send(lines.format(key, expect).encode() + b'{"model":')
                said = await connection.answer()
                assert said.status == 401
                assert said.headers["connection"] == "close"
                assert await connection.rest() == b""
    # Nor is anybody whose request goes nowhere.
    async with wire(relay) as connection:
        connection.send(
            b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        assert (await connection.answer()).status == 404
    assert upstream.seen == []


@pytest.mark.promise("H-01")
async def test_whoever_has_a_key_is_asked_for_the_body(relay: Running) -> None:
    head, _, body = post(relay.key, headers="Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    async with wire(relay) as connection:
        for _ in range(2):
            connection.send(head + b"\r\n\r\n")
            assert (
                await asyncio.wait_for(connection.reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
            )
            connection.send(body)
            assert (await connection.answer()).status == 200
    # One that asks for more than is allowed is told so instead.
    async with wire(relay) as connection:
        connection.send(head.replace(b"Content-Length: ", b"Content-Length: 9999999") + b"\r\n\r\n")
        assert (await connection.answer()).status == 413


@pytest.mark.promise("H-17")
async def test_a_thousand_requests_on_one_connection_and_a_hundred_at_once(relay: Running) -> None:
    probe = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with wire(relay) as connection:
        connection.send(probe * 100)
        for _ in range(100):
            assert (await connection.answer()).status == 200
        for _ in range(900):
            connection.send(probe)
            assert (await connection.answer()).status == 200
