"""The vendor's own SDK as oracle: it must parse what the relay writes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from relay import Head
from relay.events import (
    ArgumentsDelta,
    ChoiceStop,
    Event,
    Logprobs,
    MessageStart,
    MessageStop,
    PartExtra,
    PartStart,
    PartStop,
    TextDelta,
    ThinkingDelta,
    UsageSeen,
)
from relay.fold import Fold
from relay.ir import Citation, Refusal, StopKind, StopReason, Text, Thinking, ToolCall, Usage
from relay_openai.dialect import OpenAIChat

TOKEN = {"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": []}
EVENTS: list[Event] = [
    MessageStart("msg_1", "m", 5),
    PartStart(0, Thinking("", dialect="other")),
    ThinkingDelta(0, "Hm"),
    PartStop(0),
    PartStart(1, Text("")),
    TextDelta(1, "Hello"),
    PartExtra(1, citation=Citation("https://x.test", "X")),
    PartStop(1),
    PartStart(2, Refusal("")),
    TextDelta(2, "No"),
    PartStop(2),
    PartStart(3, ToolCall("a", "f", "")),
    ArgumentsDelta(3, "{}"),
    PartStop(3),
    PartStart(4, Text(""), 1),
    TextDelta(4, "Other"),
    PartStop(4),
    Logprobs([TOKEN]),
    ChoiceStop(StopReason("tool_calls")),
    ChoiceStop(StopReason("filter"), 1),
    UsageSeen(Usage(10, 5, cache_read=4, cache_write_5m=1, reasoning=2, audio_in=0, audio_out=0)),
    MessageStop(),
]
HEAD = Head("generate", "m", b"", {"stream_options": {"include_usage": True}})


def test_the_sdk_validates_a_complete_answer() -> None:
    fold = Fold()
    fold.add(EVENTS)
    answer = ChatCompletion.model_validate(json.loads(OpenAIChat().encode_response(fold.response(), HEAD)), strict=True)
    message = answer.choices[0].message
    assert (message.content, message.refusal) == ("Hello", "No")
    assert message.tool_calls is not None
    assert message.tool_calls[0].id == "a"
    assert message.annotations is not None
    assert message.annotations[0].url_citation.url == "https://x.test"
    assert answer.choices[1].finish_reason == "content_filter"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 15
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 2


def frames(events: list[Event]) -> list[Any]:
    data = OpenAIChat().stream_encoder(HEAD).encode(events).decode()
    lines = [line.removeprefix("data: ") for line in data.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [ChatCompletionChunk.model_validate(json.loads(line), strict=True) for line in lines]


def test_the_sdk_validates_every_chunk() -> None:
    chunks = frames(EVENTS)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices and c.choices[0].index == 0) == "Hello"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 15


@pytest.mark.parametrize("kind", ["stop", "length", "tool_calls", "filter", "other"])
def test_the_sdk_knows_every_word_for_a_stop(kind: StopKind) -> None:
    chunks = frames([MessageStart("c", "m"), ChoiceStop(StopReason(kind)), MessageStop()])
    assert chunks[-1].choices[0].finish_reason
