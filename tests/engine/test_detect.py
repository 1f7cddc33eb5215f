"""Ports of which nobody said what they carry: the first bytes tell."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.harness import (
    VIP,
    Gateway,
    Peer,
    Setup,
    Upstream,
    deaf_address,
    echo,
    eventually,
    get,
    ok,
    refused_address,
    rule,
    serving,
    tcp_forward,
)
from tests.engine.test_waypoint_listener import header

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def waypoint(**destination: Any) -> dict[str, Any]:
    """A waypoint with one service port."""
    defaults = {"address": VIP, "port": 80, "service": "default/ollama"}
    return {"type": "waypoint", "destinations": [defaults | destination]}


def either(**more: Any) -> Setup:
    """A service port that carries requests or bytes."""
    traffic = waypoint(route_table="t", tcp=tcp_forward("bytes"))
    return Setup(traffic=traffic, **more)


def backwards(peer: Peer) -> None:
    """Answers what comes until the client's end with the same backwards."""
    peer.send(peer.read_to_end()[::-1])


def both(peer: Peer) -> None:
    """A server of requests and of bytes: what is no request comes back backwards."""
    first = peer.sock.recv(1 << 16)
    peer.buffer += first
    if first.startswith((b"GET", b"PROPFIND")):
        echo(peer)
    else:
        backwards(peer)


REQUESTS = {
    "usual": get("/x"),
    "after an empty line": b"\r\n" + get("/x"),
    "unusual method": get("/x").replace(b"GET", b"PROPFIND"),
    "whole URI": get("http://ollama/x"),
}


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("pause", [False, True])
def test_a_request_is_routed(name: str, pause: bool) -> None:
    setup = either(hosts=[{"hostname": "*", "rules": [rule("/x", "default")]}])
    with serving(setup, both) as (gateway, _):
        client = gateway.connect()
        client.send(header())
        request = REQUESTS[name]
        for part in [request[at : at + 1] for at in range(12)] if pause else [request[:12]]:
            client.send(part)
            if pause:
                gateway.settle()
        client.send(request[12:])
        fields = dict(json.loads(client.read_response().body)["headers"])
        assert "x-request-id" in fields
        assert gateway.stat("tcp_cx_total") == 0
        client.send(get("/y"))
        assert client.read_response().status == 404


BYTES = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "Redis": b"*1\r\n$4\r\nPING\r\n",
    "Redis, inline": b"GET key\r\n",
    "memcached": b"get key\r\n",
    "NATS": b'CONNECT {"verbose":false}\r\n',
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "binary": bytes(range(256)),
    "HTTP/2, almost": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX",
}


@pytest.mark.parametrize("name", BYTES)
@pytest.mark.parametrize("pause", [False, True])
def test_anything_else_is_passed_on(name: str, pause: bool) -> None:
    setup = either()
    with serving(setup, backwards) as (gateway, upstream):
        setup.clusters = {"bytes": {"endpoints": [upstream.address]}}
        gateway.apply(setup)
        client = gateway.connect()
        if pause:
            client.send(header())
            for byte in BYTES[name][:40]:
                client.send(bytes([byte]))
                gateway.settle()
            client.send(BYTES[name][40:])
        else:
            client.send(header() + BYTES[name])
        # Known by now: no time-out was needed.
        eventually(lambda: gateway.stat("tcp_cx_active") == 1)
        client.finish_sending()
        assert client.read_to_end() == BYTES[name][::-1]
        assert gateway.stat("detect_timeout") == 0


@contextmanager
def undecided(
    sent: bytes, setup: Setup | None = None
) -> Iterator[tuple[Gateway, Peer, Peer, Upstream]]:
    """A client that said too little for too long, the server that it was connected to, and the one
    that requests go to.
    """
    setup = setup or either()
    with serving(setup, None) as (gateway, upstream):
        bytes_server = Upstream(None)
        setup.clusters = {"bytes": {"endpoints": [bytes_server.address]}}
        gateway.apply(setup)
        client = gateway.connect()
        client.send(header() + sent)
        gateway.advance(0.29)
        assert bytes_server.connections == 0
        gateway.advance(0.02)
        server = bytes_server.accept()
        gateway.reaches("detect_timeout", 1)
        yield gateway, client, server, upstream
        bytes_server.close()


