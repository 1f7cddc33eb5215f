"""The floor: about the least work that any proxy on epoll can do (csrc/floor.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benches.load.peers.base import Peer

if TYPE_CHECKING:
    from pathlib import Path

    from benches.load.programs import Programs
    from benches.load.spec import Spec


class Floor(Peer):
    """Reads heads, or moves bytes with splice(2); no validation, no limits, no time-outs."""

    program = "floor"

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.name = "floor" if mode == "http" else f"floor-{mode}"

    def command(self, programs: Programs, spec: Spec, directory: Path) -> list[str]:
        command = [programs.need("floor"), self.mode, str(spec.port), str(spec.backend)]
        command += ["-w", str(spec.workers)]
        if spec.proxy_protocol:
            command.append("-P")
        if spec.waypoint:
            command += ["-L", str(directory / "access.log")]
        return command

    def can(self, spec: Spec) -> bool:
        if spec.h2 or spec.bucket or spec.routes is not None or spec.version:
            return False
        return self.mode == "http" or not (spec.proxy_protocol or spec.waypoint)
