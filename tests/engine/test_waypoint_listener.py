"""Waypoint connections: the PROXY header selects the service and states client and identity."""

from __future__ import annotations

import ipaddress
import json
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from tests.engine.harness import VIP, Peer, Setup, get, serving

if TYPE_CHECKING:
    from pathlib import Path

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
IDENTITY = "spiffe://cluster.local/ns/default/sa/curl"


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def header(
    destination: str = VIP,
    port: int = 80,
    *,
    source: str = "10.244.0.24",
    tlvs: bytes = b"",
    command: int = 0x21,
    family: int | None = None,
) -> bytes:
    """What ztunnel writes at the start of a connection."""
    ends = [ipaddress.ip_address(end).packed for end in (source, destination)]
    body = b"".join(ends) + struct.pack("!HH", 46238, port) + tlvs
    family = family if family is not None else (0x11 if len(ends[0]) == 4 else 0x21)
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


LOG = {
    "principal": "%FILTER_STATE(io.istio.peer_principal:PLAIN)%",
    "remote": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "local": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "direct": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    "code": "%RESPONSE_CODE%",
}

COUNTERS = [
    "proxy_header_accepted",
    "proxy_header_malformed",
    "proxy_header_timeout",
    "proxy_header_absent",
    "proxy_header_local",
    "proxy_header_no_destination",
]


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(waypoint=True, log=LOG, log_path=str(tmp_path / "access.log"))


def closed_without_a_word(client: Peer) -> bool:
    return not client.buffer and client.is_closed()


def test_the_header_and_the_request_may_come_together(setup: Setup) -> None:
    with serving(setup) as (gateway, _):
        response = gateway.ask(header() + get("/together"))
        assert json.loads(response.body)["line"] == "GET /together HTTP/1.1"
        gateway.reaches("proxy_header_accepted", 1)


def test_the_header_may_come_alone_and_byte_by_byte(setup: Setup) -> None:
    with serving(setup) as (gateway, _):
        client = gateway.connect()
        for byte in header(tlvs=tlv(0xD0, IDENTITY.encode())):
            client.send(bytes([byte]))
            gateway.settle()
        gateway.reaches("proxy_header_accepted", 1)
        for path in ("/1", "/2"):
            client.send(get(path))
            assert json.loads(client.read_response().body)["line"] == f"GET {path} HTTP/1.1"


def test_the_header_states_client_destination_and_identity(setup: Setup) -> None:
    with serving(setup) as (gateway, _):
        tlvs = tlv(0xD0, IDENTITY.encode())
        response = gateway.ask(header(tlvs=tlvs) + get("/", "x-forwarded-for: 1.2.3.4"))
        fields = dict(json.loads(response.body)["headers"])
        assert fields["x-forwarded-for"] == "1.2.3.4,10.244.0.24"
        assert fields["x-envoy-external-address"] == "10.244.0.24"
        assert fields["x-forwarded-proto"] == "http"
        [line] = gateway.log_lines(1)
        assert line == {
            "principal": IDENTITY,
            "remote": "10.244.0.24:46238",
            "local": f"{VIP}:80",
            "direct": "127.0.0.1",
            "code": 200,
        }


def test_no_identity_is_no_identity(setup: Setup) -> None:
    with serving(setup) as (gateway, _):
        assert gateway.ask(header() + get()).status == 200
        assert gateway.log_lines(1)[0]["principal"] is None


def test_a_client_cannot_state_an_identity_of_its_own(setup: Setup) -> None:
    with serving(setup) as (gateway, _):
        request = get("/", f"x-forwarded-client-cert: URI={IDENTITY}")
        fields = dict(json.loads(gateway.ask(header() + request).body)["headers"])
        assert "x-forwarded-client-cert" not in fields
        assert gateway.log_lines(1)[0]["principal"] is None


def test_other_tlvs_are_skipped(setup: Setup) -> None:
    tlvs = tlv(0x04, bytes(9)) + tlv(0xEE, b"x" * 900) + tlv(0xD0, IDENTITY.encode())
    with serving(setup) as (gateway, _):
        assert gateway.ask(header(tlvs=tlvs) + get()).status == 200
        assert gateway.log_lines(1)[0]["principal"] == IDENTITY


def test_each_destination_has_its_routes() -> None:
    setup = Setup(waypoint=True)
    base = setup.ir

    def with_two() -> dict[str, object]:
        ir = base()
        destinations = ir["listeners"][0]["traffic"]["destinations"]
        for address, port, table in ((VIP, 81, "probe"), ("fd00::1", 80, "probe")):
            destinations.append(
                {"address": address, "port": port, "service": "d/o", "route_table": table}
            )
        return ir

    setup.ir = with_two  # type: ignore[method-assign]
    with serving(setup) as (gateway, _):
        assert gateway.ask(header() + get()).status == 200
        assert gateway.ask(header(port=81) + get()).status == 204
        assert gateway.ask(header("fd00::1", source="fd00::2") + get()).status == 204


