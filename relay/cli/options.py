"""What several commands share: finding the configuration, and showing its mistakes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from relay.paths import config_dir

if TYPE_CHECKING:
    from relay.config import Config

__all__ = ["config_option", "config_path", "fail", "load_config"]

config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Configuration file [default: $I8RELAY_CONFIG, else config.toml in the user's config folder if it exists]",
)


def config_path(given: Path | None) -> Path | None:
    """The file to read: as given, as the environment says, or the usual place if there is one."""
    if given is not None:
        return given
    named = os.environ.get("I8RELAY_CONFIG", "")
    if named:
        return Path(named).expanduser()
    usual = config_dir() / "config.toml"
    return usual if usual.exists() else None


def load_config(given: Path | None) -> Config:
    """Read the configuration, or leave with its mistakes printed."""
    from relay.config import Config, ConfigError, read_config
    from relay.settings import Settings

    path = config_path(given)
    if path is None:
        return Config(Settings())
    try:
        return read_config(path)
    except ConfigError as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    """Print a message to stderr and leave with status 1."""
    click.echo(message, err=True)
    sys.exit(1)
