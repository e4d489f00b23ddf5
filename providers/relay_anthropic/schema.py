"""Schemas of answers, as the vendor insists on them."""

from __future__ import annotations

from typing import Any

__all__ = ["closed"]

_MAPS = ("properties", "$defs", "definitions", "patternProperties")
_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")


def closed(schema: Any) -> Any:
    """`schema` with every object closed to further properties unless it says otherwise: the vendor insists on it."""
    if not isinstance(schema, dict):
        return schema
    found = dict(schema)
    for name in _MAPS:
        if isinstance(schema.get(name), dict):
            found[name] = {key: closed(value) for key, value in schema[name].items()}
    for name in _LISTS:
        if isinstance(schema.get(name), list):
            found[name] = [closed(value) for value in schema[name]]
    if "items" in schema:
        found["items"] = closed(schema["items"])
    kind = schema.get("type")
    if kind == "object" or (isinstance(kind, list) and "object" in kind):
        found.setdefault("additionalProperties", False)
    return found
