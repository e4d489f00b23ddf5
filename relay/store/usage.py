"""Usage rows: one for each request that was authenticated, and the reports made of them.

Rows are small, about 120 bytes with their indexes: words and prices are stored once and named by number.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import aiosqlite

from relay.ir import Usage
from relay.pricing import Price, Rates, Tier
from relay.store.database import Database, StoreError
from relay.store.inserts import NOTHING, SIZES, Inserts
from relay.store.journal import Journal, Outcome, UsageSource
from relay.store.keys import now_ms
from relay.store.words import pack, storable, unpack
from relay.store.writer import Writer

__all__ = ["GROUPS", "Outcome", "ReportRow", "UsageRow", "UsageSource", "UsageTable"]

LARGEST = 10**14
"""Counts and costs above this are stored as this: no real call gets near, and sums stay within 64 bits."""
REMEMBERED = 20_000
"""Words whose numbers are kept in memory."""
MOST = 1000
"""Rows that one query gives."""
MINUTE = 60_000


class UsageRow(NamedTuple):
    """How one request went. None means that it is not known, or does not apply."""

    request_id: str
    at: int
    """When the request came, in Unix milliseconds."""
    key_id: int | None
    operation: str
    model: str | None
    """The name that the caller asked for; None if no target serves it, so that callers cannot fill the table."""
    upstream: str | None = None
    target_model: str | None = None
    family: str | None = None
    dialect: str | None = None
    stream: bool = False
    status: int = 200
    """The HTTP status that the caller saw."""
    outcome: Outcome = "ok"
    usage_source: UsageSource = "none"
    usage: Usage | None = None
    """Its `raw` is not stored."""
    price: Price | None = None
    cost: int | None = None
    """Nano-dollars; None: there was no price."""
    first_byte_ms: int | None = None
    duration_ms: int = 0
    attempts: int = 0
    error_code: str | None = None
    tools: Literal["valid", "invalid"] | None = None
    """Whether the tool calls in the answer fit their schemas; None: there were none, or it was not checked."""
    place: int = -1
    """Where the journal has the call; -1: it has not. Not stored."""
    id: int = 0
    """The row's number in the store, set when it is read; later rows have higher ones."""

    def to_dict(self) -> dict[str, Any]:
        """The row for JSON: every field, in plain types."""
        values = {name: getattr(self, name) for name in _ROW_FIELDS}
        if self.usage is not None:
            values["usage"] = {name: getattr(self.usage, name) for name in COUNTS}
        if self.price is not None:
            values["price"] = asdict(self.price)
        return values


_ROW_FIELDS = tuple(name for name in UsageRow._fields if name != "place")

COUNTS = (
    "input",
    "output",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "reasoning",
    "audio_in",
    "audio_out",
)
WORDS = (
    "operation",
    "model",
    "upstream",
    "target_model",
    "family",
    "dialect",
    "outcome",
    "usage_source",
    "error_code",
    "tools",
)
PLAIN = ("at", "key_id", "stream", "status", "cost", "first_byte_ms", "duration_ms", "attempts")
COLUMNS = ("request_id", *PLAIN, *WORDS, *COUNTS, "price_id")

NO_WORD: Mapping[str | None, int] = MappingProxyType({None: NOTHING})
ALWAYS = frozenset(("request_id", "at", "stream", "status", "outcome", "usage_source", "duration_ms", "attempts"))
"""Columns that are never NULL."""
SELECT = (
    f"SELECT usage.id, usage.request_id, {', '.join(f'usage.{column}' for column in PLAIN)},"  # noqa: S608 - constants
    f" {', '.join(f'(SELECT name FROM names WHERE names.id = usage.{column})' for column in WORDS)},"  # noqa: S608
    f" {', '.join(f'usage.{column}' for column in COUNTS)},"
    " (SELECT price FROM prices WHERE prices.id = usage.price_id) FROM usage"
)

