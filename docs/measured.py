"""The blocks of the documentation that are made from saved measurements."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["callers", "features", "growth", "measured", "overload", "pairs", "table"]

ROOT = Path(__file__).resolve().parents[1]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table. Bars in cells are escaped and line breaks become spaces."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(head), "|" + "---|" * len(head), *(line(row) for row in rows)])


def measured() -> str:
    """The table of the last saved benchmark."""
    result = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    found: str = benchmark_report().markdown(result)
    return found


def pairs() -> str:
    """The table of the last saved run of `benchmarks/pairs.py`."""
    result = json.loads((ROOT / "benchmarks" / "pairs.json").read_text(encoding="utf-8"))
    found: str = benchmark("matrix").table(result["rounds"])
    return f"{len(result['rounds'])} rounds on {result['machine']['date']}:\n\n{found}"


def benchmark_report() -> Any:
    """`benchmarks/report.py`."""
    return benchmark("report")


def benchmark(name: str) -> Any:
    """A module of `benchmarks/`, which is a program's part and not a package's."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"benchmarks/{name}.py cannot be read")
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def features() -> str:
    """What was counted for each variant, and how far that is from the first."""
    rows = json.loads((ROOT / "benchmarks" / "features.json").read_text(encoding="utf-8"))
    first = rows[0]

    def cell(row: Mapping[str, Any], name: str) -> str:
        return f"{row[name]:,}" + ("" if row is first else f" ({row[name] / first[name] - 1:+.0%})")

    return table(
        ("", "Instructions of a call", "of a streamed piece"),
        [(row["title"], cell(row, "call"), cell(row, "piece")) for row in rows],
    )


def growth() -> str:
    """What a call costs where more is stored or configured."""
    rows = json.loads((ROOT / "benchmarks" / "growth.json").read_text(encoding="utf-8"))
    first = rows[0]["call"]
    return table(
        ("", "Instructions of a call"),
        [(row["title"], f"{row['call']:,} ({row['call'] / first - 1:+.0%})") for row in rows],
    )


def callers() -> str:
    """What a call costs at more callers at a time, beside the bare pass-through."""
    rows = json.loads((ROOT / "benchmarks" / "callers.json").read_text(encoding="utf-8"))
    return table(
        ("Callers at a time", "bare-aiohttp (us a call)", "relay (us a call)", "Ratio", "Failed"),
        [
            (
                f"{row['callers']:,}",
                f"{row['bare-aiohttp']:.0f}",
                f"{row['relay']:.0f}",
                f"{row['relay'] / row['bare-aiohttp']:.2f}x",
                f"{row['relay failed']:.0f}",
            )
            for row in rows
        ],
    )


def overload() -> str:
    """What is left for each where more is asked than can be served, as shares of what is served where all can be."""
    found = json.loads((ROOT / "benchmarks" / "overload.json").read_text(encoding="utf-8"))
    first = found["crowded"][0]["answered"]
    rows = [
        (
            f"{row['callers']} callers at a time, each with its next call as soon as the last is answered",
            f"{row['answered'] / first:.0%}",
            "none" if not row["failed"] else f"{row['failed']:.0f}",
            f"{row['p99_ms']:,.0f} ms",
        )
        for row in found["crowded"]
    ]
    full, over = found["limited"]
    rows += [
        (
            f"a model with {found['busy']} places, each taken for 200 ms, asked as often as it can answer",
            "100%",
            "none",
            f"{full['p99_ms']:,.0f} ms",
        ),
        (
            f"the same, asked {over['asked'] / full['asked']:.1f} times as often",
            f"{over['answered'] / full['answered']:.0%}",
            f"{over['refused'] / over['asked']:.0%} of the calls, each within {over['first_p50_ms']:.1f} ms (median)",
            f"{over['p99_ms']:,.0f} ms",
        ),
    ]
    direct, relay = found["direct"], found["relay"]

    def added(name: str) -> list[str]:
        shares = (f"{name}_p50", f"{name}_p99")
        return [f"{(relay[share] - direct[share]) / 1000:+.1f} ms" for share in shares]

    streams = table(
        ("Added to each of 50 streams that begin together", "median", "99 %"),
        [("first byte", *added("first")), ("each piece, one in 20 ms", *added("piece"))],
    )
    return table(("", "Answered", "Refused or failed", "99 % of all within"), rows) + "\n\n" + streams
