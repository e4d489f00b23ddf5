"""`relay` and `python -m relay`."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from relay.cli import commands

    commands(prog_name="relay")


if __name__ == "__main__":
    main()
