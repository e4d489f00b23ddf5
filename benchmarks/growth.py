"""Whether a call costs more where more is stored or configured: its instructions with one thing grown at a time.

python benchmarks/growth.py [--save]

Needs valgrind, and half a minute for each line. What does not grow is what should not: a call looks up one key, one
model and one connection, however many there are. --save writes benchmarks/growth.json, which the documentation shows.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from counting import DEFAULT, Variant, counted, possible

SAVED = Path(__file__).resolve().parent / "growth.json"
FAMILIES = """
from relay import Family, hookimpl

@hookimpl
def relay_families():
    return [Family(f"family{number}") for number in range(30)]
"""
UPSTREAMS = "".join(
    f'[upstreams.more{number}]\nfamily = "family{number}"\nbase_url = "http://127.0.0.1:1/v1"\n' for number in range(30)
)
MODELS = "".join(f'[models.more{number}]\ntargets = ["chat/mock"]\n' for number in range(1000))
VARIANTS = (
    DEFAULT,
    Variant("100 keys", keys=100),
    Variant("10,000 keys", keys=10_000),
    Variant("1,000,000 usage rows", rows=1_000_000),
    Variant(
        "30 families more, each with an upstream", config=f'{UPSTREAMS}[plugins]\nfolder = "plugins"\n', plugin=FAMILIES
    ),
    Variant("1,000 models more", config=MODELS),
)


def main() -> None:
    if not possible("instructions"):
        sys.exit("This needs valgrind. On Debian: apt install valgrind")
    rows = []
    for variant in VARIANTS:
        found = asyncio.run(counted("instructions", {variant.model: ""}, variant))
        rows.append({"title": variant.title, **found})
        change = found["call"] / rows[0]["call"] - 1
        print(f"{variant.title:45} {found['call']:>10,} a call  {change:+.1%}", flush=True)
    if "--save" in sys.argv[1:]:
        SAVED.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
