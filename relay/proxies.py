"""Proxies on the way to upstreams, as the environment names them: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from relay.family import is_loopback

__all__ = ["Proxy", "proxy_for"]

ANSWER_BYTES = 16_384


class Proxy(NamedTuple):
    """An HTTP proxy. `authorization` is its whole header line, or empty."""

    host: str
    port: int
    authorization: str = ""

    async def tunnel(self, host: str, port: int) -> socket.socket:
        """A socket that leads through the proxy to a host, for TLS. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        tunnel = socket.socket(family, kind, protocol)
        tunnel.setblocking(False)
        try:
            await loop.sock_connect(tunnel, address)
            name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            request = f"CONNECT {name} HTTP/1.1\r\nhost: {name}\r\n{self.authorization}\r\n"
            await loop.sock_sendall(tunnel, request.encode("latin-1"))
            answer = b""
            while b"\r\n\r\n" not in answer:
                # Byte by byte is not needed: a proxy says nothing after its head until we begin TLS.
                piece = await loop.sock_recv(tunnel, ANSWER_BYTES)
                answer += piece
                if not piece or len(answer) > ANSWER_BYTES:
                    raise ConnectionError("the proxy gave no answer")
            status = answer.split(b" ", 2)[1:2]
            if not status or not status[0].startswith(b"2"):
                raise ConnectionError("the proxy refused to connect")
        except BaseException:
            with contextlib.suppress(OSError):
                tunnel.close()
            raise
        return tunnel


def proxy_for(scheme: str, host: str, port: int, environ: Mapping[str, str] | None = None) -> Proxy | None:
    """The proxy for one origin; None for a direct way. This machine itself is never reached through a proxy."""
    environ = os.environ if environ is None else environ
    if is_loopback(host) or _excepted(host, port, _variable(environ, "no_proxy")):
        return None
    text = _variable(environ, f"{scheme}_proxy") or _variable(environ, "all_proxy")
    if not text:
        return None
    parts = urlsplit(text if "://" in text else f"http://{text}")
    if parts.scheme != "http" or not parts.hostname:
        # Proxies that are themselves spoken to over TLS or SOCKS are not ours to use; better no way than a wrong one.
        return None
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"proxy-authorization: Basic {base64.b64encode(pair.encode()).decode()}\r\n"
    return Proxy(parts.hostname, parts.port or 80, authorization)


def _variable(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name) or environ.get(name.upper()) or ""


def _excepted(host: str, port: int, text: str) -> bool:
    """Whether `NO_PROXY` names the host, a domain it belongs to, or everything."""
    for entry in text.split(","):
        name = entry.strip().lower().lstrip(".")
        if name == "*":
            return True
        if name and (host == name or host.endswith(f".{name}") or f"{host}:{port}" == name):
            return True
    return False