TOO_LITTLE = [b"", b"G", b"PRI * HTTP/2.0\r\n", b"PROPFIND /", b"\r\n"]


@pytest.mark.parametrize("sent", TOO_LITTLE)
def test_a_server_that_speaks_first_is_heard(sent: bytes) -> None:
    with undecided(sent) as (gateway, client, server, _):
        gateway.advance(10.0)
        assert not server.is_readable()
        server.send(b"220 hello\r\n")
        assert client.read_exactly(11) == b"220 hello\r\n"
        # From now on it is bytes, whatever they look like.
        client.send(get())
        assert server.read_exactly(len(sent + get())) == sent + get()


@pytest.mark.parametrize("sent", [b"", b"GE", b"\r\n"])
def test_a_client_that_is_late_with_its_request_gets_its_answer(
    tmp_path: Path, sent: bytes
) -> None:
    setup = either(log={"route": "%ROUTE_NAME%"}, log_path=str(tmp_path / "access.log"))
    with undecided(sent, setup) as (gateway, client, server, upstream):
        client.send(get()[len(sent.strip()) :])
        peer = upstream.accept()
        assert peer.read_request()[0] == "GET / HTTP/1.1"
        peer.send(ok())
        assert client.read_response().status == 200
        assert server.read_to_end() == b""
        assert gateway.log_lines(1) == [{"route": "default"}]
        stats = gateway.stats()
        assert (stats["tcp_cx_total"], stats["tcp_cx_active"]) == (0, 0)


@pytest.mark.parametrize("sent", TOO_LITTLE)
def test_a_client_that_is_late_with_other_bytes_is_passed_on(sent: bytes) -> None:
    with undecided(sent) as (_, client, server, _):
        client.send(b"\x00\x01")
        assert server.read_exactly(len(sent) + 2) == sent + b"\x00\x01"
        server.finish_sending()
        assert client.read_to_end() == b""


def test_either_side_may_end_a_connection_on_which_nobody_spoke(tmp_path: Path) -> None:
    log = {"flags": "%RESPONSE_FLAGS%", "reason": "%DOWNSTREAM_LOCAL_CLOSE_REASON%"}
    for act, flags, reason in (
        ("client.finish_sending", "-", None),
        ("server.close", "-", None),
        ("client.reset", "-", None),
        ("server.reset", "UR", None),
        ("wait", "-", "tcp_session_idle_timeout"),
    ):
        path = tmp_path / act
        setup = either(log=log, log_path=str(path))
        with undecided(b"", setup) as (gateway, client, server, _):
            if act == "wait":
                gateway.advance(3600.0)
            else:
                side, verb = act.split(".")
                getattr({"client": client, "server": server}[side], verb)()
            if act == "client.finish_sending":
                assert server.read_to_end() == b""
                server.close()
            elif act == "server.close":
                assert client.read_to_end() == b""
                client.close()
            elif act != "client.reset":
                assert client.is_closed()
            (line,) = gateway.log_lines(1)
        assert line == {"flags": flags, "reason": reason}, act


def test_a_late_request_is_answered_though_no_server_of_bytes_is_there() -> None:
    setup = either()
    with deaf_address() as address, serving(setup) as (gateway, _):
        setup.clusters = {"bytes": {"endpoints": [address], "connect_timeout_ms": 1_000}}
        gateway.apply(setup)
        client = gateway.connect()
        client.send(header())
        gateway.advance(0.4)
        client.send(get())
        gateway.advance(1.0)
        assert client.read_response().status == 200


