"""`relay prices`: what the price file says."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from relay.kit import table, usd

if TYPE_CHECKING:
    from relay import Price
    from relay_prices.catalogue import Catalogue, Entry, Vendor

__all__ = ["prices"]

COLUMNS = ("VENDOR", "MODEL", "CONTEXT", "INPUT", "OUTPUT", "CACHE READ", "CACHE WRITE", "NOTE")

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
AT = click.option("--at", "day", type=click.DateTime(["%Y-%m-%d"]), help="Prices of that day (UTC) instead of today's.")


def _catalogue() -> Catalogue:
    from relay_prices.book import Book, PriceFileError

    try:
        return Book().need()
    except PriceFileError as error:
        raise click.ClickException(str(error)) from error


def _second(day: Any) -> int:
    from datetime import UTC

    return int(time.time()) if day is None else int(day.replace(tzinfo=UTC).timestamp())


def _vendor(catalogue: Catalogue, name: str) -> Vendor:
    vendor = catalogue.vendor(name, "")
    if vendor is None:
        raise click.ClickException(f"there is no vendor {name!r}: `relay prices info` names them all")
    return vendor


def _note(price: Price | None) -> str:
    if price is None:
        return "no price known"
    notes = [
        f"above {tier.above} tokens: {_rate(tier.rates.input)} / {_rate(tier.rates.output)}" for tier in price.tiers
    ]
    if price.request:
        notes.append(f"${usd(price.request)} a call")
    return "; ".join(notes)


def _rate(rate: int | None) -> str | None:
    return None if rate is None else f"${usd(rate)}"


def _print(found: Sequence[tuple[Vendor, Entry]], at: int, source: str, *, as_json: bool) -> None:
    if as_json:
        items = [
            {
                "vendor": vendor.id,
                "model": entry.id,
                "context_length": entry.context_length,
                "price": None if (price := entry.price(at)) is None else asdict(price),
            }
            for vendor, entry in found
        ]
        click.echo(json.dumps(items, indent=2))
        return
    rows = []
    for vendor, entry in found:
        price = entry.price(at)
        rates: list[str | None] = [None] * 4
        if price is not None:
            whole = price.rates
            rates = [_rate(rate) for rate in (whole.input, whole.output, whole.cache_read, whole.cache_write_5m)]
        rows.append((vendor.id, entry.id, entry.context_length, *rates, _note(price)))
    click.echo(table(COLUMNS, rows))
    click.echo(f"USD per million tokens, from {source}. Prices in the configuration come before these.", err=True)


@click.group()
def prices() -> None:
    """What models cost at their vendors."""


@prices.command()
@click.argument("model")
@click.option("--host", help="Only at this vendor, as in `openai`.")
@AT
@AS_JSON
def show(model: str, host: str | None, day: Any, as_json: bool) -> None:
    """What MODEL costs, at every vendor that sells it."""
    catalogue = _catalogue()
    if host is None:
        found = list(catalogue.everywhere(model))
    else:
        vendor = _vendor(catalogue, host)
        entry = catalogue.find(vendor, model)
        found = [] if entry is None else [(vendor, entry)]
    if not found:
        raise click.ClickException(f"no price is known for {model!r}: set one in the configuration")
    _print(found, _second(day), catalogue.source, as_json=as_json)


@prices.command("list")
@click.option("--host", help="Only this vendor's models, as in `openai`.")
@AT
@AS_JSON
def list_(host: str | None, day: Any, as_json: bool) -> None:
    """Every model with its price."""
    catalogue = _catalogue()
    vendors = catalogue.vendors.values() if host is None else [_vendor(catalogue, host)]
    found = [(vendor, entry) for vendor in vendors for entry in vendor.models]
    _print(found, _second(day), catalogue.source, as_json=as_json)


@prices.command()
@click.option("--refresh", is_flag=True, help="Make the price file again.")
@AS_JSON
def info(refresh: bool, as_json: bool) -> None:
    """Where prices come from, and whose they are."""
    from relay_prices.book import Book, PriceFileError

    book = Book()
    try:
        catalogue = book.make() if refresh else book.need()
        path = str(book.path)
    except PriceFileError as error:
        raise click.ClickException(str(error)) from error
    counts = {vendor.id: len(vendor.models) for vendor in catalogue.vendors.values()}
    if as_json:
        click.echo(json.dumps({"source": catalogue.source, "file": path, "models": counts}, indent=2))
        return
    click.echo(f"source  {catalogue.source}\nfile    {path}\nmodels  {sum(counts.values())}\n")
    click.echo(table(("VENDOR", "NAME", "MODELS"), [(v.id, v.name, counts[v.id]) for v in catalogue.vendors.values()]))
