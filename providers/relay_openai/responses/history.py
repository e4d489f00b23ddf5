"""Items of a request's `input` to the hub's turns.

This format has no turns: reasoning, calls, their outputs and messages stand in one row. Whatever the model said between
two things that it was told is one turn of it, so that reasoning stays with the call that it led to; only a message that
follows a message begins a new one. Outputs that follow each other are one turn of the user's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from relay.errors import BadParameter, Unsupported
from relay.fields import items, obj, rest, text, word
from relay.ir import Message, Opaque, Part, Role, Text, ToolCall, ToolResult
from relay.kit import dumps
from relay_openai.custom import arguments_of
from relay_openai.responses.content import parse_content
from relay_openai.responses.sealed import unseal
from relay_openai.responses.toolbox import SEARCH, flat_name
from relay_openai.responses.wire import DIALECT, own_extra

__all__ = ["parse_input", "shown_reasoning"]


class _Turns:
    """The turns of a conversation while its items are read."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.names: dict[str, str] = {}
        """Names of the functions by the id of their call: outputs do not repeat them."""

    def tell(self, role: Role, parts: list[Part], extra: Any = None) -> None:
        """A turn of its own."""
        self.messages.append(Message(role, parts, extra=extra))

    def said(self, part: Part) -> None:
        """Something else the model said or did."""
        if not self.messages or self.messages[-1].role != "assistant":
            self.tell("assistant", [])
        self.messages[-1].parts.append(part)

    def answered(self, result: ToolResult) -> None:
        """What a tool answered."""
        result.name = self.names.get(result.call_id)
        last = self.messages[-1] if self.messages else None
        if last is None or last.role != "user" or not all(isinstance(part, ToolResult) for part in last.parts):
            self.tell("user", [])
        self.messages[-1].parts.append(result)


def parse_input(value: Any) -> list[Message]:
    """All turns.

    Raises BadParameter with the path of the first fault, Unsupported for what only the vendor can find.
    """
    if isinstance(value, str):
        return [Message("user", [Text(value)])]
    turns = _Turns()
    for place, item in enumerate(items(value, "input")):
        path = f"input[{place}]"
        fields = obj(item, path)
        kind = fields.get("type")
        if kind is None:
            # Messages may leave it out, and references to stored items too.
            kind = "message" if "role" in fields else "item_reference"
        read = _KINDS.get(text(kind, f"{path}.type"), _opaque)
        read(turns, fields, path)
    if not turns.messages:
        raise BadParameter("input must not be empty", param="input")
    return turns.messages


# The fields of each that the hub has names for.
_SAID = frozenset(("type", "role", "content"))
_CALLED = frozenset(("type", "call_id", "name", "arguments"))
_CUSTOM = frozenset(("type", "call_id", "name", "input"))
_SEARCHED = frozenset(("type", "call_id", "arguments"))
_ANSWERED = frozenset(("type", "call_id", "output"))


def _message(turns: _Turns, fields: dict[str, Any], path: str) -> None:
    role = text(fields.get("role"), f"{path}.role")
    if role not in _ROLES:
        raise BadParameter(f"{path}.role must be one of {', '.join(_ROLES)}", param=f"{path}.role")
    if fields.get("content") is None:
        raise BadParameter(f"{path}.content is missing", param=f"{path}.content")
    parts = parse_content(fields["content"], f"{path}.content")
    own = rest(fields, _SAID)
    if role != "assistant":
        if role == "developer":
            own["role"] = role
        turns.tell(_ROLES[role], parts, own_extra(own))
        return
    last = turns.messages[-1] if turns.messages else None
    if last is not None and last.role == "assistant":
        texts = any(isinstance(part, Text) for part in last.parts)
        if not texts or any(isinstance(part, ToolCall) for part in last.parts):
            # Behind a call there must be nothing but its answer, so this message stays with the call.
            last.parts.extend(parts)
            last.extra = last.extra or own_extra(own)
            return
    turns.tell("assistant", parts, own_extra(own))


