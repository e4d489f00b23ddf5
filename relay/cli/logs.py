"""The log of a serving process, which must never hold it up.

A pipe that nobody reads, a terminal that was stopped and a slow disk all make a plain write wait, and with it the event
loop and every stream on it. Here a line is put into a queue, which a thread empties; if the queue is full the line is
lost and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import select
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, TextIO

__all__ = ["Complaints", "Logs", "logging_to"]

MOST = 1_048_576
"""Bytes that wait at most."""
AT_ONCE = 4096
"""Bytes that a pipe takes whole whenever it takes any."""
PATIENCE = 0.5
"""Seconds that the last lines get when the process ends."""
LOOK = 200
"""Milliseconds between two looks whether the process ends."""
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)} | {10: "\n  "}
"""What a line must not hold; the lines of a message after its first begin with blanks, so that none can be faked."""
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

log = logging.getLogger("relay")


class Plain(logging.Formatter):
    """One line per event, whatever the message holds."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - its parent's name
        """The line but for a traceback."""
        return super().formatMessage(record).translate(CONTROL)


class Logs(logging.Handler):
    """Writes to a descriptor, from a thread once `start` was called. Before that it writes itself, or not at all."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.lost = 0
        """Lines that could not be written."""
        self.restarts = 0
        """How often the thread failed and began again."""
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._lines: deque[bytes] = deque()
        self._some = threading.Event()
        self._ending = False
        self._told = 0
        # Each is changed by one side only: by whoever emits, under the handler's lock, and by the thread.
        self._came = self._went = 0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Write from a thread. Not before a fork, which threads do not survive."""
        self._thread = threading.Thread(target=self._run, name="relay-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take one line."""
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except (TypeError, ValueError):
            self.handleError(record)
            return
        if self._thread is None:
            if not self._put(line, wait=False):
                self.lost += 1
        elif self._came - self._went + len(line) > MOST:
            self.lost += 1
        else:
            self._came += len(line)
            self._lines.append(line)
            self._some.set()

    def _run(self) -> None:
        while True:
            try:
                self._work()
                return
            except Exception as error:
                # There is nobody to tell but who reads this log. The line it failed at goes, lest it fail again.
                self.restarts += 1
                self.lost += 1
                if self._lines:
                    self._went += len(self._lines.popleft())
                line = f"this log failed and goes on ({type(error).__name__})\n".encode()
                self._went -= len(line)
                self._lines.appendleft(line)
                self._some.set()

    def _work(self) -> None:
        while not self._ending or self._lines:
            self._some.wait()
            self._some.clear()
            while self._lines:
                if not self._put(self._lines[0], wait=True):
                    self.lost += 1
                self._went += len(self._lines.popleft())
                if self._ending and self._stuck():
                    return
            if self.lost > self._told:
                told, self._told = self._told, self.lost
                self._put(
                    f"{self.lost - told} lines of this log are lost: nobody took them in time\n".encode(), wait=True
                )

    def _stuck(self) -> bool:
        return not self._poll.poll(0)

    def _put(self, line: bytes, *, wait: bool) -> bool:
        """Write a line; whether that went well."""
        rest = memoryview(line)
        while rest:
            if not self._poll.poll(LOOK if wait else 0):
                if not wait or self._ending:
                    return False
                continue
            try:
                rest = rest[os.write(self._descriptor, rest[:AT_ONCE]) :]
            except BlockingIOError:
                continue
            except OSError:
                return False
        return True

    def close(self) -> None:
        """Write what waits, if somebody takes it soon."""
        self._ending = True
        self._some.set()
        if self._thread is not None:
            self._thread.join(PATIENCE)
        super().close()


@contextlib.contextmanager
def logging_to(stream: TextIO, level: str, *, thread: bool = True) -> Iterator[Logs]:
    """Send the log of this process to a stream's descriptor, from a level on."""
    logs = Logs(stream.fileno())
    logs.setFormatter(Plain(FORMAT))
    root = logging.getLogger()
    before = root.handlers[:]
    root.handlers[:] = [logs]
    root.setLevel(level.upper())
    # aiohttp logs a traceback for every malformed request that a scanner sends; the 400 it answers is enough.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    if thread:
        logs.start()
    try:
        yield logs
    finally:
        logs.close()
        root.handlers[:] = before


class Complaints:
    """What the event loop complains of: that no descriptors are left it would say at each try, hundreds of times."""

    def __init__(self) -> None:
        self._quiet_until = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log one complaint."""
        error = context.get("exception")
        if isinstance(error, ValueError) and "_start_serving" in context.get("message", ""):
            # asyncio tries once more to listen, a second after descriptors ran out, and has been stopped meanwhile.
            return
        if not isinstance(error, OSError) or error.errno not in EXHAUSTED:
            loop.default_exception_handler(context)
        elif loop.time() >= self._quiet_until:
            self._quiet_until = loop.time() + 1.0
            log.error("no connection can be accepted for now: %s", os.strerror(error.errno))
