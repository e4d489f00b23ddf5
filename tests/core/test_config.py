from __future__ import annotations

from pathlib import Path

import pytest

from relay.config import ConfigError, read_config, read_text
from relay.settings import TargetSettings

MISTAKES = """
[server]
prot = 1
port = "x"
log_level = "loud"

[upstreams.groq]
api_key = "${NOT_SET}"
idle_timeout = -1

[models."a b"]
targets = "x"
price = { input = 1, outputt = 2 }
rpm = 1.5
"""


def problems(text: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as wrong:
        read_text(text, "c.toml", environ or {})
    return [str(problem) for problem in wrong.value.problems]


def test_every_mistake_is_found_at_once_with_its_key_and_line() -> None:
    assert problems(MISTAKES) == [
        "line 3: server.prot: unknown setting; did you mean 'port'?",
        "line 4: server.port: expected a whole number, got a string",
        "line 5: server.log_level: must be one of debug, info, warning, error",
        "line 8: upstreams.groq.api_key: the environment variable NOT_SET is not set",
        "line 9: upstreams.groq.idle_timeout: expected a number > 0.0",
        'line 12: models."a b".targets: expected an array, got a string',
        "line 13: models.\"a b\".price.outputt: unknown setting; did you mean 'output'?",
        'line 14: models."a b".rpm: expected a whole number, got a number',
    ]


def test_broken_toml_is_one_mistake_with_its_line() -> None:
    assert problems("[server]\nport = \n") == ["line 2: not valid TOML: Invalid value"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("server = 1", "line 1: server: must be a table"),
        ("[[models]]\na = 1", "line 1: models: must be a table of tables"),
        ("[models]\nm = 3", "line 2: models.m: must be a table"),
        ("[nonsense]", "line 1: nonsense: unknown setting; known here: server, store, keys"),
    ],
)
def test_wrong_shapes_are_told(text: str, told: str) -> None:
    assert problems(text)[0].startswith(told)


def test_values_come_from_the_environment_and_from_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text('quo"ted\n')
    text = f"""
    [upstreams.a]
    api_key = "${{KEY}}"
    base_url = "${{URL:-http://fallback}}"
    [upstreams.b]
    api_key = "${{file:{secret}}}"
    base_url = "$$literal"
    """
    config = read_text(text, "c.toml", {"KEY": 'a"b\n[server]'})
    upstreams = config.settings.upstreams
    assert upstreams["a"].api_key == 'a"b\n[server]'
    assert upstreams["a"].base_url == "http://fallback"
    assert upstreams["b"].api_key == 'quo"ted'
    assert upstreams["b"].base_url == "$literal"
    assert config.settings.server.port == 8748


def test_a_files_place_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "key").write_text("k-1\n")
    text = '[upstreams.a]\napi_key = "${file:~/key}"'
    assert read_text(text, "c.toml", {}).settings.upstreams["a"].api_key == "k-1"


@pytest.mark.promise("A-04")
def test_a_mistake_never_repeats_a_value() -> None:
    told = "\n".join(problems('[upstreams.a]\nidle_timeout = "sk-SECRET"\n[server]\nlog_level = "sk-SECRET"'))
    assert "SECRET" not in told


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_config(tmp_path / "none.toml", {})


def test_lines_are_right_after_multi_line_strings() -> None:
    text = 'a = """\n[server]\nport = 1\n"""\n[server]\nport = "x"\n'
    assert "line 6: server.port: expected a whole number, got a string" in problems(text)


def test_a_target_is_a_text_or_a_table_and_nothing_else() -> None:
    text = """
[models.m]
targets = ["a/x", {to = "b/y", weight = 3}, {to = "c/z"}]
"""
    one, two, three = read_text(text, "c.toml", {}).settings.models["m"].targets
    assert one == "a/x"
    assert (two, three) == (TargetSettings("b/y", 3), TargetSettings("c/z"))
    assert problems(text.replace('"a/x"', "5").replace("weight = 3", "wait = 3")) == [
        "line 3: models.m.targets[0]: must be a string or a table",
        "line 3: models.m.targets[1].wait: unknown setting; did you mean 'weight'?",
    ]
    for wrong in ("0", "101", "1.5", '"much"'):
        (problem,) = problems(text.replace("= 3", f"= {wrong}"))
        assert problem.startswith("line 3: models.m.targets[1].weight: expected"), wrong
