"""An HTTP server in a thread, for commands that run an event loop of their own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """One scripted answer. Without a length, the end of the connection is the end of the body."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    """Promise more than there is."""


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Server:
    """Answers each path with its next reply, or with the last one again."""

    def __init__(self) -> None:
        self.replies: dict[str, list[Reply]] = {}
        self.asked: list[Asked] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._answer(self)

            def do_POST(self) -> None:
                outer._answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Keep the tests' output clean."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def of(self, path: str) -> list[Asked]:
        """What was asked of one path."""
        return [asked for asked in self.asked if asked.path == path]

    def script(self, path: str, *replies: Reply) -> None:
        """Answer `path` with these, in order."""
        self.replies[path] = list(replies)

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        number = len(self.of(handler.path))
        self.asked.append(Asked(handler.command, handler.path, headers, json.loads(raw) if raw else None))
        replies = self.replies.get(handler.path, [Reply(404, b"{}")])
        reply = replies[min(number, len(replies) - 1)]
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(reply.body) + (100 if reply.cut else 0)))
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(reply.body)


def as_json(value: Any, status: int = 200, **headers: str) -> Reply:
    """A JSON answer."""
    names = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json", **names})


def fault(status: int, message: str = "not now", **headers: str) -> Reply:
    """An error as the relay writes it."""
    return as_json(
        {"error": {"type": "api_error", "code": "busy", "message": message, "param": None}}, status, **headers
    )


def events(chunks: Iterable[Any], *, done: bool = True, cut: bool = False) -> Reply:
    """A stream of chat chunks."""
    body = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    return Reply(200, body + (b"data: [DONE]\n\n" if done else b""), {"Content-Type": "text/event-stream"}, cut)


def words(*texts: str, usage: Mapping[str, int] | None = None) -> list[Any]:
    """Chat chunks of these pieces of text."""
    chunks: list[Any] = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    return [*chunks, {"choices": [], "usage": usage}] if usage else chunks
