from __future__ import annotations

import asyncio
import logging
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from relay import Target
from relay_prices import book as book_module
from relay_prices.book import Book, PriceFileError
from relay_prices.catalogue import Catalogue

ROOT = Path(__file__).parents[3]


def test_the_file_is_made_by_a_child_and_is_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "i8relay" / "prices.json"
    book = Book(path)
    assert book.catalogue is None
    catalogue = book.make()
    assert len(catalogue.vendors) > 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path], "nothing half-made is left beside it"
    assert Book(path).need().source == catalogue.source


def test_the_module_can_be_run_by_name(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}", "PATH": ""}
    subprocess.run([sys.executable, "-m", "relay_prices.snapshot", str(path)], check=True, env=environment)
    assert Catalogue.read(path).vendors
    done = subprocess.run(
        [sys.executable, "-m", "relay_prices.snapshot", "/proc/nowhere/x"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("the price file cannot be made: ")
    assert "Traceback" not in done.stderr


def test_the_name_says_which_data_and_which_form(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = Book().path
    assert path.parent == tmp_path / "i8relay"
    assert path.name.startswith("prices-0.2.")
    assert path.name.endswith("-1.json")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": 99}', b'{"schema": 1, "source": "x"}', b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_made_again(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "prices.json"
    path.write_bytes(content)
    book = Book(path)
    assert book.catalogue is None
    assert "cannot be read" in caplog.text
    assert book.need().vendors


async def test_serving_starts_at_once_and_prices_follow(tmp_path: Path, target: Callable[..., Target]) -> None:
    book = Book(tmp_path / "prices.json")
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with book.lifespan():
        assert loop.time() - started < 0.2
        assert book.price(target("gpt-4o", "openai"), 0) is None
        async with asyncio.timeout(20):
            while book.price(target("gpt-4o", "openai"), 0) is None:  # noqa: ASYNC110 - the hook has no event
                await asyncio.sleep(0.02)


async def test_a_file_that_is_there_is_read_before_serving(price_file: Path, target: Callable[..., Target]) -> None:
    book = Book(price_file)
    async with book.lifespan():
        assert book.price(target("gpt-4o", "openai"), 0) is not None


async def test_leaving_early_ends_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = Book(tmp_path / "prices.json")
    monkeypatch.setattr(book, "_command", lambda: [sys.executable, "-c", "import time; time.sleep(60)"])
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with book.lifespan():
        await asyncio.sleep(0.2)
    assert loop.time() - started < 5


async def test_a_child_that_hangs_is_ended_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(book_module, "PATIENCE", 0.2)
    book = Book(tmp_path / "prices.json")
    monkeypatch.setattr(book, "_command", lambda: [sys.executable, "-c", "import time; time.sleep(60)"])
    with caplog.at_level(logging.ERROR):
        async with book.lifespan():
            await asyncio.sleep(1)
    assert "took longer than 0.2 seconds" in caplog.text


async def test_a_child_that_fails_is_logged_and_never_fatal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    book = Book(tmp_path / "prices.json")
    monkeypatch.setattr(book, "_command", lambda: [sys.executable, "-c", "raise SystemExit('no room')"])
    with caplog.at_level(logging.ERROR):
        async with book.lifespan():
            await asyncio.sleep(1)
    assert "there are no prices: no room" in caplog.text
    with pytest.raises(PriceFileError, match="no room"):
        book.make()


def test_the_child_sees_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_VENDOR_API_KEY", "sk-canary")
    assert "sk-canary" not in Book(tmp_path / "x")._environment().values()


def test_serving_does_not_import_genai_prices_or_click(price_file: Path) -> None:
    code = (
        "import sys, relay_prices\n"
        "from relay import Target, Upstream\n"
        "from relay_prices.book import Book\n"
        "from pathlib import Path\n"
        "relay_prices._book = Book(Path(sys.argv[1]))\n"
        "target = Target(Upstream('a', 'openai', 'https://api.openai.com/v1'), 'gpt-4o')\n"
        "assert relay_prices.price(target, 1_790_000_000).rates.input == 2_500_000_000\n"
        "assert relay_prices.describe(target).context_length == 128_000\n"
        "print([name for name in ('genai_prices', 'pydantic', 'click') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(price_file)],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "[]\n", done.stderr
