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
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from gateways import KEY, free_port
from lockstep import CHAT, MESSAGES, Lockstep

HERE = Path(__file__).resolve().parent
STORED = HERE / "instructions.json"
TOLERANCE = 0.10
START_SECONDS = 150.0
MARK_SECONDS = 30.0
MARKED = "getpriority"
"""A function of the C library that nothing else calls: where callgrind writes down what it has counted."""
CALLS, STREAMS, PIECES = 200, 4, 120
WARM_CALLS, WARM_STREAMS = 40, 2
ENVIRONMENT = (
    f"{platform.python_implementation().lower()}-{'.'.join(platform.python_version_tuple()[:2])}-{platform.machine()}"
)
CONFIG = f"""
[discovery]
environment = false
local = false
fallback = false
[upstreams.chat]
family = "openai"
base_url = "http://127.0.0.1:{{port}}{CHAT.removesuffix("/chat/completions")}"
api_key = "upstream-key-0123456789"
[upstreams.messages]
family = "anthropic"
base_url = "http://127.0.0.1:{{port}}{MESSAGES.removesuffix("/v1/messages")}"
api_key = "upstream-key-0123456789"
[models.mock]
targets = ["chat/mock"]
price = {{{{ input = 1.0, output = 2.0 }}}}
[models.other]
targets = ["messages/mock"]
price = {{{{ input = 1.0, output = 2.0 }}}}
"""


# In the relay's own process.


def relay(way: str, arguments: list[str]) -> None:
    """Run `relay` with a handler for the signal that ends one part of the count. Never comes back."""
    WAYS[way]()
    from relay.__main__ import main

    sys.argv = ["relay", *arguments]
    main()


def mark_instructions() -> None:
    signal.signal(signal.SIGUSR1, lambda *_: os.getpriority(os.PRIO_PROCESS, 0))


def mark_calls() -> None:
    """Count in this thread only: the one that writes rows does so when it gets to it."""
    count = 0

    def counted(frame: object, event: str, argument: object) -> None:
        nonlocal count
        if event in ("call", "c_call"):
            count += 1

    def marked(*_: object) -> None:
        nonlocal count
        with open("calls", "a") as file:
            file.write(f"{count}\n")
        count = 0

    signal.signal(signal.SIGUSR1, marked)
    sys.setprofile(counted)


WAYS: Mapping[str, Callable[[], None]] = {"instructions": mark_instructions, "calls": mark_calls}


# In the process that drives it.


def parts(folder: Path, way: str) -> list[int]:
    """What was counted so far, part by part."""
    if way == "calls":
        file = folder / "calls"
        return [int(line) for line in file.read_text().split()] if file.exists() else []
    files = sorted(folder.glob("callgrind.*"), key=lambda file: int(file.suffix[1:]))
    found = [re.search(r"^totals: (\d+)$", file.read_text(errors="replace"), re.MULTILINE) for file in files]
    return [int(match[1]) for match in found if match]


def command(folder: Path, way: str, port: int) -> list[str]:
    """How the relay is started, to be counted in one way."""
    words = [sys.executable, str(Path(__file__).resolve()), "--relay", way]
    words += ["serve", "--config", "relay.toml", "--db", "relay.db", "--port", str(port), "--log-level", "error"]
    if way == "calls":
        return words
    out = f"--callgrind-out-file={folder}/callgrind"
    # Each dump is a file of its own, `callgrind.1` and so on; the last one, of the process's end, has no number.
    return ["valgrind", "-q", "--tool=callgrind", out, f"--dump-before={MARKED}", *words]


