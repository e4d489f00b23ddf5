"""Every request that was seen of a real client is accepted, goes to its own vendor unchanged, and fits the others."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

import relay_gemini
from relay import Target, Upstream
from relay.ir import Loss, Opaque, Request, Text, Thinking, Tool, ToolCall, ToolResult
from relay_anthropic.dialect import AnthropicMessages
from relay_anthropic.request import body_of
from relay_openai.compose import compose_request
from tests.conftest import missing, shared_folder

pytestmark = pytest.mark.shared

DIALECT = AnthropicMessages()
OPERATIONS = {"messages": "generate", "count_tokens": "count_tokens"}


def target(family: str) -> Target:
    return Target(Upstream("up", family, "https://upstream.test"), "upstream-model")


def captured() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted((shared_folder() / "captures").glob("*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                entry = json.loads(line)
                if entry["method"] == "POST" and entry["path"].startswith("/v1/messages"):
                    yield f"{file.name} {entry['file']}", entry


@pytest.fixture(scope="module")
def entries() -> list[tuple[str, dict[str, Any]]]:
    found = list(captured())
    if not found:
        missing("no captured requests", "I8RELAY_REQUIRE_SHARED")
    return found


def heads(entries: list[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, dict[str, Any], Any]]:
    for name, entry in entries:
        raw = json.dumps(entry["body"], ensure_ascii=False).encode()
        operation = OPERATIONS[entry["path"].rsplit("/", 1)[1]]
        # What the recorder shortened, it marked with a sign that no header can hold.
        headers = {key.lower(): value.partition("\u2026")[0] for key, value in entry["headers"].items()}
        yield name, entry, DIALECT.peek(raw, operation, {}, headers)


def test_all_are_accepted_and_go_to_their_own_vendor_unchanged(entries: list[tuple[str, dict[str, Any]]]) -> None:
    for name, entry, head in heads(entries):
        body = entry["body"]
        assert head.model == body["model"], name
        assert head.stream is bool(body.get("stream")), name
        assert head.headers.keys() <= {"anthropic-version", "anthropic-beta"}, name
        assert head.headers["anthropic-version"], name
        sent = DIALECT.forward(head, target("anthropic")).body
        wanted = head.raw.replace(b'"model": ' + json.dumps(body["model"]).encode(), b'"model": "upstream-model"', 1)
        assert sent == wanted, name
    assert len(entries) >= 100


def words_of(request: Request) -> list[str]:
    """All that a model is told, in order."""
    words: list[str] = []
    for message in request.messages:
        for part in message.parts:
            if isinstance(part, Text):
                words.append(part.text)
            elif isinstance(part, Thinking):
                words.append(part.text + (part.signature or ""))
            elif isinstance(part, ToolCall):
                words.append(f"{part.id} {part.name} {json.loads(part.arguments)}")
            elif isinstance(part, ToolResult):
                inner = "".join(piece.text for piece in part.parts if isinstance(piece, Text))
                words.append(f"{part.call_id} {part.is_error} {inner}")
    return words


def naive_words(body: dict[str, Any]) -> list[str]:
    words: list[str] = []
    for content in [body.get("system"), *(message["content"] for message in body["messages"])]:
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content or ():
            match block["type"]:
                case "text":
                    words.append(block["text"])
                case "thinking":
                    words.append(block["thinking"] + block["signature"])
                case "tool_use":
                    words.append(f"{block['id']} {block['name']} {block['input']}")
                case "tool_result":
                    inner = block["content"]
                    if not isinstance(inner, str):
                        inner = "".join(piece["text"] for piece in inner)
                    words.append(f"{block['tool_use_id']} {block.get('is_error', False)} {inner}")
    return words


def test_all_are_understood(entries: list[tuple[str, dict[str, Any]]]) -> None:
    for name, entry, head in heads(entries):
        body, request = entry["body"], DIALECT.parse(head)
        assert words_of(request) == naive_words(body), name
        defined = [tool["name"] for tool in body.get("tools", ())]
        assert list(request.tool_names()) == defined, name
        assert request.sampling.max_tokens == body.get("max_tokens"), name
        assert len(request.user or "") <= 64, name


def test_all_can_be_written_for_every_family(entries: list[tuple[str, dict[str, Any]]]) -> None:
    for name, entry, head in heads(entries):
        request = DIALECT.parse(head)
        known = {block for loss in losses_of(request) for block in [loss.field]}
        assert known <= {"thinking", "context_management", "safeguards"}, name
        again = json.loads(body_of(request, target("anthropic"), []))
        assert [tool["name"] for tool in again.get("tools", ())] == [t["name"] for t in entry["body"].get("tools", ())]
        gemini = json.loads(relay_gemini.translate_request(request, target("gemini"), []))
        assert gemini["contents"], name


def losses_of(request: Request) -> list[Loss]:
    """What a target without anything of this vendor's own would lose of the request itself."""
    losses: list[Loss] = []
    chat = json.loads(compose_request(request, target("openai"), losses))
    assert chat["messages"]
    own = request.own("anthropic-messages")
    assert not any(isinstance(tool, Opaque) for tool in request.tools)
    assert all(isinstance(tool, Tool) for tool in request.tools)
    return [loss for loss in losses if loss.field in own]
