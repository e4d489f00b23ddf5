"""The C library's heap, and what it has of it that nobody needs."""

from __future__ import annotations

import gc

__all__ = ["tidy"]

try:
    from relay._native import trim
except ImportError:

    def trim() -> bool:
        """Give back what is free; whether there was anything."""
        # Imported late: it takes as much as there may be to give back.
        import ctypes

        try:
            return bool(ctypes.CDLL(None).malloc_trim(0))
        except (AttributeError, OSError):
            return False


def tidy() -> None:
    """Give back what is free already, and only kept for the next time."""
    gc.collect()
    trim()
