"""Thousands of open streams in one relay: what each takes of memory, and whether anybody else still gets an answer.

python benchmarks/streams.py [STREAMS]        9,000 unless told otherwise; half a minute

All streams are open at the same time, each with a piece a second. Meanwhile a client of its own asks every 20 ms
whether the relay is well: how long that takes is how late the event loop is.
"""

from __future__ import annotations

import http.client
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

from bench import build
from gateways import Gateway, Running, free_port, gateways, pinned
from phases import Load, Phase

PIECES, PAUSE_MS = 24, 1000
EVERY = 0.02
NEEDED = 200
"""Descriptors beside two for each stream."""


def asked(port: int, stop: threading.Event, waits: list[float]) -> None:
    """Ask, until told to stop, and note how long each answer took."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    while not stop.wait(EVERY):
        began = time.perf_counter()
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        waits.append((time.perf_counter() - began) * 1000)
    connection.close()


def main() -> None:
    streams = int(sys.argv[1]) if len(sys.argv) > 1 else 9000
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < 2 * streams + NEEDED:
        sys.exit(f"{streams} streams need {2 * streams + NEEDED} descriptors, and this system gives {most}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    relay: Gateway = next(gateway for gateway in gateways() if gateway.name == "relay")
    relay = replace(relay, model="chat/{model}")
    phase = Phase(
        "streams", f"mock-{PIECES}-{PAUSE_MS}", stream=True, connections=streams, requests=streams, unit="piece"
    )
    with tempfile.TemporaryDirectory(prefix="i8relay-streams-") as name:
        folder = Path(name)
        (folder / "relay").mkdir()
        port = free_port()
        upstream = subprocess.Popen([build("mock"), str(port)], preexec_fn=pinned(()), stdout=subprocess.DEVNULL)
        running = None
        try:
            running = Running(relay, port, folder / "relay", ())
            before = running.memory()
            waits: list[float] = []
            stop = threading.Event()
            asker = threading.Thread(target=asked, args=(running.port, stop, waits))
            asker.start()
            told = Load(build("load"), folder, ()).measure(phase, running)
            stop.set()
            asker.join()
        finally:
            if running is not None:
                running.end()
            upstream.terminate()
            upstream.wait()
    waits.sort()
    print(
        json.dumps(
            {
                "streams": streams,
                "complete": told["ok"],
                "bad": told["bad"],
                "pieces a second": round(told["pieces"] / told["seconds"]),
                "MiB before": round(before, 1),
                "MiB with all": round(told["memory"], 1),
                "KiB a stream": round((told["memory"] - before) * 1024 / streams, 1),
                "CPU us a piece": round(told.get("cpu_us", 0.0), 1),
                "asked": len(waits),
                "answered in ms, median": round(waits[len(waits) // 2], 1),
                "answered in ms, 99 %": round(waits[len(waits) * 99 // 100], 1),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
