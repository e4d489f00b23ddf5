"""What is kept for the next turn, in the file: who can open it, how much of it there is, and what it may cost."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relay.seal import Seal
from relay.secret import Secret
from relay.shelf import Look, Shelf
from relay.store import Kept, Key, Room, Store
from relay.store import kept as module
from relay.store.kept import Found, share

KIND, SPACE = "thoughts", "up"
HOUR = 3_600_000
NOW = 1_800_000_000_000
ROOMS = {KIND: Room(1, 200_000, HOUR)}
CANARY = b"CANARY-what-the-model-thought"
Sql = Callable[..., list[tuple[Any, ...]]]


class Process:
    """One process that serves from the file."""

    def __init__(self, store: Store) -> None:
        assert store.kept is not None
        self.store = store
        self.kept: Kept = store.kept
        self.shelf = Shelf(KIND, 100_000, HOUR / 1000, clock=lambda: NOW / 1000, kept=store.kept)

    async def key(self, secret: str) -> Key:
        key = await self.store.ring.lookup(secret)
        assert key is not None
        return key

    async def get(self, key: Key, name: str, *, now: int = NOW) -> bytes | None:
        found = await self.kept.find(key, KIND, [(SPACE, name)], now)
        entry = found.get((SPACE, name))
        return None if entry is None else entry.document


Start = Callable[..., Any]


@pytest.fixture
async def start(path: Path) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def begin(rooms: Mapping[str, Room] = ROOMS) -> Process:
            return Process(await stack.enter_async_context(await Store.open(path, rooms=rooms)))

        yield begin


@pytest.fixture
async def one(start: Start) -> Process:
    process: Process = await start()
    return process


@pytest.fixture
async def secret(one: Process) -> str:
    _, secret = await one.store.keys.create("one")
    return secret


async def test_it_survives_a_restart_and_another_process_finds_it(start: Start, one: Process, secret: str) -> None:
    key = await one.key(secret)
    one.shelf.put(key, SPACE, "a", CANARY)
    assert await one.get(key, "a") == CANARY, "what waits to be written is there already"
    other = await start()
    assert await one.kept.flush()
    await one.store.close()
    key = await other.key(secret)
    look = Look(key)
    assert look.get(other.shelf, SPACE, "a") is None
    assert look.get(other.shelf, SPACE, "b") is None
    assert look.missing
    await look.fetch()
    assert (look.get(other.shelf, SPACE, "a"), look.get(other.shelf, SPACE, "b")) == (CANARY, None)
    assert not look.missing
    assert other.shelf.get(key.id, SPACE, "a") == CANARY, "from now on it is in memory"
    assert not other.shelf.elsewhere(key, SPACE, "b"), "what is not there is not looked for again at once"


@pytest.mark.promise("S-13")
async def test_the_file_tells_nothing_of_it(one: Process, secret: str, path: Path) -> None:
    key = await one.key(secret)
    one.kept.put(key, KIND, "CANARY-upstream", "CANARY-call-id", CANARY, NOW)
    assert await one.kept.flush()
    assert one.kept.written == 1
    files = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert {"relay.db", "relay.db-wal"} <= set(files)
    for name, data in files.items():
        assert b"CANARY" not in data, name
        assert secret.encode() not in data, name


@pytest.mark.promise("S-13")
async def test_no_other_key_and_no_other_place_opens_it(one: Process, secret: str, sql: Sql) -> None:
    key = await one.key(secret)
    _, second = await one.store.keys.create("two")
    other = await one.key(second)
    for owner, name in ((key, "a"), (key, "b"), (other, "a")):
        one.kept.put(owner, KIND, SPACE, name, f"{owner.name} {name}".encode(), NOW)
    assert await one.kept.flush()
    assert await one.get(other, "b") is None
    # The same owner with another key's secret is nobody's.
    assert await one.get(replace(key, secret=other.secret), "a") is None
    assert await one.get(replace(other, secret=key.secret), "a") is None
    # Whoever writes into the file moves nothing from one owner, or one place, to another.
    ((mine, yours),) = sql(
        "SELECT a.sealed, b.sealed FROM kept a JOIN kept b ON a.key_id = ? AND b.key_id = ? LIMIT 1", key.id, other.id
    )
    sql("UPDATE kept SET sealed = CASE key_id WHEN ? THEN ? ELSE ? END", key.id, yours, mine)
    assert await one.get(key, "a") is None or await one.get(key, "b") is None
    assert await one.get(other, "a") is None
    sql("UPDATE kept SET sealed = ? WHERE key_id = ?", mine, key.id)
    assert sorted(filter(None, [await one.get(key, "a"), await one.get(key, "b")])) in ([b"one a"], [b"one b"])


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE kept SET sealed = substr(sealed, 1, length(sealed) - 1)",
        "UPDATE kept SET sealed = x''",
        "UPDATE kept SET sealed = x'01'",
        "UPDATE kept SET sealed = CAST(x'02' || substr(sealed, 2) AS BLOB)",
        "UPDATE kept SET at = at + 1",
        "UPDATE kept SET place = x'00000000000000000000000000000000'",
    ],
)
async def test_what_was_changed_is_not_there(one: Process, secret: str, sql: Sql, damage: str) -> None:
    key = await one.key(secret)
    one.kept.put(key, KIND, SPACE, "a", CANARY, NOW)
    assert await one.kept.flush()
    assert await one.get(key, "a") == CANARY
    sql(damage)
    assert await one.get(key, "a") is None


def test_every_byte_of_it_counts() -> None:
    seal = Seal(Secret("sk-relay-0123456789abcdefghij"))
    closed = seal.close(b"text", 7, "1", "kind", "a")
    assert seal.open(closed, 7, "1", "kind", "a") == b"text"
    for place in range(len(closed)):
        changed = bytearray(closed)
        changed[place] ^= 1
        assert seal.open(bytes(changed), 7, "1", "kind", "a") is None
    assert seal.open(closed, 8, "1", "kind", "a") is None
    assert seal.open(closed, 7, "1", "kinda") is None, "names do not run into each other"
    assert seal.close(b"text", 7, "a") != seal.close(b"text", 7, "a")
    assert Seal(Secret("sk-relay-0123456789abcdefghiJ")).open(closed, 7, "1", "kind", "a") is None


async def test_what_is_too_old_is_not_found_and_goes(one: Process, secret: str, sql: Sql) -> None:
    key = await one.key(secret)
    one.kept.put(key, KIND, SPACE, "a", CANARY, NOW)
    assert await one.kept.flush()
    assert await one.get(key, "a", now=NOW + HOUR - 1) == CANARY
    assert await one.get(key, "a", now=NOW + HOUR) is None
    await one.kept.prune(NOW + HOUR)
    assert sql("SELECT count(*) FROM kept") == [(0,)]


async def test_there_is_never_much_more_than_there_is_room_for(
    one: Process, secret: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 7)
    key = await one.key(secret)
    _, second = await one.store.keys.create("two")
    other = await one.key(second)
    one.kept.put(other, KIND, SPACE, "little", b"x" * 1000, NOW)
    for number in range(600):
        one.kept.put(key, KIND, SPACE, f"n{number}", b"x" * 1000, NOW + number)
        if number % 100 == 99:
            assert await one.kept.flush()
    await one.kept.prune(NOW + 600)
    ((size,),) = sql("SELECT sum(length(sealed)) FROM kept")
    assert 150_000 < size < 200_000
    assert await one.get(key, "n599", now=NOW + 600)
    assert await one.get(key, "n100", now=NOW + 600) is None
    assert await one.get(other, "little", now=NOW + 600), "who keeps much pushes out only its own"
    one.kept.put(key, KIND, SPACE, "huge", b"x" * 300_000, NOW)
    assert await one.kept.flush()
    assert await one.get(key, "n599", now=NOW + 600), "what is too large pushes nothing out"


@pytest.mark.parametrize(
    ("sizes", "room", "most"), [([10, 20], 100, 100), ([10, 90, 200], 100, 45), ([50, 50], 50, 25), ([200], 100, 100)]
)
def test_room_is_shared_so_that_who_needs_little_has_it(sizes: list[int], room: int, most: int) -> None:
    assert share(sizes, room) == most
    assert sum(min(size, most) for size in sizes) <= room


async def test_what_is_no_longer_kept_goes(start: Start, one: Process, secret: str, sql: Sql) -> None:
    key = await one.key(secret)
    one.kept.put(key, KIND, SPACE, "a", CANARY, NOW)
    assert await one.kept.flush()
    without = await start({KIND: Room(1, 0, HOUR)})
    without.kept.put(key, KIND, SPACE, "b", CANARY, NOW)
    await without.kept.prune(NOW)
    assert sql("SELECT count(*) FROM kept") == [(0,)]


@pytest.mark.promise("S-13")
@pytest.mark.parametrize("end", ["revoke", "rotate"])
async def test_it_goes_with_its_key(one: Process, secret: str, sql: Sql, end: str) -> None:
    key = await one.key(secret)
    await one.store.ring.refresh()
    one.shelf.put(key, SPACE, "a", CANARY)
    assert await one.kept.flush()
    one.store.ring.revoked.append(one.shelf.forget)
    await getattr(one.store.keys, end)("one")
    assert sql("SELECT count(*) FROM kept") == [(0,)]
    if end == "revoke":
        assert len(one.shelf) == 0
        one.kept.put(key, KIND, SPACE, "late", CANARY, NOW)
        assert await one.kept.flush()
        assert sql("SELECT count(*) FROM kept") == [(0,)], "nothing comes after"


async def test_a_grace_period_is_one_for_what_is_kept_too(one: Process, secret: str) -> None:
    key = await one.key(secret)
    one.kept.put(key, KIND, SPACE, "a", CANARY, NOW)
    assert await one.kept.flush()
    await one.store.keys.rotate("one", grace=60_000)
    assert await one.get(await one.key(secret), "a") == CANARY


async def test_what_is_dropped_is_gone_also_while_it_is_being_written(
    one: Process, secret: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSES", (0.0,))
    key = await one.key(secret)
    write, tried = one.store.database.write, asyncio.Event()

    async def failing(work: Any) -> Any:
        if not tried.is_set():
            tried.set()
            await one.kept.drop(key, KIND, SPACE, "a")
            raise sqlite3.OperationalError("database is locked")
        return await write(work)

    monkeypatch.setattr(one.store.database, "write", failing)
    one.kept.put(key, KIND, SPACE, "a", CANARY, NOW)
    one.kept.put(key, KIND, SPACE, "b", CANARY, NOW)
    assert await one.kept.flush()
    assert sql("SELECT count(*) FROM kept") == [(1,)]
    assert (await one.get(key, "a"), await one.get(key, "b")) == (None, CANARY)


@pytest.mark.promise("S-01")
async def test_a_database_that_cannot_be_written_costs_entries_and_no_more(
    one: Process, secret: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(module, "QUEUE", 3000)
    key = await one.key(secret)

    async def full(work: Any) -> Any:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(one.store.database, "write", full)
    for number in range(5):
        one.shelf.put(key, SPACE, f"n{number}", b"x" * 1000)
    assert await one.kept.flush()
    assert (one.kept.written, one.kept.lost) == (0, 5)
    assert await one.shelf.fetch(key, [(SPACE, "n4")]) == {(SPACE, "n4"): b"x" * 1000}, "memory has it all the same"
    assert len([record for record in caplog.records if "were not stored" in record.message]) == 1


@pytest.mark.promise("S-04")
async def test_a_disk_that_does_not_answer_is_waited_for_once(
    one: Process, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_SECONDS", 0.01)
    key = await one.key(secret)
    asked = []

    async def silent(sql: str, values: Any = ()) -> list[Any]:
        asked.append(sql)
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr(one.kept._reader, "fetch", silent)
    assert await one.shelf.fetch(key, [(SPACE, "a")]) == {}
    assert await one.shelf.fetch(key, [(SPACE, "a")]) == {}
    assert len(asked) == 1
    assert one.shelf.elsewhere(key, SPACE, "a"), "that nobody could tell is no answer"


async def test_another_process_that_is_still_writing_is_waited_for(
    one: Process, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await one.key(secret)
    answers: list[dict[tuple[str, str], Found | None]] = [
        {(SPACE, "a"): None},
        {(SPACE, "a"): Found(CANARY, NOW)},
    ]

    async def find(*_: Any) -> dict[tuple[str, str], Found | None]:
        return answers.pop(0)

    monkeypatch.setattr(one.kept, "find", find)
    assert await one.shelf.fetch(key, [(SPACE, "a")], patient=True) == {(SPACE, "a"): CANARY}


async def test_a_key_without_its_secret_keeps_nothing_in_the_file(one: Process, secret: str, sql: Sql) -> None:
    key = replace(await one.key(secret), secret=None)
    one.kept.put(key, KIND, SPACE, "a", CANARY, NOW)
    assert await one.kept.flush()
    assert sql("SELECT count(*) FROM kept") == [(0,)]
    assert secret not in repr(await one.key(secret))


def test_nothing_that_serves_loads_the_cipher_before_it_is_needed() -> None:
    program = "import sys, relay.app, relay.__main__; sys.exit(any('cryptography' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=30).returncode == 0
