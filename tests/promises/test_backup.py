"""`relay backup`: a copy that is whole, however much is written meanwhile."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from relay.cli import commands
from relay.store import Store, StoreError, UsageRow
from relay.store.backup import back_up
from tests.core.store.conftest import make

__all__ = ["make"]


def backup(database: Path, file: Path) -> Any:
    return CliRunner().invoke(commands, ["backup", str(file), "--db", str(database)])


@pytest.mark.promise("S-07")
async def test_a_copy_under_load_is_one_moment_of_the_database(tmp_path: Path, make: Callable[..., UsageRow]) -> None:
    database = tmp_path / "relay.db"
    stored = 0
    async with await Store.open(database) as store:
        key, _ = await store.keys.create("laptop")
        done = asyncio.Event()

        async def write() -> None:
            nonlocal stored
            while not done.is_set():
                for _ in range(200):
                    store.usage.put(make(stored, key_id=key.id))
                    stored += 1
                await store.usage.flush()

        writer = asyncio.create_task(write())
        sizes = []
        for number in range(5):
            before = store.usage.writer.written
            await asyncio.to_thread(back_up, database, tmp_path / f"copy{number}.db")
            sizes.append((before, store.usage.writer.written))
            await asyncio.sleep(0.02)
        done.set()
        await writer
    for number, (before, after) in enumerate(sizes):
        copy = sqlite3.connect(tmp_path / f"copy{number}.db")
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        ((rows, first, last),) = copy.execute("SELECT count(*), min(id), max(id) FROM usage").fetchall()
        copy.close()
        assert before <= rows <= after + 1000
        assert rows == 0 or (first, last) == (1, rows), "no row is missing in between"
        async with await Store.open(tmp_path / f"copy{number}.db") as store:
            assert [key.name for key in await store.keys.all()] == ["laptop"]


@pytest.mark.promise("S-07")
@pytest.mark.promise("S-08")
def test_a_copy_is_one_file_for_its_owner_alone_and_overwrites_nothing(tmp_path: Path) -> None:
    async def prepare() -> None:
        async with await Store.open(tmp_path / "relay.db") as store:
            await store.keys.create("laptop")

    asyncio.run(prepare())
    folder = tmp_path / "backups"
    folder.mkdir()
    old = os.umask(0)
    try:
        result = backup(tmp_path / "relay.db", folder / "copy.db")
    finally:
        os.umask(old)
    assert result.exit_code == 0, result.output
    assert os.listdir(folder) == ["copy.db"]
    assert stat.S_IMODE((folder / "copy.db").stat().st_mode) == 0o600
    before = (folder / "copy.db").read_bytes()
    again = backup(tmp_path / "relay.db", folder / "copy.db")
    assert (again.exit_code, "overwrites nothing" in again.output) == (1, True)
    assert (folder / "copy.db").read_bytes() == before
    (folder / "link.db").symlink_to(tmp_path / "elsewhere.db")
    assert backup(tmp_path / "relay.db", folder / "link.db").exit_code == 1
    assert not (tmp_path / "elsewhere.db").exists()
    for file in (folder / "nowhere" / "copy.db", Path("/proc/copy.db")):
        assert backup(tmp_path / "relay.db", file).exit_code == 1
    assert sorted(os.listdir(folder)) == ["copy.db", "link.db"]


@pytest.mark.promise("S-07")
def test_a_damaged_database_gives_no_copy(tmp_path: Path, make: Callable[..., UsageRow]) -> None:
    async def prepare() -> None:
        async with await Store.open(tmp_path / "relay.db") as store:
            for number in range(3000):
                store.usage.put(make(number))

    asyncio.run(prepare())
    data = bytearray((tmp_path / "relay.db").read_bytes())
    data[40 * 4096 : 41 * 4096] = b"\xff" * 4096
    (tmp_path / "relay.db").write_bytes(data)
    with pytest.raises(StoreError, match="cannot be backed up"):
        back_up(tmp_path / "relay.db", tmp_path / "copy.db")
    assert {name for name in os.listdir(tmp_path) if not name.startswith("relay.db")} == set()
    assert "there is no database" in backup(tmp_path / "none.db", tmp_path / "copy.db").output
