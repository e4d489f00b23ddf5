from __future__ import annotations

import json
import time
from typing import Any

import pytest

from relay.dialect import Head
from relay.errors import BadParameter
from relay.ir import Tool, ToolCall
from relay.schemas import ArgumentCheck, Definitions, check_definitions
from relay_openai.dialect import OpenAIChat

PATH = "tools[0].function.parameters"
CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}


def fault(schema: Any, arguments: str, name: str = "weather") -> str | None:
    return ArgumentCheck([(PATH, Tool("weather", None, schema))]).fault(ToolCall("1", name, arguments))


@pytest.mark.parametrize("arguments", ['{"city":"Oslo"}', '{"city":"Oslo","days":3,"more":null}', ' {"city" : "x"} '])
def test_arguments_that_fit_pass(arguments: str) -> None:
    assert fault(CITY, arguments) is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("{", "the arguments of 'weather' are not JSON"),
        ("[]", "the arguments of 'weather' are not a JSON object"),
        ("{}", "do not fit its schema at $: "),
        ('{"city":1}', "do not fit its schema at $.city: "),
        ("", "do not fit its schema at $: "),
    ],
)
def test_arguments_that_do_not_fit_are_told_with_their_place(arguments: str, told: str) -> None:
    assert told in str(fault(CITY, arguments))


def test_a_call_of_a_tool_that_was_never_defined_is_a_fault() -> None:
    assert "'rm' " in str(fault(CITY, "{}", "rm")).replace(",", " ")


def test_a_tool_that_the_upstream_runs_is_not_judged() -> None:
    assert ArgumentCheck([]).fault(ToolCall("1", "web_search", "{", server=True)) is None


def test_a_tool_without_a_schema_takes_any_object() -> None:
    assert fault(None, '{"x":1}') is None
    assert fault(None, "") is None


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objekt"},
        {"type": "object", "properties": []},
        {"properties": {"a": {"pattern": "("}}},
        {"$ref": "#/$defs/none"},
        {"$ref": "http://127.0.0.1:9/schema"},
        {"$ref": "file:///etc/hostname"},
    ],
)
def test_a_definition_that_is_no_schema_names_its_path(schema: Any) -> None:
    with pytest.raises(BadParameter) as wrong:
        check_definitions([(PATH, Tool("weather", None, schema))])
    assert wrong.value.param == PATH
    assert wrong.value.status == 400


def test_names_must_be_there_and_be_unique() -> None:
    with pytest.raises(BadParameter, match="two tools are named 'a'") as wrong:
        check_definitions([(PATH, Tool("a")), (PATH.replace("0", "1"), Tool("a"))])
    assert wrong.value.param == "tools[1].function.name"
    with pytest.raises(BadParameter, match="needs a name"):
        check_definitions([(PATH, Tool(""))])


@pytest.mark.parametrize("pattern", ["^(a+)+$", "(a|aa)+$", "^(?=a)(a+)+$", "(.*)*x"])
def test_regular_expressions_cannot_be_made_to_take_long(pattern: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}
    started = time.process_time()
    fault(schema, '{"a":"' + "a" * 5000 + '!"}')
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "pattern", [r"^[\s\S]{0,300}$", r"^[\s\S]{0,1000}$", r"^\p{L}{1,64}$", r"^(?!x)[\s\S]{0,300}$"]
)
def test_large_regular_expressions_as_agents_send_them_are_taken_and_checked(pattern: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}
    assert fault(schema, '{"a":"abc"}') is None
    assert "$.a" in str(fault(schema, '{"a":"' + "x!" * 501 + '"}'))


def test_a_schema_that_refers_to_itself_is_no_trap() -> None:
    loop = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    check_definitions([(PATH, Tool("weather", None, loop))])
    fault(loop, '{"a":1}')


def test_a_schema_that_is_nested_too_deeply_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(300):
        schema = {"properties": {"a": schema}}
    with pytest.raises(BadParameter, match="nested too deeply"):
        check_definitions([(PATH, Tool("weather", None, schema))])


def asked(**body: Any) -> Head:
    data = {"model": "m", "messages": [], **body}
    return Head("generate", "m", json.dumps(data).encode(), data, has_tools=True)


def function(name: str, **schema: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", **schema}}}


def test_the_same_definitions_are_read_once() -> None:
    known, dialect = Definitions(), OpenAIChat()
    first = known.check(dialect, asked(tools=[function("a"), function("b")]))
    assert known.check(dialect, asked(tools=[function("a"), function("b")], user="x")) is first
    assert first.fault(ToolCall("1", "a", "{}")) is None
    # Another one, another order, another place: all of that is told in errors.
    for body in (
        {"tools": [function("a")]},
        {"tools": [function("b"), function("a")]},
        {"tools": [function("a", required=["x"]), function("b")]},
        {"functions": [{"name": "a"}]},
    ):
        assert known.check(dialect, asked(**body)) is not first
    assert known.check(dialect, asked(tools=[function("a")])).fault(ToolCall("1", "b", "{}")) is not None


def test_definitions_that_are_none_are_refused_each_time() -> None:
    known, dialect = Definitions(), OpenAIChat()
    for _ in range(2):
        with pytest.raises(BadParameter, match="not a valid JSON Schema"):
            known.check(dialect, asked(tools=[function("a", required=5)]))
    assert len(known) == 0
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"properties": {"a": deep}}
    with pytest.raises(BadParameter, match="nested too deeply"):
        known.check(dialect, asked(tools=[function("a", **deep)]))


@pytest.mark.promise("H-09")
def test_definitions_are_remembered_within_bounds() -> None:
    known, dialect = Definitions(2000), OpenAIChat()
    first = known.check(dialect, asked(tools=[function("first")]))
    for number in range(100):
        known.check(dialect, asked(tools=[function(f"f{number}")]))
        assert known.check(dialect, asked(tools=[function("first")])) is first, "what is used stays"
        assert known.size <= 2000
    assert 1 < len(known) < 40
    held = len(known)
    known.check(dialect, asked(tools=[function("a", description="x" * 2000)]))
    assert len(known) == held, "one that is too large is not kept"
