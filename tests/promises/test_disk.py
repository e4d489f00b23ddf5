"""Disks that are full, read-only or damaged, schemas of every age, and rows that cannot be stored for long."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from relay.cli import commands
from relay.store import Store, StoreError, UsageRow
from relay.store import upkeep as upkeep_module
from relay.store import writer as writer_module
from relay.store.database import migrations, prepare
from relay.store.keys import digest
from relay.store.writer import Writer
from tests.core.store.conftest import make
from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import FakeUpstream, Seen, Step, chat_answer, chat_stream
from tests.promises.courses import PLANES, ask
from tests.promises.wire import eventually, until

__all__ = ["make"]

Make = Callable[..., UsageRow]
MIB = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two MiB; skipped where it cannot be made."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("no file system can be made here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def filled_up(folder: Path) -> Path:
    """A file that takes all the room that there is."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65_536, 4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    return ballast


@pytest.mark.promise("S-03")
async def test_a_disk_that_is_full_stops_rows_and_nothing_else(
    start: Start, upstream: FakeUpstream, small_disk: Path
) -> None:
    def play(seen: Seen) -> Sequence[Step]:
        return chat_stream() if seen.json.get("stream") else chat_answer()

    upstream.answer = play
    relay: Running = await start(openai_config(upstream), folder=small_disk)
    for plane in PLANES:
        assert (await ask(relay, plane)).status == 200
    await relay.relay.store.usage.flush()
    ballast = await asyncio.to_thread(filled_up, small_disk)
    writer = relay.relay.store.usage.writer
    before = writer.written
    # More than fits into what a page or two still have.
    for _ in range(300):
        assert (await ask(relay)).status == 200
    for plane in PLANES:
        assert (await ask(relay, plane)).status == 200
    assert not await relay.relay.store.usage.flush(0.5)
    assert writer.pending > 0
    assert writer.dropped == 0
    with pytest.raises((StoreError, sqlite3.Error)):
        await relay.relay.store.keys.create("another")
    stored = await relay.relay.store.database.reader.fetch("SELECT count(*) FROM usage")
    assert stored[0][0] == writer.written, "no half batches"
    ballast.unlink()
    # No restart, and nobody has to say so.
    assert await relay.relay.store.usage.flush(10)
    assert (writer.written - before, writer.dropped) == (300 + len(PLANES), 0)
    await relay.relay.store.keys.create("another")
    connection = sqlite3.connect(small_disk / "relay0.db")
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        connection.close()


@pytest.mark.promise("S-07")
def test_a_disk_that_cannot_be_written_is_told_and_untouched(small_disk: Path) -> None:
    async def filled() -> None:
        async with await Store.open(small_disk / "relay.db") as store:
            await store.keys.create("one")

    asyncio.run(filled())
    before = (small_disk / "relay.db").read_bytes()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for file in ("relay.db", "none.db"):
        result = CliRunner().invoke(commands, ["keys", "list", "--db", str(small_disk / file)])
        assert result.exit_code == 1
        assert len(result.output.strip().splitlines()) == 1, result.output
        assert str(small_disk) in result.output
    assert (small_disk / "relay.db").read_bytes() == before


@pytest.mark.promise("S-07")
def test_an_empty_file_is_a_new_database_unless_its_log_tells_otherwise(tmp_path: Path) -> None:
    new = tmp_path / "new.db"
    new.touch()
    prepare(new)
    assert new.stat().st_size > 4096
    cut = tmp_path / "cut.db"
    cut.touch()
    log = tmp_path / "cut.db-wal"
    log.write_bytes(b"something" * 1000)
    with pytest.raises(StoreError, match="somebody has cut it off"):
        prepare(cut)
    assert (cut.read_bytes(), log.read_bytes()) == (b"", b"something" * 1000)


@pytest.mark.promise("S-07")
async def test_a_backup_takes_the_place_of_a_damaged_database(tmp_path: Path, make: Make) -> None:
    path, copy = tmp_path / "relay.db", tmp_path / "copy.db"
    async with await Store.open(path) as store:
        key, secret = await store.keys.create("one", budget={"total": 10**9})
        for number in range(500):
            store.usage.put(make(number, key_id=key.id, cost=1000))
        await store.usage.flush()
        result = await asyncio.to_thread(CliRunner().invoke, commands, ["backup", str(copy), "--db", str(path)])
        assert result.exit_code == 0, result.output
    data = bytearray(path.read_bytes())
    data[4096:12288] = b"\xa5" * 8192
    path.write_bytes(bytes(data))
    with pytest.raises(StoreError, match="restore a backup"):
        await Store.open(path)
    shutil.copyfile(copy, path)
    async with await Store.open(path) as store:
        found = await store.ring.lookup(secret)
        assert found is not None
        assert (await store.spending.of(key.id, make(0).at)).total == 500_000
        assert len(await store.usage.rows(1000)) == 500


