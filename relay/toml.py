"""TOML with line numbers: the standard library parses, this finds where each key stands."""

from __future__ import annotations

import re
import tomllib
from typing import Any, TypeAlias

__all__ = ["Lines", "Path", "dotted", "line_of", "lines"]

Path: TypeAlias = tuple[str | int, ...]
"""A place in a document: `("upstreams", "groq", "api_key")`, with numbers for array elements."""
Lines: TypeAlias = dict[Path, int]

_KEY = re.compile(
    r"""\s*((?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*'))*)\s*="""
)
_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")


def lines(text: str) -> Lines:
    """The line (from 1) of every table header and key that starts a line of `text`, which must be valid TOML.

    Keys inside inline tables have no line of their own; ask `line_of`, which falls back to what contains them.
    """
    found: Lines = {}
    table: Path = ()
    counts: dict[Path, int] = {}
    closing: str | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if closing is not None:
            if closing in line:
                closing = None
            continue
        stripped = line.strip()
        if stripped.startswith("[["):
            table = _names(stripped.split("]]")[0][2:])
            index = counts.get(table, -1) + 1
            counts[table] = index
            found.setdefault(table, number)
            table = (*table, index)
            found[table] = number
        elif stripped.startswith("["):
            header = re.match(r"\[([^\]]*)\]\s*(#.*)?$", stripped)
            if header is not None:
                table = _names(header[1])
                found.setdefault(table, number)
        elif match := _KEY.match(line):
            found.setdefault((*table, *_names(match[1])), number)
            for quotes in ('"""', "'''"):
                if line.count(quotes) == 1:
                    closing = quotes
    return found


def _names(key: str) -> Path:
    """`a."b c".d` as its parts."""
    try:
        value: Any = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return (key,)
    names: list[str] = []
    while isinstance(value, dict):
        name, value = next(iter(value.items()))
        names.append(name)
    return tuple(names)


def line_of(found: Lines, path: Path) -> int | None:
    """The line of `path`, or of the nearest thing around it."""
    while path:
        if path in found:
            return found[path]
        path = path[:-1]
    return None


def dotted(path: Path) -> str:
    """A path as a person writes it: `upstreams.groq.models[2]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if _BARE.match(part) else f'"{part}"'
            text += f".{shown}" if text else shown
    return text
