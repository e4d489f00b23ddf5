"""The whole loop once, without a human: start, make a key, stream a chat, look at models, usage and cost, stop.

Every step is checked; the exit status is 0 only if all were right. It keeps to a folder of its own, a free port and the
local model, so it neither touches nor needs anything of yours.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RELAY = [sys.executable, "-m", "relay"]
START_SECONDS = 30
STOP_SECONDS = 40
TRIES = 20
"""How often the rows are looked for, each of which takes a third of a second."""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="i8relay-demo-") as folder:
        environment = {
            name: value
            for name, value in os.environ.items()
            # The demo shows the local model, whatever keys there are; see `discovery` below.
            if not name.startswith("I8RELAY_")
        }
        environment |= {
            "I8RELAY_DB": f"{folder}/relay.db",
            "I8RELAY_CONFIG": f"{folder}/config.toml",
        }
        Path(folder, "config.toml").write_text("[discovery]\nenvironment = false\nlocal = false\n")
        step("start the relay: relay serve --port 0")
        server = subprocess.Popen([*RELAY, "serve", "--port", "0"], env=environment, stdout=subprocess.PIPE, text=True)
        try:
            tour(server, environment)
            step("stop it (SIGTERM)")
            server.send_signal(signal.SIGTERM)
            code = server.wait(STOP_SECONDS)
            expect(code == 0, f"it left with status {code}")
        finally:
            if server.poll() is None:
                server.kill()
                server.wait()
    print("\nAll steps were right.")


def tour(server: subprocess.Popen[str], environment: dict[str, str]) -> None:
    url = address(server)
    environment["I8RELAY_URL"] = url
    print(f"  it listens on {url}")

    step("make a key: relay keys create demo --rpm 60")
    key = run(environment, "keys", "create", "demo", "--rpm", "60").split()[0]
    expect(key.startswith("sk-relay-"), "that is no key")
    environment["I8RELAY_KEY"] = key

    step("what does it serve? relay models")
    print(indent(run(environment, "models")))
    models = json.loads(run(environment, "models", "--json"))["data"]
    expect(bool(models), "it serves no model")
    model = models[0]["id"]

    step(f"stream a chat: relay chat -m {model} 'Say hello in five words.'")
    answer = run(environment, "chat", "-m", model, "--max-tokens", "40", "Say hello in five words.", stdin="")
    print(indent(answer))
    expect(bool(answer.strip()), "the answer is empty")

    step("what was used? relay usage --by model")
    rows = written(environment)
    print(indent(run(environment, "usage", "--by", "model")))
    print(indent(run(environment, "usage", "--last", "5")))
    expect(len(rows) == 1, f"there are {len(rows)} usage rows for one chat")
    row = rows[0]
    expect(row["outcome"] == "ok", f"the chat ended as {row['outcome']}")
    expect(row["usage_source"] == "provider", f"its tokens are known by {row['usage_source']}")
    expect(row["usage"]["input"] > 0 and row["usage"]["output"] > 0, "it counted no tokens")
    expect(row["cost_usd"] is not None, "it has no cost")
    print(f"  cost: ${row['cost_usd']} (a model of your own machine is free)")


def written(environment: dict[str, str]) -> list[dict[str, Any]]:
    """The rows of calls: they are written a few times a second, and this asks at once."""
    for _ in range(TRIES):
        rows = json.loads(run(environment, "usage", "--last", "5", "--json"))
        if found := [row for row in rows if row["operation"] == "generate"]:
            return found
    return []


def address(server: subprocess.Popen[str]) -> str:
    """The URL in the relay's greeting."""
    if server.stdout is None:
        raise AssertionError("its output is a pipe")
    for line in server.stdout:
        if found := re.search(r"listens on (http://\S+)", line):
            return found[1]
    raise SystemExit("  FAILED: the relay ended before it listened")


def run(environment: dict[str, str], *arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(
        [*RELAY, *arguments], env=environment, capture_output=True, text=True, timeout=120, input=stdin, check=False
    )
    expect(done.returncode == 0, f"relay {arguments[0]} left with status {done.returncode}: {done.stderr}")
    return done.stdout


def step(text: str) -> None:
    print(f"\n== {text}", flush=True)


def indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.rstrip().splitlines())


def expect(right: bool, otherwise: str) -> None:
    if not right:
        raise SystemExit(f"  FAILED: {otherwise}")


if __name__ == "__main__":
    main()
