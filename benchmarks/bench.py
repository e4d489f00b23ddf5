"""How much the relay costs, beside a bare pass-through and whatever else is installed, in one run.

    python benchmarks/bench.py                        at least five rounds, four minutes at most
    python benchmarks/bench.py --quick                a first look in less than a minute
    python benchmarks/bench.py -g relay -p plain      only these gateways (the base always is) and phases

Each round starts every gateway in turn, takes it through every phase and ends it. The gateway has a core of its own;
the upstream and the client, two small programs in C, have the others. Trust ratios within a run, not figures across
runs. Results go to benchmarks/last.json; --save also writes them where the documentation takes its table from.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

from gateways import PEERS, Broken, Gateway, Running, free_port, gateways, pinned
from phases import PHASES, Load, Phase, shorter
from report import BASE, noise, text

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"
ROUNDS = 5
BUDGET = 235.0
"""Seconds of a whole run. A round that would end later is not begun."""
QUICK_ROUNDS, QUICK_BUDGET, QUICK_SHARE = 2, 43.0, 0.4
WARM = Phase("warm", "mock-0-0", connections=8, seconds=0.3)
WARM_STREAM = Phase("warm stream", "mock-200-0", stream=True, connections=2, requests=6)
UPSTREAM = Gateway("direct", ())
PACKAGES = ("i8relay", "aiohttp", "uvloop", "httptools")


def build(name: str) -> Path:
    """The program of one C file, compiled if it is not or is older. Leaves if that cannot be."""
    source, program = HERE / f"{name}.c", BUILD / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        compiler = os.environ.get("CC") or shutil.which("cc")
        if compiler is None:
            sys.exit(
                "The benchmark needs a C compiler for its upstream and its client. On Debian: apt install gcc libc6-dev"
            )
        BUILD.mkdir(exist_ok=True)
        done = subprocess.run([compiler, "-O2", "-o", str(program), str(source)], check=False)
        if done.returncode:
            sys.exit(f"{source.name} cannot be compiled; set CC to a compiler that can")
    return program


def chosen(names: Sequence[str]) -> list[Gateway]:
    """The gateways that are asked for, or all that are found; the base is always among them."""
    known = {gateway.name: gateway for gateway in gateways()}
    for name in names:
        if name not in known:
            sys.exit(f"there is no gateway {name!r}; there are: {', '.join(known)}")
    wanted = [known[name] for name in (names or known)]
    if not any(gateway.name == BASE for gateway in wanted):
        wanted.insert(0, known[BASE])
    missing = [gateway.name for gateway in wanted if not gateway.found()]
    if missing:
        print(f"not installed, left out: {', '.join(missing)}")
    return [gateway for gateway in wanted if gateway.found()]


def machine() -> dict[str, Any]:
    """Where this runs, for those who read the results elsewhere."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "none"
    for peer in sorted(PEERS.glob("*")):
        for found in distributions(name=peer.name, path=[str(path) for path in peer.glob("lib/python*/site-packages")]):
            packages[peer.name] = found.version
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    cores = len(os.sched_getaffinity(0))
    return {
        "date": today,
        "cpu": next(names, platform.machine()),
        "cores": cores,
        "python": platform.python_version(),
        "packages": packages,
    }


