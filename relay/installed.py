"""The plugins that are installed, as their packages' entry points say, and what they add to the command line.

Nothing here needs the rest of the relay: `relay --help` lists what plugins add, and must not wait for it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

from relay import hookspecs

if TYPE_CHECKING:
    import click

__all__ = ["add_commands", "installed_plugins", "silent"]

GROUP = "i8relay"
"""The entry point group."""


def installed_plugins() -> Iterator[tuple[str, str, Callable[[], object]]]:
    """The name of each, its package with the version, and what imports it."""
    for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda point: point.name):
        source = f"package {point.dist.name} {point.dist.version}" if point.dist else point.value
        yield point.name, source, point.load


def silent(hook: str) -> set[str]:
    """The installed plugins whose module plainly has no such hook: to ask for it, they need not be imported."""
    points = importlib.metadata.entry_points(group=GROUP)
    return {point.name for point in points if not point.attr and not _names(point.module, hook)}


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
    without = silent("relay_commands")
    for name, _, bring in installed_plugins():
        if name in without:
            continue
        try:
            manager.register(bring(), name)
        except (Exception, SystemExit) as error:
            yield name, f"{type(error).__name__}: {error}"
    for own in manager.hook.relay_commands.get_hookimpls():
        try:
            own.function(**dict.fromkeys(own.argnames, group))
        except (Exception, SystemExit) as error:
            yield own.plugin_name, f"{type(error).__name__}: {error}"
