"""The calls in flight, in a file that outlives the process: after a crash each of them still gets its usage row.

A call takes a place in the file as it begins, and gives it back once its row is in the database. The file is mapped
into memory, so both are writes to memory, and neither waits for a disk; what a process wrote there is kept by the
system when the process is killed. It is not kept when the machine loses its power, as little as the database's last
rows are.

Each process has a file of its own, which it holds locked. A file that nobody holds was left behind by a crash: whoever
finds it at a start takes it over, has its calls settled, and goes on with it or removes it.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeAlias, get_args

from relay.ir import Usage

__all__ = ["Journal", "Open", "Outcome", "Placed", "UsageSource"]

Outcome: TypeAlias = Literal[
    "ok", "client_abort", "upstream_cut", "upstream_error", "timeout", "rejected", "shutdown", "crashed"
]
UsageSource: TypeAlias = Literal["provider", "partial", "estimate", "cache", "none"]

log = logging.getLogger(__name__)

CAPACITY = 65_536
"""Calls that have a place: those in flight, and those whose rows wait for the database."""
STEP = 1024
"""Places that are made at a time. Their disk space is taken beforehand: a disk that is full later does no harm."""
FILES = 256
"""Processes that may share one database."""
TEXTS = 4096

TEXT = struct.Struct("<16s96s")
"""Operation and model, which is cut off where it is longer."""
RECORD = struct.Struct("<112s28sqqqqqQ")
"""Text, request id, key, time, and then what `RESULT` holds."""
RESULT = struct.Struct("<qqqQ")
"""Input, output, cost, and an `_end`."""
SIZE = RECORD.size
AFTER = SIZE - RESULT.size
LAST = SIZE - 1
PACK, PACK_RESULT = RECORD.pack_into, RESULT.pack_into
FREE, BEGUN, OVER = 0, 1, 2
UNKNOWN = -1
MOST = 2**62

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
SOURCES: tuple[UsageSource, ...] = get_args(UsageSource)
"""By the numbers that stand in the file: new ones go to the end."""
OUTCOME_NUMBERS: dict[str, int] = {name: number for number, name in enumerate(OUTCOMES)}
SOURCE_NUMBERS: dict[str, int] = {name: number for number, name in enumerate(SOURCES)}


def _end(status: int, outcome: str, source: str, stream: bool, state: int) -> int:
    """How a call ended, as one number. The state is its last byte and the record's: without it nothing counts."""
    return status | OUTCOME_NUMBERS[outcome] << 32 | SOURCE_NUMBERS[source] << 40 | stream << 48 | state << 56


STARTED = tuple(_end(500, "crashed", "estimate", stream, BEGUN) for stream in (False, True))
GOOD = tuple(_end(200, "ok", "provider", stream, OVER) for stream in (False, True))


class Open(NamedTuple):
    """A call that a crash left without a row."""

    request_id: str
    operation: str
    model: str | None
    key_id: int
    at: int
    """Unix milliseconds."""
    input: int | None
    output: int | None
    cost: int | None
    """Nano-dollars; None: nobody knew."""
    status: int
    outcome: Outcome
    """`crashed`, unless it was over already and only its row was still on its way."""
    source: UsageSource
    stream: bool


class Placed(Protocol):
    """A row of a call that may have a place."""

    @property
    def place(self) -> int:
        """Where the journal has the call; -1: it has not."""
        ...


