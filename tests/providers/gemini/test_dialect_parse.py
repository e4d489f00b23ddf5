"""Callers' requests: what each field means, and how a fault is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.errors import BadParameter
from relay.ir import (
    Media,
    Message,
    Opaque,
    Output,
    Reasoning,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from relay_gemini.caller import parse_request
from relay_gemini.schema import json_schema

HI = [{"role": "user", "parts": [{"text": "Hi"}]}]


def parsed(**fields: Any) -> Request:
    return parse_request({"contents": HI, **fields}, "m", stream=False)


def parts(*given: Any, role: str | None = "user") -> list[Any]:
    content = {"parts": list(given), **({"role": role} if role else {})}
    calls = {"role": "model", "parts": [{"functionCall": {"name": "f", "id": "c"}}]}
    return parse_request({"contents": [calls, content]}, "m", stream=False).messages[-1].parts


def own(**fields: Any) -> dict[str, Any]:
    return parsed(**fields).own("gemini")


# Contents.


@pytest.mark.parametrize(
    "value",
    [
        "Be brief.",
        {"text": "Be brief."},
        {"parts": [{"text": "Be brief."}]},
        {"parts": {"text": "Be brief."}, "role": "user"},
        ["Be brief."],
        [{"text": "Be brief."}],
    ],
)
@pytest.mark.parametrize("name", ["systemInstruction", "system_instruction"])
def test_the_system_instruction_has_many_forms(name: str, value: Any) -> None:
    assert parsed(**{name: value}).messages[0] == Message("system", [Text("Be brief.")])


@pytest.mark.parametrize("value", [None, {}, {"parts": []}, []])
def test_an_empty_system_instruction_is_none(value: Any) -> None:
    assert [turn.role for turn in parsed(systemInstruction=value).messages] == ["user"]


def test_roles_may_be_missing() -> None:
    contents = [
        {"parts": [{"text": "Hi"}]},
        {"parts": [{"functionCall": {"name": "f", "args": {}}}]},
        {"role": "", "parts": [{"functionResponse": {"name": "f", "response": {"output": "x"}}}]},
        {"role": "model", "parts": None},
    ]
    turns = parse_request({"contents": contents}, "m", stream=False).messages
    assert [turn.role for turn in turns] == ["user", "assistant", "user", "assistant"]


def test_ids_that_are_made_stay_while_the_conversation_grows() -> None:
    call = {"role": "model", "parts": [{"functionCall": {"name": "f"}}]}
    result = {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {}}}]}

    def ids(contents: list[Any]) -> list[str]:
        turns = parse_request({"contents": contents}, "m", stream=False).messages
        return [part.id for turn in turns for part in turn.parts if isinstance(part, ToolCall)]

    first = ids([call, result])
    assert ids([call, result, call, result])[:1] == first
    assert len(set(ids([call, result, call, result]))) == 2


def test_an_id_of_the_callers_own_settles_its_call() -> None:
    calls = [{"functionCall": {"name": "f", "id": "a"}}, {"functionCall": {"name": "f"}}]
    results = [
        {"functionResponse": {"name": "f", "id": "a", "response": {}}},
        {"functionResponse": {"name": "f", "response": {}}},
    ]
    contents = [{"role": "model", "parts": calls}, {"role": "user", "parts": results}]
    made, given = parse_request({"contents": contents}, "m", stream=False).messages
    assert [part.id for part in made.parts if isinstance(part, ToolCall)] == [
        part.call_id for part in given.parts if isinstance(part, ToolResult)
    ]


@pytest.mark.parametrize(
    ("response", "text", "failed"),
    [
        ({"output": "sun"}, "sun", False),
        ({"result": "sun"}, "sun", False),
        ({"error": "no"}, "no", True),
        ({"output": {"a": 1}}, '{"output":{"a":1}}', False),
        ({"error": {"code": 5}}, '{"error":{"code":5}}', False),
        ({"output": "a", "error": "b"}, '{"output":"a","error":"b"}', False),
        ({}, "{}", False),
    ],
)
def test_what_a_tool_answered_is_text(response: Any, text: str, failed: bool) -> None:
    result = parts({"functionResponse": {"name": "f", "id": "c", "response": response}})
    assert result == [ToolResult("c", [Text(text)], is_error=failed, name="f")]


def test_a_tools_answer_may_hold_pictures() -> None:
    picture = {"inline_data": {"mime_type": "image/png", "data": "-_8"}}
    (result,) = parts(
        {"functionResponse": {"name": "f", "id": "c", "response": {"output": "x"}, "parts": [picture]}, "other": 1}
    )
    assert result == ToolResult(
        "c",
        [Text("x"), Media("image", media_type="image/png", data="+/8=")],
        name="f",
        extra={"gemini": {"other": 1}},
    )


@pytest.mark.parametrize(
    ("part", "wanted"),
    [
        (
            {"inlineData": {"mimeType": "audio/wav", "data": "AAAA", "displayName": "a.wav"}},
            Media("audio", media_type="audio/wav", data="AAAA", name="a.wav"),
        ),
        (
            {"fileData": {"fileUri": "https://a.test/x.png"}},
            Media("image", url="https://a.test/x.png"),
        ),
        (
            {"fileData": {"fileUri": "https://a.test/x", "mimeType": "video/mp4"}, "videoMetadata": {"fps": 1}},
            Media("video", "video/mp4", url="https://a.test/x", extra={"gemini": {"videoMetadata": {"fps": 1}}}),
        ),
        (
            {"fileData": {"fileUri": "https://www.youtube.com/watch?v=1"}},
            Media("video", url="https://www.youtube.com/watch?v=1"),
        ),
        (
            {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc-1"}},
            Media("document", file_id="files/abc-1"),
        ),
        (
            {"fileData": {"fileUri": "gs://bucket/x.pdf", "mimeType": "application/pdf"}},
            Media("document", "application/pdf", file_id="gs://bucket/x.pdf"),
        ),
        ({"executableCode": {"code": "1"}}, Opaque("gemini", {"executableCode": {"code": "1"}})),
        ({"text": "a", "thoughtSignature": "AA=="}, Text("a", extra={"gemini": {"thoughtSignature": "AA=="}})),
        ({"thoughtSignature": "AA=="}, Text("", extra={"gemini": {"thoughtSignature": "AA=="}})),
        ({"text": "a", "thought": True}, Thinking("a", dialect="gemini")),
        ({"text": "a", "thought": False, "inlineData": None}, Text("a")),
    ],
)
def test_each_part_has_its_place(part: Any, wanted: Any) -> None:
    assert parts(part) == [wanted]


def test_an_empty_part_is_nothing() -> None:
    assert parts({}, {"text": None}, "words") == [Text("words")]


def test_a_label_that_cannot_be_read_leaves_a_thought_that_goes_nowhere() -> None:
    broken = {"text": "a", "thought": True, "thoughtSignature": "cmVsYXk6!!"}
    assert parts(broken, role="model")[-1] == Thinking("a")
    call = {"functionCall": {"name": "f", "id": "d"}, "thoughtSignature": "cmVsYXk6!!"}
    assert parts(call, role="model")[-1] == ToolCall("d", "f", "{}")


# Tools.


def test_tools_are_functions_and_what_the_vendor_offers() -> None:
    schema = {"type": "OBJECT", "properties": {"a_b": {"type": "STRING"}}}
    tools = [
        {
            "function_declarations": [
                {"name": "f", "description": "F.", "parameters": schema, "behavior": "BLOCKING"},
                {"name": "g", "parametersJsonSchema": {"type": "object"}},
                {"name": "h"},
            ],
            "googleSearch": {},
        },
        {"codeExecution": {}},
    ]
    plain = {"type": "object", "properties": {"a_b": {"type": "string"}}}
    assert parsed(tools=tools).tools == [
        Tool("f", "F.", plain, extra={"gemini": {"behavior": "BLOCKING"}}),
        Tool("g", parameters={"type": "object"}),
        Tool("h"),
        Opaque("gemini", {"googleSearch": {}}),
        Opaque("gemini", {"codeExecution": {}}),
    ]


FUNCTIONS = [{"functionDeclarations": [{"name": "f"}, {"name": "g"}, {"name": "h"}]}]


@pytest.mark.parametrize(
    ("calling", "choice", "names", "kept"),
    [
        ({}, None, "fgh", {}),
        ({"mode": "MODE_UNSPECIFIED"}, None, "fgh", {}),
        ({"mode": "AUTO"}, ToolChoice("auto"), "fgh", {}),
        ({"mode": "auto"}, ToolChoice("auto"), "fgh", {}),
        ({"mode": "NONE"}, ToolChoice("none"), "fgh", {}),
        ({"mode": "ANY"}, ToolChoice("required"), "fgh", {}),
        ({"mode": "ANY", "allowed_function_names": ["g"]}, ToolChoice("tool", "g"), "fgh", {}),
        ({"mode": "ANY", "allowedFunctionNames": ["g", "h"]}, ToolChoice("required"), "gh", {}),
        ({"mode": "VALIDATED"}, ToolChoice("auto"), "fgh", {"functionCallingConfig": {"mode": "VALIDATED"}}),
        ({"mode": "AUTO", "new": 1}, ToolChoice("auto"), "fgh", {"functionCallingConfig": {"new": 1}}),
    ],
)
def test_who_may_be_called(calling: Any, choice: ToolChoice | None, names: str, kept: Any) -> None:
    request = parsed(tools=FUNCTIONS, tool_config={"function_calling_config": calling})
    assert request.tool_choice == choice
    assert "".join(request.tool_names()) == names
    assert request.own("gemini") == ({"toolConfig": kept} if kept else {})


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        ({"type": "STRING", "format": "enum", "enum": ["A"]}, {"type": "string", "enum": ["A"]}),
        ({"type": "STRING", "nullable": True}, {"type": ["string", "null"]}),
        (
            {"type": "STRING", "nullable": True, "enum": ["A"]},
            {"type": ["string", "null"], "enum": ["A", None]},
        ),
        ({"anyOf": [{"type": "NUMBER"}], "nullable": True}, {"anyOf": [{"type": "number"}, {"type": "null"}]}),
        ({"any_of": [{"type": "NUMBER"}]}, {"anyOf": [{"type": "number"}]}),
        ({"type": "TYPE_UNSPECIFIED", "example": 5, "nullable": False}, {"examples": [5]}),
        (
            {"type": "ARRAY", "minItems": "1", "items": {"type": 1}},
            {"type": "array", "minItems": 1, "items": {"type": "string"}},
        ),
        ({"type": ["string", "null"], "$ref": "#/$defs/x"}, {"type": ["string", "null"], "$ref": "#/$defs/x"}),
        ({"$defs": {"x": {"type": "INTEGER"}}}, {"$defs": {"x": {"type": "integer"}}}),
        ({"additionalProperties": False, "title": None}, {"additionalProperties": False}),
    ],
)
def test_the_vendors_schemas_become_json_schema(schema: Any, wanted: Any) -> None:
    assert json_schema(schema, "s") == wanted


def test_properties_stand_in_the_order_that_is_asked_for() -> None:
    schema = {"properties": {"a": {}, "b": {}, "c": {}}, "propertyOrdering": ["c", "a", "x"]}
    found = json_schema(schema, "s")
    assert list(found["properties"]) == ["c", "a", "b"]
    assert found.keys() == {"properties"}


def test_names_of_properties_are_the_callers() -> None:
    schema = {"type": "OBJECT", "properties": {"any_of": {"type": "STRING"}, "type": {"type": "STRING"}}}
    wanted = {"type": "object", "properties": {"any_of": {"type": "string"}, "type": {"type": "string"}}}
    assert json_schema(schema, "s") == wanted


def test_a_schema_of_any_depth_is_taken() -> None:
    schema: dict[str, Any] = {"type": "STRING"}
    for _ in range(200):
        schema = {"type": "ARRAY", "items": schema}
    text = json.dumps(json_schema(schema, "s"))
    assert text.count('"array"') > 90


# Configuration.


@pytest.mark.parametrize(
    ("thinking", "wanted"),
    [
        ({}, None),
        ({"thinkingBudget": 0}, Reasoning(enabled=False)),
        ({"thinkingBudget": 0, "includeThoughts": True}, Reasoning(enabled=False, summary="auto")),
        ({"thinking_budget": -1}, Reasoning(enabled=True, summary="none")),
        ({"thinkingBudget": 100, "includeThoughts": True}, Reasoning(budget=100, summary="auto")),
        ({"thinkingLevel": "HIGH", "include_thoughts": False}, Reasoning(effort="high", summary="none")),
        ({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"}, None),
        ({"includeThoughts": True}, Reasoning(enabled=True, summary="auto")),
        ({"includeThoughts": False}, None),
    ],
)
def test_how_much_it_may_think(thinking: Any, wanted: Reasoning | None) -> None:
    assert parsed(generationConfig={"thinkingConfig": thinking}).reasoning == wanted


@pytest.mark.parametrize(
    ("config", "output", "kept"),
    [
        ({"responseMimeType": "text/plain"}, None, {}),
        ({"responseMimeType": "application/json"}, Output("json"), {}),
        (
            {"responseSchema": {"type": "STRING"}, "responseMimeType": "application/json"},
            Output("schema", schema={"type": "string"}),
            {},
        ),
        (
            {"response_mime_type": "application/json", "response_json_schema": {"x_y": 1}},
            Output("schema", schema={"x_y": 1}),
            {},
        ),
        ({"responseMimeType": "text/x.enum"}, None, {"responseMimeType": "text/x.enum"}),
    ],
)
def test_the_form_of_the_answer(config: Any, output: Output | None, kept: Any) -> None:
    request = parsed(generationConfig=config)
    assert request.output == output
    assert request.own("gemini") == ({"generationConfig": kept} if kept else {})


def test_numbers_may_be_spelled_as_the_vendor_takes_them() -> None:
    sampling = parsed(
        generationConfig={"maxOutputTokens": "100", "topK": 64.0, "seed": None, "temperature": 1}
    ).sampling
    assert (sampling.max_tokens, sampling.top_k, sampling.seed, sampling.temperature) == (100, 64, None, 1)


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        ({}, {}),
        ({"responseModalities": ["TEXT"], "stopSequences": [], "mediaResolution": "MEDIA_RESOLUTION_UNSPECIFIED"}, {}),
        ({"responseModalities": ["AUDIO"]}, {"responseModalities": ["AUDIO"]}),
        ({"mediaResolution": "MEDIA_RESOLUTION_MEDIUM"}, {"mediaResolution": "MEDIA_RESOLUTION_MEDIUM"}),
        ({"speech_config": {"a_b": 1}}, {"speechConfig": {"a_b": 1}}),
        ({"thinkingConfig": {"newOne": 1}}, {"thinkingConfig": {"newOne": 1}}),
    ],
)
def test_what_else_is_configured_stays_the_vendors(config: Any, kept: Any) -> None:
    assert own(generationConfig=config) == ({"generationConfig": kept} if kept else {})


def test_what_else_is_asked_stays_the_vendors() -> None:
    assert own(cached_content="c", labels={"a_b": "c"}, safetySettings=[], model="m", tools=None) == {
        "cachedContent": "c",
        "labels": {"a_b": "c"},
        "safetySettings": [],
    }


# Faults.


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"contents": "Hi"}, "contents"),
        ({"contents": [{"role": 5}]}, "contents[0].role"),
        ({"contents": [{"role": "system"}]}, "contents[0].role"),
        ({"contents": [{"parts": [5]}]}, "contents[0].parts[0]"),
        ({"contents": [{"parts": [{"text": "a", "thought": "yes"}]}]}, "contents[0].parts[0].thought"),
        ({"contents": [{"parts": [{"inlineData": {"data": "AA=="}}]}]}, "contents[0].parts[0].inlineData.mimeType"),
        ({"contents": [{"parts": [{"fileData": {}}]}]}, "contents[0].parts[0].fileData.fileUri"),
        (
            {"contents": [{"parts": [{"functionCall": {"name": "f", "args": []}}]}]},
            "contents[0].parts[0].functionCall.args",
        ),
        (
            {"contents": [{"parts": [{"functionResponse": {"name": "f", "id": "x", "response": "y"}}]}]},
            "contents[0].parts[0].functionResponse.response",
        ),
        ({"contents": [{"parts": [{"inlineData": {}, "inline_data": {}}]}]}, "contents[0].parts[0]"),
        ({"systemInstruction": 5}, "systemInstruction"),
        ({"tools": [{"functionDeclarations": [{}]}]}, "tools[0].functionDeclarations[0].name"),
        (
            {"tools": [{"functionDeclarations": [{"name": "f", "parameters": 5}]}]},
            "tools[0].functionDeclarations[0].parameters",
        ),
        ({"toolConfig": {"functionCallingConfig": {"mode": "SOME"}}}, "toolConfig.functionCallingConfig.mode"),
        ({"generationConfig": []}, "generationConfig"),
        ({"generationConfig": {"topP": True}}, "generationConfig.topP"),
        ({"generationConfig": {"seed": 1.5}}, "generationConfig.seed"),
        ({"generationConfig": {"stopSequences": [1]}}, "generationConfig.stopSequences[0]"),
        (
            {"generationConfig": {"thinkingConfig": {"thinkingBudget": "x"}}},
            "generationConfig.thinkingConfig.thinkingBudget",
        ),
    ],
)
def test_a_fault_is_named_by_its_path(fields: Any, param: str) -> None:
    with pytest.raises(BadParameter) as raised:
        parsed(**fields)
    assert raised.value.param == param
    assert param in raised.value.message
