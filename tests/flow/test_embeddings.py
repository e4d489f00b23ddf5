"""Embeddings through the whole relay: any client that asks for vectors, any upstream that makes them."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
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


async def test_an_answer_without_a_count_is_estimated_and_marked_so(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [http(listed([0.5]))]
    relay = await start(openai_config(upstream))
    async with post(relay, {"model": "m", "input": ["12345678", [1, 2, 3]]}) as response:
        assert await response.read() == listed([0.5])
    row = await relay.row()
    assert row.usage is not None
    assert (row.usage_source, row.usage.input, row.usage.output, row.cost) == ("estimate", 5, 0, 5000)


async def test_a_count_of_the_total_alone_is_the_inputs(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [http(listed(packed(1.0), usage={"total_tokens": 4}))]
    relay = await start(openai_config(upstream))
    async with post(relay, {"model": "m", "input": "a"}) as response:
        assert response.status == 200
    row = await relay.row()
    assert row.usage is not None
    assert (row.usage_source, row.usage.input) == ("provider", 4)


# The official SDK.


async def test_the_sdk_gets_the_vectors_that_were_sent(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    usage = {"prompt_tokens": 2, "total_tokens": 2}
    upstream.scripts = [http(listed(packed(0.5, -0.25), packed(1.0, 0.0), usage=usage)), http(listed([0.5, -0.25]))]
    sdk = connect(await start(openai_config(upstream)))
    shown = await sdk.embeddings.create(model="m", input=["a", "b"])
    assert [(row.index, row.embedding) for row in shown.data] == [(0, [0.5, -0.25]), (1, [1.0, 0.0])]
    assert upstream.seen[0].json["encoding_format"] == "base64"
    shown = await sdk.embeddings.create(model="m", input="a", encoding_format="float", dimensions=2, user="u")
    assert shown.data[0].embedding == [0.5, -0.25]
    assert upstream.seen[1].json == {
        "model": "m-1",
        "input": "a",
        "encoding_format": "float",
        "dimensions": 2,
        "user": "u",
    }


@pytest.mark.parametrize("form", ["base64", "float"])
@pytest.mark.parametrize(
    ("given", "count"), [("one text", 1), (["one", "two words"], 2), ([5, 6], 1), ([[5, 6], [7]], 2)]
)
async def test_the_demo_makes_vectors_of_all_that_can_be_sent(
    start: Start, connect: Any, given: Any, count: int, form: Any
) -> None:
    relay = await start(DEMO)
    raw = await connect(relay).embeddings.with_raw_response.create(
        model="demo-echo", input=given, encoding_format=form, dimensions=64
    )
    shown = raw.parse()
    assert [row.index for row in shown.data] == list(range(count))
    for row in shown.data:
        vector = row.embedding
        if isinstance(vector, str):
            vector = list(struct.unpack("<64f", base64.b64decode(vector)))
        assert len(vector) == 64
        assert sum(number * number for number in vector) == pytest.approx(1, abs=1e-6)
    assert raw.headers["x-relay-token-count"] == "upstream"
    row = await relay.row()
    assert row.usage is not None
    assert (row.operation, row.usage_source, row.usage.output) == ("embeddings", "provider", 0)
    assert shown.usage.prompt_tokens == row.usage.input == shown.usage.total_tokens > 0


async def test_the_demos_vectors_are_the_same_each_time_and_near_where_words_are_shared(
    start: Start, connect: Any
) -> None:
    sdk = connect(await start(DEMO))

    async def vectors() -> list[list[float]]:
        texts = ["the cat sat down", "The cat sat up!", "quarterly revenue grew"]
        shown = await sdk.embeddings.create(model="demo-echo", input=texts)
        return [row.embedding for row in shown.data]

    first = await vectors()
    assert first == await vectors()
    near = sum(a * b for a, b in zip(first[0], first[1], strict=True))
    far = sum(a * b for a, b in zip(first[0], first[2], strict=True))
    assert near > 0.7 > 0.3 > far


# Another vendor's upstream.


async def test_gemini_is_asked_in_its_own_words(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    upstream.scripts = [
        http(
            {"embeddings": [{"values": [0.5, -0.25]}, {"values": [1.0, 0.0]}], "usageMetadata": {"promptTokenCount": 3}}
        )
    ]
    relay = await start(GEMINI.format(url=upstream.url))
    raw = await connect(relay).embeddings.with_raw_response.create(
        model="g", input=["a", "b"], dimensions=2, user="u", extra_body={"input_type": "search_query"}
    )
    shown = raw.parse()
    assert [(row.index, row.embedding) for row in shown.data] == [(0, [0.5, -0.25]), (1, [1.0, 0.0])]
    assert (shown.model, shown.usage.prompt_tokens, shown.object) == ("g", 3, "list")
    assert (raw.headers["x-relay-token-count"], raw.headers["x-relay-upstream"]) == ("upstream", "g")
    assert "x-relay-dropped" not in raw.headers
    (seen,) = upstream.seen
    assert seen.path == "/v1beta/models/gemini-embedding-001:batchEmbedContents"
    one = {"model": "models/gemini-embedding-001", "taskType": "RETRIEVAL_QUERY", "outputDimensionality": 2}
    assert seen.json == {
        "requests": [{**one, "content": {"parts": [{"text": "a"}]}}, {**one, "content": {"parts": [{"text": "b"}]}}]
    }
    row = await relay.row()
    assert row.usage is not None
    assert (row.family, row.usage.input, row.usage.output, row.cost) == ("gemini", 3, 0, 3000)


async def test_a_model_that_counts_nothing_is_estimated(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    upstream.scripts = [http({"embeddings": [{"values": [0.5]}]})]
    relay = await start(GEMINI.format(url=upstream.url))
    raw = await connect(relay).embeddings.with_raw_response.create(model="g", input="12345678")
    assert (raw.headers["x-relay-token-count"], raw.parse().usage.total_tokens) == ("estimate", 2)
    row = await relay.row()
    assert (row.usage_source, row.cost) == ("estimate", 2000)


@pytest.mark.parametrize("given", [[1, 2], [[1, 2], [3]]])
async def test_tokens_of_another_vocabulary_are_refused(start: Start, upstream: FakeUpstream, given: Any) -> None:
    relay = await start(GEMINI.format(url=upstream.url))
    async with post(relay, {"model": "g", "input": given}) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"]) == (400, "unsupported_parameter")
    assert error["param"].startswith("input")
    assert not upstream.seen


async def test_what_gets_lost_is_told_and_refused_to_strict_keys(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [http({"embeddings": [{"values": [0.5]}]})]
    body = {"model": "g", "input": "a", "truncation": True}
    relay = await start(GEMINI.format(url=upstream.url))
    async with post(relay, body) as response:
        assert (response.status, response.headers["x-relay-dropped"]) == (200, "truncation")
    strict = await start(GEMINI.format(url=upstream.url), key={"strict": True})
    async with post(strict, body) as response:
        assert (response.status, (await response.json())["error"]["param"]) == (400, "truncation")
    assert len(upstream.seen) == 1


@pytest.mark.parametrize(
    "answer",
    [
        {"embeddings": [{"values": [0.5]}]},
        {"embeddings": [{"values": [0.5]}, {"values": "AAAA"}]},
        {"embeddings": [{"values": [0.5]}, {}]},
        {"embeddings": 5},
        {"candidates": []},
    ],
)
async def test_an_answer_that_does_not_fit_the_question_is_an_error(
    start: Start, upstream: FakeUpstream, answer: Any
) -> None:
    upstream.scripts = [http(answer)]
    relay = await start(GEMINI.format(url=upstream.url))
    async with post(relay, {"model": "g", "input": ["a", "b"]}) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (502, "upstream_protocol_error")
    row = await relay.row()
    assert (row.outcome, row.usage) == ("upstream_cut", None)


# Who makes none.


async def test_an_upstream_without_embeddings_is_not_asked(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    relay = await start(ANTHROPIC.format(url=upstream.url))
    with pytest.raises(openai.BadRequestError) as caught:
        await connect(relay).embeddings.create(model="c", input="a")
    assert (caught.value.code, caught.value.type, caught.value.param) == (
        "unsupported_operation",
        "invalid_request_error",
        "model",
    )
    assert "'c'" in caught.value.message
    assert not upstream.seen
    row = await relay.row()
    assert (row.operation, row.outcome, row.status, row.cost) == ("embeddings", "rejected", 400, 0)


async def test_a_host_that_is_known_to_have_none_is_not_asked(start: Start, upstream: FakeUpstream) -> None:
    config = f"""
    [upstreams.deepseek]
    host = "deepseek"
    base_url = "{upstream.url}/v1"
    api_key = "sk-1"
    """
    relay = await start(config)
    async with post(relay, {"model": "deepseek/deepseek-chat", "input": "a"}) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (400, "unsupported_operation")
    assert not upstream.seen


async def test_another_target_is_asked_where_the_first_makes_none(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [http(listed([0.5]))]
    config = ANTHROPIC.format(url=upstream.url) + openai_config(upstream).replace(
        'targets = ["up/m-1"]', 'targets = ["claude/claude-x", "up/m-1"]'
    ).replace("\n    ", "\n")
    relay = await start(config)
    async with post(relay, {"model": "m", "input": "a"}) as response:
        assert (response.status, response.headers["x-relay-upstream"]) == (200, "up")
    assert len(upstream.seen) == 1


# As with every other call.


async def test_a_busy_target_is_replaced_by_the_next(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [http({"error": {"message": "busy"}}, 503), http(listed([0.5]))]
    relay = await start(openai_config(upstream).replace('["up/m-1"]', '["up/m-1", "up/m-2"]'))
    async with post(relay, {"model": "m", "input": "a"}) as response:
        assert (response.status, response.headers["x-relay-model"]) == (200, "m-2")
    assert (await relay.row()).attempts == 2


async def test_an_error_keeps_its_words(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    upstream.scripts = [http({"error": {"message": "-42 is less than the minimum of 1", "code": None}}, 400)]
    sdk = connect(await start(openai_config(upstream)))
    with pytest.raises(openai.BadRequestError, match="-42 is less"):
        await sdk.embeddings.create(model="m", input="a", dimensions=-42)


async def test_an_error_inside_of_a_good_status_is_an_error(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [http({"error": {"message": "no such model", "code": 404}})]
    relay = await start(openai_config(upstream))
    async with post(relay, {"model": "m", "input": "a"}) as response:
        assert (response.status, (await response.json())["error"]["message"]) == (404, "no such model")


async def test_the_limits_of_a_key_hold(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [http(listed([0.5], usage={"prompt_tokens": 8, "total_tokens": 8}))]
    relay = await start(openai_config(upstream), key={"rpm": 2, "tpm": 10})
    async with post(relay, {"model": "m", "input": "x" * 44}) as response:
        error = (await response.json())["error"]
    # The output that a chat would be given room for is none of it.
    assert (response.status, error["code"]) == (429, "request_over_token_limit")
    assert "at 11 tokens" in error["message"]
    async with post(relay, {"model": "m", "input": "x" * 40}) as response:
        assert (response.status, response.headers["x-ratelimit-remaining-tokens"]) == (200, "0")
    async with post(relay, {"model": "m", "input": "x" * 40}) as response:
        assert (response.status, "retry-after-ms" in response.headers) == (429, True)
    assert len(upstream.seen) == 1


async def test_a_key_may_use_its_own_models_only(start: Start, upstream: FakeUpstream) -> None:
    relay = await start(openai_config(upstream), key={"models": ["other"]})
    async with post(relay, {"model": "m", "input": "a"}) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (403, "model_not_allowed")
    assert not upstream.seen


async def test_the_list_of_models_says_who_makes_vectors(start: Start, upstream: FakeUpstream) -> None:
    upstream.models = {"object": "list", "data": [{"id": "text-embedding-3-small"}, {"id": "gpt-4o"}]}
    relay = await start(openai_config(upstream) + DEMO.replace("[", "    ["))
    async with relay.client.get(f"{relay.url}/v1/models") as response:
        shown = {model["id"]: model["capabilities"] for model in (await response.json())["data"]}
    assert shown["text-embedding-3-small"]["embeddings"] is True
    assert shown["text-embedding-3-small"]["chat"] is False
    assert shown["gpt-4o"]["embeddings"] is False
    assert shown["demo-echo"]["embeddings"] is True


@pytest.mark.parametrize("model", ["m", "demo-echo"])
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": ["a", []]}, "input[1]"),
        ({"input": 5}, "input"),
        ({"input": [1, "a"]}, "input[1]"),
        ({"input": ["a", 1]}, "input[1]"),
        ({"input": [[1, -2]]}, "input[0][1]"),
        ({"input": [1, True]}, "input[1]"),
        ({"input": ["a"] * 2049}, "input"),
    ],
)
async def test_a_wrong_input_is_named(start: Start, upstream: FakeUpstream, model: str, body: Any, param: str) -> None:
    relay = await start(openai_config(upstream) + DEMO.replace("[", "    ["))
    async with post(relay, {"model": model, **body}) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"], error["param"]) == (400, "invalid_parameter", param)
    assert not upstream.seen


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"encoding_format": 5}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": "many"}, "dimensions"),
        ({"dimensions": 5000}, "dimensions"),
        ({"input_type": "image"}, "input_type"),
        ({"user": 5}, "user"),
    ],
)
async def test_a_wrong_parameter_is_named_where_the_relay_translates(start: Start, body: Any, param: str) -> None:
    relay = await start(DEMO)
    async with post(relay, {"model": "demo-echo", "input": "a", **body}) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"], error["param"]) == (400, "invalid_parameter", param)


# Families of others.

PLUGIN = """
import orjson
from relay import Family, UpstreamRequest, hookimpl
from relay.ir import EmbeddingResponse, Usage

