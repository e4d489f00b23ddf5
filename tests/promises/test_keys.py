"""Who is let in: by one key in any of its places, looked up by its hash, guessed at no more than a few times."""

from __future__ import annotations

import ast
import asyncio
import logging
import math
import random
import re
import string
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from relay.store.keys import digest
from relay.throttle import Throttle, neighbourhood
from tests.flow.conftest import Start, openai_config
from tests.flow.fake import FakeUpstream, Seen, Step, chat_answer, chat_chunk, http, stream
from tests.promises.courses import PLANES
from tests.promises.ways import served
from tests.promises.wire import Wire, post, wire

STRANGE = [
    "' OR 1=1--",
    "'; DROP TABLE keys;--",
    '" OR ""="',
    "%",
    "_",
    "%%%%%%%%",
    "sk-relay-%",
    "sk-relay-' UNION SELECT * FROM keys--",
    "\\",
    "${jndi:ldap://x}",
    "{{7*7}}",
    "../../etc/passwd",
    "a b",
    "sk-relay-\u00e9\u00e8",
    "\u00ff\u00fe",
    "\U0001f511",
    "sk-" + "x" * 7000,
    "null",
    "None",
    "0",
    "-1",
    "1e999",
    ";",
    "/*",
    "x'00'",
    "?",
    ":name",
    "@p",
    "$1",
    "sk-relay-",
    "x' OR digest IS NOT NULL--",
    "') OR ('1'='1",
    "1; PRAGMA writable_schema=1",
    "1; ATTACH DATABASE '/tmp/x' AS x",
    "sk-relay-\udcff\udcfe",
    "\udc80",
    "\u202esk-relay-",
    "sk-relay-\u200b",
    "%00",
    "sk-relay-%c0%80",
    "GLOB *",
    "sk-relay-" + "\u00e9" * 900,
]
HEADERS = ("Authorization: Bearer {}", "x-api-key: {}", "api-key: {}", "x-goog-api-key: {}")


def lines(secret: str, *headers: str) -> bytes:
    """A chat request whose key stands in these headers."""
    own = post("X").replace(b"Authorization: Bearer X\r\n", b"")
    added = "".join(f"{header.format(secret)}\r\n" for header in headers).encode("utf-8", "surrogateescape")
    return own.replace(b"Host: 127.0.0.1\r\n", b"Host: 127.0.0.1\r\n" + added)


@pytest.mark.promise("A-01")
@pytest.mark.promise("A-02")
@pytest.mark.promise("A-15")
async def test_no_spelling_of_a_key_is_more_than_a_wrong_key(start: Start, upstream: FakeUpstream) -> None:
    relay = await start(openai_config(upstream) + "    [server]\n    wrong_keys_per_minute = 0\n")
    statements: list[str] = []
    # With the values that were bound, as SQLite expands them.
    await relay.relay.store.ring._reader._connection.set_trace_callback(statements.append)
    (before,) = await relay.relay.store.keys.all()
    answers = set()
    for secret in STRANGE:
        for header in HEADERS:
            async with wire(relay) as connection:
                connection.send(lines(secret, header))
                answer = await connection.answer()
                assert answer.status == 401, (secret, header)
                answers.add((answer.error["code"], answer.error["type"]))
                assert secret not in answer.body.decode() or len(secret) < 5
    for header in (
        "Authorization: Basic c2s6eA==",
        "Authorization: Bearer",
        "Authorization: Bearer  ",
        "Authorization: X",
    ):
        async with wire(relay) as connection:
            connection.send(lines("", header))
            assert (await connection.answer()).status == 401
    async with wire(relay) as connection:
        connection.send(lines("x" * 9000, "Authorization: Bearer {}"))
        assert (await connection.answer()).status in (401, 431)
    assert answers == {("invalid_api_key", "authentication_error")}, "all of one shape"
    assert await relay.relay.store.keys.all() == [before]
    assert upstream.seen == []
    assert await relay.rows() == []
    asked = "\n".join(statements).lower()
    assert asked.count(" digest = x'") >= len(STRANGE) - 5, "looked up by hash"
    for secret in STRANGE:
        if len(secret) > 4:
            assert secret.lower() not in asked


