from __future__ import annotations

import stat
import tomllib
from pathlib import Path
from typing import Any

from relay.cli.init import example
from tests.core.cli.conftest import Run


def test_the_file_is_written_for_its_owner_only(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "new" / "relay.toml"
    told = run("init", str(file)).stdout
    assert file.read_text(encoding="utf-8") == example()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert told == f"{file} written. Edit it, then: relay check {file}\n"


def test_without_a_name_it_goes_where_serve_looks(run: Run, tmp_path: Path) -> None:
    told = run("init").stdout
    file = tmp_path / "config" / "i8relay" / "config.toml"
    assert file.exists()
    assert told == f"{file} written. Edit it, then: relay check\n"
    assert run("check").stdout.startswith(f"{file}: good.")


def test_a_file_that_exists_is_kept_unless_forced(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text("# mine\n")
    file.chmod(0o644)
    assert run("init", str(file), code=1).stderr == f"{file} exists already; --force replaces it\n"
    assert file.read_text() == "# mine\n"
    run("init", "--force", str(file))
    assert file.read_text(encoding="utf-8") == example()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600, "a file that everybody could read stays readable"


def test_a_place_that_cannot_be_written_is_one_clear_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    file = tmp_path / "file" / "relay.toml"
    told = run("init", str(file), code=1).stderr.splitlines()
    assert [line.partition(": ")[0] for line in told] == [f"{file} cannot be written"]


def test_printing_writes_no_file(run: Run, tmp_path: Path) -> None:
    assert run("init", "--print").stdout == example()
    assert not (tmp_path / "config").exists()


def test_every_setting_of_the_example_is_a_comment() -> None:
    def settings(table: dict[str, Any]) -> list[str]:
        return [
            found for name, value in table.items() for found in (settings(value) if isinstance(value, dict) else [name])
        ]

    assert not settings(tomllib.loads(example())), "the example changes nothing as it is"
