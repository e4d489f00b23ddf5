"""What the C library has of memory can be given back, with the part in C and without it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
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


compiled = pytest.mark.skipif(
    not (GNU and relay.mould.COMPILED), reason="only the part in C asks for it, and only one library knows"
)
ROUNDS = """
import resource, sys
import relay.heap
assert sys.argv[1] == "as it is" or relay.heap.keep()
def a_round():
    return [b"x" * 700_000 for _ in range(8)]
for _ in range(3):
    a_round()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    a_round()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Pages that the system had to make for ten times eight large blocks."""
    return int(subprocess.run([sys.executable, "-c", ROUNDS, how], capture_output=True, check=True, text=True).stdout)


@compiled
@pytest.mark.skipif("I8RELAY_TEST_COMPILED" in os.environ, reason="another program has its own build, and no checks")
def test_what_large_bodies_leave_is_kept_for_the_next() -> None:
    assert faults("kept") * 20 < faults("as it is")
    assert not PURE.keep()


@compiled
def test_threads_share_a_heap() -> None:
    assert relay.heap.share()
    assert not PURE.share()
