"""The SQLite file: opened with care, migrated by number, written under one lock and read beside it.

All writes of a process go through one connection, each transaction in a task of its own that callers wait for shielded:
cancelling a caller can then never leave a transaction open for the next one to commit by accident. Transactions begin
IMMEDIATE, because a deferred one that reads first and then writes fails at once, whatever the busy timeout.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import sqlite3
import stat
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiosqlite

__all__ = ["Database", "Migration", "Reader", "StoreError", "migrations", "prepare"]

T = TypeVar("T")
Parameters = Sequence[Any] | dict[str, Any]

APPLICATION_ID = 0x69385265
"""In the file's header: tells our databases from those of other programs."""
BUSY = 5.0
"""Seconds that a statement waits for a lock of another process."""
CHECKED = 16 * 1024 * 1024
"""Files up to this size, in bytes, are checked page by page when opened; that takes about 20 ms."""
MAGIC = b"SQLite format 3\0"

PRAGMAS = (
    f"PRAGMA busy_timeout = {int(BUSY * 1000)}",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA secure_delete = ON",
)


class StoreError(Exception):
    """The database cannot be used, or refuses what was asked. The message is for people, and says what to do."""


class Migration(NamedTuple):
    """One numbered step of the schema."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text: an applied step must never change afterwards."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    def statements(self) -> list[str]:
        """The steps, split where SQLite says that a statement is complete (a trigger's body holds semicolons)."""
        found: list[str] = []
        pending = ""
        for piece in re.split(r"(?<=;)", self.sql):
            pending += piece
            if pending.strip() and sqlite3.complete_statement(pending):
                found.append(pending.strip())
                pending = ""
        if re.sub(r"--[^\n]*", "", pending).strip():
            raise StoreError(f"migration {self.name} ends in the middle of a statement")
        return found


def migrations() -> list[Migration]:
    """The schema's steps that this version of the relay knows, in order."""
    found = []
    for file in Path(__file__).with_name("migrations").iterdir():
        match = re.fullmatch(r"(\d{4})_[a-z0-9_]+\.sql", file.name)
        if match:
            found.append(Migration(int(match[1]), file.name, file.read_text("utf-8")))
    return sorted(found)


def prepare(path: Path, steps: Sequence[Migration] | None = None) -> None:
    """Make the file usable: create it if it is missing, check it, bring its schema up to date.

    Blocking; safe while other processes do the same. Raises StoreError, and leaves the file as it was, if it is not
    ours, damaged, or of a newer version.
    """
    steps = migrations() if steps is None else steps
    try:
        _create(path)
        _inspect(path, steps)
        _migrate(path, steps)
    except OSError as error:
        raise StoreError(f"cannot open the database {path}: {error.strerror or error}") from error
    except sqlite3.DatabaseError as error:
        raise StoreError(_explain(path, error)) from error


def _explain(path: Path, error: sqlite3.Error) -> str:
    text = str(error)
    if "malformed" in text or "not a database" in text:
        return f"the database {path} is damaged ({text}); it was not changed: restore a backup or move it away"
    if "readonly" in text:
        return f"the database {path} cannot be written ({text}): check the owner and mode of the file and its folder"
    if "locked" in text:
        return f"the database {path} is locked by another process for more than {BUSY:g} seconds"
    return f"the database {path} cannot be used: {text}"


def _create(path: Path) -> None:
    """The folder 0700 and the file 0600, unless they are there. Never follows a link in the last step."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        except FileExistsError:
            _create(path)
        return
    if stat.S_ISLNK(found.st_mode):
        raise StoreError(f"the database {path} is a symbolic link, which is not followed: give the file itself")
    if stat.S_ISDIR(found.st_mode):
        raise StoreError(f"the database {path} is a folder: give a file in it, as in {path / 'relay.db'}")
    if not stat.S_ISREG(found.st_mode):
        raise StoreError(f"the database {path} is not a regular file")
    if not os.access(path, os.R_OK | os.W_OK):
        raise StoreError(f"the database {path} cannot be read and written: check its owner and mode")


def _inspect(path: Path, steps: Sequence[Migration]) -> None:
    """Refuse what is not ours, through a connection that cannot write."""
    with path.open("rb") as file:
        head = file.read(len(MAGIC))
    if not head:
        left = path.with_name(f"{path.name}-wal")
        if left.exists() and left.stat().st_size:
            raise StoreError(
                f"the database {path} is empty, and its log {left.name} is not: somebody has cut it off; nothing was"
                " changed: restore a backup or move both away"
            )
        # Just made, by us or by hand.
        return
    if head != MAGIC:
        raise StoreError(f"the database {path} is not an SQLite file; it was not changed: give another path")
    size = path.stat().st_size
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY, isolation_level=None)
    try:
        (owner,) = connection.execute("PRAGMA application_id").fetchone()
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if owner != APPLICATION_ID and (owner or tables):
            raise StoreError(f"the database {path} belongs to another program; it was not changed: give another path")
        if size <= CHECKED:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(f"malformed: {verdict.splitlines()[-1]}")
        if "migrations" in tables:
            _verify(path, _applied(connection), steps)
    finally:
        connection.close()


def _applied(connection: sqlite3.Connection) -> dict[int, tuple[str, str]]:
    rows = connection.execute("SELECT number, name, checksum FROM migrations")
    return {number: (name, checksum) for number, name, checksum in rows}


def _verify(path: Path, applied: dict[int, tuple[str, str]], steps: Sequence[Migration]) -> None:
    known = {step.number: step for step in steps}
    newer = sorted(applied.keys() - known.keys())
    if newer:
        raise StoreError(
            f"the database {path} was written by a newer version of the relay (schema {newer[-1]}, this version knows"
            f" {max(known, default=0)}); it was not changed: upgrade the relay"
        )
    for number, (name, checksum) in applied.items():
        if known[number].checksum != checksum:
            raise StoreError(
                f"the database {path} was made with another text of migration {name}; it was not changed:"
                " use the version of the relay that made it"
            )


def _migrate(path: Path, steps: Sequence[Migration]) -> None:
    connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None)
    try:
        for pragma in PRAGMAS:
            connection.execute(pragma)
        _patiently(lambda: connection.execute("PRAGMA journal_mode = WAL").fetchone())
        # Also tightens a file that was there before; its -wal and -shm take their mode from it.
        if os.stat(path).st_mode & 0o077:
            os.chmod(path, 0o600)
        done: set[int] = set()
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'migrations'").fetchone():
            done = set(_applied(connection))
        for step in steps:
            if step.number not in done:
                _apply(connection, path, step, steps)
    finally:
        connection.close()


def _patiently(action: Callable[[], object]) -> None:
    """Changing the journal mode does not wait for locks by itself."""
    deadline = time.monotonic() + BUSY
    while True:
        try:
            action()
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _apply(connection: sqlite3.Connection, path: Path, step: Migration, steps: Sequence[Migration]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, name TEXT NOT NULL,"
            " checksum TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT"
        )
        applied = _applied(connection)
        _verify(path, applied, steps)
        # Another process may have been faster while this one waited for the lock.
        if step.number not in applied:
            for statement in step.statements():
                connection.execute(statement)
            connection.execute(
                "INSERT INTO migrations VALUES (?, ?, ?, ?)",
                (step.number, step.name, step.checksum, int(time.time() * 1000)),
            )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


async def _connect(path: Path, *, pragmas: Iterable[str] = ()) -> aiosqlite.Connection:
    connection = aiosqlite.connect(path, timeout=BUSY, isolation_level=None)
    # A connection that nobody closed must not keep the interpreter from ending.
    connection._thread.daemon = True
    await connection
    try:
        for pragma in (*PRAGMAS, *pragmas):
            async with connection.execute(pragma):
                pass
    except BaseException:
        await asyncio.shield(connection.close())
        raise
    return connection


class Reader:
    """One connection that only reads; its queries stand in line.

    A query whose caller is cancelled is interrupted, so that the next one does not wait for its result.
    """

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._lock = asyncio.Lock()

    async def fetch(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """All rows of one query."""
        async with self._lock:
            query = asyncio.ensure_future(self._connection.execute_fetchall(sql, parameters))
            try:
                return [tuple(row) for row in await asyncio.shield(query)]
            except asyncio.CancelledError:
                await self._connection.interrupt()
                await asyncio.wait([query])
                if not query.cancelled():
                    query.exception()
                raise

    async def close(self) -> None:
        """Give the connection back. Waits for the query that runs."""
        async with self._lock:
            await asyncio.shield(self._connection.close())


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Database:
    """The open database of one process: one connection that writes, and readers beside it."""

    def __init__(self, path: Path, connection: aiosqlite.Connection, reader: Reader) -> None:
        self.path = path
        self.connection = connection
        """The writing connection: use it in `write` only."""
        self.reader = reader
        """For reports and look-ups that may take a while."""
        self._file = _identity(path)
        self._readers = [reader]
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    @classmethod
    async def open(cls, path: Path | str) -> Database:
        """Open, after `prepare`. Raises StoreError."""
        path = Path(path)
        prepare(path)
        try:
            connection = await _connect(path)
            try:
                reader = await cls._reader(path)
            except BaseException:
                await asyncio.shield(connection.close())
                raise
        except sqlite3.Error as error:
            raise StoreError(_explain(path, error)) from error
        return cls(path, connection, reader)

    @staticmethod
    async def _reader(path: Path) -> Reader:
        return Reader(await _connect(path, pragmas=("PRAGMA query_only = ON",)))

    def in_place(self) -> bool:
        """Whether what is open is what its path leads to: else it was moved or removed, and will not be found again."""
        return _identity(self.path) == self._file

    async def new_reader(self) -> Reader:
        """One more reading connection, for look-ups that must not wait for reports. Closed with the database."""
        reader = await self._reader(self.path)
        self._readers.append(reader)
        return reader

    async def write(self, work: Callable[[aiosqlite.Connection], Awaitable[T]]) -> T:
        """Run `work` in a transaction of its own: all of it is stored, or nothing.

        Cancelling the caller does not cancel the work. Raises sqlite3.OperationalError if the file is locked for
        longer than the busy timeout, or full; nothing is stored then.
        """
        return await self._finished(self._transaction, work)

    async def run(self, sql: str, parameters: Parameters = ()) -> None:
        """The same for a single statement, which is a transaction by itself."""
        await self._finished(self._statement, sql, parameters)

    async def _finished(self, work: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        """What `work` gives, which goes on to its end even if nobody waits for it any more."""
        if self._closed:
            raise StoreError(f"the database {self.path} is closed")
        task = asyncio.create_task(work(*arguments))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Nobody may be left to ask for it, if the caller was cancelled.
            task.exception()

    async def _transaction(self, work: Callable[[aiosqlite.Connection], Awaitable[T]]) -> T:
        async with self._lock:
            try:
                await self._run("BEGIN IMMEDIATE")
                result = await work(self.connection)
                await self._run("COMMIT")
            except BaseException:
                # Statements stand in line in the connection's thread, so this comes after whatever was under way.
                # Asked for only then: a full disk may have ended the transaction already.
                await self._rollback()
                raise
            return result

    async def _statement(self, sql: str, parameters: Parameters) -> None:
        async with self._lock:
            await self._run(sql, parameters)

    async def _run(self, sql: str, parameters: Parameters = ()) -> None:
        # In one go, where a cursor would take two: each is a visit to the connection's thread.
        await self.connection.execute_fetchall(sql, parameters)

    async def _rollback(self) -> None:
        # A harmless statement waits for what still runs; then `in_transaction` is true to the facts.
        await self._run("SELECT 1")
        if self.connection.in_transaction:
            await self._run("ROLLBACK")

    async def empty_log(self) -> None:
        """Fold the write-ahead log into the file, as far as no reader needs it, and empty it. Raises sqlite3.Error."""
        async with self._lock:
            await self._run("PRAGMA busy_timeout = 200")
            try:
                await self._run("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                await self._run(PRAGMAS[0])

    async def close(self) -> None:
        """Wait for running transactions, then close every connection. May be called twice."""
        if self._closed:
            return
        self._closed = True
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        for reader in self._readers:
            await reader.close()
        # The last connection to close folds the -wal file into the database.
        await asyncio.shield(self.connection.close())
