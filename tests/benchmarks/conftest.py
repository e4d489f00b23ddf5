from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
MODULES = (
    *("agent", "bench", "counting", "features", "gateways", "instructions", "lockstep", "matrix", "pairs", "phases"),
    *("report", "tree"),
)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The programs of `benchmarks/` as modules, as they import one another."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)
