from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from relay.ir import Usage
from relay.pricing import Price, Rates, Tier
from relay.store import GROUPS, Store, StoreError, UsageRow
from relay.store.usage import LARGEST
from relay.store.words import pack, unpack

Make = Callable[..., UsageRow]
Sql = Callable[..., list[tuple[Any, ...]]]
DAY = 86_400_000


async def put(store: Store, *rows: UsageRow) -> None:
    for row in rows:
        store.usage.put(row)
    assert await store.usage.flush(20)


async def test_a_row_is_read_as_it_was_written(store: Store, make: Make) -> None:
    price = Price(
        Rates(input=1, output=2, cache_read=3, reasoning=4),
        tiers=(Tier(200_000, Rates(input=5, output=6)),),
        request=7,
        source="test",
    )
    rows = [
        make(1),
        make(2, price=price, usage=Usage(*range(8)), tools="invalid", error_code="upstream_error", status=502),
        UsageRow(request_id="bare", at=5, key_id=None, operation="generate", model=None),
        make(3, outcome="client_abort", usage_source="partial", cost=None, price=None, first_byte_ms=None),
    ]
    await put(store, *rows)
    assert [row._replace(id=0) for row in await store.usage.rows()] == rows[::-1]
    for number, row in enumerate(rows, 1):
        assert await store.usage.row(row.request_id) == row._replace(id=number)
    assert await store.usage.row("nothing") is None
    stored = await store.usage.row("bare")
    assert stored is not None
    assert stored.id == 3


async def test_twenty_thousand_rows_cost_less_than_400_bytes_each(store: Store, make: Make) -> None:
    for number in range(20_000):
        row = make(
            number,
            request_id="req_" + secrets.token_hex(16),
            key_id=number % 50,
            model=f"vendor/model-{number % 40}",
            target_model=f"model-{number % 40}-2026-01-01",
            upstream=f"upstream-{number % 5}",
            usage=Usage(
                input=100_000 + number, output=5000 + number % 900, cache_read=90_000, cache_write_5m=4000,
                cache_write_1h=0, reasoning=3000, audio_in=0, audio_out=0,
            ),
            cost=123_456_789_012 + number,
        )  # fmt: skip
        store.usage.put(row)
    assert await store.usage.flush(30)
    ((pages, size),) = await store.database.reader.fetch("SELECT * FROM pragma_page_count, pragma_page_size")
    assert pages * size / 20_000 < 200
    assert store.usage.writer.written == 20_000


async def test_words_and_prices_are_stored_once(store: Store, make: Make, sql: Sql) -> None:
    other = replace(make().price or Price(Rates(1, 1)), source="test 2")
    await put(store, *(make(number) for number in range(50)))
    await put(store, *(make(number, price=other) for number in range(50, 100)))
    assert sql("SELECT count(*), count(DISTINCT source) FROM prices") == [(2, 2)]
    assert sql("SELECT count(*) FROM names WHERE name = 'small'") == [(1,)]
    assert sql("SELECT count(DISTINCT price_id), count(DISTINCT model) FROM usage") == [(2, 1)]


async def test_known_words_and_prices_are_not_asked_for_again(store: Store, make: Make) -> None:
    await put(store, make(1))
    traced: list[str] = []
    await store.database.connection.set_trace_callback(traced.append)
    await put(store, make(2))
    assert any("INSERT INTO usage" in sql for sql in traced)
    assert not [sql for sql in traced if "names" in sql or "prices" in sql]


