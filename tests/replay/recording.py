"""The recorded exchanges that are played through the relay."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATHS: Mapping[str, re.Pattern[str]] = {
    "openai-chat": re.compile(r"chat/completions/?$"),
    "openai-responses": re.compile(r"responses/?$"),
    "anthropic-messages": re.compile(r"messages/?$|:(stream)?[rR]awPredict$"),
    "gemini": re.compile(r":(stream)?[gG]enerateContent$"),
    "bedrock-converse": re.compile(r"/converse(-stream)?$"),
}
"""What was recorded of the families, by format: how the path of a generation ends."""

Exchange = dict[str, Any]
Group = tuple[str, bool]
"""Family of the recordings (the host's, mostly), and whether the answers are streams."""

HAND_MADE = "_handmade"
NEEDED = ("id", "dialect", "method", "path", "status", "streaming")
OPTIONAL: Mapping[str, Any] = {
    "request_body": None,
    "response_headers": {},
    "response_body_text": None,
    "response_body_b64": None,
    "fidelity": "",
    "family": "",
    "tags": [],
}


class NoRecordings(Exception):
    """There is nothing to play, or something that is not a recording."""


@dataclass
class Recordings:
    """What a folder holds."""

    exchanges: list[Exchange] = field(default_factory=list)
    """Generations of the families. Each has its answer's bytes under `body`."""
    others: Counter[str] = field(default_factory=Counter)
    """What is not for this relay, counted by what it is."""

    def groups(self) -> dict[Group, list[Exchange]]:
        """The exchanges by file and form."""
        groups: dict[Group, list[Exchange]] = defaultdict(list)
        for exchange in self.exchanges:
            file = HAND_MADE if exchange["fidelity"] == "hand-made" else exchange["family"]
            groups[file, exchange["streaming"]].append(exchange)
        return dict(groups)


def load(folder: Path) -> Recordings:
    """All recordings of a folder: one JSON object a line, in `*.jsonl` or `*.jsonl.gz`. Raises NoRecordings."""
    files = sorted(path for pattern in ("*.jsonl", "*.jsonl.gz") for path in folder.glob(pattern))
    if not files:
        raise NoRecordings(f"there are no recordings (*.jsonl or *.jsonl.gz) in {folder}")
    found = Recordings()
    for path in files:
        for number, line in enumerate(_lines(path), 1):
            _take(found, line, f"{path.name}:{number}")
    if not found.exchanges:
        raise NoRecordings(f"there is no recorded generation of {', '.join(PATHS)} in {folder}")
    return found


def _lines(path: Path) -> Iterator[str]:
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8", newline="\n")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8", newline="\n") as file
        ):
            yield from (line for line in file if line.strip())
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise NoRecordings(f"{path} cannot be read: {error}") from None


def _take(found: Recordings, line: str, where: str) -> None:
    try:
        exchange = json.loads(line)
    except ValueError:
        raise NoRecordings(f"{where} is not JSON") from None
    missing = [name for name in NEEDED if name not in exchange] if isinstance(exchange, dict) else ["everything"]
    if missing:
        raise NoRecordings(f"{where} is not a recording: it lacks {', '.join(missing)}")
    for name, value in OPTIONAL.items():
        if exchange.get(name) is None:
            exchange[name] = value
    path = PATHS.get(exchange["dialect"])
    if path is None:
        found.others[exchange["dialect"]] += 1
    elif exchange["method"] != "POST" or not path.search((exchange["path"] or "").partition("?")[0]):
        found.others[f"{exchange['dialect']}, but no generation"] += 1
    elif exchange["response_body_text"] is None and exchange["response_body_b64"] is None:
        found.others[f"{exchange['dialect']}, without an answer"] += 1
    else:
        exchange["body"] = _body(exchange, where)
        found.exchanges.append(exchange)


def _body(exchange: Exchange, where: str) -> bytes:
    text = exchange["response_body_text"]
    if text is not None:
        return bytes(text.encode("utf-8"))
    try:
        return base64.b64decode(exchange["response_body_b64"], validate=True)
    except ValueError:
        raise NoRecordings(f"{where} has a body that is not base64") from None
