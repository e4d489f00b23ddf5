"""A body says once which model it asks for, however long it is and however it is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from relay import body as module
from relay.body import FEW, LONG, read_body
from relay.errors import BadParameter

TEXTS: Mapping[str, str] = {
    "short": "Hello",
    "long": "lorem ipsum " * LONG,
    "code": 'say "model", or \\ "model\n' * LONG,
    "many words": '"' * (2 * FEW) + "x" * LONG,
    "the key at an end": "x" * LONG + '"model',
    "an escape": "\x6d\u0006" * LONG,
}
FORMS: Mapping[str, Mapping[str, Any]] = {
    "as most clients": {"separators": (",", ":")},
    "with blanks": {},
    "in lines": {"indent": 2},
    "beyond ASCII": {"ensure_ascii": False},
}
each = pytest.mark.parametrize("text", TEXTS)
form = pytest.mark.parametrize("form", FORMS)


def written(text: str, form: str, model: str = "m") -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": TEXTS[text]}]}, **FORMS[form]).encode()


@each
@form
@pytest.mark.parametrize("model", ["m", "model", "big-model", 'a"model'])
def test_a_body_with_one_model_is_read(text: str, form: str, model: str) -> None:
    raw = written(text, form, model)
    assert read_body(raw) == json.loads(raw)


@each
@form
@pytest.mark.parametrize("model", ["m", "model", "big-model"])
@pytest.mark.parametrize("key", ["model", r"\u006dodel", r"mod\u0065l", r"\u006d\u006F\u0064\u0065\u006c"])
@pytest.mark.parametrize("place", ["first", "last"])
def test_one_with_two_is_refused(text: str, form: str, model: str, key: str, place: str) -> None:
    raw = written(text, form, model).decode().strip()
    twin = f'"{key}": "{model}"'
    raw = f"{{{twin}, {raw[1:]}" if place == "first" else f"{raw[:-1]}, {twin}}}"
    with pytest.raises(BadParameter, match="more than one model"):
        read_body(raw.encode())


@each
def test_models_inside_of_other_things_are_no_twins(text: str) -> None:
    data = json.loads(written(text, "with blanks"))
    data["metadata"] = {"model": "other", "a": ["model", {"model": "model"}]}
    assert read_body(json.dumps(data).encode()) == data


def test_names_that_were_looked_at_once_are_not_looked_at_again_and_bad_ones_always(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proper: dict[tuple[str, ...], None] = {}
    monkeypatch.setattr(module, "_proper", proper)
    monkeypatch.setattr(module, "SETS", 3)
    for _ in range(2):
        read_body(b'{"model":"m","Other":1}')
        with pytest.raises(BadParameter, match="another way"):
            read_body(b'{"model":"m","MODEL":"n"}')
    assert list(proper) == [("model", "Other")]
    long = "x" * module.LONGEST_NAMES
    read_body(f'{{"model":"m","{long}":1}}'.encode())
    assert list(proper) == [("model", "Other")]
    for number in range(9):
        read_body(f'{{"model":"m","{number}":1}}'.encode())
        assert len(proper) <= 3
