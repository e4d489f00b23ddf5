"""Requests that lose something on their way, written for that: from them the page about losses is made.

Each is what a client of a dialect could send. All are translated for every kind of target; what is reported then is
what callers of that dialect can lose there. `tests/test_losses.py` demands that no declared loss is missing, and that
nothing is reported that is not declared.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from relay import Dialect, Target, errors
from relay.discovery import upstream_of
from relay.ir import Loss, LossKind
from relay.lost import declared_answer_losses
from relay.manager import Plugins

__all__ = ["REQUESTS", "TARGETS", "UNSIGNED", "answers_block", "pairs_block", "provoked", "requests_block"]

Body = Mapping[str, Any]

SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def _chat(**fields: Any) -> Body:
    return {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}


def _turns(*turns: Body, **fields: Any) -> Body:
    return _chat(messages=[{"role": "user", "content": "Hi"}, *turns], **fields)


def _picture(detail: str) -> Body:
    return {"type": "image_url", "image_url": {"url": PIXEL, "detail": detail}}


CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
FUNCTION = {"type": "function", "function": {"name": "look", "parameters": SCHEMA}}
ANSWER = {"role": "tool", "tool_call_id": "call_1", "content": "blue"}
PLAN = {"type": "file", "file": {"filename": "plan.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}}

CHAT: tuple[Body, ...] = (
    _chat(messages=[{"role": "system", "content": "Go."}]),
    _turns({"role": "assistant", "content": "Yes?"}, {"role": "system", "content": "Be brief."}),
    _chat(messages=[{"role": "user", "content": "Hi", "name": "ann"}]),
    _turns({"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}, {"role": "user", "content": "So?"}),
    _turns(
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{**CALL, "function": {"name": "look", "arguments": "?"}}],
        },
        ANSWER,
    ),
    _chat(messages=[{"role": "user", "content": [{"type": "sticker", "sticker": 7}, {"type": "text", "text": "Hi"}]}]),
    _chat(messages=[{"role": "system", "content": [_picture("auto")]}, {"role": "user", "content": "Hi"}]),
    _turns(
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {**ANSWER, "content": [{"type": "sticker", "sticker": 7}]},
    ),
    _chat(messages=[{"role": "user", "content": [_picture("low"), _picture("high")]}]),
    _turns({"role": "assistant", "content": [_picture("auto")]}, {"role": "user", "content": "What is it?"}),
    _chat(tools=[{"type": "custom", "custom": {"name": "patch"}}, FUNCTION], parallel_tool_calls=False),
    _chat(response_format={"type": "json_object"}),
    _chat(response_format={"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}),
    _chat(top_k=5, reasoning_effort="high"),
    _chat(seed=7, logprobs=True, top_logprobs=3, frequency_penalty=0.5, presence_penalty=0.5, top_k=5),
    _chat(stop=["\n"]),
    _chat(stop=["a", "b", "c", "d", "e", "f"]),
    _chat(temperature=1.5),
    _chat(temperature=0.5, top_p=0.5),
    _chat(temperature=0.5, reasoning_effort="high"),
    _chat(reasoning_effort="xhigh"),
    _chat(reasoning_effort="none"),
    _chat(reasoning_effort="max"),
    _chat(reasoning={"enabled": False}),
    _chat(reasoning={"max_tokens": 4000}),
    _chat(reasoning={"max_tokens": 100_000}),
    _chat(reasoning_effort="high", max_tokens=1000),
    _chat(reasoning_effort="high", max_tokens=4000),
    _chat(reasoning_effort="high", tools=[FUNCTION], tool_choice="required"),
    _turns({"role": "assistant", "content": None, "tool_calls": [CALL]}, ANSWER, reasoning_effort="high"),
    _chat(logit_bias={"1": 1}, user="ann"),
    _chat(user="a" * 300),
    _chat(messages=[{"role": "user", "content": [PLAN, {"type": "text", "text": "Hi"}]}]),
    _turns({"role": "assistant", "content": None, "tool_calls": [CALL]}, ANSWER, tools=[FUNCTION], tool_choice="none"),
    _chat(verbosity="low", service_tier="flex"),
    _chat(
        messages=[{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}]
    ),
)


def _row(*items: Body, **fields: Any) -> Body:
    return {"model": "m", "input": [{"role": "user", "content": "Hi"}, *items], **fields}


CITED = {
    "type": "output_text",
    "text": "It is blue.",
    "annotations": [{"type": "url_citation", "url": "https://x.test"}],
}

UNSIGNED = "relay.1." + base64.urlsafe_b64encode(b'{"dialect":"anthropic-messages"}').decode()
ELSEWHERE = "relay.1." + base64.urlsafe_b64encode(b'{"dialect":"bedrock-converse"}').decode()

RESPONSES: tuple[Body, ...] = (
    _row({"role": "assistant", "content": [CITED]}, {"role": "user", "content": "So?"}),
    _row({"type": "reasoning", "summary": [], "encrypted_content": "abc"}, {"role": "user", "content": "So?"}),
    # What the relay once wrote for another vendor's reasoning, without the signature that belongs to it.
    _row({"type": "reasoning", "summary": [], "encrypted_content": UNSIGNED}, {"role": "user", "content": "So?"}),
    _row({"type": "reasoning", "summary": [], "encrypted_content": ELSEWHERE}, {"role": "user", "content": "So?"}),
    _row({"type": "web_search_call", "id": "ws_1", "status": "completed"}, {"role": "user", "content": "So?"}),
    _row({"role": "developer", "content": "Be brief."}),
    _row(
        {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"},
        {
            "type": "function_call_output",
            "call_id": "call_1",
            "output": [{"type": "input_image", "image_url": PIXEL}, {"type": "input_sticker"}],
        },
    ),
    _row(tools=[{"type": "web_search"}], parallel_tool_calls=False),
    _row(
        tools=[
            {
                "type": "custom",
                "name": "patch",
                "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
            }
        ]
    ),
    _row(text={"verbosity": "low"}, truncation="auto"),
    _row(include=["message.output_text.logprobs"], top_logprobs=3, temperature=0.5),
    _row(reasoning={"effort": "xhigh"}),
)


def _messages(*turns: Body, **fields: Any) -> Body:
    return {"model": "m", "max_tokens": 20_000, "messages": [{"role": "user", "content": "Hi"}, *turns], **fields}


def _said(*blocks: Body) -> tuple[Body, Body]:
    return {"role": "assistant", "content": list(blocks)}, {"role": "user", "content": "So?"}


USED = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}

MESSAGES: tuple[Body, ...] = (
    _messages(system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]),
    _messages(*_said({"type": "thinking", "thinking": "Hm.", "signature": "abc"}, {"type": "text", "text": "Yes."})),
    _messages(*_said({"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {}})),
    _messages(*_said({"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}})),
    _messages(
        {"role": "assistant", "content": [USED]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "none", "is_error": True}],
        },
    ),
    _messages({"role": "assistant", "content": "Yes?"}, {"role": "system", "content": "Be brief."}),
    _messages(tools=[{"type": "web_search_20250305", "name": "web_search"}]),
    _messages(
        tools=[{"name": "look", "input_schema": SCHEMA}],
        tool_choice={"type": "auto", "disable_parallel_tool_use": True},
    ),
    _messages(top_k=5, temperature=0.5, stop_sequences=["\n", "END"]),
    _messages(thinking={"type": "enabled", "budget_tokens": 4000}),
    _messages(thinking={"type": "disabled"}),
    _messages(thinking={"type": "adaptive"}, output_config={"effort": "max"}),
    _messages(context_management={"edits": [{"type": "clear_tool_uses_20250919"}]}),
    _messages(metadata={"user_id": "ann"}, output_config={"format": {"type": "json_schema", "schema": SCHEMA}}),
    _messages(mcp_servers=[{"type": "url", "url": "https://x.test", "name": "x"}]),
)


def _contents(*contents: Body, **fields: Any) -> Body:
    return {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}, *contents], **fields}


def _replied(*parts: Body) -> tuple[Body, Body]:
    return {"role": "model", "parts": list(parts)}, {"role": "user", "parts": [{"text": "So?"}]}


GEMINI: tuple[Body, ...] = (
    _contents(*_replied({"text": "Hm.", "thought": True}, {"text": "Yes."})),
    _contents(*_replied({"executableCode": {"language": "PYTHON", "code": "1"}}, {"text": "Yes."})),
    _contents(*_replied({"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}})),
    _contents(tools=[{"googleSearch": {}}]),
    _contents(
        generationConfig={"topK": 5, "temperature": 1.5, "seed": 7, "frequencyPenalty": 0.5, "presencePenalty": 0.5}
    ),
    _contents(generationConfig={"responseMimeType": "application/json"}),
    _contents(generationConfig={"responseLogprobs": True, "logprobs": 3, "stopSequences": ["\n", "END"]}),
    _contents(generationConfig={"temperature": 0.5, "topP": 0.5}),
    _contents(generationConfig={"thinkingConfig": {"includeThoughts": True, "thinkingBudget": 4000}}),
    _contents(generationConfig={"thinkingConfig": {"thinkingBudget": 0}}),
    _contents(generationConfig={"thinkingConfig": {"thinkingLevel": "high"}, "temperature": 0.5}),
    _contents(safetySettings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]),
)

REQUESTS: Mapping[str, tuple[Body, ...]] = {
    "openai-chat": CHAT,
    "openai-responses": RESPONSES,
    "anthropic-messages": MESSAGES,
    "gemini": GEMINI,
}
"""By dialect. Where the model stands in the path, it is `m` as well."""

TARGETS: Mapping[str, tuple[tuple[str, Mapping[str, Any], frozenset[str]], ...]] = {
    "openai": (
        ("gpt-4.1", {}, frozenset(("openai-chat",))),
        ("o3", {}, frozenset(("openai-chat",))),
        ("gpt-5.1", {}, frozenset(("openai-chat",))),
        ("m", {"json_schema": False, "drop": ["user"]}, frozenset(("openai-chat",))),
        ("m", {"reasoning": "thinking"}, frozenset(("openai-chat",))),
        ("gpt-4.1", {}, frozenset(("openai-responses",))),
        ("o3", {}, frozenset(("openai-responses",))),
    ),
    "anthropic": tuple(
        (model, {}, frozenset(("anthropic-messages",)))
        for model in ("claude-3-5-haiku-latest", "claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-5")
    ),
    "gemini": tuple(
        (model, {}, frozenset(("gemini",)))
        for model in ("gemini-2.0-flash", "gemini-2.5-flash", "gemini-2.5-pro", "gemini-3-pro-preview")
    ),
    "bedrock": tuple(
        (model, {}, frozenset())
        for model in (
            "anthropic.claude-3-haiku-20240307-v1:0",
            "eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "global.anthropic.claude-opus-5",
            "us.amazon.nova-2-lite-v1:0",
            "us.meta.llama4-maverick-17b-instruct-v1:0",
            "openai.gpt-oss-120b-1:0",
        )
    ),
    "demo": (("demo-echo", {}, frozenset()),),
}
"""By family: model, options of the upstream, and the dialects that it speaks."""


@functools.cache
def _plugins() -> Plugins:
    return Plugins.load()


def _targets(family: str) -> Iterator[Target]:
    from dataclasses import replace

    bound = _plugins().families[family].family
    for model, options, dialects in TARGETS[family]:
        upstream = upstream_of(bound, bound.hosts[0], "key", {})
        yield Target(replace(upstream, options=options, dialects=dialects), model)


def _losses(dialect: Dialect, body: Body, family: str, target: Target) -> list[Loss]:
    """What this request loses there; nothing where the target speaks the dialect, or where it is refused."""
    if dialect.name in target.upstream.dialects:
        return []
    losses: list[Loss] = []
    try:
        head = dialect.peek(json.dumps(body).encode(), "generate", {"model": "m"}, {})
        _plugins().families[family].translate_request(dialect.parse(head), target, losses)
    except errors.RelayError:
        # A request that is refused loses nothing; what it would have lost is another request's to show.
        return []
    return losses


@functools.cache
def provoked(dialect: str, family: str) -> Mapping[Loss, LossKind | None]:
    """All that requests of a dialect lose at targets of a family, with the declarations."""
    speaks = _plugins().dialects[dialect]
    found: dict[Loss, LossKind | None] = {}
    for target in _targets(family):
        for body in REQUESTS[dialect]:
            found.update((loss, loss.kind) for loss in _losses(speaks, body, family, target))
    return found


# The blocks of the page.


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def _strict(kind: LossKind) -> str:
    return "passes" if kind.hint else "refuses"


def _shown(template: str) -> str:
    """A template for a reader: what is filled in stands as its name."""
    return template.replace("!r}", "}").replace(":g}", "}").replace("{", "*").replace("}", "*")


def _families() -> Iterator[tuple[str, list[LossKind]]]:
    for name in TARGETS:
        yield name, list(_plugins().families[name].family.losses)


def requests_block() -> str:
    """What requests lose, by family."""
    parts = []
    for name, kinds in _families():
        rows = [(f"`{kind.id}`", _shown(kind.when), _shown(kind.reason), _strict(kind)) for kind in kinds]
        parts.append(f"### To `{name}`\n\n" + _table(("Loss", "When", "What is reported", "A strict key"), rows))
    return "\n\n".join(parts)


def answers_block() -> str:
    """What answers lose, by dialect."""
    kinds = list(dict.fromkeys(kind for _, found in _answers() for kind in found))
    names = [name for name, _ in _answers()]
    known = dict(_answers())
    rows = [
        (f"`{kind.id}`", kind.when, _shown(kind.reason), *("lost" if kind in known[name] else "" for name in names))
        for kind in kinds
    ]
    return _table(("Loss", "When", "What is reported", *(f"`{name}`" for name in names)), rows)


def _answers() -> list[tuple[str, list[LossKind]]]:
    dialects = _plugins().dialects
    return [(name, declared_answer_losses(dialects[name].capacity)) for name in (*REQUESTS, "openai-completions")]


def pairs_block() -> str:
    """Which of the declared losses requests of each dialect can make at each family."""
    rows = []
    for dialect in REQUESTS:
        for family, kinds in _families():
            made = {kind.id for kind in provoked(dialect, family).values() if kind is not None}
            refused = ", ".join(f"`{kind.id}`" for kind in kinds if kind.id in made and not kind.hint)
            passed = ", ".join(f"`{kind.id}`" for kind in kinds if kind.id in made and kind.hint)
            rows.append((f"`{dialect}`", f"`{family}`", refused, passed))
    return _table(("Clients of", "Upstreams of", "What matters", "Hints"), rows)
