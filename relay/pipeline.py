"""From a call to its answer: route, authorise, reserve, try the targets in order."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from relay.attempt import Attempt
from relay.call import Call
from relay.counting import count_tokens
from relay.embedding import EmbeddingAttempt
from relay.errors import NoSuchOperation, NotAllowed, RateLimited, Unavailable, UpstreamError
from relay.limits import Limits, Scope
from relay.outlet import Outlet
from relay.routing import PublicModel
from relay.schemas import ArgumentCheck, check_definitions
from relay.store.keys import Key

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["Pipeline"]

OUTPUT_GUESS = 1024
"""Output tokens reserved for a caller who sets no maximum."""
OUTPUT_CEILING = 4096
"""Output tokens reserved at most per choice: agents ask for 128,000 and use 500."""

SCOPES_KEPT = 10_000

ATTEMPTS: Mapping[str, type[Attempt]] = {"embeddings": EmbeddingAttempt}
"""How a target is tried, by the operations that are no generation."""

log = logging.getLogger("relay.pipeline")


class Pipeline:
    """The straight line that every call takes."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self._scopes: dict[tuple[int, str], tuple[Key, PublicModel, Sequence[Scope]]] = {}

    async def run(self, call: Call, outlet: Outlet) -> None:
        """Bring the answer to the client. Raises RelayError if there is none and nothing was sent."""
        if call.dialect is None or call.head is None:
            raise AssertionError("the pipeline follows the reading of the head")
        model = self.relay.router.resolve(call.head.model)
        if not call.key.allows(model.id):
            raise NotAllowed(f"this key may not use the model {model.id!r}", code="model_not_allowed", param="model")
        call.model = model
        attempt = Attempt
        if call.head.operation != "generate":
            if call.head.operation == "count_tokens":
                # It costs nothing upstream, and agents ask thirty times in a tenth of a second: it counts against no
                # limit.
                return await count_tokens(self.relay, call, model, outlet)
            attempt = ATTEMPTS.get(call.head.operation, Attempt)
        if call.head.has_tools:
            tools = call.dialect.tools(call.head)
            check_definitions(tools)
            if self.relay.settings.tools.arguments != "off":
                call.check = ArgumentCheck(tools)
        self._reserve(call, model)
        refused: UpstreamError | NoSuchOperation | None = None
        for target in model.targets:
            call.target = target
            call.attempts += 1
            try:
                return await attempt(self.relay, call, target, outlet).run()
            except UpstreamError as error:
                log.info("call %s: %s failed: %s (%s)", call.id, target, error.code, error.upstream_status)
                if not error.retryable:
                    raise
                refused = error
            except NoSuchOperation as error:
                # What another target had to say of the request counts more than that this one cannot be asked.
                refused = refused or error
        if refused is None:
            raise Unavailable(f"the model {model.id!r} has no target")
        raise refused

    def _reserve(self, call: Call, model: PublicModel) -> None:
        head, dialect = call.head, call.dialect
        if head is None or dialect is None:
            raise AssertionError("the head was read")
        wanted = head.max_output or OUTPUT_GUESS
        tokens = head.input_estimate + (wanted if wanted < OUTPUT_CEILING else OUTPUT_CEILING) * head.choices
        relay = self.relay
        now = relay.clock()
        scopes = self.scopes(call.key, model)
        try:
            call.reservation = relay.limiter.reserve(scopes, tokens, now)
        except RateLimited:
            # That is when a caller needs them most.
            call.headers.update(dialect.limit_headers(*relay.limiter.views(scopes, now)))
            raise
        call.headers.update(dialect.limit_headers(*call.reservation.views()))

    def scopes(self, key: Key, model: PublicModel) -> Sequence[Scope]:
        """Whose limits a call of this key for this model counts against; remembered while neither changes."""
        place = (key.id, model.id)
        known = self._scopes.get(place)
        if known is not None and known[0] is key and known[1] is model:
            return known[2]
        scopes = tuple(scope for scope in self._all_scopes(key, model) if scope.limits)
        if len(self._scopes) >= SCOPES_KEPT:
            self._scopes.clear()
        self._scopes[place] = (key, model, scopes)
        return scopes

    def _all_scopes(self, key: Key, model: PublicModel) -> Iterator[Scope]:
        defaults = self.relay.settings.keys
        limits = Limits(
            defaults.rpm if key.rpm is None else key.rpm,
            defaults.tpm if key.tpm is None else key.tpm,
            defaults.concurrency if key.concurrency is None else key.concurrency,
        )
        yield Scope("key", key.id, limits)
        yield Scope("model", model.id, model.limits)
        own = key.model_limits.get(model.id)
        if own is not None:
            limits = Limits(own.rpm or 0, own.tpm or 0, own.concurrency or 0)
            yield Scope("key's model", (key.id, model.id), limits)
