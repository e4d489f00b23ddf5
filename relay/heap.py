"""The C library's heap: in one piece, and given back where it is free, if it knows of such things."""

from __future__ import annotations

import gc

__all__ = ["share", "tidy"]

try:
    from relay._native import share, trim
except ImportError:

    def share() -> bool:
        """Let all threads use one heap; whether that was possible. Theirs would each keep what is free in them."""
        # To ask for it from here would take more than it gives.
        return False

    def trim() -> bool:
        """Give back what is free; whether there was anything."""
        # Imported late, as few processes ever come to it.
        import ctypes

        try:
            return bool(ctypes.CDLL(None).malloc_trim(0))
        except (AttributeError, OSError):
            return False


def tidy() -> None:
    """Give back what is free already, and only kept for the next time."""
    gc.collect()
    trim()
