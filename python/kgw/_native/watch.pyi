"""What happens to the files of directories. Only where the system tells: on Linux."""

import os
from collections.abc import Sequence
from typing import final

__all__ = ["Watch"]

@final
class Watch:
    """Directories that are watched, but not the directories in them."""

    def __new__(cls, directories: Sequence[str | os.PathLike[str]]) -> Watch:
        """Starts to watch: what happens from now on is told.

        Raises:
            OSError: a directory does not exist, or there are too many watches.
        """

    def fileno(self) -> int:
        """Returns the descriptor that can be read when something has happened."""

    def changes(self) -> list[tuple[str | os.PathLike[str] | None, str | None, bool]]:
        """Returns what has happened since the last call; does not wait.

        Each is a directory as it was given, the name of a file in it, and whether nothing more is
        to come of this: the file was closed after it was written, or put there as a whole. Without
        a name, it is about the directory or one in it; without a directory, too much has happened.

        Raises:
            OSError: it cannot be read.
        """
