"""Strings of JSON as the parts in C read them: block by block, so what stands at a block's edge is looked at here."""

from __future__ import annotations

import orjson
import pytest

import relay.outline
from relay.kit import estimate_tokens
from relay.outline import COMPILED, Texts

pytestmark = pytest.mark.skipif(not COMPILED, reason="there is nothing in C")

TEXTS = Texts((b"messages",), (b"content",))
BLOCK = 64
EDGES = range(2 * BLOCK + 3)
TAILS = (0, 1, 2, 3, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK)
"""Bytes behind what is looked at: less than a block, and more."""
SOUND = {
    "line end": rb"\n",
    "quote": rb"\"",
    "quotes": rb"\"\"\"\"",
    "backslash": rb"\\",
    "backslashes": rb"\\\\\\",
    "backslash before a quote": rb"\\\"",
    "slash": rb"\/",
    "number": rb"\u00e9",
    "number of ASCII": rb"\u0041",
    "pair": rb"\ud83d\ude00",
    "two bytes": "é".encode(),
    "three bytes": "中".encode(),
    "four bytes": "😀".encode(),
    "first of three": "\u0800".encode(),
    "before the halves": "\ud7ff".encode(),
    "behind the halves": "\ue000".encode(),
    "first of four": "\U00010000".encode(),
    "last of all": "\U0010ffff".encode(),
    "words": "Größe, 中文, 😀\\n".encode(),
    "run": "中文内容需要更多的空间来表达".encode(),
}
UNSOUND = {
    "control": b"\x1f",
    "line end": b"\n",
    "escape": rb"\x",
    "short number": rb"\u00e",
    "half": rb"\ud83d",
    "other half": rb"\ude00",
    "half before a number": rb"\ud83d\u0041",
    "further byte": b"\x80",
    "two, one missing": b"\xc3",
    "three, one missing": b"\xe4\xb8",
    "four, one missing": b"\xf0\x9f\x98",
    "two for one": b"\xc0\x80",
    "three for two": b"\xe0\x9f\xbf",
    "half in three": b"\xed\xa0\x80",
    "four for three": b"\xf0\x8f\xbf\xbf",
    "beyond all": b"\xf4\x90\x80\x80",
    "no beginning": b"\xf5\x80\x80\x80",
    "good before bad": "中".encode() + b"\xff",
}


def outline(spelled: bytes) -> tuple[bytes, int] | None:
    """What is left of a body with this text, and the text's tokens."""
    assert relay.outline._outline is not None
    raw = b'{"model":"m","messages":[{"content":"' + spelled + b'"}]}'
    found = relay.outline._outline(raw, 1, TEXTS, (b"model",), ())
    return None if found is None else found[:2]


def read(spelled: bytes) -> str:
    """The text. Raises orjson.JSONDecodeError."""
    text: str = orjson.loads(b'"' + spelled + b'"')
    return text


@pytest.mark.parametrize("piece", SOUND.values(), ids=SOUND)
def test_a_text_is_known_wherever_its_pieces_stand(piece: bytes) -> None:
    for before in EDGES:
        for after in TAILS:
            spelled = b"a" * before + piece + b"z" * after
            left = b'{"model":"m","messages":[{"content":""}]}'
            assert outline(spelled) == (left, estimate_tokens(read(spelled))), (before, after)


@pytest.mark.parametrize("first", SOUND.values(), ids=SOUND)
def test_a_piece_is_known_behind_any_other(first: bytes) -> None:
    for second in SOUND.values():
        for before in range(BLOCK - 16, BLOCK + 2):
            spelled = b"a" * before + first + second + first + b"z" * BLOCK
            found = outline(spelled)
            assert found is not None
            assert found[1] == estimate_tokens(read(spelled)), (second, before)


@pytest.mark.parametrize("piece", UNSOUND.values(), ids=UNSOUND)
def test_what_no_text_may_hold_is_left_to_the_parser(piece: bytes) -> None:
    for before in EDGES:
        for after in TAILS:
            spelled = b"a" * before + piece + b"z" * after
            with pytest.raises(orjson.JSONDecodeError):
                read(spelled)
            assert outline(spelled) is None, (before, after)
