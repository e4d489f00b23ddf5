"""Messages of `openai-chat` requests to the hub's turns, one each.

A tool's answer is a user turn that holds a `ToolResult`. Calls and answers of the interface before tools have no ids:
they get made-up ones, by which they find each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from relay.errors import BadParameter
from relay.fields import fault, items, obj, rest, text, word
from relay.ir import Message, Part, Refusal, Text, Thinking, ToolCall, ToolResult
from relay_openai.content import cache_of, parse_content
from relay_openai.custom import arguments_of
from relay_openai.wire import DIALECT, RELAY_FORMAT, own_extra

__all__ = ["REASONING_FIELDS", "parse_messages"]

REASONING_FIELDS = ("reasoning_content", "reasoning", "reasoning_details")


class _Legacy:
    """Ids for `function_call`s, which are answered in the order in which they were made."""

    def __init__(self) -> None:
        self.count = 0
        self.open: dict[str, list[str]] = {}

    def call(self, name: str) -> str:
        self.count += 1
        made = f"call_legacy_{self.count}"
        self.open.setdefault(name, []).append(made)
        return made

    def answer(self, name: str) -> str:
        waiting = self.open.get(name)
        return waiting.pop(0) if waiting else self.call(name)


def parse_messages(values: list[Any]) -> list[Message]:
    """All turns. Raises BadParameter with the path of the first fault."""
    if not values:
        raise BadParameter("messages must not be empty", param="messages")
    legacy = _Legacy()
    messages = []
    for place, value in enumerate(values):
        path = f"messages[{place}]"
        fields = obj(value, path)
        read = _ROLES.get(text(fields.get("role"), f"{path}.role"))
        if read is None:
            known = ", ".join(_ROLES)
            raise BadParameter(f"{path}.role must be one of {known}", param=f"{path}.role")
        messages.append(read(fields, path, legacy))
    return messages


def _named(fields: Mapping[str, Any], path: str) -> str | None:
    name = fields.get("name")
    return None if name is None else text(name, f"{path}.name")


def _required(fields: Mapping[str, Any], path: str) -> list[Part]:
    """The content of a turn that makes no sense without any."""
    if fields.get("content") is None:
        raise BadParameter(f"{path}.content is missing", param=f"{path}.content")
    return parse_content(fields["content"], f"{path}.content")


def _mark(parts: list[Part], fields: Mapping[str, Any], path: str) -> None:
    """A cache marker on the message counts for its last part."""
    marker = cache_of(fields, path)
    if marker is not None and parts and parts[-1].cache is None:
        parts[-1].cache = marker


_PLAIN = frozenset(("role", "content", "name"))


def _system(fields: dict[str, Any], path: str, legacy: _Legacy) -> Message:
    parts = _required(fields, path)
    _mark(parts, fields, path)
    own = rest(fields, _PLAIN)
    if fields["role"] != "system":
        own["role"] = fields["role"]
    return Message("system", parts, _named(fields, path), own_extra(own))


def _user(fields: dict[str, Any], path: str, legacy: _Legacy) -> Message:
    parts = _required(fields, path)
    _mark(parts, fields, path)
    return Message("user", parts, _named(fields, path), own_extra(rest(fields, _PLAIN)))


_ASSISTANT = _PLAIN | {"refusal", "tool_calls", "function_call", *REASONING_FIELDS}


def _assistant(fields: dict[str, Any], path: str, legacy: _Legacy) -> Message:
    parts: list[Part] = _reasoning(fields, path)
    content = fields.get("content")
    if content != "":
        parts.extend(parse_content(content, f"{path}.content"))
    refusal = fields.get("refusal")
    if refusal is not None:
        parts.append(Refusal(text(refusal, f"{path}.refusal")))
    if fields.get("tool_calls") is not None:
        for place, value in enumerate(items(fields["tool_calls"], f"{path}.tool_calls")):
            parts.append(_call(value, f"{path}.tool_calls[{place}]"))
    elif fields.get("function_call") is not None:
        where = f"{path}.function_call"
        inner = obj(fields["function_call"], where)
        name = word(inner.get("name"), f"{where}.name")
        parts.append(ToolCall(legacy.call(name), name, text(inner.get("arguments"), f"{where}.arguments")))
    elif content is None and not parts and "audio" not in fields:
        raise BadParameter(f"{path}.content is missing, and so are tool_calls", param=f"{path}.content")
    _mark(parts, fields, path)
    return Message("assistant", parts, _named(fields, path), own_extra(rest(fields, _ASSISTANT)))


def _call(value: Any, path: str) -> ToolCall:
    fields = obj(value, path)
    kind = fields.get("type")
    if kind is not None and kind not in ("function", "custom"):
        raise BadParameter(f"{path}.type must be function or custom", param=f"{path}.type")
    name = word(fields.get("id"), f"{path}.id")
    known = frozenset(("id", "type", "function", "custom", "cache_control"))
    own = rest(fields, known)
    if kind == "custom":
        inner = obj(fields.get("custom"), f"{path}.custom")
        own["type"] = "custom"
        arguments = arguments_of(text(inner.get("input"), f"{path}.custom.input"))
        where = f"{path}.custom.name"
    else:
        inner = obj(fields.get("function"), f"{path}.function")
        arguments = text(inner.get("arguments", ""), f"{path}.function.arguments")
        where = f"{path}.function.name"
    call = ToolCall(name, word(inner.get("name"), where), arguments, extra=own_extra(own))
    call.cache = cache_of(fields, path)
    return call


def _reasoning(fields: Mapping[str, Any], path: str) -> list[Part]:
    """Reasoning that the client gives back.

    Entries that the relay wrote for another dialect become that dialect's blocks again, signature and all. Anything
    else belongs to a host of this dialect and goes back in the fields in which it came.
    """
    given = {key: fields[key] for key in REASONING_FIELDS if fields.get(key) is not None}
    if not given:
        return []
    shown = ""
    for key in ("reasoning", "reasoning_content"):
        if key in given:
            shown = text(given[key], f"{path}.{key}") or shown
    details = items(given.get("reasoning_details", []), f"{path}.reasoning_details")
    ours = [block for block in map(_relayed, details) if block is not None]
    if ours:
        return list(ours)
    if not shown:
        pieces = [detail.get("text") or detail.get("summary") for detail in details if isinstance(detail, dict)]
        shown = "".join(piece for piece in pieces if isinstance(piece, str))
    return [Thinking(shown, dialect=DIALECT, extra={DIALECT: given})]


def _relayed(detail: Any) -> Thinking | None:
    """The block of another dialect that `thinking_details` wrote into this entry; None if it did not."""
    form = detail.get("format") if isinstance(detail, dict) else None
    if not isinstance(form, str) or not form.startswith(RELAY_FORMAT):
        return None
    dialect = form.removeprefix(RELAY_FORMAT)
    if detail.get("type") == "reasoning.encrypted" and isinstance(detail.get("data"), str):
        return Thinking("", detail["data"], redacted=True, dialect=dialect)
    shown, signature = detail.get("text"), detail.get("signature")
    if isinstance(shown, str) and isinstance(signature, str):
        return Thinking(shown, signature, dialect=dialect)
    return None


_TOOL = frozenset(("role", "content", "tool_call_id", "cache_control"))


def _tool(fields: dict[str, Any], path: str, legacy: _Legacy) -> Message:
    result = ToolResult(
        call_id=word(fields.get("tool_call_id"), f"{path}.tool_call_id"),
        parts=parse_content(fields.get("content"), f"{path}.content"),
        name=_named(fields, path),
        extra=own_extra(rest(fields, _TOOL)),
    )
    result.cache = cache_of(fields, path)
    return Message("user", [result])


def _function(fields: dict[str, Any], path: str, legacy: _Legacy) -> Message:
    name = word(fields.get("name"), f"{path}.name")
    content = fields.get("content")
    if content is not None and not isinstance(content, str):
        fault(f"{path}.content", "a string", content)
    return Message("user", [ToolResult(legacy.answer(name), [Text(content or "")], name=name)])


_ROLES: Mapping[str, Callable[[dict[str, Any], str, _Legacy], Message]] = {
    "system": _system,
    "developer": _system,
    "user": _user,
    "assistant": _assistant,
    "tool": _tool,
    "function": _function,
}
