"""What a tool makes up from `docs/openapi.json`, sent to a relay that serves: no 5xx, every refusal as told."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing
from tests.effort import times
from tests.promises.served import environment, served

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
SECONDS = times(10)
"""The whole run. The relay answers each request at once, so that this is some thousands of them."""
CHECKS = "not_a_server_error,content_type_conformance,response_schema_conformance,status_code_conformance"
CONFIG = """
[server]
wrong_keys_per_minute = 1000000
[upstreams.demo]
family = "demo"
"""


def named(value: Any) -> Any:
    """The document with the model's name where it asks for any: made-up ones are only refused for it."""
    if isinstance(value, dict):
        if "demo-echo" in value.get("examples", ()):
            return {"enum": ["demo-echo", "demo-echo", "nobody"]}
        return {name: named(inner) for name, inner in value.items()}
    return [named(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.promise("H-07")
@pytest.mark.timeout(SECONDS * 3 + 30)
async def test_what_is_made_up_from_the_schema_gets_answers_or_refusals_in_their_form(tmp_path: Path) -> None:
    if importlib.util.find_spec("schemathesis") is None:
        missing("schemathesis is not installed", "I8RELAY_REQUIRE_SCHEMATHESIS")
    schema = tmp_path / "openapi.json"
    schema.write_text(json.dumps(named(json.loads(DOCUMENT.read_text(encoding="utf-8")))))
    async with served(tmp_path, CONFIG) as relay:
        program = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).parent / "schemathesis"), "run", str(schema)),
            *("--url", f"http://127.0.0.1:{relay.port}", "-H", f"Authorization: Bearer {relay.key}"),
            *("-c", CHECKS, "--phases", "coverage,fuzzing", "--max-time", str(SECONDS), "--request-timeout", "10"),
            *("--continue-on-failure", "--no-shrink", "--no-color", "--seed", os.environ.get("I8RELAY_SEED", "1")),
            cwd=tmp_path,
            env=environment(tmp_path),
            stdout=PIPE,
            stderr=STDOUT,
        )
        try:
            said, _ = await asyncio.wait_for(program.communicate(), SECONDS * 3)
        finally:
            if program.returncode is None:
                program.kill()
        text = said.decode("utf-8", "replace")
        assert program.returncode == 0, text[-8000:]
        assert " passed" in text, text[-2000:]
        status, _ = await relay.ready()
        assert status == 200
