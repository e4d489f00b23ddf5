"""`relay --help` lists what plugins add, and imports no plugin that plainly adds nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import relay
from relay.installed import may_have, points

NAMES = """
import click
from relay import hookimpl

print("IMPORTED")

@hookimpl
def relay_commands(commands):
    @commands.command("greet", help="Say hello.")
    def greet():
        pass
"""
HIDES = "print('IMPORTED')\nfrom relay_hidden import *\n"
BORROWS = "print('IMPORTED')\nfrom relay_hidden import relay_commands\n"
NOTHING = "print('IMPORTED')\n"
FAILS = "raise RuntimeError('relay_commands? not today')\n"
REFUSES = """
from relay import hookimpl

@hookimpl
def relay_commands():
    raise LookupError("no room")
"""


def helped(folder: Path, text: str, value: str = "relay_odd") -> str:
    """The output with one more plugin installed, whose module says that."""
    return asked_for_help(folder, text, value).stdout


def asked_for_help(folder: Path, text: str, value: str = "relay_odd") -> subprocess.CompletedProcess[str]:
    """`relay --help` with one more plugin installed, whose module says that."""
    info = folder / "odd-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[i8relay]\nodd = {value}\n")
    (folder / "relay_odd.py").write_text(text)
    (folder / "relay_hidden.py").write_text(NAMES.replace("IMPORTED", "HIDDEN"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    return subprocess.run(
        [sys.executable, "-m", "relay", "--help"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )


@pytest.mark.parametrize("text", [NAMES, HIDES, BORROWS])
def test_commands_of_plugins_are_listed_wherever_they_come_from(tmp_path: Path, text: str) -> None:
    out = helped(tmp_path, text)
    assert "greet" in out
    assert "Say hello." in out


def test_a_plugin_that_is_no_module_is_asked(tmp_path: Path) -> None:
    out = helped(tmp_path, "import relay_hidden\n\nclass Shell:\n    plugin = relay_hidden\n", "relay_odd:Shell.plugin")
    assert "Say hello." in out


def test_a_plugin_without_commands_is_not_imported_for_help(tmp_path: Path) -> None:
    assert "IMPORTED" not in helped(tmp_path, NOTHING)


@pytest.mark.parametrize(("text", "why"), [(FAILS, "RuntimeError: relay_commands? not"), (REFUSES, "LookupError: no")])
def test_a_plugin_whose_commands_fail_is_named_and_takes_no_others_with_it(tmp_path: Path, text: str, why: str) -> None:
    done = asked_for_help(tmp_path, text)
    assert f"commands of the plugin 'odd' are not available: {why}" in done.stderr
    assert "prices" in done.stdout


def test_help_waits_for_nothing_that_only_serving_needs() -> None:
    looking = "import sys; sys.argv = ['relay', '--help']; from relay.__main__ import main"
    asking = "import atexit; atexit.register(lambda: print(*sys.modules)); main()"
    done = subprocess.run(
        [sys.executable, "-c", f"{looking}; {asking}"], capture_output=True, text=True, timeout=30, check=True
    )
    loaded = set(done.stdout.split())
    assert {"click", "relay.cli", "relay_prices.commands"} <= loaded
    assert not loaded & {"asyncio", "ssl", "aiohttp", "orjson", "relay.dialect", "relay.manager", "relay_openai"}


def test_what_a_plugin_imports_is_there_when_it_is_asked_for() -> None:
    assert all(getattr(relay, name) is not None for name in relay.__all__)
    assert set(relay.__all__) <= set(dir(relay))
    with pytest.raises(AttributeError, match="no attribute 'Relay'"):
        relay.Relay  # noqa: B018


def silent(hook: str) -> set[str]:
    return {point.name for point in points() if not may_have(point, hook)}


def test_of_the_plugins_here_one_has_commands() -> None:
    assert "prices" not in silent("relay_commands")
    assert {"openai", "anthropic", "gemini", "bedrock", "local"} <= silent("relay_commands")
    assert silent("relay_families") >= {"prices", "cache", "latency"}
