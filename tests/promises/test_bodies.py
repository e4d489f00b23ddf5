"""Bodies that are compressed, no JSON, or JSON of a kind that nobody needs, in every way that a call can come."""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import time
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import FakeUpstream, http
from tests.promises.ways import Way, answers, refusal, ways
from tests.promises.wire import Said, wire


async def send(relay: Running, way: Way, body: bytes, headers: str = "") -> Said:
    """The answer to a request with just this body."""
    head = f"POST {way.path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {relay.key}\r\n"
    async with wire(relay) as connection:
        connection.send(f"{head}{headers}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        said = await connection.answer()
        await connection.rest()
        return said


@asynccontextmanager
async def watched(seconds: float) -> AsyncIterator[None]:
    """Nothing in here may hold up everybody else for so long."""
    longest, last, over = 0.0, time.monotonic(), False

    async def look() -> None:
        nonlocal longest, last
        while not over:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            longest, last = max(longest, now - last), now

    task = asyncio.create_task(look())
    try:
        yield
    finally:
        over = True
        await task
    assert longest < seconds, f"nobody else was served for {longest:.3f} seconds"


BOMB = gzip.compress(b" " * 2**26, 6)
PACKED: Mapping[str, bytes] = {
    "gzip": gzip.compress(b"{}"),
    "x-gzip": gzip.compress(b"{}"),
    "deflate": zlib.compress(b"{}"),
    "br": b"\x8b\x00\x80{}\x03",
    "zstd": b"(\xb5/\xfd\x04X\x11\x00\x00{}\x00\x00\x00\x00",
    "compress": b"\x1f\x9d\x90",
    "gzip, gzip": gzip.compress(gzip.compress(b"{}")),
    "identity, gzip": gzip.compress(b"{}"),
    "GZIP": gzip.compress(b"{}") * 50,
    "gzip;q=1": b"no such thing",
    "x": b"{}",
}


@pytest.mark.promise("H-05")
async def test_nothing_that_is_compressed_is_unpacked(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = answers
    relay = await start(openai_config(upstream))
    for way in ways(relay.relay.plugins):
        for coding, body in PACKED.items():
            said = await send(relay, way, body, f"Content-Encoding: {coding}\r\n")
            assert said.status == 415, (str(way), coding, said)
            assert "compress" in refusal(said).lower() or "encod" in refusal(said).lower()
        assert (await send(relay, way, json.dumps(way.body).encode(), "Content-Encoding: identity\r\n")).status == 200
    seen = len(upstream.seen)
    way = next(ways(relay.relay.plugins))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert {
        said.status
        for said in await asyncio.gather(*[send(relay, way, BOMB, "Content-Encoding: gzip\r\n") for _ in range(20)])
    } == {415}
    # Unpacked it would be twenty times 64 MB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32_000
    assert len(upstream.seen) == seen


NONE: Mapping[str, bytes] = {
    "nothing": b"",
    "blank": b" \r\n\t",
    "a list": b"[]",
    "a list of it": b'[{"model":"m"}]',
    "a text": b'"x"',
    "null": b"null",
    "a number": b"1",
    "true": b"true",
    "not a number": b"NaN",
    "a form": b"model=m&messages=Hi",
    "cut": b'{"model":"m"',
    "two": b"{}{}",
    "single quotes": b"{'model': 'm'}",
    "a comment": b"{/* x */}",
    "a comma too many": b'{"model":"m",}',
    "NUL": b"\0",
    "deep list": b"[" * 200_000,
    "deep object": b'{"a":' * 200_000,
    "high bytes": b"\xff\xfe\xfd",
}
"""What is no JSON object."""
AROUND: Mapping[str, Any] = {
    "byte order mark": lambda body: b"\xef\xbb\xbf" + body,
    "UTF-16": lambda body: body.decode().encode("utf-16"),
    "UTF-32": lambda body: body.decode().encode("utf-32-le"),
    "NUL before": lambda body: b"\0" + body,
    "NUL behind": lambda body: body + b"\0",
    "text behind": lambda body: body + b" x",
}
REFUSED: Mapping[str, bytes] = {
    "depth 1025": b'{"a":' * 1025 + b"1" + b"}" * 1025,
    "depth 200,000": b"[" * 200_000 + b"]" * 200_000,
    "NaN": b"NaN",
    "infinity": b"-Infinity",
    "lone surrogate": b'"\\ud800"',
    "surrogates in the wrong order": b'"\\udc00\\ud800"',
    "NUL in a text": b'"a\0b"',
    "line feed in a text": b'"a\nb"',
    "invalid UTF-8": b'"\xc3("',
    "long form": b'"\xc0\xaf"',
    "surrogate in UTF-8": b'"\xed\xa0\x80"',
    "hexadecimal": b"0x10",
    "leading zero": b"01",
    "unknown escape": b'"\\x41"',
}
"""Values that are no JSON, or deeper than anybody needs."""
ODD: Mapping[str, bytes] = {
    "depth 65": b'{"a":' * 65 + b"1" + b"}" * 65,
    "depth 255": b"[" * 255 + b"]" * 255,
    "a million empty objects": b"[" + b"{}," * 999_999 + b"{}]",
    "200,000 keys": b"{" + b",".join(b'"k%d":0' % number for number in range(200_000)) + b"}",
    "200,000 times one key": b"{" + b",".join([b'"k":0'] * 200_000) + b"}",
    "10,000 digits": b"9" * 10_000,
    "10,000 digits behind the point": b"0." + b"3" * 10_000,
    "1e400": b"1e400",
    "NUL, escaped": b'"\\u0000"',
    "a pair of surrogates": b'"\\ud83d\\ude00"',
    "a key of 100 KB": b'{"' + b"k" * 100_000 + b'":1}',
    "no key": b'{"":1}',
    "__proto__": b'{"__proto__":{"x":1},"constructor":1}',
}
"""Values that are JSON, and are passed on or refused."""


def within(body: Mapping[str, Any], value: bytes) -> bytes:
    """A good body with one field more."""
    return json.dumps(body).encode()[:-1] + b',"metadata":' + value + b"}"


@pytest.mark.promise("H-06")
async def test_what_is_no_json_is_a_clear_400_in_every_way(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = answers
    relay = await start(openai_config(upstream))
    async with watched(1.0):
        for way in ways(relay.relay.plugins):
            good = json.dumps(way.body).encode()
            bodies = {
                **NONE,
                **{name: change(good) for name, change in AROUND.items()},
                **{name: within(way.body, value) for name, value in REFUSED.items()},
            }
            for name, body in bodies.items():
                said = await send(relay, way, body)
                assert said.status == 400, (str(way), name, said)
                assert "body" in refusal(said), (str(way), name, said)
    assert upstream.seen == []


@pytest.mark.turns(0.5)
@pytest.mark.promise("H-06")
async def test_json_that_nobody_needs_is_answered_or_refused_and_holds_nobody_up(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.answer = answers
    relay = await start(openai_config(upstream))
    every = list(ways(relay.relay.plugins))
    for name, value in ODD.items():
        # Large ones in one way of each dialect: what a way has of its own comes behind the reading.
        few = {way.dialect: way for way in every}.values() if len(value) > 100_000 else every
        for way in few:
            async with watched(1.0):
                said = await send(relay, way, within(way.body, value))
            assert said.status in (200, 400), (str(way), name, said)
            if said.status == 400:
                assert refusal(said)
    async with relay.chat() as response:
        assert response.status == 200


LONG: Mapping[str, Mapping[str, Any]] = {
    "50,000 messages": {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "x"}] * 25_000
    },
    "100,000 parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 100_000}]},
    "10 MB of tools": {
        "tools": [
            {"type": "function", "function": {"name": f"f{n}", "parameters": {"description": "x" * 1000}}}
            for n in range(10_000)
        ]
    },
    "100,000 other models": {"metadata": [{"model": "x"}] * 100_000},
    "100,000 other wishes": {"metadata": [{"stream_options": None, "include_usage": False}] * 100_000},
    "a hundred thousand choices": {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"enum": list(range(100_000))}}}]
    },
}


LAST: Mapping[str, Any] = {"stream": True, "stream_options": {}, "model": "m"}


@pytest.mark.turns(0.5)
@pytest.mark.promise("H-09")
@pytest.mark.parametrize("target", ["native", "translated"])
async def test_long_lists_hold_nobody_up(start: Start, upstream: FakeUpstream, target: str) -> None:
    upstream.answer = lambda seen: http({"error": {"message": "no"}}, 400)
    config = openai_config(upstream)
    if target == "translated":
        config = config.replace('"openai"', '"anthropic"').replace("/v1", "")
    relay = await start(config)
    for name, fields in LONG.items():
        # What is looked for in the body's text comes last.
        body = json.dumps({"messages": [{"role": "user", "content": "Hi"}], **fields, **LAST}).encode()
        way = next(way for way in ways(relay.relay.plugins) if way.dialect == "openai-chat")
        began = time.monotonic()
        async with watched(3.0):
            said = await send(relay, way, body)
        assert said.status == 400
        assert ("too large" in refusal(said)) is (name == "10 MB of tools")
        assert time.monotonic() - began < 10
