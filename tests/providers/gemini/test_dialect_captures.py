"""Every request that was seen of a real client is accepted, goes to its own vendor unchanged, and fits the others."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from relay import Head, Target, Upstream
from relay.ir import Loss, Message, Request, Text, Thinking, ToolCall, ToolResult
from relay_anthropic.request import body_of
from relay_gemini.dialect import GenerateContent
from relay_openai.compose import compose_request
from tests.conftest import missing, shared_folder

pytestmark = pytest.mark.shared

DIALECT = GenerateContent()
OPERATIONS = {"countTokens": "count_tokens"}


def target(family: str) -> Target:
    return Target(Upstream("up", family, "https://upstream.test"), "upstream-model")


def captured() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted((shared_folder() / "captures").glob("*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                entry = json.loads(line)
                if entry["method"] == "POST" and "/models/" in entry["path"] and "mbedContent" not in entry["path"]:
                    yield f"{file.name} {entry['file']}", entry


@pytest.fixture(scope="module")
def heads() -> list[tuple[str, dict[str, Any], Head]]:
    found = []
    for name, entry in captured():
        raw = json.dumps(entry["body"], ensure_ascii=False).encode()
        place, _, verb = entry["path"].rpartition(":")
        path = {"collection": "models", "model": place.rpartition("/models/")[2], **entry["query"]}
        if verb == "streamGenerateContent":
            path["stream"] = verb
        found.append((name, entry, DIALECT.peek(raw, OPERATIONS.get(verb, "generate"), path, entry["headers"])))
    if not found:
        missing("no captured requests", "I8RELAY_REQUIRE_SHARED")
    return found


def test_all_are_accepted_and_go_to_their_own_vendor_unchanged(heads: list[tuple[str, dict[str, Any], Head]]) -> None:
    for name, entry, head in heads:
        assert head.model == entry["path"].rpartition("/models/")[2].partition(":")[0], name
        assert head.stream is ("stream" in entry["path"]), name
        # All streams that were seen ask for events.
        assert (head.headers, head.stream_type) == ({}, ""), name
        forward = DIALECT.forward(head, target("gemini"))
        assert (forward.body, forward.losses) == (head.raw, []), name
    assert len(heads) >= 50


def words_of(request: Request) -> list[str]:
    """All that a model is told, in order."""
    words: list[str] = []
    names: dict[str, str] = {}
    for turn in request.messages:
        for part in turn.parts:
            if isinstance(part, Text | Thinking):
                words.append(f"{type(part).__name__} {part.text}")
            elif isinstance(part, ToolCall):
                names[part.id] = part.name
                words.append(f"{part.name} {json.loads(part.arguments)}")
            elif isinstance(part, ToolResult):
                assert names[part.call_id] == part.name
                words.append(f"{part.name} " + "".join(one.text for one in part.parts if isinstance(one, Text)))
    return words


def naive_words(body: dict[str, Any]) -> list[str]:
    words: list[str] = []
    for content in [body.get("systemInstruction") or {}, *body["contents"]]:
        for part in content.get("parts") or ():
            if "text" in part:
                words.append(f"{'Thinking' if part.get('thought') else 'Text'} {part['text']}")
            elif "functionCall" in part:
                words.append(f"{part['functionCall']['name']} {part['functionCall'].get('args', {})}")
            elif "functionResponse" in part:
                answer = part["functionResponse"]["response"]
                plain = [answer[name] for name in ("output", "result", "error") if answer.keys() == {name}]
                said = plain[0] if plain and isinstance(plain[0], str) else json.dumps(answer, separators=(",", ":"))
                words.append(f"{part['functionResponse']['name']} {said}")
    return words


def test_all_are_understood(heads: list[tuple[str, dict[str, Any], Head]]) -> None:
    for name, entry, head in heads:
        body, request = entry["body"], DIALECT.parse(head)
        assert words_of(request) == naive_words(body), name
        defined = [
            function["name"] for tool in body.get("tools") or () for function in tool.get("functionDeclarations") or ()
        ]
        assert list(request.tool_names()) == defined, name
        assert [tool.name for _, tool in DIALECT.tools(head)] == defined, name
        assert request.sampling.max_tokens == (body.get("generationConfig") or {}).get("maxOutputTokens"), name


def test_all_can_be_written_for_every_family(heads: list[tuple[str, dict[str, Any], Head]]) -> None:
    for name, _, head in heads:
        for write in (compose_request, body_of):
            losses: list[Loss] = []
            request = DIALECT.parse(head)
            sent = json.loads(write(request, target("any"), losses))
            assert sent["messages"], name
            fields = {loss.field.rpartition("].")[2] for loss in losses}
            assert fields <= {"reasoning_content", "toolConfig", "thinking", "top_k", "temperature", "top_p"}, name


def test_what_a_model_said_in_a_row_is_one_turn(heads: list[tuple[str, dict[str, Any], Head]]) -> None:
    for name, _, head in heads:
        turns: list[Message] = DIALECT.parse(head).messages
        assert not [1 for a, b in pairwise(turns) if a.role == b.role == "assistant"], name