class Count:
    """One relay, counted in one way."""

    def __init__(self, folder: Path, way: str, process: asyncio.subprocess.Process, lockstep: Lockstep) -> None:
        self.folder = folder
        self.way = way
        self.process = process
        self.lockstep = lockstep

    async def serving(self, port: int) -> None:
        """Wait until the relay listens."""
        began = time.monotonic()
        while True:
            try:
                await self.lockstep.connect(port)
                return
            except OSError:
                if self.process.returncode is not None or time.monotonic() - began > START_SECONDS:
                    told = (self.folder / "log").read_text(errors="replace")[-2000:]
                    raise SystemExit(
                        f"the relay does not start, with status {self.process.returncode}:\n{told}"
                    ) from None
                await asyncio.sleep(0.1)

    async def mark(self) -> int:
        """End a part; what was counted in it."""
        known = len(parts(self.folder, self.way))
        self.process.send_signal(signal.SIGUSR1)
        began = time.monotonic()
        while len(found := parts(self.folder, self.way)) <= known:
            if time.monotonic() - began > MARK_SECONDS:
                raise SystemExit(f"the relay does not tell what it counted ({self.way})")
            await asyncio.sleep(0.05)
        return found[-1]

    async def each(self, work: Callable[[], Awaitable[None]], times: int, units: int) -> int:
        """What one unit costs of work that is done so many times and has so many units each time."""
        await self.mark()
        for _ in range(times):
            await work()
        return round(await self.mark() / times / units)

    async def all(self) -> dict[str, int]:
        """Everything that is compared."""
        lockstep = self.lockstep
        for model in ("mock", "other"):
            for _ in range(WARM_CALLS):
                await lockstep.whole(model)
            for _ in range(WARM_STREAMS):
                await lockstep.stream(model, PIECES)
        return {
            "call": await self.each(lambda: lockstep.whole("mock"), CALLS, 1),
            "call, translated": await self.each(lambda: lockstep.whole("other"), CALLS, 1),
            "piece": await self.each(lambda: lockstep.stream("mock", PIECES), STREAMS, PIECES),
            "piece, translated": await self.each(lambda: lockstep.stream("other", PIECES), STREAMS, PIECES),
        }


async def counted(way: str) -> dict[str, int]:
    """Start a relay, take it through the work, end it."""
    with tempfile.TemporaryDirectory(prefix="i8relay-count-") as name:
        folder = Path(name)
        lockstep = Lockstep(KEY)
        await lockstep.start()
        (folder / "relay.toml").write_text(CONFIG.format(port=lockstep.port).replace("{{", "{").replace("}}", "}"))
        key = await asyncio.create_subprocess_exec(sys.executable, HERE / "key.py", folder / "relay.db", KEY)
        if await key.wait():
            raise SystemExit("the relay's database cannot be made")
        port = free_port()
        # Where objects lie and in which order sets are walked must not differ from run to run.
        environment = {**os.environ, "PYTHONHASHSEED": "0", "XDG_CACHE_HOME": name, "XDG_CONFIG_HOME": name}
        with (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command(folder, way, port), cwd=name, env=environment, stdout=log, stderr=log
            )
            try:
                count = Count(folder, way, process, lockstep)
                await count.serving(port)
                return await count.all()
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()
                await lockstep.close()


def compared(way: str, found: Mapping[str, int], stored: Mapping[str, int]) -> list[str]:
    """Print the table of one way; gives what is too much."""
    faults = []
    for name, count in found.items():
        known = stored.get(name)
        change = f"{count / known - 1:+.1%}" if known else "nothing to compare with"
        print(f"  {name:20} {count:>10,} {way}  {change}")
        if known and count > known * (1 + TOLERANCE):
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
        if way == "instructions" and shutil.which("valgrind") is None:
            print("skipped: no valgrind")
            continue
        began = time.monotonic()
        found = asyncio.run(counted(way))
        print(f"{way} on {ENVIRONMENT}, in {time.monotonic() - began:.0f} s")
        faults += compared(way, found, known.get(way, {}))
        known[way] = found
    if wanted.update:
        wanted.file.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    elif faults:
        sys.exit("\n".join([*faults, "If that is what it has to cost: make bench-guard ARGS=--update"]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--relay"]:
        relay(sys.argv[2], sys.argv[3:])
    else:
        main()
