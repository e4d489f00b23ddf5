"""A turn of a coding agent, in each dialect: the same tools as ever, and a conversation that has grown long."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["body", "tools"]

TOOLS, STEPS = 18, 20
LINE = "The function reads each line of the file and returns what it found, or nothing where the line is empty.\n"
RULES, TASK = LINE * 120, LINE * 4
RESULT = f"{LINE * 15}\x1b[32mpassed\x1b[0m\n"
"""As programs print it for a terminal."""
ABOUT = LINE * 8
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        **{f"path_{number}": {"type": "string", "description": f"{LINE}Path {number}."} for number in range(5)},
        "limit": {"type": "integer", "minimum": 0},
        "mode": {"type": "string", "enum": ["plain", "quick", "whole"]},
    },
    "required": ["path_0"],
    "additionalProperties": False,
}
MOST = 400
"""Tokens that the answer may have."""


def name(number: int) -> str:
    """A tool's."""
    return f"tool_{number % TOOLS}"


def arguments(step: int) -> dict[str, Any]:
    """Of the call of that step."""
    return {"path_0": "src/main.py", "limit": step}


def call_id(step: int) -> str:
    """As long and as odd as those of vendors."""
    return f"call_{step:02d}XqT7bVnKc9mWzRfYp3Ls"


def chat() -> dict[str, Any]:
    """Chat Completions."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": RULES}, {"role": "user", "content": TASK}]
    for step in range(STEPS):
        function = {"name": name(step), "arguments": json.dumps(arguments(step))}
        call = {"id": call_id(step), "type": "function", "function": function}
        messages.append({"role": "assistant", "content": LINE, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": call_id(step), "content": RESULT})
    return {"messages": messages, "max_tokens": MOST}


def responses() -> dict[str, Any]:
    """Responses."""
    items: list[dict[str, Any]] = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": TASK}]}
    ]
    for step in range(STEPS):
        items.append({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": LINE}]})
        call = {"call_id": call_id(step), "name": name(step), "arguments": json.dumps(arguments(step))}
        items.append({"type": "function_call", **call})
        items.append({"type": "function_call_output", "call_id": call_id(step), "output": RESULT})
    return {"instructions": RULES, "input": items, "max_output_tokens": MOST, "store": False}


def messages() -> dict[str, Any]:
    """Messages."""
    turns: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": TASK}]}]
    for step in range(STEPS):
        call = {"type": "tool_use", "id": call_id(step), "name": name(step), "input": arguments(step)}
        turns.append({"role": "assistant", "content": [{"type": "text", "text": LINE}, call]})
        result = {"tool_use_id": call_id(step), "content": [{"type": "text", "text": RESULT}]}
        turns.append({"role": "user", "content": [{"type": "tool_result", **result}]})
    system = [{"type": "text", "text": RULES, "cache_control": {"type": "ephemeral"}}]
    return {"system": system, "messages": turns, "max_tokens": MOST}


def gemini() -> dict[str, Any]:
    """The Gemini API, which has no ids."""
    contents: list[dict[str, Any]] = [{"role": "user", "parts": [{"text": TASK}]}]
    for step in range(STEPS):
        call = {"name": name(step), "args": arguments(step)}
        contents.append({"role": "model", "parts": [{"text": LINE}, {"functionCall": call}]})
        result = {"name": name(step), "response": {"output": RESULT}}
        contents.append({"role": "user", "parts": [{"functionResponse": result}]})
    return {
        "systemInstruction": {"parts": [{"text": RULES}]},
        "contents": contents,
        "generationConfig": {"maxOutputTokens": MOST},
    }


TURNS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "openai-chat": chat,
    "openai-responses": responses,
    "anthropic-messages": messages,
    "gemini": gemini,
}


DEFINED: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "openai-chat": lambda about: {"type": "function", "function": {**about, "parameters": SCHEMA}},
    "openai-responses": lambda about: {"type": "function", **about, "parameters": SCHEMA, "strict": False},
    "anthropic-messages": lambda about: {**about, "input_schema": SCHEMA},
    "gemini": lambda about: {**about, "parametersJsonSchema": SCHEMA},
}


def tools(dialect: str, names: Iterable[str]) -> list[dict[str, Any]]:
    """Definitions of tools that are all alike."""
    defined = [DEFINED[dialect]({"name": one, "description": ABOUT}) for one in names]
    return [{"functionDeclarations": defined}] if dialect == "gemini" else defined


def body(dialect: str, model: str) -> bytes:
    """The request, 87 KB of it, as official clients write it."""
    asked = {**TURNS[dialect](), "tools": tools(dialect, map(name, range(TOOLS)))}
    if dialect != "gemini":
        asked = {"model": model, **asked}
    return json.dumps(asked, separators=(",", ":")).encode()
