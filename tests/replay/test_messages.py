"""Every recorded answer, delivered to a client of the Messages API and read by that vendor's SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.replay.messages import MessagesClient, faults
from tests.replay.recording import Exchange, Group
from tests.replay.stage import Stage
from tests.replay.test_replay import COUNTS, name

pytestmark = [pytest.mark.shared, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(stage: Stage) -> AsyncIterator[MessagesClient]:
    one = MessagesClient(stage)
    yield one
    await one.close()


@pytest.mark.parametrize("group", COUNTS, ids=name)
async def test_what_was_recorded_reaches_the_other_vendors_client(
    client: MessagesClient, recordings: dict[Group, list[Exchange]], group: Group
) -> None:
    exchanges = recordings[group]
    assert len(exchanges) >= COUNTS[group]
    shown = [await client.play(exchange) for exchange in exchanges]
    rows = await client.stage.rows(len(shown) + 1)
    wrong = {
        one.exchange["id"]: found
        for one in shown
        if (found := faults(one, rows.get(one.tape.headers["x-request-id"], [])))
    }
    assert not wrong