class Journal:
    """The places of one process. Made by `Journal.open`; every method but `open` and `close` only touches memory."""

    def __init__(self, path: Path, file: int, others: Sequence[tuple[Path, int]] = ()) -> None:
        self._path = path
        self._file = file
        self._others = others
        found = os.fstat(file).st_size
        self._made = max(STEP, found // SIZE)
        os.posix_fallocate(file, 0, self._made * SIZE)
        self._map = mmap.mmap(file, self._made * SIZE)
        # In what is new there is nothing, and what is not looked at takes no memory.
        self._left = [place for place in range(min(self._made, -(-found // SIZE))) if _taken(self._map, place)]
        taken = set(self._left)
        self._free = [place for place in reversed(range(self._made)) if place not in taken]
        """The lowest are taken first: few calls touch few pages."""
        self._texts: dict[tuple[str, str | None], bytes] = {}
        self._full = False

    @classmethod
    def open(cls, database: Path) -> Journal:
        """The first file beside the database that nobody holds. Raises OSError.

        Others that nobody holds are taken along if there are calls in them.
        """
        mine: tuple[Path, int] | None = None
        others: list[tuple[Path, int]] = []
        try:
            for number in range(FILES):
                path = database.with_name(f"{database.name}-calls-{number}")
                if mine is not None and not path.exists():
                    continue
                file = _held(path)
                if file is None:
                    continue
                if mine is None:
                    mine = path, file
                else:
                    others.append((path, file))
            if mine is None:
                raise OSError(errno.EMFILE, f"{FILES} processes share the database already")
            return cls(*mine, others)
        except BaseException:
            for _, file in (*others, *((mine,) if mine else ())):
                os.close(file)
            raise

    def begin(
        self,
        request_id: str,
        operation: str,
        model: str | None,
        key: int,
        at: int,
        tokens_in: int,
        tokens_out: int,
        cost: int,
        stream: bool,
    ) -> int:
        """A place for a call that begins, with what it may use and cost; -1 if there is none."""
        free = self._free
        if not free and not self._more():
            return UNKNOWN
        place = free.pop()
        text = self._texts.get((operation, model)) or self._text(operation, model)
        at_byte, end = place * SIZE, STARTED[stream]
        try:
            PACK(self._map, at_byte, text, request_id.encode(), key, at, tokens_in, tokens_out, cost, end)
        except struct.error:
            counts = (min(tokens_in, MOST), min(tokens_out, MOST), min(cost, MOST))
            PACK(self._map, at_byte, text, request_id.encode(), key, at, *counts, end)
        return place

    def over(
        self,
        place: int,
        status: int,
        outcome: Outcome,
        source: UsageSource,
        stream: bool,
        usage: Usage | None,
        cost: int | None,
    ) -> None:
        """The call that has this place is over: what of its row matters most is kept."""
        if status == 200 and source == "provider" and outcome == "ok":
            end = GOOD[stream]
        else:
            end = _end(status, outcome, source, stream, OVER)
        at_byte = place * SIZE + AFTER
        try:
            # Counts that are known, as nearly always.
            PACK_RESULT(self._map, at_byte, usage.input, usage.output, cost, end)  # type: ignore[union-attr]
        except (AttributeError, struct.error):
            counts = (None, None, cost) if usage is None else (usage.input, usage.output, cost)
            PACK_RESULT(self._map, at_byte, *(UNKNOWN if count is None else min(count, MOST) for count in counts), end)

    def stored(self, rows: Iterable[Placed]) -> None:
        """These rows are in the database."""
        memory, free = self._map, self._free
        for row in rows:
            place = row.place
            if place >= 0:
                memory[place * SIZE + LAST] = FREE
                free.append(place)

    def in_use(self) -> int:
        """Places of this process that are taken."""
        return self._made - len(self._free)

    def left(self) -> list[Open]:
        """What a crash left behind, here and in the files of other processes."""
        found = [_read(self._map, place) for place in self._left]
        for _, file in self._others:
            size = os.fstat(file).st_size
            if size >= SIZE:
                with mmap.mmap(file, size, access=mmap.ACCESS_READ) as other:
                    found += [_read(other, place) for place in range(size // SIZE) if _taken(other, place)]
        return found

    def settled(self) -> None:
        """All that was left behind has its row now."""
        for place in self._left:
            self._map[place * SIZE + LAST] = FREE
            self._free.append(place)
        self._left = []
        for path, file in self._others:
            path.unlink(missing_ok=True)
            os.close(file)
        self._others = ()

    def close(self) -> None:
        """Give the file back, and remove it if nothing is open in it."""
        for _, file in self._others:
            os.close(file)
        self._others = ()
        if self.in_use() == 0:
            self._path.unlink(missing_ok=True)
        self._map.close()
        os.close(self._file)

    def _more(self) -> bool:
        """Make more places. False if there can be no more."""
        if self._made >= CAPACITY or self._full:
            return False
        made = self._made + STEP
        try:
            os.posix_fallocate(self._file, 0, made * SIZE)
            self._map.resize(made * SIZE)
        except OSError as error:
            self._full = True
            log.error("%s cannot grow (%s): more calls at a time have no place in it", self._path, error.strerror)
            return False
        self._free.extend(reversed(range(self._made, made)))
        self._made = made
        return True

    def _text(self, operation: str, model: str | None) -> bytes:
        if len(self._texts) >= TEXTS:
            self._texts.clear()
        name = b"" if model is None else model.encode("utf-8", "replace")
        text = self._texts[operation, model] = TEXT.pack(operation.encode("utf-8", "replace"), name)
        return text


def _held(path: Path) -> int | None:
    """The file, locked; None if another process holds it. Never follows a link."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return None
        try:
            same = os.path.samestat(os.fstat(file), os.stat(path, follow_symlinks=False))
        except FileNotFoundError:
            same = False
        if same:
            return file
        # Its owner removed it between the two calls: this is a file without a name.
        os.close(file)


def _taken(memory: mmap.mmap, place: int) -> bool:
    return memory[place * SIZE + LAST] in (BEGUN, OVER)


def _read(memory: mmap.mmap, place: int) -> Open:
    text, request_id, key, at, tokens_in, tokens_out, cost, end = RECORD.unpack_from(memory, place * SIZE)
    status, outcome, source = end & 0xFFFF, end >> 32 & 0xFF, end >> 40 & 0xFF
    operation, model = (part.rstrip(b"\0").decode("utf-8", "replace") for part in TEXT.unpack(text))
    return Open(
        request_id.rstrip(b"\0").decode("ascii", "replace"),
        operation,
        model or None,
        key,
        at,
        _known(tokens_in),
        _known(tokens_out),
        _known(cost),
        status,
        OUTCOMES[outcome] if outcome < len(OUTCOMES) else "crashed",
        SOURCES[source] if source < len(SOURCES) else "estimate",
        bool(end >> 48 & 1),
    )


def _known(number: int) -> int | None:
    return None if number < 0 else number
