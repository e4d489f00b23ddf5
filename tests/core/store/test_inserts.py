"""Statements for many rows: however many come together, each is stored once, and nothing else."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.store.inserts import NOTHING, SIZES, Inserts

INSERTS = Inserts("things", ("name", "number", "more"), {"name"})


@pytest.fixture(scope="module")
def database() -> sqlite3.Connection:
    found = sqlite3.connect(":memory:")
    found.execute("CREATE TABLE things (name TEXT NOT NULL, number INTEGER, more INTEGER)")
    return found


@given(st.lists(st.integers(1, SIZES[-1]), max_size=20))
@settings(max_examples=50, deadline=None)
def test_every_row_is_stored_once_however_many_come_together(database: sqlite3.Connection, batches: list[int]) -> None:
    database.execute("DELETE FROM things")
    wanted: list[tuple[str, int | None, int | None]] = []
    for count in batches:
        rows = [(f"{len(wanted) + place}", place, None) for place in range(count)]
        wanted += rows
        database.execute(*INSERTS.of([NOTHING if value is None else value for row in rows for value in row]))
    assert database.execute("SELECT * FROM things ORDER BY rowid").fetchall() == wanted


def test_those_that_are_only_compiled_are_all_of_them_and_store_nothing(database: sqlite3.Connection) -> None:
    database.execute("DELETE FROM things")
    empty = INSERTS.empty()
    for statement, values in empty:
        database.execute(statement, values)
    assert database.execute("SELECT count(*) FROM things").fetchone() == (0,)
    assert {statement for statement, _ in empty} == {INSERTS.of([1] * (3 * size))[0] for size in range(1, 65)}
