"""What a call costs from each dialect to each, beside the same call through a bare pass-through in the same round.

    python benchmarks/pairs.py            three rounds, about three minutes
    python benchmarks/pairs.py --save     and write the results where the documentation takes its table from

One relay with an upstream of each dialect is asked in each dialect: whole answers to a short question and to a turn of
a coding agent (`agent.py`), and streams without a pause, of a text and of a tool's arguments. Where both are the same,
bytes pass through. The bare pass-through cannot translate: it is asked in Chat Completions.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import agent
from bench import WARM, Bench, machine
from gateways import Gateway, Running, gateways
from matrix import DIALECTS, KINDS, table
from phases import SYSTEM, Phase
from report import BASE

__all__ = ["PairPhase", "phases"]

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "pairs.json"
ROUNDS = 3
WHOLE, STREAM, CALL = "mock-0-0", "mock-200-0", "mock-200-0-call"
PIECES = 200
"""Of each stream."""
UPSTREAMS: Mapping[str, str] = {
    "openai-chat": 'family = "openai"\nbase_url = "http://127.0.0.1:{upstream}/v1"\n',
    "openai-responses": (
        'family = "openai"\nbase_url = "http://127.0.0.1:{upstream}/v1"\ndialects = ["openai-responses"]\n'
    ),
    "anthropic-messages": 'family = "anthropic"\nbase_url = "http://127.0.0.1:{upstream}"\n',
    "gemini": 'family = "gemini"\nbase_url = "http://127.0.0.1:{upstream}"\n',
}
PATHS: Mapping[str, str] = {
    "openai-chat": "/v1/chat/completions",
    "openai-responses": "/v1/responses",
    "anthropic-messages": "/v1/messages",
    "gemini": "/v1beta/models/{model}:{verb}",
}
ENDS: Mapping[str, str] = {
    "openai-chat": "[DONE]",
    "openai-responses": "response.completed",
    "anthropic-messages": "message_stop",
    "gemini": '"finishReason":"STOP"',
}
"""What only a stream that is complete has in it."""


def configuration() -> str:
    """A relay with an upstream of each dialect, and models named after it."""
    text = "[discovery]\nenvironment = false\nlocal = false\nfallback = false\n"
    for dialect, upstream in UPSTREAMS.items():
        text += f'[upstreams.{dialect}]\n{upstream}api_key = "upstream-key-0123456789"\n'
        for model in (WHOLE, STREAM, CALL):
            text += f'[models."{dialect}-{model}"]\ntargets = ["{dialect}/{model}"]\n'
            text += "price = { input = 1.0, output = 2.0 }\n"
    # What it is asked to find out whether it serves.
    return text + f'[models."{WHOLE}"]\ntargets = ["openai-chat/{WHOLE}"]\n'


@dataclass(frozen=True)
class PairPhase(Phase):
    """A load in one dialect, for an upstream of another."""

    client: str = DIALECTS[0]
    agent: bool = False
    """Asked as a coding agent does."""
    calls: bool = False
    """Asked with a tool, which is then called."""

    def body(self, model: str = "{model}") -> bytes:
        """The same request in the client's words."""
        if self.agent:
            return agent.body(self.client, self.model)
        words = ("The cat sat on the mat. " * (self.prompt // 24 + 1))[: self.prompt]
        asked: dict[str, Any] = {"model": self.model}
        if self.client == "gemini":
            asked = {
                "systemInstruction": {"parts": [{"text": SYSTEM}]},
                "contents": [{"role": "user", "parts": [{"text": words}]}],
                "generationConfig": {"maxOutputTokens": 400},
            }
        elif self.client == "openai-responses":
            asked |= {"instructions": SYSTEM, "input": words, "max_output_tokens": 400, "store": False}
        elif self.client == "anthropic-messages":
            asked |= {"system": SYSTEM, "messages": [{"role": "user", "content": words}], "max_tokens": 400}
        else:
            messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": words}]
            asked |= {"messages": messages, "max_tokens": 400}
        if self.calls:
            asked["tools"] = agent.tools(self.client, ("write",))
        if self.stream and self.client != "gemini":
            asked["stream"] = True
        return json.dumps(asked, separators=(",", ":")).encode()


def phases(share: float = 1.0) -> list[PairPhase]:
    """All loads for each pair; times a share of the usual ones."""
    found = []
    for upstream in DIALECTS:
        for client in DIALECTS:
            for kind in KINDS:
                stream = kind in ("stream", "call")
                model = f"{upstream}-{CALL if kind == 'call' else STREAM if stream else WHOLE}"
                verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
                found.append(
                    PairPhase(
                        f"{client} to {upstream}, {kind}",
                        model,
                        stream=stream,
                        connections=32 if kind == "whole" else 8,
                        seconds=0.5 * share,
                        unit="piece" if stream else "request",
                        path=PATHS[client].replace("{model}", model).replace("{verb}", verb),
                        marker=ENDS[client] if stream else "",
                        client=client,
                        agent=kind == "turn",
                        calls=kind == "call",
                    )
                )
    return found


def bare(share: float) -> list[Phase]:
    """What all of it is compared with."""
    return [
        Phase("whole", WHOLE, connections=32, seconds=1.0 * share),
        PairPhase("turn", WHOLE, connections=8, seconds=1.0 * share, agent=True),
        Phase("stream", STREAM, stream=True, connections=8, seconds=1.0 * share, unit="piece"),
        PairPhase("call", CALL, stream=True, connections=8, seconds=1.0 * share, unit="piece", calls=True),
    ]


class Pairs(Bench):
    """One run."""

    def pairs(self, share: float) -> dict[str, dict[str, float]]:
        """One round: the bare pass-through, then every pair."""
        known = {gateway.name: gateway for gateway in gateways()}
        relay = known["relay"]
        ours = Gateway("relay", relay.command, prepare=relay.prepare, files={"relay.toml": configuration()})
        found: dict[str, dict[str, float]] = {}
        for gateway, wanted in ((known[BASE], bare(share)), (ours, phases(share))):
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                running = Running(gateway, self.upstream, Path(folder), self.gateway_cores)
                try:
                    self.load.alone(WARM, running.port, gateway)
                    for phase in wanted:
                        # A first short load: each pair has code of its own that has to be loaded.
                        self.load.alone(type(phase)(**{**vars(phase), "seconds": 0.08}), running.port, gateway)
                        found[phase.name] = counted(self.load.measure(phase, running), phase)
                finally:
                    running.end()
        return found


def counted(told: dict[str, float], phase: Phase) -> dict[str, float]:
    """The CPU of each piece that the upstream wrote: some formats say all of the text again at the end."""
    if phase.stream and told["ok"]:
        told["cpu_us"] *= told["pieces"] / (told["ok"] * PIECES)
    return told


def failed(rounds: list[dict[str, dict[str, float]]]) -> list[str]:
    """What went wrong: a pair of which an answer was not good measures nothing."""
    return sorted({name for measured in rounds for name, told in measured.items() if told["bad"] or not told["ok"]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-r", "--rounds", type=int, default=ROUNDS, help=f"[default: {ROUNDS}]")
    parser.add_argument("--share", type=float, default=1.0, help="of the time of each load [default: 1]")
    parser.add_argument("--save", action="store_true", help="write benchmarks/pairs.json")
    wanted = parser.parse_args()
    where, began = machine(), time.monotonic()
    rounds = []
    with tempfile.TemporaryDirectory(prefix="i8relay-pairs-") as folder:
        bench = Pairs((), Path(folder), sorted(os.sched_getaffinity(0)))
        try:
            for number in range(wanted.rounds):
                rounds.append(bench.pairs(wanted.share))
                print(f"round {number + 1} of {wanted.rounds} after {time.monotonic() - began:.0f} s", flush=True)
        finally:
            bench.end()
    print(f"\n{table(rounds)}")
    if bad := failed(rounds):
        raise SystemExit("not all answers were good: " + "; ".join(bad))
    if wanted.save:
        kept = [{name: {"cpu_us": told["cpu_us"]} for name, told in measured.items()} for measured in rounds]
        RESULTS.write_text(json.dumps({"machine": where, "rounds": kept}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
