"""PROXY headers towards upstreams."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest
from tests.engine.harness import Gateway, Setup, forward, get, ok, serving, tcp_forward
from tests.engine.test_waypoint_listener import IDENTITY, SIGNATURE, header, tlv

from kgw.proxyproto import parse_proxy_header

VECTORS = json.loads(
    (Path(__file__).parent.parent / "data" / "proxy_protocol.json").read_text(encoding="utf-8")
)

CLIENT = "203.0.113.7"
HEADER = header("198.51.100.1", 443, source=CLIENT)


def tcp(version: int, *, listen: bool = True, **options: Any) -> Setup:
    """Bytes passed on behind a header of this version."""
    setup = Setup(traffic={"type": "tcp", "forward": tcp_forward("p")})
    if listen:
        setup.listener = {"proxy_protocol": {"accept_v1": True}}
    setup.clusters = {"p": {"endpoints": [], "proxy_protocol": {"version": version} | options}}
    return setup


def upstream_of(gateway: Gateway, address: str) -> None:
    """Gives the cluster its endpoint."""
    gateway.setup.clusters["p"]["endpoints"] = [address]
    gateway.apply(gateway.setup)


def received(setup: Setup, sent: bytes, length: int) -> bytes:
    """What the upstream's connection starts with when a client starts its own with ``sent``."""
    with serving(setup, None) as (gateway, upstream):
        upstream_of(gateway, upstream.address)
        client = gateway.connect()
        client.send(sent + b"payload")
        first = upstream.accept().read_exactly(length + 7)
        assert first.endswith(b"payload")
        return first[:-7]


def test_version_1_states_the_client() -> None:
    expected = b"PROXY TCP4 203.0.113.7 198.51.100.1 46238 443\r\n"
    assert received(tcp(1), HEADER, len(expected)) == expected


def test_version_2_states_the_client() -> None:
    assert received(tcp(2), HEADER, 28) == HEADER


def test_without_a_header_of_its_own_the_clients_addresses_are_the_sockets() -> None:
    setup = tcp(2, listen=False)
    with serving(setup, None) as (gateway, upstream):
        upstream_of(gateway, upstream.address)
        client = gateway.connect()
        parsed = parse_proxy_header(upstream.accept().read_exactly(28))
        assert parsed.source == client.sock.getsockname()
        assert parsed.destination == client.sock.getpeername()


def test_the_header_needs_no_byte_of_the_client() -> None:
    setup = tcp(1, listen=False)
    with serving(setup, None) as (gateway, upstream):
        upstream_of(gateway, upstream.address)
        gateway.connect()
        assert upstream.accept().read_until(b"\r\n").startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")


def test_local_is_passed_on_as_the_sockets_own_addresses() -> None:
    parsed = parse_proxy_header(received(tcp(2), SIGNATURE + b"\x20\x00\x00\x00", 28))
    assert parsed.command == "proxy"
    assert parsed.source is not None
    assert str(parsed.source[0]) == "127.0.0.1"


def test_only_named_tlvs_are_passed_on() -> None:
    tlvs = tlv(0xEA, b"vpce-1") + tlv(0xEE, b"secret") + tlv(0xD0, IDENTITY.encode())
    sent = header("198.51.100.1", 443, source=CLIENT, tlvs=tlvs)
    # An identity that nobody vouches for is not passed on, whatever is configured.
    setup = tcp(2, pass_tlvs=[0xEA, 0xD0], tlvs=[[0xE1, list(b"added")]])
    expected = tlv(0xEA, b"vpce-1") + tlv(0xE1, b"added")
    first = received(setup, sent, 28 + len(expected))
    assert first == header("198.51.100.1", 443, source=CLIENT, tlvs=expected)


RECORDED = [
    vector
    for vector in VECTORS
    if vector["sent_by_ztunnel"] and bytes.fromhex(vector["hex"])[13] in (0x11, 0x21)
]


