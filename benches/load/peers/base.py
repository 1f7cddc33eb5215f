"""What the harness needs to know of a product."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

    def reload(self, spec: Spec, directory: Path, pid: int) -> None:
        """Replaces the configuration of a running proxy as the product's manual says.

        Not asked of a proxy that `can` do no version.

        Args:
            spec: the new one, which differs from the running one in its version.
            directory: that of the running one.
            pid: the process of `command`.
        """
        raise TypeError(f"{self.name} has no configuration to replace")

    def can(self, spec: Spec) -> bool:
        """Returns whether the product does such work."""
        return True
