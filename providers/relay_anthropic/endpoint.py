"""Where requests go, and with which headers."""

from __future__ import annotations

from collections.abc import Mapping

from relay import Target, Upstream, UpstreamRequest
from relay.errors import Unsupported

__all__ = ["endpoint_of", "headers_of", "root_of"]

VERSION = "2023-06-01"
PATHS = {"generate": "/v1/messages"}


def root_of(upstream: Upstream) -> str:
    """The upstream's address without the API version, which people write or leave out."""
    return upstream.base_url.rstrip("/").removesuffix("/v1").rstrip("/")


def headers_of(upstream: Upstream, caller: Mapping[str, str]) -> dict[str, str]:
    """The headers of every request. Of the caller's, only those that choose a version of the API pass."""
    headers = {"content-type": "application/json", "anthropic-version": VERSION}
    beta = upstream.options.get("beta")
    if beta:
        headers["anthropic-beta"] = beta if isinstance(beta, str) else ",".join(beta)
    for name, value in caller.items():
        lower = name.lower()
        if lower in ("anthropic-version", "anthropic-beta"):
            headers[lower] = value
    if upstream.api_key:
        key = upstream.api_key.reveal()
        if upstream.options.get("auth") == "bearer":
            headers["authorization"] = f"Bearer {key}"
        else:
            headers["x-api-key"] = key
    return headers


def endpoint_of(target: Target, operation: str, body: bytes, headers: Mapping[str, str]) -> UpstreamRequest:
    """The request to send. Model and streaming stand in the body."""
    path = PATHS.get(operation)
    if path is None:
        raise Unsupported(f"this upstream cannot do {operation!r}")
    return UpstreamRequest(root_of(target.upstream) + path, headers_of(target.upstream, headers), body)
