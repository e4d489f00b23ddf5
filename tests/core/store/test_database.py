from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import aiosqlite
import pytest

from relay.store import Store, StoreError
from relay.store.database import Database, Migration, migrations, prepare

ROOT = Path(__file__).parents[3]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.promise("S-08")
async def test_a_new_database_and_its_folder_are_for_the_owner_alone(path: Path) -> None:
    old = os.umask(0)
    try:
        async with await Store.open(path) as store:
            await store.keys.create("one")
            assert mode(path.parent) == 0o700
            files = sorted(path.parent.iterdir())
            assert [file.name for file in files] == ["relay.db", "relay.db-shm", "relay.db-wal"]
            assert {mode(file) for file in files} == {0o600}
    finally:
        os.umask(old)
    assert [file.name for file in path.parent.iterdir()] == ["relay.db"], "a clean close leaves one file"


def test_the_file_is_never_open_to_others_not_even_for_a_moment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = os.open

    def opened(name: Path, flags: int, permissions: int = 0o777, **rest: int) -> int:
        seen.append(permissions)
        return real(name, flags, permissions, **rest)

    monkeypatch.setattr(os, "open", opened)
    prepare(path)
    assert seen == [0o600]


@pytest.mark.promise("S-08")
def test_a_file_that_others_could_read_is_tightened(path: Path) -> None:
    path.parent.mkdir()
    path.touch(0o644)
    prepare(path)
    assert mode(path) == 0o600


@pytest.mark.promise("S-08")
def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.db"
    link = tmp_path / "relay.db"
    link.symlink_to(target)
    with pytest.raises(StoreError, match="symbolic link"):
        prepare(link)
    assert not target.exists()


@pytest.mark.promise("S-07")
def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder"):
        prepare(tmp_path)


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot open the database"):
        prepare(tmp_path / "file" / "relay.db")


