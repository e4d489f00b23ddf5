"""Rows of values as people read them in a terminal, and as spreadsheets read them: aligned text and CSV."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable, Sequence

__all__ = ["csv_text", "table"]

Cell = str | int | float | None

RISKY = ("=", "+", "-", "@", "\t", "\r")
"""Spreadsheets take text that begins so for a formula."""


def table(header: Sequence[str], rows: Iterable[Sequence[Cell]], *, total: Sequence[Cell] | None = None) -> str:
    """Aligned columns under a rule, numbers to the right; `total` goes below another. None is shown as `-`.

    Characters that could steer a terminal are shown as `?`: some names in the relay's tables come from clients.
    """
    values = [list(row) for row in rows]
    numeric = [
        all(isinstance(row[index], int | float) or row[index] is None or _amount(row[index]) for row in values)
        for index in range(len(header))
    ]
    lines = [[_shown(cell) for cell in row] for row in (header, *values)]
    last = None if total is None else [_shown(cell) if cell is not None else "" for cell in total]
    widths = [max(_width(line[index]) for line in ([*lines, last] if last else lines)) for index in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = (
            " " * (width - _width(cell)) + cell if right else cell + " " * (width - _width(cell))
            for cell, width, right in zip(cells, widths, numeric, strict=True)
        )
        return "  ".join(padded).rstrip()

    rule = "  ".join("-" * width for width in widths)
    text = [line(lines[0]), rule, *(line(cells) for cells in lines[1:])]
    if last is not None:
        text += [rule, line(last)]
    return "\n".join(text)


def _amount(cell: Cell) -> bool:
    """Money is a number too, though written by `usd`."""
    return isinstance(cell, str) and cell.removeprefix("$").replace(".", "", 1).replace(",", "").isdigit()


def _shown(cell: Cell) -> str:
    if cell is None:
        return "-"
    text = str(cell)
    return text if text.isascii() and text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """CSV with a header line. Text that a spreadsheet would run as a formula gets a `'` in front; numbers do not."""
    return "".join(_record(cells) for cells in (header, *([_safe(cell) for cell in row] for row in rows)))


def _record(cells: Sequence[Cell]) -> str:
    out = io.StringIO()
    # With this ending the writer quotes a lone CR too; for a terminal the line ends in LF all the same.
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return out.getvalue().removesuffix("\r\n") + "\n"


def _safe(cell: Cell) -> Cell:
    if not isinstance(cell, str) or not cell.startswith(RISKY):
        return cell
    try:
        float(cell)
    except ValueError:
        return "'" + cell
    return cell
