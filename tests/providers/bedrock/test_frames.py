"""Messages of event streams, out of any cut of their bytes, and none that is damaged."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import UpstreamProtocol
from relay_bedrock.frames import LONGEST, FrameDecoder
from tests.providers.bedrock.wire import header, message, packed

Messages = list[tuple[dict[str, str], bytes]]
MESSAGES = st.lists(
    st.tuples(
        st.dictionaries(st.from_regex(r":?[a-z-]{1,12}", fullmatch=True), st.text(max_size=9), max_size=3),
        st.binary(max_size=40),
    ),
    max_size=5,
)


def read(*pieces: bytes) -> tuple[Messages, FrameDecoder]:
    found: Messages = []
    decoder = FrameDecoder()
    for piece in pieces:
        decoder.feed(piece, lambda headers, payload: found.append((dict(headers), payload)) or True)
    return found, decoder


@settings(max_examples=60, deadline=None)
@given(MESSAGES, st.integers(1, 30))
def test_any_cut_gives_the_same_messages(messages: Messages, step: int) -> None:
    data = b"".join(message(headers, payload) for headers, payload in messages)
    found, decoder = read(*(data[place : place + step] for place in range(0, len(data), step)))
    assert found == messages
    assert decoder.empty


def test_headers_of_every_type_are_passed_over() -> None:
    others = b"".join(
        bytes([len(name)]) + name + bytes([kind]) + value
        for name, kind, value in (
            (b"yes", 0, b""),
            (b"no", 1, b""),
            (b"byte", 2, b"\x01"),
            (b"short", 3, b"\x00\x01"),
            (b"int", 4, b"\x00" * 4),
            (b"long", 5, b"\x00" * 8),
            (b"raw", 6, struct.pack(">H", 3) + b"abc"),
            (b"time", 8, b"\x00" * 8),
            (b"id", 9, b"\x00" * 16),
        )
    )
    found, _ = read(packed(others + header(":event-type", "\u00e4"), b"{}"))
    assert found == [({":event-type": "\u00e4"}, b"{}")]


def test_nothing_is_read_behind_the_last_that_is_wanted() -> None:
    taken = []
    decoder = FrameDecoder()
    data = b"".join(message({}, bytes([number])) for number in range(3))
    decoder.feed(data, lambda _, payload: bool(taken.append(payload)) or len(taken) < 2)
    assert taken == [b"\x00", b"\x01"]
    assert not decoder.empty


@pytest.mark.parametrize("place", range(len(message({"a": "b"}, b"payload"))))
def test_a_damaged_byte_is_noticed_wherever_it_is(place: int) -> None:
    good = message({"a": "b"}, b"payload")
    bad = good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
    found: Messages = []
    with pytest.raises(UpstreamProtocol, match="damaged"):
        FrameDecoder().feed(
            message({}, b"before") + bad, lambda headers, payload: found.append((dict(headers), payload)) or True
        )
    assert found == [({}, b"before")]


def prelude(length: int, head: int) -> bytes:
    lengths = struct.pack(">II", length, head)
    return lengths + struct.pack(">I", zlib.crc32(lengths))


@pytest.mark.parametrize(("length", "head"), [(15, 0), (0, 0), (20, 5), (LONGEST + 1, 0), (2**32 - 1, 2**31)])
def test_a_length_that_cannot_be_is_refused_before_anything_is_waited_for(length: int, head: int) -> None:
    with pytest.raises(UpstreamProtocol, match="impossible length"):
        read(prelude(length, head))


@pytest.mark.parametrize(
    "headers",
    [
        b"\x05ab",
        b"\x01a",
        b"\x01a\x07",
        b"\x01a\x07\x00\x09ab",
        b"\x01a\x63",
        b"\x01a\x05\x00",
        b"\x01\xff\x00",
        b"\x01a\x07\x00\x01\xff",
    ],
)
def test_headers_that_cannot_be_read_are_refused(headers: bytes) -> None:
    with pytest.raises(UpstreamProtocol, match="headers cannot be read"):
        read(packed(headers, b""))
