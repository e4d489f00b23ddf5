"""For plugin authors: the pieces that every translator needs, sans-IO and measured.

Decoders of wire framing (`SseDecoder`, `NdjsonDecoder`), a filter that passes whole events only (`WholeEvents`),
writers (`sse_frame`), JSON with the relay's manners (`loads`, `dumps`), and helpers for `data:` URLs, token estimates
and model names. For commands and caches: `table`, `usd`, `cache_dir`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from relay.body import BOM
from relay.dialect import Head
from relay.errors import BadParameter, UpstreamBusy, UpstreamError, UpstreamProtocol, UpstreamRefused
from relay.events import Event
from relay.fold import Fold
from relay.ir import Response
from relay.lost import FOREIGN_LOSSES, UNHEARD, Losses, asked_for, foreign_fields, last_words
from relay.paths import cache_dir
from relay.pricing import usd
from relay.retry import retry_after
from relay.table import table

__all__ = [
    "EVENT_END",
    "FOREIGN_LOSSES",
    "MAX_MESSAGE",
    "Losses",
    "NdjsonDecoder",
    "SseDecoder",
    "UNHEARD",
    "WholeEvents",
    "asked_for",
    "cache_dir",
    "data_url",
    "dumps",
    "error_for_status",
    "estimate_tokens",
    "folded",
    "foreign_fields",
    "json_object",
    "last_words",
    "loads",
    "media_type_of",
    "parse_data_url",
    "plain_message",
    "renamed",
    "retry_after",
    "rewritten",
    "splice_model",
    "sse_frame",
    "table",
    "token_count",
    "upstream_json",
    "usd",
]

CR, LF = 0x0D, 0x0A
"""As numbers: to look for bytes in bytes with `in` raises an error and catches it first."""
MAX_EVENT = 16 * 1024 * 1024
"""Longest event, in bytes, that a decoder buffers before it calls the upstream broken."""


class SseDecoder:
    """Server-sent events out of any cut of their bytes, as (event name, data) pairs.

    Follows the WHATWG rules: LF, CRLF and CR end lines, a byte order mark is skipped, comments and unknown fields are
    ignored, several `data` lines join with LF. Two deviations, both because real upstreams need them: an event name
    without data is dropped as the rules say, and `flush` gives the last event of a stream that ends without its blank
    line. Names are `""` where the stream gives none.
    """

    __slots__ = ("_cr", "_held", "_limit", "_started")

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self._held = bytearray()
        self._cr = False
        self._started = False
        self._limit = limit

    def feed(self, data: bytes) -> list[tuple[str, bytes]]:
        """Events completed by `data`. Raises UpstreamProtocol if one grows past the limit."""
        held = self._held
        alone = data.startswith(b"data: ") and data.endswith(b"\n\n") and data.find(b"\n") == len(data) - 2
        if alone and not held and not self._cr and CR not in data:
            # Nearly every piece of every vendor is one such line.
            self._started = True
            return [("", data[6:-2])]
        if CR in data or self._cr:
            data = self._unify(data)
        elif self._started and not held and data.endswith(b"\n\n"):
            return _events(data)
        buffer = data
        if held:
            # What is held has no blank line in it. Looking for one in all of it again with each piece, or putting it
            # together anew, would take a time that grows with the square of an event's length.
            if self._started and b"\n\n" not in data and not (data[:1] == b"\n" and held[-1:] == b"\n"):
                held += data
                self._bounded()
                return []
            held += data
            buffer = bytes(held)
            held.clear()
        if not self._started:
            if len(buffer) < len(BOM) and BOM.startswith(buffer):
                held += buffer
                return []
            self._started = True
            buffer = buffer.removeprefix(BOM)
        end = buffer.rfind(b"\n\n")
        if end < 0:
            held += buffer
            self._bounded()
            return []
        held += buffer[end + 2 :]
        return _events(buffer[: end + 2])

    def plain(self, data: bytes) -> list[bytes] | None:
        """The data that `feed` would give, if `data` is whole events of one `data` line each and nothing else.

        None, and nothing has happened, if it is not.
        """
        if self._held or self._cr or not data.startswith(b"data: ") or not data.endswith(b"\n\n") or CR in data:
            return None
        found = data[6:-2].split(b"\n\ndata: ")
        # Whatever is no such event has brought line ends of its own.
        if data.count(b"\n") != 2 * len(found):
            return None
        self._started = True
        return found

    def flush(self) -> list[tuple[str, bytes]]:
        """The event that was still open when the stream ended, if it had data."""
        rest = bytes(self._held).removeprefix(BOM)
        self._held.clear()
        event = _event(rest)
        return [] if event is None else [event]

    def _bounded(self) -> None:
        if len(self._held) > self._limit:
            raise UpstreamProtocol(f"an event of the upstream's stream is longer than {self._limit} bytes")

    def _unify(self, data: bytes) -> bytes:
        """Make every line end LF. A CR at the end of one piece may belong to an LF at the start of the next."""
        if not data:
            return data
        if self._cr and data.startswith(b"\n"):
            data = data[1:]
        self._cr = data.endswith(b"\r") if data else False
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _events(data: bytes) -> list[tuple[str, bytes]]:
    """The events of bytes that end with a blank line."""
    events = []
    for block in data[:-2].split(b"\n\n"):
        # Nearly every block of every vendor is one `data: {...}` line.
        if block.startswith(b"data: ") and LF not in block:
            events.append(("", block[6:]))
        elif (event := _event(block)) is not None:
            events.append(event)
    return events


def _event(block: bytes) -> tuple[str, bytes] | None:
    name = ""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        field, colon, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if field == b"data":
            data.append(value)
        elif field == b"event" and colon:
            name = value.decode("utf-8", "replace")
    return (name, b"\n".join(data)) if data else None


class NdjsonDecoder:
    """One JSON value a line, out of any cut of the bytes. Empty lines are skipped."""

    __slots__ = ("_held", "_limit")

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self._held = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> list[bytes]:
        """Lines completed by `data`. Raises UpstreamProtocol if one grows past the limit."""
        held = self._held
        end = data.rfind(b"\n") + 1
        lines: list[bytes] = []
        if end:
            lines = (bytes(held) + data[:end]).split(b"\n")
            held.clear()
        held += data[end:]
        if len(held) > self._limit:
            raise UpstreamProtocol(f"a line of the upstream's stream is longer than {self._limit} bytes")
        return [line for raw in lines if (line := raw.strip())]

    def flush(self) -> list[bytes]:
        """The last line, if the stream ended without a line end."""
        rest = bytes(self._held).strip()
        self._held.clear()
        return [rest] if rest else []


EVENT_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
"""The blank line behind an event, whatever the line ends are. The groups are atomic: CRLF is not two line ends."""
EDGE = 3
"""Bytes of a blank line that may have come before its last one."""


BLANK_LINES = (b"\n\n", b"\r\n\r\n")
"""Behind which nothing is held back, whatever came before."""


class WholeEvents:
    """A `StreamFilter` that passes whole events only, unchanged.

    What follows the last complete event is held back until it is complete too. Where the upstream breaks off inside of
    an event, the caller's error event then follows a good one; behind half a one it would be read as more of the same.
    """

    __slots__ = ("_held", "_open")

    def __init__(self) -> None:
        self._held = bytearray()
        self._open = False
        """Whether an event was so long that the filter gave up holding it back."""

    def feed(self, data: bytes, /) -> bytes:
        """What of `data`, and of bytes held back before, goes to the caller now."""
        held = self._held
        if not held and not self._open and data.endswith(BLANK_LINES):
            return self._filtered(data)
        buffer = data
        if held:
            # Only where the pieces meet and in the new one can an event end: see `SseDecoder.feed`.
            if not self._open and len(held) + len(data) <= MAX_EVENT and not self._last_end(held[-EDGE:] + data):
                held += data
                return b""
            held += data
            buffer = bytes(held)
            held.clear()
        end = self._last_end(buffer)
        complete = buffer[:end]
        held += buffer[end:]
        if self._open and end:
            # The rest of the long event ends here.
            first = EVENT_END.search(complete)
            assert first is not None
            self._open = False
            return complete[: first.end()] + self._filtered(complete[first.end() :])
        passed = self._filtered(complete)
        if self._open or len(held) > MAX_EVENT:
            self._open = True
            # A line end may be half of a blank line: it stays until it is known.
            keep = len(held) - len(held.rstrip(b"\r\n"))
            passed += held[: len(held) - keep]
            del held[: len(held) - keep]
        return passed

    @property
    def resting(self) -> bool:
        """Whether a whole event of plain text would pass unchanged and leave no trace: then it need not be shown."""
        return not self._held and not self._open

    def rested(self, data: bytes) -> None:
        """Events that passed without being shown, in chunks or without: the last of them is the last so far."""

    def last(self, data: bytes) -> bytes:
        """The events that `data` completes, if nothing is wanted of what follows them."""
        whole = not self._open and self._last_end(self._held[-EDGE:] + data)
        passed = self.feed(data) if whole else b""
        self._held.clear()
        return passed

    def close(self) -> bytes:
        """What was still held back: the last event, without its blank line."""
        rest = bytes(self._held)
        self._held.clear()
        return rest

    @staticmethod
    def _last_end(buffer: bytes | bytearray) -> int:
        """Where the last complete event ends. A CR at the very end may be half of a CRLF, so it does not count."""
        usable = len(buffer) - 1 if buffer.endswith(b"\r") else len(buffer)
        if CR not in buffer:
            place = buffer.rfind(b"\n\n")
            return place + 2 if place >= 0 else 0
        end = 0
        for match in EVENT_END.finditer(buffer, 0, usable):
            end = match.end()
        return end

    def _filtered(self, complete: bytes) -> bytes:
        """What passes of these complete events."""
        return complete


def sse_frame(data: bytes, event: str = "") -> bytes:
    """One event. `data` must hold no line break, which JSON written by `dumps` never does."""
    if event:
        return b"event: " + event.encode() + b"\ndata: " + data + b"\n\n"
    return b"data: " + data + b"\n\n"


def loads(data: bytes | str) -> Any:
    """JSON from an upstream: orjson first, then the standard library for what orjson is too strict about.

    Vendors do send lone surrogates and NaN. Raises ValueError if neither can read it.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        if isinstance(data, bytes):
            data = data.decode("utf-8", "replace")
        try:
            return json.loads(data)
        except RecursionError:
            raise ValueError("nested too deeply") from None


