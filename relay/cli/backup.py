"""`relay backup`: a copy of the database, while the relay serves."""

from __future__ import annotations

from pathlib import Path

import click

from relay.cli.database import database_file, database_option
from relay.cli.options import fail

__all__ = ["backup"]


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@database_option
def backup(file: Path, db: Path | None) -> None:
    """Copy the database to FILE, which must not exist yet, while the relay goes on serving.

    The copy is one moment of it, checked, and a whole database: to go back to it, stop the relay and put it in the
    database's place, without the old one's -wal and -shm files.
    """
    from relay.store.backup import back_up
    from relay.store.database import StoreError

    path = database_file(db)
    if not path.exists():
        fail(f"there is no database at {path}")
    try:
        size = back_up(path, file)
    except StoreError as error:
        fail(str(error))
    click.echo(f"{file} holds the database as of now: {size:,} bytes")
