"""`relay usage`: what was used, by whom, and what it cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from relay.cli.database import database_option, json_option, with_store
from relay.cli.moment import PAST, shown
from relay.cli.options import fail
from relay.pricing import usd
from relay.table import csv_text, table

if TYPE_CHECKING:
    from relay.store import ReportRow, Store, UsageRow

__all__ = ["usage"]

SUMS: Final = ("requests", "ok", "aborted", "errors", "input", "output", "cache_read", "reasoning", "cost", "unpriced")
ROW_COLUMNS: Final = (
    "time",
    "request",
    "key",
    "model",
    "upstream",
    "status",
    "outcome",
    "input",
    "output",
    "cost",
    "ms",
    "error",
)


@click.command()
@click.option(
    "--by",
    default="model",
    show_default=True,
    help="Group by key, model, upstream, target, family, dialect, operation, outcome, source, error, hour, day or"
    " month; several with commas, as in `day,model`.",
)
@click.option("--since", type=PAST, help="From then on: 24h, 7d, 2026-11-01 (UTC).")
@click.option("--until", type=PAST, help="Up to then, exclusive.")
@click.option("--key", "which", help="Only this key: its id, its name, or how it begins.")
@click.option("--model", help="Only this model.")
@click.option("--last", type=click.IntRange(1, 1000), help="Show the last N requests instead of sums.")
@click.option("--request", "request_id", help="Show one request in full.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@json_option
@database_option
def usage(
    by: str,
    since: int | None,
    until: int | None,
    which: str | None,
    model: str | None,
    last: int | None,
    request_id: str | None,
    as_csv: bool,
    as_json: bool,
    db: Path | None,
) -> None:
    """Show what was used, by whom, and what it cost.

    Costs are what the calls cost at the prices of their time. Calls without a known price are counted as unpriced.
    """
    if as_csv and as_json:
        fail("--csv and --json contradict each other")
    if request_id is not None:
        if as_csv:
            fail("--request prints one request as text or JSON, not CSV")
        _request(db, request_id, as_json=as_json)
    elif last is not None:
        _last(db, last, (since, until, which, model), as_csv=as_csv, as_json=as_json)
    else:
        _sums(db, by, (since, until, which, model), as_csv=as_csv, as_json=as_json)


Chosen = tuple[int | None, int | None, str | None, str | None]


async def _filter(store: Store, chosen: Chosen) -> dict[str, Any]:
    since, until, which, model = chosen
    key_id = None if which is None else (await store.keys.find(which)).id
    return {"since": since, "until": until, "key_id": key_id, "model": model}


def _sums(db: Path | None, by: str, chosen: Chosen, *, as_csv: bool, as_json: bool) -> None:
    groups = [name.strip() for name in by.split(",")]

    async def work(store: Store) -> list[ReportRow]:
        return await store.usage.report(groups, **await _filter(store, chosen))

    rows = with_store(db, work)
    total = {name: sum(getattr(row, name) for row in rows) for name in SUMS}
    if as_json:
        _print_json({"by": groups, "rows": [_priced(row.to_dict()) for row in rows], "total": _priced(total)})
    elif as_csv:
        header = [*groups, *(name if name != "cost" else "cost_usd" for name in SUMS)]
        click.echo(csv_text(header, [_cells(groups, row, money=usd) for row in rows]), nl=False)
    else:
        header = [name.upper().replace("_", " ") for name in (*groups, *SUMS)]
        last = ["total", *[None] * (len(groups) - 1)]
        last += [_dollars(total[name]) if name == "cost" else str(total[name]) for name in SUMS]
        click.echo(table(header, [_cells(groups, row, money=_dollars) for row in rows], total=last))


def _cells(groups: Sequence[str], row: ReportRow, *, money: Any) -> list[Any]:
    sums = [money(row.cost) if name == "cost" else getattr(row, name) for name in SUMS]
    return [*(row.group[name] for name in groups), *sums]


def _priced(values: dict[str, Any]) -> dict[str, Any]:
    """Money for programs: exact, as a decimal string of dollars and as integer nano-dollars."""
    cost = values.pop("cost")
    return values | {"cost_usd": None if cost is None else usd(cost), "cost_nano_usd": cost}


def _dollars(nano: int | None) -> str | None:
    """Money for people: to a millionth of a dollar."""
    if nano is None:
        return None
    micro = (nano + 500) // 1000
    return f"${micro // 10**6:,}.{micro % 10**6:06d}"


async def _names(store: Store, rows: Sequence[UsageRow]) -> dict[int, str]:
    ids = {row.key_id for row in rows if row.key_id is not None}
    return {number: (await store.keys.find(number)).name for number in sorted(ids)}


def _last(db: Path | None, last: int, chosen: Chosen, *, as_csv: bool, as_json: bool) -> None:
    async def work(store: Store) -> tuple[list[UsageRow], dict[int, str]]:
        rows = await store.usage.rows(last, **await _filter(store, chosen))
        return rows, await _names(store, rows)

    rows, names = with_store(db, work)
    if as_json:
        _print_json([_dict(row, names) for row in rows])
    elif as_csv:
        header = [name if name != "cost" else "cost_usd" for name in ROW_COLUMNS]
        click.echo(csv_text(header, [_line(row, names, money=_exact) for row in rows]), nl=False)
    else:
        header = [name.upper() for name in ROW_COLUMNS]
        click.echo(table(header, [_line(row, names, money=_dollars) for row in rows]))


def _exact(nano: int | None) -> str | None:
    return None if nano is None else usd(nano)


def _line(row: UsageRow, names: dict[int, str], *, money: Any) -> list[Any]:
    return [
        shown(row.at, seconds=True),
        row.request_id,
        None if row.key_id is None else names[row.key_id],
        row.model,
        row.upstream,
        row.status,
        row.outcome,
        None if row.usage is None else row.usage.input,
        None if row.usage is None else row.usage.output,
        money(row.cost),
        row.duration_ms,
        row.error_code,
    ]


def _dict(row: UsageRow, names: dict[int, str]) -> dict[str, Any]:
    return {"key": None if row.key_id is None else names[row.key_id], **_priced(row.to_dict())}


def _request(db: Path | None, request_id: str, *, as_json: bool) -> None:
    async def work(store: Store) -> tuple[UsageRow | None, dict[int, str]]:
        row = await store.usage.row(request_id)
        return row, await _names(store, [row]) if row is not None else {}

    row, names = with_store(db, work)
    if row is None:
        fail(f"there is no request {request_id!r}")
    values = _dict(row, names)
    if as_json:
        _print_json(values)
        return
    values["at"] = shown(row.at, seconds=True)
    del values["cost_nano_usd"]
    lines: list[tuple[str, str | None]] = []
    for name, value in values.items():
        parts = value.items() if isinstance(value, dict) and name == "usage" else [("", value)]
        lines += [(f"{name} {part}".strip(), _text(item)) for part, item in parts]
    click.echo(table(("FIELD", "VALUE"), lines))


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
