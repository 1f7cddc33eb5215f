"""Every recorded header, as a waypoint sees it from Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kgw.proxyproto import (
    IncompleteProxyHeader,
    MeshIdentity,
    ProxyHeader,
    ProxyProtocolError,
    parse_proxy_header,
)

DATA = Path(__file__).parents[1] / "data"
VECTORS: list[dict[str, Any]] = json.loads((DATA / "proxy_protocol.json").read_text())
CASES: list[dict[str, Any]] = json.loads((DATA / "proxy_protocol_cases.json").read_text())

CURL = MeshIdentity("cluster.local", "default", "curl")
CLIENT, VIP = ("10.244.0.24", 46238), ("10.96.0.1", 80)

ACCEPTED: dict[str, dict[str, Any]] = {
    "v4+identity": {"source": CLIENT, "destination": VIP, "identity": CURL, "family": "inet"},
    "v6+identity": {
        "source": ("fd00::24", 46238),
        "destination": ("fd00::1", 80),
        "identity": CURL,
        "family": "inet6",
    },
    "mixed families -> AF_UNSPEC/STREAM + identity": {
        "source": None,
        "destination": None,
        "identity": CURL,
        "family": "unspec",
        "command": "proxy",
        "transport": "stream",
    },
    "v4, no identity TLV": {"source": CLIENT, "identity": None, "tlvs": []},
    "v4 empty identity TLV": {"source": CLIENT, "identity": None, "tlvs": [(0xD0, b"")]},
    "unknown VIP": {"destination": ("10.96.0.99", 80), "identity": CURL},
    "known VIP unknown port": {"destination": ("10.96.0.1", 81), "identity": CURL},
    "LOCAL v4": {"command": "local", "source": None, "identity": None, "tlvs": [], "length": 72},
    "LOCAL unspec no body": {"command": "local", "source": None, "length": 16},
    "unknown TLVs before identity": {"source": CLIENT, "identity": CURL},
    "UDP/DGRAM 0x12": {"transport": "dgram", "source": CLIENT},
    "AF_UNIX 0x31": {"family": "unix", "unix": (b"/a", b"/b"), "source": None},
    "v4-mapped v6": {"source": CLIENT, "destination": VIP, "identity": CURL, "family": "inet6"},
}
REFUSED = {
    "v1 TCP4": "unexpected byte 0x50 at 0",
    "duplicate TLV first curl": "0xd0 is there twice",
    "duplicate TLV first notcurl": "0xd0 is there twice",
    "65 kB header": "exceeds the maximum of 4096",
    "truncated TLV": "overruns its container by 253 bytes",
    "version 3": "version 3 does not exist",
}


@pytest.mark.parametrize("row", VECTORS, ids=[row["name"] for row in VECTORS])
def test_vector(row: dict[str, Any]) -> None:
    wire = bytes.fromhex(row["hex"])
    if row["name"] in REFUSED:
        with pytest.raises(ProxyProtocolError, match=REFUSED[row["name"]]):
            parse_proxy_header(wire, v1=False)
        return
    header = parse_proxy_header(wire + b"GET / HTTP/1.1\r\n", v1=False)
    assert header.version == 2
    assert header.length == len(wire)
    for attribute, expected in ACCEPTED[row["name"]].items():
        assert getattr(header, attribute) == expected, attribute
    if header.command == "proxy":
        assert header.encode() == wire


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_case_byte_by_byte(case: dict[str, Any]) -> None:
    """A header that arrives in pieces gets the verdict that it gets as a whole."""
    wire = case["data"].encode("latin1")
    whole = verdict(wire)
    pieces = next(
        (got for cut in range(len(wire)) if not isinstance(got := verdict(wire[:cut]), int)),
        whole,
    )
    assert pieces == whole
    if isinstance(whole, int):
        assert whole > len(wire)


def verdict(data: bytes) -> ProxyHeader | str | int:
    """The header, the reason why there is none, or how many bytes are needed."""
    try:
        return parse_proxy_header(data)
    except IncompleteProxyHeader as error:
        return error.need
    except ProxyProtocolError as error:
        return str(error)
