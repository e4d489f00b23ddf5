"""Complete answers: `chat.completion` objects to the hub and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from relay import Secret
from relay.errors import UpstreamProtocol
from relay.events import Event
from relay.fold import Fold
from relay.ir import Choice, Media, Opaque, Refusal, Response, Text, Thinking, ToolCall
from relay.kit import dumps
from relay_openai.fault import is_fault, upstream_error
from relay_openai.reader import Reader
from relay_openai.shapes import audio_object, call_object, citations_shown, image_object, thinking_details
from relay_openai.usage import encode_usage
from relay_openai.wire import DIALECT, FINISH_WORDS, own_fields

__all__ = ["decode_response", "encode_response"]


def decode_response(
    body: dict[str, Any], raw: bytes, secret: Secret | None = None, reader: Reader | None = None
) -> Response:
    """The answer that `body` (parsed from `raw`) holds.

    Raises UpstreamError if it tells of an error, UpstreamProtocol if it is not a completion.
    """
    if is_fault(body):
        raise upstream_error(body, raw, None, {}, secret)
    choices = body.get("choices")
    if not isinstance(choices, list) or not any(isinstance(choice, dict) for choice in choices):
        raise UpstreamProtocol("the upstream's answer is not a completion: it has no choices")
    events: list[Event] = []
    reader = reader or Reader(whole=True)
    reader.read(body, events)
    reader.finish(events)
    fold = Fold()
    fold.add(events)
    return fold.response()


@dataclass(slots=True)
class _Message:
    """A message while its parts are collected."""

    customs: frozenset[str]
    texts: list[str] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    """The content as a list, used only if it holds more than text."""
    listed: bool = False
    reasoning: list[str] = field(default_factory=list)
    details: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    audio: dict[str, Any] | None = None


def _text(message: _Message, part: Text) -> None:
    if part.citations:
        start = sum(map(len, message.texts))
        message.annotations.extend(citations_shown(part.citations, start, start + len(part.text)))
    message.texts.append(part.text)
    message.items.append({"type": "text", "text": part.text})


def _thinking(message: _Message, part: Thinking) -> None:
    if part.text:
        message.reasoning.append(part.text)
    message.details.extend(thinking_details(part, part.text, part.signature, len(message.details)))


def _refusal(message: _Message, part: Refusal) -> None:
    message.refusals.append(part.text)


def _call(message: _Message, part: ToolCall) -> None:
    # A tool that the upstream ran by itself is none of the client's: it would try to run it again.
    if not part.server:
        message.calls.append(call_object(part, part.arguments, message.customs))


def _media(message: _Message, part: Media) -> None:
    if part.kind == "audio":
        message.audio = audio_object(part)
    elif part.kind == "image" and (image := image_object(part, len(message.images))) is not None:
        message.images.append(image)


def _opaque(message: _Message, part: Opaque) -> None:
    if part.dialect == DIALECT and isinstance(part.data, dict):
        message.items.append(part.data)
        message.listed = True


_PARTS: dict[type[Any], Callable[[_Message, Any], None]] = {
    Text: _text,
    Thinking: _thinking,
    Refusal: _refusal,
    ToolCall: _call,
    Media: _media,
    Opaque: _opaque,
}
"""Parts that a message of this format can hold; results of tools that the upstream ran have no place in it."""


def _message(choice: Choice, *, legacy: bool, customs: frozenset[str]) -> dict[str, Any]:
    message = _Message(customs)
    for part in choice.parts:
        add = _PARTS.get(type(part))
        if add is not None:
            add(message, part)
    content: Any = "".join(message.texts)
    if message.listed:
        content = message.items
    elif not content and (message.calls or message.refusals or message.audio):
        content = None
    body: dict[str, Any] = {
        "role": "assistant",
        "content": content,
        "refusal": "".join(message.refusals) if message.refusals else None,
    }
    if message.reasoning:
        body["reasoning_content"] = "".join(message.reasoning)
    if message.details:
        body["reasoning_details"] = message.details
    if message.annotations:
        body["annotations"] = message.annotations
    if message.calls and legacy and "function" in message.calls[0]:
        body["function_call"] = message.calls[0]["function"]
    elif message.calls:
        body["tool_calls"] = message.calls
    if message.images:
        body["images"] = message.images
    if message.audio is not None:
        body["audio"] = message.audio
    for key, value in own_fields(choice.extra).get("message", {}).items():
        body.setdefault(key, value)
    return body


def encode_response(
    response: Response,
    *,
    model: str,
    created: int,
    new_id: str,
    legacy: bool = False,
    customs: frozenset[str] = frozenset(),
) -> bytes:
    """`response` as a `chat.completion`.

    `model`, `created` (Unix seconds) and `new_id` stand in where the upstream gave none. `legacy` answers a caller who
    offered `functions` and so waits for a `function_call`. `customs` are the caller's custom tools: their calls are of
    their own kind, whatever the model takes them for.
    """
    choices = []
    for number, choice in enumerate(response.choices):
        word = FINISH_WORDS[choice.stop.kind] if choice.stop else None
        fields = own_fields(choice.extra)
        refusals = fields.get("refusal_logprobs")
        logprobs = {"content": choice.logprobs, "refusal": refusals} if choice.logprobs or refusals else None
        choices.append(
            {
                "index": number,
                "message": _message(choice, legacy=legacy, customs=customs),
                "logprobs": logprobs,
                "finish_reason": "function_call" if legacy and word == "tool_calls" else word,
                **{key: value for key, value in fields.items() if key not in ("message", "refusal_logprobs")},
            }
        )
    body: dict[str, Any] = {
        "id": response.id or new_id,
        "object": "chat.completion",
        "created": response.created if response.created is not None else created,
        "model": response.model or model,
        "choices": choices,
    }
    usage = encode_usage(response.usage) if response.usage else None
    if usage:
        body["usage"] = usage
    for key, value in own_fields(response.extra).items():
        body.setdefault(key, value)
    return dumps(body)
