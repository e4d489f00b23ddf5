"""`relay plugins`: what was found, what it serves, and what is wrong with it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from relay.cli.options import config_option, fail, load_config
from relay.table import table

__all__ = ["plugins"]


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Everything that is known, hooks included.")
def plugins(config_file: Path | None, as_json: bool) -> None:
    """Show the plugins: installed packages with the entry point group `i8relay`, and the drop-in folder's files."""
    from relay.catalog import load_plugins
    from relay.manager import Contradiction

    config = load_config(config_file)
    try:
        records = load_plugins(config.settings).records
    except Contradiction as error:
        fail(str(error))
    if as_json:
        import orjson

        click.echo(orjson.dumps([asdict(record) for record in records], option=orjson.OPT_INDENT_2))
        return
    rows = [
        [
            record.name,
            "disabled" if record.disabled else "broken" if record.error else "loaded",
            ", ".join(record.families) or "-",
            ", ".join(record.dialects) or "-",
            record.source,
        ]
        for record in records
    ]
    click.echo(table(["PLUGIN", "STATE", "FAMILIES", "DIALECTS", "FROM"], rows))
    for record in records:
        if record.error:
            click.echo(f"\n{record.name}: {record.error}", err=True)
