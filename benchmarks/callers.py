"""Whether a call costs more where more callers are connected: CPU time of a plain call at 10, 100 and 1,000 of them.

    python benchmarks/callers.py [--save]         half a minute; --save writes what the documentation shows

The same for a bare pass-through in the same round: what the system charges for many sockets, everybody pays.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from bench import Bench
from gateways import gateways
from phases import Phase
from report import BASE

SAVED = Path(__file__).resolve().parent / "callers.json"
CALLERS = (10, 100, 1000)
SECONDS = 1.5
ROUNDS = 3


def main() -> None:
    phases = [Phase(f"{callers} callers", "mock-0-0", connections=callers, seconds=SECONDS) for callers in CALLERS]
    wanted = [gateway for gateway in gateways() if gateway.name in (BASE, "relay")]
    with tempfile.TemporaryDirectory(prefix="i8relay-callers-") as folder:
        bench = Bench(phases, Path(folder), sorted(os.sched_getaffinity(0)))
        try:
            rounds = [bench.round(number, wanted) for number in range(ROUNDS)]
        finally:
            bench.end()
    rows = []
    for callers, phase in zip(CALLERS, phases, strict=True):
        row: dict[str, float] = {"callers": callers}
        for name in (BASE, "relay"):
            told = [found[name][phase.name] for found in rounds if name in found]
            row[name] = statistics.median(one["cpu_us"] for one in told)
            row[f"{name} failed"] = sum(one["bad"] for one in told)
        rows.append(row)
        print(
            f"{callers:>5,} callers: {row['relay']:6.1f} us a call, {row['relay'] / row[BASE]:.2f} times {BASE}'s"
            f" {row[BASE]:.1f}; failed: {row['relay failed']:.0f}"
        )
    if "--save" in sys.argv[1:]:
        SAVED.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
