"""Times and durations as people write them on a command line: `30d`, `12h`, `2026-11-01`, `2026-11-01T08:30`."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Final

import click

__all__ = ["DURATION", "FUTURE", "PAST", "shown"]

UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
FORMATS: Final = ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S")
_DURATION = re.compile(r"(\d{1,9})([smhdw])")


def _milliseconds(text: str) -> int | None:
    match = _DURATION.fullmatch(text.strip().lower())
    return None if match is None else int(match[1]) * UNITS[match[2]] * 1000


def _date(text: str) -> int | None:
    for form in FORMATS:
        try:
            moment = datetime.strptime(text.removesuffix("Z"), form).replace(tzinfo=UTC)
        except ValueError:
            continue
        return int(moment.timestamp() * 1000)
    return None


class Duration(click.ParamType[int]):
    """A length of time, in milliseconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it, or tell how it is written."""
        if isinstance(value, int):
            return value
        found = _milliseconds(str(value))
        if found is None:
            self.fail(f"{value!r} is not a duration: write 90s, 15m, 12h, 30d or 4w", param, ctx)
        return found


class Moment(click.ParamType[int]):
    """A point in time, in Unix milliseconds: a date in UTC, or a duration before (`sign` -1) or after now (1)."""

    name = "time"

    def __init__(self, sign: int) -> None:
        self.sign = sign

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it, or tell how it is written."""
        if isinstance(value, int):
            return value
        text = str(value).strip()
        duration = _milliseconds(text)
        if duration is not None:
            moment = int(time.time() * 1000) + self.sign * duration
            if 0 <= moment < 253_402_300_800_000:
                return moment
            self.fail(f"{value!r} is too long", param, ctx)
        date = _date(text)
        if date is None:
            self.fail(f"{value!r} is not a time: write 12h, 30d, 2026-11-01 or 2026-11-01T08:30 (UTC)", param, ctx)
        return date


DURATION: Final = Duration()
PAST: Final = Moment(-1)
FUTURE: Final = Moment(1)


def shown(milliseconds: int | None, *, seconds: bool = False) -> str | None:
    """Unix milliseconds as a UTC time for tables."""
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")
