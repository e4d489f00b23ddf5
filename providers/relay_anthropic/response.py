"""A complete answer as a hub value."""

from __future__ import annotations

from typing import Any

from relay import kit
from relay.errors import UpstreamProtocol
from relay.ir import Choice, Extra, Response, Usage
from relay_anthropic.block import DIALECT, part_of
from relay_anthropic.errors import error_of
from relay_anthropic.usage import stop_reason, usage_of

__all__ = ["choice_extra", "count_of", "message_extra", "response_of"]

ENDING = frozenset({"stop_details", "container", "context_management"})
"""Fields that a stream tells at its end: they belong to the choice, wherever they stand."""
KNOWN = frozenset({"id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"})


def response_of(body: bytes) -> Response:
    """The answer in `body`. Raises UpstreamError if it holds an error, UpstreamProtocol if it is no message."""
    message = kit.upstream_json(body)
    if message.get("type") == "error" or "content" not in message:
        if isinstance(message.get("error"), dict):
            raise error_of(message)
        raise UpstreamProtocol("the upstream's answer is not a message: it has no content")
    content = message["content"]
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise UpstreamProtocol("the upstream's answer is not a message: its content is not a list of blocks")
    reason = message.get("stop_reason")
    usage = message.get("usage")
    return Response(
        id=str(message.get("id") or ""),
        model=str(message.get("model") or ""),
        choices=[
            Choice(
                parts=[part_of(block) for block in content],
                stop=stop_reason(reason, message.get("stop_sequence")) if isinstance(reason, str) else None,
                extra=choice_extra(message),
            )
        ],
        usage=usage_of(usage) if isinstance(usage, dict) else None,
        extra=message_extra(message),
    )


def count_of(body: bytes) -> Usage | None:
    """What the answer in `body` used; None, for the full reading to judge, unless it plainly is an answer."""
    message = kit.upstream_json(body)
    usage = message.get("usage")
    if message.get("type") != "message" or "content" not in message or not isinstance(usage, dict):
        return None
    return usage_of(usage)


def message_extra(message: dict[str, Any]) -> Extra | None:
    """The fields of a message that the hub has no name for and that are known from its beginning."""
    return _extra(message, {name for name in message if name not in KNOWN and name not in ENDING})


def choice_extra(message: dict[str, Any]) -> Extra | None:
    """The fields of a message that tell how it ended."""
    return _extra(message, ENDING)


def _extra(message: dict[str, Any], names: set[str] | frozenset[str]) -> Extra | None:
    fields = {name: message[name] for name in sorted(names) if message.get(name) is not None}
    return {DIALECT: fields} if fields else None
