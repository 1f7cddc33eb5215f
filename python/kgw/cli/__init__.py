"""The ``kgw`` command."""

from __future__ import annotations


def main() -> None:
    """Runs the command line."""
    raise SystemExit("kgw: no commands yet")