def dumps(value: Any) -> bytes:
    """JSON to the wire. Raises BadParameter for what cannot be written (nesting over 254 levels, most likely)."""
    try:
        return orjson.dumps(value)
    except TypeError as error:
        try:
            return json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=_thaw).encode()
        except (TypeError, ValueError, RecursionError):
            raise BadParameter(f"the request cannot be written as JSON: {error}") from None


def _thaw(value: Any) -> Any:
    """For `json.dumps`, which knows no ready-made JSON: the value of what `json_object` gave."""
    if isinstance(value, orjson.Fragment):
        return json.loads(orjson.dumps(value))
    raise TypeError(f"{type(value).__name__} is not JSON")


def upstream_json(body: bytes) -> dict[str, Any]:
    """An upstream's JSON object. Raises UpstreamProtocol if it is anything else."""
    try:
        value = loads(body)
    except ValueError:
        raise UpstreamProtocol("the upstream's answer is not JSON") from None
    if not isinstance(value, dict):
        raise UpstreamProtocol("the upstream's answer is not a JSON object")
    return value


def data_url(media_type: str, data: str) -> str:
    """A `data:` URL of base64 text."""
    return f"data:{media_type};base64,{data}"


_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[^;,]*)*)(;base64)?,", re.ASCII)


def parse_data_url(url: str) -> tuple[str, str] | None:
    """(media type, base64 text) of a `data:` URL, or None if it is another kind of URL.

    Raises ValueError if it is a `data:` URL that cannot be read.
    """
    if url[:5].lower() != "data:":
        return None
    match = _DATA_URL.match("data:" + url[5:])
    if match is None:
        raise ValueError("not a data: URL of the form data:<type>;base64,<data>")
    payload = url[match.end() :]
    media_type = match[1] or "text/plain"
    if match[3] is None:
        from urllib.parse import unquote_to_bytes

        return media_type, base64.b64encode(unquote_to_bytes(payload)).decode("ascii")
    try:
        binascii.a2b_base64(payload[:256] if len(payload) % 4 == 0 else payload, strict_mode=len(payload) <= 256)
    except (binascii.Error, ValueError):
        raise ValueError("its data is not base64") from None
    return media_type, payload


