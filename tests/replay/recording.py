"""The recorded exchanges that are played through the relay, in groups."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

DIALECTS = frozenset({"openai-chat", "anthropic-messages", "gemini"})
"""What was recorded from upstreams of the three families."""

Exchange = dict[str, Any]
Group = tuple[str, bool]
"""File of the recordings, and whether the answers are streams."""

HAND_MADE = "_handmade"


def played(traffic: Any) -> dict[Group, list[Exchange]]:
    """All exchanges that asked for a generation, by file and form. Each has its answer's bytes under `body`."""
    groups: dict[Group, list[Exchange]] = defaultdict(list)
    for exchange in traffic.exchanges(traffic.folder, handmade=True):
        # Some recordings are of other calls, such as lists of stored completions.
        if exchange["dialect"] in DIALECTS and exchange["method"] == "POST":
            file = HAND_MADE if exchange["fidelity"] == "hand-made" else exchange["family"]
            exchange["body"] = traffic.body(exchange)
            groups[file, exchange["streaming"]].append(exchange)
    return dict(groups)
