"""A PROXY header without addresses: ztunnel sends one when client and service differ in family."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kgw.proxyproto import MeshIdentity, ProxyHeader

from .harness import VIP, Gateway, Setup, always, eventually, get, ok, serving

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY = MeshIdentity.parse("spiffe://cluster.local/ns/default/sa/curl")
HEADER = ProxyHeader(identity=IDENTITY).encode()


def open_with_header(gateway: Gateway, request: bytes) -> bytes:
    client = gateway.connect()
    client.send(HEADER + request)
    return client.read_to_end()


@pytest.mark.parametrize(
    "host",
    [
        "ollama",
        "OLLAMA",
        "ollama:80",
        "ollama.default",
        "ollama.default.svc",
        "ollama.default.svc.cluster.local",
        "ollama.default.svc.cluster.local.",
    ],
)
def test_the_host_names_the_service_and_the_identity_is_kept(host: str, tmp_path: Path) -> None:
    log = {
        "identity": "%FILTER_STATE(io.istio.peer_principal:PLAIN)%",
        "local": "%DOWNSTREAM_LOCAL_ADDRESS%",
    }
    setup = Setup(waypoint=True, log=log, log_path=str(tmp_path / "access.log"))
    with serving(setup, always(ok(b"served"))) as (gateway, _):
        client = gateway.connect()
        client.send(HEADER + get(host=host))
        assert client.read_response().body == b"served"
        assert gateway.log_lines(1) == [{"identity": str(IDENTITY), "local": f"{VIP}:80"}]


@pytest.mark.parametrize("host", ["elsewhere", "ollama:81", "ollama.other", "default"])
def test_a_host_of_no_service_is_closed_and_counted(host: str) -> None:
    with serving(Setup(waypoint=True)) as (gateway, upstream):
        assert open_with_header(gateway, get(host=host)) == b""
        eventually(lambda: gateway.stat("proxy_header_no_destination") == 1)
        assert upstream.connections == 0


def test_a_name_that_two_services_share_is_closed() -> None:
    setup = Setup(waypoint=True)
    with serving(setup, always(ok(b"served"))) as (gateway, _):
        ir = setup.ir()
        twin = {"address": "10.96.0.9", "port": 80, "service": "prod/ollama", "route_table": "t"}
        ir["listeners"][0]["traffic"]["destinations"].append(twin)
        gateway.apply_ir(ir)
        assert open_with_header(gateway, get(host="ollama")) == b""
        client = gateway.connect()
        client.send(HEADER + get(host="ollama.prod"))
        assert client.read_response().body == b"served"


def test_a_later_request_for_another_service_is_misdirected() -> None:
    with serving(Setup(waypoint=True), always(ok(b"served"))) as (gateway, _):
        client = gateway.connect()
        client.send(HEADER + get(host="ollama") + get(host="another.example") + get(host="ollama"))
        assert client.read_response().body == b"served"
        assert client.read_response().status == 421
        assert client.read_response().body == b"served"


def test_a_malformed_first_request_is_told_so() -> None:
    with serving(Setup(waypoint=True)) as (gateway, _):
        assert open_with_header(gateway, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
