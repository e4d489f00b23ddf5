"""Upstreams whose answers are odd as HTTP: statuses, heads and error pages that no client could make sense of."""

from __future__ import annotations

import json
from itertools import product

import pytest

from relay.kit import MAX_MESSAGE
from tests.flow.conftest import Start
from tests.flow.fake import FakeUpstream, Step, chunk, http
from tests.promises.families import SAID, STREAMS, WAYS, WHOLES, Got, Way, ask, both_transports, config

ALLOWED = {
    "content-type",
    "content-length",
    "transfer-encoding",
    "date",
    "server",
    "cache-control",
    "content-security-policy",
    "referrer-policy",
    "x-content-type-options",
    "x-accel-buffering",
    "x-request-id",
    "request-id",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "connection",
}
"""All headers that an answer may have, beside the relay's own that begin with `x-relay-` or tell its limits."""
OWN = ("x-relay-", "x-ratelimit-", "anthropic-ratelimit-")


def clean(got: Got, where: object) -> None:
    """The headers are the relay's own, whatever the upstream's were."""
    strange = {name.lower() for name in got.headers} - ALLOWED
    assert not [name for name in strange if not name.startswith(OWN)], (where, got.headers)
    assert got.headers["server"] == "i8relay", where
    assert "CANARY" not in str(got.headers), where


def answered(way: Way, lines: str = "", status: str = "200 OK", version: str = "1.1") -> list[Step]:
    """A good answer but for its head."""
    steps = way.found.good(way.streamed)
    whole = b"".join(step for step in steps if isinstance(step, bytes))
    _, _, rest = whole.partition(b"\r\n")
    return [f"HTTP/{version} {status}\r\n{lines}".encode("latin-1") + rest]


STATUSES: dict[str, str] = {
    "no content": "204 No Content",
    "moved": "302 Found",
    "moved for good": "308 Permanent Redirect",
    "not modified": "304 Not Modified",
    "several": "300 Multiple Choices",
    "of no class": "999 Odd",
    "no number": "two hundred",
    "zero": "000 Nothing",
    "another protocol": "101 Switching Protocols",
}


@pytest.mark.promise("U-10")
@pytest.mark.promise("U-13")
@both_transports
async def test_a_status_that_is_no_answer_is_a_clear_error(
    start: Start, upstream: FakeUpstream, transport: str
) -> None:
    decoy = FakeUpstream(scripts=[http(b"{}")])
    await decoy.start()
    try:
        relay = await start(config(upstream, transport))
        lines = f"Location: {decoy.url}/v1/chat/completions\r\nUpgrade: CANARY\r\n"
        for way, (name, status) in product(WAYS, STATUSES.items()):
            upstream.scripts = [[*answered(way, lines, status), "fin"]]
            before = len(upstream.seen)
            got = await ask(relay, way)
            assert got.status == 502, (way, name, got)
            assert got.error, (way, name)
            assert len(upstream.seen) == before + 1, (way, name)
            clean(got, (way, name))
        assert not decoy.seen
    finally:
        await decoy.stop()


@pytest.mark.promise("U-10")
@both_transports
async def test_what_only_announces_an_answer_is_passed_over(
    start: Start, upstream: FakeUpstream, transport: str
) -> None:
    relay = await start(config(upstream, transport))
    for way in WAYS:
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: CANARY\r\n\r\n" * 3 + b"HTTP/1.1 100 Continue\r\n\r\n"
        upstream.scripts = [[hints, *answered(way)]]
        got = await ask(relay, way)
        assert (got.finished, got.text) == (True, SAID), (way, got)
        clean(got, way)


@pytest.mark.promise("U-10")
@both_transports
async def test_an_answer_in_the_wrong_form_is_converted_or_a_clear_error(
    start: Start, upstream: FakeUpstream, transport: str
) -> None:
    relay = await start(config(upstream, transport))
    for way in STREAMS:
        # Some hosts of one family answer whole whatever they are asked for: that is told as a stream.
        upstream.scripts = [http(way.found.whole(SAID))]
        got = await ask(relay, way)
        if way.found.family == "anthropic":
            assert (got.status, bool(got.error)) == (502, True), (way, got)
        else:
            assert (got.finished, got.text, got.error) == (True, SAID, ""), (way, got)
        upstream.scripts = [http(b"<html>CANARY</html>", content_type="text/html")]
        got = await ask(relay, way)
        assert got.status == 502, (way, got)
        assert b"CANARY" not in got.body
    for way in WHOLES:
        body = b"".join(way.found.pieces("It is"))
        upstream.scripts = [http(body, content_type="text/event-stream")]
        got = await ask(relay, way)
        assert got.status == 502 or (got.finished and got.text == "It is"), (way, got)
    assert {row.outcome for row in await relay.rows()} <= {"ok", "upstream_cut", "upstream_error"}


