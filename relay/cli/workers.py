"""Several processes behind one port: a parent that serves nobody, starts them, replaces those that die, and ends them.

Each worker listens on a socket of its own (`SO_REUSEPORT`), among which the kernel deals out the connections. The
parent only holds the port. Workers are forks: what was imported is shared. The parent therefore runs no threads and no
event loop once the first of them is started, and plugins start nothing before `relay_lifespan`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from relay.budget import WINDOWS
from relay.cli.notify import Notifier

if TYPE_CHECKING:
    from relay.settings import Settings
    from relay.store import Key

__all__ = ["Place", "Supervisor", "held", "limits_in_force"]

LIVED = 10.0
"""Seconds after which a worker's death is no sign that the next one will die at once, too."""
PAUSE = 1.0
"""Seconds before a worker that did not live so long is replaced."""
LIMITS = ("rpm", "tpm", "concurrency")
ENDING = (signal.SIGTERM, signal.SIGINT)
SIGNALS = (*ENDING, signal.SIGHUP)

log = logging.getLogger("relay.workers")


@dataclass(frozen=True)
class Place:
    """What a process knows of being a worker."""

    count: int
    """How many there are."""
    first: bool
    """The one that does what is done once at a start: the first key, the greeting."""
    reloaded: bool
    """Whether the others have reloaded the configuration since they were started with it."""
    parent: int
    """A descriptor that is at its end once the parent is gone."""
    _told: int

    def ready(self) -> None:
        """Tell the parent that this worker listens."""
        os.write(self._told, b".")


@dataclass
class _Worker:
    number: int
    process: int
    told: int
    began: float = field(default_factory=time.monotonic)
    ready: bool = False