ID = re.compile(rb"req_[0-9a-f]+")


@pytest.mark.promise("A-01")
@pytest.mark.promise("A-15")
async def test_on_every_route_it_is_the_answer_that_an_unknown_key_gets(start: Start, upstream: FakeUpstream) -> None:
    relay = await start(openai_config(upstream) + "    [server]\n    wrong_keys_per_minute = 0\n")
    database = relay.relay.store.ring._reader

    async def kept() -> list[Any]:
        tables = await database.fetch("SELECT name, sql FROM sqlite_master ORDER BY name")
        names = [name for name, sql in tables if str(sql).startswith("CREATE TABLE")]
        return [tables, *[await database.fetch(f"SELECT COUNT(*) FROM {name}") for name in names]]

    async def ask(connection: Wire, method: str, path: str, secret: str, header: str) -> tuple[int, bytes]:
        line = header.format(secret).encode("utf-8", "surrogateescape")
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n".encode()
        connection.send(head + line + b"\r\nContent-Length: 0\r\n\r\n")
        said = await connection.answer(method)
        return said.status, ID.sub(b"", said.body)

    before = await kept()
    routes = [(method, path) for method, path in served(relay.server.app) if path not in ("/healthz", "/readyz")]
    assert len(routes) > 30
    assert len(STRANGE) > 40
    for method, path in (*routes, ("GET", "/nowhere"), ("PATCH", "/v1/chat/completions")):
        async with wire(relay) as connection:
            # Where clients of several APIs ask, the header says whose envelope it is.
            unknown = [await ask(connection, method, path, "sk-relay-nobody-has-this", header) for header in HEADERS]
            status = {"/nowhere": 404}.get(path, 405 if method == "PATCH" else 401)
            assert {said for said, _ in unknown} == {status}, (method, path)
            for number, secret in enumerate(STRANGE):
                place = number % len(HEADERS)
                said = await ask(connection, method, path, secret, HEADERS[place])
                assert said == unknown[place], (method, path, secret)
    assert await kept() == before
    assert upstream.seen == []


@pytest.mark.promise("A-10")
async def test_a_key_is_the_same_in_each_of_its_places_and_two_are_none(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream))
    async with wire(relay) as connection:
        for header in (*HEADERS, "authorization: bearer {}", "Authorization: BEARER {}"):
            connection.send(lines(relay.key, header))
            assert (await connection.answer()).status == 200, header
        connection.send(lines(relay.key, *HEADERS))
        assert (await connection.answer()).status == 200, "the same four times"
        for header in HEADERS[1:]:
            for pair in ((HEADERS[0], header.format("sk-other")), (header, "Authorization: Bearer sk-other")):
                connection.send(lines(relay.key, *pair))
                assert (await connection.answer()).status == 401
        assert len(upstream.seen) == 7
        for number in range(8):
            connection.send(lines(relay.key, HEADERS[0], f"x-api-key: sk-other-{number}"))
            assert (await connection.answer()).status == 401, "and not one of the two, as it happens"
    assert len(upstream.seen) == 7


@pytest.mark.promise("A-17")
async def test_whoever_guesses_has_to_wait_and_nobody_else_has(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream) + "    [server]\n    wrong_keys_per_minute = 20\n")
    looked: list[Any] = []
    ring = relay.relay.store.ring
    lookup = ring.lookup

    async def counted(token: str) -> Any:
        looked.append(token)
        return await lookup(token)

    ring.lookup = counted  # type: ignore[method-assign]
    async with wire(relay) as connection:
        connection.send(post(relay.key))
        assert (await connection.answer()).status == 200
        looked.clear()
        statuses = []
        for number in range(50):
            connection.send(post(f"sk-relay-wrong-key-number-{number}"))
            said = await connection.answer()
            statuses.append(said.status)
        assert statuses == [401] * 20 + [429] * 30
        assert len(looked) == 20, "nothing is looked up for those who have to wait"
        assert said.error["code"] == "too_many_unknown_keys"
        assert 1 <= int(said.headers["retry-after"]) <= 3
        connection.send(post(relay.key))
        assert (await connection.answer()).status == 200, "a key that is known already"
    later = relay.relay.clock() + 3.1
    relay.relay.clock = lambda: later
    async with wire(relay) as connection:
        connection.send(post("sk-relay-one-more"))
        assert (await connection.answer()).status == 401, "after as long as was said"
    _, other = await relay.relay.store.keys.create("other")
    # From another address, which is the same machine here.
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.server.port, local_addr=("127.0.0.9", 0))
    writer.write(post(other))
    assert b" 200 " in await reader.readline()
    writer.close()


