"""A client's side of one exchange, alike for HTTP/1 and HTTP/2."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.peers import frames
from tests.peers.frames import Code, Text
from tests.peers.h2 import WAIT, Connection

if TYPE_CHECKING:
    from tests.engine.harness import Peer


@dataclass
class Answer:
    """What came of a request."""

    status: int | None
    body: bytes
    whole: bool
    """Whether the answer ended as a whole one does."""


class Client(abc.ABC):
    """A connection with at most one request under way."""

    @abc.abstractmethod
    def ask(self, method: str, length: int | None = None) -> None:
        """Sends a head; with a length, of a body that is still to come."""

    @abc.abstractmethod
    def send(self, body: bytes, *, end: bool = False) -> None:
        """Sends a part of the body; ``end`` says that it is the last."""

    @abc.abstractmethod
    def start_of_answer(self) -> int:
        """Waits for the head of the answer; returns the status."""

    @abc.abstractmethod
    def answer(self) -> Answer:
        """Waits for the end of the answer."""

    @abc.abstractmethod
    def abort(self) -> None:
        """Gives the request up: a reset of the stream, or of the connection."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends the connection with FIN."""


class H1Client(Client):
    """A connection of HTTP/1.1."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.status: int | None = None
        self.fields: list[tuple[str, str]] = []

    def ask(self, method: str, length: int | None = None) -> None:
        body = "" if length is None else f"content-length: {length}\r\n"
        self.peer.send(f"{method} / HTTP/1.1\r\nhost: lab.test\r\n{body}\r\n".encode())

    def send(self, body: bytes, *, end: bool = False) -> None:
        self.peer.send(body)

    def start_of_answer(self) -> int:
        first, self.fields, _ = self.peer.read_head()
        self.status = int(first.split(" ")[1])
        return self.status

    def answer(self) -> Answer:
        try:
            if self.status is None:
                self.start_of_answer()
            body = self.peer.read_body(self.fields)
        except (EOFError, ConnectionError):
            return Answer(self.status, bytes(self.peer.buffer), whole=False)
        return Answer(self.status, body, whole=True)

    def abort(self) -> None:
        self.peer.reset()

    def close(self) -> None:
        self.peer.close()


class H2Client(Client):
    """A connection of HTTP/2 with prior knowledge."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.number = -1

    def ask(self, method: str, length: int | None = None) -> None:
        self.number += 2
        more: list[tuple[Text, Text]] = []
        if length is not None:
            more = [("content-length", str(length))]
        self.connection.send(
            frames.request(self.number, "/", *more, method=method, end=length is None)
        )

    def send(self, body: bytes, *, end: bool = False) -> None:
        self.connection.send(frames.data(self.number, body, end=end))

    def start_of_answer(self) -> int:
        stream = self.connection.streams[self.number]
        assert self.connection.read(lambda: stream.status is not None)
        assert stream.status is not None
        return stream.status

    def answer(self) -> Answer:
        stream = self.connection.response(self.number, WAIT)
        whole = stream.ended and stream.reset in (None, Code.NO_ERROR)
        return Answer(stream.status, bytes(stream.body), whole)

    def abort(self) -> None:
        self.connection.send(frames.rst_stream(self.number))

    def close(self) -> None:
        self.connection.close()
