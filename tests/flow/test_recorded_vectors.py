"""Recorded embeddings of many hosts, played through the whole relay to clients of both shapes."""

from __future__ import annotations

import base64
import json
import struct
from collections import Counter
from typing import Any

import pytest

from relay.store import UsageRow
from tests.flow.conftest import STEADY, Start
from tests.flow.fake import FakeUpstream, http

pytestmark = pytest.mark.shared

CONFIG = """
[upstreams.o]
family = "openai"
base_url = "{url}/v1"
api_key = "sk-1"
[models.o]
targets = ["o/upstream-o"]
price = {{input = 1.0, output = 2.0}}
[upstreams.g]
family = "gemini"
base_url = "{url}"
api_key = "AIza-1"
[models.g]
targets = ["g/upstream-g"]
price = {{input = 1.0, output = 2.0}}
"""
SHAPES = {"openai-embeddings": "data", "gemini-embeddings": "embeddings"}
"""The two shapes, and what all answers in them have."""

FILED = {"openai-embeddings": "voyage-embeddings"}
"""A host that has the shape and a few fields of its own."""


def exchanges(traffic: Any, dialect: str, *, good: bool) -> list[dict[str, Any]]:
    found = []
    for exchange in traffic.exchanges(traffic.folder):
        if exchange["dialect"] not in (dialect, FILED.get(dialect)) or (exchange["status"] < 300) != good:
            continue
        exchange["body"] = traffic.body(exchange)
        # One host's own format is filed with the others, and one vendor's older cloud with its newer.
        if not good or SHAPES[dialect] in json.loads(exchange["body"]):
            found.append(exchange)
    assert len(found) >= 3
    return found


def texts(exchange: dict[str, Any]) -> list[str]:
    """As many inputs as there are vectors, the recorded ones where they were kept."""
    sent = exchange["request_body"] or {}
    value = json.loads(exchange["body"])
    if "requests" in sent:
        return ["".join(part["text"] for part in one["content"]["parts"]) for one in sent["requests"]]
    given = sent.get("input", [f"text {place}" for place in range(len(value.get("data") or value["embeddings"]))])
    return [given] if isinstance(given, str) else list(given)


def counted(value: dict[str, Any]) -> int | None:
    usage = value.get("usage") or value.get("usageMetadata") or {}
    found: int | None = usage.get("prompt_tokens", usage.get("promptTokenCount", usage.get("total_tokens")))
    return found


def check_row(row: UsageRow, value: dict[str, Any], dialect: str) -> None:
    assert row.usage is not None
    assert (row.operation, row.dialect, row.outcome, row.usage.output) == ("embeddings", dialect, "ok", 0)
    if (tokens := counted(value)) is None:
        assert row.usage_source == "estimate"
    else:
        assert (row.usage_source, row.usage.input) == ("provider", tokens)
    assert row.cost == (row.usage.input or 0) * 1000


def floats(vector: list[float]) -> list[float]:
    return list(struct.unpack(f"<{len(vector)}f", struct.pack(f"<{len(vector)}f", *vector)))


@pytest.mark.parametrize("dialect", SHAPES)
async def test_each_passes_to_its_own_clients_byte_for_byte(
    start: Start, upstream: FakeUpstream, traffic: Any, dialect: str
) -> None:
    relay = await start(CONFIG.format(url=upstream.url))
    seen: Counter[str] = Counter()
    for exchange in exchanges(traffic, dialect, good=True):
        upstream.scripts, upstream.seen = [http(exchange["body"])], []
        if dialect == "openai-embeddings":
            path, body = "/v1/embeddings", {**(exchange["request_body"] or {"input": texts(exchange)}), "model": "o"}
        else:
            requests = (exchange["request_body"] or {}).get("requests") or [
                {"model": "x", "content": {"parts": [{"text": text}]}} for text in texts(exchange)
            ]
            path = "/v1beta/models/g:batchEmbedContents"
            body = {"requests": [{**one, "model": "models/g"} for one in requests]}
        raw = json.dumps(body, ensure_ascii=False).encode()
        async with relay.client.post(f"{relay.url}{path}", data=raw) as response:
            assert (response.status, await response.read()) == (200, exchange["body"]), exchange["id"]
        assert upstream.seen[0].json == json.loads(raw.replace(b'"models/g"', b'"models/upstream-g"')) | (
            {"model": "upstream-o"} if dialect == "openai-embeddings" else {}
        )
        check_row(await relay.latest(), json.loads(exchange["body"]), "gemini" if "gemini" in dialect else dialect)
        seen[exchange["provider"]] += 1
    assert sum(seen.values()) >= (19 if dialect == "openai-embeddings" else 4), seen


