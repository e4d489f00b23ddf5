"""What each feature costs: the instructions of a call and of a streamed piece, with one thing different at a time.

python benchmarks/features.py [--save]

Needs valgrind, and about twenty seconds for each line. --save writes benchmarks/features.json, where the documentation
takes its table from.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from counting import DEFAULT, Variant, counted, possible

SAVED = Path(__file__).resolve().parent / "features.json"
PRICE = "price = { input = 1.0, output = 2.0 }\n"
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather at a place.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["place"],
        },
    },
}
VARIANTS = (
    DEFAULT,
    Variant("no limits", config="[keys]\nrpm = 0\ntpm = 0\n"),
    Variant("no price", without=PRICE),
    Variant(
        "the model has another name at the upstream", config='[models.alias]\ntargets = ["chat/mock"]\n', model="alias"
    ),
    Variant("a tool in the request", asked={"tools": [TOOL]}),
    Variant("a tool in the request, unchecked", config='[tools]\narguments = "off"\n', asked={"tools": [TOOL]}),
    Variant("translated to another dialect and back", model="other"),
    Variant("aiohttp's client towards upstreams", config='[server]\ntransport = "aiohttp"\n'),
    Variant("asyncio's own loop instead of uvloop", missing=["uvloop"]),
    Variant("nothing in C", missing=["relay._native"]),
)


def main() -> None:
    if not possible("instructions"):
        sys.exit("This needs valgrind. On Debian: apt install valgrind")
    rows = []
    for variant in VARIANTS:
        found = asyncio.run(counted("instructions", {variant.model: ""}, variant))
        rows.append({"title": variant.title, **found})
        print(f"{variant.title:45} {found['call']:>10,} a call {found['piece']:>8,} a piece", flush=True)
    if "--save" in sys.argv[1:]:
        SAVED.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
