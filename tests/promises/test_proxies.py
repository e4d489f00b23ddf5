"""Behind a reverse proxy, two callers share a connection, and neither gets or sends what is the other's."""

from __future__ import annotations

import asyncio
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.flow.conftest import Start, openai_config
from tests.flow.fake import FakeUpstream, chat_answer
from tests.promises.test_wire import MARKER, PROBES
from tests.promises.wire import Wire, post, until

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
CONFIG = """
daemon off;
master_process off;
pid pid;
error_log errors crit;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    upstream relay {{ server 127.0.0.1:{relay}; keepalive 1; }}
    server {{
        listen 127.0.0.1:{port};
        ignore_invalid_headers {ignore};
        location / {{
            proxy_pass http://relay;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host localhost;
            proxy_request_buffering {buffering};
            proxy_buffering off;
        }}
    }}
}}
"""


@asynccontextmanager
async def proxied(folder: Path, relay: int, port: int, **settings: str) -> AsyncIterator[None]:
    """nginx in front of the relay, with one connection to it that all share."""
    (folder / "nginx.conf").write_text(CONFIG.format(relay=relay, port=port, **settings))
    process = await asyncio.create_subprocess_exec(
        *(str(NGINX), "-p", str(folder), "-c", "nginx.conf", "-e", "errors"), stdout=DEVNULL, stderr=PIPE
    )
    try:
        async with asyncio.timeout(5):
            while True:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                assert process.returncode is None, await process.stderr.read() if process.stderr else ""
                await asyncio.sleep(0.02)
        yield
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.promise("H-02")
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
@pytest.mark.parametrize("settings", [("on", "on"), ("off", "off")])
async def test_whoever_shares_a_connection_with_a_smuggler_gets_its_own_answers(
    start: Start, upstream: FakeUpstream, tmp_path: Path, unused_tcp_port: int, settings: tuple[str, str]
) -> None:
    upstream.answer = lambda seen: chat_answer(seen.json["messages"][0]["content"])
    relay = await start(openai_config(upstream))
    other, secret = await relay.relay.store.keys.create("other")
    ignore, buffering = settings
    async with proxied(tmp_path, relay.server.port or 0, unused_tcp_port, ignore=ignore, buffering=buffering):
        reader, writer = await asyncio.open_connection("127.0.0.1", unused_tcp_port)
        victim = Wire(reader, writer)
        marker = f"GET {MARKER} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        for number, probe in enumerate(PROBES.values()):
            attacker = Wire(*await asyncio.open_connection("127.0.0.1", unused_tcp_port))
            attacker.send(probe.replace("{key}", relay.key).encode("latin-1") + marker)
            got = b""
            # The proxy may wait for more of it.
            with suppress(TimeoutError, ConnectionResetError):
                got = await asyncio.wait_for(attacker.reader.read(65_536), 0.05)
            for turn in range(2):
                text = f"victim {number} {turn}"
                victim.send(post(secret, messages=[{"role": "user", "content": text}]))
                said = await victim.answer()
                assert said.status == 200, (probe, said)
                assert f'"{text}"'.encode() in said.body, (probe, said)
            assert b"victim" not in got
            attacker.writer.close()
        writer.close()
    await until(lambda: relay.relay.limiter.running() == 0)
    await relay.relay.store.usage.flush()
    rows = await relay.relay.store.usage.rows(limit=1000)
    assert Counter(row.outcome for row in rows if row.key_id == other.id) == {"ok": 2 * len(PROBES)}
    texts = Counter(seen.json["messages"][0]["content"] for seen in upstream.seen)
    assert all(texts[f"victim {number} {turn}"] == 1 for number in range(len(PROBES)) for turn in range(2))
    assert set(texts) - {f"victim {number} {turn}" for number in range(len(PROBES)) for turn in range(2)} <= {"Hi"}
