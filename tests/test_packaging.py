"""What is installed is what stands here: lists in `setup.cfg` against the folders, and a wheel against both."""

from __future__ import annotations

import configparser
import importlib.metadata
import io
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import relay
from relay.mould import COMPILED

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


@pytest.mark.promise("P-10")
def test_there_is_one_version() -> None:
    assert relay.__version__ == importlib.metadata.version("i8relay")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\]", changes, re.MULTILINE)
    assert newest is not None
    assert newest[1] == relay.__version__


def test_every_dependency_has_both_bounds(setup: configparser.ConfigParser) -> None:
    # An upper bound is what keeps today's promise true next year. The extras `local` and `uvloop` are the user's choice
    # of a build for their machine: only their lower bound is known.
    free = {"xllamacpp", "uvloop", "setuptools", "packaging"}
    for requirement in requirements(setup):
        name = re.split(r"[ <>=;]", requirement, maxsplit=1)[0]
        assert ">=" in requirement, requirement
        assert "<" in requirement.partition(";")[0] or name in free, requirement


def built(folder: Path, mask: int, zone: str) -> dict[str, bytes]:
    """The wheel and the source archive, made somewhere else, by somebody with other habits."""
    code = f"import os, runpy, sys; os.umask({mask}); sys.argv = ['dist', {str(folder)!r}]; "
    code += f"runpy.run_path({str(ROOT / '.ci' / 'dist.py')!r}, run_name='__main__')"
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "TZ": zone, "TMPDIR": str(folder.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What is published, built twice with what is installed: nothing is fetched."""
    if int(importlib.metadata.version("setuptools").split(".")[0]) < OLDEST_SETUPTOOLS:
        pytest.skip(f"building needs setuptools {OLDEST_SETUPTOOLS}, which `make test` installs")
    one, other = (tmp_path_factory.mktemp(name) / "dist" for name in ("one", "other"))
    return built(one, 0o022, "UTC"), built(other, 0o077, "Asia/Tokyo")


@pytest.fixture
def wheel(archives: tuple[dict[str, bytes], dict[str, bytes]]) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(next(content for name, content in archives[0].items() if name.endswith(".whl"))))


@pytest.fixture
def sdist(archives: tuple[dict[str, bytes], dict[str, bytes]]) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(archives[0][f"i8relay-{relay.__version__}.tar.gz"]))


def shipped() -> dict[str, Path]:
    """Every file of the packages, by its place in a wheel."""
    return {
        f"{name}/{file.relative_to(folder)}": file
        for name, folder in top_packages().items()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".so"
    }


@pytest.mark.promise("P-10")
def test_the_same_source_gives_the_same_bytes(archives: tuple[dict[str, bytes], dict[str, bytes]]) -> None:
    one, other = archives
    wheel, source = sorted(one)
    assert re.fullmatch(rf"i8relay-{relay.__version__}-cp3\d+-cp3\d+-\w+\.whl", wheel), "it has a part for one machine"
    assert source == f"i8relay-{relay.__version__}.tar.gz"
    assert one == other


@pytest.mark.promise("P-10")
def test_the_source_archive_holds_what_is_listed_and_nothing_that_runs_at_setup(sdist: tarfile.TarFile) -> None:
    top = f"i8relay-{relay.__version__}/"
    names = {member.name.removeprefix(top) for member in sdist.getmembers() if member.isfile()}
    packages = {str(file.relative_to(ROOT)) for file in shipped().values()}
    beside = {name for name in names - packages if not name.startswith("i8relay.egg-info/")}
    assert packages <= names
    assert beside == {
        "CHANGELOG.md",
        "LICENSE",
        "MANIFEST.in",
        "PKG-INFO",
        "README.md",
        "pyproject.toml",
        "requirements.lock",
        "setup.cfg",
    }
    assert not [name for name in names if name.endswith((".pth", ".so", ".pyc", "setup.py", "conftest.py"))]
    for member in sdist.getmembers():
        assert member.isfile() or member.isdir(), f"{member.name} is a link, or worse"
        assert not member.name.startswith("/")
        assert ".." not in member.name.split("/")
        if member.isfile() and member.name.removeprefix(top) in packages:
            content = sdist.extractfile(member)
            assert content is not None
            assert content.read() == (ROOT / member.name.removeprefix(top)).read_bytes()


@pytest.mark.promise("P-10")
def test_the_wheel_holds_exactly_the_files_of_the_packages(wheel: zipfile.ZipFile) -> None:
    wanted = set(shipped())
    assert {"relay/store/migrations/0001_keys_and_usage.sql", "relay_openai/hosts.toml", "relay/example.toml"} < wanted
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    compiled = {f"relay/_native{suffix}"}
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names - compiled == wanted
    assert compiled <= names or not COMPILED


@pytest.mark.promise("P-10")
def test_the_wheel_brings_nothing_that_runs_by_itself(wheel: zipfile.ZipFile) -> None:
    assert not [name for name in wheel.namelist() if name.endswith((".pth", ".pyc")) or ".data/" in name]
    assert len([name for name in wheel.namelist() if name.endswith(".so")]) <= 1


@pytest.mark.promise("P-10")
def test_the_wheel_tells_its_version_licence_and_description(wheel: zipfile.ZipFile) -> None:
    folder = f"i8relay-{relay.__version__}.dist-info"
    metadata = wheel.read(f"{folder}/METADATA").decode()
    assert f"\nVersion: {relay.__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[0] in metadata
    assert f"{folder}/licenses/LICENSE" in wheel.namelist()


# What it is installed with.


def locked() -> dict[str, tuple[Requirement, list[str]]]:
    """The lock's entries by their names: each with its condition, and its files' hashes."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    lines = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    found = {}
    for line in filter(None, lines):
        head, *hashes = line.split(" --hash=")
        requirement = Requirement(head)
        found[canonicalize_name(requirement.name)] = (requirement, [one.strip() for one in hashes])
    return found


@pytest.mark.promise("P-11")
def test_the_lock_pins_every_file_by_its_hash() -> None:
    entries = locked()
    assert len(entries) > 20
    for requirement, hashes in entries.values():
        (exact,) = requirement.specifier
        assert exact.operator == "=="
        assert not requirement.url
        assert hashes
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes)
        assert len(set(hashes)) == len(hashes)
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE), "nothing but requirements"


