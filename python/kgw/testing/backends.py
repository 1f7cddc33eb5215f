"""Fake backends: servers on loopback that answer as a test says, and remember what they were asked.

Each Service has one, with a socket for each of its ports. One thread accepts for all of them, and
each connection is served by a thread of its own.
"""

from __future__ import annotations

import json as jsonlib
import math
import selectors
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from kgw.errors import ProtocolError, ProxyProtocolError
from kgw.testing import http1
from kgw.testing.headers import Fields, Headers, pairs

if TYPE_CHECKING:
    from typing import Self

    from kgw.proxyproto import ProxyHeader
    from kgw.testing.clock import Clock

__all__ = ["Backend", "Backends", "Received", "Reply"]

MAX_REMEMBERED = 10_000
"""Requests that a backend remembers; older ones are forgotten."""

PATIENCE = 10.0
"""Real seconds that a connection may be silent within a request, and that threads get to end."""


@dataclass(frozen=True, slots=True)
class Received:
    """A request as a backend received it."""

    backend: str
    """``namespace/name`` of the Service."""
    port: int
    """The Service's port."""
    method: str
    target: str
    """The request target: path and query, as they were sent."""
    headers: Headers
    body: bytes = field(repr=False)
    trailers: Headers = field(repr=False)
    proxy: ProxyHeader | None
    """The PROXY protocol header that started the connection, if a policy asks for one."""
    peer: tuple[str, int] = field(repr=False)
    """The gateway's end of the connection."""

    @property
    def path(self) -> str:
        """The target without the query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """The query parameters, decoded; of a repeated one the last."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Returns what the body says as JSON. Raises `ValueError`."""
        return jsonlib.loads(self.body)

    def describe(self) -> list[str]:
        """Returns the request in lines for people."""
        lines = [f"{self.method} {self.target} at {self.backend}:{self.port}"]
        lines += [f"{name}: {value}" for name, value in self.headers.pairs]
        return lines + (["", _shown(self.body)] if self.body else [])


@dataclass(frozen=True, slots=True)
class Reply:
    """What a fake backend answers.

    Attributes:
        status: the status code.
        headers: header fields; the length of the body is added unless they say how it is framed.
        body: bytes, or text as UTF-8.
        delay: seconds of the gateway's clock until it is sent; infinity is never.
    """

    status: int = 200
    headers: Fields = ()
    body: bytes | str = b""
    delay: float = 0.0


Handler = Callable[[Received], Reply]
"""Makes the answer to a request."""


def echo(request: Received) -> Reply:
    """Answers with the request itself, as JSON: what a fake backend does unless told otherwise."""
    seen = {
        "backend": request.backend,
        "port": request.port,
        "method": request.method,
        "target": request.target,
        "headers": dict(request.headers.items()),
        "body": request.text,
    }
    return Reply(200, {"Content-Type": "application/json"}, jsonlib.dumps(seen))


