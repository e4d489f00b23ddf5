"""Which dialect a path is for, told from its bytes as they come.

aiohttp's router decodes, resolves and matches a path for a request of its own kind. Nearly every path is one that needs
none of that; what is not plain is left to it, so that each path means one thing only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from relay.dialect import Dialect, Route

__all__ = ["Routes"]

NOWHERE: Mapping[str, str] = MappingProxyType({})
PLAIN = re.compile(r"(?:/[A-Za-z0-9_:@-][A-Za-z0-9_:@.-]*)+")
"""A path that is the same however often it is decoded or resolved."""
WORD = re.compile(r"[A-Za-z0-9_-]+")
"""A value in a query that is the same in every way of reading one."""
PARAMETER = re.compile(r"\{(\w+)(?::([^{}]+))?\}")


class Routes:
    """The routes of generations."""

    def __init__(self, dialects: Iterable[Dialect]) -> None:
        self._exact: dict[str, Dialect] = {}
        self._others: list[tuple[re.Pattern[str], Route, Dialect]] = []
        for dialect in dialects:
            for route in dialect.routes:
                if route.method != "POST":
                    continue
                if route.operation == "generate" and not route.query and "{" not in route.path:
                    self._exact.setdefault(route.path, dialect)
                else:
                    self._others.append((_pattern(route.path), route, dialect))

    def find(self, path: str) -> tuple[Dialect, Mapping[str, str]] | None:
        """Whose a path with its query is, and its parameters; None if it is not plain, or no generation."""
        dialect = self._exact.get(path)
        if dialect is not None:
            return dialect, NOWHERE
        way, _, query = path.partition("?")
        if PLAIN.fullmatch(way) is None:
            return None
        for pattern, route, dialect in self._others:
            found = pattern.fullmatch(way)
            if found is not None:
                asked = _asked(query, route.query) if route.operation == "generate" else None
                return None if asked is None else (dialect, MappingProxyType({**asked, **found.groupdict()}))
        return None


def _pattern(path: str) -> re.Pattern[str]:
    """The paths of a route, written as aiohttp's router has them."""
    parts, end = [], 0
    for found in PARAMETER.finditer(path):
        name, kind = found.groups()
        parts += [re.escape(path[end : found.start()]), f"(?P<{name}>{kind or '[^{}/]+'})"]
        end = found.end()
    return re.compile("".join([*parts, re.escape(path[end:])]))


def _asked(query: str, names: Iterable[str]) -> dict[str, str] | None:
    """The parameters of a query, if there are no others and nothing in it has to be decoded."""
    found: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        if name not in names or name in found or WORD.fullmatch(value) is None:
            return None
        found[name] = value
    return found
