"""What the core must know of a caller's request before any translation, read from the body without the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from relay.errors import BadParameter
from relay.fields import items, obj
from relay.kit import estimate_tokens
from relay.outline import DATA, MANY, TEXT, WORD, Field, Texts
from relay_gemini.foreign import LABEL
from relay_gemini.names import message, several, whole

__all__ = ["TEXTS", "check_contents", "estimate_contents", "estimate_input", "has_functions", "limits_of"]

_MEDIA_TOKENS: Mapping[str, int] = {"image": 1100, "audio": 1000, "video": 3000}
"""Tokens that media count for in an estimate: the usual size of each. Its data says nothing about its tokens."""
_DOCUMENT_TOKENS = 2000
_TURN_TOKENS = 4
"""What a turn costs beside its text."""
_PART = (
    Field(b"text", TEXT),
    *(Field(name, WORD) for name in (b"thought", b"thoughtSignature", b"thought_signature")),
    *(Field(name, DATA, (), _TURN_TOKENS) for name in (b"functionCall", b"function_call")),
    # What else answers hold is no text.
    *(Field(name, DATA, (b"parts",), _TURN_TOKENS) for name in (b"functionResponse", b"function_response")),
)
TEXTS = Texts(
    (b"contents", b"systemInstruction", b"system_instruction"),
    (b"text",),
    (b"data", b"thoughtSignature", b"thought_signature"),
    (b"tools",),
    (LABEL.encode(),),
    items=(b"contents",),
    plain=(Field(b"role", WORD), Field(b"parts", MANY, _PART)),
)
"""What is left out of a long body: texts that `estimate_input` would count all the same, and what it never counts."""


def check_contents(fields: Mapping[str, Any]) -> None:
    """The contents are objects; what is in them is looked at only in translation."""
    if fields.get("contents") is None:
        raise BadParameter("contents is missing", param="contents")
    contents = items(fields["contents"], "contents")
    if not contents:
        raise BadParameter("contents must not be empty", param="contents")
    for place, content in enumerate(contents):
        if type(content) is not dict:
            obj(content, f"contents[{place}]")


def limits_of(fields: Mapping[str, Any]) -> tuple[int | None, int]:
    """Output tokens that the caller allows for each candidate, if it says, and the number of candidates."""
    given = fields.get("generationConfig")
    if given is None:
        return None, 1
    config = message(given, "generationConfig")
    most, count = config.get("maxOutputTokens"), config.get("candidateCount")
    if most is not None:
        most = _positive(most, "generationConfig.maxOutputTokens")
    return most, 1 if count is None else _positive(count, "generationConfig.candidateCount")


def _positive(value: Any, path: str) -> int:
    found = whole(value, path)
    if not 1 <= found < 2**31:
        raise BadParameter(f"{path} must be between 1 and {2**31 - 1}", param=path)
    return found


def has_functions(fields: Mapping[str, Any]) -> bool:
    """Whether there are functions to call. Tools must be objects."""
    given = fields.get("tools")
    tools = [] if given is None else several(given, "tools")
    found = [message(tool, f"tools[{place}]").get("functionDeclarations") for place, tool in enumerate(tools)]
    return any(found)


def estimate_input(fields: Mapping[str, Any], tools: bytes | None = None) -> int:
    """Tokens of the prompt, roughly: its text, a flat number for each piece of media, and the tools' definitions, which
    are `tools` if somebody has written them already."""
    total = _content(fields.get("systemInstruction")) + _TURN_TOKENS * len(fields["contents"])
    total += estimate_contents(fields["contents"])
    if fields.get("tools"):
        total += len(orjson.dumps(fields["tools"]) if tools is None else tools) // 4
    config = fields.get("generationConfig")
    for name in _SCHEMAS:
        if isinstance(config, dict) and config.get(name):
            total += len(orjson.dumps(config[name])) // 4
    return total


def estimate_contents(contents: Iterable[Any]) -> int:
    """Tokens of contents alone, roughly."""
    total = 0
    for content in contents:
        # An empty one was counted when it was left out.
        if content:
            total += _content(content)
    return total


_SCHEMAS = ("responseSchema", "response_schema", "responseJsonSchema", "response_json_schema")


def _content(content: Any) -> int:
    """The parts of a content, of a list of them, or of what may stand for one."""
    if type(content) is dict and "parts" in content:
        content = content["parts"]
    if type(content) is not list:
        return _part(content)
    total = 0
    for part in content:
        total += _part(part)
    return total


def _part(part: Any) -> int:
    if type(part) is str:
        return estimate_tokens(part)
    if type(part) is not dict:
        return 0
    words = part.get("text")
    if type(words) is str:
        return estimate_tokens(words)
    for name, value in part.items():
        if type(value) is not dict:
            continue
        if name in _DATA:
            kind = str(value.get("mimeType") or value.get("mime_type"))
            return _MEDIA_TOKENS.get(kind.partition("/")[0], _DOCUMENT_TOKENS)
        media = value.get("parts")
        if type(media) is list:
            # The pictures in a tool's answer.
            return _part({"answer": {**value, "parts": None}}) + estimate_contents(media)
        return _TURN_TOKENS + len(orjson.dumps(value)) // 4
    return 0


_DATA = frozenset(("inlineData", "inline_data", "fileData", "file_data"))
