"""A client on a bare connection: it sends what no library would, and sees every byte that comes back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.flow.conftest import Running

SECONDS = 5.0


@dataclass
class Wire:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, method: str = "POST") -> Said:
        """The next answer, of known length or chunked, to a request of that method."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), SECONDS)
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = b""
        if method == "HEAD":
            pass
        elif "content-length" in headers:
            body = await asyncio.wait_for(self.reader.readexactly(int(headers["content-length"])), SECONDS)
        elif headers.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readline(), 16):
                body += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
        return Said(int(first.split()[1]), headers, body, first)

    async def rest_of_stream(self) -> bytes:
        """Everything up to the proper end of a chunked body."""
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n0\r\n\r\n"), SECONDS)

    async def rest(self) -> bytes:
        """Everything until the relay closes the connection."""
        try:
            return await asyncio.wait_for(self.reader.read(), SECONDS)
        except ConnectionResetError:
            return b""


@dataclass
class Said:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    line: str = ""

    @property
    def error(self) -> dict[str, Any]:
        """The envelope's content; fails for anything that is not the envelope."""
        value = json.loads(self.body)
        assert self.headers["content-type"] == "application/json"
        error: dict[str, Any] = value["error"]
        assert isinstance(error["message"], str)
        assert error["message"]
        return error


@asynccontextmanager
async def wire(relay: Running) -> AsyncIterator[Wire]:
    """A connection to the relay, closed at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.server.port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


def post(
    key: str,
    *,
    path: str = "/v1/chat/completions",
    host: str = "127.0.0.1",
    headers: str = "",
    content_type: str = "application/json",
    version: str = "1.1",
    **body: Any,
) -> bytes:
    """One chat request as bytes."""
    text = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], **body}).encode()
    head = (
        f"POST {path} HTTP/{version}\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(text)}\r\n{headers}\r\n"
    )
    return head.encode("latin-1") + text


async def eventually(true: Callable[[], Awaitable[bool]], seconds: float = SECONDS) -> None:
    """Ask until the answer is yes. Fails if it never is."""
    deadline = time.monotonic() + seconds
    for _ in iter(lambda: time.monotonic() < deadline, False):
        if await true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never happened")


async def until(true: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait for something to become true. Fails if it does not."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.005)
