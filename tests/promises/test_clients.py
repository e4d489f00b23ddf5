"""What real clients were seen to send and to expect, one by one: of each need one look at a whole relay."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest

from tests.clients.scripted import WRITERS, Model
from tests.conftest import shared_folder
from tests.flow.conftest import STEADY, Start
from tests.flow.fake import FakeUpstream, Seen, Step, http
from tests.promises.asking import FOUR, HI, KINDS, PARTS, Asker, asking
from tests.replay.recording import NoRecordings


@pytest.fixture
async def asker(start: Start, upstream: FakeUpstream) -> Asker:
    upstream.answer = Model().answer
    return Asker(await start(STEADY + FOUR.replace("{url}", upstream.url)), upstream)


# Routes, and who asks.


@pytest.mark.promise("K-01")
async def test_the_list_of_models_is_in_the_dialect_of_who_asks(asker: Asker) -> None:
    key = asker.relay.key
    forms: list[tuple[dict[str, str], set[str]]] = [
        ({"anthropic-version": "2023-06-01", "x-api-key": key}, {"data", "has_more", "first_id", "last_id"}),
        ({"x-goog-api-key": key}, {"models"}),
        ({"Authorization": f"Bearer {key}"}, {"object", "data"}),
    ]
    async with aiohttp.ClientSession() as client:
        for headers, fields in forms:
            async with client.get(f"{asker.relay.url}/v1/models?limit=1000", headers=headers) as response:
                listed = await response.json()
            assert fields <= set(listed), headers
            found = listed.get("data") or listed["models"]
            assert {str(one.get("id") or one["name"]).removeprefix("models/") for one in found} >= set(KINDS)


@pytest.mark.promise("K-02")
@pytest.mark.parametrize("version", ["v1", "v1beta"])
async def test_the_gemini_api_lives_under_both_versions(asker: Asker, version: str) -> None:
    base = f"/{version}/models/chat:"
    for verb in ("generateContent", "streamGenerateContent?alt=sse", "countTokens"):
        status, _, data = await asker.send(base + verb, {"contents": PARTS})
        assert status == 200, (verb, data)
    asker.upstream.answer = lambda seen: http({"embeddings": [{"values": [0.5, 0.25]}]})
    vectors = {"requests": [{"model": "models/gemini", "content": {"parts": [{"text": "Hi"}]}}]}
    status, _, data = await asker.send(f"/{version}/models/gemini:batchEmbedContents", vectors)
    assert status == 200, data
    assert json.loads(data)["embeddings"] == [{"values": [0.5, 0.25]}]


@pytest.mark.promise("K-03")
@pytest.mark.parametrize("kind", KINDS)
async def test_the_key_may_come_in_any_header_on_every_route(asker: Asker, kind: str) -> None:
    path, body = asking(kind, "chat")
    key = asker.relay.key
    async with aiohttp.ClientSession() as client:
        for headers in ({"Authorization": f"Bearer {key}"}, {"x-api-key": key}, {"x-goog-api-key": key}):
            async with client.post(asker.relay.url + path, json=body, headers=headers) as response:
                assert response.status == 200, headers
        if kind == "gemini":
            async with client.post(f"{asker.relay.url}{path}?key={key}", json=body) as response:
                assert response.status == 200


@pytest.mark.promise("K-04")
@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
async def test_every_version_of_messages_is_taken_and_passed_on(asker: Asker, version: str) -> None:
    messages = [*HI, {"role": "system", "content": "Be brief."}]
    await asker.ask("messages", "messages", messages=messages, headers={"anthropic-version": version})
    assert asker.last.headers["anthropic-version"] == version
    assert asker.last.json["messages"] == messages
    answer = await asker.ask("messages", "chat", messages=messages, headers={"anthropic-version": version})
    assert (answer["type"], answer["stop_reason"]) == ("message", "end_turn")
    assert asker.last.json["messages"][-1] == {"role": "system", "content": "Be brief."}
    status, _, data = await asker.send(*asking("messages", "chat", max_tokens=0), anthropic_version=version)
    assert (status, json.loads(data)["error"]["details"]["error_code"]) == (400, "invalid_parameter")


@pytest.mark.promise("K-05")
async def test_paths_without_a_version_lead_to_the_same(asker: Asker) -> None:
    for path, kind in (("/chat/completions", "chat"), ("/messages", "messages"), ("/responses", "responses")):
        status, _, data = await asker.send(path, asking(kind, "chat")[1])
        assert status == 200, data
    async with asker.relay.client.get(f"{asker.relay.url}/models") as response:
        assert (await response.json())["object"] == "list"


@pytest.mark.promise("K-06")
async def test_a_query_that_says_beta_changes_nothing(asker: Asker) -> None:
    body = asking("messages", "chat")[1]
    status, _, _ = await asker.send("/v1/messages?beta=true", body)
    assert status == 200
    status, _, data = await asker.send("/v1/messages/count_tokens?beta=true", body)
    assert (status, json.loads(data)["input_tokens"] > 0) == (200, True)


@pytest.mark.promise("K-07")
async def test_a_websocket_is_refused_with_the_status_after_which_clients_use_http(asker: Asker) -> None:
    for path in ("/v1/responses", "/responses"):
        headers = {"openai-beta": "responses_websockets=2026-02-06"}
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await asker.relay.client.ws_connect(asker.relay.url + path, headers=headers)
        assert refused.value.status == 426


@pytest.mark.promise("K-08")
@pytest.mark.parametrize("model", KINDS)
async def test_responses_is_served_on_every_family(asker: Asker, model: str) -> None:
    answer = await asker.ask("responses", model)
    assert (answer["object"], answer["status"]) == ("response", "completed")
    assert answer["output"][0]["content"][0]["text"] == "A title"
    assert b"response.completed" in await asker.ask("responses", model, stream=True)


@pytest.mark.promise("K-09")
async def test_a_burst_of_counts_is_within_no_limit_and_asks_nobody(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = Model().answer
    relay = await start(FOUR.replace("{url}", upstream.url), key={"rpm": 1, "concurrency": 1})
    asker, body = Asker(relay, upstream), asking("messages", "chat")[1]
    counts = [asker.send("/v1/messages/count_tokens?beta=true", body) for _ in range(31)]
    assert {status for status, _, _ in await asyncio.gather(*counts)} == {200}
    assert not upstream.seen
    await asker.ask("messages", "chat")


# Bodies.

AGENT: dict[str, Any] = {
    "max_tokens": 32_000,
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2"},
        {"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Work here.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Go", "cache_control": {"type": "ephemeral"}}]},
        {"role": "system", "content": "In the middle."},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"c": "ls"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "a.txt"}]},
        {"role": "system", "content": "At the end."},
    ],
    "tools": [
        {"name": "Bash", "description": "Runs.", "input_schema": {"type": "object"}, "defer_loading": True},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
    ],
    "thinking": {"type": "adaptive", "display": "summarized"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "high"},
    "metadata": {"user_id": '{"device_id":"d","session_id":"s"}'},
    "safeguards": {"paths": ["/home/u"]},
    "unknown_field": {"x": 1},
}
"""What the largest of the agents sends."""


@pytest.mark.promise("K-10")
@pytest.mark.parametrize("model", KINDS)
async def test_all_that_an_agent_sends_is_taken_on_every_family(asker: Asker, model: str) -> None:
    answer = await asker.ask("messages", model, **AGENT)
    assert answer["type"] == "message"
    sent = asker.last.body.decode()
    if model == "messages":
        assert asker.last.json == {"model": "claude-sonnet-4-5", **AGENT}
    for words in ("You are an agent.", "In the middle.", "a.txt", "At the end.", "Bash"):
        assert words in sent
    if model != "messages":
        # Paths on the client's machine are nobody else's business.
        assert "/home/u" not in sent


@pytest.mark.promise("K-11")
async def test_what_is_unknown_passes_where_it_is_known_and_is_told_elsewhere(asker: Asker) -> None:
    custom = {"type": "custom", "custom": {"name": "apply_patch", "format": {"type": "text"}}}
    tools = [custom, {"type": "image_generation"}]
    await asker.ask("chat", "chat", tools=tools, new_field={"a": [1]})
    assert (asker.last.json["tools"], asker.last.json["new_field"]) == (tools, {"a": [1]})
    status, headers, _ = await asker.send(*asking("chat", "messages", tools=tools, new_field={"a": [1]}))
    assert status == 200
    assert asker.last.json["tools"][0]["name"] == "apply_patch"
    assert set(headers["x-relay-dropped"].split(", ")) == {"tools[1]", "new_field"}
    lark = {"type": "grammar", "syntax": "lark", "definition": "start: X"}
    codex = [
        {"type": "custom", "name": "apply_patch", "format": lark},
        {"type": "tool_search", "execution": "client", "parameters": {"type": "object"}},
        {"type": "web_search"},
    ]
    status, headers, _ = await asker.send(*asking("responses", "gemini", tools=codex))
    assert status == 200
    declared = asker.last.json["tools"][0]["functionDeclarations"]
    assert [tool["name"] for tool in declared] == ["apply_patch", "tool_search"]
    assert "start: X" in declared[0]["description"]
    google = [{"functionDeclarations": [{"name": "f"}]}, {"googleSearch": {}}]
    config = {
        "includeServerSideToolInvocations": True,
        "functionCallingConfig": {"mode": "VALIDATED"},
    }
    await asker.ask("gemini", "gemini", tools=google, toolConfig=config)
    assert (asker.last.json["tools"], asker.last.json["toolConfig"]) == (google, config)
    status, headers, _ = await asker.send(*asking("gemini", "chat", tools=google, toolConfig=config))
    assert status == 200
    assert "tools" in headers["x-relay-dropped"]
    beta = {"anthropic-beta": "new-thing-2027-01-01"}
    await asker.ask("messages", "messages", headers=beta)
    assert asker.last.headers["anthropic-beta"] == "new-thing-2027-01-01"
    await asker.ask("messages", "gemini", headers=beta)


@pytest.mark.promise("K-12")
@pytest.mark.parametrize("model", ["responses", "chat"])
async def test_every_spelling_of_responses_is_read(asker: Asker, model: str) -> None:
    items = [
        {"role": "developer", "content": "Be brief."},
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Always."}]},
        {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
    ]
    more = {
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "k",
        "client_metadata": {"a": "b"},
        "text": {"verbosity": "low"},
        "truncation": "auto",
        "safety_identifier": "u",
        "reasoning": {"effort": "low", "summary": "auto", "context": "auto"},
        "parallel_tool_calls": True,
    }
    answer = await asker.ask("responses", model, input=items, **more)
    if model == "chat":
        roles = [message["role"] for message in asker.last.json["messages"]]
        assert roles in (["system", "system", "user"], ["developer", "system", "user"])
        assert asker.last.json["reasoning_effort"] == "low"
        assert answer["store"] is False
    assert (await asker.ask("responses", model, input="Hi"))["status"] == "completed"


@pytest.mark.promise("K-13")
async def test_every_spelling_of_chat_is_read(asker: Asker) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "a.txt"}]},
    ]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    for limit in ("max_tokens", "max_completion_tokens"):
        more = {limit: 128_000, "store": False, "reasoning_effort": "low"}
        await asker.ask("chat", "chat", messages=messages, tools=tools, **more)
        assert asker.last.json[limit] == 128_000
        await asker.ask("chat", "messages", messages=messages, tools=tools, **more)
        sent = asker.last.json
        assert sent["max_tokens"] >= 64_000
        assert sent["system"][0]["text"] == "Be brief."
        assert sent["messages"][-1]["content"][0]["content"] in ("a.txt", [{"type": "text", "text": "a.txt"}])
        await asker.ask("chat", "gemini", messages=messages, tools=tools, **more)
        assert asker.last.json["generationConfig"]["maxOutputTokens"] == 128_000


@pytest.mark.promise("K-14")
@pytest.mark.parametrize("model", ["gemini", "chat"])
async def test_every_spelling_of_gemini_is_read(asker: Asker, model: str) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    call = {"function_call": {"name": "f", "args": {"city": "Oslo"}}}
    result = {"function_response": {"name": "f", "response": {"output": "7"}}}
    await asker.ask(
        "gemini",
        model,
        contents=[{"parts": [{"text": "Hi"}]}, {"role": "model", "parts": [call]}, {"role": "user", "parts": [result]}],
        tools=[
            {"function_declarations": [{"name": "f", "parameters_json_schema": schema}]},
            {"functionDeclarations": [{"name": "g", "parameters": {"type": "OBJECT"}}]},
        ],
        generation_config={"thinking_config": {"include_thoughts": True}},
        safetySettings=[],
    )
    await asker.ask("gemini", model, generationConfig={})
    if model == "chat":
        called = asker.upstream.seen[-2].json
        assert [tool["function"]["name"] for tool in called["tools"]] == ["f", "g"]
        assert called["tools"][0]["function"]["parameters"] == schema
        assert [message["role"] for message in called["messages"]] == ["user", "assistant", "tool"]


@pytest.mark.promise("K-15")
async def test_vectors_come_in_base64_for_those_who_ask_for_it(asker: Asker) -> None:
    asker.upstream.answer = lambda seen: http({"embeddings": [{"values": [0.5, 0.25]}]})
    status, _, data = await asker.send(
        "/v1/embeddings", {"model": "gemini", "input": ["Hi"], "encoding_format": "base64"}
    )
    assert status == 200, data
    raw = base64.b64decode(json.loads(data)["data"][0]["embedding"])
    assert struct.unpack("<2f", raw) == (0.5, 0.25)


REASONED: Mapping[str, tuple[str, dict[str, Any], str]] = {
    "chat": (
        "messages",
        {"role": "assistant", "content": "A", "reasoning_content": "thought  é\n"},
        "thought  é\n",
    ),
    "messages": (
        "messages",
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "thought", "signature": "c2lnbmVk+/="},
                {"type": "redacted_thinking", "data": "aGlkZGVu"},
                {"type": "text", "text": "A"},
            ],
        },
        "c2lnbmVk+/=",
    ),
    "responses": (
        "input",
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA+/="},
        "gAAAA+/=",
    ),
    "gemini": (
        "contents",
        {"role": "model", "parts": [{"text": "A", "thoughtSignature": "c2ln+/="}]},
        "c2ln+/=",
    ),
}


@pytest.mark.promise("K-16")
@pytest.mark.parametrize("kind", KINDS)
async def test_reasoning_comes_back_to_its_vendor_byte_for_byte(asker: Asker, kind: str) -> None:
    field, turn, proof = REASONED[kind]
    first = PARTS if kind == "gemini" else HI
    await asker.ask(kind, kind, **{field: [*first, turn, *first]})
    sent = asker.last.json[field]
    assert sent == [*first, turn, *first]
    assert json.dumps(proof, ensure_ascii=True).encode() in asker.last.body


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
FORMS: Mapping[str, dict[str, Any]] = {
    "chat": {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
    "responses": {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}},
    "messages": {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    "gemini": {"generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}},
}


@pytest.mark.promise("K-17")
@pytest.mark.parametrize("model", KINDS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_schema_for_the_answer_reaches_every_family(asker: Asker, kind: str, model: str) -> None:
    await asker.ask(kind, model, **FORMS[kind])
    sent = asker.last.json
    found = {
        "chat": lambda: sent["response_format"]["json_schema"]["schema"],
        "responses": lambda: sent["text"]["format"]["schema"],
        "messages": lambda: sent["output_config"]["format"]["schema"],
        "gemini": lambda: (
            sent["generationConfig"].get("responseJsonSchema") or sent["generationConfig"]["responseSchema"]
        ),
    }[model]()
    assert set(found["properties"]) == {"a"}


@pytest.mark.promise("K-17")
async def test_json_without_a_schema_is_asked_for_in_words_where_there_is_no_other_way(asker: Asker) -> None:
    await asker.ask("chat", "chat", response_format={"type": "json_object"})
    assert asker.last.json["response_format"] == {"type": "json_object"}
    status, headers, _ = await asker.send(*asking("chat", "messages", response_format={"type": "json_object"}))
    assert (status, headers["x-relay-dropped"]) == (200, "response_format")


@pytest.mark.promise("K-18")
@pytest.mark.parametrize("kind", KINDS)
async def test_clients_own_headers_stay_with_the_relay(asker: Asker, kind: str) -> None:
    sent = {
        "OpenAI-Platform": "org-CANARY",
        "x-codex-turn-metadata": '{"workspace":"/home/u"}',
        "X-Claude-Code-Session-Id": "s",
        "x-session-affinity": "s",
        "x-initiator": "agent",
        "Cookie": "a=b",
        "X-Forwarded-For": "10.0.0.1",
    }
    await asker.ask(kind, kind, headers=sent)
    assert not {name.lower() for name in sent} & set(asker.last.headers)


@pytest.mark.promise("K-19")
async def test_a_body_of_many_megabytes_is_taken(asker: Asker) -> None:
    picture = base64.b64encode(b"\x89PNG" + bytes(4 * 1024 * 1024)).decode()
    content = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}]
    answer = await asker.ask("chat", "messages", messages=[{"role": "user", "content": content}])
    assert answer["choices"][0]["message"]["content"] == "A title"
    assert asker.last.json["messages"][0]["content"][0]["source"]["data"] == picture


@pytest.mark.promise("K-18")
async def test_a_header_that_cannot_be_sent_on_is_refused_and_blames_no_upstream(asker: Asker) -> None:
    for kind, name in (("messages", "anthropic-beta"), ("responses", "openai-beta")):
        path, body = asking(kind, kind)
        status, _, data = await asker.send(path, body, **{name: "x\u2026"})
        assert (status, name in json.loads(data)["error"]["message"]) == (400, True)
    assert not asker.upstream.seen


# All of it.


@pytest.mark.shared
@pytest.mark.promise("K-11")
async def test_every_request_that_was_captured_is_taken_and_passed_to_its_own_family(
    start: Start, upstream: FakeUpstream
) -> None:
    folder = Path(shared_folder()) / "captures"
    files = sorted(folder.glob("*.jsonl.gz"))
    if not files:
        raise NoRecordings(f"no captures in {folder}")
    upstream.answer = lambda seen: (
        WRITERS[next(end for end in WRITERS if end in seen.path)]("Hi", None, is_stream(seen))
        if "mbed" not in seen.path and "count" not in seen.path
        else plain(seen)
    )
    config = FOUR.replace("{url}", upstream.url)
    relay = await start(STEADY + config)
    asker = Asker(relay, upstream)
    played: dict[str, int] = {}
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                request = json.loads(line)
                if request["method"] == "POST" and request["body"] is not None:
                    kind = await replayed(asker, request)
                    played[kind] = played.get(kind, 0) + 1
    assert set(played) >= set(KINDS)
    assert sum(played.values()) > 200


def is_stream(seen: Seen) -> bool:
    return bool(seen.json.get("stream")) or "streamGenerateContent" in seen.path


def plain(seen: Seen) -> list[Step]:
    """Vectors and counts."""
    if "count" in seen.path:
        return http({"input_tokens": 5, "totalTokens": 5})
    if "batchEmbed" in seen.path:
        return http({"embeddings": [{"values": [0.5]} for _ in seen.json["requests"]]})
    given = seen.json["input"]
    vectors = [{"object": "embedding", "index": 0, "embedding": [0.5]}] * (len(given) if isinstance(given, list) else 1)
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return http({"object": "list", "model": "m-1", "data": vectors, "usage": usage})


async def replayed(asker: Asker, request: dict[str, Any]) -> str:
    """Send a captured request as it was to a model of its own kind. Gives that kind."""
    path, body = request["path"], request["body"]
    kind = next(
        kind
        for kind, part in (
            ("messages", "/messages"),
            ("responses", "/responses"),
            ("gemini", "/models/"),
            ("chat", "/"),
        )
        if part in path
    )
    query = "?" + urlencode(request["query"]) if request.get("query") else ""
    if kind == "gemini":
        version, _, rest = path.partition("/models/")
        path = f"{version}/models/gemini:{rest.rpartition(':')[2]}"
        name = "models/" + rest.rpartition(":")[0]
        body = json.loads(json.dumps(body).replace(json.dumps(name), '"models/gemini"'))
    else:
        body = {**body, "model": kind}
    before = len(asker.upstream.seen)
    kept = ("anthropic-version", "anthropic-beta", "openai-beta", "user-agent", "x-stainless-timeout")
    # What is long was cut when it was captured, with a mark that no header can hold.
    sent_then = {name.lower(): value for name, value in request["headers"].items()}
    headers = {name: sent_then[name] for name in kept if name in sent_then and sent_then[name].isascii()}
    async with asker.relay.client.post(asker.relay.url + path + query, json=body, headers=headers) as response:
        data = await response.read()
    assert response.status == 200, (request["file"], path, data[:300])
    assert len(asker.upstream.seen) == before + 1
    sent = dict(asker.last.json)
    sent.pop("stream_options", None)
    wanted = {name: value for name, value in body.items() if name != "stream_options"}
    if kind == "gemini":
        wanted = json.loads(json.dumps(wanted).replace('"models/gemini"', '"models/gemini-3-flash"'))
    else:
        wanted["model"] = sent["model"]
    assert sent == wanted, request["file"]
    return kind
