"""The contract of translation as tests: bytes in, events and values out, and nothing that was not declared."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import random
import re
from collections.abc import Awaitable, Iterable
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from relay.bound import BoundFamily
from relay.errors import RelayError, Unsupported, UpstreamError
from relay.events import Event, Failure, MessageStop, StreamDecoder, TextDelta, ThinkingDelta, UsageSeen
from relay.family import Target, Upstream, UpstreamRequest
from relay.fold import Fold
from relay.ir import Loss, Message, Request, Response, Text, ToolCall
from relay.kit import loads
from relay.manager import Plugins
from relay.mould import EVENT_END, run
from relay.secret import Secret
from relay.testing.damage import ODD_BODIES, damaged, pieces, places, renumbered, reshaped
from relay.testing.grammar import check_events, check_usage, decoded
from relay.testing.questions import questions
from relay.testing.vectors import Vectors

__all__ = ["TranslationSuite", "folded"]

STATUSES = (400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 429, 500, 502, 503, 504, 529, 599)
CUTS = 150
"""Places of a stream at which it is broken off."""


class TranslationSuite:
    """What can be told from bytes alone. `FamilySuite` has the rest, and says how it is used."""

    family: ClassVar[str]
    """The family's name."""
    plugin: ClassVar[object] = None
    """The plugin: a module, an object, or the path of a file. None: it is installed."""
    vectors: ClassVar[Vectors]
    config: ClassVar[str] = ""
    """More of the configuration that the whole relay is started with."""
    own_way: ClassVar[str] = ""
    """Why the family's upstream cannot be played by a script, if it cannot."""

    shown: ClassVar[str | None] = None
    """What of the secret a request shows. None: all of it; less where requests are signed, and the rest is not sent."""

    # What the tests are made of.

    @pytest.fixture(scope="class")
    @classmethod
    def plugins(cls) -> Plugins:
        """All plugins, this one among them."""
        return cls.loaded()

    @pytest.fixture(scope="class")
    @classmethod
    def bound(cls, plugins: Plugins) -> BoundFamily:
        """The family."""
        faults = [f"{record.name}: {record.error}" for record in plugins.records if record.error]
        assert cls.family in plugins.families, f"no plugin serves a family {cls.family!r}; {faults}"
        return plugins.families[cls.family]

    @pytest.fixture
    def target(self, bound: BoundFamily) -> Target:
        """Where its requests go."""
        return self.at(bound)

    @classmethod
    def loaded(cls) -> Plugins:
        """The plugins of a relay with this one."""
        return Plugins.load() if cls.plugin is None else Plugins.load(given={"under_test": cls.plugin})

    def at(self, bound: BoundFamily, base_url: str = "", *, native: bool | None = None) -> Target:
        """A target of the family. Its upstream speaks the family's dialects unless `native` is false."""
        vectors = self.vectors
        dialects = bound.family.dialects if native in (None, True) else frozenset()
        upstream = Upstream(
            "suite",
            bound.name,
            base_url or vectors.base_url,
            Secret(vectors.secret) if vectors.secret else None,
            dialects=dialects,
            options=dict(vectors.options),
            capabilities=dict(bound.family.capabilities),
        )
        return Target(upstream, vectors.model)

    def decoder(self, bound: BoundFamily, target: Target) -> StreamDecoder:
        """A new one for a stream as in the vectors."""
        headers = {"content-type": self.vectors.stream_type, **self.vectors.headers}
        return bound.translate_stream(target, headers, self.vectors.dialect)

    def read(self, bound: BoundFamily, target: Target, body: bytes) -> Response:
        """A complete answer."""
        headers = {"content-type": self.vectors.answer_type, **self.vectors.headers}
        return bound.translate_response(target, 200, headers, body, self.vectors.dialect)

    # The plugin.

    def test_the_plugin_is_whole(self, plugins: Plugins, bound: BoundFamily) -> None:
        """It is loaded without a fault, and has what the relay will ask of it."""
        (record,) = [record for record in plugins.records if self.family in record.families]
        assert record.error is None
        wanted = {"relay_families", "endpoint", "translate_response", "translate_stream", "translate_request"}
        assert wanted <= set(record.hooks), f"missing: {sorted(wanted - set(record.hooks))}"
        assert not bound.family.dialects - set(plugins.dialects), "its dialects are spoken by some plugin"

    # Requests.

    def test_requests_of_every_kind_are_written_or_refused_with_a_reason(
        self, bound: BoundFamily, target: Target
    ) -> None:
        """Each becomes bytes, with its losses declared, or is Unsupported; and the request is left as it was."""
        written = 0
        for what, request in self.asked():
            before = copy.deepcopy(request)
            losses: list[Loss] = []
            try:
                body = bound.translate_request(request, target, losses)
            except Unsupported:
                continue
            finally:
                assert request == before, f"the request was changed: {what}"
            written += 1
            assert body, what
            again = bound.translate_request(request, target, [])
            assert body == again, f"the same request is not written alike: {what}"
            for loss in losses:
                assert loss.kind is None or loss.kind in bound.family.losses, f"{what}: {loss} is not declared"
        assert written >= 4, "the simplest requests have to be written"

    def asked(self) -> Iterable[tuple[str, Request]]:
        """The requests that the family is given."""
        return questions()

    def test_what_differs_is_written_differently_or_told(self, bound: BoundFamily, target: Target) -> None:
        """Nothing of a request is dropped in silence."""
        plain = bound.translate_request(Request("m", [Message("user", [Text("Hello")])]), target, [])
        other = bound.translate_request(Request("m", [Message("user", [Text("Goodbye")])]), target, [])
        assert plain != other, "what the user says is written"
        silent = []
        for what, request in self.asked():
            losses: list[Loss] = []
            try:
                body = bound.translate_request(request, target, losses)
            except Unsupported:
                continue
            if body == plain and not losses:
                silent.append(what)
        harmless = {"one turn", "streamed", "somebody's name"}
        assert set(silent) <= harmless, f"neither written nor told: {sorted(set(silent) - harmless)}"

    def test_requests_go_to_the_upstream_with_its_credential_and_nowhere_else(
        self, bound: BoundFamily, target: Target
    ) -> None:
        """The address is below the configured one, headers are of one line, and the key is in one of them."""
        if self.own_way:
            pytest.skip(self.own_way)
        body = bound.translate_request(Request("m", [Message("user", [Text("Hello")])]), target, [])
        base = urlsplit(target.upstream.base_url)
        for streamed in (False, True):
            sent = bound.endpoint(target, "generate", body, streamed, {})
            if inspect.isawaitable(sent):
                sent = asyncio.run(awaited(sent))
            assert isinstance(sent, UpstreamRequest)
            place = urlsplit(sent.url)
            assert (place.scheme, place.netloc) == (base.scheme, base.netloc), sent.url
            assert place.path.startswith(base.path.rstrip("/")), sent.url
            assert sent.body == body, "the body is sent as it was written"
            assert all(33 <= ord(character) < 127 for character in sent.url), "no blanks in an address"
            for name, value in sent.headers.items():
                assert re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name), f"a header's name: {name!r}"
                assert re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", value), f"the value of {name}"
            if self.vectors.secret:
                assert self.vectors.secret not in sent.url, "logs and proxies keep addresses"
                shown = self.vectors.secret if self.shown is None else self.shown
                assert any(shown in value for value in sent.headers.values()), "the key has to be sent"
                if shown != self.vectors.secret:
                    hidden = self.vectors.secret.replace(shown, "").strip(":")
                    assert hidden not in repr(sent.headers), "what is there to sign with is not sent"

    # Streams and answers.

    def test_a_stream_says_what_it_says(self, bound: BoundFamily, target: Target) -> None:
        """Its events are in order; put together they are its text, its counts and its reason to stop."""
        events = decoded(self.decoder(bound, target), [self.vectors.stream])
        check_events(events)
        assert isinstance(events[-1], MessageStop), events[-1]
        self.is_told(folded(events))

    def test_a_complete_answer_says_the_same(self, bound: BoundFamily, target: Target) -> None:
        """Streams and complete answers are one thing in two forms."""
        self.is_told(self.read(bound, target, self.vectors.answer))

    def is_told(self, response: Response) -> None:
        """Fails unless the response says what the vectors do."""
        vectors = self.vectors
        assert len(response.choices) == 1
        (choice,) = response.choices
        assert choice.text == vectors.text
        assert choice.stop is not None
        assert choice.stop.kind == "stop", choice.stop
        check_usage(response.usage)
        counted = (None, None) if response.usage is None else (response.usage.input, response.usage.output)
        assert counted == (vectors.input_tokens, vectors.output_tokens)

    def test_any_cut_of_the_bytes_gives_the_same_events(self, bound: BoundFamily, target: Target) -> None:
        """However they arrive: byte by byte, in sevens, in two pieces, with the other line ends."""
        data = self.vectors.stream
        whole = decoded(self.decoder(bound, target), [data])
        for size in (1, 2, 7, 64):
            pieces = [data[at : at + size] for at in range(0, len(data), size)]
            assert decoded(self.decoder(bound, target), pieces) == whole, f"in pieces of {size}"
        for at in places(len(data), CUTS):
            assert decoded(self.decoder(bound, target), [data[:at], data[at:]]) == whole, f"cut at byte {at}"
        assert decoded(self.decoder(bound, target), [b"", data, b""]) == whole, "empty pieces mean nothing"
        if self.vectors.stream_type == "text/event-stream":
            for end in (b"\r\n", b"\r"):
                other = data.replace(b"\r\n", b"\n").replace(b"\n", end)
                assert decoded(self.decoder(bound, target), [other]) == whole, f"lines that end in {end!r}"
                bytewise = [other[at : at + 1] for at in range(len(other))]
                assert decoded(self.decoder(bound, target), bytewise) == whole, f"the same, byte by byte: {end!r}"
            assert decoded(self.decoder(bound, target), [b": comment\n\n", data]) == whole, "comments mean nothing"

    def test_what_comes_behind_the_end_changes_nothing(self, bound: BoundFamily, target: Target) -> None:
        """An answer is over once."""
        data = self.vectors.stream
        whole = decoded(self.decoder(bound, target), [data])
        if not any(isinstance(event, MessageStop) for event in self.decoder(bound, target).feed(data)):
            pytest.skip("only the end of the bytes is the end of such a stream")
        events = decoded(self.decoder(bound, target), [data, data])
        check_events(events)
        assert _uncounted(events) == _uncounted(whole)

    def test_a_stream_that_breaks_off_is_a_failure(self, bound: BoundFamily, target: Target) -> None:
        """No end is invented: an answer of which anything but its count is missing is not complete."""
        data = self.vectors.stream
        whole = _uncounted(decoded(self.decoder(bound, target), [data]))
        assert isinstance(whole[-1], MessageStop)
        broken = 0
        for at in places(len(data), CUTS):
            events = told(self.decoder(bound, target), data[:at])
            check_events(events)
            if _uncounted(events) != whole:
                broken += 1
                assert isinstance(events[-1], Failure), f"cut at byte {at} of {len(data)}, it looks complete"
        assert broken, "somewhere it has to be broken"

    def test_damaged_bytes_raise_nothing_that_is_not_declared(self, bound: BoundFamily, target: Target) -> None:
        """Whatever an upstream sends, a plugin answers with events or with a RelayError, and never invents parts."""
        chance = random.Random(self.family)  # noqa: S311 - the same each time
        for data in [*damaged(self.vectors.stream, chance), *reshaped(self.vectors.stream, chance)]:
            try:
                events = decoded(self.decoder(bound, target), pieces(data, chance))
            except RelayError:
                continue
            check_events(events)
        for data in [*damaged(self.vectors.answer, chance), *reshaped(self.vectors.answer, chance), *ODD_BODIES]:
            try:
                response = self.read(bound, target, data)
            except RelayError:
                continue
            check_usage(response.usage)

    def test_counts_are_numbers_of_tokens_or_not_told(self, bound: BoundFamily, target: Target) -> None:
        """Whatever stands where numbers stand."""
        for data in renumbered(self.vectors.stream):
            try:
                events = decoded(self.decoder(bound, target), [data])
            except RelayError:
                continue
            check_events(events)
        for data in renumbered(self.vectors.answer):
            try:
                check_usage(self.read(bound, target, data).usage)
            except RelayError:
                continue

    def test_calls_of_tools_arrive_with_their_arguments(self, bound: BoundFamily, target: Target) -> None:
        """The same ones, streamed and whole."""
        vector = self.vectors.tool
        if vector is None:
            assert not bound.family.capabilities.get("function_calling"), "a family that calls functions shows one"
            pytest.skip("the family calls no functions")
        events = decoded(self.decoder(bound, target), [vector.stream])
        check_events(events)
        bytewise = [vector.stream[at : at + 1] for at in range(len(vector.stream))]
        assert decoded(self.decoder(bound, target), bytewise) == events
        for response in (folded(events), self.read(bound, target, vector.answer)):
            (choice,) = response.choices
            (call,) = [part for part in choice.parts if isinstance(part, ToolCall)]
            assert call.name == vector.name
            assert json.loads(call.arguments) == vector.arguments
            assert choice.stop is not None
            assert choice.stop.kind == "tool_calls", choice.stop

    def test_cheap_counts_are_the_decoders(self, bound: BoundFamily, target: Target) -> None:
        """Where the family has meters, they count what its decoders count."""
        vectors = self.vectors
        headers = {"content-type": vectors.stream_type, **vectors.headers}
        meter = bound.meter_stream(target, headers, vectors.dialect) if vectors.dialect else None
        if meter is not None:
            for at in range(0, len(vectors.stream), 50):
                meter.feed(vectors.stream[at : at + 50])
            if not meter.complete:
                meter.close()
            assert meter.complete
            assert meter.error is None
            assert meter.usage is not None
            assert (meter.usage.input, meter.usage.output) == (vectors.input_tokens, vectors.output_tokens)
        usage = bound.meter_response(target, headers, vectors.answer, vectors.dialect) if vectors.dialect else None
        if usage is not None:
            assert (usage.input, usage.output) == (vectors.input_tokens, vectors.output_tokens)

    def test_text_that_need_not_be_decoded_leaves_nothing_behind(self, bound: BoundFamily, target: Target) -> None:
        """Of a decoder that knows what stands around a text (`TellsMould`): one event more is that text once more."""
        decoder = self.decoder(bound, target)
        mould_of = getattr(decoder, "mould", None)
        if mould_of is None:
            pytest.skip("all of its text is decoded")
        whole = told(self.decoder(bound, target), self.vectors.stream)
        pieces = [piece + EVENT_END for piece in self.vectors.stream.split(EVENT_END) if piece]
        known = told_of = 0
        for number, piece in enumerate(pieces):
            events = decoder.feed(piece)
            told_of += len(events)
            mould = mould_of(piece) if len(events) == 1 else None
            if mould is None or not isinstance(events[0], TextDelta | ThinkingDelta):
                continue
            known += 1
            assert run(piece, 0, mould)[0] == len(piece), "the mould is that of the event"
            assert loads(b'"%b"' % mould.inside(piece)) == events[0].text
            again = told(self.decoder(bound, target), b"".join((*pieces[:number], piece, *pieces[number:])))
            assert again == [*whole[:told_of], events[0], *whole[told_of:]]
        assert known, "of no event of the stream"

    # Errors.

    def test_refusals_are_told_and_the_relays_own_credentials_are_not_the_callers(
        self, bound: BoundFamily, target: Target
    ) -> None:
        """Every status with every body is an UpstreamError or None; a 401 is never shown as one."""
        for refusal in self.vectors.refusals:
            error = bound.translate_error(target, refusal.status, {}, refusal.body)
            assert error is not None
            assert refusal.says in error.message
            assert error.status == refusal.shown
        for status in STATUSES:
            for body in (*ODD_BODIES, *(refusal.body for refusal in self.vectors.refusals)):
                try:
                    error = bound.translate_error(target, status, {}, body)
                except UpstreamError as raised:
                    error = raised
                if error is None:
                    continue
                assert error.status >= 400
                assert error.message
                if status in (401, 403):
                    assert error.status not in (401, 403), "the caller would throw its own key away"


def folded(events: Iterable[Event]) -> Response:
    """The response that these events spell. Fails if they tell of an error."""
    fold = Fold()
    fold.add(events)
    assert fold.error is None, fold.error
    return fold.response()


def _uncounted(events: Iterable[Event]) -> list[Event]:
    """All but the counts, which may come at the very end, or not at all."""
    return [event for event in events if not isinstance(event, UsageSeen)]


def told(decoder: StreamDecoder, data: bytes) -> list[Event]:
    """The events of these bytes. What the decoder raises ends them, as it does in the relay."""
    try:
        return decoded(decoder, [data])
    except RelayError as error:
        return [Failure(error)]


async def awaited(request: Awaitable[UpstreamRequest]) -> UpstreamRequest:
    """What a hook that is a coroutine gives."""
    return await request
