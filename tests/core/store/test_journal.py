"""The file of calls in flight by itself."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay.ir import Usage
from relay.store import Journal, Open, Store, UsageRow
from relay.store import journal as module
from relay.store.journal import OUTCOMES, SIZE, SOURCES, STEP

Make = Callable[..., UsageRow]
ID = "req_0123456789abcdef01234567"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


def begin(journal: Journal, number: int = 0, **changes: Any) -> int:
    values: dict[str, Any] = {
        "request_id": f"req_{number:024x}",
        "operation": "generate",
        "model": "small",
        "key": 7,
        "at": 1_790_000_000_000,
        "tokens_in": 11,
        "tokens_out": 1024,
        "cost": 5000,
        "stream": True,
    }
    return journal.begin(**values | changes)


def stored(journal: Journal, place: int) -> None:
    row = UsageRow(request_id=ID, at=0, key_id=1, operation="generate", model=None, place=place)
    journal.stored([row])


def over(journal: Journal, row: UsageRow) -> None:
    journal.over(row.place, row.status, row.outcome, row.usage_source, row.stream, row.usage, row.cost)


def crash(journal: Journal) -> None:
    """Let go of the file as the system does for a process that was killed."""
    journal._map.close()
    os.close(journal._file)


def test_what_is_open_at_a_crash_is_found_and_what_is_stored_is_not(database: Path) -> None:
    journal = Journal.open(database)
    places = [begin(journal, number) for number in range(5)]
    assert len(set(places)) == 5
    for place in places[:3]:
        stored(journal, place)
    crash(journal)
    after = Journal.open(database)
    assert [call.request_id for call in after.left()] == [f"req_{number:024x}" for number in (3, 4)]
    assert after.left()[0] == Open(
        f"req_{3:024x}", "generate", "small", 7, 1_790_000_000_000, 11, 1024, 5000, 500, "crashed", "estimate", True
    )
    assert after.in_use() == 2
    after.settled()
    assert (after.left(), after.in_use()) == ([], 0)
    after.close()
    assert not list(database.parent.iterdir())


def test_a_call_that_was_over_is_found_as_its_row_would_say(database: Path, make: Make) -> None:
    journal = Journal.open(database)
    row = make(3, request_id=ID, outcome="client_abort", usage_source="partial", status=499, stream=False)
    row = row._replace(place=begin(journal, request_id=ID))
    over(journal, row)
    refused = make(4, outcome="rejected", usage_source="none", status=402, usage=None, cost=0)
    over(journal, refused._replace(place=begin(journal, request_id=refused.request_id)))
    crash(journal)
    first, second = Journal.open(database).left()
    assert (first.outcome, first.source, first.status, first.stream) == ("client_abort", "partial", 499, False)
    assert row.usage is not None
    assert (first.input, first.output, first.cost) == (row.usage.input, row.usage.output, row.cost)
    assert (second.outcome, second.status, second.input, second.cost) == ("rejected", 402, None, 0)


def test_each_process_has_a_file_and_the_next_start_finds_what_all_of_them_left(database: Path) -> None:
    journals = [Journal.open(database) for _ in range(3)]
    for number, journal in enumerate(journals):
        begin(journal, number)
    crash(journals[0])
    crash(journals[2])
    after = Journal.open(database)
    assert {call.request_id for call in after.left()} == {f"req_{number:024x}" for number in (0, 2)}
    after.settled()
    assert len(list(database.parent.iterdir())) == 2, "its own, and the one of the process that lives"
    assert Journal.open(database).left() == [], "nobody finds them twice"


def test_it_grows_and_beyond_its_bounds_calls_have_no_place(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CAPACITY", 2 * STEP)
    journal = Journal.open(database)
    places = [begin(journal, number) for number in range(2 * STEP)]
    assert sorted(places) == list(range(2 * STEP))
    assert begin(journal) == -1
    stored(journal, places[5])
    assert begin(journal) == places[5]
    (file,) = database.parent.iterdir()
    assert file.stat().st_size == 2 * STEP * SIZE
    crash(journal)
    assert len(Journal.open(database).left()) == 2 * STEP


def test_a_full_disk_is_noticed_before_it_does_harm(
    database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal.open(database)
    for number in range(STEP):
        begin(journal, number)

    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert [begin(journal), begin(journal)] == [-1, -1]
    assert [record.message.split(" (")[1] for record in caplog.records] == [
        "No space left on device): more calls at a time have no place in it"
    ]


def test_the_file_is_private_and_no_link_is_followed(database: Path, tmp_path: Path) -> None:
    journal = Journal.open(database)
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    journal.close()
    target = tmp_path / "target"
    target.write_text("mine")
    file.symlink_to(target)
    with pytest.raises(OSError, match="symbolic"):
        Journal.open(database)
    assert target.read_text() == "mine"


def test_a_file_of_rubbish_is_read_without_harm(database: Path) -> None:
    Journal.open(database).close()
    file = database.with_name("relay.db-calls-0")
    file.write_bytes(bytes(range(256)) * 20 + b"\xff" * 7)
    journal = Journal.open(database)
    for call in journal.left():
        assert call.outcome in OUTCOMES
        assert call.source in SOURCES
    file.write_bytes(b"\x01" * SIZE * 3)
    assert begin(journal) >= 0


@pytest.mark.parametrize("model", [None, "m" * 500, "模型" * 50, "half \ud800", "a\0b"])
def test_names_are_kept_as_far_as_there_is_room(database: Path, model: str | None) -> None:
    journal = Journal.open(database)
    begin(journal, model=model, tokens_in=2**80, tokens_out=2**80, cost=2**80)
    crash(journal)
    (call,) = Journal.open(database).left()
    assert (call.model or "").encode()[:90] == (model or "").encode("utf-8", "replace")[:90].replace(b"\0", b"\0")
    assert call.cost == 2**62


async def test_rows_give_their_places_back_once_they_are_stored(tmp_path: Path, make: Make) -> None:
    store = await Store.open(tmp_path / "relay.db", journal=True)
    journal = store.journal
    assert journal is not None
    for number in range(1200):
        row = make(number)._replace(place=begin(journal, number))
        over(journal, row)
        store.usage.put(row)
    assert journal.in_use() == 1200
    await store.usage.flush()
    assert journal.in_use() == 0
    await store.close()
    assert store.journal is None
    assert os.listdir(tmp_path) == ["relay.db"]


async def test_what_a_crash_left_is_stored_once_however_often_it_is_found(tmp_path: Path, make: Make) -> None:
    rows = [make(number, usage=Usage(number, 1)) for number in range(1500)]
    async with await Store.open(tmp_path / "relay.db") as store:
        for row in rows[:700]:
            store.usage.put(row)
        await store.usage.flush()
        for _ in range(3):
            await store.usage.restore(rows)
        (total,) = await store.usage.report("key")
        assert total.requests == 1500
        assert total.input == sum(range(1500))
