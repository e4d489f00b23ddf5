"""The table of what a call costs from each dialect to each: medians, and ratios within each round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

__all__ = ["DIALECTS", "KINDS", "table"]

DIALECTS = ("openai-chat", "openai-responses", "anthropic-messages", "gemini")
KINDS = ("whole", "turn", "stream", "call")
UNITS = ("us an answer", "us a turn", "us a piece", "us a piece of a call")
HEADS = ("Client", "Upstream", *(head for unit in UNITS for head in (unit, "against bare")))


def table(rounds: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """Microseconds of CPU, each also against the bare pass-through of its round, as Markdown."""
    lines = ["| " + " | ".join(HEADS) + " |", "|---|---|" + "---:|" * (len(HEADS) - 2)]
    first = [f"{median(one[kind]['cpu_us'] for one in rounds):,.1f}" for kind in KINDS]
    lines.append("| *bare, Chat Completions* | | " + " | ".join(f"{cost} | 1.00x" for cost in first) + " |")
    for client in DIALECTS:
        for upstream in DIALECTS:
            cells = []
            for kind in KINDS:
                name = f"{client} to {upstream}, {kind}"
                cost = median(one[name]["cpu_us"] for one in rounds)
                ratio = median(one[name]["cpu_us"] / one[kind]["cpu_us"] for one in rounds)
                cells += [f"{cost:,.1f}", f"{ratio:.2f}x"]
            untouched = ", untouched" if client == upstream else ""
            lines.append(f"| `{client}` | `{upstream}`{untouched} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
