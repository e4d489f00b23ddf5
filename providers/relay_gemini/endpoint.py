"""Where requests go, and with which headers."""

from __future__ import annotations

import re
from urllib.parse import quote

from relay import Target, Upstream, UpstreamRequest
from relay.errors import Unsupported
from relay.kit import upstream_json

__all__ = ["endpoint_of", "headers_of", "resource_of", "root_of"]

VERSION = "v1beta"
METHODS = {
    ("generate", False): ":generateContent",
    ("generate", True): ":streamGenerateContent?alt=sse",
    ("count_tokens", False): ":countTokens",
    ("embeddings", False): ":batchEmbedContents",
}
_VERSIONED = re.compile(r"/v\d+\w*$", re.ASCII)


def root_of(upstream: Upstream) -> str:
    """The upstream's address with an API version: the one it ends in, else the vendor's current one."""
    base = upstream.base_url.rstrip("/")
    return base if _VERSIONED.search(base) else f"{base}/{VERSION}"


def headers_of(upstream: Upstream) -> dict[str, str]:
    """The headers of every request. The key is one, and never part of the URL, where logs would keep it."""
    headers = {"content-type": "application/json"}
    if upstream.api_key:
        key = upstream.api_key.reveal()
        if upstream.options.get("auth") == "bearer":
            headers["authorization"] = f"Bearer {key}"
        else:
            headers["x-goog-api-key"] = key
    headers.update({name.lower(): value for name, value in upstream.headers.items()})
    return headers


def resource_of(model: str) -> tuple[str, str]:
    """The collection that a model belongs to, and its name there."""
    for prefix in ("models", "tunedModels"):
        if model.startswith(f"{prefix}/"):
            return prefix, model.removeprefix(f"{prefix}/")
    return "models", model


def endpoint_of(target: Target, operation: str, body: bytes, stream: bool) -> UpstreamRequest:
    """The request to send. The model's name is one path segment, whatever characters it holds."""
    method = METHODS.get((operation, stream))
    if method is None:
        raise Unsupported(f"this upstream cannot do {operation!r}")
    if operation == "embeddings" and "requests" not in upstream_json(body):
        # A caller of this dialect that passes through: others are always asked for in a batch.
        method = ":embedContent"
    collection, name = resource_of(target.model)
    url = f"{root_of(target.upstream)}/{collection}/{quote(name, safe='')}{method}"
    return UpstreamRequest(url, headers_of(target.upstream), body)
