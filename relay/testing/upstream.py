"""An upstream on a bare socket that plays scripts, and notes what it was sent and when its peer left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["LAST_CHUNK", "STREAM_HEAD", "FakeUpstream", "Seen", "Step", "chunk", "http", "stream"]

Step = bytes | float | str | asyncio.Event
"""Bytes to send, seconds to wait, something to wait for, or one of `fin`, `rst`, `stall`."""


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its body, read."""
        return json.loads(self.body)


@dataclass
class FakeUpstream:
    """Answers each request with the next script, or with the last one again."""

    scripts: list[Sequence[Step]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    peer_left: list[float] = field(default_factory=list)
    answer: Callable[[Seen], Sequence[Step]] | None = None
    models: dict[str, Any] = field(default_factory=lambda: {"object": "list", "data": []})
    lists: Callable[[Seen], Sequence[Step]] | None = None
    """What is answered to those who ask for the models, if not always `models`."""
    port: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen on a free port of this machine."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**24)
        self.port = self._server.sockets[0].getsockname()[1]

    async def __aenter__(self) -> FakeUpstream:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """End all connections and listen no more."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (request := await self._read(reader)) is not None:
                if request.method == "GET":
                    # The relay asks for the model list by itself; it is no part of any script.
                    listing = http(self.models) if self.lists is None else self.lists(request)
                    writer.write(b"".join(step for step in listing if isinstance(step, bytes)))
                    await writer.drain()
                    continue
                self.seen.append(request)
                number = len(self.seen) - 1
                script = self.answer(request) if self.answer else self.scripts[min(number, len(self.scripts) - 1)]
                if not await self._play(script, reader, writer):
                    break
        except (ConnectionError, asyncio.CancelledError):
            self.peer_left.append(time.monotonic())
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _read(self, reader: asyncio.StreamReader) -> Seen | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        method, path, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Seen(method, path, headers, body)

    async def _play(self, script: Sequence[Step], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection can carry another request."""
        watch = asyncio.create_task(reader.read(1))
        try:
            for step in script:
                if isinstance(step, bytes):
                    writer.write(step)
                    await writer.drain()
                elif isinstance(step, float | int) and not isinstance(step, bool):
                    if await self._wait(watch, step):
                        return False
                elif isinstance(step, asyncio.Event):
                    if await self._happens(step, watch):
                        return False
                elif step == "fin":
                    return False
                elif step == "rst":
                    writer.transport.abort()
                    return False
                elif step == "stall":
                    await self._wait(watch, None)
                    return False
                else:
                    raise AssertionError(f"no such step: {step!r}")
            return not watch.done()
        finally:
            if not watch.done():
                watch.cancel()
                # To await it would take an end of ours for one of its.
                await asyncio.wait([watch])

    async def _happens(self, event: asyncio.Event, watch: asyncio.Task[bytes]) -> bool:
        """Whether the peer left before it happened."""
        happening = asyncio.create_task(event.wait())
        await asyncio.wait({watch, happening}, return_when=asyncio.FIRST_COMPLETED)
        if not happening.done():
            happening.cancel()
            self.peer_left.append(time.monotonic())
            return True
        return False

    async def _wait(self, watch: asyncio.Task[bytes], seconds: float | None) -> bool:
        """Whether the peer left meanwhile."""
        done, _ = await asyncio.wait({watch}, timeout=seconds)
        if done:
            self.peer_left.append(time.monotonic())
        return bool(done)


def http(
    body: bytes | dict[str, Any], status: int = 200, *, content_type: str = "application/json", **headers: str
) -> list[Step]:
    """A whole answer with a length."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    extra = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(payload)}\r\n{extra}\r\n"
    return [head.encode() + payload]


_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM_HEAD = _HEAD.format("text/event-stream").encode()
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def stream(*pieces: bytes | Step, end: bool = True, content_type: str = "text/event-stream") -> list[Step]:
    """A chunked stream; bytes are framed, waits and endings stay as they are."""
    steps: list[Step] = [_HEAD.format(content_type).encode()]
    steps += [chunk(piece) if isinstance(piece, bytes) else piece for piece in pieces]
    if end:
        steps.append(LAST_CHUNK)
    return steps