def test_a_silent_client_is_closed_if_no_server_of_bytes_is_there() -> None:
    setup = either()
    with refused_address() as address, serving(setup) as (gateway, _):
        setup.clusters = {"bytes": {"endpoints": [address]}}
        gateway.apply(setup)
        client = gateway.connect()
        client.send(header())
        gateway.advance(0.4)
        assert client.is_closed()
        gateway.reaches("tcp_cx_connect_attempts_exceeded", 1)


@pytest.mark.parametrize("sent", [b"", b"GE"])
def test_a_client_that_ends_before_it_has_said_enough_is_passed_on(sent: bytes) -> None:
    setup = either()
    with serving(setup, backwards) as (gateway, upstream):
        setup.clusters = {"bytes": {"endpoints": [upstream.address]}}
        gateway.apply(setup)
        client = gateway.connect()
        client.send(header() + sent)
        client.finish_sending()
        assert client.read_to_end() == sent[::-1]


def test_a_client_that_resets_meanwhile_is_forgotten() -> None:
    with serving(either(), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(header() + b"GE")
        gateway.settle()
        client.reset()
        eventually(lambda: gateway.stat("downstream_cx_active") == 1, "only the probe's connection")
        assert upstream.connections == 0


def test_a_service_of_bytes_waits_for_no_byte(tmp_path: Path) -> None:
    setup = Setup(
        traffic=waypoint(tcp=tcp_forward("c")),
        log={
            "chain": "%FILTER_CHAIN_NAME%",
            "remote": "%DOWNSTREAM_REMOTE_ADDRESS%",
            "local": "%DOWNSTREAM_LOCAL_ADDRESS%",
            "principal": "%FILTER_STATE(io.istio.peer_principal:PLAIN)%",
        },
        log_path=str(tmp_path / "access.log"),
    )
    identity = b"spiffe://cluster.local/ns/default/sa/curl"
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(header(tlvs=b"\xd0\x00" + bytes([len(identity)]) + identity))
        server = upstream.accept()
        client.send(get())
        assert server.read_exactly(len(get())) == get()
        client.finish_sending()
        server.finish_sending()
        (line,) = gateway.log_lines(1)
    assert line == {
        "chain": "default/ollama",
        "remote": "10.244.0.24:46238",
        "local": f"{VIP}:80",
        "principal": identity.decode(),
    }


def test_a_service_of_requests_takes_nothing_else() -> None:
    with serving(Setup(traffic=waypoint(route_table="t"))) as (gateway, _):
        client = gateway.connect()
        client.send(header() + b"GET key\r\n\r\n")
        assert client.read_response().status == 400


def test_a_destination_without_either_is_reported_and_is_none() -> None:
    with serving(Setup(traffic=waypoint())) as (gateway, _):
        assert gateway.engine.problems() == [f"l: {VIP}:80: neither routes nor backends"]
        client = gateway.connect()
        client.send(header() + get())
        assert client.is_closed()
        gateway.reaches("proxy_header_no_destination", 1)


def test_a_connection_without_addresses_is_not_passed_on_as_bytes() -> None:
    """Its PROXY header names no service; only the host of a request could."""
    unspecified = b"\r\n\r\n\x00\r\nQUIT\n\x21\x01\x00\x00"
    with serving(Setup(traffic=waypoint(tcp=tcp_forward("c"))), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(unspecified + get(host="ollama.default"))
        assert client.is_closed()
        assert upstream.connections == 0


def test_a_port_that_becomes_one_of_bytes_ends_its_requests_connections() -> None:
    setup = Setup(traffic=waypoint(route_table="t"))
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(header() + get())
        server = upstream.accept()
        server.read_request()
        setup.traffic = waypoint(tcp=tcp_forward("c"))
        gateway.apply(setup)
        server.send(ok())
        assert client.read_response().status == 200
        gateway.advance(1.0)
        assert client.is_closed()
