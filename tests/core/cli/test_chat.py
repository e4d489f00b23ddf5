from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.core.cli.conftest import Run
from tests.core.cli.server import Server, as_json, events, fault, words

CHAT = "/v1/chat/completions"
KEY = "sk-relay-test"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which are noted and not waited."""
    noted: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float, *more: Any) -> None:
        noted.append(seconds)
        await sleep(0)

    monkeypatch.setattr("relay.client.asyncio.sleep", note)
    return noted


def ask(run: Run, server: Server, *more: str, code: int = 0, input: str = "") -> Any:
    return run("chat", "--url", server.url, "--key", KEY, "-m", "m", *more, code=code, input=input)


def test_the_answer_is_printed_and_the_question_is_asked(run: Run, server: Server) -> None:
    server.script(CHAT, events(words("Hel", "lo", "!", usage={"prompt_tokens": 7, "completion_tokens": 3})))
    result = ask(run, server, "-s", "Be brief.", "--temperature", "0.5", "--max-tokens", "9", "--usage", "Say", "hello")
    assert result.stdout == "Hello!\n"
    assert result.stderr == "[7 tokens in, 3 out]\n"
    (asked,) = server.of(CHAT)
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "temperature": 0.5,
    }


def test_what_is_piped_in_stands_before_the_prompt(run: Run, server: Server) -> None:
    server.script(CHAT, events(words("ok")))
    ask(run, server, "Explain this.", input="line one\nline two\n")
    assert server.of(CHAT)[0].body["messages"][-1]["content"] == "line one\nline two\n\nExplain this."


def test_what_is_piped_in_may_be_the_whole_question(run: Run, server: Server) -> None:
    server.script(CHAT, events(words("ok")))
    ask(run, server, input="Why?\n")
    assert server.of(CHAT)[0].body["messages"] == [{"role": "user", "content": "Why?"}]


def test_nothing_to_ask_is_an_error_and_asks_nothing(run: Run, server: Server) -> None:
    assert ask(run, server, code=1).stderr == "nothing to ask: give a prompt, or pipe one in\n"
    assert not server.asked


def test_without_a_model_the_first_that_is_listed_is_used(run: Run, server: Server) -> None:
    server.script("/v1/models", as_json({"data": [{"id": "first"}, {"id": "second"}]}))
    server.script(CHAT, events(words("ok")))
    run("chat", "--url", f"{server.url}/v1/", "--key", KEY, "Hi", input="")
    assert server.of(CHAT)[0].body["model"] == "first"


def test_passing_failures_are_tried_again_with_growing_waits(run: Run, server: Server, waits: list[float]) -> None:
    server.script(CHAT, fault(503), fault(503), fault(500), events(words("at last")))
    result = ask(run, server, "Hi")
    assert result.stdout == "at last\n"
    assert result.stderr.count("not now; trying again in") == 3
    assert len(waits) == 3
    # Full jitter: anything up to a ceiling that doubles from half a second.
    assert all(0 <= wait <= ceiling for wait, ceiling in zip(waits, (0.5, 1.0, 2.0), strict=True))


@pytest.mark.parametrize(
    ("headers", "least"), [({"Retry_After": "3"}, 3.0), ({"retry_after_ms": "250", "Retry_After": "1"}, 0.25)]
)
def test_the_wait_that_was_asked_for_is_kept(
    run: Run, server: Server, waits: list[float], headers: dict[str, str], least: float
) -> None:
    server.script(CHAT, fault(429, **headers), events(words("ok")))
    ask(run, server, "Hi")
    # A little more than asked, so that clients that failed together do not come back together.
    assert least <= waits[0] <= least + 0.125


def test_it_gives_up_after_five_attempts_and_says_why(run: Run, server: Server, waits: list[float]) -> None:
    server.script(CHAT, fault(503, "closed for today"))
    result = ask(run, server, "Hi", code=1)
    assert result.stderr.splitlines()[-1] == "error: closed for today"
    assert (len(server.of(CHAT)), len(waits)) == (5, 4)


@pytest.mark.parametrize(
    "reply", [fault(429, x_should_retry="false"), fault(402, x_should_retry="false"), fault(400), fault(401)]
)
def test_what_no_repetition_can_help_is_asked_once(run: Run, server: Server, waits: list[float], reply: Any) -> None:
    server.script(CHAT, reply)
    assert ask(run, server, "Hi", code=1).stderr == "error: not now\n"
    assert (len(server.of(CHAT)), waits) == (1, [])


def test_an_answer_that_breaks_off_is_an_error_and_not_repeated(run: Run, server: Server, waits: list[float]) -> None:
    server.script(CHAT, events(words("Half an"), done=False, cut=True))
    result = ask(run, server, "Hi", code=1)
    assert result.stdout == "Half an"
    assert result.stderr.startswith("error: the answer broke off")
    assert (len(server.of(CHAT)), waits) == (1, [])


def test_an_answer_without_its_end_is_an_error(run: Run, server: Server) -> None:
    server.script(CHAT, events(words("Half an"), done=False))
    assert ask(run, server, "Hi", code=1).stderr == "error: the answer broke off before its end\n"


def test_an_error_inside_the_stream_is_told(run: Run, server: Server) -> None:
    server.script(CHAT, events([*words("Half an"), {"error": {"message": "it broke", "code": "upstream_error"}}]))
    assert ask(run, server, "Hi", code=1).stderr == "error: it broke\n"


def test_a_relay_that_is_not_there_is_one_clear_line(run: Run, waits: list[float]) -> None:
    told = run("chat", "--url", "http://127.0.0.1:9", "--key", KEY, "-m", "m", "Hi", code=1, input="").stderr
    assert told.splitlines()[-1] == "error: http://127.0.0.1:9 cannot be reached (ClientConnectorError)"
    assert len(waits) == 4


@pytest.mark.parametrize("status", [200, 400])
def test_the_borrowed_key_works_for_this_chat_only(run: Run, server: Server, db: Path, status: int) -> None:
    run("keys", "create", "mine")
    server.script(CHAT, events(words("ok")) if status == 200 else fault(status))
    run("chat", "--url", server.url, "-m", "m", "Hi", input="", code=0 if status == 200 else 1)
    used = server.of(CHAT)[0].headers["authorization"].removeprefix("Bearer ")
    assert used.startswith("sk-relay-")
    keys = {key["name"]: key for key in json.loads(run("keys", "list", "--all", "--json").stdout)}
    mine = keys.pop("mine")
    (borrowed,) = keys.values()
    assert used.startswith(borrowed["prefix"].rstrip("."))
    assert (mine["state"], borrowed["state"]) == ("active", "revoked")
    assert 0 < borrowed["expires_at"] - borrowed["created_at"] <= 3_600_000


def test_the_borrowed_key_is_made_where_the_relay_looks_for_keys(run: Run, server: Server, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "other.db"
    config = tmp_path / "config" / "i8relay" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'[store]\npath = "{other}"\n')
    run("keys", "create", "mine")
    assert other.exists()
    server.script(CHAT, events(words("ok")))
    run("chat", "--url", server.url, "-m", "m", "Hi", input="")
    assert len(json.loads(run("keys", "list", "--all", "--json").stdout)) == 2


def test_without_key_and_database_it_says_what_to_do(run: Run, server: Server, db: Path) -> None:
    told = run("chat", "--url", server.url, "-m", "m", "Hi", input="", code=1).stderr
    assert told == f"there is no relay database at {db}; give --key, --db, or start the relay first (relay serve)\n"
    assert not server.asked
    assert not db.exists()
