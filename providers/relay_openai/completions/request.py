"""Requests of `openai-completions` clients: what the relay reads of all, and the hub's value of those it translates.

A prompt becomes what a user says. What a conversation has no way to say is refused and not left out, because each of it
asks for another text: a suffix to lead up to, the prompt's echo, the best of several answers, tokens by their numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from relay.errors import BadParameter, Unsupported
from relay.fields import boolean, fault, integer, number, text
from relay.ir import Message, Request, Text
from relay.kit import estimate_tokens
from relay_openai.completions.wire import DIALECT
from relay_openai.request import MAX_CHOICES, MAX_OUTPUT
from relay_openai.wire import DIALECT as CHAT

__all__ = ["estimate_prompts", "max_output", "parse_request", "read_choices", "read_prompts"]

MAX_PROMPTS = 2048

Prompt = str | list[int]


def read_prompts(data: Mapping[str, Any]) -> list[Prompt]:
    """The prompts, in any of their four forms; empty if there is none, for which some hosts have a use."""
    value = data.get("prompt")
    if value is None:
        return []
    if type(value) is str:
        return [value]
    if type(value) is not list:
        fault("prompt", "a string or an array", value)
    if value and type(value[0]) is int:
        return [_tokens(value, "prompt")]
    if len(value) > MAX_PROMPTS:
        raise BadParameter(f"prompt must have at most {MAX_PROMPTS} entries", param="prompt")
    return [_prompt(entry, f"prompt[{place}]") for place, entry in enumerate(value)]


def _prompt(value: Any, path: str) -> Prompt:
    if type(value) is str:
        return value
    if type(value) is not list:
        fault(path, "a string or an array of tokens", value)
    return _tokens(value, path)


def _tokens(value: list[Any], path: str) -> list[int]:
    if set(map(type, value)) <= {int}:
        return value
    return [integer(token, f"{path}[{place}]") for place, token in enumerate(value)]


def estimate_prompts(prompts: list[Prompt]) -> int:
    """Tokens of the prompts, roughly where they are texts."""
    return sum(estimate_tokens(prompt) if isinstance(prompt, str) else len(prompt) for prompt in prompts)


def read_choices(data: Mapping[str, Any], prompts: int) -> int:
    """How many texts are generated: for each prompt as many as are wanted, or as are chosen from."""
    most = 1
    for name in ("n", "best_of"):
        if data.get(name) is not None:
            most = max(most, integer(data[name], name, 1, MAX_CHOICES))
    return most * max(prompts, 1)


def max_output(data: Mapping[str, Any]) -> int | None:
    """Tokens that each text may have. Zero is allowed: it asks for the prompt's own probabilities."""
    value = data.get("max_tokens")
    return None if value is None else integer(value, "max_tokens", 0, MAX_OUTPUT)


def parse_request(data: Mapping[str, Any]) -> Request:
    """The request that `data` spells, as a conversation of one turn.

    Raises BadParameter with the path of the first fault, Unsupported for what no conversation can say.
    """
    request = Request(
        model=text(data.get("model"), "model"), messages=[Message("user", [Text(_only(read_prompts(data)))])]
    )
    own: dict[str, Any] = {}
    for name, value in data.items():
        if name in _READ_FIRST or value is None:
            continue
        read = _FIELDS.get(name)
        if read is None:
            own[name] = value
        else:
            read(request, value)
    best = data.get("best_of")
    if best is not None and integer(best, "best_of", 1, MAX_CHOICES) > (request.sampling.choices or 1):
        raise _unsaid("best_of", "the upstream cannot choose among several answers")
    if own:
        request.extra = {**(request.extra or {}), DIALECT: own}
    return request


_READ_FIRST = frozenset(("model", "prompt", "best_of"))


def _unsaid(name: str, reason: str) -> Unsupported:
    return Unsupported(f"{name} is for upstreams that take completions themselves: {reason}", param=name)


def _only(prompts: list[Prompt]) -> str:
    if not prompts or prompts == [""]:
        raise BadParameter("prompt must not be empty", param="prompt")
    if len(prompts) > 1:
        raise _unsaid("prompt", "a conversation has one prompt, not several")
    if not isinstance(prompts[0], str):
        raise _unsaid("prompt", "tokens are the numbers of another model's vocabulary")
    return prompts[0]


_Field = Callable[[Request, Any], None]


def _sampling(name: str, read: Callable[[Any, str], Any], field: str = "") -> _Field:
    """A reader for a field that goes into `Sampling` as it is."""

    def field_reader(request: Request, value: Any) -> None:
        setattr(request.sampling, field or name, read(value, name))

    return field_reader


def _stream(request: Request, value: Any) -> None:
    request.stream = boolean(value, "stream")


def _user(request: Request, value: Any) -> None:
    request.user = text(value, "user")


def _stop(request: Request, value: Any) -> None:
    if type(value) is str:
        request.sampling.stop = [value]
        return
    if type(value) is not list:
        fault("stop", "a string or an array of strings", value)
    request.sampling.stop = [text(entry, f"stop[{place}]") for place, entry in enumerate(value)]


def _logprobs(request: Request, value: Any) -> None:
    request.sampling.top_logprobs = integer(value, "logprobs", 0, MAX_CHOICES)
    request.sampling.logprobs = True


def _suffix(request: Request, value: Any) -> None:
    if text(value, "suffix"):
        raise _unsaid("suffix", "a conversation does not fill in a text's middle")


def _echo(request: Request, value: Any) -> None:
    if boolean(value, "echo"):
        raise _unsaid("echo", "a conversation's answer does not begin with its question")


def _logit_bias(request: Request, value: Any) -> None:
    # The same field as in the sister format, whose hosts understand it.
    request.extra = {CHAT: {"logit_bias": value}}


def _choices(value: Any, path: str) -> int:
    return integer(value, path, 1, MAX_CHOICES)


def _max_tokens(value: Any, path: str) -> int:
    return integer(value, path, 1, MAX_OUTPUT)


_FIELDS: Mapping[str, _Field] = {
    "stream": _stream,
    "user": _user,
    "stop": _stop,
    "logprobs": _logprobs,
    "suffix": _suffix,
    "echo": _echo,
    "logit_bias": _logit_bias,
    "max_tokens": _sampling("max_tokens", _max_tokens),
    "n": _sampling("n", _choices, "choices"),
    "temperature": _sampling("temperature", number),
    "top_p": _sampling("top_p", number),
    "top_k": _sampling("top_k", integer),
    "seed": _sampling("seed", integer),
    "frequency_penalty": _sampling("frequency_penalty", number),
    "presence_penalty": _sampling("presence_penalty", number),
}
