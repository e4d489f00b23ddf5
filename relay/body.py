"""For dialects: the raw body of a request, read once and checked only where the relay itself depends on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from typing import Any

import orjson

from relay.errors import BadParameter, PluginError, RelayError
from relay.fields import boolean, word

__all__ = [
    "MAX_NAME",
    "check_bounds",
    "check_model",
    "check_names",
    "deep",
    "read_body",
    "read_model",
    "read_object",
    "read_stream",
]

DEEP = "the body is nested too deeply"
LONG = 4096
"""Bytes of a body that is searched."""
FEW = 64
"""Quotes up to which what is between them is looked at one by one."""
SPELLED = len("model") * len("\\u006d")
BACKSLASH = 0x5C
BOM = b"\xef\xbb\xbf"
MODEL = frozenset({"model"})
SETS = 256
LONGEST_NAMES = 1024
MAX_NAME = 256
"""Longest model name, in characters."""


def read_body(raw: bytes) -> dict[str, Any]:
    """The JSON object that `raw` spells, of a dialect that names the model in it. Raises BadParameter as `read_object`.

    A body with two `model` keys is refused, and so is one that spells the key in another way, which some upstreams read
    all the same: the relay and the upstream could disagree about which one counts, and only one of them checks keys.
    """
    data = read_object(raw)
    check_names(data)
    if not _once(raw, data):
        _refuse_twins(raw)
    return data


def check_names(data: Mapping[str, Any]) -> None:
    """No field of a body is another spelling of `model`. Raises BadParameter."""
    names = tuple(data)
    if names not in _proper:
        _refuse_spellings(data, MODEL)
        _remember(names)


_proper: dict[tuple[str, ...], None] = {}
"""Names of the fields of bodies that were looked at before: clients send a few sets of them, over and over."""


def _remember(names: tuple[str, ...]) -> None:
    """None of these is another spelling. Neither many are kept nor long ones: callers choose them."""
    if sum(map(len, names)) <= LONGEST_NAMES:
        if len(_proper) >= SETS:
            _proper.clear()
        _proper[names] = None


def _once(raw: bytes, data: Mapping[str, Any]) -> bool:
    """Whether the key `model` is there only once, as far as that can be seen quickly. Else it is to be looked at."""
    name = data.get("model")
    if len(raw) >= LONG:
        words = _words(raw)
        if words is not None:
            # A long prompt. A key is all that stands between two quotes; with escapes for letters it is longer.
            spelled = any(b"\\u006" in word for word in words)
            return not spelled and words.count(b"model") == (2 if name == "model" else 1)
        if _written_alike(raw, data):
            # To write it again is faster than to search it, and one that comes out the same has no twins.
            return True
    # Python searches for up to five bytes in half the time that it takes for six.
    times = 2 if type(name) is str and name.endswith("odel") else 1
    return raw.count(b'odel"') == times and (BACKSLASH not in raw or raw.find(b"u006") < 0)


def _words(raw: bytes) -> list[bytes] | None:
    """What stands between two quotes, but for long texts; None if there are many."""
    found: list[bytes] = []
    place = raw.find(b'"')
    for _ in range(FEW):
        begin, place = place + 1, raw.find(b'"', place + 1)
        if place < 0:
            return found
        if place - begin <= SPELLED:
            found.append(raw[begin:place])
    return None


def _written_alike(raw: bytes, data: Mapping[str, Any]) -> bool:
    """Whether `raw` is just how this program would write `data`, as most clients do."""
    try:
        return orjson.dumps(data) == raw
    except orjson.JSONEncodeError:
        # Nested too deeply for that.
        return False


def read_object(raw: bytes) -> dict[str, Any]:
    """The JSON object that `raw` spells.

    Raises BadParameter saying what is wrong and where, without showing any of it.
    """
    if raw.startswith(BOM):
        raise BadParameter("the body begins with a byte order mark; send JSON in UTF-8 without one")
    if not raw or raw.isspace():
        raise BadParameter("the body is empty; send a JSON object")
    try:
        data = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadParameter(_reason(raw, error)) from None
    if type(data) is not dict:
        raise BadParameter("the body must be a JSON object")
    return data


def check_bounds(raw: bytes, data: Mapping[str, Any], names: Set[str]) -> None:
    """Refuse a body that says two things of what a call may cost. Raises BadParameter.

    `names` are the fields that say so. Of a key that is there twice the relay reads the last one, and upstreams the
    first, or the last; some do not look at its case either. So a body must not have one twice, anywhere in it, and no
    other spelling of those.
    """
    _refuse_spellings(data, names)
    if _written_alike(raw, data):
        return
    try:
        json.loads(raw, object_pairs_hook=_untwinned)
    except RecursionError:
        raise BadParameter(DEEP) from None


def _untwinned(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise BadParameter("the body has a key twice in one object, and nobody can tell which one counts")


def _refuse_spellings(data: Mapping[str, Any], names: Set[str]) -> None:
    for name in data:
        meant = name.casefold()
        if name not in names and meant in names:
            raise BadParameter(f"the body spells {meant} in another way, which upstreams may read", param=meant)


def deep(raw: bytes, error: BaseException) -> BadParameter | None:
    """The refusal that is due in place of an error if it came of a body that is nested more deeply than can be written.

    Asked only once something has failed: to look at every body for it would cost more than it is worth.
    """
    if isinstance(error, RelayError) and not isinstance(error, PluginError):
        return None
    try:
        orjson.dumps(orjson.loads(raw))
    except orjson.JSONEncodeError:
        return BadParameter(DEEP)
    except orjson.JSONDecodeError:
        pass
    return None


def _reason(raw: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as broken:
        return f"the body is not UTF-8: byte {broken.start} cannot be decoded"
    return f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"


def _refuse_twins(raw: bytes) -> None:
    """Look at the keys of the outermost object, which is the last one that the parser completes."""
    outermost: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        outermost[:] = [name for name, _ in pairs]

    try:
        json.loads(raw, object_pairs_hook=note)
    except RecursionError:
        raise BadParameter(DEEP) from None
    if outermost.count("model") > 1:
        raise BadParameter("the body has more than one model", param="model")


def read_model(data: Mapping[str, Any]) -> str:
    """The model's name."""
    name = data.get("model")
    if type(name) is str and 0 < len(name) <= MAX_NAME and name.isprintable():
        return name
    if name is None:
        raise BadParameter("model is missing", param="model")
    return check_model(word(name, "model"))


def check_model(name: str) -> str:
    """A model's name as it may be looked up and shown."""
    if len(name) > MAX_NAME:
        raise BadParameter(f"model must be at most {MAX_NAME} characters", param="model")
    if not name.isprintable():
        raise BadParameter("model must not hold control characters", param="model")
    return name


def read_stream(data: Mapping[str, Any]) -> bool:
    """Whether the caller wants a stream."""
    value = data.get("stream")
    return False if value is None else boolean(value, "stream")
