"""Both sides of the engine: an origin, and clients that ask in rounds.

A round is a number of requests in flight. All of them are sent while the worker waits, or while it
is stopped if there is more than one, and so are their answers: the worker finds them together.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import threading
from typing import TYPE_CHECKING, Protocol, Self

import h2.config
import h2.connection
import h2.events

from .engine import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .engine import Engine

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEAD_END = b"\r\n\r\n"


def _message_length(data: bytes | bytearray) -> int | None:
    """Returns the length of the message that ``data`` begins with, once its head is complete."""
    head = data.find(_HEAD_END)
    if head < 0:
        return None
    length = _LENGTH.search(data, 0, head + 2)
    return head + len(_HEAD_END) + (int(length[1]) if length else 0)


class Origin:
    """A server that answers a round of requests once all of them have arrived."""

    def __init__(self, answer: bytes, round_size: int) -> None:
        self.answer = answer
        self.round_size = round_size
        self.engine: Engine | None = None
        self.failure: BaseException | None = None
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address = "{}:{}".format(*self._listener.getsockname())
        self._end, self._ended = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="origin")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()
        self._thread.join()
        self._ended.close()
        if self.failure is not None:
            raise RuntimeError("the origin failed") from self.failure

    def _run(self) -> None:
        received: dict[socket.socket, bytearray] = {}
        with selectors.DefaultSelector() as selector, self._listener as listener:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(self._ended, selectors.EVENT_READ)
            try:
                self._serve(selector, listener, received)
            except BaseException as failure:
                self.failure = failure
            finally:
                for connection in received:
                    connection.close()

    def _serve(
        self,
        selector: selectors.BaseSelector,
        listener: socket.socket,
        received: dict[socket.socket, bytearray],
    ) -> None:
        complete: list[socket.socket] = []
        while True:
            for key, _ in selector.select():
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                if ready is self._ended:
                    return
                if ready is listener:
                    connection, _ = listener.accept()
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    received[connection] = bytearray()
                    selector.register(connection, selectors.EVENT_READ)
                    continue
                buffer = received[ready]
                with contextlib.suppress(ConnectionResetError):
                    buffer += (data := ready.recv(1 << 18))
                if not data:
                    selector.unregister(ready)
                    ready.close()
                    del received[ready]
                elif (length := _message_length(buffer)) is not None and len(buffer) >= length:
                    del buffer[:length]
                    complete.append(ready)
            if len(complete) >= self.round_size:
                assert self.engine is not None
                with _together(self.engine, len(complete)):
                    for connection in complete:
                        connection.sendall(self.answer)
                complete.clear()


def _together(engine: Engine, count: int) -> contextlib.AbstractContextManager[None]:
    """The context in which ``count`` peers act as one."""
    if count > 1:
        return engine.stopped()
    engine.settle()
    return contextlib.nullcontext()


class Client(Protocol):
    """Somebody who sends requests."""

    def round(self) -> None:
        """Sends a round of requests and takes their answers."""

    def close(self) -> None:
        """Ends the connections that are open."""


def _connect(engine: Engine) -> socket.socket:
    connection = socket.create_connection(engine.address, PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _read_answer(connection: socket.socket) -> None:
    """Reads one answer and checks that it is a good one."""
    received = bytearray()
    length: int | None = None
    while length is None or len(received) < length:
        data = connection.recv(1 << 18)
        if not data:
            raise EOFError(f"closed after {bytes(received[:200])!r}")
        received += data
        if length is None:
            length = _message_length(received)
    if not received.startswith(b"HTTP/1.1 200 ") or len(received) != length:
        raise ValueError(f"not the answer: {bytes(received[:200])!r}")


class KeepAlive:
    """One connection for each request of a round, kept; requests take turns."""

    def __init__(
        self, engine: Engine, requests: Sequence[bytes], round_size: int, preamble: bytes = b""
    ) -> None:
        self.engine = engine
        self.requests = requests
        self.connections = [_connect(engine) for _ in range(round_size)]
        for connection in self.connections:
            connection.sendall(preamble)
        self.turn = 0

    def round(self) -> None:
        with _together(self.engine, len(self.connections)):
            for connection in self.connections:
                connection.sendall(self.requests[self.turn % len(self.requests)])
                self.turn += 1
        for connection in self.connections:
            _read_answer(connection)

    def close(self) -> None:
        for connection in self.connections:
            connection.close()


class Churn:
    """A connection for each request, whose first bytes arrive before it is accepted."""

    def __init__(self, engine: Engine, request: bytes) -> None:
        self.engine = engine
        self.request = request

    def round(self) -> None:
        with self.engine.stopped():
            connection = _connect(self.engine)
            connection.sendall(self.request)
        with connection:
            _read_answer(connection)
            self.engine.settle()
        self.engine.settle()

    def close(self) -> None:
        pass


class Http2:
    """One connection, with a stream for each request of a round."""

    def __init__(self, engine: Engine, fields: list[tuple[str, str]], round_size: int) -> None:
        self.engine = engine
        self.fields = fields
        self.round_size = round_size
        self.connection = _connect(engine)
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.state.initiate_connection()
        # Room for all answers, so that no round has a window update in it.
        self.state.increment_flow_control_window(2**30)
        self.connection.sendall(self.state.data_to_send())
        self._read_until(h2.events.SettingsAcknowledged, 1)

    def round(self) -> None:
        for _ in range(self.round_size):
            stream = self.state.get_next_available_stream_id()
            self.state.send_headers(stream, self.fields, end_stream=True)
        self.engine.settle()
        self.connection.sendall(self.state.data_to_send())
        self._read_until(h2.events.StreamEnded, self.round_size)

    def _read_until(self, kind: type[h2.events.Event], count: int) -> None:
        while count:
            data = self.connection.recv(1 << 18)
            if not data:
                raise EOFError("the engine closed the connection")
            for event in self.state.receive_data(data):
                if isinstance(event, kind):
                    count -= 1
                elif isinstance(event, h2.events.ResponseReceived):
                    assert (b":status", b"200") in event.headers
                elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                    raise ValueError(f"not the answer: {event}")
            # Acknowledgements of settings; answers are as they would be without.
            if sent := self.state.data_to_send():
                self.connection.sendall(sent)

    def close(self) -> None:
        self.connection.close()
