from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relay.cli import commands

Run = Callable[..., Result]


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The database that commands use without `--db`. No configuration of the machine is read."""
    path = tmp_path / "data" / "relay.db"
    monkeypatch.setenv("I8RELAY_DB", str(path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("I8RELAY_CONFIG", raising=False)
    return path


@pytest.fixture
def run(db: Path) -> Run:
    """Run a command. A status other than `code` fails the test."""

    def run(*arguments: str, code: int = 0, input: str | None = None) -> Result:
        result = CliRunner().invoke(commands, list(arguments), input=input)
        assert result.exit_code == code, result.output
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run
