from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.replay.recording import Recordings, load
from tests.replay.stage import Stage, staged


@pytest.fixture(scope="session")
def recordings(traffic: Any) -> Recordings:
    """Everything that is recorded."""
    return load(Path(traffic.folder))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """One relay for all exchanges."""
    async with staged(tmp_path_factory.mktemp("replay")) as one:
        yield one
