"""Draw sampled stacks as a flame graph: python benchmarks/flame.py STACKS PICTURE.svg

STACKS is what `py-spy record --format raw --pid PID --output STACKS` writes: a line for each stack, its frames between
semicolons, then how often it was seen. In the picture a frame is as wide as its share of the samples and stands on its
caller; frames too narrow to be read are left out.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

WIDTH, HEIGHT, MARGIN, LETTER = 1200, 17, 10, 6.4
NARROWEST = 0.004
ENTRY = "RequestHandler.", "Door.", "Connection._received", "Outbox.flush"
"""Where the loop's own frames end and ours begin: what is below says nothing."""
COLOURS = {"relay": "#f2b27c", "providers": "#f6d58a", "aiohttp": "#c9d8ee", "": "#e4e4e4"}
_FRAME = re.compile(r"^(?P<name>.*) \((?P<file>[^()]*?)(?::\d+)?\)$")


@dataclass
class Frame:
    name: str
    place: str
    samples: int = 0
    above: dict[str, Frame] = field(default_factory=dict)


def read(text: str) -> Frame:
    """All stacks as one tree."""
    root = Frame("all", "")
    for line in text.splitlines():
        stack, _, times = line.rpartition(" ")
        frames = stack.split(";")
        first = next((place for place, frame in enumerate(frames) if frame.startswith(ENTRY)), None)
        if first is None:
            continue
        root.samples += int(times)
        here = root
        for text_of in frames[first:]:
            match = _FRAME.match(text_of)
            name, file = (match["name"], match["file"]) if match else (text_of, "")
            place = next((part for part in ("aiohttp", "providers", "relay") if part in file.split("/")), "")
            place = "providers" if "relay_" in file else place
            here = here.above.setdefault(name, Frame(name, place))
            here.samples += int(times)
    return root


def depth(frame: Frame, least: float) -> int:
    """Rows that a frame and what stands on it take."""
    return 1 + max((depth(one, least) for one in frame.above.values() if one.samples >= least), default=0)


def draw(root: Frame) -> str:
    """The picture."""
    least = root.samples * NARROWEST
    rows = depth(root, least)
    scale = (WIDTH - 2 * MARGIN) / max(1, root.samples)
    high = rows * HEIGHT + 2 * MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {high}" width="{WIDTH}" height="{high}"'
        ' font-family="monospace" font-size="11">',
        f'<rect width="{WIDTH}" height="{high}" fill="#ffffff"/>',
    ]

    def add(frame: Frame, left: float, row: int) -> None:
        wide = frame.samples * scale
        top = high - MARGIN - (row + 1) * HEIGHT
        share = 100 * frame.samples / root.samples
        letters = int((wide - 4) / LETTER)
        label = frame.name if len(frame.name) <= letters else frame.name[: max(0, letters - 1)] + "…"
        out.append(
            f'<g><title>{escape(frame.name)}: {share:.1f} %</title><rect x="{left:.1f}" y="{top}" width="{wide:.1f}"'
            f' height="{HEIGHT - 1}" fill="{COLOURS[frame.place]}" rx="1"/>'
        )
        if letters > 3:
            out.append(f'<text x="{left + 3:.1f}" y="{top + 12}">{escape(label)}</text>')
        out.append("</g>")
        for one in sorted(frame.above.values(), key=lambda one: one.name):
            if one.samples >= least:
                add(one, left, row + 1)
            left += one.samples * scale

    add(root, float(MARGIN), 0)
    return "\n".join([*out, "</svg>\n"])


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    root = read(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if not root.samples:
        sys.exit("there is no stack in which a request is handled")
    Path(sys.argv[2]).write_text(draw(root), encoding="utf-8")


if __name__ == "__main__":
    main()
