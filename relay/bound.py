"""What plugins bring, asked through typed methods: whatever one does wrong becomes an error that names it.

A family's hooks, an order of targets, a say in calls: each is a plugin's, and plugins are strangers. What they raise or
return must neither reach a caller nor end anything but the call that asked.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, TypeVar, cast

import pluggy

from relay.errors import PluginError, RelayError, UpstreamError
from relay.events import StreamDecoder, StreamMeter
from relay.family import Family, Model, ModelListing, Target, TargetOrder, Upstream, UpstreamRequest
from relay.ir import EmbeddingRequest, EmbeddingResponse, Loss, Request, Response, Usage
from relay.policy import Asking, CallPolicy, Given, Question

__all__ = ["TRANSLATION", "BoundFamily", "Ordering", "Policy", "failed", "guarded"]

log = logging.getLogger("relay.plugins")
T = TypeVar("T")


class BoundFamily:
    """A family together with its plugin's translation hooks. Wrappers of other plugins still see every call."""

    __slots__ = ("_calls", "family", "name", "origin", "plugin")

    def __init__(self, family: Family, plugin: str, hooks: Mapping[str, pluggy.HookCaller], origin: str = "") -> None:
        self.family = family
        self.name = family.name
        self.plugin = plugin
        self.origin = origin
        """Where the plugin comes from, and its version if it has one."""
        self._calls = {name: _positional(hook) for name, hook in hooks.items()}

    # Arguments go by their places in the hook's specification.

    def translate_request(self, request: Request, target: Target, losses: list[Loss]) -> bytes:
        """The request's body in the family's format."""
        answer = self._ask("translate_request", request, target, losses)
        if isinstance(answer, bytes):
            return answer
        raise self._wrong("translate_request", answer)

    def endpoint(
        self,
        target: Target,
        operation: str,
        body: bytes,
        stream: bool,
        headers: Mapping[str, str],
        dialect: str = "",
    ) -> UpstreamRequest | Awaitable[UpstreamRequest]:
        """Where to send it. What it returns may have to be awaited."""
        answer = self._ask("endpoint", target, operation, body, stream, headers, dialect)
        if isinstance(answer, UpstreamRequest) or inspect.isawaitable(answer):
            return answer
        raise self._wrong("endpoint", answer)

    def translate_response(
        self, target: Target, status: int, headers: Mapping[str, str], body: bytes, dialect: str = ""
    ) -> Response:
        """A complete answer as a hub value."""
        answer = self._ask("translate_response", target, status, headers, body, dialect)
        if isinstance(answer, Response):
            return answer
        raise self._wrong("translate_response", answer)

    def translate_stream(self, target: Target, headers: Mapping[str, str], dialect: str = "") -> StreamDecoder:
        """A decoder for one stream."""
        answer = self._ask("translate_stream", target, headers, dialect)
        if answer is None:
            raise self._wrong("translate_stream", answer)
        return cast(StreamDecoder, answer)

    def meter_response(
        self, target: Target, headers: Mapping[str, str], body: bytes, dialect: str = ""
    ) -> Usage | None:
        """What a passed-through answer used, if the family can tell cheaply."""
        answer = self._ask("meter_response", target, headers, body, dialect)
        if answer is None or isinstance(answer, Usage):
            return answer
        raise self._wrong("meter_response", answer)

    def meter_stream(self, target: Target, headers: Mapping[str, str], dialect: str = "") -> StreamMeter | None:
        """A meter for one passed-through stream, if the family has one."""
        return cast("StreamMeter | None", self._ask("meter_stream", target, headers, dialect))

    def count_request(self, request: Request, target: Target) -> bytes | None:
        """The body that asks how many tokens a request has; None if the family cannot ask."""
        answer = self._ask("count_request", request, target)
        if answer is None or isinstance(answer, bytes):
            return answer
        raise self._wrong("count_request", answer)

    def count_response(self, target: Target, body: bytes) -> int | None:
        """The number that the upstream gave; None if it gave none that can be true."""
        answer = self._ask("count_response", target, body)
        return answer if type(answer) is int and answer > 0 else None

    def translate_embedding_request(
        self, request: EmbeddingRequest, target: Target, losses: list[Loss]
    ) -> bytes | None:
        """The body of a request for vectors; None if the target makes none."""
        answer = self._ask("translate_embedding_request", request, target, losses)
        if answer is None or isinstance(answer, bytes):
            return answer
        raise self._wrong("translate_embedding_request", answer)

    def translate_embedding_response(
        self, target: Target, status: int, headers: Mapping[str, str], body: bytes, dialect: str = ""
    ) -> EmbeddingResponse | None:
        """The vectors of an answer; None if the family reads none."""
        answer = self._ask("translate_embedding_response", target, status, headers, body, dialect)
        if answer is None or isinstance(answer, EmbeddingResponse):
            return answer
        raise self._wrong("translate_embedding_response", answer)

    def translate_error(
        self, target: Target, status: int, headers: Mapping[str, str], body: bytes
    ) -> UpstreamError | None:
        """What an error answer means; None if the family does not say."""
        answer = self._ask("translate_error", target, status, headers, body)
        if answer is None or isinstance(answer, UpstreamError):
            return answer
        raise self._wrong("translate_error", answer)

    def list_models(self, upstream: Upstream) -> ModelListing | Sequence[Model] | None:
        """The upstream's models, or how to ask for them."""
        return cast("ModelListing | Sequence[Model] | None", self._ask("list_models", upstream))

    def _ask(self, hook: str, *arguments: Any) -> Any:
        try:
            return self._calls[hook](*arguments)
        except RelayError:
            raise
        except Exception as error:
            raise failed(self.plugin, hook, error) from error

    def _wrong(self, hook: str, answer: object) -> PluginError:
        return PluginError(self.plugin, f"returned {type(answer).__name__} from {hook}")


