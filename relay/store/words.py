"""Words and request ids as they are stored."""

from __future__ import annotations

__all__ = ["pack", "storable", "unpack"]

LONGEST = 200
"""Characters kept of a word; model names may come from clients."""
PREFIXES = ("", "req_", "req-", "chatcmpl-", "resp_", "msg_")
"""Beginnings of request ids whose rest is hexadecimal; new ones go to the end, because rows hold the index."""
_DASHED = 0x80
OURS = "req_"
OUR_LENGTH = 28
OUR_MARK = bytes([PREFIXES.index(OURS)])
_HEX = frozenset("0123456789abcdef")


def storable(text: str) -> str:
    """As it can be stored: not too long, and no halves of characters."""
    text = text[:LONGEST]
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def pack(request_id: str) -> bytes | str:
    """A request id as stored: half as long if it is hexadecimal or a UUID, else the text itself."""
    if request_id.startswith(OURS) and len(request_id) == OUR_LENGTH:
        rest = request_id[len(OURS) :]
        try:
            packed = bytes.fromhex(rest)
        except ValueError:
            packed = b""
        if packed.hex() == rest:
            return OUR_MARK + packed
    prefix = next((start for start in PREFIXES[1:] if request_id.startswith(start)), "")
    rest = request_id[len(prefix) :]
    dashed = len(rest) == 36 and rest[8] == rest[13] == rest[18] == rest[23] == "-"
    if dashed:
        rest = rest.replace("-", "")
    # Exactly what `unpack` writes again, and at least four bytes for the index to tell ids apart.
    if len(rest) >= 8 and (len(rest) == 32 if dashed else True) and not set(rest) - _HEX and len(rest) % 2 == 0:
        return bytes([PREFIXES.index(prefix) | (_DASHED if dashed else 0)]) + bytes.fromhex(rest)
    return storable(request_id)


def unpack(stored: bytes | str) -> str:
    """The request id that `pack` made `stored` of."""
    if isinstance(stored, str):
        return stored
    text = stored[1:].hex()
    if stored[0] & _DASHED:
        text = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    return PREFIXES[stored[0] & ~_DASHED] + text