MOST_GROUPS = 10_000
"""Groups in one report."""
GROUPS: Mapping[str, str] = {
    "key": "usage.key_id",
    "model": "usage.model",
    "upstream": "usage.upstream",
    "target": "usage.target_model",
    "family": "usage.family",
    "dialect": "usage.dialect",
    "operation": "usage.operation",
    "outcome": "usage.outcome",
    "source": "usage.usage_source",
    "error": "usage.error_code",
    "day": "date(usage.at / 1000, 'unixepoch')",
    "month": "strftime('%Y-%m', usage.at / 1000, 'unixepoch')",
    "hour": "strftime('%Y-%m-%d %H:00', usage.at / 1000, 'unixepoch')",
}
"""What reports can be grouped by, and the column. Days are UTC."""
_PLAIN_GROUPS = {"key", "day", "month", "hour"}

TOTALS = """
    count(*),
    sum(usage.outcome IS (SELECT id FROM names WHERE name = 'ok')),
    sum(usage.outcome IS (SELECT id FROM names WHERE name = 'client_abort')),
    sum(coalesce(usage.input, 0)),
    sum(coalesce(usage.output, 0)),
    sum(coalesce(usage.cache_read, 0)),
    sum(coalesce(usage.reasoning, 0)),
    sum(coalesce(usage.cost, 0)),
    sum(usage.cost IS NULL AND coalesce(usage.input, 0) + coalesce(usage.output, 0) > 0)
"""
HOURS = """
    sum(usage.requests),
    sum(usage.requests * (usage.outcome IS (SELECT id FROM names WHERE name = 'ok'))),
    sum(usage.requests * (usage.outcome IS (SELECT id FROM names WHERE name = 'client_abort'))),
    sum(usage.input),
    sum(usage.output),
    sum(usage.cache_read),
    sum(usage.reasoning),
    sum(usage.cost),
    sum(usage.unpriced)
"""
"""The same of rows that were added up."""


@dataclass(frozen=True, slots=True)
class ReportRow:
    """Sums of one group. Tokens that were not reported count as none; so do costs of calls without a price."""

    group: dict[str, str | None]
    """The group's value for each name that was asked for. Keys are shown by name."""
    key_id: int | None
    """The key, where the report is by key: names of revoked keys may be taken again."""
    requests: int
    ok: int
    aborted: int
    """Requests whose caller left before the end."""
    errors: int
    """All the other ones: refused here, or failed upstream."""
    input: int
    output: int
    cache_read: int
    reasoning: int
    cost: int
    """Nano-dollars."""
    unpriced: int
    """Requests that used tokens and had no price: their cost is missing from the sum."""

    def to_dict(self) -> dict[str, Any]:
        """The row for JSON."""
        values: dict[str, Any] = dict(self.group)
        if "key" in self.group:
            values["key_id"] = self.key_id
        return values | {name: getattr(self, name) for name in SUMS}


SUMS = ("requests", "ok", "aborted", "errors", "input", "output", "cache_read", "reasoning", "cost", "unpriced")


@dataclass(slots=True)
class _Filter:
    conditions: list[str] = field(default_factory=list)
    parameters: list[Any] = field(default_factory=list)

    def add(self, condition: str, value: Any) -> None:
        if value is not None:
            self.conditions.append(condition)
            self.parameters.append(value)

    @property
    def sql(self) -> str:
        return "WHERE " + " AND ".join(self.conditions) if self.conditions else ""


def _filter(since: int | None, until: int | None, key_id: int | None, model: str | None) -> _Filter:
    chosen = _Filter()
    chosen.add("usage.at >= ?", since)
    chosen.add("usage.at < ?", until)
    chosen.add("usage.key_id = ?", key_id)
    chosen.add("usage.model = (SELECT id FROM names WHERE name = ?)", None if model is None else storable(model))
    return chosen