@pytest.mark.promise("A-17")
def test_an_address_may_fail_as_often_as_allowed_and_that_often_again_each_minute() -> None:
    throttle = Throttle(6)
    now = 1000.0
    for _ in range(6):
        assert throttle.wait("a", now) == 0
        throttle.failed("a", now)
    assert throttle.wait("a", now) == pytest.approx(10)
    assert throttle.wait("a", now + 9.9) > 0
    assert throttle.wait("a", now + 10) == 0
    assert throttle.wait("b", now) == 0
    assert throttle.wait("a", now - 100) > 0, "a clock that went back forgives nothing"
    assert Throttle(0).wait("a", now) == 0


@pytest.mark.promise("A-17")
@pytest.mark.promise("L-14")
def test_the_table_of_offenders_is_bounded_and_a_subscriber_is_one_of_them() -> None:
    throttle = Throttle(3, kept=100)
    for number in range(5000):
        throttle.failed(str(number), 0.0)
    assert len(throttle) == 100
    places = {neighbourhood(f"2001:db8:1:2:{number:x}::1") for number in range(100)}
    assert places == {"2001:db8:1:2::/64"}
    assert neighbourhood("::ffff:10.0.0.1") == neighbourhood("10.0.0.1") == "10.0.0.1"
    assert neighbourhood("fe80::1%eth0") == "fe80::/64"
    assert neighbourhood("") == ""


@pytest.mark.promise("A-17")
def test_no_window_lets_more_through_than_allowed() -> None:
    chance = random.Random(7)
    throttle, allowance, now = Throttle(30), 30, 0.0
    passed: list[float] = []
    for _ in range(20_000):
        now += chance.expovariate(5)
        if not throttle.wait("a", now):
            throttle.failed("a", now)
            passed.append(now)
    for begin in range(0, len(passed), 50):
        for width in (1, 60, 600):
            inside = sum(passed[begin] <= moment < passed[begin] + width for moment in passed[begin : begin + 2000])
            assert inside <= allowance + allowance * width / 60 + 1


SECRETS = {"token", "secret", "api_key", "password", "credential"}
COMPARED = {
    ("relay/store/keys.py", "' ' in token"): "of a key that is imported",
    (
        "relay/store/seals.py",
        "known[0] == key.secret",
    ): "a key's own seal with what it was made of, both from the database",
    ("relay/testing/translation.py", "shown != self.vectors.secret"): "of a made up key, in a test",
    ("relay/testing/translation.py", "self.vectors.secret not in sent.url"): "the same",
}
"""Where secrets are compared as such, and why that tells nobody anything."""


@pytest.mark.promise("A-16")
def test_no_line_compares_secrets_but_by_their_hashes() -> None:
    root = Path(__file__).parents[2]
    found = set()
    for file in sorted((root / "relay").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Compare) or all(isinstance(one, ast.Is | ast.IsNot) for one in node.ops):
                continue
            sides = [node.left, *node.comparators]
            names = {one.attr if isinstance(one, ast.Attribute) else getattr(one, "id", "") for one in sides}
            if names & SECRETS:
                found.add((str(file.relative_to(root)), ast.unparse(node)))
    assert found == set(COMPARED)


def rank_sum(one: Sequence[float], other: Sequence[float]) -> float:
    """How likely it is that such a difference is chance: the test of Mann and Whitney, for many values."""
    ranked = sorted([(value, 0) for value in one] + [(value, 1) for value in other])
    n, m = len(one), len(other)
    ranks = 0.0
    for begin, end in runs([value for value, _ in ranked]):
        ranks += sum(1 for _, side in ranked[begin:end] if side == 0) * (begin + end + 1) / 2
    spread = math.sqrt(n * m * (n + m + 1) / 12)
    return math.erfc(abs(ranks - n * (n + m + 1) / 2) / spread / math.sqrt(2))


