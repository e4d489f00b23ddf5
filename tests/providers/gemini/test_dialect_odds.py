"""What hosts say that this dialect's clients could not read, and what real clients of it send."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay import Head
from relay.errors import BadParameter
from relay.fold import unfold
from relay.ir import Choice, Response, StopReason, Text, Tool, ToolCall, Usage
from relay_gemini.dialect import GenerateContent
from relay_gemini.schema import json_schema

DIALECT = GenerateContent(new_id=lambda: "r-1")


def head(*, stream: bool = True) -> Head:
    return Head("generate", "m", b"{}", {"contents": []}, stream=stream)


def frames(response: Response) -> list[Any]:
    written = DIALECT.stream_encoder(head()).encode(unfold(response))
    events = written.decode().split("\n\n")
    assert events.pop() == ""
    return [json.loads(event.removeprefix("data: ")) for event in events]


def answer(*parts: Any, **fields: Any) -> Response:
    return Response("r", "m", [Choice(list(parts), StopReason("stop"))], **fields)


def test_arguments_on_several_lines_stay_inside_of_their_event() -> None:
    call = ToolCall("c", "look", '{\n  "at": "the\\nsky",\r\n  "n": 1\n}')
    found = [part for frame in frames(answer(call)) for part in frame["candidates"][0]["content"]["parts"]]
    assert found[0]["functionCall"]["args"] == {"at": "the\nsky", "n": 1}


@pytest.mark.parametrize("created", [1753996100000, 10**30, -(10**18)])
def test_a_time_beyond_all_calendars_is_left_out(created: int) -> None:
    response = answer(Text("Hi"), created=created)
    assert all("createTime" not in frame for frame in frames(response))
    assert "createTime" not in json.loads(DIALECT.encode_response(response, head(stream=False)))


def test_more_thinking_than_output_adds_nothing_to_the_output() -> None:
    usage = json.loads(
        DIALECT.encode_response(answer(Text("Hi"), usage=Usage(input=10, output=16, reasoning=19)), head(stream=False))
    )["usageMetadata"]
    assert usage["candidatesTokenCount"] + usage["thoughtsTokenCount"] == 16
    assert usage["totalTokenCount"] == 26


def test_one_tool_may_stand_without_its_list() -> None:
    function = {"name": "look", "parameters": {"type": "OBJECT", "properties": {"at": {"type": "STRING"}}}}
    for tools in (
        {"function_declarations": [function]},
        [{"functionDeclarations": function}],
        {"functionDeclarations": function},
    ):
        raw = json.dumps({"contents": [{"parts": [{"text": "Hi"}]}], "tools": tools}).encode()
        read = DIALECT.peek(raw, "generate", {"model": "m"}, {})
        assert read.has_tools
        ((path, tool),) = DIALECT.tools(read)
        assert path == "tools[0].functionDeclarations[0].parameters"
        assert isinstance(tool, Tool)
        assert DIALECT.parse(read).tools == [tool]
    with pytest.raises(BadParameter, match="tools must be an array"):
        DIALECT.peek(b'{"contents":[{"parts":[{"text":"Hi"}]}],"tools":"look"}', "generate", {"model": "m"}, {})


def test_types_may_be_told_by_their_number() -> None:
    schema = {"type": 6, "properties": {"a": {"type": 5, "items": {"type": 3}}, "b": {"type": 99}}}
    assert json_schema(schema, "p") == {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"type": "integer"}}, "b": {"type": 99}},
    }
