"""Exit codes of every command."""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """What the exit code of a command says."""

    OK = 0
    """All is well."""
    FINDINGS = 1
    """The configuration has errors, or the outcome is not the expected one."""
    USAGE = 2
    """The command line cannot be understood (click's own code)."""
    UNREACHABLE = 3
    """An address cannot be connected to, or cannot be bound."""
    PARTIAL = 4
    """Part was not done: calls without an answer, requests cut off, output not written."""
    INTERRUPTED = 130
    """Ctrl-C, as of a program that SIGINT ends."""
    BROKEN_PIPE = 141
    """Nobody reads the output any more, as of a program that SIGPIPE ends."""
