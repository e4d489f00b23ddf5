"""The limits of a call, as headers of an answer and as lines of its head."""

from __future__ import annotations

import pytest

from relay.dialect import Dialect
from relay.limits import View
from relay.manager import Plugins

DIALECTS = list(Plugins.load().dialects.values())
REQUESTS, TOKENS = View(60, 59, 0.25), View(100_000, 99_000, 75.0)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: str(dialect.name))
@pytest.mark.parametrize("requests", [None, REQUESTS])
@pytest.mark.parametrize("tokens", [None, TOKENS])
def test_the_lines_of_a_head_say_what_the_headers_say(
    dialect: Dialect, requests: View | None, tokens: View | None
) -> None:
    headers = dialect.limit_headers(requests, tokens)
    assert dialect.limit_lines(requests, tokens) == "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    assert bool(headers) == (requests is not None or tokens is not None)


class Own(type(DIALECTS[0])):  # type: ignore[misc]
    """A dialect with another header."""

    def limit_headers(self, requests: View | None, tokens: View | None) -> dict[str, str]:
        return {"x-left": "none"}


class Written(Own):
    """One that writes its lines itself."""

    def limit_lines(self, requests: View | None, tokens: View | None) -> str:
        return "x-left: a few\r\n"


class Child(Written):
    """One that takes over what it inherits."""


@pytest.mark.parametrize(("kind", "lines"), [(Own, "x-left: none\r\n"), (Child, "x-left: a few\r\n")])
def test_a_dialect_with_headers_of_its_own_has_lines_of_its_own(kind: type[Dialect], lines: str) -> None:
    assert kind().limit_lines(REQUESTS, TOKENS) == lines
