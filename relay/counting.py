"""How many tokens a request has: from its upstream where that can tell, else an estimate that says so."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from relay.attempt import Attempt, content_type
from relay.bound import guarded
from relay.call import Call
from relay.errors import PluginError, Unsupported, UpstreamError, UpstreamProtocol
from relay.family import Target
from relay.ir import Loss
from relay.outlet import Outlet
from relay.routing import PublicModel

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["SOURCE", "CountAttempt", "TranslatedCount", "count_tokens"]

SOURCE = "x-relay-token-count"
"""The header that tells where a count comes from: `upstream` or `estimate`."""
SECONDS = 5.0
"""How long another vendor's count is waited for, where an estimate would do."""
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


class TranslatedCount(CountAttempt):
    """Asks an upstream that does not speak the caller's dialect: its count is true all the same."""

    def _translated(self, losses: list[Loss]) -> bytes:
        """The question in the family's own format. Raises Unsupported if it has none."""
        body = self.family.count_request(self.call.request, self.target)
        if body is None:
            raise Unsupported("this upstream counts no tokens beforehand")
        return body

    def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """The number, in the caller's dialect. Raises UpstreamProtocol if there is none."""
        call, dialect = self.call, self.dialect
        count = self.family.count_response(self.target, body)
        if count is None:
            raise UpstreamProtocol("the upstream's count of tokens cannot be read")
        call.first_byte = self.relay.clock()
        self._describe()
        told = guarded(f"dialect {dialect.name}", "encode_count", lambda: dialect.encode_count(count))
        self.outlet.answer({**call.headers, SOURCE: "upstream"}, "application/json", told, call.id)


async def count_tokens(relay: Relay, call: Call, model: PublicModel, outlet: Outlet) -> None:
    """The count of the target that would get the call. Raises RelayError if that refuses, or cannot be reached."""
    refused: UpstreamError | None = None
    dispatch = relay.dispatch
    for target in dispatch.order(model, stream=False):
        if dispatch.health.wait(target, relay.clock()):
            continue
        call.target = target
        call.attempts += 1
        if call.dialect is None or call.dialect.name not in target.upstream.dialects:
            return await _translated(relay, call, target, outlet)
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


async def _translated(relay: Relay, call: Call, target: Target, outlet: Outlet) -> None:
    """The count of an upstream that speaks another dialect; the relay's own where that cannot be had."""
    # A number for a request that would be refused would be no truth, so it is read as if it were to be sent.
    guarded(f"dialect {target.upstream.family}", "parse", lambda: call.request)
    try:
        async with asyncio.timeout(SECONDS):
            await TranslatedCount(relay, call, target, outlet).run()
    except (Unsupported, UpstreamError, PluginError, TimeoutError):
        _estimate(call, outlet)


def _estimate(call: Call, outlet: Outlet) -> None:
    dialect, head = call.dialect, call.head
    if dialect is None or head is None:
        raise AssertionError("a count follows the reading of the head")
    # A number for a request that would be refused would be no truth either.
    guarded(f"dialect {dialect.name}", "parse", lambda: call.request)
    body = guarded(f"dialect {dialect.name}", "encode_count", lambda: dialect.encode_count(max(1, head.input_estimate)))
    outlet.answer({**call.headers, SOURCE: "estimate"}, "application/json", body, call.id)
