"""The Messages API: the dialect `anthropic-messages`, and the family `anthropic` with every server that speaks it.

Settings of an upstream's `options` table:

* `max_tokens`: what to ask for where the caller sets no limit (the vendor requires one). Default: 32,000, or the
  most that an older model allows.
* `thinking`: `adaptive`, `budget` or `none`, where the model's name does not tell (see `generation.py`).
* `system_messages`: `native` sends system messages that stand between turns as such, which only newer models accept;
  otherwise they are sent as user text in the same place.
* `auth`: `bearer` for servers that expect `Authorization: Bearer` in place of `x-api-key`.
* `beta`: one or more names for the `anthropic-beta` header, unless the caller sends its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from relay import Dialect, Family, Host, ModelListing, Target, Upstream, UpstreamRequest, hookimpl
from relay.errors import UpstreamError
from relay.events import StreamDecoder, StreamMeter
from relay.ir import Loss, Request, Response, Usage
from relay.kit import upstream_json
from relay_anthropic import errors
from relay_anthropic.block import DIALECT
from relay_anthropic.dialect import AnthropicMessages
from relay_anthropic.endpoint import endpoint_of
from relay_anthropic.losses import LOSSES
from relay_anthropic.models import listing_of
from relay_anthropic.request import body_of, count_body
from relay_anthropic.response import count_of, response_of
from relay_anthropic.skim import messages_meter
from relay_anthropic.stream import MessagesDecoder

__all__ = ["FAMILY", "AnthropicMessages"]

FAMILY = Family(
    "anthropic",
    dialects=frozenset({DIALECT}),
    hosts=(
        Host(
            "anthropic",
            "https://api.anthropic.com",
            env=("ANTHROPIC_API_KEY",),
            base_url_env=("ANTHROPIC_BASE_URL",),
            models=("claude-*",),
        ),
    ),
    capabilities={
        "chat": True,
        "streaming": True,
        "function_calling": True,
        "vision": True,
        "structured_output": True,
        "reasoning": True,
    },
    losses=LOSSES,
    options=frozenset({"max_tokens", "thinking", "system_messages", "auth", "beta"}),
)


@hookimpl
def relay_families() -> Sequence[Family]:
    """The one family of this plugin."""
    return [FAMILY]


@hookimpl
def relay_dialects() -> Sequence[Dialect]:
    """The dialect `anthropic-messages`."""
    return [AnthropicMessages()]


@hookimpl
def translate_request(request: Request, target: Target, losses: list[Loss]) -> bytes:
    """A Messages body."""
    return body_of(request, target, losses)


@hookimpl
def count_request(request: Request, target: Target) -> bytes:
    """A body of `count_tokens`."""
    return count_body(request, target)


@hookimpl
def count_response(body: bytes) -> Any:
    """Its `input_tokens`."""
    return upstream_json(body).get("input_tokens")


@hookimpl
def endpoint(target: Target, operation: str, body: bytes, headers: Mapping[str, str]) -> UpstreamRequest:
    """`/v1/messages` or `/v1/messages/count_tokens`, with the relay's key and the caller's API version."""
    return endpoint_of(target, operation, body, headers)


@hookimpl
def translate_response(body: bytes) -> Response:
    """A complete message."""
    return response_of(body)


@hookimpl
def translate_stream() -> StreamDecoder:
    """A decoder for one stream."""
    return MessagesDecoder()


@hookimpl
def meter_response(body: bytes) -> Usage | None:
    """What an answer that passes through used."""
    return count_of(body)


@hookimpl
def meter_stream() -> StreamMeter:
    """A meter for one stream that passes through."""
    return messages_meter()


@hookimpl
def translate_error(target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """The vendor's error, in its own words."""
    return errors.translate_error(target, status, headers, body)


@hookimpl
def list_models(upstream: Upstream) -> ModelListing:
    """`/v1/models`."""
    return listing_of(upstream)
