"""Tables say what was measured, and ratios compare what was measured together."""

from __future__ import annotations

import json
from typing import Any


def rounds(*values: tuple[float, float]) -> list[dict[str, Any]]:
    """Rounds of CPU for a plain call: of the base, and of the relay."""
    return [
        {
            "direct": {"50 a second": {"p50": 50.0}},
            "bare-aiohttp": {
                "plain": {"cpu_us": base, "bad": 0},
                "50 a second": {"p50": 550.0},
                "burst": {"cpu_us": 2.0},
            },
            "relay": {
                "plain": {"cpu_us": relay, "bad": 2},
                "50 a second": {"p50": 300.0},
                "burst translated": {"cpu_us": 3.0},
            },
        }
        for base, relay in values
    ]


def row(title: str) -> Any:
    from report import ROWS

    return next(row for row in ROWS if row.title.startswith(title))


def test_a_ratio_is_the_median_of_the_rounds_and_not_the_ratio_of_medians() -> None:
    from report import cell

    # The machine was slow in the second round: the figures of both doubled, what they are to each other did not change.
    measured = rounds((100, 50), (200, 100), (100, 60))
    assert cell(measured, "relay", row("CPU, plain call")) == "60 (0.50x, 0.50-0.60)"
    assert cell(measured, "bare-aiohttp", row("CPU, plain call")) == "100"


def test_what_is_added_is_counted_without_the_direct_way() -> None:
    from report import cell

    measured = rounds((1, 1), (1, 1))
    measured[1]["relay"]["50 a second"]["p50"] = 40.0
    assert cell(measured, "relay", row("added to a call at 50 a second, median")) == "120 (-10 to 250)"
    assert cell(measured, "direct", row("added to a call at 50 a second, median")) == "0"


def test_what_the_base_cannot_do_is_compared_with_the_nearest_that_it_can() -> None:
    from report import cell

    assert cell(rounds((1, 1)), "relay", row("CPU, the same, translated")) == "3.00 (1.50x, 1.50-1.50)"
    assert cell(rounds((1, 1)), "bare-aiohttp", row("CPU, the same, translated")) == "-"


def test_failures_are_added_up_and_shown() -> None:
    from report import lines

    measured = rounds((1, 1), (1, 1))
    assert list(lines(measured))[-1] == ["requests that failed", "0", "0", "4"]


def test_a_gateway_that_is_missing_from_a_round_is_compared_in_the_others() -> None:
    from report import cell

    measured = rounds((100, 50), (100, 90))
    del measured[1]["relay"]
    assert cell(measured, "relay", row("CPU, plain call")) == "50 (0.50x, 0.50-0.50)"


def test_the_table_of_a_page_has_every_gateway_and_says_where_it_was_measured() -> None:
    from report import markdown

    machine = {"date": "2026-01-02", "python": "3.11.7", "packages": {"aiohttp": "3"}, "cores": 2, "cpu": "A chip"}
    result = json.loads(
        json.dumps({"machine": machine, "about": {"relay": "all on"}, "rounds": rounds((100, 50), (110, 55))})
    )
    table = markdown(result).splitlines()
    assert table[0] == "|  | direct | bare-aiohttp | relay |"
    assert table[1] == "|---|---:|---:|---:|"
    assert "* `relay`: all on." in table
    assert table[-1].startswith("2 rounds on 2026-01-02, Python 3.11.7, aiohttp 3, 2 cores (A chip).")
    assert "varied by 10% between rounds" in table[-1]
