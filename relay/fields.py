"""For dialects: reading JSON values with a fault that names the path, as in `tools[2].name must be a string`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from relay.errors import BadParameter

__all__ = ["boolean", "fault", "header", "integer", "items", "number", "obj", "rest", "text", "word"]

_NAMES: Mapping[type, str] = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def fault(path: str, expected: str, value: Any) -> NoReturn:
    """Refuse `value`, saying what it is and never what it holds."""
    raise BadParameter(f"{path} must be {expected}, not {_NAMES[type(value)]}", param=path)


def header(value: str, name: str) -> str:
    """A header's value that can be sent on as it is."""
    if not value.isascii() or not value.isprintable():
        raise BadParameter(f"the header {name} holds what cannot be sent on", param=name)
    return value


def obj(value: Any, path: str) -> dict[str, Any]:
    """A JSON object."""
    if type(value) is not dict:
        fault(path, "an object", value)
    return value


def items(value: Any, path: str) -> list[Any]:
    """A JSON array."""
    if type(value) is not list:
        fault(path, "an array", value)
    return value


def rest(fields: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """The fields beside those that are known. Those that are null say nothing."""
    if known.issuperset(fields):
        # As nearly always, for each part of each message of every turn.
        return {}
    return {name: value for name, value in fields.items() if name not in known and value is not None}


def text(value: Any, path: str) -> str:
    """A string."""
    if type(value) is not str:
        fault(path, "a string", value)
    return value


def word(value: Any, path: str) -> str:
    """A string that is not empty."""
    if not text(value, path):
        raise BadParameter(f"{path} must not be empty", param=path)
    return str(value)


def integer(value: Any, path: str, low: int | None = None, high: int | None = None) -> int:
    """A whole number, if need be between two bounds. `true` is none, and neither is `1.0`."""
    if type(value) is not int:
        fault(path, "an integer", value)
    if (low is not None and value < low) or (high is not None and value > high):
        raise BadParameter(f"{path} must be between {low} and {high}", param=path)
    return value


def number(value: Any, path: str) -> float:
    """A number. Integers stay integers: the value goes on as the caller spelled it."""
    if type(value) is not int and type(value) is not float:
        fault(path, "a number", value)
    return value


def boolean(value: Any, path: str) -> bool:
    """True or false."""
    if type(value) is not bool:
        fault(path, "a boolean", value)
    return value
