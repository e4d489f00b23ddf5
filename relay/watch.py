"""Attempts whose answers are read in full beside their way to the client, also where they pass through.

That costs as much as a translation, so only answers are watched of which somebody wants to know how they ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from relay.attempt import Attempt
from relay.bound import BoundFamily
from relay.call import Call
from relay.embedding import EmbeddingAttempt
from relay.events import ChoiceStop, Event, PartStart, StreamDecoder, StreamMeter
from relay.family import Target
from relay.ir import Response, StopKind, Usage
from relay.outlet import Outlet

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["WATCHED", "Stops", "WatchedAttempt"]

UNREAD = -1
"""The place of what could not be read."""

Stops = dict[int, StopKind | None]
"""Why each choice stopped; None: it has not."""


class Listener:
    """A decoder that is listened to."""

    __slots__ = ("_decoder", "_stops")

    def __init__(self, decoder: StreamDecoder, stops: Stops) -> None:
        self._decoder = decoder
        self._stops = stops
        # As long as it is being read, nobody knows how it ends; also if reading it fails.
        stops[UNREAD] = None

    def feed(self, data: bytes, /) -> list[Event]:
        """As the decoder's."""
        return self._heard(self._decoder.feed(data))

    def close(self) -> list[Event]:
        """As the decoder's."""
        return self._heard(self._decoder.close())

    def _heard(self, events: list[Event]) -> list[Event]:
        for event in events:
            if isinstance(event, PartStart):
                self._stops.setdefault(event.choice, None)
            elif isinstance(event, ChoiceStop):
                self._stops.pop(UNREAD, None)
                self._stops[event.choice] = event.stop.kind
        return events


class WatchedFamily(BoundFamily):
    """A family whose answers are watched. There is no cheaper way of reading them then."""

    __slots__ = ("_stops",)

    def __init__(self, inner: BoundFamily, stops: Stops) -> None:
        self.family, self.name, self.plugin, self._calls = inner.family, inner.name, inner.plugin, inner._calls
        self.origin = inner.origin
        self._stops = stops

    def translate_response(
        self, target: Target, status: int, headers: Mapping[str, str], body: bytes, dialect: str = ""
    ) -> Response:
        """As the family's."""
        response = super().translate_response(target, status, headers, body, dialect)
        for place, choice in enumerate(response.choices):
            self._stops[place] = None if choice.stop is None else choice.stop.kind
        return response

    def translate_stream(self, target: Target, headers: Mapping[str, str], dialect: str = "") -> StreamDecoder:
        """As the family's, and listened to."""
        return Listener(super().translate_stream(target, headers, dialect), self._stops)

    def meter_response(
        self, target: Target, headers: Mapping[str, str], body: bytes, dialect: str = ""
    ) -> Usage | None:
        """None: it is read."""
        return None

    def meter_stream(self, target: Target, headers: Mapping[str, str], dialect: str = "") -> StreamMeter | None:
        """None: it is decoded."""
        return None


class WatchedAttempt(Attempt):
    """A try of which it is known in the end why the answer stopped: `call.stops`."""

    def __init__(self, relay: Relay, call: Call, target: Target, outlet: Outlet) -> None:
        super().__init__(relay, call, target, outlet)
        call.stops = {}
        self.family = WatchedFamily(self.family, call.stops)


WATCHED: Mapping[str, type[Attempt]] = MappingProxyType({"generate": WatchedAttempt, "embeddings": EmbeddingAttempt})
"""How a target is tried then, by operation. Vectors are complete or they are none."""