class Ordering:
    """One plugin's policy. What it does wrong is logged, and then the order stays as it was."""

    __slots__ = ("_policy", "plugin")

    def __init__(self, plugin: str, policy: TargetOrder) -> None:
        self.plugin = plugin
        self._policy = policy

    def order(self, model: str, targets: Sequence[Target], stream: bool, now: float) -> Sequence[Target]:
        """The same targets, or fewer of them. Raises PluginError."""
        found = guarded(self.plugin, "order", lambda: tuple(self._policy.order(model, targets, stream, now)))
        if len(set(found)) != len(found) or not set(found) <= set(targets):
            # What was not allowed for the model must not come in this way.
            log.error("plugin %s ordered targets of model %s that are not its own, or one twice", self.plugin, model)
            raise PluginError(self.plugin, "returned other targets than it was given")
        return found

    def seen(self, target: Target, stream: bool, seconds: float, now: float) -> None:
        """Tell it how long an answer took."""
        with contextlib.suppress(PluginError):
            guarded(self.plugin, "seen", lambda: self._policy.seen(target, stream, seconds, now))


class Policy:
    """One plugin's say in calls. What it does wrong is logged, and then the call goes on as if it were not there."""

    __slots__ = ("_broken", "_policy", "largest", "plugin", "room")

    def __init__(self, plugin: str, policy: CallPolicy) -> None:
        self.plugin = plugin
        self._policy = policy
        self._broken = False
        self.room, self.largest = int(policy.room), int(policy.largest)

    def wants(self, key_name: str, model: str) -> bool:
        """Whether such calls are any of its business. One that cannot say so is not asked again."""
        try:
            return not self._broken and bool(guarded(self.plugin, "wants", lambda: self._policy.wants(key_name, model)))
        except PluginError:
            self._broken = True
            return False

    async def on_call(self, question: Question, asking: Asking) -> Given | None:
        """Its answer, if it gives one instead of asking. Raises its refusal, as long as nothing was asked."""
        try:
            given: object = await self._policy.on_call(question, asking)
        except Exception as error:
            if isinstance(error, RelayError) and not asking.asked:
                raise
            if error is not asking.ended:
                failed(self.plugin, "on_call", error)
            return None
        if given is None or isinstance(given, Given):
            return given
        log.error("plugin %s returned %s from on_call", self.plugin, type(given).__name__)
        return None


def _positional(hook: pluggy.HookCaller) -> Callable[..., Any]:
    """A hook, called with its specification's arguments in their order.

    Where nobody else implements or wraps it, its function is called directly, at a tenth of the cost.
    """
    order = hook.spec.argnames if hook.spec is not None else ()
    direct = _only(hook)
    if direct is None:
        return lambda *arguments: hook(**dict(zip(order, arguments, strict=True)))
    function, names = direct
    if names == tuple(order):
        return function
    if len(names) < 2:
        places = [order.index(name) for name in names]
        return lambda *arguments: function(*[arguments[place] for place in places])
    wanted = itemgetter(*[order.index(name) for name in names])
    return lambda *arguments: function(*wanted(arguments))


def _only(hook: pluggy.HookCaller) -> tuple[Callable[..., Any], tuple[str, ...]] | None:
    """The function of a hook that nobody else implements or wraps: it is called directly, at a tenth of the cost."""
    implementations = hook.get_hookimpls()
    if len(implementations) != 1 or implementations[0].wrapper or implementations[0].hookwrapper:
        return None
    return implementations[0].function, tuple(implementations[0].argnames)


NESTED = "Recursion limit reached"
"""What orjson says of values that it does not write."""


def failed(plugin: str, what: str, error: Exception) -> PluginError:
    """Log what plugin code raised, and the error that takes its place: it names the plugin and tells nothing else."""
    # What is nested too deeply came from outside, and its traceback is a thousand times the same line.
    nested = isinstance(error, RecursionError) or str(error) == NESTED
    log.error(
        "plugin %s failed in %s%s", plugin, what, f": {error}" if nested else "", exc_info=None if nested else error
    )
    return PluginError(plugin, f"failed in {what} ({type(error).__name__})")


def guarded(plugin: str, what: str, call: Callable[[], T]) -> T:
    """Run plugin code: its RelayErrors are answers, anything else it raises becomes a PluginError that names it."""
    try:
        return call()
    except RelayError:
        raise
    except Exception as error:
        raise failed(plugin, what, error) from error


TRANSLATION = (
    "translate_request",
    "endpoint",
    "translate_response",
    "translate_stream",
    "count_request",
    "count_response",
    "translate_embedding_request",
    "translate_embedding_response",
    "translate_error",
    "meter_response",
    "meter_stream",
    "list_models",
)