async def test_hosts_vectors_reach_clients_of_the_other_shape(
    start: Start, upstream: FakeUpstream, traffic: Any
) -> None:
    relay = await start(CONFIG.format(url=upstream.url))
    equal = refused = 0
    for exchange in exchanges(traffic, "openai-embeddings", good=True):
        value = json.loads(exchange["body"])
        upstream.scripts = [http(exchange["body"])]
        body = {"requests": [{"model": "models/o", "content": {"parts": [{"text": text}]}} for text in texts(exchange)]}
        async with relay.client.post(f"{relay.url}/v1beta/models/o:batchEmbedContents", json=body) as response:
            shown = await response.json()
        if any(isinstance(row["embedding"], str) for row in value["data"]):
            # Packed, although numbers are asked for: nobody else can tell in what way.
            assert (response.status, shown["error"]["status"]) == (502, "UNAVAILABLE"), exchange["id"]
            refused += 1
            continue
        assert response.status == 200, exchange["id"]
        assert [row["values"] for row in shown["embeddings"]] == [row["embedding"] for row in value["data"]]
        check_row(await relay.latest(), value, "gemini")
        tokens = counted(value)
        assert tokens is None or shown["usageMetadata"]["promptTokenCount"] == tokens
        equal += 1
    assert equal >= 14
    assert refused >= 5


@pytest.mark.parametrize("form", ["float", "base64"])
async def test_geminis_vectors_reach_clients_of_the_other_shape(
    start: Start, upstream: FakeUpstream, traffic: Any, form: str
) -> None:
    relay = await start(CONFIG.format(url=upstream.url))
    for exchange in exchanges(traffic, "gemini-embeddings", good=True):
        value = json.loads(exchange["body"])
        upstream.scripts = [http(exchange["body"])]
        body = {"model": "g", "input": texts(exchange), "encoding_format": form}
        async with relay.client.post(f"{relay.url}/v1/embeddings", json=body) as response:
            shown = await response.json()
        assert response.status == 200, exchange["id"]
        assert [row["index"] for row in shown["data"]] == list(range(len(value["embeddings"])))
        for row, recorded in zip(shown["data"], value["embeddings"], strict=True):
            vector = row["embedding"]
            if form == "float":
                assert vector == recorded["values"]
            else:
                packed = base64.b64decode(vector)
                assert list(struct.unpack(f"<{len(packed) // 4}f", packed)) == floats(recorded["values"])
        check_row(await relay.latest(), value, "openai-embeddings")


@pytest.mark.parametrize("dialect", SHAPES)
async def test_errors_keep_their_words(start: Start, upstream: FakeUpstream, traffic: Any, dialect: str) -> None:
    relay = await start(CONFIG.format(url=upstream.url) + STEADY)
    model = "g" if "gemini" in dialect else "o"
    for exchange in exchanges(traffic, dialect, good=False) if model == "o" else gemini_errors(traffic):
        upstream.scripts = [http(exchange["body"], exchange["status"])]
        async with relay.client.post(f"{relay.url}/v1/embeddings", json={"model": model, "input": "a"}) as response:
            error = (await response.json())["error"]
        said = json.loads(exchange["body"])
        words = said["error"] if isinstance(said.get("error"), str) else (said.get("error") or said)["message"]
        ours = "API key not valid" in words
        assert error["message"] == ("the upstream refused the relay's own credentials" if ours else words)
        assert response.status == (502 if ours or exchange["status"] >= 500 else exchange["status"]), exchange["id"]
        row = await relay.latest()
        assert (row.outcome, row.status, row.cost) == ("upstream_error", response.status, 0)


def gemini_errors(traffic: Any) -> list[dict[str, Any]]:
    found = [e for e in traffic.exchanges(traffic.folder) if e["dialect"] == "gemini-embeddings" and e["status"] >= 400]
    for exchange in found:
        exchange["body"] = traffic.body(exchange)
    assert len(found) == 2
    return found
