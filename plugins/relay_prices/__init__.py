"""Prices and context lengths of the models that vendors sell, from a file made of the package genai-prices.

Prices in the relay's own configuration come first; this plugin is asked for all others. A model served on this machine
costs nothing. A model that the file does not know has no price, which is not the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from relay import hookimpl

if TYPE_CHECKING:
    import click

    from relay import Model, Price, Target
    from relay_prices.book import Book

__all__: list[str] = []

_book: Book | None = None


def _open() -> Book:
    # Loaded on first use: the program's other commands must not wait for it.
    global _book
    if _book is None:
        from relay_prices.book import Book

        _book = Book()
    return _book


@hookimpl
def relay_lifespan(options: Mapping[str, Any]) -> AbstractAsyncContextManager[None]:
    """Have the price file made in the background where there is none."""
    return _open().lifespan()


@hookimpl(trylast=True)
def price(target: Target, at: int) -> Price | None:
    """From the price file, asked last: a family that sets its own prices knows better."""
    return _open().price(target, at)


@hookimpl(trylast=True)
def describe(target: Target) -> Model | None:
    """The context length."""
    return _open().describe(target)


@hookimpl
def relay_commands(commands: click.Group) -> None:
    """`relay prices`."""
    from relay_prices.commands import prices

    commands.add_command(prices)
