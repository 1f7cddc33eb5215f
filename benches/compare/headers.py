"""PROXY protocol headers: parsed from bytes, with what a server then asks for; and written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benches.compare.measure import Contestant, Work

import kgw

if TYPE_CHECKING:
    from collections.abc import Callable

IDENTITY = "spiffe://cluster.local/ns/default/sa/curl"
HEADER = kgw.ProxyHeader(
    ("10.244.0.24", 46238),
    ("10.96.0.1", 80),
    identity=kgw.MeshIdentity.parse(IDENTITY),
)
BARE = kgw.ProxyHeader(("10.244.0.24", 46238), ("10.96.0.1", 80))


def works() -> list[Work]:
    """All works about headers."""
    return [
        Work(
            "PROXY v2 header of ztunnel: source and identity",
            ("10.244.0.24", 46238, IDENTITY),
            [Contestant("kgw", _kgw_v2), Contestant("proxy-protocol", _other_v2)],
        ),
        Work(
            "PROXY v1 line: source",
            ("10.244.0.24", 46238),
            [Contestant("kgw", _kgw_v1), Contestant("proxy-protocol", _other_v1)],
        ),
        Work(
            "PROXY v2 header written",
            BARE.encode(),
            [Contestant("kgw", _kgw_write), Contestant("proxy-protocol", _other_write)],
        ),
    ]


def _kgw_v2() -> Callable[[], Any]:
    parse, data = kgw.parse_proxy_header, HEADER.encode()

    def call() -> Any:
        header = parse(data)
        assert header.source is not None
        return (*header.source, str(header.identity))

    return call


def _other_v2() -> Callable[[], Any]:
    from proxyprotocol.v2 import ProxyProtocolV2

    protocol, data = ProxyProtocolV2(), HEADER.encode()

    def call() -> Any:
        result = protocol.unpack(data)
        host, port = result.source
        # The library knows no identity; its own TLVs are read into a mapping like this.
        return str(host), port, result.tlv[0xD0].decode()

    return call


def _kgw_v1() -> Callable[[], Any]:
    parse, data = kgw.parse_proxy_header, BARE.encode(version=1)
    return lambda: parse(data).source


def _other_v1() -> Callable[[], Any]:
    from proxyprotocol.v1 import ProxyProtocolV1

    protocol, data = ProxyProtocolV1(), BARE.encode(version=1)

    def call() -> Any:
        host, port = protocol.unpack(data).source
        return str(host), port

    return call


def _kgw_write() -> Callable[[], Any]:
    header = kgw.ProxyHeader
    return lambda: header(("10.244.0.24", 46238), ("10.96.0.1", 80)).encode()


def _other_write() -> Callable[[], Any]:
    from ipaddress import IPv4Address
    from socket import SOCK_STREAM

    from proxyprotocol.result import ProxyResultIPv4
    from proxyprotocol.v2 import ProxyProtocolV2

    protocol = ProxyProtocolV2()
    source, destination = (IPv4Address("10.244.0.24"), 46238), (IPv4Address("10.96.0.1"), 80)
    return lambda: protocol.pack(ProxyResultIPv4(source, destination, protocol=SOCK_STREAM))