def estimate_tokens(text: str) -> int:
    """Tokens of `text`, roughly: a quarter per ASCII character, 0.72 per wide one, half of each for those between.

    Within about 15 % for English and code and 11 % for Chinese, Japanese and Korean, where the usual "length by four"
    is 60 % too low. Good enough for a reservation that the upstream's own count settles a moment later.
    """
    length = len(text)
    if text.isascii():
        return (length + 3) // 4
    # Two bytes more than one is what wide characters take. Those of two bytes count as half wide, which fits them.
    wide = (len(text.encode("utf-8", "surrogatepass")) - length) / 2
    return int(0.72 * wide + (length - wide) / 4) + 1


MOST_TRIED = 16 * 1024 * 1024
"""Bytes of bodies that are read again to find a place in one."""
_MODEL = re.compile(rb'"model"(\s*:\s*)"(?:[^"\\]|\\.)*"')


def splice_model(raw: bytes, data: Mapping[str, Any], model: str) -> bytes:
    """`raw` with its top-level `model` string replaced and every other byte as it was.

    `data` is `raw` parsed. Each place that looks like it is tried and parsed again: the one after which everything but
    `model` is equal is the top-level one, whatever the nesting looks like.
    """
    if data.get("model") == model:
        return raw
    wanted = {**data, "model": model}
    name = dumps(model)
    for number, match in enumerate(_MODEL.finditer(raw), 1):
        candidate = raw[: match.start()] + b'"model"' + match[1] + name + raw[match.end() :]
        if orjson.loads(candidate) == wanted:
            return candidate
        if number * len(raw) > MOST_TRIED:
            break
    # As below.
    return dumps(wanted)


