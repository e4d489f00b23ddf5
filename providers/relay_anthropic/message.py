"""Complete answers: the hub's response as a `message` object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from relay.ir import Choice, Media, Opaque, Part, Refusal, Response, Text, Thinking, ToolCall
from relay.kit import dumps
from relay_anthropic.block import DIALECT
from relay_anthropic.citation import citation_blocks
from relay_anthropic.foreign import label_of
from relay_anthropic.shapes import (
    call_block,
    is_silent,
    media_block,
    own_fields,
    stop_word,
    tool_input,
    usage_object,
)

__all__ = ["message_body"]

Block = dict[str, Any]


def message_body(response: Response, *, model: str, new_id: str) -> bytes:
    """The message, from the first choice: callers of this dialect cannot ask for more.

    `model` and `new_id` stand in where the upstream named neither. What this format has no block for (answers of tools
    that another vendor ran) is left out.
    """
    choice = response.choices[0] if response.choices else Choice(parts=[])
    content = [block for part in choice.parts if (block := _block(part)) is not None]
    called = any(isinstance(part, ToolCall) and not part.server for part in choice.parts)
    refused = any(isinstance(part, Refusal) for part in choice.parts)
    return dumps(
        {
            "id": response.id or new_id,
            "type": "message",
            "role": "assistant",
            "model": response.model or model,
            "content": content,
            "stop_reason": stop_word(choice.stop, called=called, refused=refused),
            "stop_sequence": None if choice.stop is None else choice.stop.sequence,
            "usage": usage_object(response.usage),
            **own_fields(response.extra),
            **own_fields(choice.extra),
        }
    )


def _block(part: Part) -> Block | None:
    write = _BLOCKS.get(type(part))
    return None if write is None else write(part)


def _text(part: Text) -> Block | None:
    if is_silent(part):
        return None
    block: Block = {"type": "text", "text": part.text}
    if citations := citation_blocks(part.citations):
        block["citations"] = citations
    return {**block, **own_fields(part.extra)}


def _refusal(part: Refusal) -> Block:
    return {"type": "text", "text": part.text}


def _thinking(part: Thinking) -> Block:
    own = part.dialect == DIALECT
    signature = (part.signature or "") if own else label_of(part.dialect, part.signature, part.extra)
    fields = own_fields(part.extra)
    if part.redacted:
        return {"type": "redacted_thinking", "data": signature, **fields}
    return {"type": "thinking", "thinking": part.text, "signature": signature, **fields}


def _call(part: ToolCall) -> Block | None:
    block = call_block(part)
    return None if block is None else {**block, "input": tool_input(part.arguments)}


def _opaque(part: Opaque) -> Block | None:
    return part.data if part.dialect == DIALECT and isinstance(part.data, dict) else None


_BLOCKS: dict[type[Any], Callable[[Any], Block | None]] = {
    Text: _text,
    Refusal: _refusal,
    Thinking: _thinking,
    ToolCall: _call,
    Media: media_block,
    Opaque: _opaque,
}