class UsageTable:
    """The usage rows: `put` on the serving side, reports and look-ups on the other.

    Reading raises StoreError.
    """

    def __init__(self, database: Database, *, capacity: int | None = None, journal: Journal | None = None) -> None:
        self._database = database
        self.journal = journal
        self.writer: Writer[UsageRow] = Writer(self._store, **({} if capacity is None else {"capacity": capacity}))
        """The queue to the disk; it knows how many rows wait and how many were lost."""
        self._inserts = Inserts("usage", COLUMNS, ALWAYS)
        self._compiled = False
        self._words: dict[str | None, int] = dict(NO_WORD)
        self._prices: dict[Price, int] = {}
        self._numbers: dict[int, tuple[Price, int]] = {}
        """Numbers of prices by the identity of an object that is kept here, too: to hash one costs as much as a row."""
        self._used: dict[int, int] = {}

    def put(self, row: UsageRow) -> None:
        """Store a row soon. Never waits and never fails; see `writer` for what becomes of it."""
        self.writer.put(row)

    async def flush(self, within: float | None = None) -> bool:
        """Wait until what was put before is stored. False if `within`, in seconds, ran out first."""
        return await self.writer.flush(within)

    async def close(self, within: float = 10.0) -> None:
        """Store what waits and stop taking rows."""
        await self.writer.close(within)

    async def _store(self, rows: Sequence[UsageRow]) -> None:
        """One transaction for all these rows, their words and prices, and when their keys were last used."""
        words: dict[str, int] = {}
        prices: dict[Price, int] = {}
        numbers: dict[int, tuple[Price, int]] = {}
        used = self._last_used(rows)

        try:
            # Nearly every batch holds no word and no price that was not seen before.
            values = _values(rows, self._words, self._numbers)
        except KeyError:
            values = None

        async def work(connection: aiosqlite.Connection) -> None:
            nonlocal values
            if values is None:
                words.update(await self._intern(connection, rows))
                prices.update(await self._intern_prices(connection, rows))
                known = self._prices | prices
                numbers.update({id(price): (price, known[price]) for row in rows if (price := row.price) is not None})
                known_words = dict(self._words)
                known_words.update(words)
                values = _values(rows, known_words, numbers)
            most = SIZES[-1] * self._inserts.width
            for start in range(0, len(values), most):
                await connection.execute_fetchall(*self._inserts.of(values[start : start + most]))
            if used:
                sql = "UPDATE keys SET last_used_at = ?2 WHERE id = ?1 AND coalesce(last_used_at, 0) < ?2"
                async with connection.executemany(sql, list(used.items())):
                    pass

        if not self._compiled:
            # All of them, while there is nothing else to do yet: later it would be done in the middle of calls.
            for statement, nothing in self._inserts.empty():
                await self._database.run(statement, nothing)
            self._compiled = True
        if values is not None and len(rows) <= SIZES[-1] and not used:
            await self._database.run(*self._inserts.of(values))
        else:
            await self._database.write(work)
        if self.journal is not None:
            self.journal.stored(rows)
        # Only now: a transaction that was rolled back takes its numbers with it.
        _remember(self._words, words, NO_WORD)
        _remember(self._prices, prices)
        _remember(self._numbers, numbers)
        _remember(self._used, used)

    async def restore(self, rows: Iterable[UsageRow]) -> None:
        """Store those of these rows that are not there. Raises StoreError or sqlite3.Error."""
        missing = [row for row in rows if await self.row(row.request_id) is None]
        for start in range(0, len(missing), MOST):
            await self._store(missing[start : start + MOST])

    def _last_used(self, rows: Iterable[UsageRow]) -> dict[int, int]:
        """Keys whose time of use is worth writing: it moved by a minute since the last time."""
        used: dict[int, int] = {}
        for row in rows:
            if row.key_id is not None and row.at >= self._used.get(row.key_id, 0) + MINUTE:
                used[row.key_id] = max(row.at, used.get(row.key_id, 0))
        return used

    async def _intern(self, connection: aiosqlite.Connection, rows: Iterable[UsageRow]) -> dict[str, int]:
        known = self._words
        missing = {
            word for row in rows for name in WORDS if (word := getattr(row, name)) is not None and word not in known
        }
        if not missing:
            return {}
        stored = {text: storable(text) for text in missing}
        async with connection.executemany(
            "INSERT INTO names (name) VALUES (?) ON CONFLICT DO NOTHING", [(word,) for word in set(stored.values())]
        ):
            pass
        rows_found = await connection.execute_fetchall(
            "SELECT name, id FROM names WHERE name IN (SELECT value FROM json_each(?))",
            (json.dumps(sorted(set(stored.values()))),),
        )
        found: dict[str, int] = {row[0]: row[1] for row in rows_found}
        return {word: found[name] for word, name in stored.items()}

    async def _intern_prices(self, connection: aiosqlite.Connection, rows: Iterable[UsageRow]) -> dict[Price, int]:
        found: dict[Price, int] = {}
        for price in {row.price for row in rows if row.price is not None} - self._prices.keys():
            text = json.dumps(asdict(price), sort_keys=True, separators=(",", ":"))
            mark = hashlib.sha256(text.encode()).digest()[:16]
            async with connection.execute(
                "INSERT INTO prices (digest, price, source, created_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (mark, text, price.source, now_ms()),
            ):
                pass
            ((number,),) = await connection.execute_fetchall("SELECT id FROM prices WHERE digest = ?", (mark,))
            found[price] = number
        return found

    async def report(
        self,
        by: str | Sequence[str],
        *,
        since: int | None = None,
        until: int | None = None,
        key_id: int | None = None,
        model: str | None = None,
    ) -> list[ReportRow]:
        """Sums per group, by one or several names of `GROUPS`; times go first to last, all else by cost.

        `since` and `until` are Unix milliseconds, the second one exclusive. Rows that were added up count with the
        beginning of their hour. Raises StoreError for what cannot be grouped, and for more than `MOST_GROUPS` groups.
        """
        names = (by,) if isinstance(by, str) else tuple(by)
        for name in names:
            if name not in GROUPS:
                raise StoreError(f"usage cannot be grouped by {name!r}: choose from {', '.join(GROUPS)}")
        if not names or len(set(names)) < len(names):
            raise StoreError("give each group once, and at least one")
        chosen = _filter(since, until, key_id, model)
        groups = ", ".join(GROUPS[name] for name in names)
        places = ", ".join(str(index + 1) for index in range(len(names)))
        found = await self._fetch(
            f"SELECT {groups}, {TOTALS} FROM usage {chosen.sql} GROUP BY {places}"  # noqa: S608 - from tables of constants
            f" UNION ALL SELECT {groups}, {HOURS} FROM hours AS usage {chosen.sql} GROUP BY {places} LIMIT ?",
            [*chosen.parameters, *chosen.parameters, 2 * MOST_GROUPS + 1],
        )
        merged: dict[tuple[Any, ...], list[int]] = {}
        for row in found:
            # Errors are not summed up: they are what is left of the others.
            known = merged.setdefault(row[: len(names)], [0] * (len(SUMS) - 1))
            known[:] = [old + new for old, new in zip(known, row[len(names) :], strict=True)]
        if len(found) > 2 * MOST_GROUPS or len(merged) > MOST_GROUPS:
            # A part of them would be sums that nobody could trust.
            raise StoreError(
                f"that is more than {MOST_GROUPS:,} groups: ask for a shorter time, or by fewer names at once"
            )
        rows = [(*key, *added) for key, added in merged.items()]
        labels = await self._labels(names, rows)
        result = []
        for row in rows:
            head, (requests, ok, aborted, *sums) = row[: len(names)], row[len(names) :]
            group = {name: labels[name].get(value) for name, value in zip(names, head, strict=True)}
            number = head[names.index("key")] if "key" in names else None
            result.append(ReportRow(group, number, requests, ok, aborted, requests - ok - aborted, *sums))
        times = [name for name in names if name in ("day", "month", "hour")]
        result.sort(key=lambda row: ([row.group[name] or "" for name in times], -row.cost, -row.requests))
        return result

    async def _labels(self, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, dict[Any, str | None]]:
        """For each group, what its stored values are called."""
        labels: dict[str, dict[Any, str | None]] = {}
        for index, name in enumerate(names):
            values = {row[index] for row in rows if row[index] is not None}
            if name in _PLAIN_GROUPS and name != "key":
                labels[name] = {value: value for value in values}
                continue
            table = "keys" if name == "key" else "names"
            found = await self._fetch(
                f"SELECT id, name FROM {table} WHERE id IN (SELECT value FROM json_each(?))",  # noqa: S608 - one of two
                (json.dumps(sorted(values)),),
            )
            labels[name] = dict(found)
        return labels

    async def rows(
        self,
        limit: int = 50,
        *,
        before: int | None = None,
        since: int | None = None,
        until: int | None = None,
        key_id: int | None = None,
        model: str | None = None,
    ) -> list[UsageRow]:
        """The latest rows, newest first; `before` is the `id` of the last row of the page before. At most 1000."""
        chosen = _filter(since, until, key_id, model)
        chosen.add("usage.id < ?", before)
        sql = f"{SELECT} {chosen.sql} ORDER BY usage.id DESC LIMIT ?"
        return [_row(row) for row in await self._fetch(sql, [*chosen.parameters, max(0, min(limit, MOST))])]

    async def row(self, request_id: str) -> UsageRow | None:
        """The row of one request; the last one, should there be several."""
        mark = pack(request_id)
        found = await self._fetch(
            f"{SELECT} WHERE substr(usage.request_id, -4) = substr(?1, -4) AND usage.request_id = ?1"
            " ORDER BY usage.id DESC LIMIT 1",
            (mark,),
        )
        return _row(found[0]) if found else None

    async def _fetch(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        try:
            return await self._database.reader.fetch(sql, parameters)
        except (sqlite3.Error, OverflowError) as error:
            raise StoreError(f"the usage rows cannot be read: {error}") from error


def _remember(cache: dict[Any, Any], new: Mapping[Any, Any], always: Mapping[Any, Any] = MappingProxyType({})) -> None:
    if len(cache) + len(new) > REMEMBERED:
        cache.clear()
        cache.update(always)
    cache.update(new)


def _bounded(value: int) -> int:
    return max(-LARGEST, min(int(value), LARGEST))


_NO_USAGE = Usage()


def _values(
    rows: Iterable[UsageRow], words: Mapping[str | None, int], prices: Mapping[int, tuple[Price, int]]
) -> list[Any]:
    """Rows as they are stored, one behind the other, with `NOTHING` for None.

    Written out, in the order of COLUMNS: this is the only loop here that runs for every request. Raises KeyError for a
    word or a price that has no number yet.
    """
    values: list[Any] = []
    add, nothing = values.extend, NOTHING
    for row in rows:
        (
            request_id,
            at,
            key,
            operation,
            model,
            upstream,
            target,
            family,
            dialect,
            stream,
            status,
            outcome,
            source,
            usage,
            price,
            cost,
            first,
            duration,
            attempts,
            error,
            tools,
            _,
            _,
            # A plain tuple is taken apart in a tenth of the time.
        ) = row[:]
        if usage is None:
            usage = _NO_USAGE
        mark = pack(request_id)
        add(
            (
                # Bytes that cannot be changed are handed to SQLite in fifteen times as long.
                mark if isinstance(mark, str) else bytearray(mark),
                at,
                nothing if key is None else key,
                1 if stream else 0,
                status,
                nothing if cost is None else cost if -LARGEST < cost < LARGEST else _bounded(cost),
                nothing if first is None else first,
                duration,
                attempts,
                words[operation],
                words[model],
                words[upstream],
                words[target],
                words[family],
                words[dialect],
                words[outcome],
                words[source],
                words[error],
                words[tools],
                nothing if (n := usage.input) is None else n if -LARGEST < n < LARGEST else _bounded(n),
                nothing if (n := usage.output) is None else n if -LARGEST < n < LARGEST else _bounded(n),
                nothing if (n := usage.cache_read) is None else n if -LARGEST < n < LARGEST else _bounded(n),
                nothing if (n := usage.cache_write_5m) is None else n if -LARGEST < n < LARGEST else _bounded(n),
                nothing if (n := usage.cache_write_1h) is None else n if -LARGEST < n < LARGEST else _bounded(n),
                nothing if (n := usage.reasoning) is None else n if -LARGEST < n < LARGEST else _bounded(n),
                nothing if (n := usage.audio_in) is None else n if -LARGEST < n < LARGEST else _bounded(n),
                nothing if (n := usage.audio_out) is None else n if -LARGEST < n < LARGEST else _bounded(n),
                nothing if price is None else prices[id(price)][1],
            )
        )
    return values


def _row(values: Sequence[Any]) -> UsageRow:
    named = dict(zip(("id", *COLUMNS), values, strict=True))
    counts = {name: named.pop(name) for name in COUNTS}
    price = named.pop("price_id")
    named["request_id"] = unpack(named["request_id"])
    named["stream"] = bool(named["stream"])
    return UsageRow(
        **named,
        usage=Usage(**counts) if any(value is not None for value in counts.values()) else None,
        price=None if price is None else _price(json.loads(price)),
    )


def _price(data: Mapping[str, Any]) -> Price:
    return Price(
        rates=Rates(**data["rates"]),
        tiers=tuple(Tier(tier["above"], Rates(**tier["rates"])) for tier in data["tiers"]),
        request=data["request"],
        source=data["source"],
    )
