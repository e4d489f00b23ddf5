"""The figures of one run: what was played to which dialect, and what was wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from relay.kit import table


@dataclass
class Cell:
    """What was played of the recordings of one format to the clients of one dialect."""

    dialect: str
    family: str
    exchanges: int = 0
    streams: int = 0
    errors: int = 0
    """Recordings of an error: what counts is what the client is told of it."""
    lost: Counter[str] = field(default_factory=Counter)
    """What was lost as it is declared, by what it is."""
    losses: int = 0
    """Exchanges that lost something which is declared, and were told so; all else of them is equal."""
    wrong: dict[str, list[str]] = field(default_factory=dict)
    """What is wrong, by the exchange's id."""

    @property
    def equal(self) -> int:
        """Exchanges of which everything arrived."""
        return self.exchanges - self.losses - len(self.wrong)

    def figures(self) -> dict[str, Any]:
        """The cell as it is stored."""
        return {
            "dialect": self.dialect,
            "family": self.family,
            "exchanges": self.exchanges,
            "streams": self.streams,
            "errors": self.errors,
            "equal": self.equal,
            "losses": self.losses,
            "wrong": len(self.wrong),
            "lost": dict(sorted(self.lost.items())),
        }


HEADS = ("client", "recorded", "exchanges", "streams", "errors", "equal", "declared losses", "wrong")


def shown(cells: list[Cell]) -> str:
    """The matrix as text."""
    names = list(Cell("", "").figures())[: len(HEADS)]
    rows = [tuple(str(cell.figures()[name]) for name in names) for cell in cells]
    sums = [sum(cell.figures()[name] for cell in cells) for name in names[2:]]
    return table(HEADS, [*rows, ("all", "", *map(str, sums))])
