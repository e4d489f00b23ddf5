"""Telling the service manager how it goes: systemd's notification protocol, which is a datagram per message."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Mapping

__all__ = ["Notifier"]


class Notifier:
    """Says what it is told to say, or nothing if nobody asked (`NOTIFY_SOCKET`). Never fails and never waits."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        name = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        self._socket: socket.socket | None = None
        if name.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        self.beat = _beat(environ) if self._socket is not None else None
        """Seconds between two signs of life; None if nobody waits for them."""

    def say(self, *lines: str) -> None:
        """Send one message."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(), self._address)

    def ready(self) -> None:
        """It serves, or does so again."""
        self.say("READY=1", f"MAINPID={os.getpid()}")

    def reloading(self) -> None:
        """It reads its configuration."""
        self.say("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """It takes no more calls and finishes those that it has."""
        self.say("STOPPING=1")

    def alive(self) -> None:
        """It is not stuck."""
        self.say("WATCHDOG=1")

    async def beating(self) -> None:
        """Give signs of life from the event loop, so that there are none while that is stuck."""
        while self.beat is not None:
            self.alive()
            await asyncio.sleep(self.beat)

    def close(self) -> None:
        """Say no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _beat(environ: Mapping[str, str]) -> float | None:
    """Half of the time after which silence is taken for death."""
    process = environ.get("WATCHDOG_PID", "")
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or not int(microseconds) or (process and process != str(os.getpid())):
        return None
    return int(microseconds) / 2_000_000
