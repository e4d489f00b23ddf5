"""The clients as programs: how each is told where the relay is, which key it has, and what it shall do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.clients.scripted import MARK

__all__ = ["FOLDER", "PROGRAMS", "Place", "Program", "installed"]

FOLDER = Path(
    os.environ.get("I8RELAY_CLIENTS")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "i8relay-clients"
)
"""Where `make clients` installs them: not in this repository."""
PROMPT = "Run the shell command that prints the relay's word, and tell me what it printed."
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Place:
    """What a program is told."""

    url: str
    key: str
    model: str
    home: Path
    """A folder of its own, empty, which it takes for its user's home."""


@dataclass(frozen=True)
class Program:
    """One client. `command` may write settings into its home before it says what to run."""

    command: Callable[[Place], list[str]]
    env: Callable[[Place], Mapping[str, str]] = field(default=lambda place: {})
    agent: bool = True
    """Whether it is a coding agent, with a shell of its own for a tool."""


def installed(program: str) -> bool:
    """Whether a program's files are there."""
    return (FOLDER / "node_modules" / ".bin" / program).exists()


def found(program: str) -> str:
    return str(FOLDER / "node_modules" / ".bin" / program)


def sdk(client: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        # Modules are looked for from where the script lies.
        script = FOLDER / "sdk.mjs"
        shutil.copyfile(HERE / "sdk.mjs", script)
        return [found("node"), str(script), client, place.url, place.key, place.model, f"{MARK} in Oslo"]

    return command


def pi(api: str, suffix: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        settings = place.home / ".pi" / "agent"
        settings.mkdir(parents=True)
        provider = {
            "baseUrl": place.url + suffix,
            "api": api,
            "apiKey": place.key,
            "models": [{"id": place.model, "name": place.model, "contextWindow": 100_000, "maxTokens": 4000}],
        }
        (settings / "models.json").write_text(json.dumps({"providers": {"relay": provider}}))
        return [found("node"), found("pi"), "-p", PROMPT, "--provider", "relay", "--model", place.model, "--no-session"]

    return command


def codex(place: Place) -> list[str]:
    settings = place.home / ".codex"
    settings.mkdir()
    (settings / "config.toml").write_text(
        f"""
model = "{place.model}"
model_provider = "relay"
[model_providers.relay]
name = "i8Relay"
base_url = "{place.url}/v1"
env_key = "I8RELAY_KEY"
wire_api = "responses"
"""
    )
    return [
        found("codex"),
        "exec",
        "--skip-git-repo-check",
        "--dangerously-bypass-approvals-and-sandbox",
        PROMPT,
    ]


def claude(place: Place) -> list[str]:
    return [found("claude"), "--bare", "-p", PROMPT, "--allowedTools", "Bash"]


def gemini(place: Place) -> list[str]:
    settings = place.home / ".gemini"
    settings.mkdir()
    chosen = {"security": {"auth": {"selectedType": "gemini-api-key"}}, "privacy": {"usageStatisticsEnabled": False}}
    (settings / "settings.json").write_text(json.dumps(chosen))
    return [found("node"), found("gemini"), "--skip-trust", "-y", "-m", place.model, "-p", PROMPT]


PROGRAMS: Mapping[str, Program] = {
    "openai js, chat": Program(sdk("openai-chat"), agent=False),
    "openai js, responses": Program(sdk("openai-responses"), agent=False),
    "anthropic js": Program(sdk("anthropic"), agent=False),
    "genai js": Program(sdk("genai"), agent=False),
    "ai, openai-compatible": Program(sdk("ai-chat"), agent=False),
    "ai, openai": Program(sdk("ai-responses"), agent=False),
    "ai, anthropic": Program(sdk("ai-anthropic"), agent=False),
    "ai, google": Program(sdk("ai-google"), agent=False),
    "pi, openai-completions": Program(pi("openai-completions", "/v1")),
    "pi, openai-responses": Program(pi("openai-responses", "/v1")),
    "pi, anthropic-messages": Program(pi("anthropic-messages", "")),
    "pi, google-generative-ai": Program(pi("google-generative-ai", "/v1beta")),
    "codex": Program(codex, lambda place: {"I8RELAY_KEY": place.key}),
    "claude": Program(
        claude,
        lambda place: {
            "ANTHROPIC_BASE_URL": place.url,
            "ANTHROPIC_API_KEY": place.key,
            "ANTHROPIC_MODEL": place.model,
            "ANTHROPIC_SMALL_FAST_MODEL": place.model,
        },
    ),
    "gemini": Program(
        gemini,
        lambda place: {"GOOGLE_GEMINI_BASE_URL": place.url, "GEMINI_API_KEY": place.key},
    ),
}
