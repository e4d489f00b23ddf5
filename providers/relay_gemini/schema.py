"""The vendor's own form of schemas, a part of OpenAPI 3.0, as the JSON Schema that everybody else reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from relay_gemini.names import camel, whole

__all__ = ["json_schema"]

DEEPEST = 100
"""Levels that are looked at; a schema that goes on below is left as it is there."""


TYPES = ("", "string", "number", "integer", "boolean", "array", "object", "null")
"""The types by the number that some clients send for them."""


def json_schema(schema: dict[str, Any], path: str, depth: int = 0) -> dict[str, Any]:
    """`schema` in the words of JSON Schema. One that is already written in these comes out as it went in.

    Names of types are written small, `nullable` becomes a type of its own, counts lose their quotes, and the properties
    stand in the order that `propertyOrdering` asks for.
    """
    if depth > DEEPEST:
        return schema
    fields = camel(schema, path)
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if name in ("nullable", "propertyOrdering") or value is None:
            continue
        read = _FIELDS.get(name)
        if read is None:
            found[name] = value
        else:
            read(found, value, f"{path}.{name}", depth)
    if fields.get("nullable") is True:
        _nullable(found)
    order = fields.get("propertyOrdering")
    if isinstance(order, list) and isinstance(found.get("properties"), dict):
        properties = found["properties"]
        first = [name for name in order if isinstance(name, str) and name in properties]
        found["properties"] = {**{name: properties[name] for name in first}, **properties}
    return found


def _nullable(found: dict[str, Any]) -> None:
    kind = found.get("type")
    if isinstance(kind, str) and kind != "null":
        found["type"] = [kind, "null"]
        if isinstance(found.get("enum"), list) and None not in found["enum"]:
            found["enum"] = [*found["enum"], None]
    elif isinstance(found.get("anyOf"), list):
        found["anyOf"] = [*found["anyOf"], {"type": "null"}]


def _type(found: dict[str, Any], value: Any, path: str, depth: int) -> None:
    if isinstance(value, str):
        if value != "TYPE_UNSPECIFIED":
            found["type"] = value.lower()
    elif type(value) is int and 0 < value < len(TYPES):
        found["type"] = TYPES[value]
    elif isinstance(value, list):
        found["type"] = [item.lower() if isinstance(item, str) else item for item in value]
    else:
        found["type"] = value


def _one(name: str) -> _Field:
    def read(found: dict[str, Any], value: Any, path: str, depth: int) -> None:
        found[name] = json_schema(value, path, depth + 1) if isinstance(value, dict) else value

    return read


def _several(name: str) -> _Field:
    def read(found: dict[str, Any], value: Any, path: str, depth: int) -> None:
        if isinstance(value, list):
            value = [
                json_schema(item, f"{path}[{place}]", depth + 1) if isinstance(item, dict) else item
                for place, item in enumerate(value)
            ]
        found[name] = value

    return read


def _named(name: str) -> _Field:
    def read(found: dict[str, Any], value: Any, path: str, depth: int) -> None:
        if isinstance(value, dict):
            value = {
                key: json_schema(item, f"{path}.{key}", depth + 1) if isinstance(item, dict) else item
                for key, item in value.items()
            }
        found[name] = value

    return read


def _count(name: str) -> _Field:
    def read(found: dict[str, Any], value: Any, path: str, depth: int) -> None:
        found[name] = whole(value, path)

    return read


def _format(found: dict[str, Any], value: Any, path: str, depth: int) -> None:
    # It says no more than that there is an `enum`.
    if value != "enum":
        found["format"] = value


def _example(found: dict[str, Any], value: Any, path: str, depth: int) -> None:
    found["examples"] = [value]


_Field = Callable[[dict[str, Any], Any, str, int], None]
_FIELDS: Mapping[str, _Field] = {
    "type": _type,
    "format": _format,
    "example": _example,
    **{name: _one(name) for name in ("items", "additionalProperties", "not")},
    **{name: _several(name) for name in ("anyOf", "oneOf", "allOf", "prefixItems")},
    **{name: _named(name) for name in ("properties", "$defs", "defs", "definitions")},
    **{
        name: _count(name)
        for name in ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
    },
}
