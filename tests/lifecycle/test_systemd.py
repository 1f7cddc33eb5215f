"""systemd's side of a service: listening sockets at the start, and being told of the states."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

import pytest
from tests.engine.harness import Peer, get
from tests.lifecycle.conftest import Process, Site

from kgw.cli.systemd import notify, passed_sockets
from kgw.listening import ListeningSocket, checked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ACTIVATE = """
import fcntl, os, sys
passed, *command = sys.argv[1:]
# First out of the way of each other.
passed = [fcntl.fcntl(int(one), fcntl.F_DUPFD, 50) for one in passed.split(",")]
for at, one in enumerate(passed):
    os.dup2(one, 3 + at)
    os.close(one)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "kgw", *command])
"""
"""What systemd does between fork and exec."""


def activated(
    site: Site, sockets: list[socket.socket], *arguments: str, env: dict[str, str]
) -> Process:
    """A `kgw run` that was started with listening sockets."""
    numbers = [sock.fileno() for sock in sockets]
    return Process(
        *(sys.executable, "-c", ACTIVATE, ",".join(map(str, numbers)), *arguments),
        pass_fds=numbers,
        env={"LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": "kgw.socket:extra", **env},
    )


@pytest.fixture
def notices(tmp_path: Path) -> Iterator[socket.socket]:
    """The supervisor's ear; its path is its name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.settimeout(30)
        yield ear


def test_sockets_of_the_supervisor_are_used_and_others_reported(
    site: Site, notices: socket.socket
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as own,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        port = own.getsockname()[1]
        # Connected before anything serves.
        early = Peer(socket.create_connection(("127.0.0.1", port), 5))
        early.send(get())
        start = activated(
            site,
            [own, other],
            *site.arguments(bind=f"127.0.0.1:{port}", workers=3),
            env={"NOTIFY_SOCKET": notices.getsockname()},
        )
        with start as run:
            unused = f"127.0.0.1:{other.getsockname()[1]}"
            run.stderr.after(f"no listener is at the address of a passed socket address={unused}")
            run.stderr.after("serving")
            assert early.read_response().status == 200
            early.close()
            # One socket, three workers: whoever connects is served.
            for _ in range(20):
                peer = Peer(socket.create_connection(("127.0.0.1", port), 5))
                peer.send(get())
                assert peer.read_response().status == 200
                peer.close()
            assert notices.recv(1000) == f"READY=1\nMAINPID={run.process.pid}".encode()
            assert run.end() == 0
            assert notices.recv(1000) == b"STOPPING=1"


def test_what_is_passed_to_another_process_is_not_taken() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}
    assert passed_sockets(environ) == []
    # No child takes them either.
    assert environ == {}
    assert passed_sockets({}) == []


def test_a_count_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="LISTEN_FDS='many' is not a number"):
        passed_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "many"})


def test_only_listening_sockets_of_tcp_and_bound_ones_of_udp_are_taken() -> None:
    with socket.socket() as idle, pytest.raises(ValueError, match="does not listen"):
        checked(idle)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        with pytest.raises(ValueError, match="does not listen"):
            checked(datagrams)
        datagrams.bind(("127.0.0.1", 0))
        assert checked(datagrams).socket is datagrams
    with (
        socket.socket(socket.AF_UNIX) as local,
        pytest.raises(ValueError, match="not a TCP or UDP socket"),
    ):
        checked(local)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert checked(server) == ListeningSocket(None, server)
        assert checked(server).address.port == server.getsockname()[1]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_a_socket_of_both_families_is_refused() -> None:
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as both,
        pytest.raises(ValueError, match="BindIPv6Only=ipv6-only"),
    ):
        checked(both)


def test_a_supervisor_that_does_not_listen_is_no_reason_not_to_serve(tmp_path: Path) -> None:
    notify("READY=1", {})
    notify("READY=1", {"NOTIFY_SOCKET": "vsock:1:2"})
    notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(f"\0kgw-test-{os.getpid()}")
        ear.settimeout(5)
        notify("READY=1", {"NOTIFY_SOCKET": f"@kgw-test-{os.getpid()}"})
        assert ear.recv(100) == b"READY=1"