def renamed(head: Head, model: str) -> bytes:
    """A request's raw body for another model, with every other byte as it was."""
    if head.outline is None or head.outline.spot is None:
        return splice_model(head.raw, head.data, model)
    if model == head.model:
        return head.raw
    begin, end = head.outline.spot
    # A view: a body is not copied twice.
    return b"".join((head.raw[:begin], dumps(model), memoryview(head.raw)[end:]))


def rewritten(candidates: Iterable[bytes], wanted: Mapping[str, Any]) -> bytes:
    """The first of these bodies that reads as it should, so that every byte stays that may; else it is written anew.

    That is so where a key is written with escapes, and where so many places look like the right one that to try them
    all would take too long.
    """
    tried = 0
    for candidate in candidates:
        if orjson.loads(candidate) == wanted:
            return candidate
        tried += len(candidate)
        if tried > MOST_TRIED:
            break
    return dumps(wanted)


def error_for_status(
    status: int,
    message: str,
    headers: Mapping[str, str],
    *,
    code: str | None = None,
    param: str | None = None,
) -> UpstreamError:
    """The error that an upstream's status means, with its message; what every `translate_error` ends with."""
    wait = retry_after(headers, limited=status == 429)
    if status in (401, 403):
        # Ours, not the caller's: shown as a fault of the relay's set-up.
        refused = UpstreamError(
            "the upstream refused the relay's own credentials",
            code="upstream_credentials",
            upstream_status=status,
        )
        refused.should_retry = False
        return refused
    if status in (429, 503, 529):
        busy = UpstreamBusy(
            message,
            code=code if status == 429 else "upstream_overloaded",
            status=429 if status == 429 else 503,
            retry_after=wait,
            upstream_status=status,
        )
        if status != 429:
            busy.type = UpstreamError.type
        return busy
    if status == 402:
        spent = UpstreamError(
            "the relay's account at the upstream is out of credit",
            code="upstream_credit",
            upstream_status=status,
        )
        spent.should_retry = False
        return spent
    if 400 <= status < 500 and status not in (405, 408, 409):
        shown = status if status in (404, 413, 422) else 400
        return UpstreamRefused(message, code=code, param=param, status=shown, upstream_status=status)
    return UpstreamError(message, code=code, upstream_status=status, retry_after=wait)


