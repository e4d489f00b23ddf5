"""Statements for many rows: whatever the batches, each row is stored once, and no size is compiled before it pays."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.store.inserts import NOTHING, ROW, SIZES, STATEMENT, Inserts


@pytest.fixture(scope="module")
def database() -> sqlite3.Connection:
    return sqlite3.connect(":memory:")


@given(st.lists(st.integers(1, SIZES[-1]), max_size=20))
@settings(max_examples=50, deadline=None)
def test_every_row_is_stored_once_however_many_come_together(database: sqlite3.Connection, batches: list[int]) -> None:
    database.execute("DROP TABLE IF EXISTS things")
    database.execute("CREATE TABLE things (name TEXT NOT NULL, number INTEGER, more INTEGER)")
    inserts = Inserts("things", ("name", "number", "more"), {"name"})
    wanted: list[tuple[str, int | None, int | None]] = []
    for count in batches:
        rows = [(f"{len(wanted) + place}", place, None) for place in range(count)]
        wanted += rows
        database.execute(*inserts.of([NOTHING if value is None else value for row in rows for value in row]))
    assert database.execute("SELECT * FROM things ORDER BY rowid").fetchall() == wanted


def sizes(counts: list[int]) -> list[int]:
    """How much room the statements have that are used for these batches."""
    inserts = Inserts("things", ("name",), {"name"})
    return [len(inserts.of([1] * count)[1]) for count in counts]


def test_the_first_batch_has_a_statement_that_fits() -> None:
    for size in SIZES:
        assert sizes([size, size - 1]) == [size, size]


def test_a_batch_in_between_uses_what_is_there_until_its_own_pays() -> None:
    small, _, _, large = SIZES
    left = large - small
    often = -(-(STATEMENT + ROW * small) // left)
    assert sizes([large] + [small] * (often + 1)) == [large] * often + [small] * 2
    assert often < 3, "a lone row must not fill the largest room for long"


def test_the_smallest_that_is_there_is_used() -> None:
    _, medium, large, largest = SIZES
    assert sizes([large, largest, medium, large]) == [large, largest, large, large]
