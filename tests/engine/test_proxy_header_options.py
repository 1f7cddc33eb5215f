"""PROXY headers on listeners that are no waypoints, and the options of both."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.harness import VIP, Gateway, Peer, Setup, echo, get, serving, tcp_forward
from tests.engine.test_waypoint_listener import IDENTITY, SIGNATURE, header, tlv

if TYPE_CHECKING:
    from pathlib import Path

V1 = b"PROXY TCP4 203.0.113.7 198.51.100.1 4567 443\r\n"
V2 = header("198.51.100.1", 443, source="203.0.113.7")
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"

LOG = {
    "remote": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "local": "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%",
    "direct": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    "principal": "%FILTER_STATE(io.istio.peer_principal:PLAIN)%",
}

COUNTERS = [
    "proxy_header_accepted",
    "proxy_header_malformed",
    "proxy_header_timeout",
    "proxy_header_absent",
    "proxy_header_left_out",
]


def proxied(tmp_path: Path | None = None, **options: Any) -> Setup:
    setup = Setup(listener={"proxy_protocol": options}, log=LOG)
    if tmp_path is not None:
        setup.log_path = str(tmp_path / "access.log")
    return setup


def counted(gateway: Gateway) -> list[str]:
    stats = gateway.stats()
    return [name for name in COUNTERS for _ in range(stats[name])]


HEADERS = {"version 1": V1, "version 2": V2}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("cut", [None, 1])
def test_the_header_states_who_the_client_is(
    tmp_path: Path, name: str, optional: bool, cut: int | None
) -> None:
    setup = proxied(tmp_path, accept_v1=True, optional=optional)
    with serving(setup) as (gateway, _):
        client = gateway.connect()
        first = HEADERS[name]
        for at in range(0, len(first), cut or len(first)):
            client.send(first[at : at + (cut or len(first))])
            gateway.settle()
        client.send(get())
        fields = dict(json.loads(client.read_response().body)["headers"])
        assert fields["x-forwarded-for"] == "203.0.113.7"
        (line,) = gateway.log_lines(1)
        assert counted(gateway) == ["proxy_header_accepted"]
    assert line == {
        "remote": "203.0.113.7",
        "local": "198.51.100.1",
        "direct": "127.0.0.1",
        "principal": None,
    }


OWN_ADDRESSES = {
    "LOCAL": LOCAL,
    "LOCAL with addresses": header(command=0x20),
    "UNSPEC": SIGNATURE + b"\x21\x00\x00\x00",
    "UNKNOWN": b"PROXY UNKNOWN\r\n",
}


@pytest.mark.parametrize("name", OWN_ADDRESSES)
def test_a_header_without_a_client_leaves_the_connections_addresses(
    tmp_path: Path, name: str
) -> None:
    with serving(proxied(tmp_path, accept_v1=True)) as (gateway, _):
        assert gateway.ask(OWN_ADDRESSES[name] + get()).status == 200
        (line,) = gateway.log_lines(1)
    assert (line["remote"], line["local"]) == ("127.0.0.1", "127.0.0.1")


def test_anybody_could_claim_an_identity_here(tmp_path: Path) -> None:
    with serving(proxied(tmp_path)) as (gateway, _):
        tlvs = tlv(0xD0, IDENTITY.encode())
        assert gateway.ask(header(tlvs=tlvs) + get()).status == 200
        assert gateway.log_lines(1)[0]["principal"] is None


REFUSED: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "no header": (get(), {}, "proxy_header_malformed"),
    "version 1 where it is not accepted": (V1, {}, "proxy_header_malformed"),
    "version 1, malformed": (
        b"PROXY TCP4 203.0.113.7\r\n",
        {"accept_v1": True, "optional": True},
        "proxy_header_malformed",
    ),
    "version 2, malformed": (
        SIGNATURE + b"\x31\x11\x00\x0c",
        {"optional": True},
        "proxy_header_malformed",
    ),
    "too long": (
        header(tlvs=tlv(0xEE, bytes(500))),
        {"max_header_bytes": 100},
        "proxy_header_malformed",
    ),
    "datagrams": (header(family=0x12), {}, "proxy_header_malformed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_connection_that_starts_otherwise_is_closed(name: str) -> None:
    first, options, counter = REFUSED[name]
    with serving(proxied(**options)) as (gateway, upstream):
        client = gateway.connect()
        client.send(first + get())
        assert client.is_closed()
        assert counted(gateway) == [counter]
        assert upstream.connections == 0


SERVED_AS_THEY_ARE: dict[str, tuple[bytes, dict[str, Any]]] = {
    "GET": (get(), {}),
    "POST looks like PROXY at first": (
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
        {"accept_v1": True},
    ),
    "PROPFIND more so": (b"PROPFIND / HTTP/1.1\r\nhost: a\r\n\r\n", {"accept_v1": True}),
    "an empty line looks like version 2": (b"\r\n" + get(), {}),
    "two empty lines more so": (b"\r\n\r\n" + get(), {}),
}


@pytest.mark.parametrize("name", SERVED_AS_THEY_ARE)
@pytest.mark.parametrize("whole", [True, False])
def test_a_header_may_be_left_out_if_it_is_optional(tmp_path: Path, name: str, whole: bool) -> None:
    first, options = SERVED_AS_THEY_ARE[name]
    with serving(proxied(tmp_path, optional=True, **options)) as (gateway, _):
        client = gateway.connect()
        if whole:
            client.send(first)
        else:
            for byte in first:
                client.send(bytes([byte]))
                gateway.settle()
        line = json.loads(client.read_response().body)["line"]
        assert line.encode() == first.strip().split(b"\r\n")[0]
        assert gateway.log_lines(1)[0]["remote"] == "127.0.0.1"
        assert counted(gateway) == ["proxy_header_left_out"]


def test_version_1_is_no_header_where_it_is_not_accepted() -> None:
    with serving(proxied(optional=True)) as (gateway, _):
        assert gateway.ask(V1 + get()).status == 400
        assert counted(gateway) == ["proxy_header_left_out"]


@pytest.mark.parametrize("sent", [b"", b"PROX", SIGNATURE[:11]])
def test_a_client_that_says_too_little_is_served_as_it_is_after_a_while(sent: bytes) -> None:
    setup = proxied(optional=True, accept_v1=True, header_timeout_ms=3_000)
    setup.traffic = {"type": "tcp", "forward": tcp_forward("c")}
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(sent)
        gateway.advance(2.9)
        assert upstream.connections == 0
        gateway.advance(0.2)
        server = upstream.accept()
        server.send(b"hello")
        assert client.read_exactly(5) == b"hello"
        client.send(b"!")
        assert server.read_exactly(len(sent) + 1) == sent + b"!"
        assert counted(gateway) == ["proxy_header_left_out"]


@pytest.mark.parametrize("sent", [b"", b"P"])
def test_a_client_that_ends_at_once_is_served_as_it_is(sent: bytes) -> None:
    setup = proxied(optional=True, accept_v1=True)
    setup.traffic = {"type": "tcp", "forward": tcp_forward("c")}
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(sent)
        client.finish_sending()
        server = upstream.accept()
        assert server.read_to_end() == sent
        server.send(b"bye")
        server.finish_sending()
        assert client.read_to_end() == b"bye"


@pytest.mark.parametrize("sent", [b"PROXY ", V1[:-1], SIGNATURE, V2[:-1]])
def test_a_header_that_has_begun_must_end(sent: bytes) -> None:
    setup = proxied(optional=True, accept_v1=True, header_timeout_ms=3_000)
    with serving(setup) as (gateway, _):
        client = gateway.connect()
        client.send(sent)
        gateway.advance(2.9)
        assert not client.is_readable()
        gateway.advance(0.2)
        assert client.is_closed()
        client = gateway.connect()
        client.send(sent)
        client.finish_sending()
        assert client.is_closed()
        assert counted(gateway) == ["proxy_header_timeout", "proxy_header_absent"]


def test_a_header_that_is_not_optional_must_come_in_time() -> None:
    with serving(proxied(header_timeout_ms=3_000)) as (gateway, _):
        client = gateway.connect()
        gateway.advance(3.1)
        assert client.is_closed()
        assert counted(gateway) == ["proxy_header_timeout"]


def test_a_connection_of_bytes_may_start_with_a_header() -> None:
    setup = proxied()
    setup.traffic = {"type": "tcp", "forward": tcp_forward("c")}

    def server(peer: Peer) -> None:
        peer.send(peer.read_to_end())

    with serving(setup, server) as (gateway, _):
        client = gateway.connect()
        client.send(V2 + b"payload")
        client.finish_sending()
        assert client.read_to_end() == b"payload"


@pytest.mark.parametrize("accept_v1", [True, False])
def test_a_waypoint_accepts_version_1_if_it_is_told_to(accept_v1: bool) -> None:
    destination = {"address": VIP, "port": 80, "service": "d/o", "route_table": "t"}
    traffic = {"type": "waypoint", "destinations": [destination], "accept_v1": accept_v1}
    with serving(Setup(traffic=traffic), echo) as (gateway, _):
        client = gateway.connect()
        client.send(f"PROXY TCP4 10.244.0.24 {VIP} 1 80\r\n".encode() + get())
        if accept_v1:
            fields = dict(json.loads(client.read_response().body)["headers"])
            assert fields["x-forwarded-for"] == "10.244.0.24"
        else:
            assert client.is_closed()
