"""Under which names the relay is asked, and from which web pages. Pure; decided once for each spelling of a name.

A relay on this machine is within reach of every page that its user opens: a page may send requests to
`http://localhost:8748`, and a name of the page's own may be made to lead there (DNS rebinding). So a relay that listens
on this machine alone answers to this machine's names only, and no relay answers pages that were not allowed to ask.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from urllib.parse import urlsplit

from relay.errors import BadParameter, CallerError, Misdirected, NotAllowed
from relay.family import is_loopback

__all__ = ["Origins", "preflight"]

KEPT = 256
"""Spellings of Host headers of which the verdict is remembered."""
LONGEST = 256
EVERYBODY = "*"
EXPOSED = (
    "x-request-id, retry-after, retry-after-ms, x-should-retry, x-relay-upstream, x-relay-model, x-relay-dropped,"
    " x-relay-cache"
)
"""Headers of answers that pages may read."""
NOTHING: Mapping[str, str] = MappingProxyType({})

_HOST = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{0,5})?")
_TOKENS = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{0,1000}")


def _name(host: str) -> str | None:
    """The bare name in a Host header; None if it is none."""
    found = _HOST.fullmatch(host) if len(host) <= LONGEST else None
    return None if found is None else found[1].strip("[]").rstrip(".").lower()


class Origins:
    """The rules of one relay. `bind` is the address it listens on; `hosts` and `origins` are the settings."""

    def __init__(self, bind: str, hosts: Sequence[str] = (), origins: Sequence[str] = ()) -> None:
        named = [host.lower() for host in hosts]
        self._any = EVERYBODY in named or (not named and not is_loopback(bind))
        self._names = frozenset(name for name in named if not name.startswith("*."))
        self._ends = tuple(name[1:] for name in named if name.startswith("*."))
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self._known: dict[str | None, bool] = {None: True}

    def answers_to(self, host: str | None) -> bool:
        """Whether requests with this Host header are answered. Old clients send none, browsers always do."""
        verdict = self._known.get(host)
        return self._judged(host) if verdict is None else verdict

    def _judged(self, host: str | None) -> bool:
        name = _name(host or "")
        verdict = name is not None and (
            self._any or is_loopback(name) or name in self._names or name.endswith(self._ends or ("\0",))
        )
        if len(self._known) >= KEPT:
            self._known = {None: True}
        self._known[host] = verdict
        return verdict

    def refusal(self, host: str | None) -> CallerError:
        """Why requests with this Host header are not answered. Shows none of it."""
        if _name(host or "") is None:
            return BadParameter("the Host header is not a name or an address", param="host", code="invalid_host")
        return Misdirected("this relay does not answer to that host name; its setting server.hosts can allow more")

    def headers(self, origin: str, host: str | None) -> Mapping[str, str]:
        """What an answer tells the browser of a page from this origin. Raises NotAllowed if it may not ask at all."""
        if EVERYBODY in self._origins or origin.lower() in self._origins:
            return {"Access-Control-Allow-Origin": origin, "Vary": "Origin", "Access-Control-Expose-Headers": EXPOSED}
        if host and _same(origin, host):
            return NOTHING
        raise NotAllowed(
            "web pages of that origin may not use this relay; its setting server.origins can allow them",
            code="origin_not_allowed",
        )


def _same(origin: str, host: str) -> bool:
    """Whether a page of this origin came from the relay itself."""
    try:
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and bool(parts.netloc) and parts.netloc.lower() == host.lower()
    except ValueError:
        return False


def preflight(names: str) -> Mapping[str, str]:
    """What a browser that asks beforehand is told, once its page's origin was allowed: all that it asked for."""
    allowed = {"Access-Control-Allow-Methods": "GET, POST", "Access-Control-Max-Age": "600"}
    if names and _TOKENS.fullmatch(names):
        allowed["Access-Control-Allow-Headers"] = names
    return allowed
