"""How much work a check would be: what tools really need is checked, and what would never end is not."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import reduce
from typing import Any

import pytest

from relay.errors import BadParameter
from relay.ir import Tool, ToolCall
from relay.schemas import ArgumentCheck, Checkers, check_definitions

PATH = "tools[0].function.parameters"
Schema = Mapping[str, Any]


def fault(schema: Schema, arguments: Any) -> str | None:
    tools = [(PATH, Tool("f", parameters=schema))]
    check_definitions(tools)
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return ArgumentCheck(tools).fault(ToolCall("1", "f", text))


def chain(word: str, length: int) -> Schema:
    """Each link refers to the next one twice."""
    links = {f"l{number}": {word: [{"$ref": f"#/$defs/l{number + 1}"}] * 2} for number in range(length)}
    return {"$ref": "#/$defs/l0", "$defs": {**links, f"l{length}": {"type": "string"}}}


def nested(word: str, times: int, inner: Schema, **more: Any) -> Schema:
    return reduce(lambda schema, _: {word: schema if word in ("if", "not") else [schema], **more}, range(times), inner)


def deep(times: int) -> str:
    return '{"a":' * times + "1" + "}" * times


TREE = {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}, "value": {"type": "number"}}}
VALUE = {
    "$ref": "#/definitions/json~1value",
    "definitions": {
        "json/value": {
            "anyOf": [
                {"type": ["null", "boolean", "number", "string"]},
                {"type": "array", "items": {"$ref": "#/definitions/json~1value"}},
                {"type": "object", "additionalProperties": {"$ref": "#/definitions/json~1value"}},
            ]
        }
    },
}
FILTERS = {
    "$id": "https://example.com/filter",
    "properties": {"filter": {"$ref": "#/$defs/filter"}},
    "$defs": {
        "filter": {
            "oneOf": [
                {"properties": {"and": {"type": "array", "items": {"$ref": "#/$defs/filter"}}}, "required": ["and"]},
                {"properties": {"or": {"type": "array", "items": {"$ref": "#/$defs/filter"}}}, "required": ["or"]},
                {"properties": {"field": {"type": "string"}, "is": {}}, "required": ["field", "is"]},
            ]
        }
    },
}


def tree(depth: int) -> Any:
    return {"value": depth} if not depth else {"left": tree(depth - 1), "right": tree(depth - 1), "value": 1}


def filters(depth: int) -> Any:
    if not depth:
        return {"field": "name", "is": 1}
    return {"and" if depth % 2 else "or": [filters(depth - 1), filters(depth - 1)]}


@pytest.mark.promise("H-09")
def test_schemas_that_refer_to_themselves_are_checked() -> None:
    assert fault(TREE, tree(9)) is None
    wrong = tree(9)
    wrong["left"]["right"]["value"] = "x"
    assert "$.left.right.value" in str(fault(TREE, wrong))
    assert fault(VALUE, {"a": [1, [2, {"b": None}]] * 200}) is None
    assert fault(FILTERS, {"filter": filters(6)}) is None
    assert "$.filter" in str(fault(FILTERS, {"filter": {"and": [{"or": [{"xor": 1}]}]}}))
    assert fault(TREE, '{"left":' * 300 + "{}" + "}" * 300) is None


@pytest.mark.promise("H-09")
def test_large_arguments_are_checked() -> None:
    row = {"type": "object", "properties": {"name": {"type": "string"}, "size": {"type": "integer"}}}
    schema = {"type": "object", "properties": {"rows": {"type": "array", "items": {"$ref": "#/$defs/row"}}}}
    rows = [{"name": "x" * 20, "size": number} for number in range(10_000)]
    assert fault({**schema, "$defs": {"row": row}}, {"rows": rows}) is None
    rows[-1]["size"] = "x"
    assert "$.rows[9999].size" in str(fault({**schema, "$defs": {"row": row}}, {"rows": rows}))
    assert fault({"properties": {"s": {"enum": list(range(100_000))}}}, {"s": 5}) is None


ENDLESS: Mapping[str, tuple[Schema, Any]] = {
    "twice and twice, any": (chain("anyOf", 40), {}),
    "twice and twice, all": (chain("allOf", 40), {}),
    "twice and twice, one": (chain("oneOf", 40), {}),
    "itself": ({"$ref": "#"}, {}),
    "in a circle": ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, {}),
    "itself, or itself": ({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}, {}),
    "itself, twice at each step": ({"allOf": [{"properties": {"a": {"$ref": "#"}}}] * 2}, deep(100)),
    "more stack than there is": (nested("allOf", 100, {"properties": {"a": {"$ref": "#"}}}), deep(900)),
    "by a name": ({"$dynamicRef": "#n", "$dynamicAnchor": "n"}, {}),
    "by another name": ({"allOf": [{"$id": "x", "$anchor": "n", "not": {"$ref": "#n"}}]}, {}),
    "what was not looked at": (nested("if", 60, {"properties": {"a": {}}}, then={}, unevaluatedProperties=False), {}),
    "all with all": (
        {"properties": {"a": {"items": {"enum": [{"k": number} for number in range(9_000)]}}}},
        {"a": [0] * 30_000},
    ),
}


@pytest.mark.promise("H-09")
@pytest.mark.parametrize("name", ENDLESS)
def test_what_would_take_for_ever_or_all_memory_is_not_begun(name: str) -> None:
    schema, arguments = ENDLESS[name]
    began = time.monotonic()
    told = fault(schema, arguments)
    assert told == "the arguments of 'f' cannot be checked: their schema makes that too much work"
    assert time.monotonic() - began < 2


PATTERNS: Mapping[str, tuple[str, str]] = {
    "nested": ("^(a+)+$", "a" * 50_000 + "!"),
    "look-ahead": ("^(?=(a+)+$)(a+)+$", "a" * 5_000 + "!"),
    "look-behind": (r"^(a|aa)+\1$", "a" * 5_000 + "!"),
    "several": ("^(a|a)*(a|a)*(a|a)*b$", "a" * 20_000),
}


@pytest.mark.promise("H-09")
@pytest.mark.parametrize("name", PATTERNS)
def test_no_expression_takes_longer_than_its_text(name: str) -> None:
    pattern, text = PATTERNS[name]
    began = time.monotonic()
    assert "$.s" in str(fault({"properties": {"s": {"pattern": pattern}}}, {"s": text}))
    assert time.monotonic() - began < 2


@pytest.mark.promise("H-09")
def test_no_definition_takes_long_to_read() -> None:
    huge = r"(?:(\w{1,100}){1,100}){100}"
    many: Mapping[str, list[Schema]] = {
        "expressions": [{"allOf": [{"pattern": rf"(\w{{1,30}}){{1,10}}{number}"} for number in range(1000)]}],
        "names": [{"patternProperties": {rf"(\w{{1,30}}){{1,10}}{number}": {} for number in range(1000)}}],
        "tools": [{"description": f"x{number}"} for number in range(20_000)],
        "references": [{"$defs": {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(9000)}}],
        "bytes": [{"description": "x" * 300_000 + str(number)} for number in range(4)],
    }
    for name, schemas in many.items():
        tools = [(f"tools[{n}].function.parameters", Tool(f"f{n}", parameters=one)) for n, one in enumerate(schemas)]
        began = time.monotonic()
        with pytest.raises(BadParameter, match="too large together") as refused:
            check_definitions(tools)
        assert str(refused.value.param).endswith(".function.parameters"), name
        assert time.monotonic() - began < 2
    with pytest.raises(BadParameter, match="regex"):
        check_definitions([(PATH, Tool("f", parameters={"pattern": huge}))])
    # What real tools have is far below all that.
    usual = {
        "type": "object",
        "properties": {f"p{n}": {"type": "string", "pattern": "^[a-z]{1,64}$"} for n in range(50)},
    }
    check_definitions([(PATH, Tool(f"f{n}", parameters={**usual, "description": str(n)})) for n in range(5)])


@pytest.mark.promise("H-09")
def test_what_was_built_takes_bounded_memory_and_is_not_built_again() -> None:
    kept = Checkers(1_000_000)
    first = json.dumps({"pattern": "^a{1,9}$"}).encode()
    built = kept.get(first)
    assert kept.get(first) is built
    for number in range(500):
        kept.get(json.dumps({"description": "x" * number}).encode())
        assert kept.get(first) is built, "what is used stays"
        assert kept.size <= 1_000_000
    assert 1 < len(kept) < 200
    held = len(kept)
    kept.get(json.dumps({"description": "x" * 50_000}).encode())
    assert len(kept) == held, "one that is too large is not kept"
    assert str(kept.get(b'{"type":"objekt"}')) == str(kept.get(b'{"type":"objekt"}'))
