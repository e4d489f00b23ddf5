"""The routes as OpenAPI: where they are, what a request needs at least, and what every refusal looks like.

The vendors' own schemas say more of what a request may hold. What stands here is what the relay itself demands; it
accepts all else that a dialect knows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from relay.manager import Plugins
from relay.version import __version__

__all__ = ["document", "openapi"]

TEXT = {"type": "string"}
SOME = {"type": "integer", "minimum": 1, "maximum": 100_000}
TEMPERATURE = {"type": "number", "minimum": 0, "maximum": 1}


def array(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


def shape(*required: str, **properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties}


def said(*roles: str) -> dict[str, Any]:
    return shape("role", "content", role={"enum": list(roles)}, content={**TEXT, "minLength": 1})


MODEL = {"type": "string", "minLength": 1, "examples": ["demo-echo"]}
PARTS = shape("parts", role={"enum": ["user", "model"]}, parts=array(shape("text", text=TEXT)))
CONTENTS = {"contents": array(PARTS)}
TURNS = {"model": MODEL, "messages": array(said("user", "assistant"))}
STREAM = {"type": "boolean"}
BODIES: Mapping[tuple[str, str], dict[str, Any]] = {
    ("openai-chat", "generate"): shape(
        *("model", "messages"),
        model=MODEL,
        messages=array(said("system", "user", "assistant")),
        stream=STREAM,
        max_tokens=SOME,
        temperature=TEMPERATURE,
        tools=array(shape("type", "function", type={"const": "function"}, function=shape("name", name=MODEL))),
    ),
    ("openai-responses", "generate"): shape(
        "model", "input", model=MODEL, input=TEXT, stream=STREAM, max_output_tokens=SOME, temperature=TEMPERATURE
    ),
    ("openai-completions", "generate"): shape(
        "model", "prompt", model=MODEL, prompt=TEXT, stream=STREAM, max_tokens=SOME, temperature=TEMPERATURE
    ),
    ("openai-embeddings", "embeddings"): shape("model", "input", model=MODEL, input={**TEXT, "minLength": 1}),
    ("anthropic-messages", "generate"): shape(
        "model", "messages", "max_tokens", **TURNS, stream=STREAM, max_tokens=SOME, system=TEXT, temperature=TEMPERATURE
    ),
    ("anthropic-messages", "count_tokens"): shape("model", "messages", **TURNS),
    ("gemini", "generate"): shape(
        "contents",
        **CONTENTS,
        systemInstruction=PARTS,
        generationConfig=shape(maxOutputTokens=SOME, temperature=TEMPERATURE),
    ),
    ("gemini", "count_tokens"): shape("contents", **CONTENTS),
    ("gemini", "embeddings"): shape(content=PARTS, requests=array(shape("content", content=PARTS))),
}
"""What a request holds, by dialect and operation."""

ERROR = shape(
    "error",
    error=shape(
        *("type", "code", "message", "param"), type=TEXT, code=TEXT, message=TEXT, param={"type": ["string", "null"]}
    ),
)
ERRORS: Mapping[str, dict[str, Any]] = {
    "anthropic-messages": shape(
        *("type", "error", "request_id"),
        type={"const": "error"},
        error=shape("type", "message", type=TEXT, message=TEXT),
        request_id=TEXT,
    ),
    "gemini": shape(
        "error", error=shape("code", "message", "status", code={"type": "integer"}, message=TEXT, status=TEXT)
    ),
}
"""The envelope of errors in dialects that have one of their own."""
NOT_HTTP = frozenset({"socket"})
"""Operations that cannot be told in OpenAPI."""
UNROUTED = ("404", "405")
"""Statuses that may also mean that the path is nobody's, and so not of the dialect either."""
PLAIN = ("/healthz", "/readyz")


def openapi(plugins: Plugins) -> dict[str, Any]:
    """The document."""
    paths: dict[str, dict[str, Any]] = {}
    for name, dialect in plugins.dialects.items():
        for route in dialect.routes:
            if route.operation in NOT_HTTP:
                continue
            answer = dialect.stream_type if route.operation == "generate" else None
            for place in places(route.path):
                paths.setdefault(place, {})[route.method.lower()] = operation(
                    place, ERRORS.get(name, ERROR), BODIES.get((name, route.operation)), answer
                )
    for prefix in ("/v1", ""):
        for place in (f"{prefix}/models", f"{prefix}/models/{{id}}"):
            # Which of the envelopes it is depends on which dialect claims the request.
            paths.setdefault(place, {})["get"] = operation(place, {"anyOf": [ERROR, *ERRORS.values()]}, None, None)
    for place in PLAIN:
        paths[place] = {"get": {**operation(place, ERROR, None, None), "security": []}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "i8Relay", "version": __version__},
        "paths": dict(sorted(paths.items())),
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}],
    }


def places(path: str) -> list[str]:
    """A route's path once for each of the words that it lists, with names only where clients are free."""
    match = re.search(r"\{\w+:([\w|]+)\}", path)
    if match is None:
        return [re.sub(r"\{(\w+):[^}]*\}", r"{\1}", path)]
    return [found for word in match[1].split("|") for found in places(path.replace(match[0], word, 1))]


def operation(place: str, error: dict[str, Any], body: dict[str, Any] | None, stream: str | None) -> dict[str, Any]:
    """One method of one path."""
    kinds = ["application/json", *([stream, "application/x-ndjson"] if stream else [])]
    found: dict[str, Any] = {
        "responses": {
            "200": {"description": "the answer", "content": {kind: {} for kind in kinds}},
            **{status: _refusal({"anyOf": [error, ERROR]}) for status in UNROUTED},
            "default": _refusal(error),
        }
    }
    if names := re.findall(r"\{(\w+)\}", place):
        found["parameters"] = [{"name": name, "in": "path", "required": True, "schema": MODEL} for name in names]
    if body is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return found


def _refusal(schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": "why not", "content": {"application/json": {"schema": schema}}}


def document(plugins: Plugins) -> str:
    """The document as text."""
    return json.dumps(openapi(plugins), indent=1) + "\n"
