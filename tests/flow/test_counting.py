"""How many tokens a request has: asked of the upstream that can tell, whoever its clients are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.flow.conftest import STEADY, Start
from tests.flow.fake import FakeUpstream, http
from tests.promises.asking import FOUR, PARTS, Asker, asking

TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {"a": {"type": "string"}}}}
PATHS = {"messages": "/v1/messages/count_tokens", "gemini": "/v1beta/models/{model}:countTokens"}
NUMBERS = {"messages": "input_tokens", "gemini": "totalTokens"}


@pytest.fixture
async def asker(start: Start, upstream: FakeUpstream) -> Asker:
    upstream.answer = lambda seen: http({"totalTokens": 321} if "countTokens" in seen.path else {"input_tokens": 123})
    return Asker(await start(STEADY + FOUR.replace("{url}", upstream.url)), upstream)


async def counted(asker: Asker, kind: str, model: str, body: Any = None) -> tuple[int, str]:
    """The number, and who found it."""
    path = PATHS[kind].replace("{model}", model)
    status, headers, data = await asker.send(path, body or asking(kind, model)[1])
    assert status == 200, data
    return json.loads(data)[NUMBERS[kind]], headers["x-relay-token-count"]


async def test_a_client_of_messages_has_geminis_count(asker: Asker) -> None:
    body = {**asking("messages", "gemini")[1], "system": "Be brief.", "tools": [TOOL]}
    assert await counted(asker, "messages", "gemini", body) == (321, "upstream")
    assert asker.last.path == "/v1beta/models/gemini-3-flash:countTokens"
    inner = asker.last.json["generateContentRequest"]
    assert inner["model"] == "models/gemini-3-flash"
    assert inner["contents"] == PARTS
    assert inner["systemInstruction"]["parts"] == [{"text": "Be brief."}]
    assert inner["tools"][0]["functionDeclarations"][0]["name"] == "f"
    row = await asker.relay.row()
    assert (row.operation, row.outcome, row.usage, row.cost) == ("count_tokens", "ok", None, 0)


async def test_a_client_of_gemini_has_the_count_of_messages(asker: Asker) -> None:
    assert await counted(asker, "gemini", "messages") == (123, "upstream")
    assert asker.last.path == "/v1/messages/count_tokens"
    # The vendor refuses every field but those that it counts.
    assert set(asker.last.json) == {"model", "messages"}


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("model", ["chat", "responses"])
async def test_where_nobody_can_tell_the_relay_estimates_and_says_so(asker: Asker, kind: str, model: str) -> None:
    count, source = await counted(asker, kind, model)
    assert (count > 0, source) == (True, "estimate")
    assert not asker.upstream.seen


@pytest.mark.parametrize(
    "script",
    [
        http({"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}, 429),
        http({"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}, 400),
        http(b"<html>", 404, content_type="text/html"),
        http({"totalTokens": 0}),
        http({"totalTokens": "many"}),
        http(b"nonsense"),
        ["fin"],
    ],
)
async def test_a_count_that_fails_is_an_estimate_and_never_nothing(asker: Asker, script: Any) -> None:
    asker.upstream.answer = lambda seen: script
    count, source = await counted(asker, "messages", "gemini")
    assert (count > 0, source) == (True, "estimate")


async def test_a_request_that_could_not_be_sent_is_counted_by_nobody(asker: Asker) -> None:
    body = {**asking("messages", "gemini")[1], "messages": [{"role": "user", "content": [{"type": "text"}]}]}
    status, _, data = await asker.send(PATHS["messages"], body)
    assert (status, json.loads(data)["error"]["type"]) == (400, "invalid_request_error")
    assert not asker.upstream.seen


async def test_strict_keys_have_counts_of_what_would_be_refused(start: Start, upstream: FakeUpstream) -> None:
    """Strict keys are told of losses where something is sent, and nothing is sent here."""
    upstream.answer = lambda seen: http({"totalTokens": 321})
    asker = Asker(await start(STEADY + FOUR.replace("{url}", upstream.url), key={"strict": True}), upstream)
    body = {**asking("messages", "gemini")[1], "tools": [TOOL, {"type": "web_search_20250305", "name": "web_search"}]}
    assert await counted(asker, "messages", "gemini", body) == (321, "upstream")