MAX_TOKENS = 10**9
"""No call has more tokens than this; a larger count is a fault of the upstream's."""


def token_count(value: Any) -> int | None:
    """A token count as an upstream reports it, or None ("not reported") if it cannot be one.

    Negative, fractional, boolean and absurdly large numbers have all been seen; believed, each of them would damage a
    budget for good.
    """
    if type(value) is int and 0 <= value <= MAX_TOKENS:
        return value
    return None


def json_object(text: str) -> orjson.Fragment | dict[str, Any] | None:
    """The JSON object that `text` spells, for writing into a larger JSON value with `dumps`; None if it is not one.

    Valid JSON is written again as it stands, byte for byte. An empty text is an empty object: that is how several
    vendors write the arguments of a function that takes none.
    """
    if not text.strip():
        return {}
    try:
        value = orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        try:
            value = loads(text)
        except ValueError:
            return None
        return value if isinstance(value, dict) else None
    return orjson.Fragment(text) if isinstance(value, dict) else None


_MAGIC = (
    ("iVBORw0KGg", "image/png"),
    ("/9j/", "image/jpeg"),
    ("R0lGOD", "image/gif"),
    ("UklGR", "image/webp"),
    ("JVBERi0", "application/pdf"),
)


def media_type_of(data: str) -> str | None:
    """The media type that the first bytes of base64 text show, for the images and documents that models take.

    Callers often label a JPEG as PNG. Some vendors look for themselves, others refuse a wrong label.
    """
    for prefix, media_type in _MAGIC:
        if data.startswith(prefix):
            # RIFF is also how WAV begins: what it holds stands in bytes 8 to 11.
            return None if prefix == "UklGR" and _riff(data) != b"WEBP" else media_type
    return None


def _riff(data: str) -> bytes:
    try:
        return base64.b64decode(data[:16])[8:12]
    except (binascii.Error, ValueError):
        return b""


MAX_MESSAGE = 2000
"""Longest upstream error message that is shown to a caller, in characters."""


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]+")
"""What a terminal would obey, and nobody can read."""


def plain_message(body: bytes, status: int) -> str:
    """What an error body not in the vendor's own form says: its text, or only the status if it is a web page."""
    text = _CONTROL.sub(" ", body[: 8 * MAX_MESSAGE].decode("utf-8", "replace")).strip()
    if not text or text.startswith("<"):
        return f"the upstream answered with status {status}"
    return text[:MAX_MESSAGE]


def folded(events: Iterable[Event]) -> Response:
    """The response that a decoder's events spell out: for families whose complete answers look like their streams.

    Raises the error of a `Failure` among them.
    """
    fold = Fold()
    fold.add(events)
    if fold.error is not None:
        raise fold.error
    return fold.response()