@pytest.mark.parametrize("content", [b"hello, this is a letter and no database\n" * 200, b"SQLite", b"\0" * 8192])
@pytest.mark.promise("S-07")
def test_what_is_no_database_is_refused_and_untouched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "relay.db"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="not an SQLite file"):
        prepare(path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_database_of_another_program_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        prepare(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["a page overwritten", "cut short", "header only"])
@pytest.mark.promise("S-07")
def test_a_damaged_database_is_refused_and_untouched(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "relay.db"
    prepare(path)
    data = bytearray(path.read_bytes())
    assert len(data) > 8192
    if damage == "a page overwritten":
        data[4096:8192] = b"\xa5" * 4096
    elif damage == "cut short":
        del data[len(data) // 2 :]
    else:
        del data[16:]
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"relay\.db is damaged .* restore a backup"):
        prepare(path)
    assert path.read_bytes() == bytes(data)


@pytest.mark.promise("S-06")
def test_a_newer_schema_is_refused_and_untouched(path: Path) -> None:
    prepare(path, [*migrations(), Migration(9000, "9000_future.sql", "CREATE TABLE future (id INTEGER);")])
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"newer version of the relay \(schema 9000.*upgrade the relay"):
        asyncio.run(Store.open(path))
    assert path.read_bytes() == before


def test_a_migration_whose_text_changed_is_refused(path: Path) -> None:
    prepare(path)
    first, *rest = migrations()
    with pytest.raises(StoreError, match="another text of migration 0001_"):
        prepare(path, [first._replace(sql=first.sql + "\n-- now different\n"), *rest])


@pytest.mark.promise("S-06")
def test_later_migrations_are_applied_once_and_in_order(path: Path) -> None:
    prepare(path)
    later = [
        Migration(9001, "9001_one.sql", "CREATE TABLE one (id INTEGER);\nINSERT INTO one VALUES (1);"),
        Migration(9002, "9002_two.sql", "INSERT INTO one VALUES (2); INSERT INTO one VALUES (3);"),
    ]
    for _ in range(2):
        prepare(path, [*migrations(), *later])
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT group_concat(id) FROM one").fetchone() == ("1,2,3",)
    numbers = [number for (number,) in connection.execute("SELECT number FROM migrations ORDER BY applied_at, number")]
    connection.close()
    assert numbers == [*(step.number for step in migrations()), 9001, 9002]


def test_a_failing_migration_leaves_nothing_behind(path: Path) -> None:
    prepare(path)
    broken = Migration(9001, "9001_broken.sql", "CREATE TABLE half (id INTEGER); INSERT INTO nowhere VALUES (1);")
    with pytest.raises(StoreError, match="no such table: nowhere"):
        prepare(path, [*migrations(), broken])
    connection = sqlite3.connect(path)
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    assert "half" not in names
    prepare(path, [*migrations(), broken._replace(sql="CREATE TABLE whole (id INTEGER);")])


@pytest.mark.promise("S-06")
def test_a_migration_killed_in_the_middle_is_resumed(path: Path) -> None:
    prepare(path)
    slow = """
        import sys, time, sqlite3
        from pathlib import Path
        from relay.store import database

        path = Path(sys.argv[1])
        real = sqlite3.connect

        class Slow(sqlite3.Connection):
            def execute(self, sql, *rest):
                result = super().execute(sql, *rest)
                if "CREATE TABLE half" in sql:
                    print("half", flush=True)
                    time.sleep(60)
                return result

        sqlite3.connect = lambda *a, **k: real(*a, factory=Slow, **k)
        step = database.Migration(9001, "9001_x.sql", "CREATE TABLE half (id INTEGER); CREATE TABLE rest (id INTEGER);")
        database.prepare(path, [*database.migrations(), step])
    """
    process = run(slow, path)
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    step = Migration(9001, "9001_x.sql", "CREATE TABLE half (id INTEGER); CREATE TABLE rest (id INTEGER);")
    prepare(path, [*migrations(), step])
    connection = sqlite3.connect(path)
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    assert {"half", "rest"} <= names


def test_statements_are_split_where_they_end_and_not_inside_triggers() -> None:
    text = """
    -- a comment; with a semicolon
    CREATE TABLE a (b TEXT DEFAULT 'x;y');
    CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE a SET b = 'z;'; SELECT 1; END;
    """
    assert len(Migration(1, "0001_x.sql", text).statements()) == 2
    with pytest.raises(StoreError, match="middle of a statement"):
        Migration(1, "0001_x.sql", "CREATE TABLE a (b); CREATE TABLE").statements()


@pytest.mark.promise("M-08")
def test_several_processes_may_create_the_database_at_once(path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from relay.store.database import prepare
        prepare(Path(sys.argv[1]))
    """
    processes = [run(code, path) for _ in range(4)]
    for process in processes:
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM migrations").fetchone() == (len(migrations()),)
    connection.close()


async def test_the_file_is_set_up_for_several_processes(store: Store) -> None:
    async def pragma(name: str) -> object:
        ((value,),) = await store.database.connection.execute_fetchall(f"PRAGMA {name}")
        return value

    assert await pragma("journal_mode") == "wal"
    assert await pragma("synchronous") == 1
    assert await pragma("foreign_keys") == 1
    assert await pragma("busy_timeout") == 5000
    assert await pragma("journal_size_limit") == 64 * 1024 * 1024


@pytest.mark.promise("S-05")
async def test_a_cancelled_write_leaves_no_open_transaction(store: Store) -> None:
    for steps in range(12):

        async def work(connection: aiosqlite.Connection, name: str = f"step {steps}") -> None:
            for part in ("a", "b", "c"):
                await connection.execute_fetchall("INSERT INTO names (name) VALUES (?)", (f"{name} {part}",))

        task = asyncio.create_task(store.database.write(work))
        for _ in range(steps):
            await asyncio.sleep(0.0005)
        task.cancel()
        await asyncio.wait([task])

        async def nothing(connection: aiosqlite.Connection) -> bool:
            return connection.in_transaction

        assert await store.database.write(nothing), "the next transaction is a new one"
        assert not store.database.connection.in_transaction
        rows = await store.database.reader.fetch("SELECT count(*) FROM names WHERE name LIKE ?", (f"step {steps} %",))
        assert rows[0][0] in (0, 3), "all of it or nothing"


@pytest.mark.promise("S-05")
async def test_cancelling_the_caller_does_not_cancel_the_work(store: Store) -> None:
    begun = asyncio.Event()

    async def work(connection: aiosqlite.Connection) -> None:
        begun.set()
        for name in ("a", "b", "c"):
            await asyncio.sleep(0.01)
            await connection.execute_fetchall("INSERT INTO names (name) VALUES (?)", (name,))

    task = asyncio.create_task(store.database.write(work))
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await store.database.close()
    async with await Store.open(store.database.path) as again:
        assert await again.database.reader.fetch("SELECT count(*) FROM names") == [(3,)]


async def test_a_failed_write_is_rolled_back_whole(store: Store) -> None:
    async def work(connection: aiosqlite.Connection) -> None:
        await connection.execute_fetchall("INSERT INTO names (name) VALUES ('lost')")
        raise LookupError("on purpose")

    with pytest.raises(LookupError):
        await store.database.write(work)
    assert await store.database.reader.fetch("SELECT name FROM names") == []


async def test_a_reader_cannot_write(store: Store) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await store.database.reader.fetch("INSERT INTO names (name) VALUES ('x')")


async def test_a_cancelled_query_does_not_hold_up_the_next_one(store: Store) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    task = asyncio.create_task(store.database.reader.fetch(endless))
    await asyncio.sleep(0.1)
    task.cancel()
    started = time.monotonic()
    assert await store.database.reader.fetch("SELECT 1") == [(1,)]
    assert time.monotonic() - started < 2
    assert task.cancelled()


def test_a_database_nobody_closed_does_not_keep_the_interpreter_from_ending(path: Path) -> None:
    code = """
        import asyncio, sys
        from relay.store import Store
        async def main():
            global store
            store = await Store.open(sys.argv[1], watch=True)
            await store.keys.create("one")
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        print("end", flush=True)
        import os
    """
    process = run(
        code.replace("import asyncio, sys", "import asyncio, sys, warnings; warnings.simplefilter('ignore')"), path
    )
    out, _ = process.communicate(timeout=15)
    assert out == "end\n"


async def test_closing_twice_is_fine_and_writing_afterwards_is_refused(path: Path) -> None:
    database = await Database.open(path)
    await database.close()
    await database.close()

    async def work(connection: aiosqlite.Connection) -> None:
        raise AssertionError("must not run")

    with pytest.raises(StoreError, match="is closed"):
        await database.write(work)
