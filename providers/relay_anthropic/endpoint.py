"""Where requests go, and with which headers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from relay import Target, Upstream, UpstreamRequest
from relay.errors import Unsupported

__all__ = ["endpoint_of", "headers_of", "root_of"]

VERSION = "2023-06-01"
VERSIONING = frozenset({"anthropic-version", "anthropic-beta"})
"""Headers of the caller that reach the upstream."""
LONGEST = 1024
"""Bytes of a caller's choice that is worth remembering. Clients send a few, over and over."""
PATHS = {"generate": "/v1/messages", "count_tokens": "/v1/messages/count_tokens"}


def root_of(upstream: Upstream) -> str:
    """The upstream's address without the API version, which people write or leave out."""
    return upstream.base_url.rstrip("/").removesuffix("/v1").rstrip("/")


def headers_of(upstream: Upstream, caller: Mapping[str, str]) -> dict[str, str]:
    """The headers of every request: the key, those configured, and of the caller's only the choice of API version."""
    headers = {"content-type": "application/json", "anthropic-version": VERSION}
    beta = upstream.options.get("beta")
    if beta:
        headers["anthropic-beta"] = beta if isinstance(beta, str) else ",".join(beta)
    if upstream.api_key:
        key = upstream.api_key.reveal()
        if upstream.options.get("auth") == "bearer":
            headers["authorization"] = f"Bearer {key}"
        else:
            headers["x-api-key"] = key
    headers.update({name.lower(): value for name, value in upstream.headers.items()})
    headers.update({name.lower(): value for name, value in caller.items() if name.lower() in VERSIONING})
    return headers


def endpoint_of(target: Target, operation: str, body: bytes, headers: Mapping[str, str]) -> UpstreamRequest:
    """The request to send. Model and streaming stand in the body."""
    path = PATHS.get(operation)
    if path is None:
        raise Unsupported(f"this upstream cannot do {operation!r}")
    chosen = tuple((name, value) for name, value in headers.items() if name.lower() in VERSIONING)
    if sum(len(value) for _, value in chosen) > LONGEST:
        return UpstreamRequest(root_of(target.upstream) + path, headers_of(target.upstream, headers), body)
    url, sent = _prepared(target.upstream, path, chosen)
    return UpstreamRequest(url, sent, body, lasting=True)


@lru_cache(maxsize=256)
def _prepared(upstream: Upstream, path: str, chosen: tuple[tuple[str, str], ...]) -> tuple[str, Mapping[str, str]]:
    """URL and headers, which are the same for every call with the same choice of API version."""
    return root_of(upstream) + path, MappingProxyType(headers_of(upstream, dict(chosen)))
