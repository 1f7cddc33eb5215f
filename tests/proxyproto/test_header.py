"""Headers as Python objects: what is written is what is read."""

from __future__ import annotations

import contextlib
import copy
import ipaddress
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgw.errors import KgwError, ProtocolError
from kgw.proxyproto import (
    IncompleteProxyHeader,
    MeshIdentity,
    ProxyHeader,
    ProxyProtocolError,
    Ssl,
    parse_proxy_header,
)

CURL = MeshIdentity("cluster.local", "default", "curl")

ports = st.integers(0, 65535)
v4 = st.tuples(st.ip_addresses(v=4).map(str), ports)
v6 = st.tuples(
    # IPv4-mapped addresses are given as IPv4.
    st.ip_addresses(v=6).map(str).filter(lambda ip: not ip.startswith("::ffff:")),
    ports,
)
names = st.text(st.characters(min_codepoint=0x20, exclude_characters="\x7f", codec="utf-8"))
parts = st.from_regex(r"[a-zA-Z0-9_-]{1,20}", fullmatch=True)
contents = st.fixed_dictionaries(
    {},
    optional={
        "identity": st.builds(MeshIdentity, parts, parts, parts),
        "authority": names,
        "alpn": st.binary(max_size=50),
        "unique_id": st.binary(max_size=128),
        "netns": names,
        "ssl": st.builds(
            Ssl, st.integers(0, 7), st.integers(0, 2**32 - 1), version=names, cn=st.none() | names
        ),
        "tlvs": st.lists(st.tuples(st.integers(0xE0, 0xFF), st.binary(max_size=50))),
    },
)


@given(st.one_of(st.tuples(v4, v4), st.tuples(v6, v6)), contents, st.booleans())
def test_round_trip(
    addresses: tuple[tuple[str, int], tuple[str, int]], given: dict[str, Any], crc32c: bool
) -> None:
    header = ProxyHeader(*addresses, **given)
    wire = header.encode(crc32c=crc32c)
    parsed = parse_proxy_header(wire + b"payload")
    assert parsed == header
    assert hash(parsed) == hash(header)
    assert parsed.length == len(wire) == header.length + 7 * crc32c
    assert (parsed.source, parsed.destination) == tuple(
        (str(ipaddress.ip_address(host)), port) for host, port in addresses
    )
    for name, value in given.items():
        if name == "tlvs":
            assert parsed.tlvs[len(parsed.tlvs) - len(value) :] == value
        else:
            assert getattr(parsed, name) == value


@given(st.one_of(st.tuples(v4, v4), st.tuples(v6, v6)))
def test_round_trip_v1(addresses: tuple[tuple[str, int], tuple[str, int]]) -> None:
    header = ProxyHeader(*addresses)
    parsed = parse_proxy_header(header.encode(1))
    assert parsed == header
    assert parsed.version == 1


@given(st.binary(max_size=100))
def test_any_bytes_have_a_verdict(data: bytes) -> None:
    for start in (b"", b"PROXY TCP6 ", b"\r\n\r\n\0\r\nQUIT\n\x21\x01\x00"):
        with contextlib.suppress(ProtocolError):
            assert parse_proxy_header(start + data).length <= len(start + data)


def test_the_header_that_ztunnel_sends() -> None:
    header = ProxyHeader(("10.244.0.24", 46238), ("10.96.0.1", 80), identity=CURL)
    assert header.encode() == bytes.fromhex(
        "0d0a0d0a000d0a515549540a 21 11 0038 0af40018 0a600001 b49e 0050 d00029"
    ) + str(CURL).encode("ascii")
    assert header.length == 72
    assert repr(header) == (
        "<ProxyHeader v2 proxy 10.244.0.24:46238 -> 10.96.0.1:80 "
        "as spiffe://cluster.local/ns/default/sa/curl>"
    )


