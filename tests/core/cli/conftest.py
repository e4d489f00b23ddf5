from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relay.cli import commands
from tests.core.cli.server import Server

Run = Callable[..., Result]


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The database that commands use without `--db`. No configuration of the machine is read."""
    path = tmp_path / "data" / "relay.db"
    monkeypatch.setenv("I8RELAY_DB", str(path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("I8RELAY_CONFIG", "I8RELAY_URL", "I8RELAY_KEY"):
        monkeypatch.delenv(name, raising=False)
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


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on loopback that answers as it is told."""
    server = Server()
    yield server
    server.stop()
