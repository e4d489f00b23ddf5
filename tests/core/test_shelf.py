"""What is kept in memory: for whom, for how long, and how much."""

from __future__ import annotations

import tracemalloc

from relay.kit import dumps
from relay.shelf import OVERHEAD, Look, Shelf
from relay.store import Key


def owner(number: int) -> Key:
    return Key(id=number, prefix="sk-...", name=f"k{number}", created_at=0)


ONE, TWO = owner(1), owner(2)


async def test_a_document_is_its_owners_alone() -> None:
    shelf = Shelf("kind", 10_000, 60.0, clock=lambda: 0.0)
    shelf.put(ONE, "space", "a", b"text")
    assert shelf.get(1, "space", "a") == b"text"
    assert shelf.get(2, "space", "a") is None
    assert shelf.get(1, "other", "a") is None
    await shelf.drop(TWO, "space", "a")
    assert shelf.get(1, "space", "a") == b"text"
    await shelf.drop(ONE, "space", "a")
    assert (shelf.get(1, "space", "a"), shelf.size, len(shelf)) == (None, 0, 0)


async def test_it_expires() -> None:
    now = [1000.0]
    shelf = Shelf("kind", 10_000, 60.0, clock=lambda: now[0])
    shelf.put(ONE, "space", "a", b"text")
    now[0] = 1060.0
    assert shelf.get(1, "space", "a")
    now[0] = 1061.0
    assert shelf.get(1, "space", "a") is None
    assert shelf.size == 0


def test_it_stays_within_its_size_and_keeps_what_is_used() -> None:
    shelf = Shelf("kind", 10 * (1000 + OVERHEAD), 60.0, clock=lambda: 0.0)
    shelf.put(ONE, "space", "used", b"x" * 1000)
    for number in range(100):
        shelf.put(ONE, "space", str(number), b"x" * 1000)
        assert shelf.get(1, "space", "used")
        assert shelf.size <= 10 * (1000 + OVERHEAD)
    assert shelf.get(1, "space", "99")
    assert shelf.get(1, "space", "50") is None
    shelf.put(ONE, "space", "huge", b"x" * 1_000_000)
    assert shelf.get(1, "space", "huge") is None
    assert shelf.get(1, "space", "99"), "what is too large pushes nothing out"
    for _ in range(100):
        shelf.put(ONE, "space", "99", b"y" * 1000)
    assert shelf.get(1, "space", "99") == b"y" * 1000


def test_who_keeps_most_gives_way_first() -> None:
    shelf = Shelf("kind", 10 * (1000 + OVERHEAD), 60.0, clock=lambda: 0.0)
    shelf.put(TWO, "space", "little", b"x" * 1000)
    for number in range(100):
        shelf.put(ONE, "space", str(number), b"x" * 1000)
    assert shelf.get(2, "space", "little"), "one who keeps much pushes out only its own"
    shelf.forget(1)
    assert (len(shelf), shelf.size) == (1, 1000 + OVERHEAD)


async def test_without_a_database_a_look_is_answered_at_once() -> None:
    shelf = Shelf("kind", 10_000, 60.0, shared=True)
    shelf.put(ONE, "space", "a", b"text")
    look = Look(ONE)
    assert (look.get(shelf, "space", "a"), look.get(shelf, "space", "b")) == (b"text", None)
    assert not look.missing


def test_documents_take_the_memory_that_is_counted_for_them() -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        shelf = Shelf("k", 2**20, 60.0)
        for number in range(500):
            # As an answer is written: into a buffer that is larger than what is in it.
            shelf.put(ONE, "k", f"resp_{number}", dumps({"text": "x" * 600}))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(shelf) == 500
    assert after - before < 1.5 * shelf.size
