"""Clients of the Gemini API that ask for vectors, with the official SDK as judge, whoever the upstream is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google import genai
from google.genai import errors, types

from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import FakeUpstream, http

# It subclasses a class of aiohttp's that warns of that.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class")

DEMO = "[upstreams.demo]\n"
NATIVE = """
[upstreams.up]
family = "gemini"
base_url = "{url}"
api_key = "AIza-1"
[models.m]
targets = ["up/m-1"]
price = {{input = 1.0, output = 2.0}}
"""
ANTHROPIC = """
[upstreams.claude]
family = "anthropic"
base_url = "{url}"
api_key = "sk-ant-1"
[models.c]
targets = ["claude/claude-x"]
"""


@pytest.fixture
async def connect() -> AsyncIterator[Any]:
    clients: list[Any] = []

    def build(relay: Running, version: str = "v1beta") -> Any:
        options = types.HttpOptions(base_url=relay.url, api_version=version)
        clients.append(genai.Client(api_key=relay.key, http_options=options))
        return clients[-1].aio

    yield build
    for client in clients:
        await client.aio.aclose()
        client.close()


def post(relay: Running, path: str, body: Any) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return relay.client.post(f"{relay.url}{path}", data=raw, headers={"Content-Type": "application/json"})


def request(words: str, **fields: Any) -> dict[str, Any]:
    return {"content": {"parts": [{"text": words}]}, **fields}


def listed(*vectors: Any, **more: Any) -> dict[str, Any]:
    rows = [{"object": "embedding", "index": place, "embedding": vector} for place, vector in enumerate(vectors)]
    return {"object": "list", "data": rows, "model": "m-1", **more}


SINGLE = b'{ "content" : {"parts":[{"text":"a"}]}, "taskType":"CLUSTERING" }'
BATCH = b'{"requests" : [ {"model":"models/m-1", "content":{"parts":[{"text":"say \\"model\\""}]}} ]}'


@pytest.mark.parametrize("version", ["v1beta", "v1"])
@pytest.mark.parametrize(
    ("method", "body", "answer"),
    [
        ("embedContent", SINGLE, b'{ "embedding": {"values": [0.5 , 1]} }'),
        (
            "batchEmbedContents",
            BATCH,
            b'{ "embeddings": [ {"values": [0.5]} ], "usageMetadata": {"promptTokenCount": 4}}',
        ),
    ],
)
async def test_both_bodies_pass_through_untouched(
    start: Start, upstream: FakeUpstream, version: str, method: str, body: bytes, answer: bytes
) -> None:
    upstream.scripts = [http(answer)]
    relay = await start(NATIVE.format(url=upstream.url).replace("[models.m]", "[models.m-1]"))
    async with post(relay, f"/{version}/models/m-1:{method}", body) as response:
        assert (response.status, await response.read()) == (200, answer)
    (seen,) = upstream.seen
    assert (seen.path, seen.body) == (f"/v1beta/models/m-1:{method}", body)
    row = await relay.row()
    assert row.usage is not None
    counted = b"usageMetadata" in answer
    assert (row.operation, row.dialect, row.usage.output) == ("embeddings", "gemini", 0)
    assert (row.usage_source, row.usage.input) == (("provider", 4) if counted else ("estimate", 1))


async def test_a_model_of_another_name_is_renamed_wherever_it_stands(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [
        http({"embeddings": [{"values": [0.5]}, {"values": [0.5]}]}),
        http({"embedding": {"values": [1]}}),
    ]
    relay = await start(NATIVE.format(url=upstream.url))
    body = {"requests": [request("a", model="models/m", title="m"), request("b", model="models/m")]}
    async with post(relay, "/v1beta/models/m:batchEmbedContents", body) as response:
        assert response.status == 200
    assert [entry["model"] for entry in upstream.seen[0].json["requests"]] == ["models/m-1", "models/m-1"]
    assert upstream.seen[0].json["requests"][0]["title"] == "m"
    async with post(relay, "/v1beta/models/m:embedContent", request("a", model="models/m")) as response:
        assert response.status == 200
    assert upstream.seen[1].json == request("a", model="models/m-1")


async def test_no_second_name_reaches_the_upstream(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [http({"embeddings": [{"values": [0.5]}]})]
    relay = await start(NATIVE.format(url=upstream.url).replace("[models.m]", "[models.m-1]"))
    twice = b'{"requests":[{"model":"models/other","model":"models/m-1","content":{"parts":[{"text":"a"}]}}]}'
    spelled = b'{"requests":[{"mod\\u0065l":"models/other","model":"models/m-1","content":{"parts":[{"text":"a"}]}}]}'
    for body in (twice, spelled):
        async with post(relay, "/v1beta/models/m-1:batchEmbedContents", body) as response:
            assert response.status == 200
        assert b"other" not in upstream.seen[-1].body


async def test_the_sdk_is_passed_through(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    upstream.scripts = [
        http(
            {"embeddings": [{"values": [0.5, -0.25]}, {"values": [1.0, 0.0]}], "usageMetadata": {"promptTokenCount": 7}}
        )
    ]
    relay = await start(NATIVE.format(url=upstream.url))
    config = types.EmbedContentConfig(task_type="RETRIEVAL_DOCUMENT", title="T", output_dimensionality=2)
    shown = await connect(relay).models.embed_content(model="m", contents=["a", "b"], config=config)
    assert [row.values for row in shown.embeddings] == [[0.5, -0.25], [1.0, 0.0]]
    assert upstream.seen[0].path == "/v1beta/models/m-1:batchEmbedContents"
    row = await relay.row()
    assert row.usage is not None
    assert (row.usage.input, row.cost) == (7, 7000)


async def test_other_upstreams_are_asked_in_their_own_words(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    # Out of order: the index says what belongs to what.
    rows = [{"index": 1, "embedding": [1.0, 0.0]}, {"index": 0, "embedding": [0.5, -0.25]}]
    upstream.scripts = [http({"data": rows, "model": "m-1", "usage": {"prompt_tokens": 7, "total_tokens": 7}})]
    relay = await start(openai_config(upstream))
    config = types.EmbedContentConfig(output_dimensionality=2)
    shown = await connect(relay, "v1").models.embed_content(model="m", contents=["a", "b"], config=config)
    assert [row.values for row in shown.embeddings] == [[0.5, -0.25], [1.0, 0.0]]
    (seen,) = upstream.seen
    assert (seen.path, seen.json) == (
        "/v1/embeddings",
        {"model": "m-1", "input": ["a", "b"], "encoding_format": "float", "dimensions": 2},
    )
    row = await relay.row()
    assert row.usage is not None
    assert (row.dialect, row.family, row.usage_source, row.usage.input) == ("gemini", "openai", "provider", 7)


async def test_one_request_gets_one_vector(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [http(listed([0.5, 1], usage={"prompt_tokens": 7, "total_tokens": 7}))]
    relay = await start(openai_config(upstream))
    body = {"content": {"parts": [{"text": "a"}, {"text": "b"}]}, "output_dimensionality": "2"}
    async with post(relay, "/v1beta/models/m:embedContent", body) as response:
        assert await response.json() == {"embedding": {"values": [0.5, 1]}, "usageMetadata": {"promptTokenCount": 7}}
        assert response.headers["x-relay-token-count"] == "upstream"
    assert (upstream.seen[0].json["input"], upstream.seen[0].json["dimensions"]) == ("ab", 2)


async def test_the_demo_answers_the_sdk(start: Start, connect: Any) -> None:
    relay = await start(DEMO)
    shown = await connect(relay).models.embed_content(model="demo-echo", contents="good day")
    (row,) = shown.embeddings
    assert len(row.values) == 256
    assert (await relay.row()).family == "demo"


async def test_what_gets_lost_is_told_and_refused_to_strict_keys(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [http(listed([0.5]))]
    body = request("a", taskType="RETRIEVAL_DOCUMENT", title="T", autoTruncate=True, user=None)
    relay = await start(openai_config(upstream))
    async with post(relay, "/v1beta/models/m:embedContent", body) as response:
        assert response.status == 200
        assert set(response.headers["x-relay-dropped"].split(", ")) == {"autoTruncate", "purpose", "title"}
    strict = await start(openai_config(upstream), key={"strict": True})
    async with post(strict, "/v1beta/models/m:embedContent", body) as response:
        assert (response.status, (await response.json())["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert len(upstream.seen) == 1


async def test_vectors_that_are_no_lists_of_numbers_are_refused(start: Start, upstream: FakeUpstream) -> None:
    # A host that packs them in a way of its own: read as another, they would be other vectors.
    upstream.scripts = [http(listed("9sYAAzzy"))]
    relay = await start(openai_config(upstream))
    async with post(relay, "/v1beta/models/m:embedContent", request("a")) as response:
        assert response.status == 502
    assert (await relay.row()).error_code == "upstream_protocol_error"


@pytest.mark.parametrize(
    "rows",
    [
        [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}],
        [{"index": 0, "embedding": [1]}, {"index": 2, "embedding": [1]}],
        [{"index": 0, "embedding": [1]}, {"index": "1", "embedding": [1]}],
        [{"index": 0, "embedding": [1]}],
    ],
)
async def test_vectors_whose_input_is_not_known_are_refused(
    start: Start, upstream: FakeUpstream, rows: list[Any]
) -> None:
    upstream.scripts = [http({"data": rows})]
    relay = await start(openai_config(upstream))
    body = {"requests": [request("a"), request("b")]}
    async with post(relay, "/v1beta/models/m:batchEmbedContents", body) as response:
        assert response.status == 502
    assert (await relay.row()).outcome == "upstream_cut"


async def test_an_upstream_without_embeddings_is_not_asked(start: Start, upstream: FakeUpstream, connect: Any) -> None:
    relay = await start(ANTHROPIC.format(url=upstream.url))
    with pytest.raises(errors.ClientError, match="'c' makes no embeddings") as caught:
        await connect(relay).models.embed_content(model="c", contents="a")
    assert (caught.value.code, caught.value.status) == (400, "INVALID_ARGUMENT")
    assert not upstream.seen
    assert (await relay.row()).error_code == "unsupported_operation"


PICTURE = {"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]}}


@pytest.mark.parametrize(
    ("method", "body", "said"),
    [
        ("embedContent", {}, "content is missing"),
        ("embedContent", {"content": "a"}, "content must be an object"),
        ("embedContent", {"content": {"parts": []}}, "content must not be empty"),
        ("embedContent", request(""), "content must not be empty"),
        ("embedContent", request("a", model="models/other"), "model is another one than in the URL"),
        ("embedContent", request("a", taskType="DANCING"), "taskType must be one of"),
        ("embedContent", request("a", outputDimensionality=0), "outputDimensionality must be between"),
        ("embedContent", request("a", title=5), "title must be a string"),
        ("embedContent", PICTURE, "content.parts[0] is no text"),
        ("embedContent", {"requests": [request("a")]}, "requests is for batchEmbedContents"),
        ("batchEmbedContents", request("a"), "requests is missing"),
        ("batchEmbedContents", {"requests": []}, "requests must have between 1 and 2048 entries"),
        ("batchEmbedContents", {"requests": {}}, "requests must be an array"),
        ("batchEmbedContents", {"requests": [request("a"), {}]}, "requests[1].content is missing"),
        ("batchEmbedContents", {"requests": [request("a", model="models/x")]}, "requests[0].model is another one"),
        (
            "batchEmbedContents",
            {"requests": [request("a", taskType="CLUSTERING"), request("b")]},
            "requests[1].taskType is not that of the first input",
        ),
    ],
)
async def test_a_wrong_request_is_named(
    start: Start, upstream: FakeUpstream, method: str, body: Any, said: str
) -> None:
    relay = await start(openai_config(upstream))
    async with post(relay, f"/v1beta/models/m:{method}", body) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"], error["status"]) == (400, 400, "INVALID_ARGUMENT")
    assert said in error["message"]
    assert not upstream.seen


async def test_the_list_of_models_says_who_makes_vectors(start: Start, connect: Any) -> None:
    relay = await start(DEMO)
    shown = [model async for model in await connect(relay).models.list()]
    assert "embedContent" in shown[0].supported_actions
