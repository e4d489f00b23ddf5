"""An upstream and a client that wait for each other, so that a relay between them does the same work in every run.

The next piece of a stream is written only when the one before it has come through: how pieces fall together, which
otherwise depends on how busy the machine is, is always the same here. Nothing in this module is fast, nor need it be.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["CHAT", "MESSAGES", "Lockstep"]

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
SECONDS = 60.0
"""Longest wait for one answer. A relay that is being counted is about fifty times slower than usual."""
TEXT = "The relay counts what it sees and passes the rest on. " * 16


def chat_piece(number: int) -> bytes:
    value = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "mock",
        "choices": [{"index": 0, "delta": {"content": mark(number)}, "finish_reason": None}],
    }
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def messages_piece(number: int) -> bytes:
    value = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": mark(number)}}
    return b"event: content_block_delta\ndata: " + json.dumps(value).encode() + b"\n\n"


def mark(number: int) -> str:
    """A piece's text, by which it is recognised."""
    return f" word-{number:05d}"


def event(kind: str, **more: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()


MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "mock",
    "stop_sequence": None,
}
BEGIN = {
    CHAT: b"",
    MESSAGES: event(
        "message_start",
        message={**MESSAGE, "content": [], "stop_reason": None, "usage": {"input_tokens": 20, "output_tokens": 1}},
    )
    + event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
}
END = {
    CHAT: b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"mock","choices":'
    b'[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: {"id":"chatcmpl-1","object":"chat.completion.chunk",'
    b'"created":1700000000,"model":"mock","choices":[],"usage":{"prompt_tokens":20,"completion_tokens":180,'
    b'"total_tokens":200}}\n\ndata: [DONE]\n\n',
    MESSAGES: event("content_block_stop", index=0)
    + event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 180})
    + event("message_stop"),
}
PIECE: dict[str, Callable[[int], bytes]] = {CHAT: chat_piece, MESSAGES: messages_piece}
WHOLE: dict[str, bytes] = {
    CHAT: json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": "mock",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 20, "completion_tokens": 180, "total_tokens": 200},
        }
    ).encode(),
    MESSAGES: json.dumps(
        {
            **MESSAGE,
            "content": [{"type": "text", "text": TEXT}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 20, "output_tokens": 180},
        }
    ).encode(),
}


class Lockstep:
    """The upstream on a port of its own, and a client of one connection. `asked` are more fields of every request."""

    def __init__(self, key: str, asked: Mapping[str, Any]) -> None:
        self.port = 0
        self._key = key
        self._asked = asked
        self._pieces = 0
        self._go = asyncio.Semaphore(0)
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._client: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def start(self) -> None:
        """Begin to listen; sets `port`."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def connect(self, port: int) -> None:
        """Connect the client to the relay's port. Raises OSError."""
        self._client = await asyncio.open_connection("127.0.0.1", port)

    async def close(self) -> None:
        """Close everything. The relay must have ended, which is what ends the upstream's connections."""
        if self._client is not None:
            self._client[1].close()
        if self._server is not None:
            self._server.close()
        await asyncio.gather(*self._serving)

    # The upstream.

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        path = head.split(b" ", 2)[1].decode()
        length = head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]
        body = await reader.readexactly(int(length or 0))
        if path not in WHOLE:
            self._whole(writer, b'{"object":"list","data":[]}')
        elif not json.loads(body).get("stream"):
            self._whole(writer, WHOLE[path])
        else:
            await self._stream(writer, path)

    @staticmethod
    def _whole(writer: asyncio.StreamWriter, body: bytes) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)

    async def _stream(self, writer: asyncio.StreamWriter, path: str) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        first = head + (chunk(BEGIN[path]) if BEGIN[path] else b"")
        for number in range(self._pieces):
            await self._go.acquire()
            writer.write(first + chunk(PIECE[path](number)))
            first = b""
        writer.write(chunk(END[path]) + b"0\r\n\r\n")

    # The client.

    async def whole(self, model: str) -> None:
        """One call that is answered in one piece. Raises RuntimeError if it is not answered as it should be."""
        async with asyncio.timeout(SECONDS):
            reader = self._ask({"model": model})
            head = await self._head(reader)
            body = await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]))
        if TEXT.encode() not in body:
            raise RuntimeError(f"the relay answered: {body[:500]!r}")

    async def stream(self, model: str, pieces: int) -> None:
        """One stream, piece by piece. Raises RuntimeError if it is not answered as it should be."""
        self._pieces = pieces
        reader = self._ask({"model": model, "stream": True})
        got = b""
        for number in range(pieces):
            self._go.release()
            async with asyncio.timeout(SECONDS):
                if not number:
                    await self._head(reader)
                got = await self._until(reader, got, mark(number).encode())
        async with asyncio.timeout(SECONDS):
            await self._until(reader, got, b"data: [DONE]\n\n\r\n0\r\n\r\n")

    def _ask(self, more: dict[str, object]) -> asyncio.StreamReader:
        assert self._client is not None
        reader, writer = self._client
        messages = [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": "Hello " * 40}]
        body = json.dumps({**more, "messages": messages, "max_tokens": 400, **self._asked}).encode()
        head = (
            f"POST {CHAT} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {self._key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        return reader

    @staticmethod
    async def _head(reader: asyncio.StreamReader) -> bytes:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200 "):
            raise RuntimeError(f"the relay answered: {head!r}")
        return head

    @staticmethod
    async def _until(reader: asyncio.StreamReader, got: bytes, wanted: bytes) -> bytes:
        """Read until `wanted` has come; gives what follows it. The relay may frame its pieces as it likes."""
        while wanted not in got:
            more = await reader.read(65_536)
            if not more:
                raise RuntimeError(f"the stream ended before {wanted!r}")
            got += more
        return got.partition(wanted)[2]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)
