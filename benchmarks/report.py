"""Measurements to tables: medians, and ratios within each round with their spread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

__all__ = ["BASE", "ROWS", "Row", "markdown", "noise", "text"]

BASE = "bare-aiohttp"
"""What ratios are against."""
Rounds = Sequence[Mapping[str, Mapping[str, Mapping[str, float]]]]
"""Per round: gateway to phase to name to number."""


@dataclass(frozen=True)
class Row:
    """One line of the table: where its number stands, and how it is written."""

    title: str
    phase: str
    name: str
    unit: str
    places: int = 0
    base: str = ""
    """The phase of the base's number, where the base cannot do this one."""
    added: bool = False
    """The direct connection's number is taken away first."""


ROWS = (
    Row("CPU, plain call, 32 at a time", "plain", "cpu_us", "us a call"),
    Row("CPU, 64 KB prompt, 8 at a time", "long prompt", "cpu_us", "us a call"),
    Row("CPU, 100 streams, a piece each 10 ms", "paced", "cpu_us", "us a piece", 1),
    Row("CPU, 8 streams without a pause", "burst", "cpu_us", "us a piece", 2),
    Row("CPU, the same, translated", "burst translated", "cpu_us", "us a piece", 2, base="burst"),
    Row("CPU, 50 calls a second", "50 a second", "cpu_us", "us a call"),
    Row("calls a second, 32 at a time", "plain", "per_second", "/s"),
    Row("added to a call at 50 a second, median", "50 a second", "p50", "us", added=True),
    Row("added to a call at 50 a second, 99 %", "50 a second", "p99", "us", added=True),
    Row("added to a piece, 100 streams, median", "paced", "piece_p50", "us", added=True),
    Row("added to the first byte, 100 streams, median", "paced", "first_p50", "us", added=True),
    Row("memory, idle", "start", "memory", "MiB", 1),
    Row("memory, 1,000 streams", "1,000 streams", "memory", "MiB", 1),
    Row("start to first good answer", "start", "seconds", "s", 2),
    Row("CPU of a start", "start", "cpu", "s", 2),
)
ERRORS = Row("requests that failed", "", "bad", "")


def numbers(rounds: Rounds, gateway: str, row: Row) -> list[float | None]:
    """A row's number of each round; None where it was not measured."""
    found: list[float | None] = []
    for measured in rounds:
        value = measured.get(gateway, {}).get(row.phase, {}).get(row.name)
        if value is not None and row.added:
            direct = measured.get("direct", {}).get(row.phase, {}).get(row.name)
            value = None if direct is None else value - direct
        found.append(value)
    return found


def ratios(rounds: Rounds, gateway: str, row: Row) -> list[float]:
    """A row's number against the base's of the same round."""
    instead = replace(row, phase=row.base or row.phase)
    pairs = zip(numbers(rounds, gateway, row), numbers(rounds, BASE, instead), strict=True)
    return [value / base for value, base in pairs if value is not None and base is not None and base > 0]


def failed(rounds: Rounds, gateway: str) -> int:
    """How many requests were not answered as they should be, in all phases and rounds."""
    return int(sum(phase.get("bad", 0) for measured in rounds for phase in measured.get(gateway, {}).values()))


def cell(rounds: Rounds, gateway: str, row: Row) -> str:
    """A median, and how that compares with the base: the median of the rounds' ratios, the smallest and the largest.

    What is added to a direct call is a difference of two small numbers: a ratio of two such says nothing, so their own
    span stands there.
    """
    values = [value for value in numbers(rounds, gateway, row) if value is not None]
    if not values:
        return "-"
    shown = f"{median(values):,.{row.places}f}"
    if row.added and gateway != "direct":
        return f"{shown} ({min(values):,.{row.places}f} to {max(values):,.{row.places}f})"
    found = ratios(rounds, gateway, row)
    if not found or gateway in (BASE, "direct"):
        return shown
    return f"{shown} ({median(found):.2f}x, {min(found):.2f}-{max(found):.2f})"


def lines(rounds: Rounds) -> Iterator[list[str]]:
    """The table's cells, head first."""
    known = list(dict.fromkeys(name for measured in rounds for name in measured))
    yield ["", *known]
    for row in ROWS:
        if any(cell(rounds, name, row) != "-" for name in known):
            yield [f"{row.title} ({row.unit})", *(cell(rounds, name, row) for name in known)]
    yield [ERRORS.title, *(str(failed(rounds, name)) for name in known)]


def noise(rounds: Rounds) -> str:
    """How far the base's own CPU for a plain call went from round to round."""
    values = [value for value in numbers(rounds, BASE, ROWS[0]) if value is not None]
    if not values:
        return ""
    spread = (max(values) - min(values)) / median(values)
    return f"{BASE} itself varied by {spread:.0%} between rounds (CPU of a plain call)."


def text(rounds: Rounds) -> str:
    """For a terminal."""
    table = list(lines(rounds))
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]

    def written(line: Sequence[str]) -> str:
        first, *rest = line
        cells = (value.rjust(width) for value, width in zip(rest, widths[1:], strict=True))
        return "  ".join([first.ljust(widths[0]), *cells])

    return "\n".join([written(table[0]), "  ".join("-" * width for width in widths), *map(written, table[1:])])


def markdown(result: Mapping[str, Any]) -> str:
    """For a page: the table, and where and how it was measured."""
    rounds: Rounds = result["rounds"]
    head, *rest = lines(rounds)
    where = result["machine"]
    rows = ["| " + " | ".join(line) + " |" for line in rest]
    table = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1), *rows]
    about = (
        f"{len(rounds)} rounds on {where['date']}, Python {where['python']}, "
        + ", ".join(f"{name} {version}" for name, version in where["packages"].items())
        + f", {where['cores']} cores ({where['cpu']}). {noise(rounds)}"
    )
    notes = [f"* `{name}`: {said}." for name, said in result["about"].items()]
    return "\n".join([*table, "", *notes, "", about])
