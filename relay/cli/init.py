"""`relay init`: a commented configuration to start from."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

import click

from relay.cli.options import fail
from relay.paths import config_dir

__all__ = ["example", "init"]


def example() -> str:
    """The example configuration, which the repository also shows as `config.example.toml`."""
    return files("relay").joinpath("example.toml").read_text(encoding="utf-8")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option("--print", "only_print", is_flag=True, help="Print it instead of writing a file.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def init(file: Path | None, only_print: bool, force: bool) -> None:
    """Write a commented configuration to FILE.

    Without FILE, to config.toml in the user's config folder, where `relay serve` finds it by itself.
    """
    if only_print:
        click.echo(example(), nl=False)
        return
    path = file or config_dir() / "config.toml"
    if path.exists() and not force:
        fail(f"{path} exists already; --force replaces it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Only the owner may read it: people put keys into configuration files. A file that is replaced keeps the mode
        # that it had, unless it is changed too.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            os.fchmod(out.fileno(), 0o600)
            out.write(example())
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}")
    click.echo(f"{path} written. Edit it, then: relay check {'' if file is None else path}".rstrip())
