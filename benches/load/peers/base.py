"""What the harness needs to know of a product."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benches.load.programs import Programs
    from benches.load.spec import Spec


class Peer(ABC):
    """A proxy under test."""

    name: str
    """As in options and reports."""
    program: str
    """The program that must be installed."""

    @abstractmethod
    def command(self, programs: Programs, spec: Spec, directory: Path) -> list[str]:
        """Writes the configuration into a directory; returns what serves it in the foreground."""

    def change(self, spec: Spec, directory: Path, pid: int) -> Callable[[], object]:
        """Prepares another configuration for a running proxy.

        Not asked of a proxy that `can` do no version. To make up the configuration is the bench's
        work, and not that of what is measured.

        Args:
            spec: the new one, which differs from the running one in its version.
            directory: that of the running one.
            pid: the process of `command`.

        Returns:
            What puts it in the place of the running one, as the product's manual says.
        """
        raise TypeError(f"{self.name} has no configuration to replace")

    def can(self, spec: Spec) -> bool:
        """Returns whether the product does such work."""
        return True
