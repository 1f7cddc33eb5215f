"""stdout and stderr that fail as those of other programs do.

What is lost differs: without its answers a command has nothing to do any more, so a failure to
write them ends it (`OutputLost`); messages on stderr must never stop a proxy that serves.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

    from _typeshed import ReadableBuffer

__all__ = ["OutputLost", "discard_output", "protect"]


class OutputLost(Exception):
    """An answer cannot be written to stdout. Not an `OSError`, which the network has too."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or str(error))
        self.broken_pipe: bool = error.errno == errno.EPIPE


class _Answers(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputLost(error) from None


class _Messages(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def protect() -> None:
    """Replaces `sys.stdout` and `sys.stderr`; those that were closed lead nowhere.

    A closed descriptor would be given to the next socket or file that is opened, and the output
    would go there.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout = _wrapped(_Answers(1, "w", closefd=False), sys.stdout, "strict")
    sys.stderr = _wrapped(_Messages(2, "w", closefd=False), sys.stderr, "backslashreplace")


def _wrapped(raw: io.FileIO, before: TextIO | None, errors: str) -> TextIO:
    if before is not None:
        before.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding="utf-8" if before is None else before.encoding,
        errors=errors if before is None else before.errors,
        line_buffering=raw.isatty() or errors == "backslashreplace",
    )


def discard_output() -> None:
    """Sends what is still to be written to stdout nowhere, so that the end of Python is quiet."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
