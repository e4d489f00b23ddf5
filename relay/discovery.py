"""Finding upstreams without a configuration: keys in the environment, model servers on this machine.

Which variables and which ports those are is data of the families' plugins (`Host`); this module only looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from relay.family import Family, Host, Upstream
from relay.kit import loads
from relay.secret import Secret

__all__ = ["Found", "fallback", "from_environment", "from_ports", "upstream_of"]

PROBE_SECONDS = 0.5
"""Time that a local server gets to say what it is. One that takes longer can be configured."""
PROBE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Found:
    """An upstream that nobody configured, and how it was found."""

    upstream: Upstream
    reason: str


def upstream_of(family: Family, host: Host, api_key: str | None, environ: Mapping[str, str]) -> Upstream:
    """The upstream that a known host is, with everything its row says."""
    moved = next((environ[name] for name in host.base_url_env if environ.get(name)), "")
    return Upstream(
        name=host.name,
        family=family.name,
        base_url=_address(moved) if moved else host.base_url,
        api_key=Secret(api_key) if api_key else None,
        dialects=_dialects(family, host),
        models=host.models,
        capabilities={**family.capabilities, **host.capabilities},
        options=host.options,
        host=host.name,
        # Servers that are probed for are those on this machine, or wherever their variable says.
        allow_private=bool(host.probe),
        apart=family.transport is not None,
    )


def _dialects(family: Family, host: Host) -> frozenset[str]:
    if host.dialects is not None:
        return host.dialects
    return family.dialects if family.usual_dialects is None else family.usual_dialects


def _address(text: str) -> str:
    """An address from a variable, which for local servers is often only `host:port`."""
    return text if "://" in text else f"http://{text}"


def from_environment(hosts: Iterable[tuple[Family, Host]], environ: Mapping[str, str]) -> list[Found]:
    """The hosts whose key is set. A key that two hosts share is given to the first only."""
    found: list[Found] = []
    used: set[str] = set()
    for family, host in hosts:
        name = next((name for name in host.env if environ.get(name, "").strip()), None)
        if name is None or name in used:
            continue
        used.add(name)
        found.append(Found(upstream_of(family, host, environ[name].strip(), environ), f"{name} is set"))
    return found


async def from_ports(hosts: Iterable[tuple[Family, Host]], environ: Mapping[str, str]) -> list[Found]:
    """The servers on this machine that answer their probe. All are asked side by side."""
    asked = [(family, host) for family, host in hosts if host.probe]
    answers = await asyncio.gather(*(_answers(host) for _, host in asked))
    return [
        Found(upstream_of(family, host, None, environ), f"it answers at {host.probe}")
        for (family, host), there in zip(asked, answers, strict=True)
        if there
    ]


def fallback(hosts: Iterable[tuple[Family, Host]], environ: Mapping[str, str]) -> list[Found]:
    """The best of the hosts that need nothing at all; empty if no plugin offers one."""
    offers = sorted(((family, host) for family, host in hosts if host.fallback), key=lambda pair: pair[1].fallback)
    return [Found(upstream_of(family, host, None, environ), "nothing else was found") for family, host in offers[:1]]


async def _answers(host: Host) -> bool:
    """Whether the probe's URL answers 200 with the expected JSON.

    Written on a bare socket: the probes run before anything else, most end in a refused connection, and a full HTTP
    client would cost more than all of them.
    """
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            return await _probe(host)
    except (OSError, TimeoutError, ValueError):
        return False


async def _probe(host: Host) -> bool:
    from urllib.parse import urlsplit

    url = urlsplit(host.probe)
    reader, writer = await asyncio.open_connection(url.hostname, url.port or 80)
    try:
        request = f"GET {url.path or '/'} HTTP/1.0\r\nHost: {url.netloc}\r\nAccept: application/json\r\n\r\n"
        writer.write(request.encode("ascii"))
        answer = await reader.read(PROBE_BYTES)
        while not reader.at_eof() and len(answer) < PROBE_BYTES:
            answer += await reader.read(PROBE_BYTES)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200" not in head.split(b"\r\n", 1)[0]:
        return False
    if not host.probe_key:
        return True
    value = loads(body)
    return isinstance(value, dict) and host.probe_key in value
