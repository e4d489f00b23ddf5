"""The whole application on loopback, as in `tests/flow`, and bare connections to it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.flow.conftest import _nobody_holds_the_loop_up, start, upstream
from tests.flow.loops import factories

__all__ = ["_nobody_holds_the_loop_up", "start", "upstream"]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Any:
    """Run all of this folder on the loop that was asked for."""
    return factories()
