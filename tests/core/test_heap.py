"""What the C library has of memory can be given back, with the part in C and without it."""

from __future__ import annotations

import platform
from types import ModuleType

import pytest

import relay.heap
import relay.mould
from tests.core.twins import pure

PURE = pure(relay.heap)
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
