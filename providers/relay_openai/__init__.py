"""Chat Completions and Responses: the dialects `openai-chat` and `openai-responses`, and the family `openai`, which is
every host that is compatible with the first and some that speak the second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from relay import Dialect, Family, Model, ModelListing, Target, Upstream, UpstreamRequest, hookimpl
from relay.errors import UpstreamError
from relay.events import StreamDecoder, StreamMeter
from relay.ir import Loss, Request, Response, Usage
from relay_openai.compose import compose_request
from relay_openai.dialect import OpenAIChat
from relay_openai.family import (
    count_response,
    endpoint_of,
    family,
    models_listing,
    read_error,
    read_response,
    stream_decoder,
    stream_meter,
)
from relay_openai.responses.dialect import OpenAIResponses

__all__ = ["OpenAIChat", "OpenAIResponses"]


@hookimpl
def relay_families() -> Sequence[Family]:
    """The family `openai`."""
    return [family()]


@hookimpl
def relay_dialects() -> Sequence[Dialect]:
    """The dialects `openai-chat` and `openai-responses`."""
    return [OpenAIChat(), OpenAIResponses()]


@hookimpl
def translate_request(request: Request, target: Target, losses: list[Loss]) -> bytes:
    """The body of a Chat Completions request."""
    return compose_request(request, target, losses)


@hookimpl
def endpoint(
    target: Target, operation: str, body: bytes, stream: bool, headers: Mapping[str, str], dialect: str
) -> UpstreamRequest | None:
    """The host's address for this operation."""
    return endpoint_of(target, operation, body, stream, headers, dialect)


@hookimpl
def translate_response(target: Target, body: bytes, dialect: str) -> Response:
    """A complete answer as a hub value."""
    return read_response(target, body, dialect)


@hookimpl
def translate_stream(target: Target, headers: Mapping[str, str], dialect: str) -> StreamDecoder:
    """A decoder for one stream."""
    return stream_decoder(target, headers, dialect)


@hookimpl
def meter_response(target: Target, body: bytes, dialect: str) -> Usage | None:
    """What an answer that passes through used."""
    return count_response(target, body, dialect)


@hookimpl
def meter_stream(target: Target, headers: Mapping[str, str], dialect: str) -> StreamMeter | None:
    """A meter for one stream that passes through."""
    return stream_meter(target, headers, dialect)


@hookimpl
def translate_error(target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """What the host's error means."""
    return read_error(target, status, headers, body)


@hookimpl
def list_models(upstream: Upstream) -> ModelListing | Sequence[Model]:
    """How to ask the host for its models."""
    return models_listing(upstream)
