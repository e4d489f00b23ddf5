"""A relay of upstreams of all kinds, asked by clients of all kinds."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import aiohttp

from tests.flow.conftest import Running
from tests.flow.fake import FakeUpstream, Seen

__all__ = ["FOUR", "HI", "KINDS", "PARTS", "PATHS", "Asker", "asking"]

FOUR = """
[upstreams.chat]
family = "openai"
base_url = "{url}/v1"
api_key = "sk-CANARY"
[upstreams.responses]
family = "openai"
base_url = "{url}/v1"
api_key = "sk-CANARY"
dialects = ["openai-responses"]
[upstreams.messages]
family = "anthropic"
base_url = "{url}"
api_key = "sk-CANARY"
[upstreams.gemini]
family = "gemini"
base_url = "{url}"
api_key = "sk-CANARY"
[models.chat]
targets = ["chat/m-1"]
[models.responses]
targets = ["responses/m-1"]
[models.messages]
targets = ["messages/claude-sonnet-4-5"]
[models.gemini]
targets = ["gemini/gemini-3-flash"]
"""
"""An upstream and a model of each kind."""
KINDS = ("chat", "responses", "messages", "gemini")
HI: list[Any] = [{"role": "user", "content": "Hi"}]
PARTS: list[Any] = [{"role": "user", "parts": [{"text": "Hi"}]}]
PATHS: Mapping[str, str] = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "gemini": "/v1beta/models/{model}:generateContent",
}


def asking(kind: str, model: str, **more: Any) -> tuple[str, dict[str, Any]]:
    """The path and the body of a small request of each kind."""
    path = PATHS[kind].replace("{model}", model)
    if kind == "gemini":
        if more.pop("stream", False):
            path = path.replace(":generateContent", ":streamGenerateContent?alt=sse")
        return path, {"contents": PARTS, **more}
    body = {"input": "Hi"} if kind == "responses" else {"messages": HI}
    return path, {"model": model, **({"max_tokens": 100} if kind == "messages" else {}), **body, **more}


class Asker:
    """A relay of all four kinds, and what it is asked."""

    def __init__(self, relay: Running, upstream: FakeUpstream) -> None:
        self.relay = relay
        self.upstream = upstream

    async def send(self, path: str, body: Any, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and bytes of an answer; those that came, if its body does not end well."""
        names = {"Content-Type": "application/json"}
        names |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = io.BytesIO(json.dumps(body).encode())
        async with self.relay.client.post(self.relay.url + path, data=data, headers=names) as response:
            got = b""
            try:
                async for piece in response.content.iter_any():
                    got += piece
            except aiohttp.ClientPayloadError:
                pass
            return response.status, response.headers, got

    async def ask(self, kind: str, model: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> Any:
        """A good answer, parsed."""
        path, body = asking(kind, model, **more)
        status, _, data = await self.send(path, body, **(headers or {}))
        assert status == 200, data
        return json.loads(data) if not more.get("stream") else data

    @property
    def last(self) -> Seen:
        """What the upstream was asked last."""
        return self.upstream.seen[-1]
