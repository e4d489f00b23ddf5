"""Where the relay keeps its files, by the XDG rules. Pure functions of the environment: nothing is created here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["cache_dir", "config_dir", "data_dir", "database_path"]

NAME = "i8relay"


def _base(environ: Mapping[str, str] | None, variable: str, fallback: str) -> Path:
    environ = os.environ if environ is None else environ
    value = environ.get(variable, "")
    # The XDG rules: a relative path in these variables is invalid and ignored.
    if value and os.path.isabs(value):
        return Path(value) / NAME
    home = environ.get("HOME", "")
    return (Path(home) if home else Path.home()) / fallback / NAME


def data_dir(environ: Mapping[str, str] | None = None) -> Path:
    """The folder of what must not be lost: the database. `environ` stands in for `os.environ`."""
    return _base(environ, "XDG_DATA_HOME", ".local/share")


def config_dir(environ: Mapping[str, str] | None = None) -> Path:
    """The folder of the configuration file."""
    return _base(environ, "XDG_CONFIG_HOME", ".config")


def cache_dir(environ: Mapping[str, str] | None = None) -> Path:
    """The folder of what can be made again: price snapshots."""
    return _base(environ, "XDG_CACHE_HOME", ".cache")


def database_path(environ: Mapping[str, str] | None = None) -> Path:
    """The database: `$I8RELAY_DB` if set, else `relay.db` in the data folder."""
    environ = os.environ if environ is None else environ
    override = environ.get("I8RELAY_DB", "")
    return Path(override).expanduser() if override else data_dir(environ) / "relay.db"
