"""A guard against growing costs that does not look at the clock: it counts, so it says the same on a busy machine.

    python benchmarks/instructions.py             count, and compare with benchmarks/instructions.json
    python benchmarks/instructions.py --update    count, and write what was counted there

A relay with the default settings is taken through a fixed piece of work by an upstream and a client that wait for each
other. Twice: under valgrind's callgrind, which counts the processor's instructions (left out where there is no
valgrind), and under Python's own profiler, which counts the calls of functions. Whatever costs more than a tenth more
than what is written down fails. Python's version and the machine's kind matter to both: what is written down is kept
for each, and where there is nothing yet, nothing is compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from counting import ENVIRONMENT, WAYS, counted, possible

STORED = Path(__file__).resolve().parent / "instructions.json"
TOLERANCE = 0.10
ONE = 1
"""A piece takes so few calls that one more is what the relay does by the clock."""
MODELS = {"mock": "", "other": ", translated"}


def compared(way: str, found: Mapping[str, int], stored: Mapping[str, int]) -> list[str]:
    """Print the table of one way; gives what is too much."""
    faults = []
    for name, count in found.items():
        known = stored.get(name)
        change = f"{count / known - 1:+.1%}" if known else "nothing to compare with"
        print(f"  {name:20} {count:>10,} {way}  {change}")
        if known and count > known * (1 + TOLERANCE) + ONE:
            faults.append(f"{name}: {count:,} {way} are more than a tenth above {known:,}")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write down what is counted")
    parser.add_argument("--only", choices=WAYS, help="count in one way")
    parser.add_argument(
        "--file", type=Path, default=STORED, help="where that is [default: instructions.json beside this]"
    )
    wanted = parser.parse_args()
    stored = json.loads(wanted.file.read_text(encoding="utf-8")) if wanted.file.exists() else {}
    known = stored.setdefault(ENVIRONMENT, {})
    faults: list[str] = []
    for way in [wanted.only] if wanted.only else WAYS:
        if not possible(way):
            print("skipped: no valgrind")
            continue
        began = time.monotonic()
        found = asyncio.run(counted(way, MODELS))
        print(f"{way} on {ENVIRONMENT}, in {time.monotonic() - began:.0f} s")
        faults += compared(way, found, known.get(way, {}))
        known[way] = found
    if wanted.update:
        wanted.file.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    elif faults:
        sys.exit("\n".join([*faults, "If that is what it has to cost: make bench-guard ARGS=--update"]))


if __name__ == "__main__":
    main()
