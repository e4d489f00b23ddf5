from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from relay.ir import Usage
from relay.pricing import Price, Rates
from relay.store import Store, UsageRow
from relay.store.keys import now_ms

Run = Callable[..., Result]
PRICE = Price(Rates(input=10**9, output=2 * 10**9), source="test")
DAY = 86_400_000


@pytest.fixture
def filled(db: Path) -> Path:
    """Two keys, three models, one of them with a name that wants to be a formula, over ten days."""

    def row(number: int, key: int, model: str, **changes: object) -> UsageRow:
        values: dict[str, object] = {
            "request_id": f"req_{number:032x}",
            "at": now_ms() - number * DAY - 1000,
            "key_id": key,
            "operation": "generate",
            "model": model,
            "upstream": "one",
            "usage": Usage(input=1000 * (number + 1), output=100, cache_read=10, reasoning=5),
            "usage_source": "provider",
            "price": PRICE,
            "cost": 1_000_000 + number,
            "duration_ms": 1234,
            "attempts": 1,
        }
        return UsageRow(**values | changes)  # type: ignore[arg-type] - of the same names

    async def fill() -> None:
        async with await Store.open(db) as store:
            one, _ = await store.keys.create("one")
            two, _ = await store.keys.create("@two")
            store.usage.put(row(9, one.id, "a"))
            store.usage.put(row(8, one.id, "a", cost=None, price=None))
            store.usage.put(row(1, two.id, "=cmd|'/C calc'!A0", cost=2_500_000_000))
            store.usage.put(
                row(0, two.id, "b", status=502, outcome="upstream_error", error_code="upstream_error", usage=None)
            )

    asyncio.run(fill())
    return db


def test_sums_are_a_table_with_a_total(run: Run, filled: Path) -> None:
    lines = run("usage").stdout.splitlines()
    assert lines[0].split() == [
        "MODEL", "REQUESTS", "OK", "ABORTED", "ERRORS", "INPUT", "OUTPUT", "CACHE", "READ", "REASONING", "COST",
        "UNPRICED",
    ]  # fmt: skip
    assert lines[2].split("  ")[0] == "=cmd|'/C calc'!A0"
    assert ["a", "2", "2", "0", "0", "19000", "200", "20", "10", "$0.001000", "1"] in [line.split() for line in lines]
    assert lines[-1].split() == ["total", "4", "3", "0", "1", "21000", "300", "30", "15", "$2.502000", "1"]
    assert len({len(line) for line in lines}) == 1, "every line ends in the same column"


def test_sums_for_programs_are_exact(run: Run, filled: Path) -> None:
    data = json.loads(run("usage", "--by", "key,model", "--json").stdout)
    assert data["by"] == ["key", "model"]
    assert data["total"]["cost_nano_usd"] == 1_000_009 + 2_500_000_000 + 1_000_000
    assert data["total"]["cost_usd"] == "2.502000009"
    assert {(row["key"], row["key_id"], row["model"]) for row in data["rows"]} == {
        ("one", 1, "a"),
        ("@two", 2, "=cmd|'/C calc'!A0"),
        ("@two", 2, "b"),
    }


@pytest.mark.promise("D-07")
def test_csv_runs_nothing_in_a_spreadsheet(run: Run, filled: Path) -> None:
    header, *rows = csv.reader(io.StringIO(run("usage", "--by", "key,model", "--csv").stdout))
    assert header[:3] == ["key", "model", "requests"]
    assert "cost_usd" in header
    assert len(rows) == 3, "no total line among the data"
    assert rows[0][:2] == ["'@two", "'=cmd|'/C calc'!A0"]
    assert rows[0][header.index("cost_usd")] == "2.5"
    header, *rows = csv.reader(io.StringIO(run("usage", "--last", "2", "--csv").stdout))
    assert [row[header.index("model")] for row in rows] == ["b", "'=cmd|'/C calc'!A0"]


def test_times_keys_and_models_narrow_it_down(run: Run, filled: Path) -> None:
    def requests(*arguments: str) -> int:
        return int(json.loads(run("usage", "--json", *arguments).stdout)["total"]["requests"])

    assert requests() == 4
    assert requests("--since", "5d") == 2
    assert requests("--until", "5d") == 2
    assert requests("--since", "2020-01-01", "--until", "2020-02-01T10:00") == 0
    assert requests("--key", "one") == 2
    assert requests("--key", "2", "--model", "b") == 1
    assert requests("--model", "nothing") == 0


def test_days_are_in_order(run: Run, filled: Path) -> None:
    rows = json.loads(run("usage", "--by", "day", "--json").stdout)["rows"]
    days = [row["day"] for row in rows]
    assert days == sorted(days)
    assert len(days) == 4


def test_the_last_requests_are_shown_newest_first(run: Run, filled: Path) -> None:
    lines = run("usage", "--last", "3").stdout.splitlines()
    assert lines[0].split()[:4] == ["TIME", "REQUEST", "KEY", "MODEL"]
    assert [line.split()[2] for line in lines[2:]] == [f"req_{number:032x}" for number in (0, 1, 8)]
    assert "502" in lines[2]
    assert "upstream_error" in lines[2]
    rows = json.loads(run("usage", "--last", "50", "--key", "one", "--json").stdout)
    assert [(row["key"], row["cost_usd"]) for row in rows] == [("one", None), ("one", "0.001000009")]


def test_one_request_is_shown_in_full(run: Run, filled: Path) -> None:
    request = f"req_{9:032x}"
    data = json.loads(run("usage", "--request", request, "--json").stdout)
    assert data["usage"]["input"] == 10_000
    assert data["price"]["rates"]["output"] == 2 * 10**9
    assert data["cost_usd"] == "0.001000009"
    text = run("usage", "--request", request).stdout
    assert ["usage", "input", "10000"] in [line.split() for line in text.splitlines()]
    assert "$" not in text


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--by", "password"], 1, "cannot be grouped by 'password': choose from key, model"),
        (["--by", "model,model"], 1, "each group once"),
        (["--since", "yesterday"], 2, "is not a time"),
        (["--key", "nobody"], 1, "there is no key 'nobody'"),
        (["--last", "0"], 2, "0 is not in the range"),
        (["--request", "nothing"], 1, "there is no request 'nothing'"),
        (["--csv", "--json"], 1, "contradict"),
        (["--request", "x", "--csv"], 1, "not CSV"),
    ],
)
def test_mistakes_are_one_clear_line(run: Run, filled: Path, arguments: list[str], code: int, message: str) -> None:
    result = run("usage", *arguments, code=code)
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_without_a_database_it_says_so_and_makes_none(run: Run, db: Path) -> None:
    assert "there is no database at" in run("usage", code=1).stderr
    assert not db.exists()


def test_an_empty_database_is_an_empty_table(run: Run) -> None:
    run("keys", "create", "one")
    assert run("usage").stdout.splitlines()[-1].split()[:2] == ["total", "0"]
    assert run("usage", "--last", "5").stdout.splitlines()[0].startswith("TIME")
    assert json.loads(run("usage", "--json").stdout)["rows"] == []