class Backend:
    """The fake of a Service."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        """``namespace/name``."""
        self.requests: deque[Received] = deque(maxlen=MAX_REMEMBERED)
        """Every request that came, the oldest first."""
        self._clock = clock
        self._lock = threading.Lock()
        self._next: deque[Handler] = deque()
        self._standing: Handler = echo
        self._resets = False
        self._waiting = 0
        self._listeners: dict[int, _Listener] = {}

    def __repr__(self) -> str:
        return f"<Backend {self.name}: {len(self.requests)} requests>"

    @property
    def waits(self) -> bool:
        """Whether it has requests that it will answer later by the gateway's clock."""
        return self._waiting > 0

    @property
    def last(self) -> Received:
        """The last request that came.

        Raises:
            AssertionError: none has.
        """
        if not self.requests:
            raise AssertionError(f"no request reached backend {self.name}")
        return self.requests[-1]

    def responds(
        self,
        status: int = 200,
        headers: Fields = (),
        body: bytes | str = b"",
        *,
        json: Any = None,
        delay: float = 0.0,
        times: int | None = None,
    ) -> Self:
        """Says what the backend answers from now on.

        Args:
            status: the status code.
            headers: header fields. ``Transfer-Encoding: chunked`` sends the body in that form.
            body: bytes, or text as UTF-8.
            json: what to send as JSON in place of *body*.
            delay: seconds of the gateway's clock from the request to the answer.
            times: answers only the next so many requests; those after them are answered as before.
                Several calls with it follow one another. A call without it is for all to come.

        Raises:
            ValueError: *status*, *delay* or *times* is out of bounds.
        """
        if not 200 <= status <= 599:
            raise ValueError(f"{status} is not the status of a final answer")
        if not delay >= 0:
            raise ValueError(f"a delay cannot be {delay} s")
        fields = pairs(headers)
        if json is not None:
            body = jsonlib.dumps(json)
            if "content-type" not in Headers(fields):
                fields.append(("Content-Type", "application/json"))
        reply = Reply(status, fields, body, delay)
        return self.handles(lambda _: reply, times=times)

    def handles(self, handler: Handler, *, times: int | None = None) -> Self:
        """Lets a function answer, which is called in a thread of its own; else as `responds`.

        An exception that it raises is answered with 500, and is in the body.
        """
        if times is not None and times < 1:
            raise ValueError(f"times must be at least 1, not {times}")
        with self._lock:
            self._resets = False
            if times is None:
                self._standing = handler
                self._next.clear()
            else:
                self._next.extend([handler] * times)
        for listener in self._listeners.values():
            listener.open()
        return self

    def hangs(self, *, times: int | None = None) -> Self:
        """Takes requests, and never answers them."""
        return self.responds(delay=math.inf, times=times)

    def resets(self) -> Self:
        """Resets every connection once it has received a request."""
        self.handles(echo)
        with self._lock:
            self._resets = True
        return self

    def refuses(self) -> Self:
        """Refuses connections, and closes those that there are."""
        for listener in self._listeners.values():
            listener.close()
        return self

    def forget(self) -> None:
        """Forgets the requests that came so far."""
        self.requests.clear()

    # === Connections ===

    def _serve(self, sock: socket.socket, listener: _Listener) -> None:
        """Serves a connection to its end."""
        reader = http1.Reader(sock)
        peer = sock.getpeername()[:2]
        sock.settimeout(None)
        proxy = reader.proxy_header() if listener.proxy_protocol else None
        while (head := reader.head()) is not None:
            sock.settimeout(PATIENCE)
            if head.headers.get("expect", "").lower() == "100-continue":
                sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            body, trailers = reader.body(head.headers)
            request = Received(
                self.name, listener.port, *head, body, trailers=trailers, proxy=proxy, peer=peer
            )
            with self._lock:
                self.requests.append(request)
                handler = self._next.popleft() if self._next else self._standing
                resets = self._resets
            if resets:
                # A close with data unsent to nobody's knowledge: SO_LINGER 0 makes it a reset.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            reply = _reply(handler, request)
            if not self._answer(sock, reply, head):
                return
            if head.headers.get("connection", "").lower() == "close":
                return
            sock.settimeout(None)

    def _answer(self, sock: socket.socket, reply: Reply, head: http1.Message) -> bool:
        """Sends an answer when it is time; returns whether anybody was there for it."""
        body = reply.body.encode() if isinstance(reply.body, str) else reply.body
        data = http1.response(reply.status, Headers(reply.headers), body, head)
        if not reply.delay:
            sock.sendall(data)
            return True
        with self._lock:
            self._waiting += 1
        try:
            with self._clock.waited(reply.delay, http1.is_closed(sock)) as due:
                if due:
                    sock.sendall(data)
                return due
        finally:
            with self._lock:
                self._waiting -= 1


def _reply(handler: Handler, request: Received) -> Reply:
    try:
        reply = handler(request)
        if not isinstance(reply, Reply):
            raise TypeError(f"a handler returns a Reply, not {type(reply).__name__}")
    except Exception as error:  # whatever it is, the test is to see it
        reply = Reply(500, (), f"the handler of {request.backend} raised {error!r}")
    return reply


