"""Statements that store many rows at once, each with room for so many, and compiled once that pays.

Each statement gives up the interpreter's lock and takes it again, which costs a busy server more than a row does; so
there is one for many rows. To compile it takes long; so there are few sizes, and none is compiled before the room that
a larger one has left empty in its place would have cost as much.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

__all__ = ["NOTHING", "SIZES", "Inserts"]

SIZES = (4, 16, 64, 128)
"""Rows that one statement has room for."""
NOTHING = -(2**62)
"""Stands for NULL in what is handed to SQLite: Python's module for it takes fifty times as long for a None."""
STATEMENT, ROW = 60, 6
"""What it takes to compile a statement, and each row of its room, counted in rows that are left empty."""


class Inserts:
    """Statements for one table, on one connection. `always`: columns that are never NULL. The first is one of those."""

    def __init__(self, table: str, columns: Sequence[str], always: Container[str]) -> None:
        self.width = len(columns)
        found = (
            f"column{place}" if name in always else f"nullif(column{place}, {NOTHING})"
            for place, name in enumerate(columns, 1)
        )
        self._begin = f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(found)} FROM (VALUES "  # noqa: S608
        self._compiled: dict[int, str] = {}
        self._empty: dict[int, int] = {}
        """Rows of larger statements that were left empty for want of one of this size."""

    def of(self, values: list[Any]) -> tuple[str, list[Any]]:
        """The statement that stores these rows, at most the largest size, given as their values in a row; its values.

        Room that is not used holds rows of `NOTHING`, which are not stored.
        """
        count = len(values) // self.width
        size = self._size(count)
        statement = self._compiled.get(size) or self._compile(size)
        return statement, values + [NOTHING] * ((size - count) * self.width)

    def _size(self, count: int) -> int:
        size = next(size for size in SIZES if size >= count)
        if size in self._compiled:
            return size
        larger = min((known for known in self._compiled if known > size), default=size)
        empty = self._empty[size] = self._empty.get(size, 0) + larger - count
        return larger if empty < STATEMENT + ROW * size else size

    def _compile(self, size: int) -> str:
        rows = ", ".join([f"({', '.join('?' * self.width)})"] * size)
        statement = self._compiled[size] = f"{self._begin}{rows}) WHERE column1 IS NOT {NOTHING}"
        return statement
