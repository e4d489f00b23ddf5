"""What is kept for the next turn, when the process that kept it is killed."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.flow.fake import FakeUpstream
from tests.flow.test_kept import DONE
from tests.flow.test_memory import CALL, THOUGHT, TOOL, anthropic, messages_answer, next_turn, sent_turn
from tests.promises.served import served
from tests.promises.test_crash import kill, restarted
from tests.promises.wire import post, until


@pytest.mark.promise("M-09")
async def test_what_a_killed_worker_has_kept_another_finds(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.scripts = [messages_answer(THOUGHT, CALL), DONE]
    text = "\n".join(line.strip() for line in anthropic(upstream).splitlines())
    body: dict[str, Any] = {"model": "m", "tools": [TOOL], "reasoning_effort": "low"}
    question = [{"role": "user", "content": "Weather in Oslo?"}]

    def kept() -> bool:
        with sqlite3.connect(tmp_path / "relay.db") as connection:
            return connection.execute("SELECT count(*) FROM kept").fetchone() == (1,)

    async with served(tmp_path, text) as relay:
        said = await relay.ask(post(relay.key, **body, messages=question))
        assert json.loads(said.body)["choices"][0]["finish_reason"] == "tool_calls"
        await until(kept)
        await kill(relay)
        key = relay.key
    # Whoever starts next finds a file in order, with nothing of the dead process's in its way.
    await restarted(tmp_path, text)
    async with served(tmp_path, text, first=False) as relay:
        said = await relay.ask(post(key, **body | next_turn()))
        assert said.status == 200
        assert sent_turn(upstream)["content"] == [THOUGHT, CALL]
