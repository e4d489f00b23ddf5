from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def traffic() -> Any:
    """The reader of the recorded traffic, with its folder: `traffic.exchanges(traffic.folder, ...)`."""
    root = Path(__file__).resolve().parents[3]
    folder = Path(os.environ.get("I8RELAY_SHARED") or root.parent / "shared") / "traffic"
    if not (folder / "reader.py").is_file():
        if os.environ.get("I8RELAY_REQUIRE_SHARED"):
            pytest.fail(f"no recorded traffic in {folder}")
        pytest.skip("no recorded traffic")
    spec = importlib.util.spec_from_file_location("recorded_traffic", folder / "reader.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.folder = str(folder)  # type: ignore[attr-defined]
    return module
