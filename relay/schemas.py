"""Tool schemas: is a definition one, and do a model's arguments fit it?

Schemas come from callers, so nothing in them may cost more than time in proportion to their size: regular expressions
run in linear time and are bounded in size and number, references are resolved inside the schema only (never over the
network or from files), what would be checked again and again is not checked at all, and the validators that were built
are kept in a bounded cache.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from relay.dialect import Dialect, Head
from relay.effort import Demand
from relay.errors import BadParameter
from relay.ir import Tool, ToolCall
from relay.kit import loads

if TYPE_CHECKING:
    import jsonschema_rs

__all__ = ["ArgumentCheck", "Definitions", "check_definitions"]

MAX_SCHEMA_BYTES = 1024 * 1024
MAX_WEIGHT = 1024 * 1024
"""Of all schemas of a call together: their bytes, and for what takes longer than its bytes as many more. Read in less
than half a second, once for each schema."""
TOOL_WEIGHT, REFERENCE_WEIGHT, PATTERN_WEIGHT = 64, 200, 4000
NAME_LENGTH = 128
PATTERN_SIZES = tuple(size * 1024 for size in (32, 256, 1024, 4096))
"""Bytes of a regular expression once it is compiled, and of what it remembers. The smallest that will do is taken: most
need little, but `^[\\s\\S]{0,300}$`, which agents send, is larger than 256 KiB."""
PATTERNS_BYTES = 16 * 1024 * 1024
"""Bytes of all regular expressions of a schema. To compile them takes four milliseconds for each MiB."""
KEPT_BYTES = 64 * 1024 * 1024
"""Memory for checkers that were built, and one of them takes up to this many times its schema's bytes:"""
GROWTH = 64
KNOWN_BYTES = 1024 * 1024
NO_REGEX = 'is not a "regex"'
"""What is said of an expression that is none, or is too large."""
BACKTRACKS = 10_000
"""Steps of an expression that needs the engine which tries."""


def check_definitions(tools: Sequence[tuple[str, Tool]]) -> None:
    """Refuse definitions that no model could be given. Raises BadParameter with the path of the fault."""
    seen: set[str] = set()
    weight = size = 0
    for path, tool in tools:
        place = path.rsplit(".", 1)[0]
        if not tool.name or len(tool.name) > NAME_LENGTH:
            raise BadParameter(f"a tool needs a name of 1 to {NAME_LENGTH} characters", param=f"{place}.name")
        if tool.name in seen:
            raise BadParameter(f"two tools are named {tool.name!r}", param=f"{place}.name")
        seen.add(tool.name)
        if tool.parameters is not None:
            text = _canonical(tool.parameters, path)
            weight += len(text) + TOOL_WEIGHT + text.count(b'"$ref"') * REFERENCE_WEIGHT
            if b'"pattern' in text:
                weight += patterns_of(tool.parameters) * PATTERN_WEIGHT
            if weight <= MAX_WEIGHT:
                size += _checker(text, path).size
            if weight > MAX_WEIGHT or size > KEPT_BYTES:
                raise BadParameter("the schemas of the tools are too large together", param=path)


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
        checker = _checker(_canonical(tool.parameters, path), path)
        if checker.demand.too_much(arguments, len(call.arguments)):
            return f"the arguments of {call.name!r} cannot be checked: their schema makes that too much work"
        for error in checker.validator.iter_errors(arguments):
            return (
                f"the arguments of {call.name!r} do not fit its schema at {_place(error.instance_path)}: {_why(error)}"
            )
        return None

    def first_fault(self, calls: Iterable[ToolCall]) -> str | None:
        """The first fault of several calls."""
        return next((fault for call in calls if (fault := self.fault(call)) is not None), None)


class Definitions:
    """Tools that were read and found good, by the bytes of their definitions: agents send the same with every turn.

    What is remembered takes some ten times its bytes, of which there are at most `most`; the one used last is the last.
    """

    def __init__(self, most: int = KNOWN_BYTES) -> None:
        self._most = most
        self._known: OrderedDict[tuple[str, bytes], ArgumentCheck] = OrderedDict()
        self.size = 0
        """Bytes of what is remembered."""

    def __len__(self) -> int:
        return len(self._known)

    def check(self, dialect: Dialect, head: Head) -> ArgumentCheck:
        """The tools of a request. Raises BadParameter with the path of the fault if they could be given to no model."""
        mark = _mark(dialect, head)
        known = None if mark is None else self._known.get(mark)
        if known is not None and mark is not None:
            self._known.move_to_end(mark)
            return known
        tools = dialect.tools(head)
        check_definitions(tools)
        found = ArgumentCheck(tools)
        if mark is not None and len(mark[1]) <= self._most:
            self._known[mark] = found
            self.size += len(mark[1])
            while self.size > self._most:
                (_, text), _ = self._known.popitem(last=False)
                self.size -= len(text)
        return found


