"""What upstreams report of their use: believed as far as it can be true, never a credit, never counted twice."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.ir import Usage
from relay.meter import MOST, PARTS, Meter, settled
from relay.pricing import Price, Rates, cost
from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import DONE, FakeUpstream, chat_answer, chat_chunk, stream

ODD: list[Any] = [None, -1, -(2**31), 0, 1.5, 7.0, "12", "", True, 2**31, 2**63, 2**200, [], {}, float("1e300")]
NAMES = ("prompt_tokens", "completion_tokens", "total_tokens")
GOOD = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}


def reports() -> list[Any]:
    found: list[Any] = [{**GOOD, name: value} for name in NAMES for value in ODD]
    found += [dict.fromkeys(NAMES, value) for value in ODD]
    found += [{**GOOD, "total_tokens": 5}, {}, [], "usage", 5, None]
    found += [{**GOOD, "prompt_tokens_details": {"cached_tokens": value}} for value in (*ODD, 12, 10**6)]
    found += [{**GOOD, "completion_tokens_details": {"reasoning_tokens": value}} for value in (*ODD, 4, 10**6)]
    found += [{**GOOD, "prompt_tokens_details": value} for value in ODD]
    return found


async def believed(relay: Running, upstream: FakeUpstream, streamed: bool, *said: Any) -> None:
    """One call whose upstream says that; its row is fit to be summed up."""
    text = "word " * 40
    if streamed:
        pieces = [chat_chunk({"content": text}), *(chat_chunk(choices=[], usage=one) for one in said)]
        upstream.answer = lambda seen: stream(*pieces[:-1], chat_chunk(finish="stop"), pieces[-1], DONE)
    else:
        upstream.answer = lambda seen: chat_answer(text, usage=said[-1])
    before = [row.id for row in await relay.rows()]
    async with relay.chat(stream=streamed) as response:
        assert response.status == 200
        await response.read()
    rows = await relay.rows()
    row = rows[0]
    assert [one.id for one in rows[1:]] == before
    usage = row.usage
    assert usage is not None, said
    assert row.outcome == "ok"
    for name in ("input", "output"):
        assert 0 <= getattr(usage, name) <= MOST, (said, usage)
    for name in PARTS:
        # Some hosts count a part beside its whole. It is never billed as more than there is of that.
        assert 0 <= (getattr(usage, name) or 0) <= MOST, (said, usage)
    assert row.cost == usage.input * 1000 + usage.output * 2000  # type: ignore[operator]
    if row.usage_source != "provider":
        assert usage.output in (3, 50), "what was said, or what was seen"


@pytest.mark.promise("U-09")
@pytest.mark.parametrize("streamed", [False, True])
async def test_counts_that_cannot_be_true_damage_no_row(start: Start, upstream: FakeUpstream, streamed: bool) -> None:
    relay = await start(openai_config(upstream))
    for said in reports():
        json.dumps(said)
        await believed(relay, upstream, streamed, said)


@pytest.mark.promise("U-09")
async def test_counts_that_are_sent_twice_or_grow_count_once(start: Start, upstream: FakeUpstream) -> None:
    relay = await start(openai_config(upstream))
    grown = [{**GOOD, "completion_tokens": tokens, "total_tokens": 11 + tokens} for tokens in (1, 2, 3)]
    for said in ([GOOD, GOOD], grown, [GOOD, GOOD, GOOD]):
        await believed(relay, upstream, True, *said)
        row = await relay.latest()
        assert row.usage is not None
        assert (row.usage.input, row.usage.output, row.usage_source) == (11, 3, "provider")


@pytest.mark.promise("U-09")
async def test_what_is_left_out_is_told_in_the_log(
    start: Start, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    relay = await start(openai_config(upstream))
    await believed(relay, upstream, False, {**GOOD, "prompt_tokens_details": {"cached_tokens": 10**8}})
    assert "cache_read 100000000" in caplog.text


VALUES = st.one_of(st.none(), st.integers(-(2**70), 2**70), st.integers(0, 1000), st.floats(), st.text(max_size=5))


@pytest.mark.promise("U-09")
@settings(deadline=None)
@given(st.fixed_dictionaries(dict.fromkeys(("input", "output", *PARTS), VALUES)), st.booleans(), st.integers(0, 99))
def test_whatever_a_plugin_says_the_cost_is_no_credit_and_bounded(
    counts: dict[str, Any], complete: bool, seen: int
) -> None:
    meter = Meter()
    meter.usage, meter.complete = Usage(**counts), complete
    meter.seen = seen
    usage, source = settled(meter, 7)
    assert usage is not None
    assert source in ("provider", "partial", "estimate")
    rates = Rates(10**6, 10**6, *(2 * 10**6 for _ in PARTS))
    assert 0 <= cost(usage, Price(rates)) <= 2 * (2 * MOST)
    for name, whole in PARTS.items():
        part = getattr(usage, name)
        assert part is None or 0 <= part <= MOST, whole
