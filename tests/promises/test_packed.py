"""Upstreams that pack what they were asked to send as it is: it is unpacked within bounds, or a clear error."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from relay.exchange import INFLATED_BYTES
from tests.flow.conftest import Start
from tests.flow.fake import FakeUpstream, Step, chunk, http
from tests.promises.families import SAID, WAYS, WHOLES, Way, ask, both_transports, config

MIB = 1024 * 1024


def plain(way: Way) -> bytes:
    """The body of a good answer."""
    if way.streamed:
        return b"".join(way.found.pieces(*(word + " " for word in SAID.split())))
    return json.dumps(way.found.whole(SAID)).encode()


def sent(way: Way, body: bytes, encoding: str, pieces: int = 3) -> list[Step]:
    """That body as an upstream sends it, in some pieces."""
    kind = "text/event-stream" if way.streamed else "application/json"
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Encoding: {encoding}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    step = len(body) // pieces + 1
    return [head.encode(), *(chunk(body[at : at + step]) for at in range(0, len(body), step)), b"0\r\n\r\n"]


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "GZIP": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "identity": bytes,
}


@pytest.mark.promise("U-08")
@both_transports
async def test_what_is_packed_all_the_same_is_unpacked(start: Start, upstream: FakeUpstream, transport: str) -> None:
    relay = await start(config(upstream, transport))
    for way in WAYS:
        for encoding, pack in PACKED.items():
            upstream.scripts = [sent(way, pack(plain(way)), encoding)]
            got = await ask(relay, way)
            assert (got.finished, got.text.strip(), got.error) == (True, SAID, ""), (way, encoding, got)
            assert "content-encoding" not in got.headers
            assert upstream.seen[-1].headers["accept-encoding"] == "identity"


LATE = {"cut before its check", "cut by a byte", "with a wrong check"}
"""What is found out behind the last event of a stream. The answer is whole then, whatever comes of its packing."""


@pytest.mark.promise("U-08")
@both_transports
async def test_what_cannot_be_unpacked_is_an_error(start: Start, upstream: FakeUpstream, transport: str) -> None:
    relay = await start(config(upstream, transport))
    for way in WAYS:
        body = plain(way)
        packed = gzip.compress(body)
        damaged = packed[:-8] + bytes(8)
        cases = {
            "cut in the middle": ("gzip", packed[: len(packed) // 2]),
            # All of the text is there, and nobody knows whether it was all.
            "cut before its check": ("gzip", packed[:-8]),
            "cut by a byte": ("gzip", packed[:-1]),
            "with a wrong check": ("gzip", damaged),
            "not packed": ("gzip", body),
            "packed in another way": ("deflate", b"\x1f\x8b" + bytes(50)),
            "in a form that nobody asked for": ("br", body),
            "in another": ("zstd", body),
            "packed twice": ("gzip, gzip", gzip.compress(packed)),
        }
        for name, (encoding, data) in cases.items():
            if way.streamed and name in LATE:
                continue
            upstream.scripts = [sent(way, data, encoding)]
            got = await ask(relay, way)
            row = await relay.latest()
            assert not got.finished, (way, name, got)
            assert got.error, (way, name)
            assert row.outcome == "upstream_cut", (way, name, row)
            if not way.streamed:
                assert got.status == 502, (way, name)


@pytest.mark.promise("U-08")
@both_transports
async def test_a_bomb_costs_little(start: Start, upstream: FakeUpstream, transport: str) -> None:
    relay = await start(config(upstream, transport))
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join([packer.compress(b"data: " + bytes(MIB)), *(packer.compress(bytes(MIB)) for _ in range(96))])
    bomb += packer.flush()
    assert len(bomb) < MIB // 8
    for way in WAYS:
        upstream.scripts = [sent(way, bomb, "gzip", pieces=1)]
        tracemalloc.start()
        try:
            got = await ask(relay, way)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < 2 * INFLATED_BYTES + 2 * MIB, way
        assert not got.finished, way
        assert got.error, way
        assert (await relay.latest()).outcome == "upstream_cut", way


@pytest.mark.promise("U-08")
@both_transports
async def test_packed_errors_are_read(start: Start, upstream: FakeUpstream, transport: str) -> None:
    relay = await start(config(upstream, transport))
    for way in WHOLES:
        error = {"error": {"message": "no such thing", "type": "invalid_request_error", "status": "INVALID_ARGUMENT"}}
        upstream.scripts = [http(gzip.compress(json.dumps(error).encode()), 400, content_encoding="gzip")]
        got = await ask(relay, way)
        assert (got.status, got.error) == (400, "no such thing"), (way, got)
        for encoding in ("br", "gzip"):
            upstream.scripts = [http(b"\x0b\x02\x80no", 400, content_encoding=encoding)]
            got = await ask(relay, way)
            assert (got.status, bool(got.error)) in ((400, True), (502, True)), (way, encoding, got)
            assert "\x0b" not in got.error