async def test_words_of_a_failed_transaction_are_not_believed(
    store: Store, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    real = store.database._run
    failures = [sqlite3.OperationalError("database or disk is full")]

    async def run(sql: str, parameters: Any = ()) -> None:
        if sql == "COMMIT" and failures:
            raise failures.pop()
        await real(sql, parameters)

    monkeypatch.setattr(store.database, "_run", run)
    await put(store, make(1, model="first"))
    await put(store, make(2, model="second"))
    assert [row.model for row in await store.usage.rows()] == ["second", "first"]


@pytest.mark.promise("U-09")
async def test_numbers_are_bounded_and_text_is_made_storable(store: Store, make: Make) -> None:
    row = make(1, cost=10**30, usage=Usage(input=2**70, output=-(2**70)), model="x" * 5000, target_model="a\udcffb")
    await put(store, row, make(2))
    stored = await store.usage.row(row.request_id)
    assert stored is not None
    assert (stored.cost, stored.usage) == (LARGEST, Usage(input=LARGEST, output=-LARGEST))
    assert stored.model == "x" * 200
    assert stored.target_model == "a?b"
    assert store.usage.writer.dropped == 0
    (total,) = await store.usage.report("model", model="x" * 5000)
    assert total.requests == 1


@pytest.mark.promise("U-09")
async def test_sums_never_overflow(store: Store, make: Make) -> None:
    await put(store, *(make(number, cost=10**30, usage=Usage(input=2**70)) for number in range(3000)))
    (row,) = await store.usage.report("model")
    assert row.cost == 3000 * LARGEST


async def test_a_row_that_cannot_be_stored_is_dropped_alone(store: Store, make: Make) -> None:
    bad = make(2, status="no number")
    await put(store, make(1), bad, make(3))
    assert len(await store.usage.rows()) == 2
    assert store.usage.writer.dropped == 1


async def fill(store: Store, make: Make) -> None:
    one, _ = await store.keys.create("one")
    two, _ = await store.keys.create("two")
    rows = [
        make(0, key_id=one.id, at=0, model="a", cost=100, usage=Usage(input=10, output=1, cache_read=4, reasoning=1)),
        make(1, key_id=one.id, at=DAY - 1, model="b", cost=50, usage=Usage(input=20, output=2)),
        make(2, key_id=two.id, at=DAY, model="a", cost=None, price=None, usage=Usage(input=40, output=4)),
        make(3, key_id=two.id, at=DAY + 1, model="a", cost=None, price=None, usage=None, outcome="upstream_error",
             status=502),
        make(4, key_id=two.id, at=2 * DAY, model=None, cost=None, price=None, usage=None, outcome="rejected",
             status=404, upstream=None),
        make(5, key_id=None, at=2 * DAY, model="a", cost=7, usage=Usage(input=80), outcome="client_abort"),
    ]  # fmt: skip
    await put(store, *rows)


async def test_reports_add_up_by_model(store: Store, make: Make) -> None:
    await fill(store, make)
    rows = {row.group["model"]: row for row in await store.usage.report("model")}
    assert set(rows) == {"a", "b", None}
    a = rows["a"]
    assert (a.requests, a.ok, a.aborted, a.errors) == (4, 2, 1, 1)
    assert (a.input, a.output, a.cache_read, a.reasoning) == (130, 5, 4, 1)
    assert (a.cost, a.unpriced) == (107, 1)
    assert (rows[None].errors, rows[None].unpriced) == (1, 0)


async def test_reports_add_up_by_key_with_names(store: Store, make: Make) -> None:
    await fill(store, make)
    rows = await store.usage.report("key")
    assert [(row.group["key"], row.key_id, row.requests, row.cost) for row in rows] == [
        ("one", 1, 2, 150),
        (None, None, 1, 7),
        ("two", 2, 3, 0),
    ]


async def test_reports_by_day_go_from_first_to_last(store: Store, make: Make) -> None:
    await fill(store, make)
    rows = await store.usage.report("day")
    assert [(row.group["day"], row.requests) for row in rows] == [
        ("1970-01-01", 2),
        ("1970-01-02", 2),
        ("1970-01-03", 2),
    ]


async def test_reports_by_several_groups(store: Store, make: Make) -> None:
    await fill(store, make)
    rows = await store.usage.report(["day", "key"], until=2 * DAY)
    assert [tuple(row.group.values()) for row in rows] == [("1970-01-01", "one"), ("1970-01-02", "two")]
    assert rows[1].to_dict()["key_id"] == 2


@pytest.mark.parametrize("by", sorted(GROUPS))
async def test_every_group_counts_every_row_once(store: Store, make: Make, by: str) -> None:
    await fill(store, make)
    rows = await store.usage.report(by)
    assert sum(row.requests for row in rows) == 6
    assert sum(row.cost for row in rows) == 157


async def test_reports_can_be_narrowed_down(store: Store, make: Make) -> None:
    await fill(store, make)

    async def requests(**chosen: Any) -> int:
        return sum(row.requests for row in await store.usage.report("model", **chosen))

    assert await requests(since=DAY) == 4
    assert await requests(until=DAY) == 2
    assert await requests(since=DAY, until=2 * DAY) == 2
    assert await requests(key_id=1) == 2
    assert await requests(model="a") == 4
    assert await requests(model="a", key_id=1) == 1
    assert await requests(model="no such model") == 0
    assert await requests(model="' OR 1=1 --") == 0
    assert await requests(since=10**18) == 0


@pytest.mark.parametrize(
    "by", ["", "password", "usage.key_id; DROP TABLE keys", "Key", ["model", "x"], [], ["day", "day"]]
)
async def test_unknown_groups_are_refused_before_any_sql(store: Store, by: str | list[str]) -> None:
    traced: list[str] = []
    await store.database.reader._connection.set_trace_callback(traced.append)
    with pytest.raises(StoreError, match=r"cannot be grouped by .*: choose from key, model|each group once"):
        await store.usage.report(by)
    assert traced == []


async def test_absurd_filters_are_one_clear_error(store: Store) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        await store.usage.report("model", since=2**80)


async def test_rows_come_newest_first_in_pages(store: Store, make: Make) -> None:
    await put(store, *(make(number, at=1000 - number, key_id=number % 2) for number in range(25)))
    first = await store.usage.rows(10)
    assert [row.request_id for row in first] == [make(number).request_id for number in range(24, 14, -1)]
    second = await store.usage.rows(10, before=first[-1].id)
    assert [row.request_id for row in second] == [make(number).request_id for number in range(14, 4, -1)]
    assert len(await store.usage.rows(10**9, key_id=1)) == 12
    assert await store.usage.rows(-5) == []


async def test_rows_asked_for_are_bounded(store: Store, make: Make) -> None:
    await put(store, *(make(number) for number in range(1500)))
    assert len(await store.usage.rows(10**9)) == 1000


async def test_a_request_id_used_twice_gives_the_last_row(store: Store, make: Make) -> None:
    await put(store, make(1, status=500), make(1, status=200))
    row = await store.usage.row(make(1).request_id)
    assert row is not None
    assert row.status == 200


@pytest.mark.parametrize(
    ("request_id", "size"),
    [
        ("req_" + "0123456789abcdef" * 2, 17),
        ("0123456789abcdef" * 2, 17),
        ("req-" + "ab" * 12, 13),
        ("0f8fad5b-d9cb-469f-a165-70867728950e", 17),
        ("req_0f8fad5b-d9cb-469f-a165-70867728950e", 17),
        ("chatcmpl-" + "ab" * 16, 17),
        ("REQ_" + "AB" * 8, 20),
        ("0F8FAD5B-D9CB-469F-A165-70867728950E", 36),
        ("abc", 3),
        ("ab12", 4),
        ("abcdef123", 9),
        ("", 0),
        ("from a client: ünïcode", 22),
        ("0f8fad5b-d9cb-469f-a165-708677289-0e", 36),
    ],
)
def test_request_ids_are_stored_short_and_read_whole(request_id: str, size: int) -> None:
    packed = pack(request_id)
    assert len(packed) == size
    assert unpack(packed) == request_id


async def test_a_row_is_found_without_reading_the_table(store: Store, make: Make) -> None:
    plan = await store.database.reader.fetch(
        "EXPLAIN QUERY PLAN SELECT * FROM usage WHERE substr(usage.request_id, -4) = substr(?1, -4)", (b"abcd",)
    )
    assert "USING INDEX usage_request" in str(plan)
    plan = await store.database.reader.fetch("EXPLAIN QUERY PLAN SELECT * FROM usage WHERE usage.key_id = 1 AND at > 5")
    assert "USING INDEX usage_key_at" in str(plan)


async def test_last_use_is_coarse_and_never_goes_back(store: Store, make: Make) -> None:
    key, _ = await store.keys.create("one")

    async def used(at: int) -> int | None:
        await put(store, make(at % 1000, key_id=key.id, at=at))
        return (await store.keys.find("one")).last_used_at

    assert await used(1_000_000) == 1_000_000
    assert await used(1_000_500) == 1_000_000, "less than a minute later"
    assert await used(1_060_000) == 1_060_000
    assert await used(500_000) == 1_060_000
