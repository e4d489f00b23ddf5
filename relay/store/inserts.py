"""Statements that store many rows at once, each with room for so many.

Each statement gives up the interpreter's lock and takes it again, which costs a busy server more than a row does; so
there is one for many rows. To compile one takes long, and the longer the more room it has; so there are few sizes, and
room that is not used holds rows that are not stored.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

__all__ = ["NOTHING", "SIZES", "Inserts"]

SIZES = (4, 16, 64)
"""Rows that one statement has room for."""
NOTHING = -(2**62)
"""Stands for NULL in what is handed to SQLite: Python's module for it takes fifty times as long for a None."""


class Inserts:
    """Statements for one table. `always`: columns that are never NULL; the first one is one of those."""

    def __init__(self, table: str, columns: Sequence[str], always: Container[str]) -> None:
        self.width = len(columns)
        """Values in a row."""
        found = ", ".join(
            f"column{place}" if name in always else f"nullif(column{place}, {NOTHING})"
            for place, name in enumerate(columns, 1)
        )
        row = f"({', '.join('?' * self.width)})"
        self._statements = {
            size: f"INSERT INTO {table} ({', '.join(columns)}) SELECT {found} FROM (VALUES {', '.join([row] * size)})"  # noqa: S608
            f" WHERE column1 IS NOT {NOTHING}"
            for size in SIZES
        }

    def of(self, values: list[Any]) -> tuple[str, list[Any]]:
        """The statement that stores at most `SIZES[-1]` rows, given as one list of values; and what it takes."""
        size = next(size for size in SIZES if size * self.width >= len(values))
        return self._statements[size], values + [NOTHING] * (size * self.width - len(values))

    def empty(self) -> list[tuple[str, list[Any]]]:
        """Each statement with values that store nothing: to run it is to have it compiled."""
        return [(self._statements[size], [NOTHING] * (size * self.width)) for size in SIZES]
