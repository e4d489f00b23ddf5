"""The program that plays a folder of recordings: what it prints and how it ends, with recordings of our own."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.replay.clients import CLIENTS
from tests.replay.conformance import FIGURES, main, sample
from tests.replay.recording import PATHS, NoRecordings, load

CHAT: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "m-1",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Let me look.",
                "reasoning_content": "They ask for the weather.",
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at":"sky"}'}}
                ],
            },
            "finish_reason": "tool_calls",
        }
    ],
    "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
}


def recording(number: int, body: Any = CHAT, **more: Any) -> dict[str, Any]:
    text = body if isinstance(body, str) else json.dumps(body)
    return {
        "id": f"own-{number}",
        "dialect": "openai-chat",
        "method": "POST",
        "path": "/v1/chat/completions",
        "request_body": {"model": "m-1", "messages": [{"role": "user", "content": "Hi"}]},
        "status": 200,
        "streaming": False,
        "response_body_text": text,
        **more,
    }


DONE = "data: [DONE]\n\n"


def event_stream(*deltas: dict[str, Any], end: str = DONE) -> str:
    frames = [
        f"data: {json.dumps({'id': 'c', 'model': 'm', 'choices': [{'index': 0, 'delta': delta}]})}\n\n"
        for delta in deltas
    ]
    last = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return "".join(frames) + (f"data: {json.dumps(last)}\n\n{end}" if end else "")


def write(folder: Path, *exchanges: dict[str, Any], name: str = "own.jsonl") -> Path:
    lines = "".join(json.dumps(exchange) + "\n" for exchange in exchanges).encode()
    (folder / name).write_bytes(gzip.compress(lines) if name.endswith(".gz") else lines)
    return folder


@pytest.mark.timeout(60)
def test_good_recordings_end_well_and_what_is_not_for_us_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"model": "m-1", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    write(
        tmp_path,
        recording(1),
        recording(2, event_stream({"content": "One "}, {"content": "two"}), streaming=True, request_body=asked),
        recording(3, {"error": {"message": "slow down", "type": "tokens", "param": None, "code": "x"}}, status=429),
        # A stream without its end: that the client is told of it is what is right.
        recording(4, event_stream({"content": "Half a"}, end=""), streaming=True, request_body=asked),
        # A host that never says why the model stopped.
        recording(7, event_stream({"content": "So."}, end="") + DONE, streaming=True, request_body=asked),
        recording(5, dialect="telegraph"),
        recording(6, method="GET"),
        name="own.jsonl.gz",
    )
    assert main([str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "5 recorded generations" in told
    assert "1 telegraph" in told
    assert "1 openai-chat, but no generation" in told
    assert f"{5 * len(CLIENTS)} played" in told
    for dialect in CLIENTS:
        assert f"openai-chat to {dialect}: 5 played, 0 wrong" in told


@pytest.mark.timeout(60)
def test_what_is_wrong_is_listed_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts that nobody can mean are not believed by the relay, which the naive reading is not so careful about."""
    usage = {"prompt_tokens": 10**12, "completion_tokens": 7, "total_tokens": 10**12}
    write(tmp_path, recording(1), recording(2, {**CHAT, "usage": usage}), recording(3, "no JSON"))
    assert main([str(tmp_path)]) == 1
    told = capsys.readouterr().out
    for dialect in CLIENTS:
        assert f"openai-chat to {dialect} own-2: usage" in told
        assert f"openai-chat to {dialect} own-3: " in told
        assert f"openai-chat to {dialect}: 3 played, 2 wrong" in told


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (None, "there are no recordings"),
        ("{}\n", "own.jsonl:1 is not a recording: it lacks id, dialect"),
        ("\nnonsense\n", "own.jsonl:1 is not JSON"),
        (json.dumps(recording(1, dialect="telegraph")) + "\n", "there is no recorded generation"),
        (
            json.dumps(recording(1) | {"response_body_text": None, "response_body_b64": "!"}) + "\n",
            "own.jsonl:1 has a body that is not base64",
        ),
    ],
)
def test_a_folder_without_recordings_is_told_from_one_with_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: str | None, reason: str
) -> None:
    if lines is not None:
        (tmp_path / "own.jsonl").write_text(lines, encoding="utf-8")
    assert main([str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert (shown.out, reason in shown.err) == ("", True)


def test_a_broken_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl.gz").write_bytes(gzip.compress(b"\n" * 100_000)[:-20])
    with pytest.raises(NoRecordings, match=r"own\.jsonl\.gz cannot be read"):
        load(tmp_path)


def test_a_sample_holds_every_host_before_two_of_any() -> None:
    exchanges = [recording(number, family=f"host-{number % 7}") for number in range(70)]
    chosen = sample(exchanges, 7)
    assert {exchange["family"] for exchange in chosen} == {f"host-{number}" for number in range(7)}
    assert sample(exchanges, 0) == exchanges
    assert len(sample(exchanges, 20)) == 20


def test_the_figures_of_the_documentation_are_of_every_client_and_format_and_nothing_was_wrong() -> None:
    stored = json.loads(FIGURES.read_text(encoding="utf-8"))
    assert {(cell["dialect"], cell["family"]) for cell in stored["cells"]} == {
        (dialect, family) for dialect in CLIENTS for family in PATHS
    }
    assert sum(cell["wrong"] for cell in stored["cells"]) == 0
    assert all(cell["exchanges"] == cell["equal"] + cell["losses"] > 0 for cell in stored["cells"])
