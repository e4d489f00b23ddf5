"""The C library's heaps, and what is in them that nobody needs."""

from __future__ import annotations

import gc

__all__ = ["keep", "share", "tidy"]

try:
    from relay._native import keep, share, trim
except ImportError:

    def keep() -> bool:
        """Hold on to 16 MiB that are free, for the bodies of calls to come; whether that is so from now on."""
        # As below.
        return False

    def share() -> bool:
        """Let all threads but the first use one heap; whether that is so from now on."""
        # To ask for it from here would take more than it gives.
        return False

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
