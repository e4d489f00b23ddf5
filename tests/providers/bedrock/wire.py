"""Messages of the vendor's event streams, written."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from relay.kit import dumps


def packed(headers: bytes, payload: bytes) -> bytes:
    """A message of headers that are written already."""
    lengths = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    start = lengths + struct.pack(">I", zlib.crc32(lengths)) + headers + payload
    return start + struct.pack(">I", zlib.crc32(start))


def header(name: str, value: str) -> bytes:
    """A header that is a text."""
    raw = value.encode()
    return bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(raw)) + raw


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    return packed(b"".join(header(name, value) for name, value in headers.items()), payload)


def event(kind: str, value: Any) -> bytes:
    """An event as the vendor sends it, with the padding that hides its length."""
    fields = {**value, "p": "abcdef"} if isinstance(value, dict) else value
    about = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return message(about, json.dumps(fields).encode())


def exception(kind: str, value: Mapping[str, Any]) -> bytes:
    about = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return message(about, json.dumps(value).encode())


def delta(number: int, **piece: Any) -> bytes:
    return event("contentBlockDelta", {"contentBlockIndex": number, "delta": piece})


def stop(number: int) -> bytes:
    return event("contentBlockStop", {"contentBlockIndex": number})


def began(number: int, **start: Any) -> bytes:
    return event("contentBlockStart", {"contentBlockIndex": number, "start": start})


START = event("messageStart", {"role": "assistant"})
USAGE = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}


def ended(reason: str = "end_turn", **fields: Any) -> bytes:
    last = {"metrics": {"latencyMs": 7}, "usage": USAGE, **fields}
    return event("messageStop", {"stopReason": reason}) + event("metadata", last)


def streamed(content: list[dict[str, Any]], reason: str, **fields: Any) -> bytes:
    """The stream of a complete answer, as the vendor would have sent it."""
    return START + b"".join(_block(number, block) for number, block in enumerate(content)) + ended(reason, **fields)


def _halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


def _block(number: int, block: dict[str, Any]) -> bytes:
    ((name, value),) = block.items()
    pieces: list[bytes] = []
    match name:
        case "text":
            pieces = [delta(number, text=half) for half in _halves(value)]
        case "citationsContent":
            pieces = [delta(number, citation=citation) for citation in value["citations"]]
            pieces += [delta(number, text=half) for item in value.get("content", ()) for half in _halves(item["text"])]
        case "reasoningContent":
            shown = value.get("reasoningText")
            if shown is None:
                pieces = [delta(number, reasoningContent=value)]
            else:
                pieces = [delta(number, reasoningContent={"text": half}) for half in _halves(shown["text"])]
                if "signature" in shown:
                    pieces.append(delta(number, reasoningContent={"signature": shown["signature"]}))
        case "toolUse":
            start = {field: value[field] for field in ("toolUseId", "name", "type") if field in value}
            # As the relay writes it: there is more than one way to write small numbers.
            written = dumps(value["input"]).decode()
            pieces = [began(number, toolUse=start)]
            pieces += [delta(number, toolUse={"input": half}) for half in _halves(written)]
        case "toolResult":
            start = {field: value[field] for field in ("toolUseId", "status", "type") if field in value}
            pieces = [began(number, toolResult=start), delta(number, toolResult=value["content"])]
        case "image":
            pieces = [
                began(number, image={"format": value["format"]}),
                delta(number, image={"source": value["source"]}),
            ]
    return b"".join([*pieces, stop(number)])
