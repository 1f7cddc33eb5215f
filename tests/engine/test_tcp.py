"""Connections that are passed on as bytes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.harness import (
    PATTERN,
    WAIT,
    Gateway,
    Peer,
    Setup,
    Upstream,
    deaf_address,
    eventually,
    refused_address,
    serving,
    tcp_forward,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGE = PATTERN * 64
"""8 MiB: more than all buffers on the way."""

LOG = {
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "host": "%UPSTREAM_HOST%",
    "hosts": "%UPSTREAM_HOSTS_ATTEMPTED%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "route": "%ROUTE_NAME%",
    "flags": "%RESPONSE_FLAGS%",
    "termination": "%CONNECTION_TERMINATION_DETAILS%",
    "close_reason": "%DOWNSTREAM_LOCAL_CLOSE_REASON%",
    "remote": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "local": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "server_name": "%REQUESTED_SERVER_NAME%",
    "protocol": "%PROTOCOL%",
    "code": "%RESPONSE_CODE%",
    "down": "%DOWNSTREAM_DETECTED_CLOSE_TYPE%",
    "up": "%UPSTREAM_DETECTED_CLOSE_TYPE%",
    "up_reason": "%UPSTREAM_LOCAL_CLOSE_REASON%",
    "failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "type": "%ACCESS_LOG_TYPE%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
}


def tcp(*clusters: str | None, **more: Any) -> dict[str, Any]:
    return {"type": "tcp", "forward": tcp_forward(*(clusters or ("c",)), **more)}


@contextmanager
def tunnel(setup: Setup | None = None) -> Iterator[tuple[Gateway, Peer, Peer]]:
    """A connection through a gateway: the gateway, the client's end, the upstream's end."""
    with serving(setup or Setup(traffic=tcp()), None) as (gateway, upstream):
        client = gateway.connect()
        yield gateway, client, upstream.accept()


@pytest.fixture
def logged(tmp_path: Path) -> Setup:
    return Setup(traffic=tcp(), log=LOG, log_path=str(tmp_path / "access.log"))


def test_bytes_go_both_ways_as_they_are() -> None:
    with tunnel() as (_, client, server):
        server.send(b"server first\r\n\x00\xff")
        assert client.read_exactly(16) == b"server first\r\n\x00\xff"
        for part in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 3, b"x"):
            client.send(part)
            assert server.read_exactly(len(part)) == part
            server.send(part[::-1])
            assert client.read_exactly(len(part)) == part[::-1]


@pytest.mark.parametrize("first", ["client", "server"])
def test_the_end_of_one_side_is_passed_on_and_the_other_goes_on(first: str) -> None:
    with tunnel() as (gateway, client, server):
        ends = (client, server) if first == "client" else (server, client)
        ends[0].send(b"last words")
        ends[0].finish_sending()
        assert ends[1].read_to_end() == b"last words"
        for size in (1, 100_000):
            ends[1].send(PATTERN[:size])
            assert ends[0].read_exactly(size) == PATTERN[:size]
        gateway.reaches("tcp_cx_active", 1)
        ends[1].finish_sending()
        assert ends[0].read_to_end() == b""
        eventually(lambda: gateway.stat("downstream_cx_active") == 0, "the end of the connection")
        assert gateway.stat("tcp_cx_active") == 0


def test_large_transfers_end_whole_in_both_directions_at_once() -> None:
    def server(peer: Peer) -> None:
        received = peer.read_to_end()
        peer.send(received)

    with serving(Setup(traffic=tcp()), server) as (gateway, _):
        client = gateway.connect()
        client.send(LARGE)
        client.finish_sending()
        assert client.read_to_end() == LARGE
        eventually(lambda: gateway.stat("tcp_cx_active") == 0, "the end of the connection")
        assert gateway.stat("tcp_cx_rx_bytes") == gateway.stat("tcp_cx_tx_bytes") == len(LARGE)


@pytest.mark.parametrize("reader", ["client", "server"])
def test_a_slow_reader_slows_its_writer_down(reader: str) -> None:
    with serving(Setup(traffic=tcp()), None) as (gateway, upstream):
        client = gateway.connect(receive_buffer=4096)
        server = upstream.accept()
        writer, slow = (server, client) if reader == "client" else (client, server)
        most = 64 << 20
        taken = writer.fill(most, gateway)
        assert taken < most
        # The rest of it is in the kernel's buffers, whose sizes are not the gateway's.
        writer.finish_sending()
        count = 0
        while data := slow.sock.recv(1 << 20):
            expected = PATTERN[count % 256 :][: len(data)]
            assert data[: len(expected)] == expected
            count += len(data)
        assert count == taken


def test_a_tunnel_on_which_nothing_moves_is_closed(logged: Setup) -> None:
    logged.traffic = tcp(idle_timeout_ms=60_000)
    with tunnel(logged) as (gateway, client, server):
        for end, other in ((client, server), (server, client)):
            gateway.advance(59)
            end.send(b"!")
            assert other.read_exactly(1) == b"!"
        gateway.advance(59.9)
        assert not client.is_readable()
        gateway.advance(0.2)
        assert client.is_closed()
        assert server.is_closed()
        gateway.reaches("tcp_cx_idle_timeout", 1)
        (line,) = gateway.log_lines(1)
    assert line["close_reason"] == line["up_reason"] == "tcp_session_idle_timeout"
    assert (line["flags"], line["duration"]) == ("-", 178_100)


def test_a_tunnel_may_have_no_idle_time() -> None:
    with tunnel(Setup(traffic=tcp(idle_timeout_ms=0))) as (gateway, client, server):
        gateway.advance(1e6)
        client.send(b"!")
        assert server.read_exactly(1) == b"!"


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_reaches_the_other_side_as_one(logged: Setup, who: str) -> None:
    with tunnel(logged) as (gateway, client, server):
        ends = (client, server) if who == "client" else (server, client)
        ends[0].send(b"before")
        assert ends[1].read_exactly(6) == b"before"
        ends[0].reset()
        with pytest.raises(ConnectionResetError):
            ends[1].read_to_end()
        (line,) = gateway.log_lines(1)
    expected = ("RemoteReset", "Normal") if who == "client" else ("LocalReset", "RemoteReset")
    assert (line["down"], line["up"]) == expected
    assert line["flags"] == ("-" if who == "client" else "UR")


def test_a_reset_after_the_clients_end_is_noticed_when_the_server_writes() -> None:
    with tunnel() as (gateway, client, server):
        client.finish_sending()
        assert server.read_to_end() == b""
        client.reset()

        def is_reset() -> bool:
            try:
                server.send(b"x" * 1000)
            except (ConnectionResetError, BrokenPipeError):
                return True
            return False

        eventually(is_reset, "a reset")
        eventually(lambda: gateway.stat("tcp_cx_active") == 0, "the end of the connection")


def test_a_line_says_what_went_through(logged: Setup) -> None:
    with tunnel(logged) as (gateway, client, server):
        remote = "{}:{}".format(*client.sock.getsockname())
        local = "{}:{}".format(*client.sock.getpeername())
        host = "{}:{}".format(*server.sock.getsockname())
        client.send(b"abc")
        assert server.read_exactly(3) == b"abc"
        server.send(b"defgh")
        assert client.read_exactly(5) == b"defgh"
        gateway.advance(2.5)
        client.finish_sending()
        server.finish_sending()
        (line,) = gateway.log_lines(1)
    assert line == {
        "received": 3,
        "sent": 5,
        "duration": 2500,
        "host": host,
        "hosts": host,
        "cluster": "c",
        "route": "tcp-route",
        "flags": "-",
        "termination": None,
        "close_reason": None,
        "remote": remote,
        "local": local,
        "server_name": None,
        "protocol": None,
        "code": 0,
        "down": "Normal",
        "up": "Normal",
        "up_reason": None,
        "failure": None,
        "type": "TcpConnectionEnd",
        "attempts": 1,
    }


def closed(gateway: Gateway) -> dict[str, Any]:
    """The line of a connection that is closed without a byte."""
    client = gateway.connect()
    assert client.is_closed()
    (line,) = gateway.log_lines(1)
    return line


def test_a_connection_whose_endpoint_refuses_is_closed(logged: Setup) -> None:
    with refused_address() as address:
        logged.endpoints = [address]
        with serving(logged) as (gateway, _):
            line = closed(gateway)
            gateway.reaches("tcp_cx_connect_attempts_exceeded", 1)
            gateway.reaches("upstream_cx_connect_fail", 1)
    assert (line["flags"], line["host"], line["cluster"]) == ("UF,URX", address, "c")
    assert line["close_reason"] == "tcp_initializion_failure:0"
    assert line["failure"] == "delayed_connect_error:_Connection_refused"


def test_every_endpoint_is_tried_once(logged: Setup) -> None:
    with refused_address() as one, refused_address() as two:
        logged.endpoints = [one, two]
        with serving(logged) as (gateway, _):
            line = closed(gateway)
    assert sorted(line["hosts"].split(",")) == sorted([one, two])
    assert line["flags"] == "UF,URX"


def test_another_endpoint_takes_the_connection_of_one_that_refuses() -> None:
    with refused_address() as refused, serving(Setup(traffic=tcp()), None) as (gateway, upstream):
        gateway.apply(Setup(traffic=tcp(), endpoints=[refused, upstream.address]))
        for _ in range(4):
            client = gateway.connect()
            client.send(b"hello")
            assert upstream.accept().read_exactly(5) == b"hello"


def test_connecting_takes_no_longer_than_allowed(logged: Setup) -> None:
    with deaf_address() as address:
        logged.clusters = {"c": {"endpoints": [address], "connect_timeout_ms": 700}}
        with serving(logged) as (gateway, _):
            client = gateway.connect()
            client.send(b"early")
            gateway.advance(0.6)
            assert not client.is_readable()
            gateway.advance(0.2)
            assert client.is_closed()
            gateway.reaches("upstream_cx_connect_timeout", 1)
            (line,) = gateway.log_lines(1)
    assert (line["flags"], line["received"], line["sent"]) == ("UF,URX", 5, 0)


def test_a_client_that_goes_away_while_connecting_ends_it(logged: Setup) -> None:
    with deaf_address() as address:
        logged.clusters = {"c": {"endpoints": [address]}}
        with serving(logged) as (gateway, _):
            client = gateway.connect()
            gateway.settle()
            client.reset()
            (line,) = gateway.log_lines(1)
    assert (line["flags"], line["down"]) == ("-", "RemoteReset")


NOWHERE: dict[str, tuple[dict[str, Any], str, str]] = {
    "no backends": ({"backends": []}, "NR", "tcp_initializion_failure:3"),
    "no weight": (
        {"backends": [{"cluster": "c", "weight": 0}]},
        "NR",
        "tcp_initializion_failure:3",
    ),
    "no cluster": (
        {"backends": [{"cluster": None, "weight": 1}]},
        "NC",
        "tcp_initializion_failure:3",
    ),
    "unknown cluster": (
        {"backends": [{"cluster": "?", "weight": 1}]},
        "NC",
        "tcp_initializion_failure:3",
    ),
    "no endpoints": (
        {"backends": [{"cluster": "empty", "weight": 1}]},
        "UH",
        "tcp_initializion_failure:1",
    ),
}


@pytest.mark.parametrize("name", NOWHERE)
def test_a_connection_that_goes_nowhere_is_closed(logged: Setup, name: str) -> None:
    more, flags, reason = NOWHERE[name]
    logged.traffic = tcp(**more)
    logged.clusters = {"empty": {"endpoints": []}}
    with serving(logged) as (gateway, upstream):
        line = closed(gateway)
        problems = gateway.engine.problems()
        assert upstream.connections == 0
    assert (line["flags"], line["close_reason"], line["host"]) == (flags, reason, None)
    assert problems == (['l: no cluster "?"'] if name == "unknown cluster" else [])


def test_weights_share_connections_out() -> None:
    def named(name: bytes) -> Upstream:
        return Upstream(lambda peer: peer.send(name))

    one, two, none = named(b"1"), named(b"2"), named(b"0")
    backends = [
        {"cluster": "one", "weight": 1},
        {"cluster": "two", "weight": 3},
        {"cluster": "none", "weight": 0},
    ]
    clusters = {
        name: {"endpoints": [upstream.address]}
        for name, upstream in (("one", one), ("two", two), ("none", none))
    }
    with serving(Setup(traffic=tcp(backends=backends), clusters=clusters)) as (gateway, _):
        seen = [gateway.connect().read_to_end() for _ in range(400)]
    for upstream in (one, two, none):
        upstream.close()
    assert none.connections == 0
    # 100 of 400 are expected, give or take 8.7: five times that is one run in two million.
    assert 56 < seen.count(b"1") < 144
    assert seen.count(b"1") + seen.count(b"2") == 400


def test_a_drain_lets_a_tunnel_run_to_its_end() -> None:
    with tunnel() as (gateway, client, server):
        gateway.engine.drain()
        for _ in range(3):
            client.send(b"still")
            assert server.read_exactly(5) == b"still"
            gateway.engine.advance(30.0)
        client.finish_sending()
        assert server.read_to_end() == b""
        server.send(PATTERN[:100_000])
        server.close()
        assert client.read_to_end() == PATTERN[:100_000]
        client.close()
        assert gateway.engine.join(WAIT) is True


def test_a_tunnel_that_outlives_the_drain_is_cut() -> None:
    with tunnel() as (gateway, client, server):
        gateway.engine.drain()
        assert gateway.engine.join(0.05) is False
        assert client.is_closed()
        assert server.is_closed()


def test_a_reload_does_not_touch_a_tunnel() -> None:
    with tunnel() as (gateway, client, server):
        gateway.apply(Setup(traffic=tcp(None)))
        client.send(b"on and on")
        assert server.read_exactly(9) == b"on and on"
        assert gateway.connect().is_closed()
        ir = gateway.setup.ir()
        ir["listeners"] = [listener for listener in ir["listeners"] if listener["id"] == "probe"]
        gateway.apply_ir(ir)
        server.send(b"and on")
        assert client.read_exactly(6) == b"and on"
        server.finish_sending()
        assert client.read_to_end() == b""


def test_a_reload_makes_bytes_of_requests_and_back() -> None:
    with serving(Setup(traffic=tcp()), None) as (gateway, upstream):
        setup = gateway.setup
        setup.traffic = None
        gateway.apply(setup)
        client = gateway.connect()
        client.send(b"not http\r\n\r\n")
        assert client.read_response().status == 400
        setup.traffic = tcp()
        gateway.apply(setup)
        client = gateway.connect()
        client.send(b"not http\r\n\r\n")
        assert upstream.accept().read_exactly(12) == b"not http\r\n\r\n"


def test_idle_tunnels_need_little_memory() -> None:
    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * 4096

    with serving(Setup(traffic=tcp()), None) as (gateway, upstream):

        def used() -> None:
            client = gateway.connect()
            server = upstream.accept()
            for sender, receiver in ((client, server), (server, client)):
                sender.send(PATTERN[:60_000])
                assert receiver.read_exactly(60_000) == PATTERN[:60_000]

        for _ in range(50):
            used()
        before = resident()
        for _ in range(300):
            used()
        gateway.settle()
        # Test and gateway share the process: this is the harness's memory as well.
        # A buffer of 16 KiB kept in each direction would be more.
        assert resident() - before < 300 * 32_000
        gateway.reaches("tcp_cx_active", 350)


def test_a_server_that_answers_and_resets_is_heard() -> None:
    """A server that refuses to read on closes with bytes unread, which is a reset."""
    with tunnel() as (_, client, server):
        client.send(b"x" * 100_000)
        server.sock.recv(1)
        server.send(b"too large")
        server.close()
        assert client.read_exactly(9) == b"too large"
        with pytest.raises(ConnectionResetError):
            client.read_to_end()
