from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from relay.store import Key, Store
from relay.store.keys import now_ms

Run = Callable[..., Result]
ROOT = Path(__file__).parents[3]


def whose(db: Path, secret: str) -> Key | None:
    """The key that a relay would find for a secret."""

    async def look() -> Key | None:
        async with await Store.open(db) as store:
            return await store.ring.lookup(secret)

    return asyncio.run(look())


def test_create_prints_the_secret_alone_on_stdout(run: Run, db: Path) -> None:
    result = run("keys", "create", "laptop")
    secret = result.stdout.strip()
    assert result.stdout == secret + "\n"
    assert secret.startswith("sk-relay-")
    assert "shown only once" in result.stderr
    assert secret not in result.stderr
    key = whose(db, secret)
    assert key is not None
    assert key.name == "laptop"
    assert stat.S_IMODE(db.stat().st_mode) == 0o600


def test_create_takes_every_setting(run: Run, db: Path) -> None:
    result = run(
        "keys", "create", "full", "--expires", "30d", "--model", "gpt-*", "--model", "claude", "--rpm", "10",
        "--tpm", "0", "--concurrency", "3", "--model-limit", "gpt-4o=rpm:10,tpm:1000", "--strict",
        "--model-limit", "a=b=concurrency:2", "--metadata", '{"team": "süd"}', "--json",
    )  # fmt: skip
    data = json.loads(result.stdout)
    assert result.stderr == ""
    assert data["models"] == ["gpt-*", "claude"]
    assert (data["rpm"], data["tpm"], data["concurrency"]) == (10, 0, 3)
    assert data["model_limits"] == {"gpt-4o": {"rpm": 10, "tpm": 1000}, "a=b": {"concurrency": 2}}
    assert data["strict"] is True
    assert data["metadata"] == {"team": "süd"}
    assert abs(data["expires_at"] - now_ms() - 30 * 86_400_000) < 60_000
    assert data["state"] == "active"
    assert whose(db, data["key"]) is not None


def test_a_secret_can_be_taken_over_from_stdin(run: Run, db: Path) -> None:
    run("keys", "create", "old", "--import", input="a-secret-from-elsewhere\n")
    key = whose(db, "a-secret-from-elsewhere")
    assert key is not None
    assert key.name == "old"
    assert "20 or more" in run("keys", "create", "weak", "--import", input="short\n", code=1).stderr


def test_list_shows_keys_and_no_secrets(run: Run) -> None:
    secrets = [run("keys", "create", name).stdout.strip() for name in ("one", "two")]
    run("keys", "revoke", "one")
    text = run("keys", "list").stdout
    lines = text.splitlines()
    assert lines[0].split()[:4] == ["ID", "NAME", "KEY", "STATE"]
    assert [line.split()[:4] for line in lines[2:]] == [["2", "two", secrets[1][:13] + "...", "active"]]
    everything = run("keys", "list", "--all", "--json").stdout
    assert [(key["name"], key["state"]) for key in json.loads(everything)] == [("one", "revoked"), ("two", "active")]
    assert not [secret for secret in secrets if secret in text + everything]


def test_an_empty_list_says_what_to_do(run: Run) -> None:
    assert "relay keys create NAME" in run("keys", "list", code=1).stderr
    run("keys", "create", "one")
    run("keys", "revoke", "one")
    result = run("keys", "list")
    assert result.stdout == ""
    assert "relay keys create NAME" in result.stderr
    assert json.loads(run("keys", "list", "--json").stdout) == []


def test_only_create_makes_a_database(run: Run, db: Path) -> None:
    for command in (["keys", "list"], ["keys", "show", "x"], ["keys", "revoke", "x"], ["keys", "rotate", "x"]):
        assert f"there is no database at {db}" in run(*command, code=1).stderr
    assert not db.exists()


def test_revoke_ends_keys(run: Run, db: Path) -> None:
    secrets = [run("keys", "create", name).stdout.strip() for name in ("one", "two", "three")]
    assert "is revoked" in run("keys", "revoke", "one", "2").stdout
    assert [whose(db, secret) is None for secret in secrets] == [True, True, False]
    assert "revoked already" in run("keys", "revoke", "one", code=1).stderr
    assert "there is no key 'nobody'" in run("keys", "revoke", "three", "nobody", code=1).stderr
    assert whose(db, secrets[2]) is not None, "nothing is revoked if one of them is unknown"


def test_rotate_gives_a_new_secret(run: Run, db: Path) -> None:
    old = run("keys", "create", "one", "--rpm", "5").stdout.strip()
    result = run("keys", "rotate", "one")
    new = result.stdout.strip()
    assert "no longer works" in result.stderr
    assert whose(db, old) is None
    key = whose(db, new)
    assert key is not None
    assert key.rpm == 5
    graceful = json.loads(run("keys", "rotate", "one", "--grace", "1h", "--json").stdout)
    assert abs(graceful["old_until"] - now_ms() - 3_600_000) < 60_000
    assert whose(db, new) is not None
    assert whose(db, graceful["key"]) is not None


