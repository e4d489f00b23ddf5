"""Requests of this dialect's clients to the hub: every field checked, every fault named by its path.

Names may be spelled `inlineData` or `inline_data`; a field whose value is null means the same as one that is absent.
What the hub has no place for stays in `extra["gemini"]` under the vendor's name, on the request, the part or the tool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from relay.errors import BadParameter
from relay.fields import boolean, items, number, obj, text, word
from relay.ir import Extra, Media, Opaque, Output, Reasoning, Request, Tool, ToolChoice
from relay_gemini.names import message, rest_of, several, whole
from relay_gemini.schema import json_schema
from relay_gemini.stream import DIALECT
from relay_gemini.turns import TurnReader

__all__ = ["counted", "parse_request", "parse_tools"]


def counted(data: dict[str, Any]) -> dict[str, Any]:
    """The request whose tokens are to be counted, which may stand in a field of its own."""
    fields = message(data, "body")
    inner = fields.get("generateContentRequest")
    return fields if inner is None else message(inner, "generateContentRequest")


def parse_request(data: dict[str, Any], model: str, *, stream: bool) -> Request:
    """The request that `data` spells. Raises BadParameter with the path of the first fault."""
    fields = message(data, "body")
    reader = TurnReader()
    system, contents = fields.get("systemInstruction"), fields.get("contents")
    if contents is None:
        raise BadParameter("contents is missing", param="contents")
    request = Request(
        model=model,
        messages=[
            *([] if system is None else reader.system(system, "systemInstruction")),
            *reader.turns(contents, "contents"),
        ],
        stream=stream,
    )
    own: dict[str, Any] = {}
    for name, value in fields.items():
        if name in _READ_FIRST or value is None:
            continue
        read = _FIELDS.get(name)
        if read is None:
            own[name] = value
        else:
            read(request, value, own)
    _restrict(request, own)
    request.extra = {DIALECT: own} if own else None
    return request


_READ_FIRST = frozenset(("model", "contents", "systemInstruction"))
_Field = Callable[[Request, Any, dict[str, Any]], None]


# Tools.


def parse_tools(value: Any) -> Iterator[tuple[str, Tool | Opaque]]:
    """The functions of `tools`, each with the path of its schema, and what the vendor offers beside functions."""
    for place, item in enumerate(several(value, "tools")):
        path = f"tools[{place}]"
        fields = message(item, path)
        declared = fields.get("functionDeclarations")
        for number_, entry in enumerate(several(declared, f"{path}.functionDeclarations") if declared else ()):
            yield _function(entry, f"{path}.functionDeclarations[{number_}]")
        rest = rest_of(fields, "functionDeclarations")
        if rest:
            yield path, Opaque(DIALECT, rest)


def _function(value: Any, path: str) -> tuple[str, Tool]:
    fields = message(value, path)
    description, plain, own = (fields.get(name) for name in ("description", "parametersJsonSchema", "parameters"))
    where, schema = f"{path}.parametersJsonSchema", None
    if plain is not None:
        schema = obj(plain, where)
    elif own is not None:
        where = f"{path}.parameters"
        schema = json_schema(obj(own, where), where)
    rest = rest_of(fields, "name", "description", "parameters", "parametersJsonSchema")
    tool = Tool(
        name=word(fields.get("name"), f"{path}.name"),
        description=None if description is None else text(description, f"{path}.description"),
        parameters=schema,
        extra=_extra(rest),
    )
    return where, tool


def _extra(rest: dict[str, Any]) -> Extra | None:
    return {DIALECT: rest} if rest else None


def _tools(request: Request, value: Any, own: dict[str, Any]) -> None:
    request.tools = [tool for _, tool in parse_tools(value)]


_MODES: Mapping[str, Literal["auto", "none", "required"]] = {
    "AUTO": "auto",
    "ANY": "required",
    "NONE": "none",
    "VALIDATED": "auto",
}


def _tool_config(request: Request, value: Any, own: dict[str, Any]) -> None:
    path = "toolConfig"
    fields = message(value, path)
    rest = rest_of(fields, "functionCallingConfig")
    if fields.get("functionCallingConfig") is not None:
        path = f"{path}.functionCallingConfig"
        calling = message(fields["functionCallingConfig"], path)
        mode = calling.get("mode")
        if mode is not None and mode != "MODE_UNSPECIFIED":
            known = _MODES.get(text(mode, f"{path}.mode").upper())
            if known is None:
                raise BadParameter(f"{path}.mode must be one of {', '.join(_MODES)}", param=f"{path}.mode")
            request.tool_choice = ToolChoice(known)
        allowed = calling.get("allowedFunctionNames")
        if allowed:
            names = [
                word(name, f"{path}.allowedFunctionNames[{place}]")
                for place, name in enumerate(items(allowed, f"{path}.allowedFunctionNames"))
            ]
            if request.tool_choice == ToolChoice("required") and len(names) == 1:
                request.tool_choice = ToolChoice("tool", names[0])
            else:
                own[_ALLOWED] = names
        held = rest_of(calling, "mode", "allowedFunctionNames")
        if isinstance(mode, str) and mode.upper() == "VALIDATED":
            held["mode"] = mode
        if held:
            rest["functionCallingConfig"] = held
    if rest:
        own["toolConfig"] = rest


_ALLOWED = "allowedFunctionNames"


def _restrict(request: Request, own: dict[str, Any]) -> None:
    """Only some functions may be called: the others are as good as not there."""
    names = own.pop(_ALLOWED, None)
    if names is not None:
        request.tools = [tool for tool in request.tools if isinstance(tool, Opaque) or tool.name in names]


# Configuration.


def _sampling(name: str, read: Callable[[Any, str], Any]) -> _ConfigField:
    def field_reader(request: Request, value: Any, path: str, held: dict[str, Any]) -> None:
        setattr(request.sampling, name, read(value, path))

    return field_reader


def _stop(request: Request, value: Any, path: str, held: dict[str, Any]) -> None:
    sequences = [text(item, f"{path}[{place}]") for place, item in enumerate(items(value, path))]
    request.sampling.stop = sequences or None


def _media_type(request: Request, value: Any, path: str, held: dict[str, Any]) -> None:
    media_type = text(value, path)
    if media_type == "application/json":
        if request.output is None:
            request.output = Output("json")
    elif media_type not in ("", "text/plain"):
        held["responseMimeType"] = media_type


def _response_schema(request: Request, value: Any, path: str, held: dict[str, Any]) -> None:
    request.output = Output("schema", schema=json_schema(obj(value, path), path))


def _response_json_schema(request: Request, value: Any, path: str, held: dict[str, Any]) -> None:
    request.output = Output("schema", schema=obj(value, path))


def _thinking(request: Request, value: Any, path: str, held: dict[str, Any]) -> None:
    fields = message(value, path)
    budget, level, shown = (fields.get(name) for name in ("thinkingBudget", "thinkingLevel", "includeThoughts"))
    reasoning = Reasoning()
    if budget is not None:
        tokens = whole(budget, f"{path}.thinkingBudget")
        if tokens > 0:
            reasoning.budget = tokens
        else:
            # -1 leaves the number to the model.
            reasoning.enabled = tokens < 0
    if level is not None and text(level, f"{path}.thinkingLevel") not in ("", "THINKING_LEVEL_UNSPECIFIED"):
        reasoning.effort = level.lower()
    if shown is not None and boolean(shown, f"{path}.includeThoughts"):
        reasoning.summary = "auto"
        if reasoning == Reasoning(summary="auto"):
            # There is nothing to show unless the model thinks.
            reasoning.enabled = True
    elif reasoning != Reasoning() and reasoning.enabled is not False:
        reasoning.summary = "none"
    if reasoning != Reasoning():
        request.reasoning = reasoning
    rest = rest_of(fields, "thinkingBudget", "thinkingLevel", "includeThoughts")
    if rest:
        held["thinkingConfig"] = rest


_DETAILS = {"MEDIA_RESOLUTION_LOW": "low", "MEDIA_RESOLUTION_HIGH": "high"}


def _resolution(request: Request, value: Any, path: str, held: dict[str, Any]) -> None:
    detail = _DETAILS.get(text(value, path))
    if detail is None:
        if value != "MEDIA_RESOLUTION_UNSPECIFIED":
            held["mediaResolution"] = value
        return
    for turn in request.messages:
        for part in turn.parts:
            if isinstance(part, Media) and part.kind == "image":
                part.detail = detail


def _modalities(request: Request, value: Any, path: str, held: dict[str, Any]) -> None:
    wanted = [text(item, f"{path}[{place}]").upper() for place, item in enumerate(items(value, path))]
    if wanted not in ([], ["TEXT"]):
        held["responseModalities"] = value


_ConfigField = Callable[[Request, Any, str, dict[str, Any]], None]
_CONFIG: Mapping[str, _ConfigField] = {
    "maxOutputTokens": _sampling("max_tokens", whole),
    "temperature": _sampling("temperature", number),
    "topP": _sampling("top_p", number),
    "topK": _sampling("top_k", whole),
    "candidateCount": _sampling("choices", whole),
    "seed": _sampling("seed", whole),
    "presencePenalty": _sampling("presence_penalty", number),
    "frequencyPenalty": _sampling("frequency_penalty", number),
    "responseLogprobs": _sampling("logprobs", boolean),
    "logprobs": _sampling("top_logprobs", whole),
    "stopSequences": _stop,
    "responseMimeType": _media_type,
    "responseSchema": _response_schema,
    "responseJsonSchema": _response_json_schema,
    "thinkingConfig": _thinking,
    "mediaResolution": _resolution,
    "responseModalities": _modalities,
}


def _config(request: Request, value: Any, own: dict[str, Any]) -> None:
    path = "generationConfig"
    held: dict[str, Any] = {}
    for name, item in message(value, path).items():
        if item is None:
            continue
        read = _CONFIG.get(name)
        if read is None:
            held[name] = item
        else:
            read(request, item, f"{path}.{name}", held)
    if held:
        own[path] = held


_FIELDS: Mapping[str, _Field] = {
    "tools": _tools,
    "toolConfig": _tool_config,
    "generationConfig": _config,
}
