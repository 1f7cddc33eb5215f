"""Single requests: whether a proxy answers already, and with which configuration."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

from benches.load.spec import HOST, SERVICE_VIP

if TYPE_CHECKING:
    from collections.abc import Callable

PAUSE = 0.001
"""Seconds between two attempts."""
WAIT = 10.0
"""Seconds that one answer may take."""

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_EMPTY_SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
_SETTINGS = 4


def proxy_header(destination: str = SERVICE_VIP) -> bytes:
    """Returns a PROXY v2 header: TCP over IPv4, from a pod to a service's port 80."""
    addresses = socket.inet_aton("10.244.1.7") + socket.inet_aton(destination)
    ports = (41234).to_bytes(2) + (80).to_bytes(2)
    body = addresses + ports
    return _SIGNATURE + b"\x21\x11" + len(body).to_bytes(2) + body


def request(target: str = f"{HOST} /") -> bytes:
    """Returns a GET request, the last on its connection.

    Args:
        target: what for, in the load generator's form.
    """
    host, path, *header = target.split(" ", 2)
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", *header, "Connection: close", "", ""]
    return "\r\n".join(lines).encode()


def answer(port: int, data: bytes) -> bytes:
    """Sends data to a port of 127.0.0.1 and returns the first that comes back.

    Raises:
        OSError: nothing comes.
    """
    with socket.create_connection(("127.0.0.1", port), WAIT) as sock:
        sock.settimeout(WAIT)
        sock.sendall(data)
        return sock.recv(4096)


def speaks_h2(port: int) -> bool:
    """Returns whether an HTTP/2 server answers.

    Raises:
        OSError: nothing answers.
    """
    return answer(port, _PREFACE + _EMPTY_SETTINGS)[3:4] == bytes([_SETTINGS])


def until(is_so: Callable[[], bool], patience: float, began: float | None = None) -> float | None:
    """Asks again and again; returns the seconds since ``began`` (now), or None if it never was so.

    What cannot connect yet is asked again, too.
    """
    began = time.perf_counter() if began is None else began
    while time.perf_counter() - began < patience:
        with contextlib.suppress(OSError):
            if is_so():
                return time.perf_counter() - began
        time.sleep(PAUSE)  # nothing tells when another program is ready
    return None
