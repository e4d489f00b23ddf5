"""Where requests go, and by whose right."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from relay import Target, Upstream, UpstreamRequest
from relay.errors import Unsupported, UpstreamError
from relay_bedrock.generation import foundation_of
from relay_bedrock.signature import Credentials, signed

__all__ = ["address_of", "credentials_of", "endpoint_of", "region_of", "request_to"]

METHODS: Mapping[tuple[str, bool], str] = {
    ("generate", False): "converse",
    ("generate", True): "converse-stream",
    ("count_tokens", False): "count-tokens",
}
_REGION = re.compile(r"(?:^|\.)bedrock-runtime(?:-fips)?\.([a-z]{2,}(?:-[a-z]+)+-\d+)\.")
"""Where a region stands in the vendor's own addresses."""


def region_of(upstream: Upstream) -> str:
    """The region that requests are signed for. Raises UpstreamError if nothing tells it."""
    named = upstream.options.get("region")
    if named:
        return str(named)
    found = _REGION.search(urlsplit(upstream.base_url).hostname or "")
    if found is None:
        raise UpstreamError(
            f"upstream {upstream.name!r} needs its option region: its address does not tell it",
            code="upstream_unconfigured",
        )
    return found[1]


def credentials_of(upstream: Upstream) -> Credentials | str:
    """What the upstream's key is: an access key to sign with, `NAME:SECRET` or `NAME:SECRET:TOKEN`, else one to show.

    Raises UpstreamError for half a one.
    """
    if not upstream.api_key:
        return ""
    key = upstream.api_key.reveal()
    if ":" not in key:
        return key
    name, secret, *token = (part.strip() for part in key.split(":", 2))
    if not name or not secret:
        raise UpstreamError(
            f"upstream {upstream.name!r} has half an access key: what is wanted is NAME:SECRET or NAME:SECRET:TOKEN",
            code="upstream_unconfigured",
        )
    return Credentials(name, secret, *token)


def address_of(upstream: Upstream, model: str, method: str) -> str:
    """The URL of a model's method. The name is one path segment, whatever characters it holds."""
    return f"{upstream.base_url.rstrip('/')}/model/{quote(model, safe='')}/{method}"


def request_to(upstream: Upstream, url: str, body: bytes = b"", method: str = "POST") -> UpstreamRequest:
    """A request with everything that it needs to be let in."""
    headers = {"content-type": "application/json"} if body else {}
    headers.update({name.lower(): value for name, value in upstream.headers.items()})
    known = credentials_of(upstream)
    if isinstance(known, Credentials):
        headers = signed(known, region_of(upstream), method, url, body, headers)
    elif known and "authorization" not in headers:
        headers["authorization"] = f"Bearer {known}"
    return UpstreamRequest(url, headers, body, method)


def endpoint_of(target: Target, operation: str, body: bytes, stream: bool) -> UpstreamRequest:
    """The request to send. Model and streaming stand in the URL."""
    method = METHODS.get((operation, stream))
    if method is None:
        raise Unsupported(f"this upstream cannot do {operation!r}")
    # Tokens are counted for models alone, not for the profiles through which they are reached.
    model = foundation_of(target) if operation == "count_tokens" else target.model
    return request_to(target.upstream, address_of(target.upstream, model, method), body)
