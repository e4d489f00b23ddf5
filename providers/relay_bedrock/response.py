"""A complete answer as a hub value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay import Target, kit
from relay.errors import UpstreamProtocol
from relay.ir import Choice, Extra, Response
from relay_bedrock.block import parts_of
from relay_bedrock.generation import is_claude
from relay_bedrock.usage import stop_reason, usage_of
from relay_bedrock.wire import DIALECT

__all__ = ["choice_extra", "request_id", "response_of"]

ENDING = ("additionalModelResponseFields", "performanceConfig", "serviceTier", "trace")
"""Fields that tell how the answer came about."""


def request_id(headers: Mapping[str, str]) -> str:
    """The answer's id, which this vendor keeps out of the body."""
    return headers.get("x-amzn-requestid", "")


def choice_extra(fields: Mapping[str, Any]) -> Extra | None:
    """What of an answer the hub has no name for."""
    found = {name: fields[name] for name in ENDING if fields.get(name) is not None}
    return {DIALECT: found} if found else None


def response_of(target: Target, headers: Mapping[str, str], body: bytes) -> Response:
    """The answer in `body`. Raises UpstreamProtocol if it is none."""
    answer = kit.upstream_json(body)
    output = answer.get("output")
    message = output.get("message") if isinstance(output, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        raise UpstreamProtocol("the upstream's answer is not a message: it has no list of content")
    reason, usage = answer.get("stopReason"), answer.get("usage")
    return Response(
        id=request_id(headers),
        model=target.model,
        choices=[
            Choice(
                parts=parts_of(content, claude=is_claude(target)),
                stop=stop_reason(reason) if isinstance(reason, str) else None,
                extra=choice_extra(answer),
            )
        ],
        usage=usage_of(usage) if isinstance(usage, dict) else None,
    )
