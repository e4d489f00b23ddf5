"""A configuration file to validated settings. Every mistake is found in one reading, with its key and line.

Values may hold `${NAME}`, `${NAME:-default}` and `${file:/path}`; `$$` is a dollar sign. They are put in after the TOML
was parsed, so a secret with quotes or line breaks in it cannot change what the file means.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Literal, get_args, get_origin

import msgspec

from relay.settings import Settings
from relay.toml import Lines, Path, dotted, line_of, lines

__all__ = ["Config", "ConfigError", "Problem", "read_config", "read_text"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where, and what is wrong. The offending value is never repeated, it may be a secret."""

    path: Path
    message: str
    line: int | None = None

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        name = f"{dotted(self.path)}: " if self.path else ""
        return f"{place}{name}{self.message}"


class ConfigError(Exception):
    """The configuration cannot be used. `problems` holds every mistake in the order of the file."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        self.source = source
        self.problems = sorted(problems, key=lambda problem: problem.line or 0)
        super().__init__("\n".join(f"{source}: {problem}" for problem in self.problems))


@dataclass(frozen=True, slots=True)
class Config:
    """Valid settings, and where they came from."""

    settings: Settings
    source: str = "(no configuration file)"
    lines: Lines | None = None

    def problem(self, path: Path, message: str) -> Problem:
        """A mistake that only shows once plugins are known, placed like the others."""
        return Problem(path, message, line_of(self.lines or {}, path))


def read_config(file: FilePath, environ: Mapping[str, str] | None = None) -> Config:
    """Read a file. Raises ConfigError."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(str(file), [Problem((), f"cannot be read: {reason}")]) from None
    return read_text(text, str(file), environ)


def read_text(text: str, source: str, environ: Mapping[str, str] | None = None) -> Config:
    """Read a configuration's text. Raises ConfigError with all its mistakes."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = re.search(r"\(at line (\d+), column \d+\)", str(error))
        message = f"not valid TOML: {str(error).split(' (at ')[0]}"
        raise ConfigError(source, [Problem((), message, int(match[1]) if match else None)]) from None
    reader = _Reader(lines(text), os.environ if environ is None else environ)
    document = reader.interpolate(document, ())
    settings = reader.struct(Settings, document, ())
    if reader.problems:
        raise ConfigError(source, reader.problems)
    return Config(settings, source, reader.lines)


_REFERENCE = re.compile(r"\$(?:(\$)|\{(file:)?([^}:]+)(?::-([^}]*))?\})")


class _Reader:
    """Walks the document once for its variables and once for its types, collecting mistakes."""

    def __init__(self, where: Lines, environ: Mapping[str, str]) -> None:
        self.lines = where
        self.environ = environ
        self.problems: list[Problem] = []

    def wrong(self, path: Path, message: str) -> None:
        self.problems.append(Problem(path, message, line_of(self.lines, path)))

    def interpolate(self, value: Any, path: Path) -> Any:
        if isinstance(value, str):
            return _REFERENCE.sub(lambda match: self._resolve(match, path), value) if "$" in value else value
        if isinstance(value, dict):
            return {key: self.interpolate(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.interpolate(item, (*path, index)) for index, item in enumerate(value)]
        return value

    def _resolve(self, match: re.Match[str], path: Path) -> str:
        dollar, is_file, name, default = match.groups()
        if dollar:
            return "$"
        if is_file:
            try:
                found = FilePath(name).expanduser().read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError):
                self.wrong(path, f"the file {name!r} cannot be read")
                return ""
            if not found:
                self.wrong(path, f"the file {name!r} is empty")
            return found
        found = self.environ.get(name) or default
        if found is None:
            self.wrong(path, f"the environment variable {name} is not set")
            return ""
        return found

    def struct(self, kind: Any, table: Mapping[str, Any], path: Path) -> Any:
        """An instance of a settings class; fields that are wrong keep their default and are reported."""
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        values: dict[str, Any] = {}
        for key, value in table.items():
            field = fields.get(key)
            if field is None:
                import difflib

                near = difflib.get_close_matches(key, fields, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(fields)}"
                self.wrong((*path, key), f"unknown setting; {hint}")
            else:
                values[key] = self.value(field.type, value, (*path, key))
        return kind(**{key: value for key, value in values.items() if value is not _WRONG})

    def value(self, kind: Any, value: Any, path: Path) -> Any:
        struct = _struct_of(kind)
        if struct is not None:
            if not isinstance(value, dict):
                self.wrong(path, "must be a table")
                return _WRONG
            return self.struct(struct, value, path)
        if get_origin(kind) is dict and _struct_of(get_args(kind)[1]) is not None:
            if not isinstance(value, dict):
                self.wrong(path, "must be a table of tables")
                return _WRONG
            rows = {name: self.value(get_args(kind)[1], row, (*path, name)) for name, row in value.items()}
            return {name: row for name, row in rows.items() if row is not _WRONG}
        if get_origin(kind) is list and _struct_of(get_args(kind)[0]) is not None and isinstance(value, list):
            found = [self.element(get_args(kind)[0], item, (*path, index)) for index, item in enumerate(value)]
            return [item for item in found if item is not _WRONG]
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            allowed = get_args(kind) if get_origin(kind) is Literal and isinstance(value, str) else ()
            # The value itself is not repeated: it may be a secret that stands in the wrong place.
            self.wrong(path, f"must be one of {', '.join(allowed)}" if allowed else _plain(str(error)))
            return _WRONG

    def element(self, kind: Any, value: Any, path: Path) -> Any:
        """One of an array's elements, each of which is a text or a table."""
        if isinstance(value, str):
            return value
        if isinstance(value, dict):
            return self.struct(_struct_of(kind), value, path)
        self.wrong(path, "must be a string or a table")
        return _WRONG


_WRONG = object()


def _struct_of(kind: Any) -> type[msgspec.Struct] | None:
    """The settings class in `kind` or in `kind | None`."""
    for candidate in (kind, *get_args(kind)):
        if isinstance(candidate, type) and issubclass(candidate, msgspec.Struct):
            return candidate if get_origin(kind) is not dict else None
    return None


def _plain(message: str) -> str:
    """msgspec's message in a config author's words."""
    for python, toml in (
        ("`str`", "a string"),
        ("`int`", "a whole number"),
        ("`float`", "a number"),
        ("`bool`", "true or false"),
        ("`array`", "an array"),
        ("`object`", "a table"),
    ):
        message = message.replace(python, toml)
    return message[:1].lower() + message[1:]
