"""How many tokens a request has: from its upstream where that can tell, else an estimate that says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from relay.attempt import Attempt, content_type
from relay.call import Call
from relay.errors import Unsupported, UpstreamError
from relay.manager import guarded
from relay.outlet import Outlet
from relay.routing import PublicModel

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["SOURCE", "CountAttempt", "count_tokens"]

SOURCE = "x-relay-token-count"
"""The header that tells where a count comes from: `upstream` or `estimate`."""
MAX_COUNT = 1024 * 1024
"""Bytes of an upstream's answer."""
ABSENT = frozenset({404, 405, 501})
"""Statuses with which an upstream says that it has no such operation, unless it gives a reason of its own."""


class CountAttempt(Attempt):
    """Asks one upstream of the caller's own dialect. Its answer passes through, and is neither metered nor billed."""

    most = MAX_COUNT

    def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """The answer passes through."""
        call = self.call
        call.first_byte = self.relay.clock()
        self._describe()
        self.outlet.answer({**call.headers, SOURCE: "upstream"}, content_type(headers), body, call.id)


async def count_tokens(relay: Relay, call: Call, model: PublicModel, outlet: Outlet) -> None:
    """The count of the target that would get the call. Raises RelayError if that refuses, or cannot be reached."""
    refused: UpstreamError | None = None
    dispatch = relay.dispatch
    for target in dispatch.order(model, stream=False):
        if dispatch.health.wait(target, relay.clock()):
            continue
        call.target = target
        if call.dialect is None or call.dialect.name not in target.upstream.dialects:
            return _estimate(call, outlet)
        call.attempts += 1
        try:
            return await CountAttempt(relay, call, target, outlet).run()
        except Unsupported:
            return _estimate(call, outlet)
        except UpstreamError as error:
            if error.upstream_status in ABSENT and error.code == type(error).code:
                return _estimate(call, outlet)
            if not error.retryable:
                raise
            refused = error
    if refused is not None:
        raise refused
    # None of them is asked now.
    return _estimate(call, outlet)


def _estimate(call: Call, outlet: Outlet) -> None:
    dialect, head = call.dialect, call.head
    if dialect is None or head is None:
        raise AssertionError("a count follows the reading of the head")
    # A number for a request that would be refused would be no truth either, so it is read as if it were to be sent.
    guarded(f"dialect {dialect.name}", "parse", lambda: call.request)
    body = guarded(f"dialect {dialect.name}", "encode_count", lambda: dialect.encode_count(max(1, head.input_estimate)))
    outlet.answer({**call.headers, SOURCE: "estimate"}, "application/json", body, call.id)
