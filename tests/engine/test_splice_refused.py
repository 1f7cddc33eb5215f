"""Where bytes cannot be spliced, or not as usual. Each changes the process, and has its own."""

from __future__ import annotations

import ctypes
import errno
import platform
import resource
import signal
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.engine.harness import PATTERN, Gateway, Peer, always, eventually, get, ok, serving

if TYPE_CHECKING:
    from collections.abc import Callable

LARGE = PATTERN * 30

SPLICE = {"x86_64": 275, "aarch64": 76}
"""The number of the system call, by architecture."""


def _passes_on(gateway: Gateway) -> None:
    client = gateway.connect()
    for _ in range(2):
        client.send(get())
        assert client.read_response().body == LARGE


def kernel_refuses(number: int) -> None:
    """A sandbox answers ``splice`` with an error."""
    load, compare, give = 0x20, 0x15, 0x06
    program = b"".join(
        struct.pack("=HBBI", *step)
        for step in [
            (load, 0, 0, 0),
            (compare, 0, 1, SPLICE[platform.machine()]),
            (give, 0, 0, 0x50000 | number),
            (give, 0, 0, 0x7FFF0000),
        ]
    )
    steps = ctypes.create_string_buffer(program)
    filters = struct.pack("@HP", len(program) // 8, ctypes.addressof(steps))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, seccomp, with_filter = 38, 22, 2
    assert libc.prctl(no_new_privileges, 1, 0, 0, 0) == 0
    assert libc.prctl(seccomp, with_filter, filters) == 0, ctypes.get_errno()
    with serving(script=always(ok(LARGE))) as (gateway, _):
        _passes_on(gateway)
        assert gateway.stat("splice_bytes") == 0
        assert gateway.stat("splice_refused") > 0


def few_descriptors() -> None:
    """There may be two pipes; four answers stand still."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    length = 40_000_000
    body = (PATTERN * (length // len(PATTERN) + 1))[:length]
    with serving(script=None) as (gateway, upstream):
        stalled: list[tuple[Peer, Peer, int]] = []
        for _ in range(4):
            client = gateway.connect(receive_buffer=65_536)
            client.send(get())
            peer = upstream.accept()
            peer.read_request()
            peer.send(f"HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n".encode())
            stalled.append((client, peer, peer.fill(length, gateway)))
        assert gateway.stat("splice_bytes") > 0
        assert gateway.stat("splice_refused") > 0
        for client, peer, sent in stalled:
            while sent < length:
                peer.sock.setblocking(False)
                try:
                    sent += peer.sock.send(body[sent : sent + 1_000_000])
                except BlockingIOError:
                    client.buffer += client.sock.recv(1_000_000)
            assert client.read_response().body == body


def deadly_sigpipe() -> None:
    """The host has not ignored SIGPIPE, and clients leave."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    with serving(script=None) as (gateway, upstream):
        for _ in range(3):
            client = gateway.connect(receive_buffer=65_536)
            client.send(get())
            peer = upstream.accept()
            peer.read_request()
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
            peer.fill(1_000_000_000, gateway)
            assert gateway.stat("splice_bytes") > 0
            # To a peer that had finished before it resets, writing is not refused but broken.
            client.finish_sending()
            gateway.settle()
            client.reset()
            eventually(lambda: gateway.stat("downstream_rq_active") == 0, "its end")


CASES: dict[str, Callable[[], None]] = {
    "enosys": lambda: kernel_refuses(errno.ENOSYS),
    "einval": lambda: kernel_refuses(errno.EINVAL),
    "eperm": lambda: kernel_refuses(errno.EPERM),
    "few-descriptors": few_descriptors,
    "sigpipe": deadly_sigpipe,
}


@pytest.mark.parametrize("case", CASES)
def test_large_bodies_are_passed_on_all_the_same(case: str) -> None:
    if case.startswith("e") and platform.machine() not in SPLICE:
        # The filter of system calls is written for machines whose numbers are in SPLICE.
        pytest.skip("the number of the system call is not known here")
    command = [sys.executable, "-m", "tests.engine.test_splice_refused", case]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    CASES[sys.argv[1]]()
