"""The generated part about what was played and compared, from the figures of the last saved run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["conformance"]

FIGURES = Path(__file__).with_name("conformance.json")
COLUMNS = ("exchanges", "streams", "errors", "equal", "losses", "wrong")
HEADS = (
    "Client",
    "Recorded from",
    "Exchanges",
    "of them streams",
    "of them errors",
    "Equal",
    "Declared losses",
    "Wrong",
)


def _row(cell: Mapping[str, Any]) -> str:
    return f"| `{cell['dialect']}` | `{cell['family']}` | " + " | ".join(f"{cell[name]:,}" for name in COLUMNS) + " |"


def conformance() -> str:
    """The matrix and when it was made."""
    stored = json.loads(FIGURES.read_text(encoding="utf-8"))
    cells = stored["cells"]
    sums = " | ".join(f"**{sum(cell[name] for cell in cells):,}**" for name in COLUMNS)
    lines = [
        f"As of {stored['date']}:",
        "",
        "| " + " | ".join(HEADS) + " |",
        "|---|---|" + "---:|" * len(COLUMNS),
        *map(_row, cells),
        f"| **all** | | {sums} |",
    ]
    lost = [
        f"* `{cell['family']}` to `{cell['dialect']}`: "
        + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in cell["lost"].items())
        for cell in cells
        if cell["lost"]
    ]
    if lost:
        lines += ["", "What the exchanges lost that lost something, by how many of them did:", "", *lost]
    return "\n".join(lines)