class Supervisor:
    """Keeps `count` processes alive that do `work`, until it is told to stop."""

    def __init__(self, count: int, work: Callable[[Place], int], notifier: Notifier) -> None:
        self._notifier = notifier
        self._reloaded = False
        self._count = count
        self._work = work
        self._workers: dict[int, _Worker] = {}
        """By the descriptor on which each tells that it listens, and whose end tells that it died."""
        self._due: dict[int, float] = {}
        """When the worker of each number is to be started again."""
        self._served: set[int] = set()
        """Numbers of which a worker listened once: only then is another one's death not the start's failure."""
        self._stopping = False
        self._status = 0
        self._alive, self._life = os.pipe()
        """A pipe that nothing is written to: its reading end, which workers have, is at its end once we are gone."""

    def run(self) -> int:
        """Start the workers and watch over them. Gives the exit status: 0 if all ended as they were told to."""
        wake, waker = socket.socketpair()
        with wake, waker, _signals(waker):
            for number in range(self._count):
                self._start(number, first=number == 0)
            while self._workers or self._due:
                waits = [due - time.monotonic() for due in self._due.values()]
                if self._notifier.beat is not None:
                    self._notifier.alive()
                    waits.append(self._notifier.beat)
                timeout = max(0.0, min(waits)) if waits else None
                found, _, _ = select.select([wake.fileno(), *self._workers], [], [], timeout)
                if wake.fileno() in found:
                    self._told(set(wake.recv(64)))
                for told in [told for told in found if told in self._workers]:
                    self._hear(told)
                for number in [number for number, due in self._due.items() if due <= time.monotonic()]:
                    del self._due[number]
                    self._start(number, first=False)
        for end in (self._alive, self._life):
            os.close(end)
        return self._status

    def _told(self, numbers: set[int]) -> None:
        """Signals have come."""
        if not numbers.isdisjoint(ENDING):
            self._stop()
        elif signal.SIGHUP in numbers and not self._stopping:
            self._notifier.reloading()
            self._reloaded = True
            self._pass_on(signal.SIGHUP)
            self._notifier.ready()

    def _start(self, number: int, *, first: bool) -> None:
        told, telling = os.pipe()
        sys.stdout.flush()
        # A signal between the fork and the child's own handlers would be taken by those of the parent, and lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        process = os.fork()
        if process == 0:
            os.close(self._life)
            self._become(Place(self._count, first, self._reloaded, self._alive, telling))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.close(telling)
        self._workers[told] = _Worker(number, process, told)

    def _become(self, place: Place) -> NoReturn:
        """In the child: work, and never return into what the parent was doing."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in ENDING:
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            # One to read the configuration again waits until there is a handler (`Lifetime.listen`): it must neither
            # end whoever is just starting nor be missed by it.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
            status = self._work(place)
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else 1
        finally:
            if sys.exc_info()[0] is not None:
                sys.excepthook(*sys.exc_info())
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _hear(self, told: int) -> None:
        worker = self._workers[told]
        if os.read(told, 1):
            worker.ready = True
            self._served.add(worker.number)
            if len(self._served) == self._count:
                self._notifier.ready()
            return
        os.close(told)
        del self._workers[told]
        _, status = os.waitpid(worker.process, 0)
        self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: _Worker, code: int) -> None:
        if self._stopping:
            # One that was told to stop before it had its own handlers is ended by the signal itself.
            self._status = self._status or (code if code > 0 else 0)
            return
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        if len(self._served) < self._count and not worker.ready:
            log.error(
                "worker %d (process %d) %s before it served; no other one is tried", worker.number, worker.process, how
            )
            self._status = code if code > 0 else 1
            self._stop()
            return
        log.error("worker %d (process %d) %s; another one takes its place", worker.number, worker.process, how)
        lived = worker.ready and time.monotonic() - worker.began >= LIVED
        self._due[worker.number] = time.monotonic() + (0.0 if lived else PAUSE)

    def _stop(self) -> None:
        """Tell every worker to finish; a second time, to hurry."""
        self._notifier.stopping()
        self._stopping = True
        self._due.clear()
        self._pass_on(signal.SIGTERM)

    def _pass_on(self, number: signal.Signals) -> None:
        for worker in self._workers.values():
            # It is not waited for yet, so the number is still its own even if it is dead.
            os.kill(worker.process, number)


@contextlib.contextmanager
def _signals(waker: socket.socket) -> Iterator[None]:
    """Signals only wake the select."""
    waker.setblocking(False)
    old = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    before = signal.set_wakeup_fd(waker.fileno())
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in old.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def held(host: str, port: int) -> Iterator[int]:
    """Keep a port for workers to listen on; gives its number, which is a free one if `port` is 0. Raises OSError."""
    with contextlib.ExitStack() as stack:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            with socket.socket(family, kind, protocol) as probe:
                # A port is shared by the processes of one relay: beside anybody else's this start fails, as it should.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                _own(probe, family)
                probe.bind((address[0], port, *address[2:]))
                port = probe.getsockname()[1]
            keeper = stack.enter_context(socket.socket(family, kind, protocol))
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            _own(keeper, family)
            keeper.bind((address[0], port, *address[2:]))
        yield port


def _own(held: socket.socket, family: int) -> None:
    """An address of the newer protocol does not stand for one of the older too: each has a socket."""
    if family == socket.AF_INET6:
        held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


def limits_in_force(settings: Settings, keys: Iterable[Key]) -> list[str]:
    """What sets limits, in the words of whoever set them. Each process counts for itself what these are about."""
    found = [f"[keys] {name}" for name in LIMITS if getattr(settings.keys, name)]
    found += [f"[keys.budget] {window}" for window in WINDOWS if getattr(settings.keys.budget, window)]
    found += [
        f"[models.{model}] {name}" for model, row in settings.models.items() for name in LIMITS if getattr(row, name)
    ]
    return found + [f"key {key.name!r}" for key in keys if _limited(key)]


def _limited(key: Key) -> bool:
    if any(key.budget.values()):
        return True
    rows = (key, *key.model_limits.values())
    return any(getattr(row, name) for row in rows for name in LIMITS)
