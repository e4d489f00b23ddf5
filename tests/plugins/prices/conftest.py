from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from relay import Target, Upstream
from relay_prices.book import Book
from relay_prices.catalogue import Catalogue
from relay_prices.snapshot import write


@pytest.fixture(scope="session")
def price_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prices") / "prices.json"
    write(path)
    return path


@pytest.fixture(scope="session")
def catalogue(price_file: Path) -> Catalogue:
    return Catalogue.read(price_file)


@pytest.fixture
def book(price_file: Path) -> Book:
    return Book(price_file)


@pytest.fixture
def target() -> Callable[..., Target]:
    def make(
        model: str, host: str = "", base_url: str = "https://gateway.example/v1", family: str = "openai"
    ) -> Target:
        return Target(Upstream("it", family, base_url, host=host), model)

    return make
