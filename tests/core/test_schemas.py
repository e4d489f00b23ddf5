from __future__ import annotations

import time
from typing import Any

import pytest

from relay.errors import BadParameter
from relay.ir import Tool, ToolCall
from relay.schemas import ArgumentCheck, check_definitions

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
