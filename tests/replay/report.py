"""Play every recorded exchange through a relay and print a table: `python tests/replay/report.py`."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "providers"), str(ROOT / "plugins")]

from relay.kit import table  # noqa: E402 - the path comes first
from tests.conftest import read_traffic  # noqa: E402
from tests.replay.recording import Exchange, Group, played  # noqa: E402
from tests.replay.stage import Stage, staged  # noqa: E402
from tests.replay.verdict import faults  # noqa: E402

__all__ = ["judge", "main"]


async def judge(stage: Stage, exchanges: list[Exchange]) -> dict[str, list[str]]:
    """Play all these; the faults of those that are wrong, by id."""
    shown = [await stage.play(exchange) for exchange in exchanges]
    rows = await stage.rows(len(shown) + 1)
    wrong = {}
    for one in shown:
        if found := faults(one, rows.get(one.tape.headers.get("x-request-id", ""), [])):
            wrong[one.exchange["id"]] = found
    return wrong


async def report(groups: dict[Group, list[Exchange]]) -> int:
    """Print the table; the number of exchanges that went wrong."""
    lines: list[tuple[str, ...]] = []
    reasons: list[str] = []
    total = wrong_total = 0
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        async with staged(Path(folder)) as stage:
            for (file, streamed), exchanges in sorted(groups.items()):
                by_dialect: dict[str, list[Exchange]] = defaultdict(list)
                for exchange in exchanges:
                    by_dialect[exchange["dialect"]].append(exchange)
                for dialect, some in sorted(by_dialect.items()):
                    wrong = await judge(stage, some)
                    errors = sum(exchange["status"] >= 400 for exchange in some)
                    form = "stream" if streamed else "whole"
                    counts = (len(some), errors, len(some) - len(wrong), len(wrong))
                    lines.append((dialect, file, form, *map(str, counts)))
                    reasons += [f"{dialect} {file} {name}: {'; '.join(found)}" for name, found in wrong.items()]
                    total += len(some)
                    wrong_total += len(wrong)
    lines.append(("all", "", "", str(total), "", str(total - wrong_total), str(wrong_total)))
    lines.sort()
    heads = ("dialect", "file", "form", "exchanges", "errors", "equal", "wrong")
    print(table(heads, lines))
    print("\n".join(reasons))
    print(f"{total} exchanges in {time.monotonic() - start:.1f} seconds")
    return wrong_total


def main() -> int:
    """The exit status: 0 if everything is equal, 1 if not, 2 if there are no recordings."""
    try:
        groups = played(read_traffic())
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    return 1 if asyncio.run(report(groups)) else 0


if __name__ == "__main__":
    sys.exit(main())
