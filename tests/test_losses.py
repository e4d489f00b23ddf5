"""Every loss is declared, and every declared one happens: in translation, on the way back, and at strict keys."""

from __future__ import annotations

import ast
import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay import Head, Target, Upstream
from relay.errors import RelayError, Unsupported
from relay.fold import unfold
from relay.ir import (
    Capacity,
    Choice,
    Citation,
    EmbeddingRequest,
    Loss,
    LossKind,
    Media,
    Message,
    Opaque,
    Refusal,
    Request,
    Response,
    StopReason,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from relay.lost import ANSWER_LOSSES, answer_losses, declared_answer_losses
from relay.manager import Plugins
from tests.conftest import missing, shared_folder

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

from provoked import REQUESTS, TARGETS, provoked  # noqa: E402 - the path comes first

PLUGINS = Plugins.load()
FAMILIES = {name: bound.family for name, bound in PLUGINS.families.items()}
WHOLE = {name: dialect for name, dialect in PLUGINS.dialects.items() if name != "openai-embeddings"}


# Declarations.


@pytest.mark.parametrize("file", sorted((ROOT / "providers").rglob("*.py")), ids=lambda file: file.stem)
def test_plugins_make_no_loss_that_is_not_declared(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "Loss", f"{file}:{node.lineno} makes a loss past its declaration"


@pytest.mark.parametrize("family", FAMILIES)
def test_declarations_have_names_of_their_own_and_say_when(family: str) -> None:
    kinds = FAMILIES[family].losses
    assert kinds
    assert len({kind.id for kind in kinds}) == len(kinds)
    assert all(kind.field and kind.reason and kind.when for kind in kinds)


def test_a_kind_fills_in_what_is_known_when_it_happens() -> None:
    kind = LossKind("tools", "tools[{place}]", "no {type!r} here", "always", hint=True)
    loss = kind.at(place=2, type="{odd}")
    assert (str(loss), loss.hint, loss.kind) == ("tools[2]: no '{odd}' here", True, kind)
    assert not Loss("a", "b").hint
    assert Loss("a", "b") == LossKind("x", "a", "b", "always").at()


# Requests.

TURN = Message("user", [Text("Hi")])
RAN = Message("assistant", [ToolCall("1", "search", "{}", server=True), ToolResult("1", [Text("found")]), Text("So.")])
"""No format of a client brings these in a form that the hub knows; a plugin's dialect may."""


def made(family: str, request: Request, **upstream: Any) -> list[Loss]:
    losses: list[Loss] = []
    target = Target(Upstream("up", family, "https://up.test", **upstream), "m")
    PLUGINS.families[family].translate_request(request, target, losses)
    return losses


def embedded(family: str) -> list[Loss]:
    losses: list[Loss] = []
    upstream = Upstream("up", family, "https://up.test", dialects=FAMILIES[family].dialects)
    request = EmbeddingRequest("m", ["Hi"], purpose="query", title="A title", extra={"elsewhere": {"odd": 1}})
    PLUGINS.families[family].translate_embedding_request(request, Target(upstream, "m"), losses)
    return losses


BESIDE: dict[str, list[Loss]] = {
    "openai": [
        *made("openai", Request("m", [TURN, RAN, TURN])),
        *made("openai", Request("m", [TURN, RAN, TURN]), dialects=frozenset(("openai-responses",))),
        *embedded("openai"),
    ],
    "anthropic": made("anthropic", Request("m", [TURN, RAN, TURN])),
    "bedrock": made("bedrock", Request("m", [TURN, RAN, TURN])),
    "gemini": [*made("gemini", Request("m", [TURN, RAN, TURN])), *embedded("gemini")],
    "demo": embedded("demo"),
}
"""What only requests of other kinds lose."""


def reported(family: str) -> list[Loss]:
    return [*(loss for dialect in REQUESTS for loss in provoked(dialect, family)), *BESIDE[family]]


@pytest.mark.parametrize("family", TARGETS)
def test_whatever_a_request_loses_is_declared(family: str) -> None:
    undeclared = [loss for loss in reported(family) if loss.kind not in FAMILIES[family].losses]
    assert not undeclared


@pytest.mark.parametrize("family", TARGETS)
def test_every_declared_loss_of_a_request_happens(family: str) -> None:
    happened = {loss.kind for loss in reported(family)}
    assert not [kind.id for kind in FAMILIES[family].losses if kind not in happened]


def test_every_family_is_there() -> None:
    """`local` translates with the code of `openai`, and declares the same."""
    assert {*TARGETS, "local"} == {name for name, family in FAMILIES.items() if family.losses}
    assert set(FAMILIES["local"].losses) <= set(FAMILIES["openai"].losses)
    assert not set(FAMILIES) - {*TARGETS, "local"}


# Answers.


def answer(*parts: Any, stop: StopReason | None = None, **fields: Any) -> Response:
    return Response("r", "m", [Choice(list(parts), stop or StopReason("stop"), **fields)])


TWO = Response("r", "m", [Choice([Text("A")], StopReason("stop")), Choice([Text("B")], StopReason("stop"))])
ANSWERS: dict[str, Response] = {
    "answer.choices": TWO,
    "answer.logprobs": answer(Text("A"), logprobs=[{"token": "A", "logprob": -0.1}]),
    "answer.thinking": answer(Thinking("Hm.", dialect="elsewhere"), Text("A")),
    "answer.citations": answer(Text("A", citations=[Citation()])),
    "answer.server_tools": answer(ToolCall("1", "search", "{}", server=True), Text("A")),
    "answer.blocks": answer(Opaque("elsewhere", {"type": "odd"})),
    "answer.media": answer(Media("video", "video/mp4")),
    "answer.refusal": answer(Refusal("No.")),
    "answer.stop": answer(Text("A"), stop=StopReason("other", "tired")),
    "answer.sequence": answer(Text("A"), stop=StopReason("stop", "stop_sequence", "END")),
    "answer.signatures": answer(ToolCall("1", "look", "{}", extra={"elsewhere": {"thoughtSignature": "abc"}})),
    "answer.fields": answer(Text("A"), extra={"elsewhere": {"details": {"why": "so"}}}),
}
"""One for each, by its id."""


def test_there_is_an_answer_for_every_declared_loss() -> None:
    assert ANSWERS.keys() == {kind.id for kind in ANSWER_LOSSES}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("dialect", WHOLE)
def test_an_answer_loses_what_is_declared_and_nothing_else(dialect: str, name: str) -> None:
    capacity = WHOLE[dialect].capacity
    declared = {kind.id for kind in declared_answer_losses(capacity)}
    found = answer_losses(unfold(ANSWERS[name]), dialect, capacity)
    assert [loss.kind.id for loss in found if loss.kind] == ([name] if name in declared else [])


def test_a_dialect_of_which_nothing_is_said_has_room_for_all_but_what_others_own() -> None:
    kinds = declared_answer_losses(Capacity())
    assert [kind.id for kind in kinds] == ["answer.blocks", "answer.signatures", "answer.fields"]
    own = answer(
        Opaque("own", {}),
        Text("A", extra={"own": {"signature": "abc"}}),
        extra={"own": {"details": 1}},
    )
    assert not answer_losses(unfold(own), "own", Capacity())


def test_what_tools_of_the_upstream_answered_goes_with_their_calls() -> None:
    found = answer_losses(
        unfold(answer(ToolResult("1", [Text("found")]))), "openai-chat", WHOLE["openai-chat"].capacity
    )
    assert [loss.field for loss in found] == ["server tools"]


@pytest.mark.parametrize("dialect", ["anthropic-messages", "gemini"])
def test_a_vendors_own_words_for_an_odd_end_stay(dialect: str) -> None:
    words = {"anthropic-messages": "pause_turn", "gemini": "LANGUAGE"}
    found = answer_losses(
        unfold(answer(Text("A"), stop=StopReason("other", words[dialect]))), dialect, WHOLE[dialect].capacity
    )
    assert not found


# Real clients with strict keys.

CLIENTS = {"claude": "anthropic-messages", "codex": "openai-responses", "gemini": "gemini"}
MODELS = {"openai": "gpt-5.1", "anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-flash"}
ELSEWHERE = {"messages.thinking"}
"""Their conversations were not held through a relay, so what their vendor's model thought is no upstream's of ours."""


def captured(client: str) -> Iterator[Any]:
    file = shared_folder() / "captures" / f"{client}.jsonl.gz"
    if not file.is_file():
        missing(f"no captured requests in {file}", "I8RELAY_REQUIRE_SHARED")
    dialect = PLUGINS.dialects[CLIENTS[client]]
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for entry in map(json.loads, lines):
            path = {"model": "m", **({"stream": "s"} if "streamGenerate" in entry["path"] else {})}
            if entry["method"] != "POST" or not entry["path"].endswith(("/messages", "/responses", "Content")):
                continue
            try:
                head = dialect.peek(json.dumps(entry["body"]).encode(), "generate", path, {})
                yield dialect.parse(head)
            except Unsupported:
                continue


def mattering(request: Request, family: str) -> set[str]:
    upstream = Upstream("up", family, "https://up.test", dialects=FAMILIES[family].usual_dialects or frozenset())
    losses: list[Loss] = []
    PLUGINS.families[family].translate_request(request, Target(upstream, MODELS[family]), losses)
    return {loss.kind.id if loss.kind else loss.field for loss in losses if not loss.hint} - ELSEWHERE


@pytest.mark.shared
@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("client", CLIENTS)
def test_what_real_clients_send_loses_hints_only(client: str, family: str) -> None:
    if CLIENTS[client] in (FAMILIES[family].usual_dialects or FAMILIES[family].dialects):
        pytest.skip("passes through")
    seen = 0
    for request in captured(client):
        if client == "codex":
            # It offers its vendor's search unless that is switched off, which a strict key is right to refuse.
            assert mattering(request, family) <= {"tools.type"}
            request.tools = [tool for tool in request.tools if not isinstance(tool, Opaque)]
        assert not mattering(request, family)
        seen += 1
    assert seen >= 5


def test_what_is_refused_anyway_is_no_loss() -> None:
    with pytest.raises(RelayError):
        made("anthropic", Request("m", [Message("user", [Media("video", url="https://x.test/a.mp4")])]))


@pytest.mark.parametrize("call", [ToolCall("c1", "f", "{}"), ToolCall("c1", "f", '{"a":"b"}')], ids=["empty", "full"])
@pytest.mark.parametrize("name", [name for name, dialect in WHOLE.items() if dialect.call_words])
def test_an_answer_that_calls_a_tool_has_one_of_its_dialects_words_for_that(name: str, call: ToolCall) -> None:
    dialect = WHOLE[name]
    body = dialect.encode_response(answer(call), Head("generate", "m", b"{}", {}))
    assert any(word in body for word in dialect.call_words)
    assert not any(
        word in dialect.encode_response(answer(Text("A")), Head("generate", "m", b"{}", {}))
        for word in dialect.call_words
    )


def test_every_dialect_with_tools_has_words_for_calls() -> None:
    assert {name for name, dialect in WHOLE.items() if dialect.call_words} >= {
        name for name, dialect in WHOLE.items() if dialect.tool_fields
    }
