"""Every recorded answer, delivered to a client of the Messages API and read by that vendor's SDK."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator

import anthropic
import pytest
import pytest_asyncio

from tests.replay.messages import UNREADABLE, Delivered, MessagesClient, faults
from tests.replay.reading import ENDED
from tests.replay.recording import Exchange, Group
from tests.replay.stage import Stage
from tests.replay.test_cuts import FRAMINGS, SAMPLE, cut, offsets, sample
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


async def test_a_client_is_told_of_every_cut(client: MessagesClient, recordings: dict[Group, list[Exchange]]) -> None:
    counts: Counter[str] = Counter()
    for exchange in sample(recordings):
        if exchange["id"] in UNREADABLE:
            continue
        shown: list[tuple[tuple[str, int, str], bool, Delivered]] = []
        for number, place in enumerate(offsets(exchange["body"])):
            framing = FRAMINGS[number % 3]
            whole = ENDED[exchange["dialect"]](exchange["body"][:place], closed=framing == "close")
            shown.append(
                ((exchange["id"], place, framing), whole, await client.play(exchange, cut(exchange, place, framing)))
            )
        rows = await client.stage.rows(len(shown))
        for where, whole, one in shown:
            assert one.logged == [], where
            (row,) = rows[one.tape.headers["x-request-id"]]
            if whole:
                assert one.error is None, where
                assert (row.outcome, one.tape.whole) == ("ok", True), where
            else:
                told(one, where)
                assert row.outcome == "upstream_cut", where
            counts["whole" if whole else type(one.error).__name__] += 1
    assert counts.total() >= SAMPLE * 10
    assert counts["whole"] >= 20


def told(shown: Delivered, where: tuple[str, int, str]) -> None:
    """The client knows that it was cut: an error answer, or an error event and a body without its end."""
    assert isinstance(shown.error, anthropic.APIStatusError), where
    assert shown.error.type == "api_error", where
    body = shown.tape.body
    if shown.tape.status != 200:
        assert (shown.tape.status, json.loads(body)["type"]) == (502, "error"), where
        return
    assert not shown.tape.whole, where
    start, _, last = body.rpartition(b"event: error\ndata: ")
    assert json.loads(last)["error"]["details"]["error_code"] == "upstream_protocol_error", where
    assert b"message_stop" not in start, where
    if shown.exchange["dialect"] == "anthropic-messages":
        assert shown.exchange["body"].startswith(start), where
