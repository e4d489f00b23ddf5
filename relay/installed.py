"""The plugins that are installed, as their packages' entry points say, and what they add to the command line.

Nothing here needs the rest of the relay: `relay --help` lists what plugins add, and must not wait for it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

from relay import hookspecs

if TYPE_CHECKING:
    import click

__all__ = ["add_commands", "installed_plugins", "may_have", "points"]

GROUP = "i8relay"
"""The entry point group."""


def points() -> list[EntryPoint]:
    """Where the installed plugins are, by their names."""
    return sorted(importlib.metadata.entry_points(group=GROUP), key=lambda point: point.name)


def installed_plugins() -> Iterator[tuple[str, str, Callable[[], object]]]:
    """The name of each, its package with the version, and what imports it."""
    # A package may have many, and what it says of itself is read anew each time that it is asked for its name.
    packages: dict[Distribution, str] = {}
    for point in points():
        source, package = point.value, point.dist
        if package is not None:
            if package not in packages:
                said = package.metadata
                packages[package] = f"package {said['Name']} {said['Version']}"
            source = packages[package]
        yield point.name, source, point.load


def may_have(point: EntryPoint, hook: str) -> bool:
    """Whether a plugin may have a hook. If its module plainly has not, it need not be imported to be asked for it."""
    return bool(point.attr) or _names(point.module, hook)


def _names(module: str, hook: str) -> bool:
    """Whether a module may have a hook. It may unless its source is there, and neither names it nor hides names."""
    try:
        spec = importlib.util.find_spec(module)
        source = b"" if spec is None or spec.origin is None else Path(spec.origin).read_bytes()
    except (ImportError, ValueError, OSError):
        return True
    return not source or hook.encode() in source or b"import *" in source


def add_commands(group: click.Group) -> Iterator[tuple[str, str]]:
    """Have plugins add their commands. Gives the name of each that could not, and why."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for point in points():
        if not may_have(point, "relay_commands"):
            continue
        try:
            manager.register(point.load(), point.name)
        except (Exception, SystemExit) as error:
            yield point.name, f"{type(error).__name__}: {error}"
    for own in manager.hook.relay_commands.get_hookimpls():
        try:
            own.function(**dict.fromkeys(own.argnames, group))
        except (Exception, SystemExit) as error:
            yield own.plugin_name, f"{type(error).__name__}: {error}"
