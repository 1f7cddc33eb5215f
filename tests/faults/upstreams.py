"""A backend's side of one exchange, alike for HTTP/1 and HTTP/2."""

from __future__ import annotations

import abc
import contextlib
import queue
import socket
import threading

from tests.engine.harness import Peer
from tests.peers import frames
from tests.peers.frames import Code
from tests.peers.h2 import WAIT, Accepted

PATIENCE = 2.0
"""Seconds for a request that must come."""


class Upstream(abc.ABC):
    """A connection that the proxy opened, with at most one request under way."""

    @abc.abstractmethod
    def read_head(self) -> None:
        """Waits for the head of the next request."""

    @abc.abstractmethod
    def read_body(self, length: int) -> bytes:
        """Waits for so many bytes of the request's body."""

    @abc.abstractmethod
    def answer(self, body: bytes, length: int | None = None, *, end: bool = True) -> None:
        """Sends a head with a length, and as much of the body as there is."""

    @abc.abstractmethod
    def more(self, body: bytes) -> None:
        """Sends more of the body."""

    @abc.abstractmethod
    def interim(self) -> None:
        """Sends 103."""

    @abc.abstractmethod
    def raw(self, data: bytes) -> None:
        """Sends bytes as they are."""

    @abc.abstractmethod
    def give_up(self, code: Code = Code.INTERNAL_ERROR) -> None:
        """Resets the stream, or the connection where there are none."""

    @abc.abstractmethod
    def is_released(self) -> bool:
        """Whether the proxy gives the request up: a reset of the stream, or the end."""

    @abc.abstractmethod
    def fin(self) -> None:
        """Ends the connection with FIN."""

    @abc.abstractmethod
    def rst(self) -> None:
        """Ends the connection with RST."""

    @abc.abstractmethod
    def half_close(self) -> None:
        """Sends FIN and goes on reading."""


class H1Upstream(Upstream):
    """HTTP/1.1."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def read_head(self) -> None:
        self.peer.read_head()

    def read_body(self, length: int) -> bytes:
        return self.peer.read_exactly(length)

    def answer(self, body: bytes, length: int | None = None, *, end: bool = True) -> None:
        length = len(body) if length is None else length
        self.peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % length + body)

    def more(self, body: bytes) -> None:
        self.peer.send(body)

    def interim(self) -> None:
        self.peer.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")

    def raw(self, data: bytes) -> None:
        self.peer.send(data)

    def give_up(self, code: Code = Code.INTERNAL_ERROR) -> None:
        self.peer.reset()

    def is_released(self) -> bool:
        try:
            while self.peer.sock.recv(65536):
                pass
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
        return True

    def fin(self) -> None:
        self.peer.close()

    def rst(self) -> None:
        self.peer.reset()

    def half_close(self) -> None:
        self.peer.finish_sending()


class H2Upstream(Upstream):
    """HTTP/2 with prior knowledge."""

    def __init__(self, accepted: Accepted) -> None:
        self.accepted = accepted
        self.number = -1

    def read_head(self) -> None:
        self.number += 2
        stream = self.accepted.streams[self.number]
        assert self.accepted.read(lambda: stream.fields, PATIENCE)

    def read_body(self, length: int) -> bytes:
        stream = self.accepted.streams[self.number]
        assert self.accepted.read(lambda: len(stream.body) >= length)
        return bytes(stream.body)

    def answer(self, body: bytes, length: int | None = None, *, end: bool = True) -> None:
        length = len(body) if length is None else length
        head = frames.block([(":status", "200"), ("content-length", str(length))])
        end = end and length == len(body)
        self.accepted.send(frames.headers(self.number, head, end=False))
        self.accepted.send(frames.data(self.number, body, end=end))

    def more(self, body: bytes) -> None:
        if not self.accepted.send(frames.data(self.number, body)):
            raise BrokenPipeError

    def interim(self) -> None:
        head = frames.block([(":status", "103"), ("link", "</a>")])
        self.accepted.send(frames.headers(self.number, head, end=False))

    def raw(self, data: bytes) -> None:
        self.accepted.send(data)

    def give_up(self, code: Code = Code.INTERNAL_ERROR) -> None:
        self.accepted.send(frames.rst_stream(self.number, code))

    def is_released(self) -> bool:
        stream = self.accepted.streams[self.number]
        return self.accepted.read(lambda: stream.reset is not None or self.accepted.closed)

    def fin(self) -> None:
        self.accepted.close()

    def rst(self) -> None:
        self.accepted.reset()

    def half_close(self) -> None:
        self.accepted.sock.shutdown(socket.SHUT_WR)


class Listener:
    """Where the proxy connects to; the test takes its connections."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = "{}:{}".format(*self.sock.getsockname())
        self.connections = 0
        self._accepted: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def accept(self) -> Upstream:
        """Returns the next connection of the proxy."""
        sock = self._accepted.get(timeout=WAIT)
        return H2Upstream(Accepted(sock)) if self.version == "h2" else H1Upstream(Peer(sock))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        for sock in self._open:
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.sock.accept()
                self.connections += 1
                self._open.append(sock)
                self._accepted.put(sock)
