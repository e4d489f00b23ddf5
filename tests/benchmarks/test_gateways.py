"""A gateway is measured only if it does what a gateway has to do."""

from __future__ import annotations

import json
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

GOOD = {"choices": [{"message": {"content": "words and MOCK"}}]}
PROGRAM = """
import http.server, json, sys
port, key, answer, strict = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), sys.argv[4] == "strict"
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        print(body["model"], flush=True)
        good = self.headers["authorization"] == "Bearer " + key or not strict
        text = json.dumps(answer).encode()
        self.send_response(200 if good else 401)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def gateway(folder: Path, answer: Any = GOOD, kind: str = "strict", **fields: Any) -> Any:
    from gateways import Gateway

    (folder / "program.py").write_text(PROGRAM)
    command = ["python", "{folder}/program.py", "{port}", "{key}", json.dumps(answer), kind]
    return Gateway("fake", command, **fields)


def test_one_that_serves_is_measured_and_ended(tmp_path: Path) -> None:
    from gateways import Running

    running = Running(gateway(tmp_path, files={"note": "at {port}"}, model="x::{model}"), 1, tmp_path, [])
    try:
        assert running.start_seconds > 0
        assert running.start_cpu > 0
        assert running.memory() > 5
        assert (tmp_path / "note").read_text() == f"at {running.port}"
        assert running.ask({"model": "mock-0-0"})[0] == 200
    finally:
        running.end()
    assert set((tmp_path / "log").read_text().split("\n")) >= {"x::mock-0-0"}
    with pytest.raises(OSError, match="refused"):
        running.ask({"model": "mock-0-0"})


def test_one_that_answers_by_itself_is_found_out(tmp_path: Path) -> None:
    from gateways import Broken, Running

    answer = {"choices": [{"message": {"content": "made up"}}]}
    with pytest.raises(Broken, match="something else than its upstream"):
        Running(gateway(tmp_path, answer), 1, tmp_path, [])


def test_one_that_takes_every_key_is_found_out_unless_it_is_known_for_that(tmp_path: Path) -> None:
    from gateways import Broken, Running

    with pytest.raises(Broken, match="answers a wrong key with status 200"):
        Running(gateway(tmp_path, kind="open"), 1, tmp_path, [])
    Running(gateway(tmp_path, kind="open", keyless=True), 1, tmp_path, []).end()


def test_one_that_ends_is_shown_with_its_last_words(tmp_path: Path) -> None:
    from gateways import Broken, Gateway, Running

    (tmp_path / "program.py").write_text("raise SystemExit('the disk is full')")
    began = time.monotonic()
    with pytest.raises(Broken, match=r"ended with status 1:\nthe disk is full"):
        Running(Gateway("fake", ["python", "{folder}/program.py"]), 1, tmp_path, [])
    assert time.monotonic() - began < 20


def test_what_is_not_installed_is_not_found() -> None:
    from gateways import Gateway, gateways

    assert Gateway("a", ["python"]).found()
    assert Gateway("a", ["sh"]).found()
    assert not Gateway("a", ["no-such-program-anywhere"]).found()
    assert not Gateway("a", ["no-such-peer/python"]).found()
    assert {"bare-aiohttp", "relay"} <= {one.name for one in gateways() if one.found()}


def test_every_phase_asks_for_a_model_that_the_relay_is_told_of() -> None:
    from gateways import gateways
    from phases import PHASES

    (relay,) = (one for one in gateways() if one.name == "relay")
    models = tomllib.loads(relay.files["relay.toml"])["models"]
    assert {phase.model for phase in PHASES} <= set(models)
    assert {json.loads(phase.body("x::{model}"))["model"] for phase in PHASES} == {f"x::{name}" for name in models}
