"""Embeddings through the whole relay: any client that asks for vectors, any upstream that makes them."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import FakeUpstream, http

DEMO = "[upstreams.demo]\n"
ANTHROPIC = """
[upstreams.claude]
family = "anthropic"
base_url = "{url}"
api_key = "sk-ant-1"
[models.c]
targets = ["claude/claude-x"]
"""
GEMINI = """
[upstreams.g]
family = "gemini"
base_url = "{url}"
api_key = "AIza-1"
[models.g]
targets = ["g/gemini-embedding-001"]
price = {{input = 1.0, output = 2.0}}
"""


@pytest.fixture
async def connect() -> AsyncIterator[Any]:
    clients: list[AsyncOpenAI] = []

    def build(relay: Running, **options: Any) -> AsyncOpenAI:
        clients.append(AsyncOpenAI(base_url=f"{relay.url}/v1", api_key=relay.key, **{"max_retries": 0, **options}))
        return clients[-1]

    yield build
    for client in clients:
        await client.close()


def packed(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def listed(*vectors: Any, usage: Any = None, model: str = "m-1") -> bytes:
    rows = [{"object": "embedding", "index": place, "embedding": vector} for place, vector in enumerate(vectors)]
    value: dict[str, Any] = {"object": "list", "data": rows, "model": model}
    if usage is not None:
        value["usage"] = usage
    # Spaces and all: whatever the upstream's JSON looks like has to arrive.
    return json.dumps(value, indent=1).encode()


def post(relay: Running, body: Any, path: str = "/v1/embeddings") -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return relay.client.post(f"{relay.url}{path}", data=raw, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
async def test_both_bodies_pass_through_but_for_the_models_name(
    start: Start, upstream: FakeUpstream, path: str
) -> None:
    answer = listed(packed(0.25, -1.0), usage={"prompt_tokens": 7, "total_tokens": 7})
    upstream.scripts = [http(answer)]
    relay = await start(openai_config(upstream))
    raw = b'{ "input" : ["a", "b"],"model":  "m", "encoding_format":"base64_int8", "extra": {"model": "m"} }'
    async with post(relay, raw, path) as response:
        assert (response.status, await response.read()) == (200, answer)
        assert response.headers["content-type"].startswith("application/json")
    (seen,) = upstream.seen
    assert (seen.method, seen.path) == ("POST", "/v1/embeddings")
    assert seen.body == raw.replace(b'"model":  "m"', b'"model":  "m-1"')
    row = await relay.row()
    assert (row.operation, row.dialect, row.outcome, row.usage_source) == (
        "embeddings",
        "openai-embeddings",
        "ok",
        "provider",
    )
    assert row.usage is not None
    assert (row.usage.input, row.usage.output, row.cost, row.stream) == (7, 0, 7000, False)