_ROLES: Mapping[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def _reasoning(turns: _Turns, fields: dict[str, Any], path: str) -> None:
    for name in ("summary", "content"):
        if fields.get(name) is not None:
            for place, entry in enumerate(items(fields[name], f"{path}.{name}")):
                where = f"{path}.{name}[{place}]"
                text(obj(entry, where).get("text"), f"{where}.text")
    turns.said(unseal(fields, shown_reasoning(fields)))


def shown_reasoning(item: Mapping[str, Any]) -> str:
    """The text of a reasoning item: its summary, and then the reasoning itself where that is shown."""
    found = []
    for name in ("summary", "content"):
        entries = item.get(name)
        for entry in entries if isinstance(entries, list) else ():
            shown = entry.get("text") if isinstance(entry, dict) else None
            if isinstance(shown, str) and shown:
                found.append(shown)
    return "\n\n".join(found)


def _function_call(turns: _Turns, fields: dict[str, Any], path: str) -> None:
    name = flat_name(fields.get("namespace"), word(fields.get("name"), f"{path}.name"))
    _call(turns, fields, path, name, text(fields.get("arguments"), f"{path}.arguments"), rest(fields, _CALLED))


def _custom_call(turns: _Turns, fields: dict[str, Any], path: str) -> None:
    name = flat_name(fields.get("namespace"), word(fields.get("name"), f"{path}.name"))
    arguments = arguments_of(text(fields.get("input"), f"{path}.input"))
    own = {"type": "custom", **rest(fields, _CUSTOM)}
    _call(turns, fields, path, name, arguments, own)


def _search_call(turns: _Turns, fields: dict[str, Any], path: str) -> None:
    if fields.get("execution") != "client" or fields.get("call_id") is None:
        _opaque(turns, fields, path)
        return
    arguments = fields.get("arguments")
    shown = arguments if isinstance(arguments, str) else dumps(arguments or {}).decode("utf-8")
    _call(turns, fields, path, SEARCH, shown, {"type": SEARCH, **rest(fields, _SEARCHED)})


def _call(turns: _Turns, fields: Mapping[str, Any], path: str, name: str, arguments: str, own: dict[str, Any]) -> None:
    call_id = word(fields.get("call_id"), f"{path}.call_id")
    turns.names[call_id] = name
    turns.said(ToolCall(call_id, name, arguments, extra=own_extra(own)))


def _output(turns: _Turns, fields: dict[str, Any], path: str) -> None:
    call_id = word(fields.get("call_id"), f"{path}.call_id")
    if fields.get("output") is None:
        raise BadParameter(f"{path}.output is missing", param=f"{path}.output")
    parts = parse_content(fields["output"], f"{path}.output")
    turns.answered(ToolResult(call_id, parts, extra=own_extra(rest(fields, _ANSWERED))))


def _search_output(turns: _Turns, fields: dict[str, Any], path: str) -> None:
    call_id = fields.get("call_id")
    if fields.get("execution") != "client" or call_id is None:
        _opaque(turns, fields, path)
        return
    found = dumps(items(fields.get("tools"), f"{path}.tools")).decode("utf-8")
    turns.answered(ToolResult(word(call_id, f"{path}.call_id"), [Text(found)]))


def _additional_tools(turns: _Turns, fields: dict[str, Any], path: str) -> None:
    """Tools that became known on the way: they are offered like all others (`toolbox.defined`)."""


def _reference(turns: _Turns, fields: dict[str, Any], path: str) -> None:
    name = word(fields.get("id"), f"{path}.id")
    if name.startswith("rs_"):
        # Reasoning alone can be missing: the conversation is still the same.
        turns.said(Opaque(DIALECT, fields))
        return
    raise Unsupported(
        f"{path} refers to the item {name!r} by its id, which only the vendor that stored it can read; "
        "send the item itself",
        param=path,
    )


def _opaque(turns: _Turns, fields: dict[str, Any], path: str) -> None:
    turns.said(Opaque(DIALECT, fields))


_KINDS: Mapping[str, Callable[[_Turns, dict[str, Any], str], None]] = {
    "message": _message,
    "reasoning": _reasoning,
    "function_call": _function_call,
    "function_call_output": _output,
    "custom_tool_call": _custom_call,
    "custom_tool_call_output": _output,
    "tool_search_call": _search_call,
    "tool_search_output": _search_output,
    "additional_tools": _additional_tools,
    "item_reference": _reference,
}
"""Kinds of items that the hub has a place for. All others are the vendor's own and stay whole."""
