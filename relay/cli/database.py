"""What the commands on the database share: finding the file, and asking it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from relay.cli.options import config_path, fail, load_config
from relay.paths import database_path

if TYPE_CHECKING:
    from relay.store import Store

__all__ = ["database_file", "database_option", "json_option", "with_store"]

T = TypeVar("T")

database_option = click.option(
    "--db",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The SQLite file [default: as configured, $I8RELAY_DB, or relay.db in the user's data folder]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def database_file(given: Path | None) -> Path:
    """The same file that `relay serve` uses: as given, as configured, or the usual one."""
    if given is not None:
        return given
    # Reading a configuration costs more than everything else here, so only if there is one.
    configured = load_config(None).settings.store.path if config_path(None) is not None else ""
    return Path(configured).expanduser() if configured else database_path()


def with_store(given: Path | None, work: Callable[[Store], Awaitable[T]], *, create: bool = False) -> T:
    """Run `work` on the open store, or leave with an error in words. Without `create` the file must exist."""
    from relay.store import Store, StoreError

    path = database_file(given)
    if not create and not path.exists():
        fail(f"there is no database at {path}: `relay keys create NAME` or `relay serve` makes it")

    async def run() -> T:
        async with await Store.open(path) as store:
            return await work(store)

    try:
        return asyncio.run(run())
    except StoreError as error:
        fail(str(error))
