"""Chat Completions: the dialect `openai-chat` and the family `openai` with every host that is compatible with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from relay import Dialect, Family, Model, ModelListing, Target, Upstream, UpstreamRequest, hookimpl
from relay.errors import UpstreamError
from relay.events import StreamDecoder, StreamMeter
from relay.ir import Loss, Request, Response, Usage
from relay_openai.compose import compose_request
from relay_openai.dialect import OpenAIChat
from relay_openai.family import (
    chat_endpoint,
    count_response,
    family,
    models_listing,
    read_error,
    read_response,
    stream_decoder,
    stream_meter,
)

__all__ = ["OpenAIChat"]


@hookimpl
def relay_families() -> Sequence[Family]:
    """The family `openai`."""
    return [family()]


@hookimpl
def relay_dialects() -> Sequence[Dialect]:
    """The dialect `openai-chat`."""
    return [OpenAIChat()]


@hookimpl
def translate_request(request: Request, target: Target, losses: list[Loss]) -> bytes:
    """The body of a Chat Completions request."""
    return compose_request(request, target, losses)


@hookimpl
def endpoint(
    target: Target, operation: str, body: bytes, stream: bool, headers: Mapping[str, str]
) -> UpstreamRequest | None:
    """The host's address for this operation."""
    return chat_endpoint(target, operation, body, stream, headers)


@hookimpl
def translate_response(target: Target, body: bytes) -> Response:
    """A complete answer as a hub value."""
    return read_response(target, body)


@hookimpl
def translate_stream(target: Target, headers: Mapping[str, str]) -> StreamDecoder:
    """A decoder for one stream."""
    return stream_decoder(target, headers)


@hookimpl
def meter_response(target: Target, body: bytes) -> Usage | None:
    """What an answer that passes through used."""
    return count_response(target, body)


@hookimpl
def meter_stream(target: Target, headers: Mapping[str, str]) -> StreamMeter | None:
    """A meter for one stream that passes through."""
    return stream_meter(target, headers)


@hookimpl
def translate_error(target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """What the host's error means."""
    return read_error(target, status, headers, body)


@hookimpl
def list_models(upstream: Upstream) -> ModelListing | Sequence[Model]:
    """How to ask the host for its models."""
    return models_listing(upstream)
