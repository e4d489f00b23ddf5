"""What real clients send: accepted, passed on but for the model's name, and translated for everybody else."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay import Target, Upstream
from relay.ir import Loss, Opaque
from relay_openai.compose import compose
from relay_openai.responses.dialect import OpenAIResponses

pytestmark = pytest.mark.shared

TARGET = Target(Upstream("u", "openai", "https://u.test/v1"), "another-name")


def requests(traffic: Any) -> Iterator[Any]:
    folder = Path(traffic.folder).parent / "captures"
    files = sorted(folder.glob("*.jsonl.gz"))
    if not files:
        pytest.skip(f"no captures in {folder}")
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                request = json.loads(line)
                if request["path"].endswith("/responses") and request["method"] == "POST":
                    yield request


def test_every_captured_request_is_accepted_and_passed_on(traffic: Any) -> None:
    dialect = OpenAIResponses()
    clients: Counter[str] = Counter()
    for request in requests(traffic):
        raw = json.dumps(request["body"], indent=1).encode()
        head = dialect.peek(raw, "generate", {}, {name.lower(): value for name, value in request["headers"].items()})
        assert set(head.headers) <= {"openai-beta"}, request["file"]
        sent = dialect.forward(head, TARGET).body
        name = json.dumps(request["body"]["model"]).encode()
        assert sent == raw.replace(b'"model": ' + name, b'"model": "another-name"', 1), request["file"]
        dialect.tools(head)
        clients[request["client"].partition("-")[0]] += 1
    assert set(clients) >= {"codex", "js", "opencode", "pi", "py"}
    assert clients["codex"] >= 7
    assert clients.total() > 50


def test_every_captured_request_can_be_asked_elsewhere(traffic: Any) -> None:
    dialect = OpenAIResponses()
    for request in requests(traffic):
        head = dialect.peek(json.dumps(request["body"]).encode(), "generate", {}, {})
        parsed = dialect.parse(head)
        losses: list[Loss] = []
        body = compose(parsed, TARGET, losses)
        assert body["messages"], request["file"]
        unknown = {loss.field.partition("[")[0] for loss in losses} - {"tools", "verbosity", "thinking", "content"}
        assert not unknown, (request["file"], losses)


def test_codex_keeps_all_its_own_tools_with_any_model(traffic: Any) -> None:
    dialect = OpenAIResponses()
    seen = 0
    for request in requests(traffic):
        if not request["client"].startswith("codex"):
            continue
        parsed = dialect.parse(dialect.peek(json.dumps(request["body"]).encode(), "generate", {}, {}))
        assert {"exec_command", "apply_patch", "view_image", "tool_search"} <= set(parsed.tool_names())
        assert [tool.data["type"] for tool in parsed.tools if isinstance(tool, Opaque)] == ["web_search"]
        assert parsed.messages[0].role == "system"
        seen += 1
    assert seen >= 7
