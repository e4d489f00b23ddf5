"""The hook `on_call`: what a policy may do, and what becomes of calls where it does it wrong."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from relay import hookimpl
from relay.errors import NotAllowed
from relay.manager import Plugins
from tests.flow.conftest import Start, openai_config
from tests.flow.fake import FakeUpstream, http
from tests.promises.test_cache import ask, numbered
from tests.promises.test_plugins import Plugin


class Broken:
    """A policy that does one thing wrong."""

    room = largest = 1000

    def __init__(self, how: str) -> None:
        self.how = how

    def wants(self, key_name: str, model: str) -> bool:
        if self.how == "wants":
            raise ValueError("sk-CANARY")
        return True

    async def on_call(self, question: Any, asking: Any) -> Any:
        if self.how == "refuses":
            raise NotAllowed("not today", code="closed")
        if self.how == "raises":
            raise ValueError("sk-CANARY")
        if self.how == "wrong":
            return {"answer": 42}
        if self.how == "nothing":
            return None
        with contextlib.suppress(Exception):
            await asking.ask({})
        if self.how == "raises late":
            raise ValueError("sk-CANARY")
        if self.how == "refuses late":
            raise NotAllowed("too late")
        return None


def with_policy(policy: Any) -> Plugins:
    def on_call(options: Any) -> Any:
        return policy

    plugins = Plugins.load()
    plugins.add("strange", Plugin(on_call=hookimpl(on_call)))
    return plugins


@pytest.mark.promise("P-03")
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "how", ["wants", "raises", "wrong", "nothing", "swallows", "raises late", "refuses late", "refuses"]
)
async def test_a_broken_policy_costs_its_own_say_and_no_call(
    start: Start, upstream: FakeUpstream, how: str, streamed: bool
) -> None:
    upstream.answer = numbered()
    relay = await start(openai_config(upstream), plugins=with_policy(Broken(how)))
    way = "chat, streamed" if streamed else "chat"
    status, body, _ = await ask(relay, way)
    assert status == (403 if how == "refuses" else 200)
    assert b"CANARY" not in body
    assert len(upstream.seen) == (0 if how == "refuses" else 1)
    row = await relay.row()
    assert (row.outcome, row.error_code) == (("rejected", "closed") if how == "refuses" else ("ok", None))
    # Nor does one that swallows what a call ends with make anything good of it.
    upstream.answer = lambda seen: http({"error": {"message": "no"}}, 400)
    status, body, _ = await ask(relay, way)
    assert status == (403 if how == "refuses" else 400)


async def test_a_policy_that_is_none_is_told_at_start() -> None:
    plugins = with_policy(object())
    assert plugins.policies() == []
    (record,) = [record for record in plugins.records if record.name == "strange"]
    assert record.error == "plugin 'strange' failed in on_call (AttributeError)"
