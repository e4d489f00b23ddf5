"""`relay --help` lists what plugins add, and imports no plugin that plainly adds nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from relay.manager import silent

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


def helped(folder: Path, text: str, value: str = "relay_odd") -> str:
    """The output with one more plugin installed, whose module says that."""
    info = folder / "odd-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[i8relay]\nodd = {value}\n")
    (folder / "relay_odd.py").write_text(text)
    (folder / "relay_hidden.py").write_text(NAMES.replace("IMPORTED", "HIDDEN"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-m", "relay", "--help"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout


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


def test_of_the_plugins_here_one_has_commands() -> None:
    assert "prices" not in silent("relay_commands")
    assert {"openai", "anthropic", "gemini", "bedrock"} <= silent("relay_commands")
    assert silent("relay_families") >= {"prices", "cache", "latency"}
