"""Requests of `openai-responses` clients to the hub: every field checked, every fault named by its path.

A field whose value is null means the same as one that is absent. What the hub has no place for stays in
`extra["openai-responses"]` as it came. Refused is only what makes the request meaningless without the vendor's own
storage: a stored prompt, a stored conversation, an answer in the background.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from relay.errors import BadParameter, Unsupported
from relay.fields import boolean, fault, integer, items, number, obj, text, word
from relay.ir import Message, Output, Reasoning, Request, Text, ToolChoice
from relay_openai.request import MAX_OUTPUT
from relay_openai.responses.history import parse_input
from relay_openai.responses.toolbox import SEARCH, defined, flat_name
from relay_openai.responses.wire import own_extra, own_fields

__all__ = ["parse_request"]

_Field = Callable[[Request, Any, dict[str, Any]], None]


def parse_request(data: Mapping[str, Any]) -> Request:
    """The request that `data` spells.

    Raises BadParameter with the path of the first fault, Unsupported as said above.
    """
    for name, why in _REFUSED.items():
        if data.get(name) not in (None, False):
            raise Unsupported(f"{name} {why}", param=name)
    if data.get("input") is None:
        raise BadParameter("input is missing", param="input")
    messages = parse_input(data["input"])
    instructions = data.get("instructions")
    if instructions is not None:
        messages.insert(0, Message("system", [Text(text(instructions, "instructions"))]))
    request = Request(model=word(data.get("model"), "model"), messages=messages)
    own: dict[str, Any] = {}
    for path, tool in defined(data):
        request.tools.append(tool)
        form = own_fields(tool.extra).get("format")
        if isinstance(form, dict) and "definition" in form:
            # The grammar is told to the model, which is all that a target can do with it.
            own[f"{path.rpartition('.')[0]}.format"] = form
    for name, value in data.items():
        if name in _READ_FIRST or name in _REFUSED or value is None:
            continue
        read = _FIELDS.get(name)
        if read is None:
            own[name] = value
        else:
            read(request, value, own)
    if not request.sampling.logprobs:
        # How many were to be shown, if any were.
        request.sampling.top_logprobs = None
    request.extra = own_extra(own)
    return request


_READ_FIRST = frozenset(("model", "input", "instructions", "tools"))
_REFUSED: Mapping[str, str] = {
    "previous_response_id": "names an answer that is not kept here; send the whole conversation",
    "conversation": "names a conversation that only the vendor which keeps it has; send the whole conversation",
    "prompt": "names a prompt that only the vendor which keeps it has; send its text",
    "background": "is not possible with this target: it answers while the caller waits",
}


def _sampling(name: str, read: Callable[[Any, str], Any], field: str = "") -> _Field:
    """A reader for a field that goes into `Sampling` as it is."""

    def field_reader(request: Request, value: Any, own: dict[str, Any]) -> None:
        setattr(request.sampling, field or name, read(value, name))

    return field_reader


def _limit(value: Any, path: str) -> int:
    return integer(value, path, 1, MAX_OUTPUT)


def _count(value: Any, path: str) -> int:
    return integer(value, path, 0, MAX_OUTPUT)


def _stream(request: Request, value: Any, own: dict[str, Any]) -> None:
    request.stream = boolean(value, "stream")


def _user(request: Request, value: Any, own: dict[str, Any]) -> None:
    request.user = text(value, "user")


def _safety(request: Request, value: Any, own: dict[str, Any]) -> None:
    """The newer name for the end user."""
    request.user = text(value, "safety_identifier")


def _parallel(request: Request, value: Any, own: dict[str, Any]) -> None:
    request.parallel_tools = boolean(value, "parallel_tool_calls")


def _include(request: Request, value: Any, own: dict[str, Any]) -> None:
    if "message.output_text.logprobs" in items(value, "include"):
        request.sampling.logprobs = True
    own["include"] = value


def _tool_choice(request: Request, value: Any, own: dict[str, Any]) -> None:
    path = "tool_choice"
    if isinstance(value, str):
        if value not in ("auto", "none", "required"):
            raise BadParameter("tool_choice must be auto, none, required or an object", param=path)
        request.tool_choice = ToolChoice(_MODES[value])
        return
    if not isinstance(value, dict):
        fault(path, "a string or an object", value)
    kind = text(value.get("type"), f"{path}.type")
    if kind in ("function", "custom"):
        name = word(value.get("name"), f"{path}.name")
        request.tool_choice = ToolChoice("tool", flat_name(value.get("namespace"), name))
        return
    if kind == SEARCH:
        request.tool_choice = ToolChoice("tool", SEARCH)
        return
    if kind == "allowed_tools":
        mode = value.get("mode", "auto")
        if mode not in ("auto", "required"):
            raise BadParameter("tool_choice.mode must be auto or required", param=f"{path}.mode")
        items(value.get("tools"), f"{path}.tools")
        request.tool_choice = ToolChoice(_MODES[mode])
    # One of the vendor's own tools, or some of several: nobody else can be told.
    own[path] = value


_MODES: Mapping[str, Any] = {"auto": "auto", "none": "none", "required": "required"}


def _text(request: Request, value: Any, own: dict[str, Any]) -> None:
    fields = obj(value, "text")
    rest = {key: item for key, item in fields.items() if key not in ("format", "verbosity") and item is not None}
    if fields.get("verbosity") is not None:
        own["verbosity"] = word(fields["verbosity"], "text.verbosity")
    if fields.get("format") is not None and not _format(request, obj(fields["format"], "text.format")):
        rest["format"] = fields["format"]
    if rest:
        own["text"] = rest


def _format(request: Request, form: dict[str, Any]) -> bool:
    """Whether the hub has this form of answer."""
    path = "text.format"
    kind = text(form.get("type"), f"{path}.type")
    if kind == "text":
        request.output = Output("text")
    elif kind == "json_object":
        request.output = Output("json")
    elif kind == "json_schema":
        strict, description = form.get("strict"), form.get("description")
        request.output = Output(
            "schema",
            schema=obj(form.get("schema"), f"{path}.schema"),
            name=word(form.get("name"), f"{path}.name"),
            description=None if description is None else text(description, f"{path}.description"),
            strict=None if strict is None else boolean(strict, f"{path}.strict"),
        )
    else:
        return False
    return True


def _reasoning(request: Request, value: Any, own: dict[str, Any]) -> None:
    fields = obj(value, "reasoning")
    effort = fields.get("effort")
    summary = fields.get("summary") or fields.get("generate_summary")
    if effort is not None or summary is not None:
        request.reasoning = Reasoning(
            effort=None if effort is None else word(effort, "reasoning.effort"),
            summary=None if summary is None else word(summary, "reasoning.summary"),
        )
    known = ("effort", "summary", "generate_summary", "context")
    # `context` says which of the reasoning given back may be read again; only the vendor's own can be.
    rest = {key: item for key, item in fields.items() if key not in known and item is not None}
    if rest:
        own["reasoning"] = rest


_FIELDS: Mapping[str, _Field] = {
    "stream": _stream,
    "user": _user,
    "safety_identifier": _safety,
    "max_output_tokens": _sampling("max_output_tokens", _limit, "max_tokens"),
    "temperature": _sampling("temperature", number),
    "top_p": _sampling("top_p", number),
    "top_logprobs": _sampling("top_logprobs", _count),
    "frequency_penalty": _sampling("frequency_penalty", number),
    "presence_penalty": _sampling("presence_penalty", number),
    "parallel_tool_calls": _parallel,
    "include": _include,
    "tool_choice": _tool_choice,
    "text": _text,
    "reasoning": _reasoning,
}
