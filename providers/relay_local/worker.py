"""The child process: a model behind llama.cpp's own HTTP server, on a port of this machine.

Started by `relay_local.process` with its settings as one JSON line on standard input. It answers with one JSON line on
standard output (`{"address": ...}` or `{"error": ...}`) and serves until standard input ends: when the relay goes, by
whatever way, the operating system closes that pipe and this process follows.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def serve(settings: dict[str, Any]) -> None:
    """Serve until standard input ends."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = settings["model"]
    parameters.model_alias = {settings["name"]}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.api_keys = [settings["api_key"]]
    parameters.n_ctx = settings["context"] * settings["slots"]
    parameters.n_parallel = settings["slots"]
    parameters.cpuparams.n_threads = settings["threads"]
    parameters.cpuparams_batch.n_threads = settings["threads"]
    parameters.use_jinja = True
    # Vectors cost nothing until they are asked for. One for the whole text is what callers understand by it.
    parameters.embedding = True
    parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(parameters)
    _say({"address": server.listening_address})
    while sys.stdin.read(4096):
        pass


def _say(message: dict[str, str]) -> None:
    print(json.dumps(message), file=sys.stdout, flush=True)  # noqa: T201 - the protocol of this process


def main() -> None:
    """Read the settings, serve, and say in one line if that is not possible."""
    settings = json.loads(sys.stdin.readline())
    try:
        serve(settings)
    except ImportError:
        _say({"error": "the extra i8relay[local] is not installed"})
    except (RuntimeError, OSError, ValueError) as error:
        _say({"error": f"the model cannot be loaded: {error}"})
    # The server's own threads do not end by themselves.
    os._exit(0)


if __name__ == "__main__":
    main()
