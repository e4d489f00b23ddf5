"""From a call to its answer: route, authorise, reserve, try the targets in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.attempt import Attempt
from relay.budget import WINDOWS, Budget, NotOpen, dearest
from relay.call import Call
from relay.counting import count_tokens
from relay.dialect import Head
from relay.dispatch import Course
from relay.embedding import EmbeddingAttempt
from relay.errors import NoKey, NoSuchOperation, NotAllowed, OutOfBudget, RateLimited, RelayError, UpstreamError
from relay.family import Target
from relay.limits import Limits, Scope
from relay.outlet import Outlet
from relay.pricing import rate
from relay.routing import PublicModel
from relay.schemas import Definitions
from relay.store.keys import Key

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["ATTEMPTS", "Pipeline"]

OUTPUT_GUESS = 1024
"""Output tokens reserved for a caller who sets no maximum."""
OUTPUT_CEILING = 4096
"""Output tokens reserved at most per choice: agents ask for 128,000 and use 500."""

CLAIMS_KEPT = 10_000
MODEL = "model"
BUSY = f"{MODEL} concurrency"
"""The limit that calls may wait for, as its refusal names it."""

ATTEMPTS_HEADER = "x-relay-attempts"
"""The header that tells how many targets were asked, if it was more than one."""

ATTEMPTS: Mapping[str, type[Attempt]] = {"embeddings": EmbeddingAttempt}
"""How a target is tried, by the operations that are no generation."""

log = logging.getLogger("relay.pipeline")


@dataclass(frozen=True, slots=True)
class Claims:
    """What the calls of one key for one model count against."""

    key: Key
    model: PublicModel
    scopes: Sequence[Scope]
    budget: Budget | None
    """None: there is none."""


class Pipeline:
    """The straight line that every call takes."""

    shares: bool = False
    """Whether a call may be answered with what another one got."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self._known: dict[tuple[int, str], Claims] = {}
        self._definitions = Definitions()

    async def run(self, call: Call, outlet: Outlet) -> None:
        """Bring the answer to the client. Raises RelayError if there is none and nothing was sent."""
        model = self.admit(call)
        if call.operation == "count_tokens":
            # It costs nothing upstream, and agents ask thirty times in a tenth of a second: it counts against no limit.
            await count_tokens(self.relay, call, model, outlet)
            return
        budget = self._claims(call.key, model).budget
        if budget is not None and not self.relay.ledger.account(call.key.id).knows(call.at):
            await self.relay.open_account(call.key.id, call.at)
        try:
            self.reserve(call, model)
        except RateLimited as error:
            if not model.queue or error.limit != BUSY:
                raise
            await self._wait(call, model)
        if call.dialect is not None and call.reservation is not None:
            call.headers.update(call.dialect.limit_headers(*call.reservation.views()))
        stream = call.head is not None and call.head.stream
        await self.tries(call, outlet, self.relay.dispatch.course(model, stream, self.relay.clock()))

    async def _wait(self, call: Call, model: PublicModel) -> None:
        """Wait for a place of the model's, and take it with the rest of the call's share. Raises as `reserve`."""
        scope = next(scope for scope in self._claims(call.key, model).scopes if scope.name == MODEL)
        while True:
            try:
                await self.relay.lines.wait(
                    scope, call.key.id, lambda: self._turn(call, model), model.queue, model.queue_seconds
                )
            except NotOpen:
                # A day, or a month, has begun meanwhile.
                await self.relay.open_account(call.key.id, call.at)
            else:
                return

    def _turn(self, call: Call, model: PublicModel) -> None:
        """Take the share of a call that has waited, and whose key may have ended or changed meanwhile."""
        key = self.relay.store.ring.latest(call.key)
        if key is None:
            raise NoKey("the API key is unknown, expired or revoked")
        call.key = key
        if not key.allows(model.id):
            raise not_for(model)
        self._reserve(call, model)

    def admit(self, call: Call) -> PublicModel:
        """The model that is asked for. Raises NoSuchModel, or NotAllowed if it is not for this key."""
        if call.head is None:
            raise AssertionError("the pipeline follows the reading of the head")
        model = call.model = self.relay.router.resolve(call.head.model)
        if not call.key.allows(model.id):
            call.model = None
            raise not_for(model)
        return model

    def reserve(self, call: Call, model: PublicModel) -> None:
        """Check the tools and take the call's share of every limit.

        Raises BadParameter, OutOfBudget or RateLimited; NotOpen if what the key has spent has to be read first.
        """
        if call.head is not None and call.head.has_tools and call.dialect is not None:
            check = self._definitions.check(call.dialect, call.head)
            if self.relay.settings.tools.arguments != "off":
                call.check = check
        self._reserve(call, model)

    async def tries(
        self,
        call: Call,
        outlet: Outlet,
        course: Course,
        begun: Attempt | None = None,
        kinds: Mapping[str, type[Attempt]] = ATTEMPTS,
    ) -> None:
        """Go the course, until a target brings an answer. Raises the last one's refusal.

        `begun`: an attempt of the course's target that has sent nothing yet. `kinds`: how a target is tried.
        """
        call.course = course
        kind = kinds.get(call.operation, Attempt)
        try:
            while True:
                attempt = begun
                if attempt is None:
                    target = course.next()
                    if not isinstance(target, Target):
                        await asyncio.sleep(target)
                        continue
                    call.target = target
                    call.asked = self.relay.clock()
                    call.attempts += 1
                    if call.attempts > 1:
                        call.headers[ATTEMPTS_HEADER] = str(call.attempts)
                    attempt = kind(self.relay, call, target, outlet)
                begun = None
                try:
                    await self._timed(attempt, course)
                    if call.attempts > 1:
                        log.info("call %s: attempt %d at %s answered", call.id, call.attempts, _shown(course.target))
                    return
                except (UpstreamError, NoSuchOperation) as error:
                    self.failed(call, course, error)
        finally:
            course.close()

    async def _timed(self, attempt: Attempt, course: Course) -> None:
        """Run an attempt for as long as the call may take."""
        try:
            async with asyncio.timeout(course.left) as course.timeout:
                await attempt.run()
                course.answered()
        except TimeoutError:
            if course.timeout is None or not course.timeout.expired():
                raise
            raise course.late() from None

    def failed(self, call: Call, course: Course, error: RelayError) -> None:
        """Note that an attempt has failed. Raises the error if no other target may be tried."""
        if isinstance(error, UpstreamError):
            if course.target is not None:
                # Also where it is told in an answer that says of itself that it is good.
                error.hide(course.target.upstream.api_key)
            place = _shown(course.target)
            status = error.upstream_status
            log.info("call %s: attempt %d at %s failed: %s (%s)", call.id, call.attempts, place, error.code, status)
        course.failed(error)

    def _reserve(self, call: Call, model: PublicModel) -> None:
        head, dialect = call.head, call.dialect
        if head is None or dialect is None:
            raise AssertionError("the head was read")
        wanted = head.max_output or OUTPUT_GUESS
        output = (wanted if wanted < OUTPUT_CEILING else OUTPUT_CEILING) * head.choices
        tokens = head.input_estimate + output
        relay = self.relay
        now = relay.clock()
        claims = self._claims(call.key, model)
        scopes, budget = claims.scopes, claims.budget
        account, amount = None, 0
        if budget is not None:
            head.check_bounds(dialect.bounds)
            amount = self._dearest(call.key, model, head)
            account = relay.ledger.check(call.key.id, budget, amount, call.at)
        try:
            call.reservation = relay.limiter.reserve(scopes, tokens, now)
        except RateLimited:
            # That is when a caller needs them most.
            call.headers.update(dialect.limit_headers(*relay.limiter.views(scopes, now)))
            raise
        if account is not None:
            call.hold = account.hold(amount, call.at)
        journal = relay.store.journal
        if journal is not None:
            call.place = journal.begin(
                call.id,
                call.operation,
                model.id,
                call.key.id,
                call.at,
                head.input_estimate,
                output,
                amount if account is not None else -1,
                head.stream,
            )

    def _dearest(self, key: Key, model: PublicModel, head: Head) -> int:
        """Nano-dollars that the call can cost at most, at whichever target. Raises OutOfBudget if nobody knows."""
        settings = self.relay.settings.keys
        output = (settings.assumed_output if head.max_output is None else head.max_output) * head.choices
        most = 0
        for target in model.targets:
            price = model.price or self.relay.target_price(target)
            if price is not None:
                most = max(most, dearest(price, head.input_estimate, output))
            elif settings.unpriced == "refuse":
                raise OutOfBudget(
                    f"the key has a budget, and nobody knows what {target} costs: give the model a price, "
                    'or set unpriced = "allow" in [keys]',
                    code="price_unknown",
                )
        return most

    def _claims(self, key: Key, model: PublicModel) -> Claims:
        """What a call of this key for this model counts against; remembered while neither changes."""
        place = (key.id, model.id)
        known = self._known.get(place)
        if known is not None and known.key is key and known.model is model:
            return known
        scopes = tuple(scope for scope in self._all_scopes(key, model) if scope.limits)
        if len(self._known) >= CLAIMS_KEPT:
            self._known.clear()
        claims = self._known[place] = Claims(key, model, scopes, self._budget(key))
        return claims

    def forget(self) -> None:
        """Limits and budgets of another configuration."""
        self._known.clear()

    def _budget(self, key: Key) -> Budget | None:
        defaults = self.relay.settings.keys.budget
        budget = Budget(**{window: key.budget.get(window, rate(getattr(defaults, window))) for window in WINDOWS})
        return budget or None

    def _all_scopes(self, key: Key, model: PublicModel) -> Iterator[Scope]:
        defaults = self.relay.settings.keys
        limits = Limits(
            defaults.rpm if key.rpm is None else key.rpm,
            defaults.tpm if key.tpm is None else key.tpm,
            defaults.concurrency if key.concurrency is None else key.concurrency,
        )
        yield Scope("key", key.id, limits)
        yield Scope(MODEL, model.id, model.limits)
        own = key.model_limits.get(model.id)
        if own is not None:
            limits = Limits(own.rpm or 0, own.tpm or 0, own.concurrency or 0)
            yield Scope("key's model", (key.id, model.id), limits)


def not_for(model: PublicModel) -> NotAllowed:
    """The refusal of a model that a key may not use."""
    return NotAllowed(f"this key may not use the model {model.id!r}", code="model_not_allowed", param="model")


def _shown(target: Target | None) -> str:
    """A target in the log: of a key its number and nothing else."""
    number = 0 if target is None else target.upstream.key_number
    return f"{target} with key {number}" if number else str(target)
