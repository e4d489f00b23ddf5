"""What the C library has of memory can be given back, with the part in C and without it."""

from __future__ import annotations

import importlib.util
import platform
import sys
from types import ModuleType

import pytest

import relay.heap
import relay.mould


def without(name: str) -> ModuleType:
    """The module as it is where that other one cannot be imported."""
    spec = importlib.util.spec_from_file_location("pure_heap", relay.heap.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, name, None)
        spec.loader.exec_module(module)
    return module


PURE = without("relay._native")
GNU = platform.libc_ver()[0] == "glibc"


@pytest.mark.parametrize("module", [relay.heap, PURE], ids=["as it is", "without C"])
def test_what_is_free_is_given_back_where_the_library_knows_how(module: ModuleType) -> None:
    held = [bytes(1000) for _ in range(50_000)]
    # One that stays, above all that goes: it has to be given back from the middle.
    last = bytes(1000)
    del held
    assert module.trim() is GNU
    module.tidy()
    assert not any(last)


@pytest.mark.skipif(
    not (GNU and relay.mould.COMPILED), reason="only the part in C asks for it, and only one library knows"
)
def test_threads_share_a_heap() -> None:
    assert relay.heap.share()
    assert not PURE.share()
