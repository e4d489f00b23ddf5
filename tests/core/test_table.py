from __future__ import annotations

import csv
import io

import pytest

from relay.table import csv_text, table


def test_columns_are_aligned_and_numbers_stand_to_the_right() -> None:
    text = table(
        ("NAME", "N", "COST"), [("a", 5, "$1.50"), ("long name", 12345, "$1,000.00")], total=("all", 12350, "$1")
    )
    assert text.splitlines() == [
        "NAME           N       COST",
        "---------  -----  ---------",
        "a              5      $1.50",
        "long name  12345  $1,000.00",
        "---------  -----  ---------",
        "all        12350         $1",
    ]


def test_what_is_not_known_is_a_dash() -> None:
    assert table(("A", "B"), [(None, 1)]).splitlines()[-1] == "-  1"


def test_wide_characters_take_two_columns() -> None:
    lines = table(("A", "B"), [("日本", "x"), ("ab", "y")]).splitlines()
    assert lines[2] == "日本  x"
    assert lines[3] == "ab    y"


def test_names_cannot_steer_the_terminal() -> None:
    text = table(("A",), [("\x1b[31mred\x07\n\u202egnp.exe",)])
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert len(text.splitlines()) == 3


def test_an_empty_table_has_its_header() -> None:
    assert table(("A", "B"), []).splitlines() == ["A  B", "-  -"]


@pytest.mark.parametrize("cell", ["=1+1", "+x", "-x", "@x", "\tx", "\rx", '=HYPERLINK("http://x","y")', "-1+1"])
def test_text_that_a_spreadsheet_would_run_is_defused(cell: str) -> None:
    text = csv_text(("a",), [(cell,)])
    (_, (read,)) = csv.reader(io.StringIO(text, newline=""))
    assert read == "'" + cell


@pytest.mark.parametrize("cell", ["-1.5", "+2", -3, 4.5, "x-y", "a=b", ""])
def test_numbers_and_plain_text_stay_as_they_are(cell: str | float) -> None:
    text = csv_text(("a", "b"), [(cell, 1)])
    assert text == f"a,b\n{cell},1\n"


def test_none_is_an_empty_field() -> None:
    assert csv_text(("a", "b"), [(None, "x,y")]) == 'a,b\n,"x,y"\n'
