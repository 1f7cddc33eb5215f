"""kgw, with the manifests that a cluster would hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benches.load import manifests
from benches.load.peers.base import Peer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benches.load.programs import Programs
    from benches.load.spec import Spec


class Kgw(Peer):
    """`kgw run`, which follows its directory of manifests."""

    name = program = "kgw"

    def command(self, programs: Programs, spec: Spec, directory: Path) -> list[str]:
        where = directory / "manifests"
        manifests.write(spec, where, directory / "access.log")
        options = ["--bind", "127.0.0.1", "--workers", str(spec.workers)]
        options += ["--max-connections", str(spec.connections)]
        return [programs.need("kgw"), "run", "-f", str(where), *options]

    def change(self, spec: Spec, directory: Path, pid: int) -> Callable[[], object]:
        return manifests.prepare_change(spec, directory / "manifests")