class Bench:
    """One run: the programs, the cores, and what is measured."""

    def __init__(self, phases: Sequence[Phase], folder: Path, cores: Sequence[int]) -> None:
        self.phases = phases
        self.folder = folder
        self.gateway_cores = cores[:1] if len(cores) > 1 else []
        others = cores[1:]
        self.upstream = free_port()
        self.load = Load(build("load"), folder, others)
        self.mock = subprocess.Popen(
            [build("mock"), str(self.upstream)], stdout=subprocess.PIPE, preexec_fn=pinned(others)
        )
        assert self.mock.stdout is not None
        self.mock.stdout.readline()
        if others:
            # Looking at /proc must not take the gateway's time.
            os.sched_setaffinity(0, others)

    def direct(self) -> dict[str, dict[str, float]]:
        """The same loads without anything between, for what is added to them."""
        wanted = [phase for phase in self.phases if phase.name in ("plain", "paced", "50 a second")]
        return {phase.name: self.load.alone(phase, self.upstream, UPSTREAM) for phase in wanted}

    def through(self, gateway: Gateway) -> dict[str, dict[str, float]]:
        """One gateway, from its start to its end."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            running = Running(gateway, self.upstream, Path(folder), self.gateway_cores)
            try:
                start = {"seconds": running.start_seconds, "cpu": running.start_cpu, "memory": running.memory()}
                found = {"start": start}
                for warm in (WARM, WARM_STREAM):
                    self.load.alone(warm, running.port, gateway)
                for phase in self.phases:
                    if phase.cross <= gateway.cross:
                        found[phase.name] = self.load.measure(phase, running)
            finally:
                running.end()
        return found

    def round(self, number: int, wanted: Sequence[Gateway]) -> dict[str, Any]:
        """Every gateway once, each round beginning with another one."""
        found: dict[str, Any] = {"direct": self.direct()}
        first = number % len(wanted)
        for gateway in (*wanted[first:], *wanted[:first]):
            try:
                found[gateway.name] = self.through(gateway)
            except Broken as error:
                print(f"left out of round {number + 1}: {error}", file=sys.stderr)
        return {name: found[name] for name in ("direct", *(gateway.name for gateway in wanted)) if name in found}

    def end(self) -> None:
        """End the upstream."""
        self.mock.terminate()
        self.mock.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-g", "--gateway", action="append", default=[], help="only this one, and the base; repeat")
    parser.add_argument("-p", "--phase", action="append", default=[], help="only this phase; repeat")
    parser.add_argument("-r", "--rounds", type=int, help=f"rounds [default: {ROUNDS}, or {QUICK_ROUNDS} with --quick]")
    parser.add_argument("--seconds", type=float, help=f"of a whole run [default: {BUDGET:g}]")
    parser.add_argument("--quick", action="store_true", help="shorter phases, fewer rounds")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results.json, too")
    wanted = parser.parse_args()
    phases = [phase for phase in PHASES if not wanted.phase or phase.name in wanted.phase]
    if not phases:
        parser.error(f"there are these phases: {', '.join(phase.name for phase in PHASES)}")
    if wanted.quick:
        phases = [shorter(phase, QUICK_SHARE) for phase in phases]
    rounds = wanted.rounds or (QUICK_ROUNDS if wanted.quick else ROUNDS)
    budget = wanted.seconds or (QUICK_BUDGET if wanted.quick else BUDGET)
    where = machine()
    began = time.monotonic()
    found = chosen(wanted.gateway)
    measured: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="i8relay-bench-") as folder:
        bench = Bench(phases, Path(folder), sorted(os.sched_getaffinity(0)))
        if not bench.gateway_cores:
            print("There is one core for everything: figures and ratios will be off.")
        try:
            for number in range(rounds):
                so_far = time.monotonic() - began
                if number and so_far + so_far / number > budget:
                    print(f"Out of time after {number} of {rounds} rounds; --seconds gives more.")
                    break
                measured.append(bench.round(number, found))
                print(f"round {number + 1} of {rounds} after {time.monotonic() - began:.0f} s", flush=True)
        finally:
            bench.end()
    print(f"\n{text(measured)}\n\nIn brackets: against {BASE} in the same round, median and span. {noise(measured)}")
    about = {gateway.name: gateway.about for gateway in found}
    result = json.dumps({"machine": where, "about": about, "rounds": measured}, indent=1) + "\n"
    (HERE / "last.json").write_text(result, encoding="utf-8")
    if wanted.save:
        (HERE / "results.json").write_text(result, encoding="utf-8")


if __name__ == "__main__":
    main()
