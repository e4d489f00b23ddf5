"""No promise without a test, and no mark without a promise."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "docs"))

from promised import CATALOGUE, PROMISES, proofs  # noqa: E402 - the path comes first


def test_every_promise_is_proved_by_a_test() -> None:
    found = proofs()
    assert not [name for name in CATALOGUE if not found.get(name)]


def test_every_mark_names_a_promise() -> None:
    assert not set(proofs()) - set(CATALOGUE)


def test_what_the_readme_promises_stands_in_the_catalogue() -> None:
    assert not [name for _, names in PROMISES for name in names if name not in CATALOGUE]
    assert all(names for _, names in PROMISES)
