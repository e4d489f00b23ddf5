"""The `relay` program. Each command is a module that is imported when the command runs: `--help` needs none of them."""

from __future__ import annotations

import importlib
from typing import Final

import click

from relay.version import __version__

__all__ = ["Commands", "commands"]

BUILT_IN: Final = {
    "serve": ("relay.cli.serve", "Run the relay."),
    "chat": ("relay.cli.chat", "Talk to a model through a running relay."),
    "keys": ("relay.cli.keys", "Create, list, change and revoke API keys."),
    "usage": ("relay.cli.usage", "Show what was used, by whom, and what it cost."),
    "backup": ("relay.cli.backup", "Copy the database while the relay serves."),
    "models": ("relay.cli.models", "List the models that the relay would serve."),
    "check": ("relay.cli.check", "Find every mistake in a configuration."),
    "init": ("relay.cli.init", "Write a commented configuration to start from."),
    "plugins": ("relay.cli.plugins", "Show which plugins were found, and what is wrong with them."),
}
"""Command names in the order of `--help`: the module, whose command has the same name, and its help line."""


class Commands(click.Group):
    """The built-in commands by table, and those that plugins add.

    Plugins are loaded only for a name that is not built in, and for `--help`, which lists theirs too.
    """

    _asked = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All command names: built-in ones first, then the plugins'."""
        self._ask_plugins()
        return [*BUILT_IN, *sorted(self.commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if cmd_name in BUILT_IN:
            module, _ = BUILT_IN[cmd_name]
            command = getattr(importlib.import_module(module), cmd_name)
            return command if isinstance(command, click.Command) else None
        self._ask_plugins()
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `--help`, from the table: nothing is imported to write it."""
        self.list_commands(ctx)
        rows = [(name, line) for name, (_, line) in BUILT_IN.items()]
        rows += [(name, command.get_short_help_str()) for name, command in sorted(self.commands.items())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _ask_plugins(self) -> None:
        if self._asked:
            return
        self._asked = True
        from relay.installed import add_commands

        for name, error in add_commands(self):
            click.echo(f"commands of the plugin {name!r} are not available: {error}", err=True)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="relay")
def commands() -> None:
    """A relay between LLM clients and LLM upstreams.

    `relay serve` needs no configuration: it finds API keys in the environment and model servers on this machine.
    """
