"""What the configuration says of the cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

__all__ = ["CacheSettings", "read_settings"]

YEAR = 31_536_000.0
BOUNDS: Mapping[str, tuple[float, float]] = {
    "seconds": (1.0, YEAR),
    "megabytes": (1.0, 65_536.0),
    "largest_kilobytes": (1.0, 1_048_576.0),
    "wait_seconds": (0.001, 3600.0),
}


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """The options, with their defaults."""

    enabled: bool = False
    models: tuple[str, ...] | None = None
    """Names or patterns; None: all."""
    keys: tuple[str, ...] | None = None
    seconds: float = 3600.0
    megabytes: float = 64.0
    largest_kilobytes: float = 1024.0
    shared: bool = False
    coalesce: bool = False
    wait_seconds: float = 30.0

    @property
    def most(self) -> int:
        """Bytes of all answers."""
        return int(self.megabytes * 1024 * 1024)

    @property
    def largest(self) -> int:
        """Bytes of one answer."""
        return min(int(self.largest_kilobytes * 1024), self.most)


def read_settings(options: Mapping[str, Any]) -> CacheSettings:
    """The options as they are meant. Raises ValueError saying which one is wrong."""
    known = [field.name for field in fields(CacheSettings)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"there is no option {unknown[0]!r}; there are: {', '.join(known)}")
    return CacheSettings(**{name: _read(name, value) for name, value in options.items()})


def _read(name: str, value: Any) -> Any:
    if name in BOUNDS:
        low, high = BOUNDS[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"{name} must be a number from {low:g} to {high:g}")
        return float(value)
    if name in ("models", "keys"):
        if not isinstance(value, list) or not value or not all(isinstance(one, str) and one for one in value):
            raise ValueError(f"{name} must be a list of names or patterns; leave it out for all of them")
        return tuple(value)
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false")
    return value
