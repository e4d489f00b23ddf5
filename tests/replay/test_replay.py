"""Every recorded exchange, through the whole relay, to a client of every dialect, read by the official SDKs."""

from __future__ import annotations

import pytest

from tests.replay.recording import Group, Recordings
from tests.replay.stage import Stage
from tests.replay.verdict import judge, without_count

pytestmark = [pytest.mark.shared, pytest.mark.asyncio(loop_scope="session")]

COUNTS: dict[Group, int] = {
    ("_handmade", False): 21,
    ("_handmade", True): 10,
    ("alibaba", False): 1,
    ("alibaba", True): 1,
    ("anthropic-messages", False): 386,
    ("anthropic-messages", True): 191,
    ("azure-chat", False): 30,
    ("azure-chat", True): 12,
    ("azure-responses", False): 14,
    ("azure-responses", True): 9,
    ("bedrock-converse", False): 121,
    ("bedrock-converse", True): 34,
    ("bedrock-mantle", False): 10,
    ("bedrock-mantle", True): 3,
    ("cerebras", False): 14,
    ("cerebras", True): 5,
    ("chatgpt-codex", False): 1,
    ("chatgpt-codex", True): 28,
    ("cloudflare", False): 1,
    ("cloudflare", True): 2,
    ("copilot", False): 8,
    ("copilot", True): 5,
    ("databricks", False): 2,
    ("databricks", True): 6,
    ("deepseek", False): 57,
    ("deepseek", True): 36,
    ("doubleword", False): 18,
    ("doubleword", True): 8,
    ("gateway", False): 6,
    ("gateway", True): 1,
    ("gemini", False): 315,
    ("gemini", True): 131,
    ("gemini-openai-compat", False): 1,
    ("gemini-openai-compat", True): 2,
    ("groq", False): 57,
    ("groq", True): 27,
    ("huggingface", False): 11,
    ("huggingface", True): 6,
    ("llamacpp", False): 28,
    ("llamacpp", True): 11,
    ("local-openai-compatible", False): 5,
    ("local-openai-compatible", True): 5,
    ("mistral", False): 78,
    ("mistral", True): 44,
    ("mistralrs", False): 3,
    ("mistralrs", True): 1,
    ("ollama", False): 32,
    ("ollama", True): 14,
    ("open-responses", False): 2,
    ("open-responses", True): 3,
    ("openai-chat", False): 296,
    ("openai-chat", True): 130,
    ("openai-responses", False): 450,
    ("openai-responses", True): 155,
    ("openrouter", False): 313,
    ("openrouter", True): 121,
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
    ("xai", False): 65,
    ("xai", True): 39,
    ("zai", False): 20,
    ("zai", True): 8,
}
"""How many exchanges there are at least, by file and whether they are streams: none may be left out unseen."""


async def test_a_count_that_nobody_asked_for_is_not_shown(stage: Stage, recordings: Recordings) -> None:
    """Hosts count only when asked, so nearly all recordings with a count are of clients who asked. Here they do not."""
    counted = [
        exchange
        for exchange in recordings.exchanges
        if exchange["streaming"]
        and exchange["dialect"] == "openai-chat"
        and without_count(exchange["body"]) != exchange["body"]
    ]
    shown = [await stage.play("openai-chat", exchange, without=["stream_options"]) for exchange in counted]
    rows = await stage.rows(len(shown))
    wrong = {
        one.exchange["id"]: found
        for one in shown
        if (found := judge(one, rows.get(one.tape.headers["x-request-id"], [])).faults)
    }
    assert not wrong
    assert len(counted) > 150


async def test_no_recording_is_forgotten(recordings: Recordings) -> None:
    found = {group: len(exchanges) for group, exchanges in recordings.groups().items()}
    assert found.keys() == COUNTS.keys()
    assert all(found[group] >= count for group, count in COUNTS.items())
    assert recordings.others["cohere-v2-chat"] > 40
