"""Tool schemas: is a definition one, and do a model's arguments fit it?

Schemas come from callers, so nothing in them may cost more than time in proportion to their size: regular expressions
run in linear time, references are resolved inside the schema only (never over the network or from files), and the
validators that were built are kept in a bounded cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from relay.errors import BadParameter
from relay.ir import Tool, ToolCall
from relay.kit import loads

if TYPE_CHECKING:
    import jsonschema_rs

__all__ = ["ArgumentCheck", "check_definitions"]

MAX_SCHEMA_BYTES = 1024 * 1024
CACHED_VALIDATORS = 512
NAME_LENGTH = 128


def check_definitions(tools: Sequence[tuple[str, Tool]]) -> None:
    """Refuse definitions that no model could be given. Raises BadParameter with the path of the fault."""
    seen: set[str] = set()
    for path, tool in tools:
        place = path.rsplit(".", 1)[0]
        if not tool.name or len(tool.name) > NAME_LENGTH:
            raise BadParameter(f"a tool needs a name of 1 to {NAME_LENGTH} characters", param=f"{place}.name")
        if tool.name in seen:
            raise BadParameter(f"two tools are named {tool.name!r}", param=f"{place}.name")
        seen.add(tool.name)
        if tool.parameters is not None:
            _validator(_canonical(tool.parameters, path), path)


class ArgumentCheck:
    """Holds a call's tools and judges the model's calls of them."""

    def __init__(self, tools: Iterable[tuple[str, Tool]]) -> None:
        self._tools: Mapping[str, tuple[str, Tool]] = {tool.name: (path, tool) for path, tool in tools}

    def fault(self, call: ToolCall) -> str | None:
        """What is wrong with one tool call, in a sentence; None if nothing is.

        A tool that the caller did not define is a fault; one that the upstream runs itself is not ours to judge.
        """
        if call.server:
            return None
        known = self._tools.get(call.name)
        if known is None:
            return f"the model called {call.name[:NAME_LENGTH]!r}, which is not one of the tools"
        path, tool = known
        try:
            arguments = loads(call.arguments or "{}")
        except ValueError:
            return f"the arguments of {call.name!r} are not JSON"
        if not isinstance(arguments, dict):
            return f"the arguments of {call.name!r} are not a JSON object"
        if tool.parameters is None:
            return None
        validator = _validator(_canonical(tool.parameters, path), path)
        for error in validator.iter_errors(arguments):
            return (
                f"the arguments of {call.name!r} do not fit its schema at {_place(error.instance_path)}: {_why(error)}"
            )
        return None

    def first_fault(self, calls: Iterable[ToolCall]) -> str | None:
        """The first fault of several calls."""
        return next((fault for call in calls if (fault := self.fault(call)) is not None), None)


def _canonical(schema: Mapping[str, Any], path: str) -> bytes:
    try:
        text = orjson.dumps(schema)
    except TypeError:
        raise BadParameter("the schema is nested too deeply", param=path) from None
    if len(text) > MAX_SCHEMA_BYTES:
        raise BadParameter(f"the schema is longer than {MAX_SCHEMA_BYTES} bytes", param=path)
    return text


def _validator(schema: bytes, path: str) -> jsonschema_rs.Validator:
    built = _build(schema)
    if isinstance(built, str):
        raise BadParameter(f"not a valid JSON Schema: {built}", param=path)
    return built


@lru_cache(maxsize=CACHED_VALIDATORS)
def _build(schema: bytes) -> jsonschema_rs.Validator | str:
    """A validator, or what is wrong with the schema. Imported late: 4 MB that only callers with tools need."""
    import jsonschema_rs

    value = orjson.loads(schema)
    try:
        return jsonschema_rs.validator_for(value, offline=True, pattern_options=jsonschema_rs.RegexOptions())
    except jsonschema_rs.ValidationError as error:
        linear = _why(error)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        return _short(str(error))
    try:
        # Look-around needs the backtracking engine; its number of steps is bounded.
        return jsonschema_rs.validator_for(
            value, offline=True, pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=10_000)
        )
    except (jsonschema_rs.ValidationError, ValueError, jsonschema_rs.ReferencingError):
        return linear


def _place(path: Iterable[str | int]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def _why(error: jsonschema_rs.ValidationError) -> str:
    return _short(error.message)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:297] + "..."
