"""An upstream that plays scripts, and scripts of Chat Completions for it."""

from __future__ import annotations

import json
from typing import Any

from relay.testing.upstream import LAST_CHUNK, STREAM_HEAD, FakeUpstream, Seen, Step, chunk, http, stream

__all__ = [
    "DONE",
    "LAST_CHUNK",
    "STREAM_HEAD",
    "USAGE",
    "FakeUpstream",
    "Seen",
    "Step",
    "chat_answer",
    "chat_chunk",
    "chat_stream",
    "chunk",
    "http",
    "stream",
]


def chat_chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    """One event of a chat stream."""
    value: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "m-1",
        "choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}],
        **more,
    }
    return b"data: " + json.dumps(value).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}


def chat_stream(text: str = "Hello there") -> list[Step]:
    """A good stream: the text word by word, the finish, the usage, the end."""
    words = [word if number == 0 else f" {word}" for number, word in enumerate(text.split(" "))]
    return stream(
        chat_chunk({"role": "assistant", "content": ""}),
        *(chat_chunk({"content": word}) for word in words),
        chat_chunk(finish="stop"),
        chat_chunk(choices=[], usage=USAGE),
        DONE,
    )


def chat_answer(text: str = "Hello there", **more: Any) -> list[Step]:
    """A good complete answer."""
    return http(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1700000000,
            "model": "m-1",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": USAGE,
            **more,
        }
    )
