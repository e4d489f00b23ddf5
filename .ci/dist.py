"""Build the wheel and the source archive so that the same commit gives the same bytes, wherever and whenever.

    python .ci/dist.py [FOLDER]      into FOLDER, or dist

The moment that all files in them have is SOURCE_DATE_EPOCH, or that of the last commit. Nothing is fetched: setuptools
and build have to be installed (`make .venv/.test` does that).
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ("relay", "providers", "plugins")
FILES = ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE", "requirements.lock")
EARLIEST = 315_532_800
"""1980, before which archives know no time."""


def moment() -> int:
    """Unix seconds."""
    said = os.environ.get("SOURCE_DATE_EPOCH")
    if said is None:
        asked = ["git", "log", "-1", "--format=%ct"]
        said = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S603
    return max(int(said), EARLIEST)


def copied(folder: Path) -> Path:
    """What is built, without what lies about in a checkout that was worked in."""
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.pyc", "*.so")
    for name in SHIPPED:
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, source)
    return source


def same_sdist(file: Path, then: int) -> None:
    """Write a source archive anew: its files in order, and nothing of the machine that made it."""
    packed = io.BytesIO()
    with tarfile.open(file) as old, tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new:
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            content = old.extractfile(member) if member.isfile() else None
            member.mtime, member.uid, member.gid, member.uname, member.gname = then, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() else 0o644
            member.pax_headers = {}
            new.addfile(member, content)
    with file.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=then) as out:
        out.write(packed.getvalue())


def same_wheel(file: Path) -> None:
    """Write a wheel anew, with the same rights for all of its files. Their moment is the build's own doing."""
    with zipfile.ZipFile(file) as old:
        members = [(info, old.read(info)) for info in sorted(old.infolist(), key=lambda info: info.filename)]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for info, content in members:
            plain = zipfile.ZipInfo(info.filename, info.date_time)
            plain.external_attr = 0o100644 << 16
            plain.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(plain, content)


def main(arguments: list[str]) -> int:
    """The exit status."""
    target = Path(arguments[0] if arguments else ROOT / "dist").absolute()
    then = moment()
    with tempfile.TemporaryDirectory() as folder:
        source = copied(Path(folder))
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(source)]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(then), "PYTHONHASHSEED": "0", "TZ": "UTC"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            sys.stderr.write(done.stdout + done.stderr)
            return done.returncode
    for file in target.glob("*.tar.gz"):
        same_sdist(file, then)
    for file in target.glob("*.whl"):
        same_wheel(file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
