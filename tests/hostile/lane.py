"""Lanes: a backend each behind a listener each, so that cases run side by side and apart."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.peers.proxies import Address, Config, forwarding

from kgw._native.engine import Engine

from .backend import Backend

if TYPE_CHECKING:
    from collections.abc import Iterator

Case = dict[str, Any]
Segments = list[tuple[bytes, float]]
Verdict = tuple[str, str]
"""PASS, LENIENT, UNSAFE, OVERSTRICT, STALL, CRASH or INFO, and why."""

LANES = 8
WAIT = 10.0
SETTLED = {"PASS", "LENIENT", "INFO"}


@dataclass(frozen=True)
class Patience:
    """How long to wait for the first byte of an answer, and for more after one. Seconds."""

    first: float
    more: float


PATIENCE = (Patience(1.0, 0.25), Patience(5.0, 1.5))
"""A doubtful verdict is taken a second time, with longer waits."""


@dataclass
class Lane:
    """A backend and the proxy's address in front of it."""

    backend: Backend
    address: tuple[str, int]

    def talk(self, segments: Segments, patience: Patience) -> tuple[bytes, str]:
        """Sends the segments; returns what came back and the connection's state after it."""
        try:
            sock = socket.create_connection(self.address, 2)
        except OSError:
            return b"", "refused"
        received, state = bytearray(), "idle"
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                for data, delay in segments:
                    sock.sendall(data)
                    time.sleep(delay)  # the case's own pause between segments
            except OSError:
                state = "reset"
            sock.settimeout(patience.first)
            try:
                while data := sock.recv(65536):
                    received += data
                    sock.settimeout(patience.more)
                state = "closed"
            except TimeoutError:
                pass
            except OSError:
                state = "reset"
        return bytes(received), state

    def ask(self, target: str, prefix: bytes = b"") -> tuple[bytes, str]:
        """A sound request on a new connection, as the victim of what a case left behind."""
        request = f"GET {target} HTTP/1.1\r\nhost: lab.test\r\nconnection: close\r\n\r\n"
        return self.talk([(prefix + request.encode(), 0)], Patience(WAIT, WAIT))


def statuses(data: bytes) -> list[int]:
    """The status of each response, as far as they can be told apart; 0 for what is none."""
    found, position = [], 0
    while position < len(data):
        end = data.find(b"\r\n\r\n", position)
        line = re.match(rb"HTTP/1\.[01] (\d{3})", data[position:])
        if end < 0 or line is None:
            found.append(0)
            break
        status = int(line[1])
        found.append(status)
        head, position = data[position:end].lower(), end + 4
        length = re.search(rb"\r\ncontent-length: *(\d+)", head)
        if status < 200 or status in (204, 304):
            continue
        if b"transfer-encoding: chunked" in head:
            last = data.find(b"0\r\n\r\n", position)
            position = len(data) if last < 0 else last + 5
        else:
            position += int(length[1]) if length else len(data)
    return found


@contextlib.contextmanager
def embedded(config: Config) -> Iterator[dict[str, Address]]:
    """Runs kgw inside this process; yields the addresses of its listeners."""
    engine = Engine(workers=1)
    engine.start(json.dumps(config).encode())
    assert engine.wait_applied(1, WAIT)
    yield {name: bound[0] for name, bound in engine.addresses().items()}
    engine.join(0.0)


Start = Callable[[Config], contextlib.AbstractContextManager[dict[str, Address]]]


@contextlib.contextmanager
def lanes(
    listener: Callable[[str], dict[str, Any]] | None = None,
    *,
    denied: str | None = None,
    start: Start = embedded,
) -> Iterator[list[Lane]]:
    """Starts backends and a proxy.

    Args:
        listener: what a listener has beside its defaults, by its name, which is also that of its
            route table.
        denied: a path prefix that the proxy answers itself, with 403.
        start: starts the proxy.
    """
    backends = {str(number): Backend() for number in range(LANES)}
    config = forwarding({name: backend.address for name, backend in backends.items()})
    for it in config["listeners"]:
        it |= listener(it["id"]) if listener else {}
    if denied is not None:
        config["routes"]["denied"] = {
            "name": "denied",
            "action": {"type": "direct", "status": 403, "body": "denied"},
        }
        rule = {"path": {"prefix": denied}, "rank": {"name": "denied"}, "route": "denied"}
        for table in config["route_tables"].values():
            table["hosts"][0]["rules"].insert(0, rule)  # Envoy takes the first that matches
    with start(config) as addresses:
        yield [Lane(backend, addresses[name]) for name, backend in backends.items()]
    for backend in backends.values():
        backend.close()


@contextlib.contextmanager
def copying_lanes() -> Iterator[list[Lane]]:
    """Lanes without a proxy: what copies bytes both ways and knows nothing of HTTP."""
    backends = [Backend() for _ in range(LANES)]
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in backends]
    for listener, backend in zip(listeners, backends, strict=True):
        threading.Thread(target=_copy_all, args=(listener, backend), daemon=True).start()
    yield [
        Lane(backend, listener.getsockname())
        for listener, backend in zip(listeners, backends, strict=True)
    ]
    for listener, backend in zip(listeners, backends, strict=True):
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        backend.close()


def _copy_all(listener: socket.socket, backend: Backend) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        server = socket.create_connection(backend.listener.getsockname())
        for pair in ((client, server), (server, client)):
            threading.Thread(target=_copy, args=pair, daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for sock in (source, target):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
    source.close()


def judge_all(
    found: list[Lane],
    cases: list[Case],
    judge: Callable[[Lane, Case, Patience], Verdict],
    patiences: tuple[Patience, ...] = PATIENCE,
) -> dict[str, Verdict]:
    """The verdict of each case by its id."""
    queue, lock = iter(cases), threading.Lock()
    verdicts: dict[str, Verdict] = {}

    def work(lane: Lane) -> None:
        while True:
            with lock:
                case = next(queue, None)
            if case is None:
                return
            for patience in patiences:
                lane.backend.reset()
                verdicts[case["id"]] = judge(lane, case, patience)
                if verdicts[case["id"]][0] in SETTLED:
                    break

    with concurrent.futures.ThreadPoolExecutor(len(found)) as threads:
        for result in [threads.submit(work, lane) for lane in found]:
            result.result()
    return verdicts
