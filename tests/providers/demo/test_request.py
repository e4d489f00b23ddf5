"""The demo says what it does not do."""

from __future__ import annotations

import json
from typing import Any

import pytest

import relay_demo
from relay import Target, Upstream
from relay.errors import Unsupported
from relay.ir import (
    Loss,
    Media,
    Message,
    Opaque,
    Output,
    Reasoning,
    Request,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)

TARGET = Target(Upstream(name="demo", family="demo", base_url="demo:"), "demo-echo")


def ask(**fields: Any) -> tuple[dict[str, Any], list[str]]:
    """The body for a request with these fields, and the fields that were lost."""
    fields.setdefault("messages", [Message("user", [Text("Hi")])])
    losses: list[Loss] = []
    body = relay_demo.translate_request(Request(model="m", **fields), TARGET, losses)
    return json.loads(body), [loss.field for loss in losses]


def test_a_plain_question_loses_nothing() -> None:
    tool = Tool("look")
    body, lost = ask(
        sampling=Sampling(max_tokens=5, choices=1), tools=[tool], parallel_tools=True, user="u", stream=True
    )
    assert lost == []
    assert body == {
        "model": "demo-echo",
        "messages": [{"role": "user", "text": "Hi"}],
        "stream": True,
        "max_tokens": 5,
        "tools": [{"name": "look", "schema": None}],
        "must_call": False,
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 0.0),
        ("temperature", 1.0),
        ("top_p", 0.5),
        ("top_k", 1),
        ("seed", 0),
        ("frequency_penalty", 0.5),
        ("presence_penalty", -0.5),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("stop", ["END"]),
    ],
)
def test_sampling_that_it_does_not_do_is_a_loss(field: str, value: object) -> None:
    assert ask(sampling=Sampling(**{field: value})) == (ask()[0], [field])


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(top_p=1.0),
        Sampling(frequency_penalty=0.0, presence_penalty=0),
        Sampling(logprobs=False, top_logprobs=0),
        Sampling(stop=[]),
    ],
)
def test_sampling_that_asks_for_nothing_is_none(sampling: Sampling) -> None:
    assert ask(sampling=sampling)[1] == []


@pytest.mark.parametrize("kind", ["json", "schema"])
def test_a_form_of_the_answer_is_a_loss(kind: Any) -> None:
    assert ask(output=Output(kind))[1] == ["response_format"]
    assert ask(output=Output("text"))[1] == []


def test_thinking_is_a_loss_unless_it_is_to_be_off() -> None:
    assert ask(reasoning=Reasoning(effort="low"))[1] == ["reasoning_effort"]
    assert ask(reasoning=Reasoning(effort="none"))[1] == []
    assert ask(reasoning=Reasoning(enabled=False))[1] == []


def test_tools_that_are_no_functions_are_losses() -> None:
    body, lost = ask(tools=[Tool("look"), Opaque("openai-chat", {"type": "custom", "custom": {"name": "patch"}})])
    assert lost == ["tools[1]"]
    assert [tool["name"] for tool in body["tools"]] == ["look"]


def test_fields_of_the_callers_dialect_are_losses() -> None:
    fields = {"logit_bias": {"1": 5}, "store": True, "web_search_options": {}}
    assert ask(extra={"openai-chat": fields})[1] == ["logit_bias", "web_search_options"]


def test_what_it_cannot_read_is_a_loss_wherever_it_stands() -> None:
    image = Media("image", "image/png", data="aGk=")
    messages = [
        Message("user", [Text("See "), image], name="ann"),
        Message("assistant", [ToolCall("1", "look", "{}")]),
        Message("user", [ToolResult("1", [Text("this"), image])]),
    ]
    body, lost = ask(messages=messages)
    assert lost == ["messages[].name", "messages[0].content", "messages[2].content"]
    assert [message["text"] for message in body["messages"]] == ["See ", "", "this"]


def test_several_answers_are_refused() -> None:
    with pytest.raises(Unsupported) as refused:
        ask(sampling=Sampling(choices=2))
    assert refused.value.param == "n"
