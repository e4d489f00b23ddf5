"""Conversations of which most is left out when they are read count for as much as if all of it were."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import relay.outline
from relay import Dialect
from relay.outline import LONG
from relay_anthropic.dialect import AnthropicMessages
from relay_gemini.dialect import GenerateContent
from relay_openai.dialect import OpenAIChat
from relay_openai.responses.dialect import OpenAIResponses
from tests.core.bodies import SPACES, STRING, compiled, values
from tests.effort import times


def several(item: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(item, min_size=1, max_size=4)


def record(needed: dict[str, Any], **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    """An object; what is no strategy is a value."""
    mapped = {name: one if isinstance(one, st.SearchStrategy) else st.just(one) for name, one in needed.items()}
    return st.fixed_dictionaries(mapped, optional=optional)


MARKED = {"cache_control": st.just({"type": "ephemeral"})}
NAMES = st.sampled_from(["path", "größe", "n"])
ARGUMENTS = st.dictionaries(NAMES, values(NAMES), max_size=3)
NUMBERS = st.builds(str, st.integers(0, 999))
TEXT_PART = record({"type": "text", "text": STRING}, **MARKED)
FUNCTION = record({"name": "f", "arguments": STRING})
CALL = record({"id": NUMBERS, "type": "function", "function": FUNCTION})
IMAGE_PART = st.just({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}})
MESSAGES = st.one_of(
    record({"role": "user", "content": st.one_of(STRING, several(TEXT_PART), several(IMAGE_PART))}),
    record({"role": "assistant", "content": st.one_of(st.none(), STRING), "tool_calls": several(CALL)}),
    record({"role": "assistant", "content": STRING}, reasoning_content=STRING, refusal=st.none(), more=STRING),
    record({"role": "tool", "tool_call_id": NUMBERS, "content": STRING}),
)
IMAGE = st.just({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}})
RESULT = record(
    {"type": "tool_result", "tool_use_id": NUMBERS},
    content=st.one_of(STRING, several(st.one_of(TEXT_PART, IMAGE))),
    is_error=st.booleans(),
    **MARKED,
)
BLOCK = st.one_of(
    TEXT_PART,
    record({"type": "thinking", "thinking": STRING, "signature": NUMBERS}),
    record({"type": "tool_use", "id": NUMBERS, "name": "f", "input": ARGUMENTS}, **MARKED),
    RESULT,
    IMAGE,
    record({"type": "server_tool_use", "id": NUMBERS, "input": ARGUMENTS}),
    record({"type": "mcp_tool_use", "id": NUMBERS, "input": {"query": "a"}}),
)
INPUT_PART = record({"type": st.sampled_from(["input_text", "output_text"]), "text": STRING}, annotations=st.just([]))
PICTURE = st.just({"type": "input_image", "image_url": "https://127.0.0.1/a.png"})
ITEM = st.one_of(
    record({"role": "user", "content": st.one_of(STRING, several(st.one_of(INPUT_PART, PICTURE)))}, id=NUMBERS),
    record({"type": "reasoning", "summary": several(record({"type": "summary_text", "text": STRING}))}),
    record({"type": "function_call", "call_id": NUMBERS, "name": STRING, "arguments": STRING}, status=NUMBERS),
    record({"type": "custom_tool_call", "call_id": NUMBERS, "name": STRING, "input": STRING}),
    record({"type": "function_call_output", "output": st.one_of(STRING, several(INPUT_PART))}),
    record({"type": "item_reference", "id": NUMBERS}),
)
ANSWERED = record({"name": "f", "response": ARGUMENTS})
PICTURED = record({"name": "f", "response": {"n": 1}, "parts": several(st.just({"text": "a"}))})
GEMINI_PART = st.one_of(
    record({"text": STRING}, thought=st.booleans(), thoughtSignature=NUMBERS),
    record({"functionCall": record({"name": "f", "args": ARGUMENTS})}, thoughtSignature=NUMBERS),
    record({"functionResponse": st.one_of(ANSWERED, PICTURED)}),
    record({"function_response": ANSWERED}),
    st.just({"inlineData": {"mimeType": "image/png", "data": "AAAA"}}),
)
CONVERSATIONS: dict[str, tuple[Dialect, str, st.SearchStrategy[Any], dict[str, Any]]] = {
    "chat": (OpenAIChat(), "messages", MESSAGES, {"max_tokens": 5}),
    "messages": (
        AnthropicMessages(),
        "messages",
        record({"role": "user", "content": st.one_of(STRING, several(BLOCK))}),
        {"max_tokens": 5, "system": "You " * 99},
    ),
    "responses": (OpenAIResponses(), "input", ITEM, {"instructions": "You " * 99}),
    "gemini": (GenerateContent(), "contents", record({"role": "user", "parts": several(GEMINI_PART)}), {}),
}


@compiled
@settings(deadline=None, max_examples=times(80))
@pytest.mark.parametrize("name", CONVERSATIONS)
@given(st.data(), SPACES, st.booleans())
def test_a_conversation_counts_for_as_much_as_if_all_of_it_were_read(
    name: str, data: st.DataObject, spaces: tuple[str, str], plain: bool
) -> None:
    dialect, field, item, more = CONVERSATIONS[name]
    named = {} if isinstance(dialect, GenerateContent) else {"model": "m"}
    items = data.draw(st.lists(item, min_size=1, max_size=6))
    rest = {"role": "user", "parts" if name == "gemini" else "content": [{"x": "y" * LONG}]}
    raw = json.dumps({**named, field: [*items, rest], **more}, ensure_ascii=plain, separators=spaces).encode()
    with pytest.MonkeyPatch.context() as patch:
        short = dialect.peek(raw, "generate", {"model": "m"}, {})
        patch.setattr(relay.outline, "_outline", None)
        whole = dialect.peek(raw, "generate", {"model": "m"}, {})
    assert short.input_estimate == whole.input_estimate
    assert dialect.repeatable(short) == dialect.repeatable(whole)
    assert short.data == whole.data
