"""Token probabilities in the shape that the hub uses for all vendors."""

from __future__ import annotations

from typing import Any

__all__ = ["logprobs_of"]


def logprobs_of(result: Any) -> list[dict[str, Any]]:
    """One entry for each chosen token, with its alternatives; empty if there are none."""
    if not isinstance(result, dict):
        return []
    chosen = _candidates(result.get("chosenCandidates"))
    steps = result.get("topCandidates")
    tops = [_candidates(step.get("candidates")) if isinstance(step, dict) else [] for step in _list(steps)]
    tops += [[] for _ in range(len(chosen) - len(tops))]
    return [{**_entry(token), "top_logprobs": [_entry(item) for item in tops[i]]} for i, token in enumerate(chosen)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _candidates(value: Any) -> list[dict[str, Any]]:
    return [item for item in _list(value) if isinstance(item, dict) and isinstance(item.get("token"), str)]


def _entry(item: dict[str, Any]) -> dict[str, Any]:
    token = item["token"]
    # A probability of exactly 1 has logarithm 0, which is left out on the wire.
    return {
        "token": token,
        "logprob": item.get("logProbability", 0.0),
        "bytes": list(token.encode("utf-8", "surrogatepass")),
    }
