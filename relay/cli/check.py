"""`relay check`: every mistake of a configuration in one go."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from relay.cli.options import config_path, fail, load_config

__all__ = ["check"]


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
def check(file: Path | None) -> None:
    """Check a configuration FILE: every mistake at once, each with its line and key.

    Without FILE, the one that `relay serve` would use. Nothing is started. Servers on this machine are asked if
    they are there, and no other upstream is asked anything.
    """
    from relay.catalog import load_plugins, read_catalog
    from relay.config import ConfigError
    from relay.manager import Contradiction

    path = config_path(file)
    config = load_config(file)
    try:
        plugins = load_plugins(config.settings)
        catalog = asyncio.run(read_catalog(config, plugins))
    except (ConfigError, Contradiction) as error:
        fail(str(error))
    broken = [record for record in plugins.records if record.error]
    for record in broken:
        click.echo(f"warning: plugin {record.name} cannot be used: {record.error}", err=True)
    where = f"{path}: good" if path is not None else "no configuration file, and none is needed"
    found = f" ({len(catalog.found)} of them discovered)" if catalog.found else ""
    click.echo(f"{where}. Upstreams: {len(catalog.upstreams)}{found}; configured models: {len(catalog.models)}.")
