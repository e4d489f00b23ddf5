"""`relay` and `python -m relay`."""

from __future__ import annotations

import gc


def main() -> None:
    """Run the command line."""
    # What is imported stays: to look for garbage among it takes an eighth of the time of `relay --help`.
    gc.set_threshold(100_000)
    from relay.cli import commands

    commands(prog_name="relay")


if __name__ == "__main__":
    main()
