"""The watch over all tests of this folder and of `tests/promises`: it sees who holds the event loop up, and who."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest

from relay.attempt import Attempt
from tests.blocking import LONGEST, Watch, watching
from tests.flow.conftest import Start, openai_config
from tests.flow.fake import FakeUpstream, chat_answer
from tests.flow.loops import LOOP


def sleeps() -> None:
    time.sleep(0.001)


def reads() -> None:
    Path("/dev/null").read_text()


def connects() -> None:
    with socket.socket() as one:
        one.settimeout(0.01)
        one.connect_ex(("127.0.0.1", 1))


@pytest.mark.promise("X-07")
@pytest.mark.parametrize(
    ("how", "seen"),
    [(sleeps, "time.sleep"), (reads, "open"), (connects, "socket.connect")],
    ids=lambda it: str(it)[:12],
)
async def test_the_watch_over_every_test_here_sees_who_waits(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, how: Any, seen: str
) -> None:
    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream))
    # As if a line of the relay's did it: what a test does by itself does not count.
    scope: dict[str, Any] = {"how": how.__code__, "done": Attempt.prepare}
    place = Attempt.prepare.__code__.co_filename
    names = {"time": time, "Path": Path, "socket": socket}
    code = compile("def prepare(self):\n    run()\n    return done(self)\n", place, "exec")
    inner = compile("def run():\n    real()\n", place, "exec")
    exec(inner, scope)
    scope["real"] = type(how)(how.__code__.replace(co_filename=place), names)
    exec(code, scope)
    with watching() as watch:
        monkeypatch.setattr(Attempt, "prepare", scope["prepare"])
        async with relay.chat() as response:
            assert response.status == 200
    assert len(watch.found) == 1
    assert watch.found[0].startswith("relay/attempt.py ")
    assert f"waits in {seen}(" in watch.found[0]


@pytest.mark.promise("X-07")
@pytest.mark.skipif(LOOP == "uvloop", reason="its callbacks are not Python's")
async def test_the_watch_over_every_test_here_sees_who_computes(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream))
    prepare = Attempt.prepare

    def slow(self: Attempt) -> Any:
        until = time.thread_time() + 8 * LONGEST
        while time.thread_time() < until:
            pass
        return prepare(self)

    with watching() as watch:
        monkeypatch.setattr(Attempt, "prepare", slow)
        async with relay.chat() as response:
            assert response.status == 200
    assert len(watch.found) == 1
    assert "computes for" in watch.found[0]


@pytest.mark.promise("X-07")
@pytest.mark.skipif(LOOP == "uvloop", reason="its callbacks are not Python's")
async def test_nobody_is_blamed_for_a_machine_that_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    class Handle:
        _callback = Attempt.prepare.__get__(object.__new__(Attempt))

    def slow(handle: Any) -> None:
        until = time.thread_time() + 0.01
        while time.thread_time() < until:
            pass

    for spun, found in ((60.0, 1), (0.000001, 0)):
        monkeypatch.setattr("tests.blocking.SPUN", spun)
        watch = Watch(longest=0.002)
        watch.turn(slow, Handle())
        assert len(watch.found) == found