@pytest.mark.promise("S-07")
@pytest.mark.parametrize("way", ["moved", "removed", "replaced"])
async def test_a_database_that_is_taken_away_is_told_of(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    monkeypatch.setattr(upkeep_module, "LOOK", 0.01)
    upstream.answer = lambda seen: chat_answer()
    running = await start(openai_config(upstream))
    path = running.relay.store.database.path
    elsewhere = path.with_name("elsewhere.db")

    async def told(word: str) -> bool:
        async with running.client.get(f"{running.url}/readyz") as response:
            assert response.status == 200
            return bool((await response.json())["database"] == word)

    assert await told("in place")
    path.rename(elsewhere)
    if way != "moved":
        elsewhere.unlink()
    if way == "replaced":
        path.touch()
    await eventually(lambda: told("gone"))
    for _ in range(3):
        # Nobody is held up by it, and it is said once.
        assert (await ask(running)).status == 200
        await asyncio.sleep(0.02)
    assert caplog.text.count(f"{path} was moved, removed or replaced") == 1
    if way == "moved":
        elsewhere.rename(path)
        await eventually(lambda: told("in place"))
        assert f"{path} is in its place again" in caplog.text


@pytest.mark.promise("S-06")
@pytest.mark.parametrize("age", range(1, len(migrations())))
def test_a_database_of_every_age_goes_forward_with_all_that_is_in_it(tmp_path: Path, make: Make, age: int) -> None:
    path = tmp_path / "relay.db"
    steps = migrations()
    prepare(path, steps[:age])
    connection = sqlite3.connect(path, isolation_level=None)
    mark = digest("sk-relay-old")
    connection.execute(
        "INSERT INTO keys (digest, prefix, name, created_at, rpm) VALUES (?, 'sk-relay-ol', 'old', 5, 7)", (mark,)
    )
    connection.execute("INSERT INTO names (name) VALUES ('generate'), ('ok'), ('provider'), ('small')")
    words = dict(connection.execute("SELECT name, id FROM names").fetchall())
    connection.execute(
        "INSERT INTO usage (request_id, at, key_id, stream, status, cost, duration_ms, attempts, operation, model,"
        " outcome, usage_source, input, output) VALUES ('r', 1000, 1, 0, 200, 42, 5, 1, ?, ?, ?, ?, 11, 3)",
        (words["generate"], words["small"], words["ok"], words["provider"]),
    )
    connection.close()
    # Whoever is older refuses what is newer, and changes nothing.
    for newer in range(age + 1, len(steps) + 1):
        prepare(path, steps[:newer])
        before = path.read_bytes()
        with pytest.raises(StoreError, match="upgrade the relay"):
            prepare(path, steps[:age])
        assert path.read_bytes() == before

    async def opened() -> None:
        async with await Store.open(path) as store:
            key = await store.ring.lookup("sk-relay-old")
            assert key is not None
            assert (key.name, key.rpm) == ("old", 7)
            (row,) = await store.usage.rows()
            assert (row.request_id, row.model, row.outcome, row.cost) == ("r", "small", "ok", 42)
            (report,) = await store.usage.report("model")
            assert (report.requests, report.ok, report.cost) == (1, 1, 42)
            assert (await store.spending.of(1, 1000)).total == 42
            # And what is new works in it.
            await store.keys.update("old", budget={"day": 5}, abort="drain")
            store.usage.put(make(1))
            assert await store.usage.flush(5)

    asyncio.run(opened())


@pytest.mark.promise("S-04")
async def test_rows_that_wait_are_bounded_in_number_and_in_bytes(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer_module, "PAUSES", (0.01,))
    broken, stored = [True], 0

    async def sink(rows: Sequence[UsageRow]) -> None:
        nonlocal stored
        if broken[0]:
            raise sqlite3.OperationalError("disk I/O error")
        stored += len(rows)

    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        writer: Writer[UsageRow] = Writer(sink)
        # Five minutes at two hundred a second.
        for number in range(60_000):
            writer.put(make(number, model=f"model {number % 50}"))
            if number % 5000 == 0:
                await asyncio.sleep(0.02)
        held = writer.pending
        grown = tracemalloc.get_traced_memory()[0] - before
        assert held <= writer_module.CAPACITY + writer_module.LARGEST
        assert writer.dropped == 60_000 - held
        assert grown < 64 * MIB, f"{grown / MIB:.0f} MiB"
        assert grown / held < 1200, f"{grown / held:.0f} bytes a row"
        assert caplog.text.count("usage rows are lost so far, oldest first") == 1
        broken[0] = False
        assert await writer.flush(20)
        assert (stored, writer.pending, writer.written) == (held, 0, held)
        left = tracemalloc.get_traced_memory()[0] - before
        assert left < 2 * MIB, f"{left / MIB:.1f} MiB"
        await writer.close()
    finally:
        tracemalloc.stop()


@pytest.mark.promise("S-05")
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_that_is_cancelled_at_any_of_its_steps_leaves_everything_settled(
    start: Start, upstream: FakeUpstream, streamed: bool
) -> None:
    upstream.answer = lambda seen: chat_stream() if seen.json.get("stream") else chat_answer()
    relay = await start(openai_config(upstream) + "    [keys.budget]\n    total = 1.0\n", key={"concurrency": 3})
    store = relay.relay.store

    async def call() -> None:
        async with relay.chat(stream=streamed, max_tokens=50) as response:
            await response.read()

    await call()
    turns = 0
    for turns in range(200):
        task = asyncio.create_task(call())
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.done():
            break
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: relay.relay.limiter.running() == 0)
        assert not store.database.connection.in_transaction
    assert turns > 10, "there were steps to be cancelled at"
    await store.usage.flush()
    rows = await store.usage.rows(1000)
    assert len({row.request_id for row in rows}) == len(rows)
    assert {row.outcome for row in rows} <= {"ok", "client_abort"}
    (key,) = {row.key_id for row in rows}
    assert key is not None
    # What the ledger holds is what the rows say, and nothing is set aside any more.
    account = relay.relay.ledger.account(key)
    assert account.held == 0
    spent = await store.spending.of(key, rows[0].at)
    assert spent.total == sum(row.cost or 0 for row in rows)
    assert account.of("total", rows[0].at) == spent.total

    async def untouched() -> bool:
        return store.journal is not None and store.journal.in_use() == 0

    await eventually(untouched)
    assert (await ask(relay)).status == 200
