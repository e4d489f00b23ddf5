"""`relay models`: what the relay would serve, asked of the upstreams now."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from relay.cli.options import config_option, fail, load_config
from relay.table import table

__all__ = ["models"]


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="The same JSON as GET /v1/models.")
@click.argument("search", required=False, default="")
def models(config_file: Path | None, as_json: bool, search: str) -> None:
    """List the models that the relay would serve, those whose name holds SEARCH. Prices are USD per million tokens."""
    import orjson

    rows, problems = asyncio.run(_models(config_file))
    rows = [row for row in rows if search.lower() in row["id"].lower()]
    if as_json:
        click.echo(orjson.dumps({"object": "list", "data": rows}, option=orjson.OPT_INDENT_2))
    elif rows:
        head = ["MODEL", "OWNER", "CONTEXT", "INPUT $/M", "OUTPUT $/M", "CAN"]
        click.echo(table(head, [_row(row) for row in rows]))
    else:
        click.echo(f"no model's name holds {search!r}" if search else "no models")
    for name, reason in problems.items():
        click.echo(f"{name} did not list its models: {reason}", err=True)


async def _models(config_file: Path | None) -> tuple[list[dict[str, Any]], dict[str, str]]:
    from relay.app import RELAY, create_app
    from relay.config import ConfigError
    from relay.manager import Contradiction
    from relay.store import StoreError
    from relay.views.models import describe

    try:
        app = await create_app(load_config(config_file))
    except (ConfigError, Contradiction, StoreError) as error:
        fail(str(error))
    relay = app[RELAY]
    try:
        await relay.list_all()
        return [describe(relay, model) for model in relay.router.models()], relay.listing_errors
    finally:
        await relay.close()


def _row(model: dict[str, Any]) -> list[str | int | None]:
    prices = model["pricing"]
    can = [
        name for name, yes in model["capabilities"].items() if yes and name not in ("chat", "completion", "streaming")
    ]
    return [
        model["id"],
        model["owned_by"],
        model["context_length"],
        *(f"{prices[side] * 1000:g}" if prices else None for side in ("input", "output")),
        " ".join(can),
    ]
