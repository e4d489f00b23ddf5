"""Pictures and documents in requests: passed on as they were named. Nothing is fetched, opened or decoded for them."""

from __future__ import annotations

import base64
import builtins
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from relay import http1
from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import FakeUpstream, Seen, Step, chat_answer, http
from tests.flow.gemini import answer as gemini_answer

SECRET = "CANARY-of-a-file"


def png(width: int, height: int) -> str:
    """The beginning of a picture that would be as large as it says."""
    size = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + size + struct.pack(">I", zlib.crc32(b"IHDR" + size))
    return base64.b64encode(head).decode()


SVG = base64.b64encode(b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script/></svg>').decode()
JPEG = base64.b64encode(b"\xff\xd8\xff\xe0" + b"x" * 60).decode()
ADDRESSES = (
    "file://{file}",
    "FILE:{file}",
    "{file}",
    "http://127.0.0.1:{port}/x.png",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]:{port}/",
    "gopher://127.0.0.1:{port}/_x",
    "javascript:alert(1)",
    "https://example.com/a.png?x=1&y=%2e%2e#z",
)
"""What a relay that fetches would go to."""
GOOD_DATA = (
    "data:image/png;base64," + png(30_000, 30_000),
    "data:image/svg+xml;base64," + SVG,
    "data:image/png;base64," + JPEG,
    "data:application/x-nonsense;base64," + JPEG,
)
"""What a relay that decodes would stumble over."""
BAD_DATA = ("data:image/png;base64,", "data:image/png,%00%01", "data:image/png;base64,***", "data:nonsense")
FAMILIES = ("openai", "anthropic", "gemini")


def config(upstream: FakeUpstream, family: str) -> str:
    text = openai_config(upstream).replace('family = "openai"', f'family = "{family}"')
    return text if family == "openai" else text.replace("/v1", "")


def told(seen: Seen) -> list[Step]:
    if "generateContent" in seen.path:
        return http(gemini_answer({"text": "Hello"}))
    if seen.path.endswith("/messages"):
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m-1", "stop_reason": "end_turn"}
        usage = {"input_tokens": 5, "output_tokens": 2}
        return http({**message, "content": [{"type": "text", "text": "Hello"}], "usage": usage})
    return chat_answer()


async def show(relay: Running, *urls: str) -> tuple[int, bytes]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    body = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "Look"}, *parts]}]}
    data = io.BytesIO(json.dumps(body).encode())
    headers = {"Content-Type": "application/json"}
    async with relay.client.post(f"{relay.url}/v1/chat/completions", data=data, headers=headers) as response:
        return response.status, await response.read()


@pytest.mark.promise("H-13")
@pytest.mark.parametrize("family", FAMILIES)
async def test_addresses_and_data_are_passed_on_as_text_or_refused(
    start: Start, upstream: FakeUpstream, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret.png"
    file.write_text(SECRET)
    decoy = FakeUpstream(scripts=[chat_answer(SECRET)])
    await decoy.start()
    upstream.answer = told
    relay = await start(config(upstream, family))
    opened: list[str] = []
    connected: list[tuple[str, int]] = []
    really_open, really_connected = builtins.open, http1.connected

    def noted_open(name: Any, *rest: Any, **more: Any) -> Any:
        opened.append(str(name))
        return really_open(name, *rest, **more)

    async def noted_connected(host: str, port: int, permit: Any) -> Any:
        connected.append((host, port))
        return await really_connected(host, port, permit)

    monkeypatch.setattr(builtins, "open", noted_open)
    monkeypatch.setattr(http1, "connected", noted_connected)
    try:
        for url in (*(one.format(file=file, port=decoy.port) for one in ADDRESSES), *GOOD_DATA):
            before = len(upstream.seen)
            status, said = await show(relay, url)
            assert status in (200, 400), (url, status, said)
            assert SECRET.encode() not in said
            if status == 400:
                assert len(upstream.seen) == before
                assert url.startswith(("file", "FILE", "/", "gopher", "javascript", "data:application")), (url, said)
                continue
            sent = json.dumps(upstream.seen[-1].json, ensure_ascii=False)
            name = url.partition(",")[2] if url.startswith("data:") else url
            assert json.dumps(name)[1:-1] in sent, (url, sent)
            assert SECRET not in sent
        for url in BAD_DATA:
            status, said = await show(relay, url)
            # What passes through is the upstream's to judge; what has to be read is read.
            assert status == (200 if family == "openai" else 400), (url, status, said)
    finally:
        await decoy.stop()
    assert decoy.seen == []
    assert set(connected) <= {("127.0.0.1", upstream.port)}
    assert str(file) not in opened


@pytest.mark.promise("H-13")
@pytest.mark.parametrize("family", FAMILIES)
async def test_many_and_large_ones_are_bounded_by_the_body_alone(
    start: Start, upstream: FakeUpstream, family: str
) -> None:
    upstream.answer = told
    relay = await start(config(upstream, family))
    status, said = await show(relay, *[GOOD_DATA[0]] * 1000)
    assert status == 200, said
    assert upstream.seen[-1].body.count(png(30_000, 30_000).encode()) == 1000
    large = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 6_000_000).decode()
    status, said = await show(relay, f"data:image/png;base64,{large}")
    assert status == 200, said
    assert large.encode() in upstream.seen[-1].body
    asked = len(upstream.seen)
    status, said = await show(relay, "data:image/png;base64," + "A" * 50_000_000)
    assert (status, json.loads(said)["error"]["code"]) == (413, "request_too_large")
    assert len(upstream.seen) == asked