@dataclass(eq=False)
class _Listener:
    """The socket of a port of a backend."""

    backend: Backend
    port: int
    """The Service's port."""
    proxy_protocol: bool
    """Whether connections start with a PROXY protocol header."""
    server: Backends
    address: tuple[str, int] = ("127.0.0.1", 0)
    accepting: socket.socket | None = None
    connections: set[socket.socket] = field(default_factory=set)

    def open(self) -> None:
        """Listens, if it does not; at the same address as before."""
        with self.server.lock:
            if self.accepting is not None or self.server.closed:
                return
            self.accepting = socket.create_server(self.address, backlog=128)
            self.accepting.setblocking(False)
            self.address = self.accepting.getsockname()
            self.server.watch(self)

    def close(self) -> None:
        """Listens no longer, and ends every connection."""
        with self.server.lock:
            if self.accepting is not None:
                self.server.unwatch(self)
                self.accepting.close()
                self.accepting = None
            for sock in self.connections:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)


class Backends:
    """All fake backends of a gateway, by ``namespace/name``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.by_name: dict[str, Backend] = {}
        self.lock: threading.RLock = threading.RLock()
        self.closed: bool = False
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = socket.socketpair()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._threads: set[threading.Thread] = set()
        self._thread = threading.Thread(target=self._accept, name="kgw-backends", daemon=True)
        self._thread.start()

    def address(self, name: str, port: int, *, proxy_protocol: bool) -> tuple[str, int]:
        """Returns where a port of a Service is served; starts serving it.

        Args:
            name: ``namespace/name``.
            port: the Service's port.
            proxy_protocol: whether the gateway begins connections with a PROXY protocol header.
        """
        backend = self.by_name.get(name)
        if backend is None:
            backend = self.by_name[name] = Backend(name, self._clock)
        listener = backend._listeners.get(port)
        if listener is None:
            listener = backend._listeners[port] = _Listener(backend, port, proxy_protocol, self)
            listener.open()
        # A change of the policy is for the connections to come.
        listener.proxy_protocol = proxy_protocol
        return listener.address

    def watch(self, listener: _Listener) -> None:
        """Accepts connections of a listener from now on."""
        assert listener.accepting is not None
        self._selector.register(listener.accepting, selectors.EVENT_READ, listener)
        self._waker.send(b"\0")

    def unwatch(self, listener: _Listener) -> None:
        """Accepts no more connections of a listener."""
        assert listener.accepting is not None
        self._selector.unregister(listener.accepting)

    def close(self) -> None:
        """Ends every connection, and waits for the threads."""
        with self.lock:
            self.closed = True
            for backend in self.by_name.values():
                for listener in backend._listeners.values():
                    listener.close()
            threads = [self._thread, *self._threads]
            self._waker.close()
        for thread in threads:
            thread.join(PATIENCE)
        self._selector.close()
        self._wake.close()

    def _accept(self) -> None:
        while not self.closed:
            for key, _ in self._selector.select():
                if key.fileobj is self._wake:
                    self._wake.recv(4096)
                else:
                    self._take(key.data)

    def _take(self, listener: _Listener) -> None:
        with self.lock:
            if listener.accepting is None or self.closed:
                return
            try:
                sock, _ = listener.accepting.accept()
            except BlockingIOError:
                return
            listener.connections.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock, listener), daemon=True)
            self._threads.add(thread)
            thread.start()

    def _serve(self, sock: socket.socket, listener: _Listener) -> None:
        try:
            # Sockets that were accepted inherit nothing of this, so each is told.
            sock.setblocking(True)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with suppress(OSError, EOFError, ProtocolError, ProxyProtocolError):
                listener.backend._serve(sock, listener)
        finally:
            with self.lock:
                listener.connections.discard(sock)
                sock.close()
                self._threads.discard(threading.current_thread())


def _shown(body: bytes, most: int = 400) -> str:
    """A body for people, cut."""
    text = body[:most].decode("utf-8", "replace")
    return text if len(body) <= most else f"{text}… ({len(body)} bytes)"
