"""Write the parts of the documentation that the code knows best, between their markers.

    python docs/generate.py            rewrite the generated blocks
    python docs/generate.py --check    change nothing; fail if a block is stale or a relative link leads nowhere

A block stands between `<!-- generated: NAME -->` and `<!-- end -->`, where NAME is one of `BLOCKS` in `docs/blocks.py`.
The whole of `docs/openapi.json` is made by `docs/openapi.py`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MARKED = re.compile(r"(?P<open><!-- generated: (?P<name>[a-z-]+) -->\n)(?P<body>.*?)(?P<close><!-- end -->)", re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<img [^>]*src=\"([^\"]+)\"")
FENCE = re.compile(r"^(```|~~~).*?^\1$", re.DOTALL | re.MULTILINE)


def pages() -> list[Path]:
    """Every page of the documentation."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def fresh(text: str) -> str:
    """A page with its blocks written anew. Raises KeyError for a block that nobody knows."""
    from blocks import BLOCKS

    return MARKED.sub(lambda match: f"{match['open']}{BLOCKS[match['name']]().strip()}\n{match['close']}", text)


def whole() -> Iterator[tuple[Path, str]]:
    """The files that are generated as a whole, and what they should hold."""
    from blocks import plugins
    from openapi import document

    yield ROOT / "docs" / "openapi.json", document(plugins())


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as hosts of code make them."""
    found: set[str] = set()
    for line in FENCE.sub("", text).splitlines():
        if match := re.match(r"#{1,6} +(.*)", line):
            plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", match[1]).strip().lower()
            found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


def broken_links(page: Path) -> Iterator[str]:
    """The relative links of a page that lead nowhere."""
    text = page.read_text(encoding="utf-8")
    for match in LINK.finditer(FENCE.sub("", text)):
        link = match[1] or match[2]
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page if not name else (page.parent / name)
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            yield link


def main(arguments: list[str]) -> int:
    """The exit status: 1 if something is stale, broken or unknown."""
    # What is written must not depend on who runs this: neither on keys nor on the width of a terminal.
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_BASE_URL", "_TOKEN", "_HOST")) or name.startswith(("I8RELAY_", "AZURE_")):
            del os.environ[name]
    checking = arguments == ["--check"]
    if arguments and not checking:
        print(__doc__, file=sys.stderr)
        return 2
    faults: list[str] = []
    for page in pages():
        shown = page.relative_to(ROOT)
        text = page.read_text(encoding="utf-8")
        try:
            written = fresh(text)
        except KeyError as error:
            faults.append(f"{shown}: there is no block {error}")
            continue
        if written != text and checking:
            faults.append(f"{shown}: generated parts are stale; run: python docs/generate.py")
        elif written != text:
            page.write_text(written, encoding="utf-8")
            print(f"{shown} written")
        faults += [f"{shown}: the link {link} leads nowhere" for link in broken_links(page)]
    for file, written in whole():
        shown = file.relative_to(ROOT)
        stale = not file.exists() or file.read_text(encoding="utf-8") != written
        if stale and checking:
            faults.append(f"{shown}: it is stale; run: python docs/generate.py")
        elif stale:
            file.write_text(written, encoding="utf-8")
            print(f"{shown} written")
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
