"""Tool arguments that are streamed value by value, each under its JSON path."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["PartialArguments"]

_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d+)\]|\[(['"])(.*?)\3\]""")
_VALUES = ("stringValue", "numberValue", "boolValue")
LONGEST_LIST = 100_000
"""Items that a path may ask for in one list: a broken path must not make the relay build millions."""


class PartialArguments:
    """Collects `partialArgs` into the object that they spell out."""

    __slots__ = ("_continued", "value")

    def __init__(self) -> None:
        self.value: dict[str, Any] = {}
        self._continued: str | None = None

    def add(self, entry: dict[str, Any]) -> bool:
        """Take in one value, and say whether it could be understood. A string may come in several pieces."""
        path = entry.get("jsonPath")
        if not isinstance(path, str):
            return False
        steps = _steps(path)
        if not steps:
            return False
        value = next((entry[name] for name in _VALUES if name in entry), None)
        joined = self._continued == path and isinstance(value, str)
        self._continued = path if entry.get("willContinue") else None
        return _put(self.value, steps, value, joined)


def _steps(path: str) -> list[str | int]:
    """`$.a[0]['b c']` as `["a", 0, "b c"]`; empty if it is not such a path."""
    if not path.startswith("$"):
        return []
    steps: list[str | int] = []
    at = 1
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None:
            return []
        steps.append(match[1] if match[1] is not None else int(match[2]) if match[2] is not None else match[4])
        at = match.end()
    return steps


def _put(root: dict[str, Any], steps: list[str | int], value: Any, joined: bool) -> bool:
    node: Any = root
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        fresh: Any = value if following is None else [] if isinstance(following, int) else {}
        if isinstance(step, int):
            if not isinstance(node, list) or step > min(len(node) + 1000, LONGEST_LIST):
                return False
            node.extend(None for _ in range(step + 1 - len(node)))
            old = node[step]
        else:
            if not isinstance(node, dict):
                return False
            old = node.get(step)
        if following is None:
            fresh = old + value if joined and isinstance(old, str) else value
        elif isinstance(old, type(fresh)):
            fresh = old
        node[step] = fresh
        node = fresh
    return True
