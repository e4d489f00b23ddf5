from __future__ import annotations

import json
from pathlib import Path

import pytest

from relay.family import CAPABILITIES
from tests.core.cli.conftest import Run
from tests.core.cli.server import Server, as_json, fault

CONFIG = """
[discovery]
environment = false
local = false
[upstreams.up]
family = "openai"
base_url = "URL/v1"
api_key = "sk-CANARY"
[models.smart]
targets = ["up/large"]
context_length = 8192
[models.smart.price]
input = 0.5
output = 1.5
"""


@pytest.fixture
def config(tmp_path: Path, server: Server) -> str:
    server.script("/v1/models", as_json({"data": [{"id": "large", "owned_by": "acme"}, {"id": "tiny-2"}]}))
    file = tmp_path / "relay.toml"
    file.write_text(CONFIG.replace("URL", server.url))
    return str(file)


def test_configured_and_listed_models_are_shown(run: Run, config: str, server: Server) -> None:
    lines = run("models", "--config", config).stdout.splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [["smart", "up"], ["large", "acme"], ["tiny-2", "up"]]
    assert lines[2].split()[2:5] == ["8192", "0.5", "1.5"]
    assert server.of("/v1/models")[0].headers["authorization"] == "Bearer sk-CANARY"


def test_a_search_narrows_the_list(run: Run, config: str) -> None:
    lines = run("models", "--config", config, "TINY").stdout.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["tiny-2"]
    assert run("models", "--config", config, "no-such").stdout == "no model's name holds 'no-such'\n"


def test_json_is_what_the_api_answers(run: Run, config: str) -> None:
    listed = json.loads(run("models", "--config", config, "--json").stdout)
    assert listed["object"] == "list"
    first = listed["data"][0]
    assert first == {
        "id": "smart",
        "object": "model",
        "created": 0,
        "owned_by": "up",
        "capabilities": first["capabilities"],
        "context_length": 8192,
        "pricing": {"input": 0.0005, "output": 0.0015, "cache_read": None, "cache_write": None},
    }
    assert tuple(first["capabilities"]) == CAPABILITIES


def test_an_upstream_that_does_not_list_is_named_and_takes_nothing_with_it(
    run: Run, config: str, server: Server
) -> None:
    server.script("/v1/models", fault(503, "closed for today"))
    result = run("models", "--config", config)
    assert [line.split()[0] for line in result.stdout.splitlines()[2:]] == ["smart"]
    assert "up did not list its models: " in result.stderr
    assert "CANARY" not in result.output


def test_a_bad_configuration_is_shown_and_nothing_is_asked(run: Run, tmp_path: Path, server: Server) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('[upstreams.up]\nfamily = "telex"\n')
    told = run("models", "--config", str(file), code=1).stderr
    assert "upstreams.up.family: no plugin serves a family 'telex'" in told
    assert not server.asked
