"""TensorZero's gateway out of its Python package: python benchmarks/embedded.py CONFIGURATION PORT_FILE.

The package holds the whole gateway and starts it on a port of its own choice, which is written to PORT_FILE. This file
runs in the environment of that package.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

from tensorzero.tensorzero import _start_http_gateway  # type: ignore[import-not-found]

gateway = _start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
Path(sys.argv[2]).write_text(str(urlsplit(gateway.base_url).port))
signal.pause()
