"""For authors of plugins: the suite that every family has to pass, an upstream that plays scripts, a relay to call.

Needs pytest, which the extra `i8relay[testing]` brings. A family's suite is a class of tests that inherits
`FamilySuite` and says what its upstream says; `docs/plugins.md` has one. For tests of one's own there are `serving`,
which is a whole relay, and `FakeUpstream`, which is an upstream; both are used with `async with`.
"""

import pytest

pytest.register_assert_rewrite("relay.testing.grammar", "relay.testing.translation", "relay.testing.suite")

from relay.testing.grammar import check_events, check_usage, decoded  # noqa: E402 - asserts are rewritten before
from relay.testing.serving import Serving, serving  # noqa: E402
from relay.testing.suite import FamilySuite  # noqa: E402
from relay.testing.upstream import FakeUpstream, Seen, Step, chunk, http, stream  # noqa: E402
from relay.testing.vectors import Refusal, ToolCallVector, Vectors  # noqa: E402

__all__ = [
    "FakeUpstream",
    "FamilySuite",
    "Refusal",
    "Seen",
    "Serving",
    "Step",
    "ToolCallVector",
    "Vectors",
    "check_events",
    "check_usage",
    "chunk",
    "decoded",
    "http",
    "serving",
    "stream",
]
