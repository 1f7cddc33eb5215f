"""A real Redis or Valkey server, on a port of loopback, without anything on disk."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING, Final, Self

import pytest
from tests.engine.harness import Peer, eventually, free_port

if TYPE_CHECKING:
    from pathlib import Path

SERVERS: Final = ("redis-server", "valkey-server")


class RedisServer:
    """A server that can be stopped and started again at the same port.

    Args:
        directory: where it may write, which it does not.
        options: options of its command line.
        is_tls: whether it speaks TLS alone, for which there are options.
    """

    def __init__(self, directory: Path, *options: str, is_tls: bool = False) -> None:
        found = next((path for name in SERVERS if (path := shutil.which(name))), None)
        if found is None:
            names = " or ".join(SERVERS)
            pytest.skip(f"there is no {names} in PATH (Debian: apt-get install redis-server)")
        self.port = free_port()
        self._command = [found, "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""]
        ports = ["--port", "0", "--tls-port"] if is_tls else ["--port"]
        self._command += ["--appendonly", "no", *ports, str(self.port), *options]
        self._process: subprocess.Popen[bytes] | None = None
        self._log = directory / "redis.log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it, and waits until it can be connected to."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        eventually(self._listens, "a Redis server that listens")

    def stop(self) -> None:
        """Kills it: nothing is said to anybody, and nothing kept."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def command(self, *words: str) -> bytes:
        """The reply to one command, as it came, in a connection of its own."""
        with contextlib.closing(self.connect()) as peer:
            return self.on(peer, *words)

    def connect(self) -> Peer:
        """A connection to it."""
        return Peer(socket.create_connection(("127.0.0.1", self.port), 5))

    @staticmethod
    def on(peer: Peer, *words: str) -> bytes:
        """The same in a given connection."""
        parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
        peer.send(f"*{len(words)}\r\n{''.join(parts)}".encode())
        line = peer.read_until(b"\r\n")
        if line[:1] == b"$" and (length := int(line[1:])) >= 0:
            return peer.read_exactly(length + 2)[:-2]
        if line[:1] == b"*":
            found = b""
            for _ in range(int(line[1:])):
                peer_line = peer.read_until(b"\r\n")
                found += peer.read_exactly(int(peer_line[1:]) + 2)[:-2] + b"\n"
            return found
        return line[:-2]

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False