REFUSED = {
    "unknown address": (header("10.96.0.99"), "proxy_header_no_destination"),
    "unknown port": (header(port=81), "proxy_header_no_destination"),
    "local": (header(command=0x20), "proxy_header_local"),
    "local without addresses": (SIGNATURE + b"\x20\x00\x00\x00", "proxy_header_local"),
    "no addresses and an unknown host": (
        SIGNATURE
        + b"\x21\x01"
        + struct.pack("!H", 44)
        + tlv(0xD0, IDENTITY.encode())
        + get(host="nobody"),
        "proxy_header_no_destination",
    ),
    "version 1": (
        f"PROXY TCP4 10.244.0.24 {VIP} 1 80\r\n".encode(),
        "proxy_header_malformed",
    ),
    "no header": (get(), "proxy_header_malformed"),
    "wrong version": (header(command=0x31), "proxy_header_malformed"),
    "wrong command": (header(command=0x2F), "proxy_header_malformed"),
    "truncated TLV": (header(tlvs=b"\xd0\x00\x29spiffe"), "proxy_header_malformed"),
    "two identities": (
        header(tlvs=tlv(0xD0, IDENTITY.encode()) * 2),
        "proxy_header_malformed",
    ),
    "identity that is none": (header(tlvs=tlv(0xD0, b"curl")), "proxy_header_malformed"),
    "too long": (header(tlvs=tlv(0xEE, bytes(5000))), "proxy_header_malformed"),
    "too long, announced": (
        SIGNATURE + b"\x21\x11" + struct.pack("!H", 65_000),
        "proxy_header_malformed",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_connection_that_cannot_be_placed_is_closed(setup: Setup, name: str) -> None:
    first, counter = REFUSED[name]
    with serving(setup) as (gateway, upstream):
        client = gateway.connect()
        client.send(first + get())
        assert closed_without_a_word(client)
        accepted = counter == "proxy_header_no_destination"
        stats = gateway.stats()
        assert [(each, stats[each]) for each in COUNTERS if stats[each]] == [
            *([("proxy_header_accepted", 1)] if accepted else []),
            (counter, 1),
        ]
        assert upstream.connections == 0


@pytest.mark.parametrize("part", [0, 1, 12, 16, 27])
def test_a_connection_whose_header_does_not_come_is_closed(setup: Setup, part: int) -> None:
    with serving(setup) as (gateway, _):
        client = gateway.connect()
        client.send(header()[:part])
        gateway.advance(14.9)
        assert not client.is_readable()
        gateway.advance(0.2)
        assert closed_without_a_word(client)
        gateway.reaches("proxy_header_timeout", 1)


def test_the_time_for_the_header_does_not_start_anew_with_each_byte(setup: Setup) -> None:
    with serving(setup) as (gateway, _):
        client = gateway.connect()
        for byte in header()[:3]:
            client.send(bytes([byte]))
            gateway.advance(4.9)
        assert not client.is_readable()
        gateway.advance(0.4)
        assert closed_without_a_word(client)


@pytest.mark.parametrize("part", [0, 20])
def test_a_connection_closed_before_its_header_is_closed(setup: Setup, part: int) -> None:
    with serving(setup) as (gateway, _):
        client = gateway.connect()
        client.send(header()[:part])
        client.finish_sending()
        assert closed_without_a_word(client)
        gateway.reaches("proxy_header_absent", 1)


def test_a_connection_may_wait_with_its_first_request(setup: Setup) -> None:
    with serving(setup) as (gateway, _):
        client = gateway.connect()
        client.send(header())
        gateway.advance(600)
        client.send(get())
        assert client.read_response().status == 200


def test_the_clients_fin_after_the_header_closes_the_connection(setup: Setup) -> None:
    with serving(setup) as (gateway, _):
        client = gateway.connect()
        client.send(header())
        gateway.settle()
        assert not client.is_readable()
        client.sock.shutdown(socket.SHUT_WR)
        assert closed_without_a_word(client)


def test_a_service_that_goes_away_ends_its_connections_after_an_answer(setup: Setup) -> None:
    with serving(setup) as (gateway, upstream):
        client = gateway.connect()
        client.send(header() + get())
        assert client.read_response().status == 200
        ir = setup.ir()
        ir["listeners"][0]["traffic"]["destinations"] = []
        generation = gateway.engine.apply(json.dumps(ir).encode())
        assert gateway.engine.wait_applied(generation, 5)
        client.send(get())
        response = client.read_response()
        assert (response.status, response["connection"]) == (200, "close")
        assert client.is_closed()
        assert upstream.connections == 1
