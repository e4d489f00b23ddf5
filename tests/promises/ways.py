"""Every way in which a call can come: each route of each dialect that asks a model something, whole and streamed."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from relay.manager import Plugins
from tests.flow.conftest import Running
from tests.flow.fake import Seen, Step, chat_answer, chat_stream, http
from tests.promises.wire import Said

USER = {"role": "user", "content": "Hi"}
PARTS = {"parts": [{"text": "Say hello to everybody"}]}
BODIES: Mapping[str, Mapping[str, Any]] = {
    "openai-chat": {"model": "m", "messages": [USER], "max_tokens": 9},
    "openai-responses": {"model": "m", "input": "Hi", "max_output_tokens": 19},
    "openai-completions": {"model": "m", "prompt": "Hi", "max_tokens": 9},
    "openai-embeddings": {"model": "m", "input": "Say hello to everybody"},
    "anthropic-messages": {"model": "m", "messages": [USER], "max_tokens": 9},
    "gemini:generateContent": {"contents": [PARTS], "generationConfig": {"maxOutputTokens": 9}},
    "gemini:streamGenerateContent": {"contents": [PARTS], "generationConfig": {"maxOutputTokens": 9}},
    "gemini:countTokens": {"contents": [PARTS]},
    "gemini:embedContent": {"content": PARTS},
    "gemini:batchEmbedContents": {"requests": [{"model": "models/m", "content": PARTS}]},
}
"""A good request of each dialect; where the path's last word says what is asked, one for each."""
PARAMETER = re.compile(r"\{(\w+)(?::([^{}]*))?\}")
NAMED = re.compile(r"\{(\w+)\}")
WORDS = {"collection": "models", "stream": "streamGenerateContent", "batch": "batchEmbedContents"}
"""What parameters stand for, where it is not a model's name or an id."""
ASKED = ("generate", "embeddings", "count_tokens")


@dataclass(frozen=True)
class Way:
    """One request."""

    dialect: str
    operation: str
    path: str
    body: Mapping[str, Any] = field(hash=False)

    def __str__(self) -> str:
        return f"{self.path}{' streamed' if self.body.get('stream') else ''}"

    def more(self, **fields: Any) -> dict[str, Any]:
        return {**self.body, **fields}

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream")) or "stream" in self.path


def ways(plugins: Plugins, *operations: str) -> Iterator[Way]:
    """All of them. Fails for a route of which nobody has said how it is asked."""
    for name, dialect in plugins.dialects.items():
        for route in dialect.routes:
            if route.method != "POST" or route.operation not in (operations or ASKED):
                continue
            # A parameter stands for a model, or for one of the words that its pattern names.
            path = PARAMETER.sub(lambda match: "m" if match[2] in (None, ".+") else match[2].split("|")[0], route.path)
            body = BODIES[name if name in BODIES else f"{name}:{path.rpartition(':')[2]}"]
            yield Way(name, route.operation, path, body)
            if route.operation == "generate" and name in BODIES:
                yield Way(name, route.operation, path, {**body, "stream": True})
            elif "stream" in path:
                yield Way(name, route.operation, f"{path}?alt=sse", body)


def served(app: web.Application) -> Iterator[tuple[str, str]]:
    """The method and a path of each route that there is, whatever it is for."""
    for route in app.router.routes():
        if route.resource is not None:
            path = route.resource.canonical
            yield route.method, NAMED.sub(lambda match: WORDS.get(match[1], "m"), path)


def answers(seen: Seen) -> list[Step]:
    """What an upstream of the family `openai` says to all of them."""
    if seen.path.endswith("/embeddings"):
        vector = {"object": "embedding", "index": 0, "embedding": [0.5]}
        return http({"object": "list", "data": [vector], "model": "m-1", "usage": {"prompt_tokens": 1}})
    return chat_stream() if seen.json.get("stream") else chat_answer()


async def go(relay: Running, way: Way, secret: str = "", *, headers: Any = None, **more: Any) -> Said:
    """The answer to one of them."""
    sent = {"Authorization": f"Bearer {secret or relay.key}", **(headers or {})}
    sent["Content-Type"] = "application/json"
    body = io.BytesIO(json.dumps(way.more(**more)).encode())
    async with relay.client.post(relay.url + way.path, data=body, headers=sent) as response:
        told = {name.lower(): value for name, value in response.headers.items()}
        return Said(response.status, told, await response.read())


def refusal(said: Said) -> str:
    """The message of a refusal, in whichever dialect's envelope."""
    assert said.headers["content-type"] == "application/json", said
    value = json.loads(said.body)
    # The Gemini API puts the errors of streams into a list.
    error = (value[0] if isinstance(value, list) else value)["error"]
    message: str = error["message"]
    assert message
    return message
