"""The relay's own HTTP client against the reference: the same bytes, the same errors, and the same way of leaving."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from relay import Upstream, UpstreamRequest
from relay.errors import RelayError, UpstreamProtocol, UpstreamTimeout, UpstreamUnreachable
from relay.http1 import TICK, Http1Transport
from relay.proxies import Proxy, proxy_for
from relay.upstream import AiohttpTransport
from tests.flow.fake import LAST_CHUNK, FakeUpstream, Step, chunk, http

Make = Callable[[], Any]
BOTH = [Http1Transport, AiohttpTransport]


@pytest.fixture(params=BOTH, ids=["own", "aiohttp"])
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    made = request.param()
    yield made
    await made.close()


@pytest.fixture
async def own() -> AsyncIterator[Http1Transport]:
    made = Http1Transport()
    yield made
    await made.close()


def to(upstream: FakeUpstream, **settings: Any) -> tuple[UpstreamRequest, Upstream]:
    request = UpstreamRequest(
        f"{upstream.url}/v1/x?a=%2F", {"content-type": "application/json", "x-a": "b"}, b'{"q":1}'
    )
    return request, Upstream("up", "openai", upstream.url, **settings)


async def fetch(transport: Any, upstream: FakeUpstream, limit: int = 10**7, **settings: Any) -> tuple[int, Any, bytes]:
    async with transport.send(*to(upstream, **settings)) as answer:
        return answer.status, dict(answer.headers), await answer.read(limit)


async def pieces(transport: Any, upstream: FakeUpstream, **settings: Any) -> bytes:
    async with transport.send(*to(upstream, **settings)) as answer:
        return b"".join([piece async for piece in answer.chunks()])


HEAD = b"HTTP/1.1 200 OK\r\nX-One: 1\r\nX-One: 2\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
FIVE = HEAD + b"Content-Length: 5\r\n\r\n"
ZIPPED = gzip.compress(b"hello" * 99)
GOOD: dict[str, tuple[list[Step], bytes]] = {
    "length": ([FIVE + b"hello"], b"hello"),
    "length in pieces": ([HEAD + b"Content-Length: 5\r\n\r\nhe", 0.02, b"llo"], b"hello"),
    "head in pieces": ([b"HTTP/1.1 2", 0.02, b"00 OK\r\nContent-", 0.02, b"Length: 2\r\n\r\nhi"], b"hi"),
    "chunked": (
        [CHUNKED, chunk(b"he"), 0.02, chunk(b"llo"), LAST_CHUNK],
        b"hello",
    ),
    "chunked with trailers": (
        [CHUNKED, chunk(b"hello"), b"0\r\nX-T: 1\r\n\r\n"],
        b"hello",
    ),
    "until close": ([HEAD + b"Connection: close\r\n\r\nhello", "fin"], b"hello"),
    "HTTP/1.0": ([b"HTTP/1.0 200 OK\r\n\r\nhello", "fin"], b"hello"),
    "empty": ([HEAD + b"Content-Length: 0\r\n\r\n"], b""),
    "no content": ([b"HTTP/1.1 204 No Content\r\n\r\n"], b""),
    "early hints": (
        [b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", FIVE + b"hello"],
        b"hello",
    ),
    "continue": ([b"HTTP/1.1 100 Continue\r\n\r\n", FIVE + b"hello"], b"hello"),
    "gzip unasked": (
        [HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(ZIPPED), ZIPPED],
        b"hello" * 99,
    ),
}


@pytest.mark.promise("U-05")
@pytest.mark.parametrize("case", GOOD)
async def test_every_framing_gives_the_same_bytes(transport: Any, upstream: FakeUpstream, case: str) -> None:
    script, body = GOOD[case]
    upstream.scripts = [script]
    status, _, got = await fetch(transport, upstream)
    assert (status, got) == (204 if case == "no content" else 200, body)
    assert await pieces(transport, upstream) == body


async def test_the_request_arrives_as_it_was_meant(transport: Any, upstream: FakeUpstream) -> None:
    upstream.scripts = [http(b"{}")]
    await fetch(transport, upstream)
    seen = upstream.seen[0]
    assert (seen.method, seen.path, seen.body) == ("POST", "/v1/x?a=%2F", b'{"q":1}')
    assert seen.headers["host"] == upstream.url.removeprefix("http://")
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.headers["user-agent"].startswith("i8relay/")
    assert seen.headers["x-a"] == "b"
    assert seen.headers["content-length"] == "7"


async def test_the_last_of_repeated_headers_counts(own: Http1Transport, upstream: FakeUpstream) -> None:
    upstream.scripts = [GOOD["length"][0]]
    assert (await fetch(own, upstream))[1]["x-one"] == "2"


BROKEN: dict[str, tuple[list[Step], type[RelayError]]] = {
    "closed at once": (["fin"], UpstreamProtocol),
    "reset at once": (["rst"], UpstreamProtocol),
    "not HTTP": ([b"220 mail ready\r\n\r\n", "fin"], UpstreamProtocol),
    "cut in the head": ([b"HTTP/1.1 200 OK\r\nContent-Le", "fin"], UpstreamProtocol),
    "cut in the body": ([HEAD + b"Content-Length: 9\r\n\r\nhello", "fin"], UpstreamProtocol),
    "cut in a chunk": ([HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\nhel", "fin"], UpstreamProtocol),
    "cut between chunks": ([CHUNKED, chunk(b"hello"), "fin"], UpstreamProtocol),
    "bad chunk size": ([HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello"], UpstreamProtocol),
    "bad length": ([HEAD + b"Content-Length: -5\r\n\r\nhello"], UpstreamProtocol),
    "two lengths": ([HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"], UpstreamProtocol),
    "length and chunks": (
        [HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(b"hello"), LAST_CHUNK],
        UpstreamProtocol,
    ),
    "a head without end": ([b"HTTP/1.1 200 OK\r\n", *[b"X-Long: " + b"x" * 30_000 + b"\r\n"] * 4], UpstreamProtocol),
    "cut gzip": (
        [HEAD + b"Content-Encoding: gzip\r\nContent-Length: 20\r\n\r\n" + gzip.compress(bytes(range(200)))[:20]],
        UpstreamProtocol,
    ),
    "gzip that is none": ([HEAD + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"], UpstreamProtocol),
    "an answer that never comes": (["stall"], UpstreamTimeout),
    "a body that never comes": ([HEAD + b"Content-Length: 5\r\n\r\n", "stall"], UpstreamTimeout),
    "a body that stops": ([HEAD + b"Content-Length: 5\r\n\r\nhe", "stall"], UpstreamTimeout),
}


@pytest.mark.promise("U-11")
@pytest.mark.parametrize("case", BROKEN)
async def test_every_broken_answer_is_an_error(own: Http1Transport, upstream: FakeUpstream, case: str) -> None:
    script, kind = BROKEN[case]
    upstream.scripts = [script]
    with pytest.raises(kind):
        await fetch(own, upstream, first_byte_timeout=0.3, idle_timeout=0.3)
    with pytest.raises(kind):
        await pieces(own, upstream, first_byte_timeout=0.3, idle_timeout=0.3)
    assert not own.busy


@pytest.mark.promise("U-11")
async def test_an_answer_that_never_comes_is_an_error_however_long_it_took_to_connect(
    own: Http1Transport, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = own.connect

    async def far(*way: Any) -> Any:
        await asyncio.sleep(3 * TICK)
        return await connect(*way)

    monkeypatch.setattr(own, "connect", far)
    upstream.scripts = [["stall"]]
    with pytest.raises(UpstreamTimeout):
        await asyncio.wait_for(fetch(own, upstream, first_byte_timeout=0.2), 20)


@pytest.mark.parametrize(
    "case",
    [case for case in BROKEN if case not in ("two lengths", "cut gzip", "length and chunks", "a head without end")],
)
async def test_the_reference_agrees_on_what_is_broken(upstream: FakeUpstream, case: str) -> None:
    script, kind = BROKEN[case]
    upstream.scripts = [script]
    reference = AiohttpTransport()
    try:
        with pytest.raises(kind):
            await fetch(reference, upstream, first_byte_timeout=0.3, idle_timeout=0.3)
    finally:
        await reference.close()


async def test_a_connection_is_used_again_after_a_complete_answer(own: Http1Transport, upstream: FakeUpstream) -> None:
    upstream.scripts = [http(b"{}")]
    for _ in range(3):
        await fetch(own, upstream)
    assert len(own._idle) == 1
    assert sum(len(idle) for idle in own._idle.values()) == 1
    assert not upstream.peer_left


@pytest.mark.promise("U-15")
@pytest.mark.parametrize(
    "script",
    [
        [HEAD + b"Content-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"],
        [HEAD + b"Content-Length: 2\r\n\r\nhi garbage"],
        [HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi"],
    ],
)
async def test_a_connection_with_something_behind_the_answer_is_not(
    own: Http1Transport, upstream: FakeUpstream, script: list[Step]
) -> None:
    upstream.scripts = [script, http(b"clean")]
    assert (await fetch(own, upstream))[2] == b"hi"
    await asyncio.sleep(0.02)
    assert (await fetch(own, upstream))[2] == b"clean"


@pytest.mark.promise("F-04")
async def test_a_connection_that_the_server_closed_is_not_used_again(
    own: Http1Transport, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[*http(b"one"), "fin"], http(b"two")]
    assert (await fetch(own, upstream))[2] == b"one"
    await asyncio.sleep(0.05)
    assert (await fetch(own, upstream))[2] == b"two"


@pytest.mark.promise("F-02")
async def test_leaving_early_closes_the_connection(transport: Any, upstream: FakeUpstream) -> None:
    upstream.scripts = [[HEAD + b"Content-Length: 9\r\n\r\nhello", "stall"]]
    async with transport.send(*to(upstream)) as answer:
        await anext(answer.chunks())
    left = time.monotonic()
    await until(lambda: bool(upstream.peer_left))
    assert upstream.peer_left[0] - left < 0.5


async def until(happened: Callable[[], bool]) -> None:
    for _ in range(200):
        if happened():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen within two seconds")


async def test_a_cancelled_wait_closes_the_connection(transport: Any, upstream: FakeUpstream) -> None:
    upstream.scripts = [["stall"]]
    task = asyncio.create_task(fetch(transport, upstream))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.1)
    assert upstream.peer_left


async def test_a_body_over_the_limit_is_an_error(transport: Any, upstream: FakeUpstream) -> None:
    upstream.scripts = [http(b"x" * 5000)]
    with pytest.raises(UpstreamProtocol, match="longer than 1000 bytes"):
        await fetch(transport, upstream, limit=1000)


@pytest.mark.promise("X-05")
async def test_a_slow_reader_stops_the_upstream(own: Http1Transport, upstream: FakeUpstream) -> None:
    big = [HEAD + b"Content-Length: 50000000\r\n\r\n", *[b"x" * 1_000_000] * 50]
    upstream.scripts = [big]
    async with own.send(*to(upstream)) as answer:
        await asyncio.sleep(0.3)
        assert answer._size < 2_000_000
        assert sum([len(piece) async for piece in answer.chunks()]) == 50_000_000


@pytest.mark.promise("X-05")
async def test_a_sink_that_is_full_stops_the_upstream(own: Http1Transport, upstream: FakeUpstream) -> None:
    class Slow:
        taken = 0
        waits = 0

        def take(self, piece: bytes, /) -> bool:
            self.taken += len(piece)
            return True

        def full(self) -> bool:
            return True

        async def drain(self) -> None:
            self.waits += 1
            await asyncio.sleep(0.001)

    upstream.scripts = [[HEAD + b"Content-Length: 3000000\r\n\r\n", *[b"x" * 100_000] * 30]]
    sink = Slow()
    async with own.send(*to(upstream)) as answer:
        await answer.pump(sink)
    assert sink.taken == 3_000_000
    assert sink.waits > 5


async def test_what_a_sink_raises_belongs_to_whoever_pumps(own: Http1Transport, upstream: FakeUpstream) -> None:
    class Broken:
        def take(self, piece: bytes, /) -> bool:
            raise RuntimeError("mine")

        def full(self) -> bool:
            return False

        async def drain(self) -> None:
            return None

    upstream.scripts = [[HEAD + b"Content-Length: 9\r\n\r\n", 0.05, b"hello", "stall"]]
    with pytest.raises(RuntimeError, match="mine"):
        async with own.send(*to(upstream)) as answer:
            await answer.pump(Broken())
    assert not own.busy


async def test_a_port_where_nobody_listens_is_unreachable(transport: Any, unused_tcp_port: int) -> None:
    upstream = Upstream("up", "openai", "x")
    with pytest.raises(UpstreamUnreachable):
        async with transport.send(UpstreamRequest(f"http://127.0.0.1:{unused_tcp_port}/"), upstream):
            pass


@pytest.mark.parametrize("url", ["ftp://x/", "http:///x", "http://127.0.0.1:1/a b", "nonsense", "http://[::1/"])
async def test_an_address_that_is_none_is_unreachable(own: Http1Transport, url: str) -> None:
    with pytest.raises(UpstreamUnreachable):
        async with own.send(UpstreamRequest(url), Upstream("up", "openai", "x")):
            pass


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\0b", "\u20ac"])
async def test_no_header_becomes_two(own: Http1Transport, upstream: FakeUpstream, value: str) -> None:
    upstream.scripts = [http(b"{}")]
    request, settings = to(upstream)
    request.headers = {**request.headers, "x-a": value}
    with pytest.raises(UpstreamUnreachable):
        async with own.send(request, settings):
            pass
    assert not upstream.seen


@pytest.mark.promise("U-13")
async def test_a_redirect_is_not_followed(transport: Any, upstream: FakeUpstream) -> None:
    decoy = FakeUpstream(scripts=[http(b"{}")])
    await decoy.start()
    upstream.scripts = [http(b"", 307, location=f"{decoy.url}/")]
    assert (await fetch(transport, upstream))[0] == 307
    assert not decoy.seen
    await decoy.stop()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for `localhost`, signed by itself."""
    file = tmp_path / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(file), "-out", str(tmp_path / "cert.pem")]
    try:
        subprocess.run([*command, *names], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    file.write_bytes(file.read_bytes() + (tmp_path / "cert.pem").read_bytes())
    return file


async def serve_tls(certificate: Path) -> tuple[asyncio.Server, int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecure")
        await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(answer, "localhost", 0, ssl=context)
    return server, server.sockets[0].getsockname()[1]


@pytest.mark.promise("U-18")
async def test_certificates_are_verified(certificate: Path) -> None:
    server, port = await serve_tls(certificate)
    trusted = Http1Transport(context=ssl.create_default_context(cafile=str(certificate)))
    distrusted = Http1Transport()
    upstream = Upstream("up", "openai", "x")
    try:
        request = UpstreamRequest(f"https://localhost:{port}/", method="GET")
        async with trusted.send(request, upstream) as answer:
            assert await answer.read(100) == b"secure"
        with pytest.raises(UpstreamUnreachable, match="certificate is not valid"):
            async with distrusted.send(request, upstream):
                pass
        wrong_name = UpstreamRequest(f"https://127.0.0.1:{port}/", method="GET")
        with pytest.raises(UpstreamUnreachable, match="certificate is not valid"):
            async with trusted.send(wrong_name, upstream):
                pass
        plain = FakeUpstream(scripts=[["stall"]])
        await plain.start()
        with pytest.raises(UpstreamUnreachable):
            async with trusted.send(
                UpstreamRequest(f"https://127.0.0.1:{plain.port}/"), Upstream("u", "f", "x", connect_timeout=0.3)
            ):
                pass
        await plain.stop()
    finally:
        await trusted.close()
        await distrusted.close()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("environ", "host", "expected"),
    [
        ({}, "api.example.com", None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "api.example.com", Proxy("proxy", 3128)),
        ({"https_proxy": "proxy:3128"}, "api.example.com", Proxy("proxy", 3128)),
        ({"ALL_PROXY": "http://proxy"}, "api.example.com", Proxy("proxy", 80)),
        ({"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "example.com"}, "api.example.com", None),
        ({"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "*"}, "api.example.com", None),
        ({"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "le.com"}, "api.example.com", Proxy("proxy", 1)),
        ({"HTTPS_PROXY": "http://proxy:1"}, "127.0.0.1", None),
        ({"HTTPS_PROXY": "http://proxy:1"}, "localhost", None),
        ({"HTTPS_PROXY": "socks5://proxy:1"}, "api.example.com", None),
    ],
)
def test_the_environment_names_the_proxy(environ: dict[str, str], host: str, expected: Proxy | None) -> None:
    assert proxy_for("https", host, 443, environ) == expected


async def test_plain_requests_go_through_the_proxy_with_its_password(upstream: FakeUpstream) -> None:
    upstream.scripts = [http(b"via")]
    transport = Http1Transport(environ={"http_proxy": f"http://me:p%40ss@127.0.0.1:{upstream.port}"})
    request = UpstreamRequest("http://api.example.invalid/v1/x", {}, b"{}")
    async with transport.send(request, Upstream("up", "openai", "x")) as answer:
        assert await answer.read(100) == b"via"
    assert upstream.seen[0].path == "http://api.example.invalid/v1/x"
    assert upstream.seen[0].headers["proxy-authorization"] == "Basic bWU6cEBzcw=="
    await transport.close()


async def test_tls_goes_through_the_proxys_tunnel(certificate: Path) -> None:
    server, port = await serve_tls(certificate)
    asked: list[bytes] = []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        there, back = await asyncio.open_connection("localhost", port)
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65_536):
                sink.write(data)
            sink.close()

        await asyncio.gather(copy(reader, back), copy(there, writer), return_exceptions=True)

    proxy = await asyncio.start_server(tunnel, "127.0.0.1", 0)
    transport = Http1Transport(context=ssl.create_default_context(cafile=str(certificate)), environ={})
    # The name is this machine's, which no environment would send through a proxy: it is put there by hand.
    request = UpstreamRequest(f"https://localhost:{port}/", method="GET")
    from relay.http1 import _split

    transport._proxies[_split(request.url)[0]] = Proxy("127.0.0.1", proxy.sockets[0].getsockname()[1])
    try:
        async with transport.send(request, Upstream("up", "openai", "x")) as answer:
            assert await answer.read(100) == b"secure"
        assert asked[0].startswith(f"CONNECT localhost:{port} HTTP/1.1\r\n".encode())
    finally:
        await transport.close()
        # The tunnel's two ends close one after the other.
        await asyncio.sleep(0.1)
        proxy.close()
        server.close()
        await server.wait_closed()


@pytest.mark.promise("F-14")
async def test_many_at_once_wait_for_nobody(own: Http1Transport, upstream: FakeUpstream) -> None:
    upstream.scripts = [[0.2, *http(b"{}")]]
    began = time.monotonic()
    await asyncio.gather(*(fetch(own, upstream) for _ in range(300)))
    assert time.monotonic() - began < 10
    assert not own.busy
