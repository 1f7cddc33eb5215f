"""Real sockets around an engine: scripted upstreams, byte-level clients, a one-line set-up."""

from __future__ import annotations

import contextlib
import json
import queue
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.waypoint_log import TEN_KEYS

from kgw._native.engine import Engine

WAIT = 5.0
"""Seconds that a test waits for something that must happen."""

VIP = "10.96.238.187"


def eventually(condition: Callable[[], object], what: str = "condition") -> None:
    """Returns once ``condition`` holds; fails after :data:`WAIT` seconds."""
    deadline = time.monotonic() + WAIT
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"never came: {what}")
        threading.Event().wait(0.002)


@dataclass
class Response:
    """A response as read from a socket."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    raw_head: bytes

    def __getitem__(self, name: str) -> str:
        return next(value for key, value in self.headers if key.lower() == name.lower())

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def names(self) -> list[str]:
        return [name.lower() for name, _ in self.headers]


class Peer:
    """A connected socket with a buffer; reads exactly what is asked for."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(WAIT)
        self.buffer = bytearray()

    def send(self, data: bytes) -> None:
        for at in range(0, len(data), 1_000_000):
            self.sock.sendall(data[at : at + 1_000_000])

    def read_until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError(f"closed before {mark!r}; got {bytes(self.buffer)!r}")
            self.buffer += data
        return self._take(self.buffer.index(mark) + len(mark))

    def read_exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError(
                    f"closed {count - len(self.buffer)} bytes early: {bytes(self.buffer)!r}"
                )
            self.buffer += data
        return self._take(count)

    def _take(self, count: int) -> bytes:
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken

    def read_to_end(self) -> bytes:
        """Reads until the peer's FIN; a reset is an error."""
        while data := self.sock.recv(65536):
            self.buffer += data
        return self._take(len(self.buffer))

    def read_head(self) -> tuple[str, list[tuple[str, str]], bytes]:
        raw = self.read_until(b"\r\n\r\n")
        first, *lines = raw[:-4].decode("latin-1").split("\r\n")
        pairs = [line.split(":", 1) for line in lines]
        return first, [(name, value.strip()) for name, value in pairs], raw

    def read_body(self, headers: list[tuple[str, str]]) -> bytes:
        fields = {name.lower(): value for name, value in headers}
        if "transfer-encoding" in fields:
            body = b""
            while size := int(self.read_until(b"\r\n"), 16):
                body += self.read_exactly(size)
                assert self.read_exactly(2) == b"\r\n"
            assert self.read_exactly(2) == b"\r\n"
            return body
        return self.read_exactly(int(fields.get("content-length", "0")))

    def read_request(self) -> tuple[str, list[tuple[str, str]], bytes]:
        """Reads a request: its first line, header fields and body."""
        first, headers, _ = self.read_head()
        return first, headers, self.read_body(headers)

    def read_response(self, *, head: bool = False) -> Response:
        first, headers, raw = self.read_head()
        status = int(first.split(" ")[1])
        bodyless = head or status in (204, 304) or status < 200
        return Response(status, headers, b"" if bodyless else self.read_body(headers), raw)

    def is_closed(self) -> bool:
        """Whether the peer closes without another byte, by FIN or reset."""
        try:
            return not self.buffer and self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def is_readable(self) -> bool:
        """Whether there is something to read now: bytes, FIN or reset."""
        return bool(self.buffer) or bool(select.select([self.sock], [], [], 0)[0])

    def fill(self, most: int, gateway: Gateway) -> int:
        """Sends until the gateway takes no more, or ``most`` bytes; returns how much was taken.

        "No more" is settled by the gateway serving other requests without taking another byte.
        """
        self.sock.setblocking(False)
        sent = stalls = 0
        while sent < most and stalls < 20:
            try:
                sent += self.sock.send(PATTERN[sent % 256 :][: most - sent])
                stalls = 0
            except BlockingIOError:
                gateway.settle()
                stalls += 1
        self.sock.settimeout(WAIT)
        return sent

    def finish_sending(self) -> None:
        """Sends FIN and goes on reading."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Closes with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


PATTERN = bytes(range(256)) * 512
"""Bytes whose place in a stream can be told from their value."""

Script = Callable[[Peer], None]


class Upstream:
    """A server whose every connection is served by a script, in a thread of its own.

    Without a script the test itself takes the connections, with :meth:`accept`.
    """

    def __init__(self, script: Script | None) -> None:
        self.script = script
        self.accepted: queue.SimpleQueue[Peer] = queue.SimpleQueue()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = "{}:{}".format(*self.listener.getsockname())
        self.connections = 0
        self.peers: list[Peer] = []
        self.errors: list[BaseException] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            peer = Peer(sock)
            self.peers.append(peer)
            if self.script is None:
                self.accepted.put(peer)
            else:
                args = (self.script, peer)
                threading.Thread(target=self._serve, args=args, daemon=True).start()

    def accept(self) -> Peer:
        """Returns the next connection that the gateway opens."""
        return self.accepted.get(timeout=WAIT)

    def _serve(self, script: Script, peer: Peer) -> None:
        try:
            script(peer)
        except (EOFError, OSError):
            pass
        except BaseException as error:
            self.errors.append(error)
        finally:
            peer.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
            if self.script is None:
                peer.close()
        assert not self.errors, self.errors


def ok(body: bytes = b"ok", *fields: str, status: str = "200 OK") -> bytes:
    """A response with a length."""
    lines = [f"HTTP/1.1 {status}", *fields, f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def echo(peer: Peer) -> None:
    """Answers every request with what it was, as JSON: first line, fields and body."""
    while True:
        first, headers, body = peer.read_request()
        seen = {"line": first, "headers": headers, "body": body.decode("latin-1")}
        peer.send(ok(json.dumps(seen).encode(), "content-type: application/json"))


def always(response: bytes) -> Script:
    """A script that gives the same answer to every request."""

    def script(peer: Peer) -> None:
        while True:
            peer.read_request()
            peer.send(response)

    return script


def forward(*clusters: str, timeout_ms: int = 15_000, **more: Any) -> dict[str, Any]:
    backends = [{"cluster": cluster, "weight": 1} for cluster in clusters]
    action = {"type": "forward", "backends": backends, "request_timeout_ms": timeout_ms}
    return action | more


def tcp_forward(*clusters: str | None, **more: Any) -> dict[str, Any]:
    """Passing bytes on to clusters of equal weight."""
    backends = [{"cluster": cluster, "weight": 1} for cluster in clusters]
    return {"name": "tcp-route", "backends": backends} | more


def rule(path: str, route: str, kind: str = "prefix", **more: Any) -> dict[str, Any]:
    return {"path": {kind: path}, "rank": {"name": route}, "route": route} | more


def direct(status: int, body: str = "") -> dict[str, Any]:
    return {"name": "direct", "action": {"type": "direct", "status": status, "body": body}}


PROBE: dict[str, Any] = {
    "id": "probe",
    "bind": ["127.0.0.1:0"],
    "traffic": {"type": "http", "route_table": "probe"},
    "http": {"idle_timeout_ms": 0},
}
"""A listener that answers by itself; see :meth:`Gateway.settle`."""


@dataclass
class Setup:
    """What a gateway is made of; everything has a default that serves ``upstream`` on ``/``."""

    endpoints: list[str] = field(default_factory=list)
    clusters: dict[str, Any] = field(default_factory=dict)
    routes: dict[str, Any] = field(default_factory=dict)
    rules: list[dict[str, Any]] = field(default_factory=list)
    hosts: list[dict[str, Any]] | None = None
    http: dict[str, Any] = field(default_factory=dict)
    log: dict[str, Any] | None = None
    log_path: str | None = None
    logs: list[dict[str, Any]] | None = None
    waypoint: bool = False
    header_timeout_ms: int = 15_000
    listeners: list[dict[str, Any]] = field(default_factory=list)
    traffic: dict[str, Any] | None = None
    """What the listener carries; by default, requests for the route table."""
    listener: dict[str, Any] = field(default_factory=dict)
    """More options of the listener."""

    def ir(self) -> dict[str, Any]:
        routes = self.routes or {"default": {"name": "default", "action": forward("c")}}
        rules = self.rules or [rule("/", next(iter(routes)))]
        destination = {"address": VIP, "port": 80, "service": "default/ollama", "route_table": "t"}
        traffic: dict[str, Any] = {"type": "http", "route_table": "t"}
        if self.waypoint:
            traffic = {
                "type": "waypoint",
                "header_timeout_ms": self.header_timeout_ms,
                "destinations": [destination],
            }
        listener: dict[str, Any] = {
            "id": "l",
            "bind": ["127.0.0.1:0"],
            "traffic": self.traffic or traffic,
            "http": self.http,
        } | self.listener
        if self.log_path is not None:
            log = {"path": self.log_path, "format": {"json": self.log or TEN_KEYS}}
            listener["access_logs"] = [log]
        if self.logs is not None:
            listener["access_logs"] = self.logs
        clusters = {"c": {"endpoints": self.endpoints}} | self.clusters
        hosts = self.hosts if self.hosts is not None else [{"hostname": "*", "rules": rules}]
        return {
            "version": 1,
            "listeners": [listener, PROBE, *self.listeners],
            "route_tables": {
                "t": {"hosts": hosts},
                "probe": {"hosts": [{"hostname": "*", "rules": [rule("/", "probe")]}]},
            },
            "routes": routes | {"probe": direct(204)},
            "clusters": clusters,
        }

    def encoded(self) -> bytes:
        return json.dumps(self.ir()).encode()


class Gateway:
    """An engine under test, with its clock turned by hand unless ``real_time``."""

    def __init__(
        self,
        setup: Setup,
        *,
        workers: int = 1,
        real_time: bool = False,
        **limits: Any,
    ) -> None:
        self.setup = setup
        self.engine = Engine(workers=workers, manual_clock=not real_time, **limits)
        self.engine.start(setup.encoded())
        assert self.engine.wait_applied(1, WAIT)
        self.port = self.engine.addresses()["l"][0][1]
        self.clients: list[Peer] = []
        self.probe: Peer | None = None

    def connect(self, *, receive_buffer: int | None = None) -> Peer:
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(WAIT)
        sock.connect(("127.0.0.1", self.port))
        client = Peer(sock)
        self.clients.append(client)
        return client

    def settle(self) -> None:
        """Returns once the gateway's only worker has acted on everything that reached it before.

        The worker answers a probe only after it has looked at its sockets, and the one after that
        only after it has run what it found there.
        """
        if self.probe is None:
            port = self.engine.addresses()["probe"][0][1]
            self.probe = Peer(socket.create_connection(("127.0.0.1", port), WAIT))
            self.clients.append(self.probe)
        for _ in range(3):
            self.probe.send(get())
            assert self.probe.read_response().status == 204

    def ask(self, request: bytes, *, head: bool = False) -> Response:
        """Sends one request on a new connection and returns its response."""
        client = self.connect()
        client.send(request)
        response = client.read_response(head=head)
        client.close()
        return response

    def get(self, path: str = "/", *fields: str, host: str = "ollama") -> Response:
        return self.ask(get(path, *fields, host=host))

    def apply(self, setup: Setup) -> None:
        self.apply_ir(setup.ir())

    def publish(self, ir: dict[str, Any]) -> int:
        return self.engine.apply(json.dumps(ir).encode())

    def apply_ir(self, ir: dict[str, Any]) -> None:
        generation = self.publish(ir)
        assert self.engine.wait_applied(generation, WAIT)

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = json.loads(self.engine.stats())
        return stats

    def stat(self, name: str) -> int:
        return int(self.stats()[name])

    def reaches(self, name: str, value: int) -> None:
        """Waits for the value of a counter: a client may have its answer before it is counted."""
        eventually(lambda: self.stat(name) == value, f"{name} == {value}")

    def advance(self, seconds: float) -> None:
        """Turns the clock once everything before has been acted on, and lets that be acted on."""
        self.settle()
        self.engine.advance(seconds)
        self.settle()

    def log_lines(self, count: int) -> list[dict[str, Any]]:
        """The access log, once it has ``count`` lines."""
        path = self.setup.log_path
        assert path is not None

        def lines() -> list[str]:
            self.engine.flush_logs(WAIT)
            with open(path, encoding="utf-8") as log:
                return log.read().splitlines()

        eventually(lambda: len(lines()) >= count, f"{count} log lines")
        found = lines()
        assert len(found) == count, found
        return [json.loads(line) for line in found]

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.engine.join(0.0)


def post(body: bytes = b"", *fields: str, path: str = "/", host: str = "ollama") -> bytes:
    """A POST request with a length."""
    lines = [f"POST {path} HTTP/1.1", f"host: {host}", *fields, f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


@contextlib.contextmanager
def refused_address() -> Iterator[str]:
    """An address where nobody listens, and that nobody else gets."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield "{}:{}".format(*sock.getsockname())


def free_port() -> int:
    """A port to listen on, below those that the kernel gives away."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def deaf_address() -> Iterator[str]:
    """An address where connecting neither succeeds nor fails: its queue is full."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        while True:
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(address)
            if not select.select([], [filler], [], 0.2)[1]:
                break
        yield "{}:{}".format(*address)


def get(path: str = "/", *fields: str, host: str = "ollama") -> bytes:
    """A GET request."""
    return "\r\n".join([f"GET {path} HTTP/1.1", f"host: {host}", *fields, "", ""]).encode()


@contextlib.contextmanager
def serving(
    setup: Setup | None = None,
    script: Script | None = echo,
    *,
    workers: int = 1,
    real_time: bool = False,
    **limits: Any,
) -> Iterator[tuple[Gateway, Upstream]]:
    """A gateway in front of one upstream, which is cluster ``c``; see :class:`Upstream`."""
    upstream = Upstream(script)
    setup = setup or Setup()
    if not setup.endpoints:
        setup.endpoints = [upstream.address]
    gateway = Gateway(setup, workers=workers, real_time=real_time, **limits)
    try:
        yield gateway, upstream
    finally:
        gateway.close()
        upstream.close()
