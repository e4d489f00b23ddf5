"""The demo's answers: the same question always gets the same words, without any network."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import orjson

from relay import Answer, Upstream, UpstreamRequest
from relay.kit import estimate_tokens
from relay_demo.vectors import embedding_answer

__all__ = ["DemoTransport"]

SAMPLES: dict[str, Any] = {
    "string": "demo",
    "integer": 1,
    "number": 1.5,
    "boolean": True,
    "array": [],
    "object": {},
    "null": None,
}
"""What the demo passes for a tool's argument, by the type that its schema names."""


class DemoAnswer:
    """Lines of JSON, one at a time."""

    def __init__(self, status: int, lines: list[bytes], delay: float) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {"content-type": "application/x-ndjson"}
        self._lines = lines
        self._delay = delay

    async def read(self, limit: int) -> bytes:
        """Everything at once."""
        return b"".join(self._lines)[:limit]

    async def chunks(self) -> AsyncIterator[bytes]:
        """Line by line, at the pace that the upstream's `delay_ms` asks for."""
        for line in self._lines:
            await asyncio.sleep(self._delay)
            yield line


class DemoTransport:
    """Answers inside the process."""

    def send(self, request: UpstreamRequest, upstream: Upstream) -> AbstractAsyncContextManager[Answer]:
        """The answer to one request."""
        return self._send(request, upstream)

    @asynccontextmanager
    async def _send(self, request: UpstreamRequest, upstream: Upstream) -> AsyncIterator[Answer]:
        question = orjson.loads(request.body)
        if "inputs" in question:
            # Beside the event loop: a request may be a whole library.
            answer = await asyncio.to_thread(embedding_answer, question)
            yield DemoAnswer(200, [orjson.dumps(answer)], 0)
            return
        lines = list(_lines(question))
        delay = float(upstream.options.get("delay_ms", 0)) / 1000
        if question["stream"]:
            yield DemoAnswer(200, [orjson.dumps(line) + b"\n" for line in lines], delay)
        else:
            yield DemoAnswer(200, [orjson.dumps({"lines": lines})], delay)


def _lines(question: dict[str, Any]) -> Iterator[dict[str, Any]]:
    said = question["messages"][-1]["text"]
    asked = sum(estimate_tokens(message["text"]) + 4 for message in question["messages"])
    # The same question gets the same id too: examples in documentation stay true.
    name = "demo-" + hashlib.sha256(orjson.dumps(question["messages"])).hexdigest()[:16]
    for tool in question["tools"]:
        if question["must_call"] or tool["name"] in said:
            arguments = orjson.dumps(_arguments(tool["schema"] or {})).decode()
            yield {"id": name, "tool": tool["name"], "arguments": arguments}
            yield {"done": "tool", "input": asked, "output": estimate_tokens(arguments)}
            return
    words = f"You said: {said}".split(" ")
    most = question["max_tokens"] or len(words)
    for number, word in enumerate(words[:most]):
        yield {"id": name, "text": word if number == 0 else f" {word}"}
    yield {"done": "length" if most < len(words) else "stop", "input": asked, "output": min(most, len(words))}


def _arguments(schema: dict[str, Any]) -> dict[str, Any]:
    """Arguments that fit a plain schema: its required properties, with a sample of each type."""
    properties = schema.get("properties", {})
    return {name: _sample(properties.get(name, {})) for name in schema.get("required", ())}


def _sample(schema: dict[str, Any]) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "string")
    if kind == "object":
        return _arguments(schema)
    return SAMPLES.get(kind if isinstance(kind, str) else kind[0])
