"""Requests of `openai-embeddings` clients: what the relay reads of all, and the hub's value of those it translates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay.errors import BadParameter
from relay.fields import fault, integer, text
from relay.ir import EmbeddingRequest
from relay.kit import estimate_tokens
from relay_openai.embeddings.wire import DIALECT, MAX_INPUTS, PURPOSES

__all__ = ["estimate_input", "parse_request", "read_inputs", "wants_base64"]

MAX_DIMENSIONS = 1_000_000
MAX_TOKEN = 2**31 - 1

_FIELDS = frozenset(("model", "input", "dimensions", "encoding_format", "input_type", "user"))


def read_inputs(data: Mapping[str, Any]) -> list[str | list[int]]:
    """The inputs, of which the format knows four forms: a text, several, a list of tokens, several.

    Raises BadParameter for anything else, and for inputs without anything in them.
    """
    value = data.get("input")
    if value is None:
        raise BadParameter("input is missing", param="input")
    if type(value) is str:
        return [_filled(value, "input")]
    if type(value) is not list:
        fault("input", "a string or an array", value)
    if not value:
        raise BadParameter("input must not be empty", param="input")
    if type(value[0]) is int:
        return [_tokens(value, "input")]
    if len(value) > MAX_INPUTS:
        raise BadParameter(f"input must have at most {MAX_INPUTS} entries", param="input")
    return [_entry(entry, f"input[{place}]") for place, entry in enumerate(value)]


def _entry(value: Any, path: str) -> str | list[int]:
    if type(value) is str:
        return _filled(value, path)
    if type(value) is not list:
        fault(path, "a string or an array of tokens", value)
    return _tokens(value, path)


def _filled(value: str, path: str) -> str:
    if not value:
        raise BadParameter(f"{path} must not be empty", param=path)
    return value


def _tokens(value: list[Any], path: str) -> list[int]:
    if not value:
        raise BadParameter(f"{path} must not be empty", param=path)
    if set(map(type, value)) == {int} and min(value) >= 0:
        return value
    # Only now which one it is: most lists are long, and right.
    return [integer(token, f"{path}[{place}]", 0, MAX_TOKEN) for place, token in enumerate(value)]


def estimate_input(inputs: list[str | list[int]]) -> int:
    """Tokens of the inputs: exactly those that are tokens already, and roughly those of texts."""
    return sum(estimate_tokens(entry) if isinstance(entry, str) else len(entry) for entry in inputs)


def wants_base64(data: Mapping[str, Any]) -> bool:
    """Whether vectors are to be base64 of little-endian float32, which the SDKs ask for. Raises BadParameter."""
    form = data.get("encoding_format")
    if form not in (None, "float", "base64"):
        text(form, "encoding_format")
        raise BadParameter("encoding_format must be float or base64", param="encoding_format")
    return form == "base64"


def parse_request(data: Mapping[str, Any]) -> EmbeddingRequest:
    """The request that `data` spells. Raises BadParameter with the path of the first fault."""
    wants_base64(data)
    request = EmbeddingRequest(model=text(data.get("model"), "model"), inputs=read_inputs(data))
    if data.get("dimensions") is not None:
        request.dimensions = integer(data["dimensions"], "dimensions", 1, MAX_DIMENSIONS)
    if data.get("user") is not None:
        request.user = text(data["user"], "user")
    if data.get("input_type") is not None:
        word = text(data["input_type"], "input_type")
        request.purpose = PURPOSES.get(word)
        if request.purpose is None:
            raise BadParameter(f"input_type must be one of: {', '.join(PURPOSES)}", param="input_type")
    own = {name: value for name, value in data.items() if name not in _FIELDS and value is not None}
    request.extra = {DIALECT: own} if own else None
    return request
