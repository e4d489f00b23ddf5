"""`relay prices`: what the price file says. What it takes to show that is imported when a command runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from relay_prices.catalogue import Catalogue, Vendor

__all__ = ["prices"]

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
    from relay_prices.listing import print_prices

    catalogue = _catalogue()
    if host is None:
        found = list(catalogue.everywhere(model))
    else:
        vendor = _vendor(catalogue, host)
        entry = catalogue.find(vendor, model)
        found = [] if entry is None else [(vendor, entry)]
    if not found:
        raise click.ClickException(f"no price is known for {model!r}: set one in the configuration")
    print_prices(found, _second(day), catalogue.source, as_json=as_json)


@prices.command("list")
@click.option("--host", help="Only this vendor's models, as in `openai`.")
@AT
@AS_JSON
def list_(host: str | None, day: Any, as_json: bool) -> None:
    """Every model with its price."""
    from relay_prices.listing import print_prices

    catalogue = _catalogue()
    vendors = catalogue.vendors.values() if host is None else [_vendor(catalogue, host)]
    found = [(vendor, entry) for vendor in vendors for entry in vendor.models]
    print_prices(found, _second(day), catalogue.source, as_json=as_json)


@prices.command()
@click.option("--refresh", is_flag=True, help="Make the price file again.")
@AS_JSON
def info(refresh: bool, as_json: bool) -> None:
    """Where prices come from, and whose they are."""
    from relay_prices.book import Book, PriceFileError
    from relay_prices.listing import print_vendors

    book = Book()
    try:
        catalogue = book.make() if refresh else book.need()
        path = str(book.path)
    except PriceFileError as error:
        raise click.ClickException(str(error)) from error
    print_vendors(catalogue, path, as_json=as_json)
