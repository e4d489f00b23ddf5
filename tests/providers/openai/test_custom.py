"""Custom tools of Chat Completions, whose input is free text, on models that know nothing but functions."""

from __future__ import annotations

import json

import pytest

from relay import Head, Target, Upstream
from relay.events import ArgumentsDelta, ChoiceStop, MessageStart, MessageStop, PartStart, PartStop
from relay.ir import Choice, Loss, Response, StopReason, Tool, ToolCall
from relay_anthropic.request import body_of
from relay_openai.dialect import OpenAIChat
from tests.providers.openai.test_encoder import deltas

STOP = StopReason("tool_calls", "tool_calls")
CLAUDE = Target(Upstream("up", "anthropic", "https://upstream.test"), "claude-sonnet-4-5")


PATCH = {
    "type": "custom",
    "custom": {
        "name": "patch",
        "description": "Changes files.",
        "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: X"}},
    },
}


def test_a_custom_tool_is_a_function_for_models_that_know_no_other() -> None:
    data = {"model": "m", "messages": [{"role": "user", "content": "Go"}], "tools": [PATCH]}
    request = OpenAIChat().parse(Head("generate", "m", b"", data))
    (tool,) = request.tools
    assert isinstance(tool, Tool)
    assert tool.description == "Changes files.\n\nThe input must match this lark grammar:\nstart: X"
    assert tool.parameters is not None
    assert tool.parameters["required"] == ["input"]
    lost: list[Loss] = []
    body = json.loads(body_of(request, CLAUDE, lost))
    assert body["tools"][0]["name"] == "patch"
    assert [(loss.field, loss.hint) for loss in lost] == [("tools[0].format", True)]


@pytest.mark.parametrize("arguments", ['{"input": "*** Begin \\"x\\"\\n"}', '*** Begin "x"\n'])
def test_its_call_is_again_what_the_client_expects(arguments: str) -> None:
    head = Head("generate", "m", b"", {"tools": [PATCH]}, stream=True)
    wanted = {"name": "patch", "input": '*** Begin "x"\n'}
    call = ToolCall("c", "patch", arguments)
    whole = json.loads(OpenAIChat().encode_response(Response("r", "m", [Choice([call], STOP)]), head))
    assert whole["choices"][0]["message"]["tool_calls"] == [{"id": "c", "type": "custom", "custom": wanted}]
    pieces = [ArgumentsDelta(0, letter) for letter in arguments]
    events = [MessageStart("r", "m"), PartStart(0, ToolCall("c", "patch", "")), *pieces, PartStop(0)]
    events += [ChoiceStop(STOP), MessageStop()]
    shown = [d["tool_calls"][0] for d in deltas(OpenAIChat().stream_encoder(head).encode(events)) if "tool_calls" in d]
    assert shown[0] == {"index": 0, "id": "c", "type": "custom", "custom": {**wanted, "input": ""}}
    assert "".join(one["custom"]["input"] for one in shown) == wanted["input"]


def test_its_calls_come_back_from_the_client_as_calls_of_that_function() -> None:
    called = {"id": "c", "type": "custom", "custom": {"name": "patch", "input": "*** Begin"}}
    messages = [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "c", "content": "Done"},
    ]
    request = OpenAIChat().parse(Head("generate", "m", b"", {"model": "m", "messages": messages, "tools": [PATCH]}))
    lost: list[Loss] = []
    body = json.loads(body_of(request, CLAUDE, lost))
    assert body["messages"][1]["content"][0]["input"] == {"input": "*** Begin"}
    assert [loss.field for loss in lost] == ["tools[0].format"]