@hookimpl
def relay_families():
    return [Family("mine", dialects=frozenset({"openai-embeddings"}))]

@hookimpl
def endpoint(target, operation, body):
    assert operation == "embeddings"
    return UpstreamRequest(target.upstream.base_url + "/v", {}, body)
"""
FAULTY = """
@hookimpl
def meter_response(body):
    raise KeyError("usage")
"""
READING = """
@hookimpl
def translate_embedding_response(body, dialect):
    assert dialect == "openai-embeddings"
    return EmbeddingResponse([], usage=Usage(input=orjson.loads(body)["n"]))
"""
BLIND = """
@hookimpl
def translate_embedding_request(request):
    return b"{}"
"""


def plugged(folder: Path, upstream: FakeUpstream, *code: str, dialects: str = '["openai-embeddings"]') -> str:
    (folder / "mine.py").write_text(PLUGIN + "".join(code))
    return f"""
    [plugins]
    folder = "{folder}"
    [upstreams.mine]
    family = "mine"
    base_url = "{upstream.url}"
    dialects = {dialects}
    """


@pytest.mark.parametrize(
    ("code", "source", "tokens"),
    [([], "estimate", 2), ([FAULTY], "estimate", 2), ([READING], "provider", 77), ([FAULTY, READING], "estimate", 2)],
)
async def test_what_a_plugin_cannot_count_costs_its_numbers_and_never_the_answer(
    start: Start, upstream: FakeUpstream, tmp_path: Path, code: list[str], source: str, tokens: int
) -> None:
    upstream.scripts = [http(b'{ "n": 77 }')]
    relay = await start(plugged(tmp_path, upstream, *code))
    async with post(relay, {"model": "mine/x", "input": "12345678"}) as response:
        assert (response.status, await response.read()) == (200, b'{ "n": 77 }')
    row = await relay.row()
    assert row.usage is not None
    assert (row.outcome, row.usage_source, row.usage.input, row.usage.output) == ("ok", source, tokens, 0)


async def test_a_plugin_that_asks_and_does_not_read_is_named(
    start: Start, upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.scripts = [http({})]
    relay = await start(plugged(tmp_path, upstream, BLIND, dialects="[]"))
    async with post(relay, {"model": "mine/x", "input": "a"}) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"]) == (500, "plugin_error")
    assert "'mine'" in error["message"]
    assert (await relay.row()).cost == 0


async def test_a_plugin_without_hooks_for_vectors_is_not_asked_for_any(
    start: Start, upstream: FakeUpstream, tmp_path: Path
) -> None:
    relay = await start(plugged(tmp_path, upstream, dialects="[]"))
    async with post(relay, {"model": "mine/x", "input": "a"}) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (400, "unsupported_operation")
    assert not upstream.seen
