"""Prices as `relay prices` prints them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from relay.kit import table, usd

if TYPE_CHECKING:
    from relay import Price
    from relay_prices.catalogue import Catalogue, Entry, Vendor

__all__ = ["print_prices", "print_vendors"]

COLUMNS = ("VENDOR", "MODEL", "CONTEXT", "INPUT", "OUTPUT", "CACHE READ", "CACHE WRITE", "NOTE")


def print_prices(found: Sequence[tuple[Vendor, Entry]], at: int, source: str, *, as_json: bool) -> None:
    """Models with what they cost at the second `at` (Unix time): a table, or JSON."""
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


def print_vendors(catalogue: Catalogue, path: str, *, as_json: bool) -> None:
    """Where prices come from, and how many models of each vendor's have one."""
    counts = {vendor.id: len(vendor.models) for vendor in catalogue.vendors.values()}
    if as_json:
        click.echo(json.dumps({"source": catalogue.source, "file": path, "models": counts}, indent=2))
        return
    click.echo(f"source  {catalogue.source}\nfile    {path}\nmodels  {sum(counts.values())}\n")
    click.echo(table(("VENDOR", "NAME", "MODELS"), [(v.id, v.name, counts[v.id]) for v in catalogue.vendors.values()]))


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
