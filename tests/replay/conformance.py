"""Play every recorded exchange through a relay to a client of every dialect, and print what became of it.

    python tests/replay/conformance.py [FOLDER] [--sample N] [--save]

FOLDER holds recordings, one JSON object a line in `*.jsonl` or `*.jsonl.gz`; without it they are looked for where the
tests look. Each client is its vendor's official SDK. What it understands must equal the recording's own words, tools,
reasoning, reason to stop and token counts, read by code that shares nothing with the relay; where client and host
speak the same dialect, the bytes must be equal.

`--sample N` plays at most N exchanges of each cell of the matrix, spread over hosts and kinds. `--save` writes the
figures into the documentation. The exit status is 1 while anything is wrong, 2 if there are no recordings.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "providers"), str(ROOT / "plugins")]

from tests.conftest import shared_folder  # noqa: E402 - the path comes first
from tests.replay.clients import CLIENTS  # noqa: E402
from tests.replay.matrix import Cell, shown  # noqa: E402
from tests.replay.reading import failure  # noqa: E402
from tests.replay.recording import PATHS, Exchange, NoRecordings, Recordings, load  # noqa: E402
from tests.replay.stage import Stage, staged  # noqa: E402
from tests.replay.verdict import judge  # noqa: E402

__all__ = ["main", "play_cell", "sample"]

FIGURES = ROOT / "docs" / "conformance.json"
PROCESSES = 2
SECONDS = 30.0
"""Longest time for one exchange: the SDKs and the relay give up long before."""


@lru_cache(maxsize=1)
def _loaded(folder: Path) -> Recordings:
    """Once in each process."""
    return load(folder)


def sample(exchanges: Sequence[Exchange], most: int) -> list[Exchange]:
    """At most `most` of these (0: all), the first of each host, form and status before the second of any."""
    if not most or len(exchanges) <= most:
        return list(exchanges)
    ranked: dict[tuple[object, ...], int] = {}
    places = []
    for exchange in sorted(exchanges, key=lambda one: str(one["id"])):
        kind = (exchange["family"], exchange["streaming"], exchange["status"] >= 400)
        ranked[kind] = ranked.get(kind, 0) + 1
        places.append((ranked[kind], len(places), exchange))
    return [exchange for _, _, exchange in sorted(places, key=lambda place: place[:2])[:most]]


async def play_cell(stage: Stage, dialect: str, family: str, exchanges: Sequence[Exchange]) -> Cell:
    """Play these to a client of `dialect`. Whatever goes wrong in one is told of it, and the others go on."""
    cell = Cell(dialect, family)
    played = []
    for exchange in exchanges:
        cell.exchanges += 1
        cell.streams += bool(exchange["streaming"])
        try:
            cell.errors += failure(exchange) is not None
            async with asyncio.timeout(SECONDS):
                played.append(await stage.play(dialect, exchange))
        except Exception as error:
            cell.wrong[exchange["id"]] = [f"{type(error).__name__}: {error}"]
    # Those that failed have left rows, too.
    rows = await stage.rows(2 * len(exchanges) + 1)
    for one in played:
        name = one.exchange["id"]
        try:
            verdict = judge(one, rows.get(one.tape.headers.get("x-request-id", ""), []))
        except Exception as error:
            cell.wrong[name] = [f"the recording cannot be read: {type(error).__name__}: {error}"]
            continue
        if verdict.faults:
            cell.wrong[name] = verdict.faults
        elif verdict.losses:
            cell.losses += 1
            cell.lost.update(set(verdict.losses))
    return cell


async def _staged_cell(dialect: str, family: str, exchanges: Sequence[Exchange]) -> Cell:
    with tempfile.TemporaryDirectory() as folder:
        async with staged(Path(folder)) as stage:
            return await play_cell(stage, dialect, family, exchanges)


def _cell(folder: Path, dialect: str, family: str, most: int) -> Cell:
    exchanges = [exchange for exchange in _loaded(folder).exchanges if exchange["dialect"] == family]
    return asyncio.run(_staged_cell(dialect, family, sample(exchanges, most)))


def run(folder: Path, most: int) -> list[Cell]:
    """All cells of the matrix, in two processes if they are many, with a line for each as it is done."""
    cells = []
    exchanges = _loaded(folder).exchanges
    families = {exchange["dialect"] for exchange in exchanges}
    # To start one takes as long as to play some hundreds.
    processes = PROCESSES if len(exchanges) > 100 else 1
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(_cell, folder, dialect, family, most)
            for family in PATHS
            for dialect in CLIENTS
            if family in families
        ]
        for number, job in enumerate(as_completed(jobs), 1):
            cell = job.result()
            cells.append(cell)
            done = f"{cell.family} to {cell.dialect}: {cell.exchanges} played, {len(cell.wrong)} wrong"
            print(f"{number}/{len(jobs)} {done}", flush=True)
    order = [(dialect, family) for dialect in CLIENTS for family in PATHS]
    return sorted(cells, key=lambda cell: order.index((cell.dialect, cell.family)))


def save(cells: list[Cell]) -> None:
    """Write the figures for the documentation."""
    stored = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "cells": [cell.figures() for cell in cells]}
    FIGURES.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 if nothing is wrong, 1 if something is, 2 if there is nothing to play."""
    about = (__doc__ or "").partition("\n\n")[0]
    parser = argparse.ArgumentParser(prog="conformance", description=about)
    parser.add_argument("folder", nargs="?", type=Path, default=shared_folder() / "traffic", help="recordings")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="play at most N of each cell")
    parser.add_argument("--save", action="store_true", help="write the figures into the documentation")
    chosen = parser.parse_args(arguments)
    start = time.monotonic()
    try:
        recordings = _loaded(chosen.folder)
    except NoRecordings as error:
        print(error, file=sys.stderr)
        return 2
    # The usual keys and addresses of whoever runs this must not matter.
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_BASE_URL", "_PROXY", "_proxy")):
            del os.environ[name]
    print(
        f"{len(recordings.exchanges)} recorded generations in {chosen.folder}, for clients of {len(CLIENTS)} dialects"
    )
    cells = run(chosen.folder, chosen.sample)
    print()
    print(shown(cells))
    print("\nDeclared losses:")
    for cell in cells:
        if cell.lost:
            counts = ", ".join(f"{count} {name}" for name, count in sorted(cell.lost.items()))
            print(f"  {cell.family} to {cell.dialect}: {counts}")
    if recordings.others:
        print("\nNot for us, and not played:")
        for kind, count in sorted(recordings.others.items()):
            print(f"  {count:5} {kind}")
    wrong = [(cell, name, found) for cell in cells for name, found in cell.wrong.items()]
    if wrong:
        print("\nWrong:")
    for cell, name, found in wrong:
        print(f"  {cell.family} to {cell.dialect} {name}: {'; '.join(found)}")
    print(f"\n{sum(cell.exchanges for cell in cells)} played in {time.monotonic() - start:.0f} seconds")
    if chosen.save:
        save(cells)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
