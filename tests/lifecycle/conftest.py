"""A `kgw run` in front of a server, as an operator starts it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.cli.conftest import _Lines
from tests.cli.conftest import kgw as kgw
from tests.cli.conftest import running as running
from tests.embed.upstream import resources
from tests.engine.harness import Upstream, always, ok

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Self

    from tests.cli.conftest import Running

Address = tuple[str, int]


class Site:
    """Manifests in a directory, and the server that they lead to."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.backend = Upstream(always(ok()))
        self.publish()

    @property
    def port(self) -> int:
        """The server's."""
        return int(self.backend.address.rpartition(":")[2])

    def publish(self, prefix: str = "/") -> None:
        """Writes the manifests, all at once."""
        self.directory.mkdir(exist_ok=True)
        items = resources(self, prefix=prefix)
        beside = self.directory / ".new"
        beside.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        beside.rename(self.directory / "all.json")

    def arguments(self, *more: str, workers: int = 2, bind: str = "127.0.0.1:0") -> list[str]:
        """The command line of a `kgw run`."""
        where = ["-f", str(self.directory), "--bind", bind]
        return ["run", *where, "--workers", str(workers), *more]


class Process:
    """A command whose log is read, and that is ended with SIGTERM."""

    def __init__(
        self, *command: str, pass_fds: Sequence[int] = (), env: Mapping[str, str] | None = None
    ) -> None:
        self.process = subprocess.Popen(
            command,
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        self.stderr = _Lines(self.process.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)
        self.stderr.join()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def end(self) -> int:
        """Sends SIGTERM and returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def serving(run: Running | Process) -> Address:
    """Where it listens, once it serves."""
    line = run.stderr.after("listening")
    run.stderr.after("serving")
    found = re.search(r"address=(\S+):(\d+)", line)
    assert found, line
    return found[1], int(found[2])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "manifests")
    yield site
    site.backend.close()
