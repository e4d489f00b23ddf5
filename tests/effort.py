"""How much is done by the tests that draw, sample or repeat.

What they do as it is suits every change; `I8RELAY_TEST_EFFORT=10` does ten times as much of it.
"""

from __future__ import annotations

import os

__all__ = ["EFFORT", "times"]

EFFORT = float(os.environ.get("I8RELAY_TEST_EFFORT", "1"))


def times(usual: int) -> int:
    """So many, where there are usually that many; at least one."""
    return max(1, round(usual * EFFORT))
