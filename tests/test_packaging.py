"""What is installed is what stands here: lists in `setup.cfg` against the folders, and a wheel against both."""

from __future__ import annotations

import configparser
import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import relay

ROOT = Path(__file__).parents[1]
CONTAINERS = ("providers", "plugins")
OLDEST_SETUPTOOLS = 77


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def listed(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def pairs(text: str) -> dict[str, str]:
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in listed(text))}


def top_packages() -> dict[str, Path]:
    """The import packages that a folder of this repository holds, as in `package_dir`."""
    found = {"relay": ROOT / "relay"}
    for container in CONTAINERS:
        found |= {folder.name: folder for folder in (ROOT / container).iterdir() if (folder / "__init__.py").exists()}
    return found


def packages() -> Iterator[str]:
    for name, folder in top_packages().items():
        for init in folder.rglob("__init__.py"):
            yield ".".join((name, *init.parent.relative_to(folder).parts))


def requirements(setup: configparser.ConfigParser) -> Iterator[str]:
    yield from listed(setup["options"]["install_requires"])
    for extra in setup["options.extras_require"].values():
        yield from listed(extra)


def test_every_package_is_listed_once_and_in_order(setup: configparser.ConfigParser) -> None:
    assert listed(setup["options"]["packages"]) == sorted(packages())


def test_every_package_says_where_it_is(setup: configparser.ConfigParser) -> None:
    written = pairs(setup["options"]["package_dir"])
    assert written == {name: str(folder.relative_to(ROOT)) for name, folder in sorted(top_packages().items())}


def test_containers_are_not_packages_themselves() -> None:
    assert not [name for name in CONTAINERS if (ROOT / name / "__init__.py").exists()]


def test_every_folder_of_plugins_is_an_entry_point(setup: configparser.ConfigParser) -> None:
    points = pairs(setup["options.entry_points"]["i8relay"])
    assert {value.partition(":")[0] for value in points.values()} == set(top_packages()) - {"relay"}


@pytest.mark.parametrize("group", ["i8relay", "console_scripts"])
def test_what_is_installed_has_the_entry_points_of_the_file(setup: configparser.ConfigParser, group: str) -> None:
    points = importlib.metadata.distribution("i8relay").entry_points.select(group=group)
    assert {point.name: point.value for point in points} == pairs(setup["options.entry_points"][group])
    assert all(callable(point.load()) or point.load() for point in points)


def test_mypy_checks_every_package(setup: configparser.ConfigParser) -> None:
    assert {name.strip() for name in setup["mypy"]["packages"].split(",")} == set(top_packages())


def test_every_package_is_typed() -> None:
    assert not [name for name, folder in top_packages().items() if not (folder / "py.typed").exists()]


def test_there_is_one_version() -> None:
    assert relay.__version__ == importlib.metadata.version("i8relay")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\]", changes, re.MULTILINE)
    assert newest is not None
    assert newest[1] == relay.__version__


def test_every_dependency_has_both_bounds(setup: configparser.ConfigParser) -> None:
    # An upper bound is what keeps today's promise true next year. The extras `local` and `uvloop` are the user's choice
    # of a build for their machine: only their lower bound is known.
    free = {"xllamacpp", "uvloop", "setuptools"}
    for requirement in requirements(setup):
        name = re.split(r"[ <>=;]", requirement, maxsplit=1)[0]
        assert ">=" in requirement, requirement
        assert "<" in requirement.partition(";")[0] or name in free, requirement


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built of a copy of this checkout, with what is installed: nothing is fetched."""
    if int(importlib.metadata.version("setuptools").split(".")[0]) < OLDEST_SETUPTOOLS:
        pytest.skip(f"building needs setuptools {OLDEST_SETUPTOOLS}, which `make test` installs")
    copy = tmp_path_factory.mktemp("wheel") / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("relay", *CONTAINERS):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = (copy / "dist").iterdir()
    return zipfile.ZipFile(file)


def test_the_wheel_holds_exactly_the_files_of_the_packages(wheel: zipfile.ZipFile) -> None:
    wanted = {
        f"{name}/{file.relative_to(folder)}"
        for name, folder in top_packages().items()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {"relay/store/migrations/0001_keys_and_usage.sql", "relay_openai/hosts.toml", "relay/example.toml"} < wanted
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == wanted


def test_the_wheel_brings_nothing_that_runs_by_itself(wheel: zipfile.ZipFile) -> None:
    assert not [name for name in wheel.namelist() if name.endswith((".pth", ".so", ".pyc")) or ".data/" in name]


def test_the_wheel_tells_its_version_licence_and_description(wheel: zipfile.ZipFile) -> None:
    folder = f"i8relay-{relay.__version__}.dist-info"
    metadata = wheel.read(f"{folder}/METADATA").decode()
    assert f"\nVersion: {relay.__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[0] in metadata
    assert f"{folder}/licenses/LICENSE" in wheel.namelist()
