"""Counting what a relay does, in a process of its own: instructions under callgrind, or calls of Python's functions."""

from __future__ import annotations

import asyncio
import functools
import os
import platform
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateways import KEY, free_port
from lockstep import Lockstep

__all__ = ["DEFAULT", "ENVIRONMENT", "WAYS", "Variant", "counted", "possible"]

HERE = Path(__file__).resolve().parent
START_SECONDS = 150.0
MARK_SECONDS = 30.0
MARKED = "getpriority"
"""A function of the C library that nothing else calls: where callgrind writes down what it has counted."""
CALLS, STREAMS, PIECES = 200, 4, 120
WARM_CALLS, WARM_STREAMS = 40, 2
_VERSION = ".".join(platform.python_version_tuple()[:2])
ENVIRONMENT = f"{platform.python_implementation().lower()}-{_VERSION}-{platform.machine()}"
"""What counts depend on beside the code."""
CONFIG = """
[discovery]
environment = false
local = false
fallback = false
[upstreams.chat]
family = "openai"
base_url = "http://127.0.0.1:{port}/v1"
api_key = "upstream-key-0123456789"
[upstreams.messages]
family = "anthropic"
base_url = "http://127.0.0.1:{port}"
api_key = "upstream-key-0123456789"
[models.mock]
targets = ["chat/mock"]
price = { input = 1.0, output = 2.0 }
[models.other]
targets = ["messages/mock"]
price = { input = 1.0, output = 2.0 }
"""


@dataclass(frozen=True)
class Variant:
    """A relay that is not as it is by default, and what it is asked."""

    title: str = "the default settings"
    config: str = ""
    """What its configuration says more."""
    without: str = ""
    """What its configuration does not say."""
    missing: Sequence[str] = ()
    """Modules that it does not find."""
    model: str = "mock"
    asked: Mapping[str, Any] = field(default_factory=dict)
    """More fields of every request."""
    keys: int = 1
    """Keys in its database."""
    rows: int = 0
    """Usage rows in its database before the first call."""
    plugin: str = ""
    """The text of a plugin in its folder of plugins."""


DEFAULT = Variant()


# In the relay's own process.


def relay(way: str, missing: str, arguments: list[str]) -> None:
    """Run `relay` with a handler for the signal that ends one part of the count. Never comes back."""
    for name in filter(None, missing.split(",")):
        # What Python does with such an entry: an ImportError.
        sys.modules[name] = None  # type: ignore[assignment]
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


def possible(way: str) -> bool:
    """Whether this machine can count in that way."""
    return way != "instructions" or shutil.which("valgrind") is not None


# In the process that drives it.


def parts(folder: Path, way: str) -> list[int]:
    """What was counted so far, part by part."""
    if way == "calls":
        file = folder / "calls"
        return [int(line) for line in file.read_text().split()] if file.exists() else []
    files = sorted(folder.glob("callgrind.*"), key=lambda file: int(file.suffix[1:]))
    found = [re.search(r"^totals: (\d+)$", file.read_text(errors="replace"), re.MULTILINE) for file in files]
    return [int(match[1]) for match in found if match]


def command(folder: Path, way: str, port: int, missing: Sequence[str]) -> list[str]:
    """How the relay is started, to be counted in one way."""
    words = [sys.executable, str(Path(__file__).resolve()), way, ",".join(missing)]
    words += ["serve", "--config", "relay.toml", "--db", "relay.db", "--port", str(port), "--log-level", "error"]
    if way == "calls":
        return words
    out = f"--callgrind-out-file={folder}/callgrind"
    # Each dump is a file of its own, `callgrind.1` and so on; the last one, of the process's end, has no number.
    return ["valgrind", "-q", "--tool=callgrind", out, f"--dump-before={MARKED}", *words]


class Count:
    """One relay, counted in one way."""

    def __init__(
        self, folder: Path, way: str, process: asyncio.subprocess.Process, lockstep: Lockstep, before: int
    ) -> None:
        self.folder = folder
        self.way = way
        self.process = process
        self.lockstep = lockstep
        self.before = before
        """Rows that were there before the first call."""
        self.asked = 0
        """Calls so far, each of which leaves a row."""

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

    async def do(self, work: Callable[[], Awaitable[None]], times: int) -> None:
        """Work that makes a call, so many times, and the writing of their rows, which comes a moment later."""
        for _ in range(times):
            await work()
        self.asked += times
        began = time.monotonic()
        with closing(sqlite3.connect(f"file:{self.folder}/relay.db?mode=ro", uri=True)) as database:
            while database.execute("SELECT count(*) FROM usage").fetchone()[0] < self.before + self.asked:
                if time.monotonic() - began > MARK_SECONDS:
                    raise SystemExit(f"the relay does not write its rows ({self.way})")
                await asyncio.sleep(0.05)

    async def each(self, work: Callable[[], Awaitable[None]], times: int, units: int) -> int:
        """What one unit costs of work that is done so many times and has so many units each time."""
        await self.mark()
        await self.do(work, times)
        return round(await self.mark() / times / units)

    async def all(self, models: Mapping[str, str]) -> dict[str, int]:
        """What a call and a piece of a stream cost, for each model, by the words that are to stand behind both."""
        lockstep = self.lockstep
        for model in models:
            await self.do(functools.partial(lockstep.whole, model), WARM_CALLS)
            await self.do(functools.partial(lockstep.stream, model, PIECES), WARM_STREAMS)
        found: dict[str, int] = {}
        for model, words in models.items():
            found[f"call{words}"] = await self.each(functools.partial(lockstep.whole, model), CALLS, 1)
            found[f"piece{words}"] = await self.each(functools.partial(lockstep.stream, model, PIECES), STREAMS, PIECES)
        return found


async def counted(way: str, models: Mapping[str, str], variant: Variant = DEFAULT) -> dict[str, int]:
    """Start a relay, take it through the work, end it. `models` are names, each with words for what was counted."""
    with tempfile.TemporaryDirectory(prefix="i8relay-count-") as name:
        folder = Path(name)
        lockstep = Lockstep(KEY, variant.asked)
        await lockstep.start()
        text = (CONFIG.replace(variant.without, "") if variant.without else CONFIG) + variant.config
        (folder / "relay.toml").write_text(text.replace("{port}", str(lockstep.port)))
        if variant.plugin:
            (folder / "plugins").mkdir()
            (folder / "plugins" / "more.py").write_text(variant.plugin)
        key = await asyncio.create_subprocess_exec(
            sys.executable, HERE / "key.py", folder / "relay.db", KEY, str(variant.keys), str(variant.rows)
        )
        if await key.wait():
            raise SystemExit("the relay's database cannot be made")
        port = free_port()
        # Where objects lie and in which order sets are walked must not differ from run to run.
        environment = {**os.environ, "PYTHONHASHSEED": "0", "XDG_CACHE_HOME": name, "XDG_CONFIG_HOME": name}
        with (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command(folder, way, port, variant.missing), cwd=name, env=environment, stdout=log, stderr=log
            )
            try:
                count = Count(folder, way, process, lockstep, variant.rows)
                await count.serving(port)
                return await count.all(models)
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()
                await lockstep.close()


if __name__ == "__main__":
    relay(sys.argv[1], sys.argv[2], sys.argv[3:])