def test_update_changes_what_is_given(run: Run) -> None:
    run(
        "keys",
        "create",
        "one",
        "--rpm",
        "5",
        "--tpm",
        "6",
        "--model",
        "a",
        "--model-limit",
        "a=rpm:1",
        "--expires",
        "1h",
    )

    def update(*arguments: str) -> dict[str, object]:
        result: dict[str, object] = json.loads(run("keys", "update", "1", "--json", *arguments).stdout)
        return result

    data = update("--name", "uno", "--rpm", "default", "--model-limit", "b=tpm:2")
    assert (data["name"], data["rpm"], data["tpm"], data["models"]) == ("uno", None, 6, ["a"])
    assert data["model_limits"] == {"a": {"rpm": 1}, "b": {"tpm": 2}}
    data = update("--all-models", "--model-limit", "a=", "--expires", "never", "--strict")
    assert (data["models"], data["model_limits"], data["expires_at"]) == (None, {"b": {"tpm": 2}}, None)
    assert data["strict"] is True
    assert update("--no-strict")["strict"] is False


def test_show_is_for_people_or_programs(run: Run) -> None:
    run("keys", "create", "one", "--rpm", "0", "--metadata", '{"team": "x"}')
    lines = dict(line.split(maxsplit=1) for line in run("keys", "show", "one").stdout.splitlines()[2:])
    assert lines["rpm"] == "no limit"
    assert lines["tpm"] == "default"
    assert lines["models"] == "all"
    assert lines["metadata"] == '{"team": "x"}'
    assert json.loads(run("keys", "show", "1", "--json").stdout)["rpm"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["create", "x", "--expires", "soon"], 2, "write 12h, 30d, 2026-11-01"),
        (["create", "x", "--expires", "2020-01-01"], 1, "in the past"),
        (["create", "x", "--expires", "999999999w"], 2, "too long"),
        (["create", "x", "--rpm", "-5"], 2, "write a number, 0 for no limit"),
        (["create", "x", "--rpm", "many"], 2, "write a number, 0 for no limit"),
        (["create", "x", "--model-limit", "gpt-4o"], 2, "write MODEL=rpm:10"),
        (["create", "x", "--model-limit", "gpt-4o=speed:1"], 2, "write MODEL=rpm:10"),
        (["create", "x", "--model-limit", "gpt-4o=rpm:1,rpm:2"], 2, "write MODEL=rpm:10"),
        (["create", "x", "--model-limit", "gpt-4o="], 1, "no limits for that model"),
        (["create", "x", "--metadata", "{"], 1, "--metadata is not JSON"),
        (["create", "x", "--metadata", "[1]"], 1, "not a JSON object"),
        (["create", " "], 1, "a key's name"),
        (["create", "taken"], 1, "a key named 'taken' already"),
        (["show", "nobody"], 1, "there is no key 'nobody'"),
        (["update", "taken"], 1, "nothing to change"),
        (["update", "taken", "--all-models", "--model", "a"], 1, "contradict"),
        (["rotate", "taken", "--grace", "long"], 2, "write 90s, 15m, 12h"),
    ],
)
def test_mistakes_are_one_clear_line_and_change_nothing(
    run: Run, arguments: list[str], code: int, message: str
) -> None:
    run("keys", "create", "taken")
    before = run("keys", "list", "--all", "--json").stdout
    result = run("keys", *arguments, code=code)
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert run("keys", "list", "--all", "--json").stdout == before


def test_the_database_of_the_configuration_is_used(run: Run, db: Path, tmp_path: Path) -> None:
    other = tmp_path / "configured.db"
    config = tmp_path / "config" / "i8relay" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'[store]\npath = "{other}"\n')
    run("keys", "create", "one")
    assert other.exists()
    assert not db.exists()
    third = tmp_path / "third.db"
    run("keys", "create", "one", "--db", str(third))
    assert third.exists()


def test_a_file_that_is_no_database_is_one_clear_line(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear relay,\n" * 100)
    result = run("keys", "list", "--db", str(path), code=1)
    assert "is not an SQLite file" in result.stderr
    assert path.read_text() == "Dear relay,\n" * 100


def test_help_imports_no_database() -> None:
    code = (
        "import sys\nfrom relay.cli import keys, usage\nfrom relay.cli.keys import keys\n"
        "print(sorted({'aiosqlite', 'sqlite3', 'asyncio', 'aiohttp', 'msgspec', 'pluggy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "aiosqlite" not in done.stdout
    assert "sqlite3" not in done.stdout
    assert "aiohttp" not in done.stdout


def test_budgets_are_given_in_dollars_changed_one_by_one_and_given_back_to_the_configuration(run: Run) -> None:
    run("keys", "create", "ci", "--budget", "day=5", "--budget", "month=$50.25")
    assert json.loads(run("keys", "show", "ci", "--json").output)["budget"] == {
        "day": 5 * 10**9,
        "month": 50_250_000_000,
    }
    assert "day $5, month $50.25" in run("keys", "show", "ci").output
    run("keys", "update", "ci", "--budget", "total=0", "--budget", "day=default")
    assert json.loads(run("keys", "show", "ci", "--json").output)["budget"] == {"month": 50_250_000_000, "total": 0}
    assert "total no limit" in run("keys", "show", "ci").output


@pytest.mark.parametrize("budget", ["5", "week=5", "day=", "day=-5", "day=1e3", "day=nan", "day=1000000000", "day=٣"])
def test_what_is_no_budget_is_refused_with_an_example(run: Run, budget: str) -> None:
    assert "write d" in run("keys", "create", "ci", "--budget", budget, code=2).output
