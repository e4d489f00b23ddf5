"""What is asked of the stored rows: whatever the words are, bounded; and right, whatever the clock did."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from relay.cli import commands
from relay.ir import Usage
from relay.store import GROUPS, Store, StoreError, UsageRow
from relay.store import usage as usage_module
from relay.store.upkeep import DAY, HOUR, Upkeep
from tests.core.store.conftest import make
from tests.flow.conftest import Start, openai_config
from tests.flow.fake import FakeUpstream

__all__ = ["make"]

Make = Callable[..., UsageRow]
NOW = 1_900_000_000_000
ODD = [
    "%" * 1000,
    "_" * 1000,
    "*" * 1000,
    "[a-z]*",
    "' OR 1=1 --",
    '" OR ""="',
    "'; DROP TABLE usage; --",
    "\\",
    "\x1b[2J\x07",
    "a\u0000b".replace("\u0000", "\u0001"),
    "\U0001f600" * 200,
    "\u202e\u200b",
    "9" * 400,
    "-1",
    "0x10",
    "NULL",
    "1 UNION SELECT digest FROM keys",
    "../../etc/passwd",
    "x" * 100_000,
]
"""Words that would be more than words somewhere."""


def filled(path: Path, make: Make) -> None:
    import asyncio

    async def fill() -> None:
        async with await Store.open(path) as store:
            await store.keys.create("one")
            await store.keys.create("100%")
            for number in range(300):
                store.usage.put(make(number, key_id=number % 2 + 1, model="a%" if number % 3 else "a_"))
            await store.usage.flush()

    asyncio.run(fill())


@pytest.mark.promise("S-09")
def test_no_word_on_the_command_line_is_more_than_a_word(tmp_path: Path, make: Make) -> None:
    path = tmp_path / "relay.db"
    filled(path, make)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(commands, ["usage", "--db", str(path), *arguments])

    def requests(*arguments: str) -> int:
        return int(json.loads(run(*arguments, "--json").stdout)["total"]["requests"])

    before = path.read_bytes()
    for word in ODD:
        # Nothing is a pattern: a model of that name was never asked.
        assert requests("--model", word) == 0, word
        for option in ("--key", "--by", "--since", "--until", "--request", "--last"):
            if option == "--last" and word == "9" * 400:
                continue
            result = run(option, word)
            assert result.exit_code in (1, 2), (option, word[:50], result.output)
            assert result.exception is None or isinstance(result.exception, SystemExit), (option, word[:50])
            assert "Traceback" not in result.output
            assert not any(ord(character) < 32 and character != "\n" for character in result.output), (option, word)
    assert requests("--model", "a%") == 200
    assert requests("--model", "a_") == 100
    assert requests("--key", "100%") == 150
    assert run("--key", "%").exit_code == 1
    assert run("--key", "_ne").exit_code == 1
    for number in ("0", "-5", "1001", "1000000000", str(2**63), "1e3", "all"):
        assert run("--last", number).exit_code == 2, number
    assert len(json.loads(run("--last", "1000", "--json").stdout)) == 300
    for time in ("99999999999d", "0000-00-00", "2026-13-01", "now", "-3d", "1e9s", "9999-12-31T23:59:60"):
        assert run("--since", time).exit_code == 2, time
    assert path.read_bytes() == before, "looking changes nothing"


@pytest.mark.promise("S-09")
async def test_what_is_asked_of_the_table_is_bounded(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await Store.open(tmp_path / "relay.db") as store:
        for number in range(1500):
            store.usage.put(make(number, at=NOW + number * HOUR, model=f"m{number % 7}"))
        await store.usage.flush()
        for limit, count in ((10**9, 1000), (2**63, 1000), (1000, 1000), (3, 3), (0, 0), (-1, 0), (-(10**9), 0)):
            assert len(await store.usage.rows(limit)) == count, limit
        assert await store.usage.rows(10, before=-5) == []
        for by in ("nothing", "usage.cost", "model; DROP TABLE usage", "1", "", "key,model", *ODD):
            with pytest.raises(StoreError, match="cannot be grouped"):
                await store.usage.report(by)
        for names in ((), ("model", "model"), ("model",) * 500):
            with pytest.raises(StoreError):
                await store.usage.report(names)
        with pytest.raises(StoreError):
            await store.usage.report("model", since=2**70)
        everything = await store.usage.report(tuple(GROUPS))
        assert sum(row.requests for row in everything) == 1500
        # A part of the groups would be sums that are not true.
        monkeypatch.setattr(usage_module, "MOST_GROUPS", 1000)
        with pytest.raises(StoreError, match="more than 1,000 groups: ask for a shorter time"):
            await store.usage.report(("hour", "model"))
        assert len(await store.usage.report("hour", until=NOW + 1000 * HOUR)) == 1000
        await Upkeep(store.database, 1).run(NOW + 4000 * HOUR)
        with pytest.raises(StoreError, match="groups"):
            await store.usage.report("hour")
        assert len(await store.usage.report("model")) == 7


@pytest.mark.promise("S-09")
async def test_no_word_in_a_path_or_a_query_is_more_than_a_word(start: Start, upstream: FakeUpstream) -> None:
    relay = await start(openai_config(upstream))
    anthropic = {"anthropic-version": "2023-06-01"}
    for word in ODD:
        word = word[:2000]
        for path in ("/v1/models/", "/v1/responses/", "/v1beta/models/"):
            async with relay.client.get(relay.url + path + "x", params={"q": word, "after": word}) as response:
                assert response.status == 404
            from urllib.parse import quote

            async with relay.client.get(relay.url + path + quote(word, safe="")) as response:
                body = await response.read()
                assert response.status in (400, 404), (path, word)
                assert b"Traceback" not in body
        for name in ("after_id", "before_id", "limit"):
            async with relay.client.get(f"{relay.url}/v1/models", params={name: word}, headers=anthropic) as response:
                assert response.status == 400, (name, word)
        for name in ("pageToken", "pageSize"):
            async with relay.client.get(f"{relay.url}/v1beta/models", params={name: word}) as response:
                assert response.status == 400, (name, word)
    for size in ("0", "-1", "1000000000", "1001", "1.5", "9" * 30):
        async with relay.client.get(f"{relay.url}/v1/models", params={"limit": size}, headers=anthropic) as response:
            assert response.status == 400, size
    assert len(upstream.seen) == 0


@pytest.mark.promise("S-12")
async def test_a_clock_that_goes_back_changes_neither_the_order_nor_the_sums(tmp_path: Path, make: Make) -> None:
    dice = random.Random(3)
    at, moments = NOW, []
    for number in range(2000):
        # A second on with each call; and now and then an hour back, or a day, and back again.
        at += 1000 + {50: -HOUR, 60: HOUR, 90: -2 * DAY, 95: 2 * DAY}.get(number % 100, 0)
        moments.append(at + dice.randrange(500))
    async with await Store.open(tmp_path / "relay.db") as store:
        key, _ = await store.keys.create("one")
        for number, moment in enumerate(moments):
            row = make(number, at=moment, key_id=key.id, cost=number, usage=Usage(number, 1), model=f"m{number % 3}")
            store.usage.put(row)
            if number % 300 == 0:
                await store.usage.flush()
        await store.usage.flush()
        # The latest are those that ended last, whatever the clock said, and pages join without gap or repetition.
        pages: list[UsageRow] = []
        while page := await store.usage.rows(700, before=pages[-1].id if pages else None):
            pages += page
        assert [row.cost for row in pages] == list(reversed(range(2000)))
        assert [row.id for row in pages] == sorted((row.id or 0 for row in pages), reverse=True)
        # Each row counts for its own time.
        for by, length in (("hour", HOUR), ("day", DAY)):
            report = await store.usage.report(by)
            expected: dict[int, int] = {}
            for number, moment in enumerate(moments):
                expected[moment // length] = expected.get(moment // length, 0) + number
            assert [row.cost for row in report] == [expected[place] for place in sorted(expected)], by
        for since in (NOW, NOW - DAY, NOW + HOUR, min(moments), max(moments)):
            chosen = [number for number, moment in enumerate(moments) if since <= moment < since + HOUR]
            rows = await store.usage.report("key", since=since, until=since + HOUR)
            assert sum(row.requests for row in rows) == len(chosen)
            assert sum(row.cost for row in rows) == sum(chosen)
        today = NOW - NOW % DAY
        spent = await store.spending.of(key.id, today + 1)
        assert spent.day == sum(number for number, moment in enumerate(moments) if today <= moment < today + DAY)
        assert spent.total == sum(range(2000))
        # Nor do sums of old rows lose or double any.
        before = [await store.usage.report(by) for by in ("hour", "day", "model", "key")]
        old = sum(moment < NOW - NOW % HOUR for moment in moments)
        assert 0 < old < 2000
        assert await Upkeep(store.database, 1).run(NOW - NOW % HOUR + DAY) == old
        assert [await store.usage.report(by) for by in ("hour", "day", "model", "key")] == before
        left: list[Any] = [row.cost for row in await store.usage.rows(1000)]
        assert left == sorted(left, reverse=True)
