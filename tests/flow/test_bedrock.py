"""Models behind Converse, for clients of every dialect: through the whole relay, on both of its transports."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.flow.conftest import STEADY, Start
from tests.flow.fake import LAST_CHUNK, FakeUpstream, Seen, Step, chunk, http
from tests.promises.asking import KINDS, Asker, asking
from tests.providers.bedrock.wire import START, delta, exception, streamed

SECRET = "CANARY/secret+half"
CONFIG = """
[upstreams.aws]
family = "bedrock"
base_url = "{url}/base"
api_key = "AKIDEXAMPLE:CANARY/secret+half:CANARY-token"
options = { region = "eu-west-1" }
[models.m]
targets = ["aws/eu.anthropic.claude-sonnet-4-5-20250929-v1:0"]
price = { input = 1.0, output = 2.0 }
"""
PATH = "/base/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0"
CONTENT: list[dict[str, Any]] = [
    {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}},
    {"text": "Hello there"},
    {"toolUse": {"toolUseId": "t1", "name": "look", "input": {"at": "x"}}},
]
WHOLE = {
    "output": {"message": {"role": "assistant", "content": CONTENT}},
    "stopReason": "tool_use",
    "usage": {"inputTokens": 10, "outputTokens": 5, "totalTokens": 115, "cacheReadInputTokens": 100},
}
SUMMARIES = {
    "modelSummaries": [{"modelId": "a.b", "outputModalities": ["TEXT"], "inferenceTypesSupported": ["ON_DEMAND"]}]
}
PROFILES = {"inferenceProfileSummaries": [{"inferenceProfileId": "eu.a.c", "type": "SYSTEM_DEFINED"}]}


def event_stream(*pieces: bytes | float, end: bool = True) -> list[Step]:
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.amazon.eventstream\r\n"
        b"x-amzn-requestid: req-1\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    steps: list[Step] = [chunk(piece) if isinstance(piece, bytes) else piece for piece in pieces]
    return [head, *steps, LAST_CHUNK if end else "fin"]


def cut_up(body: bytes) -> list[bytes]:
    """A stream in pieces that know nothing of its messages."""
    return [body[place : place + 37] for place in range(0, len(body), 37)]


def signature_of(seen: Seen, secret: str = SECRET, region: str = "eu-west-1") -> str:
    """What the vendor computes of a request as it arrived."""
    authorization = seen.headers["authorization"]
    names = authorization.partition("SignedHeaders=")[2].partition(",")[0]
    path, _, query = seen.path.partition("?")
    lines = [seen.method, path.replace("%", "%25"), query]
    lines += [f"{name}:{seen.headers[name]}" for name in names.split(";")]
    lines += ["", names, hashlib.sha256(seen.body).hexdigest()]
    moment = seen.headers["x-amz-date"]
    scope = (moment[:8], region, "bedrock", "aws4_request")
    key = b"AWS4" + secret.encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", moment, "/".join(scope), digest])
    return hmac.digest(key, text.encode(), "sha256").hex()


def signed(seen: Seen) -> bool:
    return seen.headers["authorization"].endswith(f"Signature={signature_of(seen)}")


def listing(seen: Seen) -> list[Step]:
    return http(PROFILES if "profiles" in seen.path else SUMMARIES)


@pytest.fixture(params=["relay", "aiohttp"])
async def asker(request: pytest.FixtureRequest, start: Start, upstream: FakeUpstream) -> Asker:
    upstream.lists = listing
    config = f'[server]\ntransport = "{request.param}"\n' + STEADY + CONFIG.replace("{url}", upstream.url)
    return Asker(await start(config), upstream)


def chat_said(data: bytes, streamed_: bool) -> tuple[str, str, str]:
    """Text, reasoning and arguments, as a client of Chat Completions reads them."""
    if not streamed_:
        message = json.loads(data)["choices"][0]["message"]
        return message["content"], message["reasoning_content"], message["tool_calls"][0]["function"]["arguments"]
    found = ["", "", ""]
    for line in data.splitlines():
        if line.startswith(b"data: {"):
            for choice in json.loads(line[6:])["choices"]:
                piece = choice["delta"]
                found[0] += piece.get("content") or ""
                found[1] += piece.get("reasoning_content") or ""
                found[2] += "".join(call["function"].get("arguments") or "" for call in piece.get("tool_calls") or ())
    return found[0], found[1], found[2]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_arrives_and_its_request_was_signed_as_it_was_sent(asker: Asker, stream: bool) -> None:
    body = streamed(CONTENT, "tool_use", usage=WHOLE["usage"])
    asker.upstream.scripts = [event_stream(*cut_up(body)) if stream else http(WHOLE, x_amzn_requestid="req-1")]
    path, question = asking("chat", "m", stream=stream)
    status, headers, data = await asker.send(path, question)
    assert status == 200, data
    text, thought, arguments = chat_said(data, stream)
    assert (text, thought, json.loads(arguments)) == ("Hello there", "Hm.", {"at": "x"})
    assert headers["x-relay-upstream"] == "aws"
    seen = asker.last
    assert seen.path == f"{PATH}/converse{'-stream' if stream else ''}"
    assert signed(seen)
    assert seen.headers["x-amz-security-token"] == "CANARY-token"
    assert seen.json == {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}
    row = await asker.relay.row()
    assert (row.outcome, row.usage_source, row.stream) == ("ok", "provider", stream)
    assert row.usage is not None
    assert (row.usage.input, row.usage.output, row.usage.cache_read) == (110, 5, 100)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [False, True])
async def test_clients_of_every_dialect_are_answered(
    start: Start, upstream: FakeUpstream, kind: str, stream: bool
) -> None:
    asker = Asker(await start(STEADY + CONFIG.replace("{url}", upstream.url)), upstream)
    upstream.scripts = [event_stream(streamed(CONTENT, "tool_use")) if stream else http(WHOLE)]
    status, _, data = await asker.send(*asking(kind, "m", stream=stream))
    assert status == 200, data
    for words in (b"Hello", b"there", b"look"):
        assert words in data
    assert (await asker.relay.row()).outcome == "ok"


async def test_signed_reasoning_of_claude_comes_back_to_it_as_its_vendors_own_format_has_it(
    start: Start, upstream: FakeUpstream
) -> None:
    asker = Asker(await start(STEADY + CONFIG.replace("{url}", upstream.url)), upstream)
    upstream.scripts = [http(WHOLE)]
    tools = [{"name": "look", "input_schema": {"type": "object"}}]
    first = await asker.ask("messages", "m", tools=tools)
    assert first["content"][0] == {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "blue"}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": first["content"]},
        {"role": "user", "content": [result]},
    ]
    await asker.ask("messages", "m", tools=tools, messages=messages)
    assert asker.last.json["messages"][1]["content"] == CONTENT


async def test_reasoning_that_a_client_drops_is_there_for_the_next_turn(start: Start, upstream: FakeUpstream) -> None:
    asker = Asker(await start(STEADY + CONFIG.replace("{url}", upstream.url)), upstream)
    upstream.scripts = [event_stream(streamed(CONTENT, "tool_use")), http(WHOLE)]
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    await asker.ask("chat", "m", tools=[tool], stream=True)
    call = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"at":"x"}'}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello there", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t1", "content": "blue"},
    ]
    await asker.ask("chat", "m", tools=[tool], messages=messages)
    assert asker.last.json["messages"][1]["content"] == CONTENT


async def test_tokens_are_counted_by_the_upstream(asker: Asker) -> None:
    asker.upstream.scripts = [http({"inputTokens": 123})]
    body = asking("messages", "m")[1]
    status, headers, data = await asker.send("/v1/messages/count_tokens", body)
    assert (status, json.loads(data)) == (200, {"input_tokens": 123})
    assert headers["x-relay-token-count"] == "upstream"
    assert asker.last.path == f"{PATH.replace('eu.', '')}/count-tokens"
    assert asker.last.json == {"input": {"converse": {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}}}
    assert signed(asker.last)


async def test_both_lists_of_models_are_shown(asker: Asker) -> None:
    async with asker.relay.client.get(f"{asker.relay.url}/v1/models") as response:
        names = {entry["id"] for entry in (await response.json())["data"]}
    assert {"a.b", "eu.a.c"} <= names


@pytest.mark.parametrize("missing", ["foundation-models", "inference-profiles"])
async def test_half_a_list_is_none(start: Start, upstream: FakeUpstream, missing: str) -> None:
    upstream.lists = lambda seen: http({"message": "no"}, 400) if missing in seen.path else listing(seen)
    running = await start(STEADY + CONFIG.replace("{url}", upstream.url))
    assert running.relay.listing_errors == {"aws": "no"}


async def test_errors_tell_the_callers_fault_and_not_the_relays(asker: Asker) -> None:
    told: list[tuple[int, str]] = []
    for script in (
        http({"message": "Too long"}, 400, x_amzn_errortype="ValidationException:http://x/"),
        http({"message": f"The signature of {SECRET} is wrong"}, 403),
        http({"message": "Slow down"}, 429),
    ):
        asker.upstream.answer = lambda seen, script=script: script  # type: ignore[misc]
        status, _, data = await asker.send(*asking("chat", "m"))
        assert b"CANARY" not in data
        told.append((status, json.loads(data)["error"]["message"]))
    assert told == [
        (400, "Too long"),
        (502, "the upstream refused the relay's own credentials"),
        (429, "Slow down"),
    ]


BEGINNING = START + delta(0, text="Hel")
SLOW = exception("throttlingException", {"message": "Slow down"})


LATER = 0.05
"""Seconds after which a piece comes by itself, most likely: what was read before it has opened the answer."""


@pytest.mark.promise("U-01")
@pytest.mark.parametrize(
    ("steps", "status", "outcome"),
    [
        (event_stream(SLOW), 429, "upstream_error"),
        (event_stream(BEGINNING + SLOW), 429, "upstream_error"),
        (event_stream(BEGINNING, LATER, SLOW), 200, "upstream_error"),
        (event_stream(BEGINNING, LATER), 200, "upstream_cut"),
        (event_stream(BEGINNING, LATER, end=False), 200, "upstream_cut"),
        (event_stream(BEGINNING, LATER, b"\0" * 40), 200, "upstream_cut"),
    ],
    ids=["refused", "refused late", "failed", "short", "broken off", "damaged"],
)
async def test_no_stream_that_fails_looks_whole(asker: Asker, steps: list[Step], status: int, outcome: str) -> None:
    asker.upstream.scripts = [steps]
    got, _, data = await asker.send(*asking("chat", "m", stream=True))
    assert got == status or (status == 200 and got in (429, 502))
    assert b'"error"' in data
    assert b"[DONE]" not in data
    assert b'"finish_reason":"stop"' not in data
    assert (await asker.relay.row()).outcome == outcome


async def test_an_access_key_by_parts_comes_from_the_environment() -> None:
    from relay.catalog import load_plugins, read_catalog
    from relay.config import read_text

    environ: Mapping[str, str] = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "half"}
    text = (
        "[discovery]\nenvironment = false\nlocal = false\nfallback = false\n[upstreams.bedrock]\n"
        'api_key = "${AWS_ACCESS_KEY_ID}:${AWS_SECRET_ACCESS_KEY}:${AWS_SESSION_TOKEN:-}"\n'
    )
    config = read_text(text, "test.toml", environ)
    catalog = await read_catalog(config, load_plugins(config.settings), environ)
    (upstream,) = catalog.upstreams
    assert upstream.api_key is not None
    assert upstream.api_key.reveal() == "AKID:half:"
