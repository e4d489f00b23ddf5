"""Words of the `openai-chat` wire format that more than one module needs, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay.ir import Extra, StopKind

__all__ = ["AUDIO_TYPES", "DIALECT", "FINISH_KINDS", "FINISH_WORDS", "RELAY_FORMAT", "own_fields", "own_extra"]

DIALECT = "openai-chat"

RELAY_FORMAT = "relay:"
"""Begins the `format` of a `reasoning_details` entry that the relay itself wrote; the dialect that the reasoning came
from follows. A client that replays the entry lets the relay give the signed reasoning back to that dialect."""

FINISH_KINDS: Mapping[str, StopKind] = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "complete": "stop",
    "COMPLETE": "stop",
    "STOP": "stop",
    "length": "length",
    "model_length": "length",
    "max_tokens": "length",
    "MAX_TOKENS": "length",
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "filter",
    "refusal": "filter",
    "sensitive": "filter",
    "SAFETY": "filter",
    "error": "error",
    "abort": "error",
    "network_error": "error",
    "insufficient_system_resource": "error",
}
"""What the hosts' finish reasons mean. A word that is not here is `other`."""

FINISH_WORDS: Mapping[StopKind, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "filter": "content_filter",
    "error": "error",
    "other": "stop",
}
"""What clients are told. The vocabulary is closed: a client that checks it would refuse a word of another vendor."""

AUDIO_TYPES: Mapping[str, str] = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "opus": "audio/opus",
    "ogg": "audio/ogg",
    "aac": "audio/aac",
    "m4a": "audio/mp4",
    "webm": "audio/webm",
    "pcm16": "audio/pcm",
}
"""Media type by the format word of `input_audio`."""


def own_fields(extra: Extra | None) -> dict[str, Any]:
    """What this dialect put into `extra`; empty if nothing."""
    return extra.get(DIALECT, {}) if extra else {}


def own_extra(fields: dict[str, Any]) -> Extra | None:
    """`fields` as this dialect's `extra`; None if there are none."""
    return {DIALECT: fields} if fields else None
