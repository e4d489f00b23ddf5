from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.core.cli.conftest import Run


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A configuration with a folder of plugins: one good, one broken, and a built-in one turned off."""
    folder = tmp_path / "drop-ins"
    folder.mkdir()
    (folder / "good.py").write_text(
        "import relay\n\n@relay.hookimpl\ndef relay_families():\n    return [relay.Family('good')]\n"
    )
    (folder / "broken.py").write_text("import relay\n\n@relay.hookimpl\ndef relay_familys():\n    return []\n")
    file = tmp_path / "relay.toml"
    file.write_text(f'[plugins]\nfolder = "{folder}"\ndisabled = ["prices"]\n')
    return str(file)


def test_the_table_shows_what_was_found_and_what_is_wrong(run: Run, config: str) -> None:
    result = run("plugins", "--config", config)
    states = {line.split()[0]: line.split()[1] for line in result.stdout.splitlines()[2:]}
    assert states["openai"] == states["good"] == "loaded"
    assert states["broken"] == "broken"
    assert states["prices"] == "disabled"
    assert "broken: there is no hook 'relay_familys'; did you mean 'relay_families'?" in result.stderr


def test_json_tells_everything(run: Run, config: str) -> None:
    records = {record["name"]: record for record in json.loads(run("plugins", "--config", config, "--json").stdout)}
    assert records["openai"]["families"] == ["openai"]
    speaks = ["openai-chat", "openai-responses", "openai-embeddings", "openai-completions"]
    assert records["openai"]["dialects"] == speaks
    assert {"relay_families", "relay_dialects", "endpoint", "translate_stream"} <= set(records["openai"]["hooks"])
    assert records["good"]["source"].endswith("good.py")
    assert records["broken"]["error"]
    assert records["prices"]["disabled"]
    assert not records["prices"]["hooks"]


def test_a_files_name_cannot_steer_the_terminal(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "drop-ins"
    folder.mkdir()
    (folder / "a\x1b[2Jb.py").write_text("import relay\n")
    file = tmp_path / "relay.toml"
    file.write_text(f'[plugins]\nfolder = "{folder}"\n')
    assert "\x1b" not in run("plugins", "--config", str(file)).stdout


def test_a_contradiction_is_one_clear_line(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "drop-ins"
    folder.mkdir()
    (folder / "twin.py").write_text(
        "import relay\n\n@relay.hookimpl\ndef relay_families():\n    return [relay.Family('openai')]\n"
    )
    file = tmp_path / "relay.toml"
    file.write_text(f'[plugins]\nfolder = "{folder}"\n')
    told = run("plugins", "--config", str(file), code=1).stderr
    assert told.startswith("plugins 'openai' and 'twin' both serve the family 'openai'")
    assert len(told.splitlines()) == 1
