"""The benchmark of all pairs of dialects asks for what the relay serves, and its table compares within a round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from relay.config import read_text
from relay.ir import Tool, ToolCall
from relay.manager import Plugins
from tests.benchmarks.conftest import FOLDER


def test_every_pair_is_asked_in_words_that_its_dialect_reads() -> None:
    from matrix import DIALECTS
    from pairs import phases

    dialects = Plugins.load().dialects
    found = phases()
    assert len(found) == 4 * len(DIALECTS) ** 2
    for phase in found:
        place = {"model": phase.model, **({"stream": "x"} if "stream" in phase.path else {})}
        head = dialects[phase.client].peek(phase.body(), "generate", place, {})
        assert (head.model, head.stream) == (phase.model, phase.stream)
        request = dialects[phase.client].parse(head)
        assert request.sampling.max_tokens == 400
        if phase.agent:
            assert head.outline is not None
            assert len(request.tools) == 18
            assert 84_000 < len(phase.body()) < 88_000
            assert len([call for message in request.messages for call in message.parts if type(call) is ToolCall]) == 20
            continue
        assert [tool.name for tool in request.tools if type(tool) is Tool] == (["write"] if phase.calls else [])
        assert [message.role for message in request.messages] == ["system", "user"]
        assert len(request.messages[1].text) == phase.prompt


def test_the_configuration_has_a_model_for_each_and_speaks_each_dialect() -> None:
    from matrix import DIALECTS
    from pairs import configuration, phases

    settings = read_text(configuration().replace("{upstream}", "1"), "pairs.toml", {}).settings
    assert {phase.model for phase in phases()} <= set(settings.models)
    assert set(settings.upstreams) == set(DIALECTS)


def test_the_table_is_of_medians_and_of_ratios_within_a_round() -> None:
    from matrix import DIALECTS, KINDS, table

    def measured(slow: float) -> dict[str, Any]:
        names = [f"{client} to {upstream}" for client in DIALECTS for upstream in DIALECTS]
        costs = {f"{name}, {kind}": {"cpu_us": 30.0 * slow} for name in names for kind in KINDS}
        return {**{kind: {"cpu_us": 10.0 * place * slow} for place, kind in enumerate(KINDS, 1)}, **costs}

    lines = table([measured(1), measured(2), measured(1)]).splitlines()
    assert len(lines) == 3 + len(DIALECTS) ** 2
    assert (
        lines[3]
        == "| `openai-chat` | `openai-chat`, untouched | 30.0 | 3.00x | 30.0 | 1.50x | 30.0 | 1.00x | 30.0 | 0.75x |"
    )


def test_what_is_kept_has_every_pair() -> None:
    from matrix import table

    kept = json.loads(Path(FOLDER / "pairs.json").read_text())
    assert table(kept["rounds"]).count("untouched") == 4
