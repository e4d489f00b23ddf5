"""Names of fields, which this vendor takes in two spellings: `inlineData`, and `inline_data` as in its definitions."""

from __future__ import annotations

import re
from typing import Any

from relay.errors import BadParameter
from relay.fields import fault, items, obj, rest

__all__ = ["camel", "message", "rest_of", "several", "whole"]

_JOINT = re.compile(r"_([a-z0-9])")


def camel(fields: dict[str, Any], path: str) -> dict[str, Any]:
    """`fields` with every name in the first spelling; the very same object if all have it.

    Only for objects whose names are the vendor's: in arguments and in a schema's properties they are the caller's.
    """
    # All names at once: this runs for every object of a conversation.
    if "_" not in "".join(fields):
        return fields
    renamed: dict[str, Any] = {}
    for name, value in fields.items():
        plain = _JOINT.sub(lambda match: match[1].upper(), name)
        if plain in renamed:
            raise BadParameter(f"{path} has {plain} in both spellings", param=path)
        renamed[plain] = value
    return renamed


def message(value: Any, path: str) -> dict[str, Any]:
    """A JSON object of the vendor's, its names in the first spelling."""
    return camel(obj(value, path), path)


def several(value: Any, path: str) -> list[Any]:
    """A list of objects. One object alone is a list of it, as the vendor reads it."""
    return [value] if isinstance(value, dict) else items(value, path)


def rest_of(fields: dict[str, Any], *known: str) -> dict[str, Any]:
    """The fields beside those that are known; null says nothing."""
    return rest(fields, frozenset(known))


def whole(value: Any, path: str) -> int:
    """A whole number in any of the spellings that the vendor takes: `5`, `5.0` and `"5"`."""
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    if type(value) is not str or not re.fullmatch(r"-?\d{1,18}", value, re.ASCII):
        fault(path, "a whole number", value)
    return int(value)
