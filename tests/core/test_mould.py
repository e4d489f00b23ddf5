"""Two that tell text from all else, one in Python and one in C, must say the same of everything."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import relay.mould
from relay.mould import COMPILED, Mould
from tests.core.twins import pure
from tests.effort import times

PURE = pure(relay.mould)
TWINS = [PURE, relay.mould] if COMPILED else [PURE]
both = pytest.mark.parametrize("twin", TWINS, ids=["python", "c"][: len(TWINS)])

TAIL = b'"}]}\n\n'
PLAIN = Mould(b'data: {"t":"', TAIL)
FILLED = Mould(b'data: {"t":"', TAIL, b'","o":"', 4)


def test_the_one_in_c_is_there_where_it_is_demanded() -> None:
    if os.environ.get("I8RELAY_REQUIRE_COMPILED"):
        assert COMPILED
    assert not PURE.COMPILED


def plain(text: bytes) -> bytes:
    return PLAIN.head + text + TAIL


def filled(text: bytes, filling: bytes) -> bytes:
    return FILLED.head + text + FILLED.middle + filling + TAIL


@both
@pytest.mark.parametrize("text", [b"", b"a", b'say \\"hi\\"', b"\\\\", b"\\u00e9", "ü".encode(), b"\r\t\x00"])
def test_what_is_between_the_quotes_of_one_string_is_text(twin: Any, text: bytes) -> None:
    data = plain(b"first") + plain(text) + plain(b"last")
    assert twin.run(data, 0, PLAIN) == (len(data), 9 + len(text))
    data = filled(text, b"xyz") + filled(text, b"")
    assert twin.run(data, 0, FILLED) == (len(data), 2 * len(text))


@both
@pytest.mark.parametrize(
    "odd",
    [
        plain(b'"'),
        plain(b"a\\"),
        plain(b"a\n"),
        plain(b'"},"finish_reason":"length","x":{"y":"'),
        plain(b"a")[:-1],
        b"data: [DONE]\n\n",
        filled(b"a", b'b"'),
        filled(b"a", b"\n"),
    ],
)
def test_it_ends_where_anything_else_begins(twin: Any, odd: bytes) -> None:
    assert twin.run(plain(b"one") + odd + plain(b"two"), 0, PLAIN) == (len(plain(b"one")), 3)
    if odd.count(b'"') != filled(b"", b"").count(b'"'):
        assert twin.run(filled(b"one", b"xy") + odd, 0, FILLED) == (len(filled(b"one", b"xy")), 3)


@both
def test_where_to_begin_is_the_callers_choice(twin: Any) -> None:
    data = b"odd" + plain(b"one")
    assert twin.run(data, 0, PLAIN) == (0, 0)
    assert twin.run(data, 3, PLAIN) == (len(data), 3)
    assert twin.run(data, len(data), PLAIN) == (len(data), 0)


@both
def test_texts_are_put_together_where_somebody_wants_them(twin: Any) -> None:
    data, into = plain(b"one") + plain(b"") + plain(b'\\"two\\"') + b"odd", bytearray(b"zero")
    assert twin.run(data, 0, PLAIN, None) == twin.run(data, 0, PLAIN, into) == (len(data) - 3, 10)
    assert into == b'zeroone\\"two\\"'
    data = chunk(plain(b"3") + plain(b"4")) + chunk(plain(b"5")) + chunk(plain(b"6") + b"odd")
    assert twin.chunks(data, 0, PLAIN, into)[1] == 3
    assert twin.run(filled(b"7", b"xy") + filled(b"8", b""), 0, FILLED, into)[1] == 2
    assert into == b'zeroone\\"two\\"34578'


def chunk(data: bytes, form: str = "%x") -> bytes:
    return (form % len(data)).encode() + b"\r\n" + data + b"\r\n"


@both
@pytest.mark.parametrize("form", ["%x", "%X", "0%x", "%07x"])
def test_chunks_pass_with_their_framing(twin: Any, form: str) -> None:
    data = chunk(plain(b"one"), form) + chunk(plain(b"two") + plain(b"three"), form)
    assert twin.chunks(data, 0, PLAIN) == (len(data), 11)


@both
@pytest.mark.parametrize(
    "odd",
    [
        chunk(plain(b"b"))[:-1],
        chunk(plain(b"b"))[:-2] + b"\n\n",
        chunk(plain(b"b"), "%08x"),
        chunk(plain(b"b") + b"more"),
        chunk(plain(b"b")).replace(b"\r\n", b";name\r\n", 1),
        chunk(plain(b"b")).replace(b"\r\n", b"\n", 1),
        b"ff\r\n" + plain(b"b") + b"\r\n",
        b"1\r\n" + plain(b"b") + b"\r\n",
        b"\r\n" + plain(b"b") + b"\r\n",
        b"0\r\n\r\n",
        b"-5\r\n" + plain(b"b"),
        b"fffffff\r\n",
        b"5",
        b"5\r",
        b"5\r\n",
    ],
)
def test_what_is_no_whole_chunk_of_text_does_not_pass(twin: Any, odd: bytes) -> None:
    good = chunk(plain(b"one"))
    assert twin.chunks(good + odd, 0, PLAIN) == (len(good), 3)


PARTS = st.sampled_from(
    [
        b'"',
        b"\\",
        b"\n",
        b"a",
        b"he",
        b'"lo\n\n',
        b'm"x',
        b"\r\n",
        b"\r",
        b"0",
        b"1",
        b"7\r\n",
        b"c\r\n",
        b"A\r\n",
        b"}",
    ]
)
BYTES = st.lists(PARTS, max_size=4).map(b"".join)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, int, Mould]:
    mould = Mould(draw(BYTES), draw(st.one_of(BYTES, st.just(b'"lo\n\n'))), draw(BYTES), draw(st.integers(-1, 4)))
    parts: list[bytes] = []
    for _ in range(draw(st.integers(0, 4))):
        part = draw(BYTES)
        if draw(st.booleans()):
            part = mould.head + part + mould.middle + (draw(BYTES) if mould.middle else b"") + mould.tail
        parts.append(chunk(part, draw(st.sampled_from(["%x", "%X", "0%x"]))) if draw(st.booleans()) else part)
    data = b"".join(parts)
    return data, draw(st.integers(0, len(data))), mould


@pytest.mark.skipif(not COMPILED, reason="there is only one of them here")
@settings(max_examples=times(380), deadline=None)
@given(streams())
@example((b"", 0, Mould(b"", b"")))
@example((b"aaa", 0, Mould(b"", b"")))
def test_both_say_the_same(stream: tuple[bytes, int, Mould]) -> None:
    data, begin, mould = stream
    for name in ("run", "chunks"):
        said = [getattr(twin, name)(data, begin, mould) for twin in TWINS]
        assert said[0] == said[1]
        end, size = said[0]
        assert begin <= end <= len(data)
        assert 0 <= size <= end - begin
        texts = [bytearray(b"before"), bytearray(b"before")]
        assert said == [getattr(twin, name)(data, begin, mould, into) for twin, into in zip(TWINS, texts, strict=True)]
        assert texts[0] == texts[1]
        assert len(texts[0]) == len(b"before") + size


@pytest.mark.skipif(not COMPILED, reason="Python's own errors are good enough")
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (b"a", 0, b"", b"", b""),
        ("a", 0, b"", b"", b"", 0),
        (bytearray(b"a"), 0, b"", b"", b"", 0),
        (b"a", None, b"", b"", b"", 0),
        (b"a", 0, b"", None, b"", 0),
        (b"a", 0, b"", b"", b"", 2**80),
        (b"a", -1, b"", b"", b"", 0),
        (b"a", 2, b"", b"", b"", 0),
        (b"a", 0, PLAIN, b""),
        (b"a", 0, PLAIN, [], None),
    ],
)
def test_the_one_in_c_refuses_what_it_was_not_made_for(arguments: tuple[Any, ...]) -> None:
    for function in (relay.mould.run, relay.mould.chunks):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            function(*arguments)
