"""Kept answers: for whom, for how long, and how many."""

from __future__ import annotations

import tracemalloc

from relay.kit import dumps
from relay.shelf import OVERHEAD, Shelf


def test_a_document_is_its_owners_alone() -> None:
    shelf = Shelf(10_000, 60.0, clock=lambda: 0.0)
    shelf.put(1, "kind", "a", b"text")
    assert shelf.get(1, "kind", "a") == b"text"
    assert shelf.get(2, "kind", "a") is None
    assert shelf.get(1, "other", "a") is None
    assert not shelf.drop(2, "kind", "a")
    assert shelf.drop(1, "kind", "a")
    assert (shelf.get(1, "kind", "a"), shelf.size, len(shelf)) == (None, 0, 0)


def test_it_expires() -> None:
    now = [1000.0]
    shelf = Shelf(10_000, 60.0, clock=lambda: now[0])
    shelf.put(1, "kind", "a", b"text")
    now[0] = 1060.0
    assert shelf.get(1, "kind", "a")
    now[0] = 1061.0
    assert shelf.get(1, "kind", "a") is None
    assert shelf.size == 0


def test_it_stays_within_its_size_and_keeps_what_is_used() -> None:
    shelf = Shelf(10 * (1000 + OVERHEAD), 60.0, clock=lambda: 0.0)
    shelf.put(1, "kind", "used", b"x" * 1000)
    for number in range(100):
        shelf.put(1, "kind", str(number), b"x" * 1000)
        assert shelf.get(1, "kind", "used")
        assert shelf.size <= 10 * (1000 + OVERHEAD)
    assert shelf.get(1, "kind", "99")
    assert shelf.get(1, "kind", "50") is None
    shelf.put(1, "kind", "huge", b"x" * 1_000_000)
    assert shelf.get(1, "kind", "huge") is None
    assert shelf.get(1, "kind", "99"), "what is too large pushes nothing out"
    for _ in range(100):
        shelf.put(1, "kind", "99", b"y" * 1000)
    assert shelf.get(1, "kind", "99") == b"y" * 1000


def test_documents_take_the_memory_that_is_counted_for_them() -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        shelf = Shelf(2**20, 60.0)
        for number in range(500):
            # As an answer is written: into a buffer that is larger than what is in it.
            shelf.put(1, "k", f"resp_{number}", dumps({"text": "x" * 600}))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(shelf) == 500
    assert after - before < 1.5 * shelf.size
