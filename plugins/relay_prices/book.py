"""The price file of this machine: found, made if it is missing, and asked."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from relay import Model, Price, Target
from relay.kit import cache_dir
from relay_prices.catalogue import LOCAL, Catalogue, local
from relay_prices.snapshot import SCHEMA

__all__ = ["Book", "PriceFileError"]

log = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds that the making of the file may take; it takes half a second."""

PASSED_ON = ("HOME", "LANG", "LC_ALL", "PATH", "PYTHONHOME", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV")
"""Environment of the child: it has no business with the credentials in the rest."""


class PriceFileError(Exception):
    """The price file cannot be made or read."""


class Book:
    """Holds the catalogue once it is there. Until then nothing but local models has a price.

    `path` stands in for the user's cache folder.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._catalogue: Catalogue | None = None
        self._tried = False

    @property
    def path(self) -> Path:
        """The file, named for the version of the data and of the form. Raises PriceFileError without genai-prices."""
        if self._path is None:
            try:
                version = importlib.metadata.version("genai-prices")
            except importlib.metadata.PackageNotFoundError:
                raise PriceFileError("the package genai-prices is not installed") from None
            self._path = cache_dir() / f"prices-{version}-{SCHEMA}.json"
        return self._path

    def read(self) -> bool:
        """Take in the file. False if there is none, or none that can be read."""
        self._tried = True
        try:
            self._catalogue = Catalogue.read(self.path)
        except FileNotFoundError:
            return False
        except (OSError, ValueError, PriceFileError) as error:
            log.warning("the price file cannot be read: %s", error)
            return False
        return True

    @property
    def catalogue(self) -> Catalogue | None:
        """What is known now; the file is tried once, if nobody did yet."""
        if self._catalogue is None and not self._tried:
            self.read()
        return self._catalogue

    def price(self, target: Target, at: int) -> Price | None:
        """What a target costs at the Unix second `at`."""
        catalogue = self.catalogue
        entry = None if catalogue is None else catalogue.entry(target)
        found = None if entry is None else entry.price(at)
        # The vendor comes first: its models may be reached through a proxy on this machine.
        return LOCAL if found is None and local(target.upstream.base_url) else found

    def describe(self, target: Target) -> Model | None:
        """The context length of a target's model, if it is known."""
        catalogue = self.catalogue
        entry = None if catalogue is None else catalogue.entry(target)
        if entry is None or entry.context_length is None:
            return None
        return Model(target.model, context_length=entry.context_length)

    def _command(self) -> list[str]:
        # By path and not by module name: it also works where the plugin was put on `sys.path` by hand.
        script = Path(__file__).with_name("snapshot.py")
        return [sys.executable, "-P", str(script), str(self.path)]

    @staticmethod
    def _environment() -> dict[str, str]:
        return {name: os.environ[name] for name in PASSED_ON if name in os.environ}

    def make(self) -> Catalogue:
        """Make the file and read it, waiting for it. Raises PriceFileError."""
        try:
            done = subprocess.run(  # noqa: S603 - our own script
                self._command(),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PATIENCE,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PriceFileError(f"the price file cannot be made: {error}") from error
        if done.returncode:
            raise PriceFileError(_last_line(done.stderr))
        if not self.read() or self._catalogue is None:
            raise PriceFileError(f"the price file {self.path} cannot be read")
        return self._catalogue

    def need(self) -> Catalogue:
        """The catalogue, made now if need be. Raises PriceFileError."""
        return self.catalogue or self.make()

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Read the file, or have it made in the background, so that nobody waits for it."""
        if self._catalogue is not None or self.read():
            yield
            return
        task = asyncio.create_task(self._make(), name="relay-prices")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _make(self) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command(),
                env=self._environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except (OSError, PriceFileError) as error:
            log.error("there are no prices: %s", error)
            return
        try:
            async with asyncio.timeout(PATIENCE):
                _, errors = await process.communicate()
        except TimeoutError:
            log.error("there are no prices: making the price file took longer than %g seconds", PATIENCE)
            return
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode:
            log.error("there are no prices: %s", _last_line(errors))
        elif await asyncio.to_thread(self.read):
            log.info("prices are there: %s", self.path)


def _last_line(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "the price file could not be made, without a word why"
