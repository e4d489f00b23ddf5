"""Who holds the event loop up while a relay serves in a test: by waiting in the system, or by computing for long.

Waiting is found by Python's audit events, of which files, sockets, processes, databases and sleeps have one; computing
by the time that the processor gave to the thread for one turn of a callback, without what the collector took of it.
Neither depends on what else is to be done; and how fast the processor is just now is measured before anybody is blamed.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["Watch", "watching"]

ROOT = Path(__file__).resolve().parents[1]
OURS = tuple(f"{ROOT}/{name}/" for name in ("relay", "providers", "plugins"))
TESTS = f"{ROOT}/tests/"
WAITS = frozenset(
    {
        *("open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.chmod", "os.link"),
        *("os.truncate", "shutil.copyfile", "shutil.copytree", "glob.glob", "fcntl.flock", "fcntl.lockf"),
        *("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "sqlite3.connect"),
        *("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.fork"),
    }
)
CODE = (".py", ".pyc", ".so", "entry_points.txt")
"""Files that are read when something is imported, or when a traceback is written."""
BEFORE_OR_AFTER = frozenset({"create_app", "Relay.close", "Lifetime.reload"})
"""Functions in which nobody is served, or the configuration is read again."""
LONGEST = 0.5 if sys.flags.dev_mode else 0.05
"""Seconds of computing that one turn may take. With every check that Python has, nothing is as fast as it is."""
SPIN, SPUN = 100_000, 0.002
"""Turns of an empty loop, and seconds that they take where that holds."""


def _slowness() -> float:
    """How many times as long as there this machine takes just now."""
    began = time.thread_time()
    for _ in range(SPIN):
        pass
    return max(1.0, (time.thread_time() - began) / SPUN)


class Watch:
    """What was found since it began."""

    def __init__(self, longest: float) -> None:
        self.found: list[str] = []
        self.longest = longest
        self._collected = 0.0
        self._began = 0.0

    def heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        """One audit event."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        what = arguments[0] if arguments else None
        if event == "open" and (str(what).endswith(CODE) or str(what).startswith("/proc/")):
            return
        if event == "socket.getaddrinfo" and _is_address(str(what)):
            return
        if event == "socket.connect" and what is not None and what.gettimeout() == 0:
            return
        place = _culprit(sys._getframe(2))
        if place is not None:
            self.found.append(f"{place} waits in {event}({what!r:.100})")

    def collecting(self, phase: str, _: dict[str, int]) -> None:
        """The collector begins or ends."""
        if phase == "start":
            self._began = time.thread_time()
        else:
            self._collected += time.thread_time() - self._began

    def turn(self, run: Any, handle: Any) -> None:
        """One turn of a callback."""
        collected, began = self._collected, time.thread_time()
        run(handle)
        seconds = time.thread_time() - began - (self._collected - collected)
        if seconds > self.longest and (who := _owner(handle)) is not None and seconds > self.longest * _slowness():
            self.found.append(f"{who} computes for {seconds * 1000:.0f} ms")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _culprit(frame: FrameType | None) -> str | None:
    """The innermost place in the relay's code on the stack; None if there is none, or it is not serving."""
    place = None
    while frame is not None:
        name, function = frame.f_code.co_filename, frame.f_code.co_qualname
        if name.startswith("<frozen importlib") and place is None:
            # The first time that something is needed.
            return None
        if name.startswith(OURS):
            if function in BEFORE_OR_AFTER:
                return None
            place = place or f"{name.removeprefix(f'{ROOT}/')} {function}"
        elif name.startswith(TESTS) and name != __file__:
            # A test's own doing: in the relay's place, or by a call of its own.
            return None
        frame = frame.f_back
    return place


def _owner(handle: Any) -> str | None:
    """Whose callback this is, if it is the relay's."""
    callback = handle._callback
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        coroutine: Any = owner.get_coro()
        code = getattr(coroutine, "cr_code", None)
        file = "" if code is None else code.co_filename
        # The server's tasks are aiohttp's, and run the relay.
        return repr(coroutine) if file.startswith(OURS) or file.endswith("web_protocol.py") else None
    protocol = getattr(owner, "_protocol", owner)
    return f"{protocol!r:.200}" if type(protocol).__module__.split(".")[0].startswith("relay") else None


_watches: list[Watch] = []


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if _watches and event in WAITS:
        _watches[-1].heard(event, arguments)


_run = asyncio.Handle._run  # type: ignore[attr-defined]


def _timed(handle: Any) -> None:
    if _watches:
        _watches[-1].turn(_run, handle)
    else:
        _run(handle)


_sleep = time.sleep


def _slept(seconds: float) -> None:
    # Of this there is no event before Python 3.13.
    if _watches:
        _watches[-1].heard("time.sleep", (seconds,))
    _sleep(seconds)


@contextmanager
def watching(longest: float = LONGEST) -> Iterator[Watch]:
    """Watch for as long as that is open."""
    if not _installed:
        # It cannot be taken out again, and hears nothing while nobody watches.
        sys.addaudithook(_heard)
        asyncio.Handle._run = _timed  # type: ignore[attr-defined]
        time.sleep = _slept
        _installed.append(True)
    watch = Watch(longest)
    gc.callbacks.append(watch.collecting)
    _watches.append(watch)
    try:
        yield watch
    finally:
        _watches.remove(watch)
        gc.callbacks.remove(watch.collecting)


_installed: list[bool] = []
