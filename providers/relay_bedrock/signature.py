"""Signatures of requests, as the vendor's version 4 of them says: from a key's two halves, never sent themselves."""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import quote, urlsplit

__all__ = ["Credentials", "signed"]

SERVICE = "bedrock"
ALGORITHM = "AWS4-HMAC-SHA256"
COVERED = ("content-type", "x-amz-date", "x-amz-security-token")
"""Headers that are signed, beside that of the host."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key: its name, its secret, and the token that goes with it if it is a temporary one."""

    name: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)


def signed(
    credentials: Credentials,
    region: str,
    method: str,
    url: str,
    body: bytes,
    headers: dict[str, str],
    now: float | None = None,
) -> dict[str, str]:
    """`headers` with the signature of this request, which is good for some minutes. Names must be in lower case.

    `url` is signed as it will be sent. Headers that a proxy may change are not signed.
    """
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() if now is None else now))
    parts = urlsplit(url)
    headers = {**headers, "x-amz-date": moment}
    if credentials.token:
        headers["x-amz-security-token"] = credentials.token
    covered = {"host": _host(parts.scheme, parts.hostname or "", parts.port)}
    covered.update((name, headers[name]) for name in COVERED if name in headers)
    names = ";".join(sorted(covered))
    request = "\n".join(
        (
            method,
            # The path stands in the URL with its escapes, and what is signed is that with escapes of its own.
            quote(parts.path or "/", safe="/-_.~"),
            "&".join(sorted(parts.query.split("&"))) if parts.query else "",
            *(f"{name}:{' '.join(covered[name].split())}" for name in sorted(covered)),
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        )
    )
    scope = f"{moment[:8]}/{region}/{SERVICE}/aws4_request"
    text = f"{ALGORITHM}\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    signature = hmac.new(_key(credentials.secret, moment[:8], region), text.encode(), hashlib.sha256).hexdigest()
    headers["authorization"] = (
        f"{ALGORITHM} Credential={credentials.name}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return headers


@lru_cache(maxsize=64)
def _key(secret: str, day: str, region: str) -> bytes:
    """The key of one day: the same for all requests to one region."""
    key = f"AWS4{secret}".encode()
    for step in (day, region, SERVICE, "aws4_request"):
        key = hmac.digest(key, step.encode(), "sha256")
    return key


def _host(scheme: str, name: str, port: int | None) -> str:
    """The Host header, as both transports write it."""
    host = f"[{name}]" if ":" in name else name
    return host if port in (None, {"http": 80, "https": 443}.get(scheme)) else f"{host}:{port}"
