"""What tests of clients of the Gemini API share: an upstream of that API, and Google's SDK connected to the relay."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from google import genai
from google.genai import types

from tests.flow.conftest import Running
from tests.flow.fake import FakeUpstream, Step, stream

DEMO = "[upstreams.demo]\n"


def native(upstream: FakeUpstream, target: str = "m-1") -> str:
    """A model `m` at an upstream of the same dialect."""
    return f"""
    [upstreams.up]
    family = "gemini"
    base_url = "{upstream.url}"
    api_key = "sk-goog-CANARY"
    [models.m]
    targets = ["up/{target}"]
    price = {{input = 1.0, output = 2.0}}
    """


def answer(*parts: dict[str, Any], finish: str | None = "STOP", **fields: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return {
        "candidates": [candidate],
        "usageMetadata": {
            "promptTokenCount": 111,
            "cachedContentTokenCount": 100,
            "candidatesTokenCount": 3,
            "thoughtsTokenCount": 4,
            "totalTokenCount": 118,
        },
        "modelVersion": "m-1",
        "responseId": "r-1",
        **fields,
    }


def frame(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\r\n\r\n"


def text_stream(*words: str) -> list[Step]:
    *first, last = words
    return stream(*(frame(answer({"text": word}, finish=None)) for word in first), frame(answer({"text": last})))


@asynccontextmanager
async def connecting() -> AsyncIterator[Any]:
    """A function that makes a client for a relay."""
    clients: list[genai.Client] = []
    async with httpx2.AsyncClient(timeout=20) as http_client:

        def build(relay: Running, *, key: str | None = None, own_transport: bool = False, **options: Any) -> Any:
            if not own_transport:
                # The SDK's own is aiohttp's, which complains of streams that the SDK leaves when it raises.
                options["httpx_async_client"] = http_client
            options = {"base_url": relay.url, "timeout": 20_000, **options}
            client = genai.Client(api_key=key or relay.key, http_options=types.HttpOptions(**options))
            clients.append(client)
            return client.aio

        yield build
        for client in clients:
            await client.aio.aclose()
            client.close()


async def ask(sdk: Any, contents: Any = "Hi", **fields: Any) -> Any:
    return await sdk.models.generate_content(model="m", contents=contents, **fields)


async def chunks(sdk: Any, contents: Any = "Hi", **fields: Any) -> list[Any]:
    return [one async for one in await sdk.models.generate_content_stream(model="m", contents=contents, **fields)]


def words(read: list[Any]) -> str:
    return "".join(one.text or "" for one in read)


def post(relay: Running, path: str, **options: Any) -> Any:
    options.setdefault("json", {"contents": [{"parts": [{"text": "Hi"}]}]})
    return relay.client.post(relay.url + path, **options)