def runs(values: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Where equal values begin and end."""
    begin = 0
    for end in range(1, len(values) + 1):
        if end == len(values) or values[end] != values[begin]:
            yield begin, end
            begin = end


@pytest.mark.promise("A-16")
async def test_a_guess_that_begins_like_a_key_takes_as_long_as_any(start: Start) -> None:
    assert rank_sum(range(500), range(20, 520)) < 0.05, "a shift that it does see"
    assert rank_sum(range(0, 1000, 2), range(1, 1000, 2)) > 0.5
    relay = await start()
    ring = relay.relay.store.ring
    assert (await ring.lookup(relay.key)) is not None
    chance = random.Random(5)

    def rest(length: int) -> str:
        return "".join(chance.choices(string.ascii_letters, k=length))

    async def measured() -> float:
        size = len(relay.key)
        guesses = [(near, relay.key[: size - 4] + rest(4) if near else rest(size)) for near in (False, True) * 1500]
        chance.shuffle(guesses)
        taken: dict[bool, list[float]] = {False: [], True: []}
        for near, guess in guesses:
            began = time.perf_counter_ns()
            assert await ring.lookup(guess) is None
            taken[near].append(time.perf_counter_ns() - began)
        return rank_sum(taken[False], taken[True])

    # By chance one of a hundred is below a hundredth; three of three is one of a million.
    assert max([await measured() for _ in range(3)]) > 0.01


@pytest.mark.promise("A-16")
def test_secrets_are_looked_up_by_their_hashes_only() -> None:
    one, other = digest("sk-relay-a"), digest("sk-relay-b")
    assert len(one) == len(other) == 32
    assert one != other
    assert digest("\udcff\udcfe"), "bytes that are no text have a hash, too"


ECHO = "Incorrect API key provided: sk-CANARY-upstream-key. You can find yours at https://vendor.example."


def told_late(seen: Seen) -> list[Step]:
    return stream(chat_chunk({"content": "Hel"}), 0.05, f'data: {{"error":{{"message":"{ECHO}"}}}}\n\n'.encode())


@pytest.mark.promise("A-06")
@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("how", ["400", "401", "500", "page", "in a good answer", "late"])
async def test_what_an_upstream_repeats_of_its_key_is_masked(
    start: Start, upstream: FakeUpstream, how: str, plane: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    value = {"error": {"message": ECHO, "code": "sk-CANARY-upstream-key", "param": "sk-CANARY-upstream-key"}}
    scripts: dict[str, Any] = {
        "page": lambda seen: http(f"{ECHO}".encode(), 503, content_type="text/html"),
        "in a good answer": lambda seen: http(value),
        "late": told_late,
    }
    upstream.answer = scripts.get(how) or (lambda seen: http(value, int(how)))
    once = "    [routing]\n    max_attempts = 1\n    max_cool_down_seconds = 0\n"
    relay = await start(openai_config(upstream) + once)
    path = "/v1/messages" if plane == "messages" else "/v1/chat/completions"
    streamed = plane == "stream" or (plane == "messages" and how == "late")
    if how == "late" and not streamed:
        pytest.skip("only streams have a late")
    for _ in range(2):
        async with wire(relay) as connection:
            connection.send(post(relay.key, path=path, max_tokens=9, stream=streamed, headers="Connection: close\r\n"))
            got = await connection.rest()
        assert b"CANARY" not in got, got
        assert (b" 200 " in got.partition(b"\r\n")[0]) is (how == "late")
    assert "CANARY" not in caplog.text
    assert len(upstream.seen) == 2
    for row in await relay.rows():
        assert "CANARY" not in str(row)


@pytest.mark.promise("A-06")
async def test_what_is_repeated_in_place_of_a_count_is_masked_too(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [http({"type": "error", "error": {"type": "invalid_request_error", "message": ECHO}}, 400)]
    config = openai_config(upstream).replace('family = "openai"', 'family = "anthropic"').replace("/v1", "")
    relay = await start(config)
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    async with relay.client.post(f"{relay.url}/v1/messages/count_tokens", json=body) as response:
        assert response.status == 400
        got = await response.text()
    assert "Incorrect API key" in got
    assert "CANARY" not in got
