"""A copy of the database while it is being written: one moment of it, checked, complete or not there at all."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from relay.store.database import BUSY, StoreError

__all__ = ["back_up"]


def back_up(database: Path, target: Path) -> int:
    """Copy the database to a file that is not there yet; gives its size in bytes. Blocking. Raises StoreError.

    Writers go on meanwhile: the copy is a read transaction, which holds back nothing but the shortening of the log.
    """
    if os.path.lexists(target):
        raise StoreError(f"{target} is there already: a backup overwrites nothing")
    if not target.parent.is_dir():
        raise StoreError(f"{target.parent} is not a folder")
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        # For the owner alone from the first byte: hashes of keys and the use of everybody are in it.
        os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        try:
            _copy(database, partial)
            # Unlike a rename, a link does not replace what somebody put there meanwhile.
            os.link(partial, target, follow_symlinks=False)
        finally:
            partial.unlink(missing_ok=True)
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return target.stat().st_size
    except FileExistsError:
        raise StoreError(f"{target} is there already: a backup overwrites nothing") from None
    except OSError as error:
        raise StoreError(f"the backup {target} cannot be written: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise StoreError(f"the database {database} cannot be backed up: {error}") from error


def _copy(database: Path, target: Path) -> None:
    address = f"{database.absolute().as_uri()}?mode=ro"
    with (
        closing(sqlite3.connect(address, uri=True, timeout=BUSY)) as source,
        closing(sqlite3.connect(target, isolation_level=None)) as copy,
    ):
        # In one step: one that stops on its way begins anew whenever somebody writes.
        source.backup(copy, pages=-1)
        copy.execute("PRAGMA journal_mode = DELETE").fetchone()
        (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"it is damaged: {verdict}")
    with target.open("rb") as file:
        os.fsync(file.fileno())
