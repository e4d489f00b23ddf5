"""The guard notices what costs more, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.conftest import FOLDER


def test_a_tenth_more_is_let_through_and_what_is_above_it_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    from instructions import compared

    stored = {"call": 1000, "piece": 100}
    assert compared("calls", {"call": 1100, "piece": 60}, stored) == []
    assert "-40.0%" in capsys.readouterr().out
    assert compared("calls", {"call": 1102, "piece": 111}, stored) == [
        "call: 1,102 calls are more than a tenth above 1,000"
    ]


def test_where_nothing_is_written_down_nothing_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    from instructions import compared

    assert compared("calls", {"call": 10**9}, {}) == []
    assert "nothing to compare with" in capsys.readouterr().out


def test_counting_calls_gives_the_same_twice(tmp_path: Path) -> None:
    pytest.importorskip("uvloop")
    told = []
    for name in ("first.json", "second.json"):
        command = [sys.executable, str(FOLDER / "instructions.py"), "--only", "calls", "--update", "--file"]
        subprocess.run([*command, str(tmp_path / name)], check=True, timeout=50, capture_output=True)
        ((_, found),) = json.loads((tmp_path / name).read_text()).items()
        told.append(found["calls"])
    first, second = told
    assert set(first) == {"call", "call, translated", "piece", "piece, translated"}
    for name, count in first.items():
        assert count > 0
        # What the relay does by the clock (flushing rows, looking at deadlines) falls to more or fewer of them; a piece
        # costs so few calls that each of those shows.
        assert abs(second[name] - count) < max(0.15 * count, 3), name
    assert first["piece, translated"] > first["piece"]