def _mark(dialect: Dialect, head: Head) -> tuple[str, bytes] | None:
    """What tells the tools of a request from others, where the dialect says what does."""
    if head.definitions is not None:
        return dialect.name, head.definitions
    if not dialect.tool_fields:
        return None
    try:
        return dialect.name, orjson.dumps([head.fields.get(name) for name in dialect.tool_fields])
    except orjson.JSONEncodeError:
        # Nested too deeply, which is for the check to say.
        return None


def _canonical(schema: Mapping[str, Any], path: str) -> bytes:
    try:
        text = orjson.dumps(schema)
    except TypeError:
        raise BadParameter("the schema is nested too deeply", param=path) from None
    if len(text) > MAX_SCHEMA_BYTES:
        raise BadParameter(f"the schema is longer than {MAX_SCHEMA_BYTES} bytes", param=path)
    return text


def patterns_of(schema: object) -> int:
    """How many regular expressions there are, at most."""
    count, parts = 0, [schema]
    while parts:
        part = parts.pop()
        if isinstance(part, Mapping):
            count += isinstance(part.get("pattern"), str)
            several = part.get("patternProperties")
            count += len(several) if isinstance(several, Mapping) else 0
            parts.extend(part.values())
        elif isinstance(part, list):
            parts.extend(part)
    return count


@dataclass(frozen=True, slots=True)
class Checker:
    """A schema, ready to be used."""

    validator: jsonschema_rs.Validator
    demand: Demand
    size: int
    """Bytes that it takes, at most."""


class Checkers:
    """Those that were built, by their schemas; for what is no schema, the reason. The one used last is the last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._built: OrderedDict[bytes, tuple[Checker | str, int]] = OrderedDict()
        self.size = 0
        """Bytes that they take, at most."""

    def __len__(self) -> int:
        return len(self._built)

    def get(self, schema: bytes) -> Checker | str:
        """The checker of a schema, or what is wrong with it."""
        found = self._built.get(schema)
        if found is None:
            found = _build(schema)
            if found[1] > self._most:
                return found[0]
            self._built[schema] = found
            self.size += found[1]
            while self.size > self._most:
                _, (_, size) = self._built.popitem(last=False)
                self.size -= size
        else:
            self._built.move_to_end(schema)
        return found[0]


CHECKERS = Checkers(KEPT_BYTES)


def _checker(schema: bytes, path: str) -> Checker:
    built = CHECKERS.get(schema)
    if isinstance(built, str):
        raise BadParameter(f"not a valid JSON Schema: {built}", param=path)
    return built


def _build(schema: bytes) -> tuple[Checker | str, int]:
    """A checker, or what is wrong with the schema; and the bytes that it takes, at most."""
    value = orjson.loads(schema)
    patterns = patterns_of(value)
    made = ""
    for size in PATTERN_SIZES:
        if made and (NO_REGEX not in made or patterns * size > PATTERNS_BYTES):
            break
        built = _validator(value, size)
        if not isinstance(built, str):
            total = len(schema) * GROWTH + patterns * size
            return Checker(built, Demand(value, schema), total), total
        made = built
    return made, len(schema) + len(made)


def _validator(value: Any, size: int) -> jsonschema_rs.Validator | str:
    # Imported late: 4 MB that only callers with tools need.
    import jsonschema_rs

    straight = jsonschema_rs.RegexOptions(size_limit=size, dfa_size_limit=size)
    try:
        return jsonschema_rs.validator_for(value, offline=True, pattern_options=straight)
    except jsonschema_rs.ValidationError as error:
        linear = _why(error)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        return _short(str(error))
    # Look-around needs the engine that tries; its number of steps is bounded.
    trying = jsonschema_rs.FancyRegexOptions(BACKTRACKS, size, size)
    try:
        return jsonschema_rs.validator_for(value, offline=True, pattern_options=trying)
    except (jsonschema_rs.ValidationError, ValueError, jsonschema_rs.ReferencingError):
        return linear


def _place(path: Iterable[str | int]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def _why(error: jsonschema_rs.ValidationError) -> str:
    return _short(error.message)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:297] + "..."
