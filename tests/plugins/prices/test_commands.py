from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import relay_prices
from relay_prices import book


@pytest.fixture
def run(price_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(book.Book, "path", price_file)
    group = click.Group("relay")
    relay_prices.relay_commands(group)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(group, ["prices", *arguments])

    return run


def test_show_names_every_vendor_of_a_model(run) -> None:
    result = run("show", "gpt-4o")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split()[:2] == ["VENDOR", "MODEL"]
    assert any(line.split()[:5] == ["openai", "gpt-4o", "128000", "$2.5", "$10"] for line in lines)
    assert any(line.startswith("azure ") for line in lines)
    assert "USD per million tokens, from genai-prices" in result.stderr


def test_show_at_one_vendor_as_json(run) -> None:
    result = run("show", "claude-sonnet-4-5", "--host", "anthropic", "--json", "--at", "2026-11-01")
    (item,) = json.loads(result.stdout)
    assert item["vendor"] == "anthropic"
    assert item["context_length"] > 100_000
    assert item["price"]["rates"]["input"] == 3_000_000_000


def test_list_can_be_of_one_vendor(run) -> None:
    result = run("list", "--host", "gemini")
    assert result.exit_code == 0, result.output
    assert {line.split()[0] for line in result.stdout.splitlines()[2:]} == {"google"}
    everything = run("list", "--json")
    assert len(json.loads(everything.stdout)) > 2000


def test_info_says_where_prices_come_from(run, price_file: Path) -> None:
    result = run("info", "--json")
    data = json.loads(result.stdout)
    assert data["source"].startswith("genai-prices ")
    assert data["file"] == str(price_file)
    assert data["models"]["openai"] > 50
    assert "openrouter" in run("info").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "no-such-model"], "no price is known for 'no-such-model'"),
        (["show", "gpt-4o", "--host", "nobody"], "there is no vendor 'nobody'"),
        (["list", "--host", "nobody"], "there is no vendor 'nobody'"),
    ],
)
def test_what_is_not_known_is_one_clear_error(run, arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert message in result.stderr
