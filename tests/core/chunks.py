"""Bodies in chunks, taken apart."""

from __future__ import annotations

__all__ = ["unchunked"]


def unchunked(data: bytes) -> list[bytes]:
    """What is in these chunks, which are whole ones."""
    found, begin = [], 0
    while begin < len(data):
        line = data.index(b"\r\n", begin) + 2
        close = line + int(data[begin:line], 16)
        assert data[close : close + 2] == b"\r\n"
        found.append(data[line:close])
        begin = close + 2
    assert begin == len(data)
    return found
