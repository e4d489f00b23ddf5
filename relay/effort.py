"""How much work it would be to check a value against a schema, found out before it is done.

A schema of a few lines can be a matter of hours, and one that refers to itself can need more stack than there is: with
references the same value is looked at again and again, in every combination. So the visits are counted first, without
judging anything, and given up when they are too many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

__all__ = ["Demand"]

STEPS: Final = 100_000
"""Visits of a part of a schema to a part of a value. More than tools need, and less than a fifth of a second."""
DEPTH: Final = 1000
"""How deep a visit may be inside of others. The checker's own stack is good for forty times as much."""
PRODUCT: Final = 20_000_000
"""Bytes of a schema without references, times bytes of a value, up to which nothing has to be counted."""
AGAIN: Final = 3
"""How often a part is looked at whose findings are needed twice."""
COMPARED: Final = 16
"""Values that are compared in the time of a visit."""

Pairs = Iterable[tuple[object, object]]


def _itself(part: Any, value: object) -> Pairs:
    yield part, value


def _each(part: Any, value: object) -> Pairs:
    return ((one, value) for one in part) if isinstance(part, list) else ()


def _each_named(part: Any, value: object) -> Pairs:
    return ((one, value) for one in part.values()) if isinstance(part, dict) else ()


def _same_names(part: Any, value: object) -> Pairs:
    if not isinstance(part, dict) or not isinstance(value, dict):
        return ()
    return ((part[name], value[name]) for name in part.keys() & value.keys())


def _all_names(part: Any, value: object) -> Pairs:
    if not isinstance(part, dict) or not isinstance(value, dict):
        return ()
    return ((one, item) for one in part.values() for item in value.values())


def _members(part: Any, value: object) -> Pairs:
    return ((part, item) for item in value.values()) if isinstance(value, dict) else ()


def _names(part: Any, value: object) -> Pairs:
    return ((part, name) for name in value) if isinstance(value, dict) else ()


def _items(part: Any, value: object) -> Pairs:
    if not isinstance(value, list):
        return ()
    return zip(part, value, strict=False) if isinstance(part, list) else ((part, item) for item in value)


HERE: Final[Mapping[str, Callable[[Any, object], Pairs]]] = {
    "allOf": _each,
    "anyOf": _each,
    "oneOf": _each,
    "not": _itself,
    "if": _itself,
    "then": _itself,
    "else": _itself,
    "dependentSchemas": _each_named,
    "dependencies": _each_named,
}
"""Words whose parts look at the same value."""
BELOW: Final[Mapping[str, Callable[[Any, object], Pairs]]] = {
    "properties": _same_names,
    "patternProperties": _all_names,
    "additionalProperties": _members,
    "unevaluatedProperties": _members,
    "propertyNames": _names,
    "prefixItems": _items,
    "items": _items,
    "additionalItems": _items,
    "unevaluatedItems": _items,
    "contains": _items,
}
"""Words whose parts look at what is in the value."""
TWICE: Final = frozenset({"unevaluatedProperties", "unevaluatedItems"})
REFERENCES: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
COSTLY: Final = (*(f'"{word}"'.encode() for word in sorted(REFERENCES)), b'"unevaluated')


class _Unknown(Exception):
    """Nobody knows here where a reference leads."""


class Demand:
    """What a schema asks for, whatever the value. `text` is the same schema."""

    __slots__ = ("_odd", "_plain", "_schema", "_size")

    def __init__(self, schema: object, text: bytes) -> None:
        self._schema = schema
        self._size = len(text)
        self._plain = not any(word in text for word in COSTLY)
        # What has a name of its own inside may be referred to in other ways than by its place.
        own = isinstance(schema, dict) and isinstance(schema.get("$id"), str)
        self._odd = text.count(b'"$id":"') > own or (b"json-schema.org/draft-04" in text and b'"id":"' in text)

    def too_much(self, value: object, size: int) -> bool:
        """Whether nobody should check this value, which had `size` bytes."""
        if self._plain and self._size * size < PRODUCT:
            return False
        try:
            return self._counted(value) > STEPS
        except _Unknown:
            return True

    def _counted(self, value: object) -> int:
        steps = 0
        stack = [(self._schema, value, 0)]
        while stack and steps <= STEPS:
            part, at, depth = stack.pop()
            if not isinstance(part, dict):
                continue
            if depth > DEPTH:
                raise _Unknown
            compared = part.get("enum")
            if isinstance(compared, list):
                steps += len(compared) // COMPARED
            for pairs, times in self._inside(part, at):
                for inner, there in pairs:
                    stack.extend([(inner, there, depth + 1)] * times)
                    steps += times
                    if steps > STEPS:
                        return steps
        return steps

    def _inside(self, part: Mapping[str, Any], value: object) -> Iterator[tuple[Pairs, int]]:
        times = 1 if TWICE.isdisjoint(part) else AGAIN
        for word, inner in part.items():
            if word in HERE:
                yield HERE[word](inner, value), times
            elif word in BELOW:
                yield BELOW[word](inner, value), 1
            elif word in REFERENCES:
                yield ((self._place(word, inner), value),), times

    def _place(self, word: str, name: object) -> object:
        """What a reference leads to, as far as that is a place in this very schema."""
        if self._odd or word != "$ref" or not isinstance(name, str) or not (name == "#" or name.startswith("#/")):
            raise _Unknown
        found: Any = self._schema
        for step in unquote(name[2:]).split("/") if len(name) > 1 else ():
            key = step.replace("~1", "/").replace("~0", "~")
            try:
                found = found[int(key)] if isinstance(found, list) else found[key]
            except (KeyError, IndexError, TypeError, ValueError):
                raise _Unknown from None
        return found
