from __future__ import annotations

from pathlib import Path

import pytest

from relay.paths import cache_dir, config_dir, data_dir, database_path


def test_folders_follow_the_xdg_variables() -> None:
    environ = {"XDG_DATA_HOME": "/d", "XDG_CONFIG_HOME": "/c", "XDG_CACHE_HOME": "/k", "HOME": "/h"}
    assert data_dir(environ) == Path("/d/i8relay")
    assert config_dir(environ) == Path("/c/i8relay")
    assert cache_dir(environ) == Path("/k/i8relay")
    assert database_path(environ) == Path("/d/i8relay/relay.db")


@pytest.mark.parametrize("value", ["", "relative/path"])
def test_without_usable_variables_they_are_in_the_home_folder(value: str) -> None:
    environ = {"XDG_DATA_HOME": value, "XDG_CONFIG_HOME": value, "XDG_CACHE_HOME": value, "HOME": "/h"}
    assert data_dir(environ) == Path("/h/.local/share/i8relay")
    assert config_dir(environ) == Path("/h/.config/i8relay")
    assert cache_dir(environ) == Path("/h/.cache/i8relay")


def test_without_any_variable_the_users_home_is_asked_of_the_system() -> None:
    assert data_dir({}) == Path.home() / ".local/share/i8relay"


def test_the_database_can_be_anywhere() -> None:
    assert database_path({"I8RELAY_DB": "/x/y.db", "HOME": "/h"}) == Path("/x/y.db")


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("I8RELAY_DB", "/elsewhere.db")
    assert database_path() == Path("/elsewhere.db")