HEADS: dict[str, str] = {
    "many": "".join(f"X-CANARY-{number}: {number}\r\n" for number in range(300)),
    "large": f"X-Large: {'CANARY' * 17_000}\r\n",
    "two lengths": "Content-Length: 5\r\nContent-Length: 6\r\n",
    "a length and chunks": "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "a length that is none": "Content-Length: +5\r\n",
    "chunks that are none": "Transfer-Encoding: xchunked\r\n",
    "a zero": "X-Odd: CAN\x00ARY\r\n",
    "a control character": "X-Odd: CANARY\x01\r\n",
    "a deleted character": "X-Odd: CANARY\x7f\r\n",
    "an escape": "X-Odd: CANARY\x1b[2J\r\n",
    "a line that goes on": "X-Odd: CAN\r\n ARY\r\n",
    "a bare line feed": "X-Odd: CANARY\nX-More: CANARY\r\n",
    "a name with a blank": "X Odd: CANARY\r\n",
    "no colon": "CANARY\r\n",
    "letters of elsewhere": "X-Odd: CANARY\xff\xe4\r\n",
    "a type with a control character": "Content-Type: text/CANARY\x01\r\n",
}
FOREIGN = (
    "Server: CANARY\r\nSet-Cookie: a=CANARY\r\nX-Accel-Redirect: /CANARY\r\nX-Sendfile: /CANARY\r\n"
    "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: CANARY\r\n"
    "Strict-Transport-Security: CANARY\r\n"
    "Location: CANARY\r\nRefresh: 0; CANARY\r\nContent-Security-Policy: CANARY\r\nAlt-Svc: CANARY\r\nVia: CANARY\r\n"
    "X-Powered-By: CANARY\r\nConnection: keep-alive, CANARY\r\nKeep-Alive: timeout=CANARY\r\nTrailer: CANARY\r\n"
    "Proxy-Authenticate: CANARY\r\nWWW-Authenticate: CANARY\r\nX-Request-Id: CANARY\r\nopenai-organization: CANARY\r\n"
)


@pytest.mark.promise("U-11")
@both_transports
async def test_an_odd_head_is_an_error_or_a_clean_answer(start: Start, upstream: FakeUpstream, transport: str) -> None:
    relay = await start(config(upstream, transport))
    for way, (name, lines) in product(WAYS, HEADS.items()):
        upstream.scripts = [[*answered(way, lines), "fin"]]
        got = await ask(relay, way)
        assert got.finished or got.error, (way, name, got)
        assert got.status in (200, 502), (way, name, got)
        clean(got, (way, name))


@pytest.mark.promise("U-11")
@both_transports
async def test_no_header_of_an_upstreams_is_passed_on(start: Start, upstream: FakeUpstream, transport: str) -> None:
    relay = await start(config(upstream, transport))
    for way in WAYS:
        upstream.scripts = [answered(way, FOREIGN)]
        got = await ask(relay, way)
        assert (got.finished, got.text) == (True, SAID), (way, got)
        clean(got, way)
        upstream.scripts = [answered(way, FOREIGN, "429 Too Many Requests")]
        got = await ask(relay, way)
        assert got.status == 429, (way, got)
        clean(got, way)


PAGES: dict[str, tuple[str, bytes]] = {
    "a web page": ("text/html", b"<html><body><h1>CANARY</h1></body></html>"),
    "a page that says it is JSON": ("application/json", b"<!doctype html><p>CANARY"),
    "a page inside of JSON": ("application/json", b'{"error":{"message":"<html>CANARY</html>"}}'),
    "five megabytes": ("text/plain", b"x" * 5_000_000),
    "five megabytes of message": ("application/json", b'{"error":{"message":"' + b"y" * 5_000_000 + b'"}}'),
    "no text": ("application/json", b"\xff\xfe\x00\x01" * 100),
    "no text in JSON": ("application/json", b'{"error":{"message":"\xff\xfe"}}'),
    "a stack trace": ("text/plain", b"Traceback (most recent call last):\n" + b'  File "CANARY.py", line 1\n' * 200),
    "nested": ("application/json", json.dumps({"error": {"error": {"error": "deep"}}}).encode()),
    "a list": ("application/json", b'[{"error":{"message":"wrapped"}}]'),
    "details": ("application/json", b'{"detail":[{"loc":["body","messages"],"msg":"Field required"}]}'),
    "a text": ("application/json", b'"just so"'),
    "nothing": ("application/json", b""),
    "an endless message": ("application/json", b'{"error":{"message":"' + b"CANARY" * 200_000),
}


@pytest.mark.promise("U-16")
@both_transports
async def test_error_pages_become_short_messages(start: Start, upstream: FakeUpstream, transport: str) -> None:
    relay = await start(config(upstream, transport))
    for way, (name, (kind, body)), status in product(WAYS, PAGES.items(), (400, 500)):
        upstream.scripts = [http(body, status, content_type=kind)]
        got = await ask(relay, way)
        assert got.status == (400 if status == 400 else 502), (way, name, got.body[:200])
        # The error is read out of the envelope of its dialect.
        assert 0 < len(got.error) <= MAX_MESSAGE <= 2048, (way, name, got.error[:200])
        assert "<html" not in got.error.lower(), (way, name, got.error)
        assert not any(character in got.error for character in "\x00\x01\ufffe"), (way, name, got.error)
        assert got.headers["content-type"].startswith("application/json"), (way, name)


@pytest.mark.promise("U-16")
@both_transports
async def test_an_error_that_never_ends_is_not_waited_for(start: Start, upstream: FakeUpstream, transport: str) -> None:
    relay = await start(config(upstream, transport, idle_timeout=0.1))
    head = b"HTTP/1.1 500 X\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    for way in WAYS[::2]:
        upstream.scripts = [[head, *[chunk(b"x" * 65_536)] * 40, "stall"], [head, chunk(b"part"), "stall"]]
        upstream.seen.clear()
        for _ in range(2):
            got = await ask(relay, way)
            assert got.status == 502, (way, got)
            assert len(got.error) <= MAX_MESSAGE, way