def test_other_forms() -> None:
    assert ProxyHeader(command="local").encode() == b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
    assert ProxyHeader(command="local").encode(1) == b"PROXY UNKNOWN\r\n"
    assert parse_proxy_header(b"PROXY UNKNOWN whatever\r\n").command == "local"
    mixed = ProxyHeader(transport="stream", identity=CURL)  # as ztunnel's for two families
    assert (mixed.family, mixed.transport, mixed.source) == ("unspec", "stream", None)
    unix = ProxyHeader(unix=(b"/run/a", b"\0b"), transport="dgram")
    assert parse_proxy_header(unix.encode()).unix == (b"/run/a", b"\0b")
    assert parse_proxy_header(unix.encode()).transport == "dgram"
    assert ProxyHeader().transport == "unspec"
    assert ProxyHeader(transport="stream") != ProxyHeader()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"source": ("10.0.0.1", 1)}, "both source and destination"),
        ({"source": ("localhost", 1), "destination": ("10.0.0.1", 1)}, "not an IP address"),
        ({"source": ("10.0.0.1", 1), "destination": ("::1", 2)}, "different families"),
        ({"command": "connect"}, "'proxy' or 'local'"),
        ({"command": "local", "unix": (b"a", b"b")}, "has no addresses"),
        ({"command": "local", "authority": "a"}, "carries no TLVs"),
        ({"command": "local", "transport": "stream"}, "transport must be"),
        ({"unix": (b"a", b"b"), "transport": "unspec"}, "transport must be"),
        ({"unix": (b"a" * 109, b"b")}, "exceeds 108"),
        ({"unique_id": b"x" * 129}, "invalid length of 129"),
        ({"authority": "a\nb"}, "not printable"),
        ({"authority": "a", "tlvs": [(2, b"b")]}, "is there twice"),
        ({"tlvs": [(3, b"1234")]}, "computed, not given"),
        ({"tlvs": [(0xD0, b"spiffe://td")]}, "invalid trust domain"),
        ({"tlvs": [(0xEE, b"x" * 65534)]}, "exceeds the maximum"),
    ],
)
def test_impossible_headers(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ProxyHeader(**arguments)


def test_version_1_is_limited() -> None:
    with pytest.raises(ValueError, match="cannot express"):
        ProxyHeader(authority="a").encode(1)
    with pytest.raises(ValueError, match="cannot express"):
        ProxyHeader().encode(1, crc32c=True)
    with pytest.raises(ValueError, match="1 or 2"):
        ProxyHeader().encode(3)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer(kind: type[bytes] | type[bytearray] | type[memoryview]) -> None:
    wire = ProxyHeader(("::1", 1), ("::2", 2)).encode()
    assert parse_proxy_header(kind(wire)).source == ("::1", 1)
    with pytest.raises(TypeError):
        parse_proxy_header("PROXY UNKNOWN\r\n")  # type: ignore[arg-type]


def test_checksum() -> None:
    wire = bytearray(ProxyHeader(("::1", 1), ("::2", 2), alpn=b"h2").encode(crc32c=True))
    assert parse_proxy_header(wire).tlvs == [(1, b"h2")]
    wire[20] ^= 1
    with pytest.raises(ProxyProtocolError, match="checksum mismatch"):
        parse_proxy_header(wire)


def test_errors() -> None:
    with pytest.raises(IncompleteProxyHeader, match="28 bytes are needed") as caught:
        parse_proxy_header(ProxyHeader(("1.1.1.1", 1), ("1.1.1.1", 1)).encode()[:16])
    assert caught.value.need == 28
    assert isinstance(caught.value, ProtocolError)
    assert pickle.loads(pickle.dumps(caught.value)).need == 28
    with pytest.raises(KgwError, match="no PROXY protocol header"):
        parse_proxy_header(b"GET")


def test_ssl() -> None:
    ssl = Ssl(3, version="TLSv1.3", cn="Zoë", cipher="c", sig_alg="s", key_alg="k")
    assert (ssl.client, ssl.verify, ssl.version, ssl.cn) == (3, 0, "TLSv1.3", "Zoë")
    assert (ssl.cipher, ssl.sig_alg, ssl.key_alg) == ("c", "s", "k")
    assert ssl.is_tls
    assert ssl.is_verified
    assert not Ssl(1).is_verified
    assert not Ssl(3, 1).is_verified
    assert repr(Ssl(1, 2, cn="a")) == 'Ssl(0x01, 2, cn="a")'
    with pytest.raises(ValueError, match="not printable"):
        Ssl(1, cn="\0")


def test_mesh_identity() -> None:
    uri = "spiffe://cluster.local/ns/default/sa/curl"
    assert str(CURL) == uri
    assert MeshIdentity.parse(uri) == CURL
    assert {CURL: 1}[MeshIdentity.parse(uri)] == 1
    assert repr(CURL) == f"MeshIdentity.parse('{uri}')"
    assert copy.copy(CURL) == pickle.loads(pickle.dumps(CURL)) == CURL
    match CURL:
        case MeshIdentity(domain, namespace, account):
            assert (domain, namespace, account) == ("cluster.local", "default", "curl")
    with pytest.raises(ValueError, match="invalid service account"):
        MeshIdentity.parse(uri + "/x")
    with pytest.raises(ValueError, match="invalid namespace"):
        MeshIdentity("td", "", "sa")
    with pytest.raises(AttributeError):
        CURL.namespace = "x"  # type: ignore[misc]
