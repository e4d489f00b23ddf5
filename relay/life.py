"""Where a relay is in its life: whether it should still be asked, and since when it serves with which configuration."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from relay.errors import Unavailable

__all__ = ["Life", "Stopping"]


class Stopping(Unavailable):
    """The relay was told to stop, and this call has had all the time that there was."""

    code = "server_shutdown"

    def __init__(self) -> None:
        super().__init__("the relay is shutting down", retry_after=1.0)


class Life:
    """What `/readyz` tells. `wall` gives Unix seconds."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self.stopping = False
        """Set by the signal to stop, before anything else happens."""
        self.full: Callable[[], bool] = bool
        """Whether there is no room for more calls."""
        self._loaded = wall()
        self._failed: float | None = None
        self.lost_lines: Callable[[], int] = int
        """How many lines of the log nobody read in time."""
        self.in_place: Callable[[], bool] = lambda: True
        """Whether the database that is open is still the one that its path leads to."""
        self.restarts: Callable[[], Mapping[str, int]] = dict
        """What of the work beside the calls has failed and begun again, and how often."""
        self.stalls: Callable[[], Mapping[str, int]] = dict
        """How often, and for how long at most, the event loop was held up."""

    def loaded(self) -> None:
        """A new configuration is in force."""
        self._loaded, self._failed = self._wall(), None

    def kept(self) -> None:
        """A new configuration cannot be used: the one before stays."""
        self._failed = self._wall()

    def tell(self) -> dict[str, Any]:
        """All of it, for a probe."""
        config = {"loaded_at": _shown(self._loaded)}
        if self._failed is not None:
            config["refused_at"] = _shown(self._failed)
        status = "stopping" if self.stopping else "overloaded" if self.full() else "ready"
        return {
            "status": status,
            "config": config,
            "log_lines_lost": self.lost_lines(),
            "database": "in place" if self.in_place() else "gone",
            "restarts": dict(self.restarts()),
            "loop": {"stalls": 0, "longest_ms": 0, **self.stalls()},
        }


def _shown(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