@pytest.mark.parametrize("vector", RECORDED, ids=lambda vector: vector["name"])
def test_what_ztunnel_sends_comes_out_as_it_went_in(vector: dict[str, Any]) -> None:
    """On a waypoint the identity is vouched for, and may be passed on."""
    sent = bytes.fromhex(vector["hex"])
    parsed = parse_proxy_header(sent)
    assert parsed.destination is not None
    address, port = parsed.destination[:2]
    destination = {
        "address": str(ipaddress.ip_address(address)),
        "port": port,
        "service": "default/ollama",
        "tcp": tcp_forward("p"),
    }
    setup = tcp(2, pass_tlvs=[0xD0])
    setup.listener = {}
    setup.traffic = {"type": "waypoint", "destinations": [destination]}
    assert received(setup, sent, len(sent)) == sent


def test_a_header_that_would_be_too_long_is_a_failed_connection() -> None:
    setup = tcp(2, pass_tlvs=[0xEA], tlvs=[[0xE1, [0] * 60_000]])
    setup.listener = {"proxy_protocol": {"max_header_bytes": 20_000}}
    with serving(setup, None) as (gateway, upstream):
        upstream_of(gateway, upstream.address)
        client = gateway.connect()
        client.send(header(tlvs=tlv(0xEA, bytes(10_000))))
        assert client.is_closed()
        gateway.reaches("tcp_cx_connect_attempts_exceeded", 1)
        assert upstream.accept().read_to_end() == b""


@pytest.mark.parametrize(
    "options",
    [
        {"version": 3},
        {"version": 1, "tlvs": [[0xE1, [1]]]},
        {"version": 2, "tlvs": [[0x03, [0, 0, 0, 0]]]},
    ],
)
def test_options_that_cannot_be_written_are_reported(options: dict[str, Any]) -> None:
    setup = tcp(2, listen=False)
    with serving(setup, None) as (gateway, upstream):
        setup.clusters = {"p": {"endpoints": [upstream.address], "proxy_protocol": options}}
        gateway.apply(setup)
        (problem,) = gateway.engine.problems()
        assert problem.startswith("cluster p: ")
        # Nothing is sent to an endpoint that would take it for a header.
        assert gateway.connect().is_closed()
        assert upstream.connections == 0


def http(**options: Any) -> Setup:
    """Requests passed on behind a header of this version."""
    setup = tcp(2, **options)
    setup.traffic = None
    setup.routes = {"r": {"name": "r", "action": forward("p")}}
    return setup


def test_a_request_comes_behind_its_clients_header() -> None:
    with serving(http(), None) as (gateway, upstream):
        upstream_of(gateway, upstream.address)
        client = gateway.connect()
        client.send(HEADER + get("/x"))
        server = upstream.accept()
        assert server.read_exactly(28) == HEADER
        assert server.read_request()[0] == "GET /x HTTP/1.1"
        server.send(ok())
        assert client.read_response().status == 200


def test_no_client_uses_a_connection_that_states_another() -> None:
    with serving(http(), None) as (gateway, upstream):
        upstream_of(gateway, upstream.address)
        for source in ("203.0.113.7", "203.0.113.8", "203.0.113.7"):
            first = header("198.51.100.1", 443, source=source)
            client = gateway.connect()
            client.send(first + get())
            server = upstream.accept()
            assert server.read_exactly(28) == first
            server.read_request()
            server.send(ok())
            assert client.read_response().status == 200
            client.close()


def test_a_request_whose_header_would_be_too_long_is_answered_503() -> None:
    setup = http(pass_tlvs=[0xEA], tlvs=[[0xE1, [0] * 60_000]])
    setup.listener = {"proxy_protocol": {"max_header_bytes": 20_000}}
    with serving(setup, None) as (gateway, upstream):
        upstream_of(gateway, upstream.address)
        assert gateway.ask(header(tlvs=tlv(0xEA, bytes(10_000))) + get()).status == 503