@pytest.mark.promise("P-11")
def test_the_lock_is_what_setup_cfg_allows(setup: configparser.ConfigParser) -> None:
    entries = locked()
    wanted = [*listed(setup["options"]["install_requires"]), *listed(setup["options.extras_require"]["uvloop"])]
    for line in wanted:
        requirement = Requirement(line)
        pinned = entries[canonicalize_name(requirement.name)][0]
        (exact,) = pinned.specifier
        assert requirement.specifier.contains(exact.version), f"{line}: {exact.version} is locked; run: make lock"


@pytest.mark.promise("P-11")
def test_the_lock_is_whole(setup: configparser.ConfigParser) -> None:
    """So that nothing else is installed: what is needed is followed through what is installed here."""
    entries, seen = locked(), set()
    waiting = [Requirement(line) for line in listed(setup["options"]["install_requires"])]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in seen or (requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        assert name in entries, f"{name} is needed and not locked; run: make lock"
        waiting += map(Requirement, importlib.metadata.distribution(name).requires or ())
    assert len(seen) > 15


@pytest.mark.promise("P-11")
def test_every_direct_dependency_has_its_reason(setup: configparser.ConfigParser) -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \| (.+?) \|", page, re.MULTILINE))
    wanted = {Requirement(line).name for line in listed(setup["options"]["install_requires"])}
    optional = {
        Requirement(line).name
        for name in ("local", "uvloop", "testing")
        for line in listed(setup["options.extras_require"][name])
    }
    assert set(rows) == wanted | optional
    assert all(len(reason) > 20 for reason in rows.values())


@pytest.mark.promise("P-12")
@pytest.mark.parametrize("flags", [["-O"], ["-X", "dev", "-W", "error"]], ids=["optimised", "development"])
def test_it_is_the_same_without_asserts_and_with_every_check(flags: list[str]) -> None:
    """A representative part; `.ci/run` runs all of `tests/flow` so."""
    command = [sys.executable, *flags, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/flow/test_chat.py"]
    command += ["-k", "passes_through or asks_for_usage or limits_refuse or fires or judged or revoked"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=55, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b[1-9]\d passed", done.stdout), done.stdout
