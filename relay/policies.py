"""Calls that a policy has a say in: the pipeline of a relay whose plugins have any.

Calls that no policy wants take the usual way, which is not a step longer for it: this class takes the pipeline's place
only where there are policies. Those that one wants leave the lane, are answered or refused by it, or are asked with
their answers recorded.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from relay.attempt import Attempt
from relay.bound import Policy, guarded
from relay.call import Call
from relay.dispatch import Course
from relay.family import Target
from relay.ir import StopKind
from relay.outlet import Outlet
from relay.pipeline import ATTEMPTS, Pipeline
from relay.policy import Given, Question, Source
from relay.recorder import Recorder, Shared, replay
from relay.routing import PublicModel
from relay.watch import WATCHED

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["PolicyPipeline"]

log = logging.getLogger("relay.policies")


class Elsewhere(LookupError):
    """Such a call has something to wait for: it is not for the lane."""


class PolicyPipeline(Pipeline):
    """The straight line, with policies before its last part."""

    shares = True

    def __init__(self, relay: Relay, policies: Sequence[Policy]) -> None:
        super().__init__(relay)
        self._policies = [(policy, Shared(policy.room)) for policy in policies]

    async def run(self, call: Call, outlet: Outlet) -> None:
        """Bring the answer to the client. Raises RelayError if there is none and nothing was sent."""
        call.waits = True
        await super().run(call, outlet)

    def admit(self, call: Call) -> PublicModel:
        """The model that is asked for. Raises as the pipeline's; Elsewhere if the call cannot take the lane."""
        model = super().admit(call)
        if not call.waits and any(policy.wants(call.key.name, model.id) for policy, _ in self._policies):
            raise Elsewhere
        return model

    async def tries(
        self,
        call: Call,
        outlet: Outlet,
        course: Course,
        begun: Attempt | None = None,
        kinds: Mapping[str, type[Attempt]] = ATTEMPTS,
    ) -> None:
        """Go the course, unless a policy answers. Raises its refusal, or the last target's."""
        model = call.model
        if not call.waits or model is None:
            await super().tries(call, outlet, course, begun, kinds)
            return
        wanting = [one for one in self._policies if one[0].wants(call.key.name, model.id)]
        try:
            await self._through(wanting, call, outlet, course)
        finally:
            course.close()

    async def _through(
        self, wanting: Sequence[tuple[Policy, Shared]], call: Call, outlet: Outlet, course: Course
    ) -> None:
        """What the first of these policies says; what it asks for is left to the others."""
        if not wanting:
            await super().tries(call, outlet, course, kinds=WATCHED)
            return
        (policy, room), *others = wanting
        asking = _Asking(self, others, call, outlet, course, policy, room)
        given = await policy.on_call(self._question(call), asking)
        if asking.ended is not None:
            # Whatever the policy makes of it, the call has ended so.
            raise asking.ended
        if asking.asked:
            return
        if given is None:
            await self._through(others, call, outlet, course)
            return
        call.tools = given.tools
        now = self.relay.clock()
        replay(call, outlet, given.headers, given.content_type, given.body, now, stream=given.stream)

    def _question(self, call: Call) -> Question:
        dialect, head, model = call.dialect, call.head, call.model
        if dialect is None or head is None or model is None:
            raise AssertionError("the pipeline follows the reading of the head")
        likely = self.relay.dispatch.likely(model)
        return Question(
            key=call.key.id,
            key_name=call.key.name,
            strict=call.key.strict,
            model=model.id,
            dialect=dialect.name,
            head=head,
            plugin=self.relay.plugins.origin(dialect.name),
            repeatable=guarded(f"dialect {dialect.name}", "repeatable", lambda: dialect.repeatable(head)),
            wishes=call.wishes,
            sources=[self.source(model, target) for target in likely],
        )

    def source(self, model: PublicModel, target: Target) -> Source:
        """A target as policies know it."""
        relay = self.relay
        price = model.price or relay.target_price(target)
        return Source(target, relay.plugins.families[target.upstream.family].origin, price)


class _Asking:
    """What a policy is given to have the question asked with."""

    def __init__(
        self,
        pipeline: PolicyPipeline,
        others: Sequence[tuple[Policy, Shared]],
        call: Call,
        outlet: Outlet,
        course: Course,
        policy: Policy,
        room: Shared,
    ) -> None:
        self._pipeline = pipeline
        self._others = others
        self._call = call
        self._outlet = outlet
        self._course = course
        self._policy = policy
        self._room = room
        self.asked = False
        self.ended: BaseException | None = None
        """What the asking has ended with, if not well."""

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for the answer beside the client."""
        return self._call.awaited

    @awaited.setter
    def awaited(self, value: bool) -> None:
        self._call.awaited = value

    async def ask(self, headers: Mapping[str, str]) -> Given | None:
        """Bring the answer to the client, and give it if it is complete."""
        if self.asked:
            raise AssertionError("a question is asked once")
        self.asked = True
        call = self._call
        call.headers.update(headers)
        recorder = Recorder(self._outlet, self._policy.largest, self._room)
        try:
            await self._pipeline._through(self._others, call, recorder, self._course)
            return self._given(recorder)
        except BaseException as error:
            self.ended = error
            raise
        finally:
            recorder.close()

    def _given(self, recorder: Recorder) -> Given | None:
        call, model = self._call, self._call.model
        body = recorder.body()
        stops: list[StopKind] = [stop for stop in (call.stops or {}).values() if stop is not None]
        if body is None or call.target is None or model is None or len(stops) < len(call.stops or ()):
            return None
        if call.operation == "generate" and not stops:
            return None
        source = self._pipeline.source(model, call.target)
        return Given(recorder.headers, recorder.content_type, recorder.stream, body, source, tuple(stops), call.tools)
