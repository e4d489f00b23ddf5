"""Names that take too long to resolve, and TLS that is not as it should be: each is a clear error, in time."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from relay import Upstream, UpstreamRequest
from relay.errors import UpstreamUnreachable
from relay.http1 import Http1Transport
from relay.upstream import AiohttpTransport
from tests.flow.conftest import Start
from tests.flow.fake import FakeUpstream
from tests.promises.families import STREAMS, ask, both_transports, config
from tests.promises.test_guard import RESOLVED


@RESOLVED
@pytest.mark.promise("U-18")
@both_transports
async def test_a_name_that_nobody_answers_for_costs_the_time_to_connect_and_no_more(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    answered = threading.Event()
    real = socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == "slow.lan":
            answered.wait(10)
            raise socket.gaierror(socket.EAI_AGAIN, "nobody has answered")
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    text = config(upstream, transport, host="slow.lan", connect_timeout=0.2)
    try:
        # Starting asks for the models, which takes the same time.
        relay = await start(text)
        for way in STREAMS[:2]:
            got = await ask(relay, way)
            assert got.status == 502, got
            assert "within 0.2 seconds" in got.error
        assert {row.error_code for row in await relay.rows()} == {"upstream_unreachable"}
    finally:
        answered.set()


def made(folder: Path, *, begins: str = "", ends: str = "", name: str = "localhost") -> Path:
    """A certificate that signs itself, with its key, in one file; of a time that is over, if that is asked for."""
    key, request, certificate = folder / "key.pem", folder / "request.pem", folder / "certificate.pem"
    settings = folder / "ca.cnf"
    settings.write_text(
        f"[ca]\ndefault_ca = x\n[x]\ndatabase = {folder}/index.txt\nnew_certs_dir = {folder}\n"
        f"serial = {folder}/serial\nrand_serial = yes\nunique_subject = no\n"
        "default_md = sha256\npolicy = p\nx509_extensions = e\n"
        f"[p]\ncommonName = supplied\n[e]\nsubjectAltName = DNS:{name}\nbasicConstraints = CA:true\n"
    )
    (folder / "index.txt").write_text("")
    when = ("-startdate", begins, "-enddate", ends) if begins else ("-days", "2")
    commands: tuple[tuple[str, ...], ...] = (
        ("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request)),
        (
            *("ca", "-batch", "-selfsign", "-config", str(settings), "-keyfile", str(key), *when),
            *("-in", str(request), "-out", str(certificate), "-notext"),
        ),
    )
    for command in commands:
        try:
            subprocess.run(["openssl", *command], check=True, capture_output=True)
        except FileNotFoundError:
            pytest.skip("openssl is not installed")
    both = folder / "both.pem"
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    return both


@asynccontextmanager
async def serving(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any], certificate: Path | None = None
) -> AsyncIterator[int]:
    """A server on this machine, with TLS if it has a certificate; its port."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    server = await asyncio.start_server(talk, "localhost", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def refuses(transport: Any, port: int, reason: str, host: str = "localhost") -> None:
    """Whether a request is refused before anything of it was sent, for that reason."""
    upstream = Upstream("up", "openai", "x", connect_timeout=0.5)
    with pytest.raises(UpstreamUnreachable, match=reason):
        async with transport.send(UpstreamRequest(f"https://{host}:{port}/", {"authorization": "CANARY"}), upstream):
            pass


@pytest.mark.promise("U-18")
async def test_certificates_of_another_time_or_name_and_cut_handshakes_are_refused(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))
        writer.close()

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.transport.abort()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    cases = {
        "over": {"begins": "20200101000000Z", "ends": "20200102000000Z"},
        "to come": {"begins": "20700101000000Z", "ends": "20700102000000Z"},
        "another name": {"name": "elsewhere.example.com"},
    }
    for name, options in cases.items():
        folder = tmp_path / name.replace(" ", "-")
        folder.mkdir()
        certificate = made(folder, **options)
        # It is trusted, but for that.
        trusting = ssl.create_default_context(cafile=str(folder / "certificate.pem"))
        own, other = Http1Transport(context=trusting), AiohttpTransport()
        try:
            async with serving(listen, certificate) as port:
                for transport in (own, other):
                    await refuses(transport, port, "certificate is not valid")
        finally:
            await own.close()
            await other.close()
    own, other = Http1Transport(), AiohttpTransport()
    try:
        for transport in (own, other):
            async with serving(cut) as port:
                await refuses(transport, port, "cannot be reached|does not speak TLS")
            async with serving(mute) as port:
                await refuses(transport, port, "within 0.5 seconds")
    finally:
        await own.close()
        await other.close()
    assert not any(b"CANARY" in one for one in heard)


def test_no_setting_switches_the_checking_off() -> None:
    from relay.settings import ServerSettings, UpstreamSettings

    for settings in (ServerSettings, UpstreamSettings):
        words = {word for name in settings.__struct_fields__ for word in name.split("_")}
        assert not words & {"verify", "insecure", "ssl", "tls", "certificate", "ca"}
