from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.cli.conftest import Run

ALONE = "[discovery]\nenvironment = false\nlocal = false\nfallback = false\n"


def write(tmp_path: Path, text: str) -> str:
    file = tmp_path / "relay.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_every_mistake_is_shown_with_its_line_and_key(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path, '[server]\nport = "eighty"\nhst = "::1"\n\n[keys]\nrpm = -1\n')
    lines = run("check", file, code=1).stderr.splitlines()
    assert [line.removeprefix(f"{file}: ") for line in lines] == [
        "line 2: server.port: expected a whole number, got a string",
        "line 3: server.hst: unknown setting; did you mean 'host'?",
        "line 6: keys.rpm: expected a whole number >= 0",
    ]


def test_mistakes_about_plugins_and_upstreams_are_shown_in_the_same_way(run: Run, tmp_path: Path) -> None:
    file = write(
        tmp_path,
        ALONE
        + '[plugins]\ndisabled = ["nobody"]\n[upstreams.a]\nfamily = "telex"\nbase_url = "http://127.0.0.1:1"\n'
        + '[upstreams.b]\nfamily = "demo"\n[upstreams.b.options]\nspeed = 1\n[models.m]\ntargets = ["b/x", "c/x"]\n',
    )
    lines = run("check", file, code=1).stderr.splitlines()
    places = [line.removeprefix(f"{file}: ").split(":")[:2] for line in lines]
    assert places == [
        ["line 6", " plugins.disabled[0]"],
        ["line 8", " upstreams.a.family"],
        ["line 13", " upstreams.b.options.speed"],
        ["line 15", " models.m.targets[1]"],
    ]


def test_a_good_file_is_called_good_and_counted(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path, ALONE + '[upstreams.d]\nfamily = "demo"\n[models.m]\ntargets = ["d/demo-echo"]\n')
    assert run("check", file).stdout == f"{file}: good. Upstreams: 1; configured models: 1.\n"


def test_what_was_found_is_counted_apart(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "gsk-nothing")
    file = write(tmp_path, '[discovery]\nlocal = false\n[upstreams.d]\nfamily = "demo"\n')
    assert "Upstreams: 2 (1 of them discovered)" in run("check", file).stdout


def test_without_a_file_it_checks_the_one_that_serve_would_use(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no configuration file, and none is needed." in run("check").stdout
    usual = tmp_path / "config" / "i8relay" / "config.toml"
    usual.parent.mkdir(parents=True)
    usual.write_text(ALONE)
    assert run("check").stdout.startswith(f"{usual}: good.")
    named = write(tmp_path, "nonsense\n")
    monkeypatch.setenv("I8RELAY_CONFIG", named)
    assert f"{named}: line 1: not valid TOML" in run("check", code=1).stderr


def test_a_variable_that_is_not_set_is_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORK_LLM_KEY", raising=False)
    file = write(tmp_path, ALONE + '[upstreams.groq]\napi_key = "${WORK_LLM_KEY}"\n')
    told = run("check", file, code=1).stderr
    assert "line 6: upstreams.groq.api_key: the environment variable WORK_LLM_KEY is not set" in told


def test_a_plugin_that_cannot_be_used_is_a_warning(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "broken.py").write_text("import nothing_of_that_name\n")
    file = write(tmp_path, ALONE + f'[plugins]\nfolder = "{folder}"\n')
    result = run("check", file)
    assert "warning: plugin broken cannot be used: cannot be imported: ModuleNotFoundError" in result.stderr
    assert "good." in result.stdout


def test_a_folder_of_plugins_that_is_none_is_a_mistake(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "gone", tmp_path / "file"):
        file = write(tmp_path, ALONE + f'[plugins]\nfolder = "{folder}"\n')
        told = run("check", file, code=1).stderr
        assert told == f"{file}: line 6: plugins.folder: there is no folder '{folder}'\n"


def test_two_plugins_for_one_family_are_a_mistake(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "second.py").write_text(
        "import relay\n\n@relay.hookimpl\ndef relay_families():\n    return [relay.Family('demo')]\n"
    )
    file = write(tmp_path, ALONE + f'[plugins]\nfolder = "{folder}"\n')
    told = run("check", file, code=1).stderr
    assert "plugins 'demo' and 'second' both serve the family 'demo'" in told


def test_wrong_options_of_a_plugin_are_a_mistake(run: Run, tmp_path: Path) -> None:
    file = write(
        tmp_path,
        ALONE + "[plugins.options.cache]\nenable = true\n[plugins.options.latency]\nmodels = 5\n",
    )
    lines = run("check", file, code=1).stderr.splitlines()
    assert [line.removeprefix(f"{file}: ").split(";")[0] for line in lines] == [
        "line 5: plugins.options.cache: there is no option 'enable'",
        "line 7: plugins.options.latency: models must be a list of names or patterns",
    ]
