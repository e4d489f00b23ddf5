"""Real clients against the relay: what they share with the tests of the whole application."""

from __future__ import annotations

from tests.flow.conftest import start, upstream

__all__ = ["start", "upstream"]
