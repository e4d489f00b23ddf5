"""The seals of keys that came with a call: derived once each, and the oldest are forgotten."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from relay.store.keys import Key

if TYPE_CHECKING:
    from relay.seal import Seal

__all__ = ["Seals"]

MOST = 1000


class Seals:
    """Of one process."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, tuple[object, Seal]] = OrderedDict()
        self._kind: type[Seal] | None = None

    async def of(self, key: Key) -> Seal | None:
        """What seals for this key; None if it came without its secret. Raises ImportError if nothing can be sealed."""
        if key.secret is None:
            return None
        known = self._known.get(key.id)
        if known is not None and known[0] == key.secret:
            self._known.move_to_end(key.id)
            return known[1]
        if self._kind is None:
            # Loaded when it is needed for the first time, beside the event loop.
            self._kind = await asyncio.to_thread(_load)
        seal = self._kind(key.secret)
        self._known[key.id] = (key.secret, seal)
        if len(self._known) > MOST:
            self._known.popitem(last=False)
        return seal


def _load() -> type[Seal]:
    from relay.seal import Seal

    return Seal
