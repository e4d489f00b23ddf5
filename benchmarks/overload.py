"""More callers than a relay can serve, and fifty streams that are watched closely: what is left of it for each.

    python benchmarks/overload.py [--save]        half a minute; --save writes what the documentation shows

Three things, each as a ratio within this run, because only those mean anything on a machine that does other things too:

* as many callers as keep it busy, and then five and twenty times as many: how many calls a second are still answered;
* a model that may have no more than so many calls at a time, each of which takes a while: as many calls as it can
  serve, and then five times as many a second, whether or not those before are answered;
* fifty streams, beside the same without a gateway: how much later the first byte and each piece come.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from bench import build
from gateways import Gateway, Running, free_port, gateways, pinned
from phases import Load, Phase

SAVED = Path(__file__).resolve().parent / "overload.json"
BUSY, TIMES = 32, (1, 5, 20)
SECONDS = 2.0
ROUNDS = 3
SLOW = "mock-0-200"
"""A model that takes a fifth of a second."""
LIMITED = f"""
[models.{SLOW}]
targets = ["chat/{SLOW}"]
concurrency = {BUSY}
"""
STREAMS = Phase("fifty", "mock-100-20", stream=True, connections=50, requests=50, unit="piece")


def middle(values: list[float]) -> float:
    """The median of an odd number of values."""
    return sorted(values)[len(values) // 2]


def crowded(load: Load, running: Running) -> list[dict[str, float]]:
    """Calls a second and the slowest hundredth, for each number of callers; the median of some rounds."""
    rows = []
    for times in TIMES:
        phase = Phase(f"busy {times}", "mock-0-0", connections=BUSY * times, seconds=SECONDS)
        # The first has all the connections made that it takes.
        told = [load.measure(phase, running) for _ in range(ROUNDS + 1)][1:]
        rows.append(
            {
                "callers": BUSY * times,
                "answered": middle([one["ok"] / one["seconds"] for one in told]),
                "failed": sum(one["bad"] for one in told),
                "p99_ms": middle([one["p99"] / 1000 for one in told]),
            }
        )
    return rows


def limited(load: Load, running: Running) -> list[dict[str, float]]:
    """The same for a model that has only so many places, asked as often as it can answer, and five times as often."""
    full = load.measure(Phase("full", SLOW, connections=BUSY, seconds=SECONDS), running)
    peak = full["ok"] / full["seconds"]
    told = load.measure(Phase("over", SLOW, connections=BUSY * 10, seconds=2 * SECONDS, rate=5 * peak), running)
    return [
        {"asked": peak, "answered": peak, "refused": full["bad"] / full["seconds"], "p99_ms": full["p99"] / 1000},
        {
            "asked": (told["ok"] + told["bad"]) / told["seconds"],
            "answered": told["ok"] / told["seconds"],
            "refused": told["bad"] / told["seconds"],
            "p99_ms": told["p99"] / 1000,
            "first_p50_ms": told["first_p50"] / 1000,
        },
    ]


def streamed(load: Load, port: int, gateway: Gateway) -> dict[str, float]:
    told = [load.alone(STREAMS, port, gateway) for _ in range(ROUNDS)]
    return {name: middle([one[name] for one in told]) for name in ("first_p50", "first_p99", "piece_p50", "piece_p99")}


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    relay: Gateway = next(gateway for gateway in gateways() if gateway.name == "relay")
    relay = replace(relay, files={name: text + LIMITED for name, text in relay.files.items()})
    cores = sorted(os.sched_getaffinity(0))
    mine, others = ((cores[0],), tuple(cores[1:])) if len(cores) > 1 else ((), ())
    with tempfile.TemporaryDirectory(prefix="i8relay-overload-") as name:
        folder = Path(name)
        (folder / "relay").mkdir()
        port = free_port()
        upstream = subprocess.Popen([build("mock"), str(port)], preexec_fn=pinned(others), stdout=subprocess.DEVNULL)
        running = None
        try:
            running = Running(relay, port, folder / "relay", mine)
            load = Load(build("load"), folder, others)
            load.measure(Phase("warm", "mock-0-0", connections=BUSY, seconds=0.5), running)
            found = {
                "busy": BUSY,
                "crowded": crowded(load, running),
                "limited": limited(load, running),
                "direct": streamed(load, port, replace(relay, path="/v1/chat/completions")),
                "relay": streamed(load, running.port, replace(relay, model="chat/{model}")),
                "when": time.strftime("%Y-%m-%d"),
            }
        finally:
            if running is not None:
                running.end()
            upstream.terminate()
            upstream.wait()
    print(json.dumps(found, indent=1))
    if "--save" in sys.argv[1:]:
        SAVED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
