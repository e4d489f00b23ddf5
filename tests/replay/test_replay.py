"""Every recorded exchange, through the whole relay, read by the official SDK."""

from __future__ import annotations

import pytest

from tests.replay.recording import Exchange, Group
from tests.replay.stage import Stage
from tests.replay.verdict import faults, without_count

pytestmark = [pytest.mark.shared, pytest.mark.asyncio(loop_scope="session")]

COUNTS: dict[Group, int] = {
    ("_handmade", False): 11,
    ("_handmade", True): 8,
    ("alibaba", False): 1,
    ("alibaba", True): 1,
    ("anthropic-messages", False): 386,
    ("anthropic-messages", True): 191,
    ("azure-chat", False): 30,
    ("azure-chat", True): 12,
    ("bedrock-mantle", False): 2,
    ("cerebras", False): 14,
    ("cerebras", True): 5,
    ("cloudflare", False): 1,
    ("cloudflare", True): 2,
    ("copilot", False): 4,
    ("copilot", True): 4,
    ("databricks", False): 2,
    ("databricks", True): 6,
    ("deepseek", False): 48,
    ("deepseek", True): 35,
    ("doubleword", False): 18,
    ("doubleword", True): 8,
    ("gateway", False): 3,
    ("gateway", True): 1,
    ("gemini", False): 315,
    ("gemini", True): 131,
    ("gemini-openai-compat", False): 1,
    ("gemini-openai-compat", True): 2,
    ("groq", False): 57,
    ("groq", True): 27,
    ("huggingface", False): 11,
    ("huggingface", True): 6,
    ("llamacpp", False): 27,
    ("llamacpp", True): 11,
    ("local-openai-compatible", False): 5,
    ("local-openai-compatible", True): 5,
    ("mistral", False): 78,
    ("mistral", True): 44,
    ("mistralrs", False): 1,
    ("mistralrs", True): 1,
    ("ollama", False): 32,
    ("ollama", True): 14,
    ("openai-chat", False): 296,
    ("openai-chat", True): 130,
    ("openrouter", False): 310,
    ("openrouter", True): 118,
    ("other-openai-compatible", False): 4,
    ("other-openai-compatible", True): 5,
    ("ovhcloud", False): 8,
    ("perplexity", False): 11,
    ("perplexity", True): 5,
    ("snowflake", False): 5,
    ("snowflake", True): 1,
    ("together", False): 2,
    ("together", True): 1,
    ("venice", False): 15,
    ("venice", True): 5,
    ("vercel-gateway", False): 15,
    ("vercel-gateway", True): 12,
    ("vertex-anthropic", False): 2,
    ("vertex-anthropic", True): 3,
    ("vertex-gemini", False): 50,
    ("vertex-gemini", True): 12,
    ("xai", False): 33,
    ("xai", True): 19,
    ("zai", False): 20,
    ("zai", True): 8,
}
"""How many exchanges there are at least, by file and whether they are streams: none may be left out unseen."""


def name(group: Group) -> str:
    return f"{group[0]}-{'stream' if group[1] else 'whole'}"


@pytest.mark.parametrize("group", COUNTS, ids=name)
async def test_what_was_recorded_comes_through(
    stage: Stage, recordings: dict[Group, list[Exchange]], group: Group
) -> None:
    exchanges = recordings[group]
    assert len(exchanges) >= COUNTS[group]
    shown = [await stage.play(exchange) for exchange in exchanges]
    rows = await stage.rows(len(shown) + 1)
    ids = [one.tape.headers["x-request-id"] for one in shown]
    wrong = {
        one.exchange["id"]: found
        for one, request_id in zip(shown, ids, strict=True)
        if (found := faults(one, rows.get(request_id, [])))
    }
    assert not wrong


async def test_a_count_that_nobody_asked_for_is_not_shown(
    stage: Stage, recordings: dict[Group, list[Exchange]]
) -> None:
    """Hosts count only when asked, so nearly all recordings with a count are of clients who asked. Here they do not."""
    counted = [
        exchange
        for (_, streamed), exchanges in recordings.items()
        for exchange in exchanges
        if streamed and exchange["dialect"] == "openai-chat" and without_count(exchange["body"]) != exchange["body"]
    ]
    shown = [await stage.play(exchange, without=["stream_options"]) for exchange in counted]
    rows = await stage.rows(len(shown))
    wrong = {
        one.exchange["id"]: found
        for one in shown
        if (found := faults(one, rows.get(one.tape.headers["x-request-id"], [])))
    }
    assert not wrong
    assert len(counted) > 150


async def test_no_recording_is_forgotten(recordings: dict[Group, list[Exchange]]) -> None:
    assert recordings.keys() == COUNTS.keys()
