"""Recorded legacy completions of several hosts, played through the whole relay, with the official SDK as judge."""

from __future__ import annotations

import json
import re
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.flow.conftest import Start
from tests.flow.fake import FakeUpstream, http, stream

pytestmark = pytest.mark.shared

CONFIG = """
[upstreams.o]
family = "openai"
base_url = "{url}/v1"
api_key = "sk-1"
dialects = ["openai-completions"]
[models.o]
targets = ["o/upstream-o"]
price = {{input = 1.0, output = 2.0}}
"""
FINISH = re.compile(rb'"finish_reason": ?"')
GATEWAYS = {"85275cfb32aab6ba"}
"""A gateway's prompts, filed with the others: an answer of Chat Completions."""


def exchanges(traffic: Any, *, good: bool, streaming: bool = False) -> list[dict[str, Any]]:
    found = []
    for exchange in traffic.exchanges(traffic.folder, streaming=streaming):
        if exchange["dialect"] != "openai-completions" or exchange["id"] in GATEWAYS:
            continue
        if (exchange["status"] < 300) == good:
            exchange["body"] = traffic.body(exchange)
            found.append(exchange)
    assert len(found) >= 2
    return found


def asked(exchange: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**(exchange["request_body"] or {"prompt": "Hi"}), "model": "o", **more}


def told(value: dict[str, Any]) -> dict[int, tuple[str, str | None]]:
    return {one["index"]: (one["text"], one["finish_reason"]) for one in value["choices"]}


async def test_each_answer_passes_byte_for_byte(start: Start, upstream: FakeUpstream, traffic: Any) -> None:
    relay = await start(CONFIG.format(url=upstream.url))
    played = exchanges(traffic, good=True)
    for exchange in played:
        value = json.loads(exchange["body"])
        upstream.scripts, upstream.seen = [http(exchange["body"])], []
        body = asked(exchange)
        async with relay.client.post(f"{relay.url}/v1/completions", json=body) as response:
            assert (response.status, await response.read()) == (200, exchange["body"]), exchange["id"]
        assert (upstream.seen[0].path, upstream.seen[0].json) == ("/v1/completions", {**body, "model": "upstream-o"})
        usage = value["usage"]
        row = await relay.latest()
        assert row.usage is not None
        assert (row.outcome, row.usage_source, row.dialect) == ("ok", "provider", "openai-completions")
        assert (row.usage.input, row.usage.output) == (
            usage["prompt_tokens"],
            usage.get("completion_tokens", usage["total_tokens"] - usage["prompt_tokens"]),
        )
    assert len(played) >= 18


async def test_the_sdk_reads_what_was_recorded(start: Start, upstream: FakeUpstream, traffic: Any) -> None:
    relay = await start(CONFIG.format(url=upstream.url))
    async with AsyncOpenAI(base_url=f"{relay.url}/v1", api_key=relay.key, max_retries=0) as sdk:
        for exchange in exchanges(traffic, good=True):
            upstream.scripts = [http(exchange["body"])]
            shown = await sdk.completions.create(model="o", prompt="Hi")
            got = {choice.index: (choice.text, choice.finish_reason) for choice in shown.choices}
            assert got == told(json.loads(exchange["body"])), exchange["id"]
        for exchange in exchanges(traffic, good=True, streaming=True):
            upstream.scripts = [stream(exchange["body"])]
            # One host's last choice has neither an index nor a text.
            texts: dict[int | None, str] = {}
            async for chunk in await sdk.completions.create(model="o", prompt="Hi", stream=True):
                for choice in chunk.choices:
                    texts[choice.index] = texts.get(choice.index, "") + (choice.text or "")
            wanted: dict[int | None, str] = {}
            for line in exchange["body"].decode().splitlines():
                if line.startswith("data: {"):
                    for one in json.loads(line[6:])["choices"]:
                        place = one.get("index")
                        wanted[place] = wanted.get(place, "") + (one.get("text") or "")
            assert texts == wanted, exchange["id"]


@pytest.mark.parametrize("size", [1, 7, 10**9])
async def test_each_stream_passes_byte_for_byte_however_it_is_cut(
    start: Start, upstream: FakeUpstream, traffic: Any, size: int
) -> None:
    relay = await start(CONFIG.format(url=upstream.url))
    played = exchanges(traffic, good=True, streaming=True)
    for exchange in played:
        body = exchange["body"] if size > 1 else exchange["body"][-1500:].partition(b"\n\n")[2]
        upstream.scripts = [stream(*(body[place : place + size] for place in range(0, len(body), size)))]
        async with relay.client.post(f"{relay.url}/v1/completions", json=asked(exchange, stream=True)) as response:
            assert (response.status, await response.read()) == (200, body), exchange["id"]
        row = await relay.latest()
        assert row.usage is not None
        # None of these was asked to count.
        assert (row.outcome, row.usage_source, row.stream) == ("ok", "estimate", True)
        assert row.usage.output
    assert len(played) == 7


async def test_a_recorded_stream_that_is_cut_is_none(start: Start, upstream: FakeUpstream, traffic: Any) -> None:
    relay = await start(CONFIG.format(url=upstream.url))
    async with AsyncOpenAI(base_url=f"{relay.url}/v1", api_key=relay.key, max_retries=0) as sdk:
        for exchange in exchanges(traffic, good=True, streaming=True):
            found = FINISH.search(exchange["body"])
            assert found is not None
            upstream.scripts = [stream(exchange["body"][: found.start()], "fin", end=False)]
            with pytest.raises(openai.APIError):
                await drained(sdk)
            assert (await relay.latest()).outcome == "upstream_cut", exchange["id"]


async def drained(sdk: AsyncOpenAI) -> None:
    async for _ in await sdk.completions.create(model="o", prompt="Hi", stream=True):
        pass


async def test_errors_keep_their_words(start: Start, upstream: FakeUpstream, traffic: Any) -> None:
    relay = await start(CONFIG.format(url=upstream.url))
    for exchange in exchanges(traffic, good=False):
        upstream.scripts = [http(exchange["body"], exchange["status"])]
        async with relay.client.post(f"{relay.url}/v1/completions", json=asked(exchange)) as response:
            error = (await response.json())["error"]
        if exchange["status"] == 401:
            assert (response.status, error["code"]) == (502, "upstream_credentials")
        else:
            assert (response.status, error["message"]) == (400, json.loads(exchange["body"])["error"]["message"])
