"""What a recording says, read naively: plain dict work that shares nothing with the relay."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tests.replay.readings import bedrock, chat, gemini, messages, responses
from tests.replay.said import Reading, frames, objects, status_in, words_of


class Reader(Protocol):
    def __call__(self, body: bytes, *, streaming: bool) -> Reading: ...


READERS: Mapping[str, Reader] = {
    "openai-chat": chat.read,
    "openai-responses": responses.read,
    "anthropic-messages": messages.read,
    "gemini": gemini.read,
    "bedrock-converse": bedrock.read,
}
ENDED: Mapping[str, Callable[..., bool]] = {
    "openai-chat": chat.ended,
    "openai-responses": responses.ended,
    "anthropic-messages": messages.ended,
    "gemini": gemini.ended,
    "bedrock-converse": bedrock.ended,
}


def read(exchange: dict[str, Any]) -> Reading:
    """What the recorded answer says."""
    return READERS[exchange["dialect"]](exchange["body"], streaming=exchange["streaming"])


@dataclass
class Told:
    """An error: its status (None where it names none) and its words."""

    status: int | None
    words: str


def failure(exchange: dict[str, Any]) -> Told | None:
    """The error that the answer is or holds; None if it is a good one, or only cut short."""
    body: bytes = exchange["body"]
    if exchange["status"] >= 400:
        last = frames(body)[-1:] if exchange["streaming"] else []
        return Told(exchange["status"], words_of(last[0][1] if last else body))
    if not exchange["streaming"]:
        value = json.loads(body)
        found = [value] if isinstance(value, dict) else value
        bad = [one for one in found if one.get("error") and not (one.get("choices") or one.get("output"))]
        return Told(status_in(bad[0]["error"]), words_of(json.dumps(bad[0]).encode())) if bad else None
    if body.lstrip().startswith(b"[") or exchange["dialect"] == "bedrock-converse":
        return None
    for value in reversed(objects(body)):
        error = value.get("error")
        if value.get("type") == "response.failed":
            error = value["response"].get("error") or {}
            return Told(FAILED_STATUS.get(error.get("code")), words_of(json.dumps(value).encode()))
        if error and not value.get("choices"):
            return Told(status_in(error), words_of(json.dumps(value).encode()))
    return None


FAILED_STATUS = {"rate_limit_exceeded": 429, "insufficient_quota": 402, "server_is_overloaded": 503}
"""The HTTP status that the code of a failed Responses answer stands for, where it is not a plain failure."""


def silent(exchange: dict[str, Any]) -> bool:
    """Whether the host never says why the model stopped: such hosts are configured with the option made for that."""
    return exchange["dialect"] == "openai-chat" and exchange["streaming"] and chat.silent(exchange["body"])


def waits(exchange: dict[str, Any]) -> bool:
    """Whether the answer is one in the background, which only clients of its own dialect can come back for."""
    whole = exchange["dialect"] == "openai-responses" and not exchange["streaming"]
    return whole and exchange["status"] < 300 and responses.waiting(exchange["body"])
