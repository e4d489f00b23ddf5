"""What a process and all its descendants use, out of /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cpu_seconds", "members", "resident_mib"]

TICK = 1 / os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
PROC = Path("/proc")


def members(root: int) -> Iterator[int]:
    """The process and its descendants that are alive."""
    yield root
    for task in _tasks(root):
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            yield from members(int(child))


def cpu_seconds(root: int) -> float:
    """CPU time of the tree since it began, in user and kernel space together, with that of members that have ended.

    The scheduler's own nanoseconds are used where it has them: the usual counters move in steps of 10 ms.
    """
    return sum(_cpu(member) for member in members(root))


def resident_mib(root: int) -> float:
    """Memory of the tree in MiB. Pages that several members share are counted for each of them."""
    return sum(_pages(member) for member in members(root)) * PAGE / 2**20


def _tasks(process: int) -> list[Path]:
    try:
        return list((PROC / str(process) / "task").iterdir())
    except OSError:
        return []


def _cpu(process: int) -> float:
    try:
        fields = (PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    # Threads that have ended are only in the process's own counters, and its ended children only in the last two.
    counted = (int(fields[11]) + int(fields[12])) * TICK
    precise = sum(_nanoseconds(task) for task in _tasks(process)) / 1e9
    return (precise if counted - precise < 5 * TICK else counted) + (int(fields[13]) + int(fields[14])) * TICK


def _nanoseconds(task: Path) -> int:
    try:
        return int((task / "schedstat").read_text().split()[0])
    except (OSError, IndexError):
        return 0


def _pages(process: int) -> int:
    try:
        return int((PROC / str(process) / "statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
