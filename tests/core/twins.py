"""Modules of which a part is in C as well: here they are without it."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

__all__ = ["pure"]


def pure(module: ModuleType) -> ModuleType:
    """The same module as it is where nothing in C could be built."""
    spec = importlib.util.spec_from_file_location(f"pure_{module.__name__}", str(module.__file__))
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "relay._native", None)
        spec.loader.exec_module(found)
    return found
