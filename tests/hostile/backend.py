"""A backend that keeps every byte of every connection and answers as a strict server would."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from . import strict
from .strict import State

WAIT = 3.0
"""Seconds that a proxy may take to close an upstream connection after its client's."""

Script = dict[str, Any]

REFUSAL = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 7\r\nconnection: close\r\n\r\nrefused"


def text(parts: str | list[Any]) -> bytes:
    """The bytes of a text, or of a list of texts and ``[text, count]`` pairs."""
    if isinstance(parts, str):
        return parts.encode("latin-1")
    return b"".join(
        text(part) if isinstance(part, str) else text(part[0]) * part[1] for part in parts
    )


@dataclass
class Connection:
    """One connection and all it received."""

    sock: socket.socket
    data: bytearray = field(default_factory=bytearray)
    is_open: bool = True


class Backend:
    """Answers requests with their own target as JSON, and those of ``script_target`` as told."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = "{}:{}".format(*self.listener.getsockname())
        self.script_target: bytes | None = None
        self.script: Script = {}
        self._connections: list[Connection] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self) -> None:
        """Forgets and closes all connections: the next case starts on a new one."""
        with self._lock:
            old, self._connections = self._connections, []
        for connection in old:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def received(self) -> list[bytes]:
        """What each connection received, if anything."""
        with self._lock:
            return [bytes(it.data) for it in self._connections if it.data]

    def is_left_waiting(self) -> bool:
        """Whether a connection stays open in the middle of a message, its client being gone."""
        deadline = time.monotonic() + WAIT
        while self._waits():
            if time.monotonic() > deadline:
                return True
            time.sleep(0.005)  # looks again, until the deadline
        return False

    def _waits(self) -> bool:
        with self._lock:
            live = [bytes(it.data) for it in self._connections if it.is_open and it.data]
        return not all(strict.read_all(data)[2] for data in live)

    def close(self) -> None:
        """Stops listening and closes all connections."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.reset()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            connection = Connection(sock)
            with self._lock:
                self._connections.append(connection)
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: Connection) -> None:
        with connection.sock, contextlib.suppress(OSError):
            self._serve(connection)
        connection.is_open = False

    def _serve(self, connection: Connection) -> None:
        position, needed, continued = 0, 0, False
        while data := connection.sock.recv(262_144):
            connection.data += data
            while needed <= len(connection.data) and position < len(connection.data):
                reading = strict.read(bytes(connection.data), position)
                request = reading.request
                if reading.state is State.BAD:
                    connection.sock.sendall(REFUSAL)
                    return
                if reading.state is State.INCOMPLETE:
                    if request is None:
                        break
                    if request.values(b"expect") and not continued:
                        connection.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                        continued = True
                    if request.target == self.script_target and self.script.get("early"):
                        self._play(connection.sock)
                        return
                    # Long bodies are not read again for each segment.
                    needed = len(connection.data) + 1
                    if not request.values(b"transfer-encoding"):
                        length = int(request.values(b"content-length")[0])
                        needed = len(connection.data) - len(request.body) + length
                    break
                assert request is not None
                position, needed, continued = reading.end, 0, False
                if request.target == self.script_target:
                    if self._play(connection.sock):
                        return
                    continue
                body = json.dumps({"target": request.target.decode("latin-1")}).encode()
                head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
                connection.sock.sendall(head + (b"" if request.method == b"HEAD" else body))
                if b"close" in request.values(b"connection"):
                    return

    def _play(self, sock: socket.socket) -> bool:
        """Sends the script's answer; returns whether the connection ends with it."""
        for parts, delay_ms in self.script["send"]:
            time.sleep(delay_ms / 1000)  # the case answers in pieces
            sock.sendall(text(parts))
        end = self.script["end"]
        if end == "rst":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return bool(end != "keep")
