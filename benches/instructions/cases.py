"""What is counted: configurations, and what is asked of them."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .peers import Churn, Client, Http2, KeepAlive

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .engine import Engine

VIP = "10.96.1.1"
HOST = "bench.example.com"
CONFIG_HTTP: dict[str, Any] = {"upgrades": ["websocket"], "strip_client_address": False}
"""What `kgw.translate` says of a listener that nobody configured."""

PREFIXES = (
    "/api/v1/orders",
    "/api/v2/orders",
    "/api/v1/users",
    "/api/v2/users",
    "/api/v1/items",
    "/api/v2/items",
    "/static",
    "/metrics",
    "/admin",
    "/",
)
"""The waypoint's ten rules."""

LOG_FORMAT = {
    "start_time": "%START_TIME%",
    "method": "%REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "authority": "%REQ(:AUTHORITY)%",
}


def request(path: str = "/", body: int = 0) -> bytes:
    """A request as a plain client sends it."""
    lines = [f"{'POST' if body else 'GET'} {path} HTTP/1.1", f"Host: {HOST}"]
    lines += ["User-Agent: bench/1", "Accept: */*"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {body}"]
    return "\r\n".join([*lines, "", ""]).encode() + b"x" * body


def answer(body: int = 13) -> bytes:
    """An origin's answer."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {body}\r\n\r\n"
    return head.encode() + b"x" * body


def proxy_header() -> bytes:
    """What ztunnel sends first: PROXY protocol version 2, with the client's identity."""
    identity = b"spiffe://cluster.local/ns/default/sa/client"
    addresses = socket.inet_aton("10.244.1.7") + socket.inet_aton(VIP)
    block = addresses + struct.pack("!HH", 41_234, 80)
    block += struct.pack("!BH", 0xD0, len(identity)) + identity
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x21, 0x11, len(block)) + block


def plain(origin: str, _: Path) -> dict[str, Any]:
    """One listener, one rule."""
    traffic = {"type": "http", "route_table": "table"}
    return _config(origin, traffic, ("/",), 15_000, [])


def bare_waypoint(origin: str, _: Path) -> dict[str, Any]:
    """A waypoint with one rule and no policy."""
    return _config(origin, _waypoint_traffic(), ("/",), 15_000, [])


def waypoint(origin: str, log: Path) -> dict[str, Any]:
    """A waypoint with everything on: ten rules, a limit, a header, a log, a time-out."""
    limit = {
        "type": "local_rate_limit",
        "bucket": "default/limit",
        "max_tokens": 10_000_000,
        "tokens_per_fill": 10_000_000,
        "fill_interval_ns": 1_000_000_000,
    }
    header = {"type": "request_headers", "add": [["x-waypoint", "kgw"]]}
    config = _config(origin, _waypoint_traffic(), PREFIXES, 180_000, [limit, header])
    (listener,) = config["listeners"]
    listener["access_logs"] = [{"path": str(log), "format": {"json": LOG_FORMAT}}]
    return config


def _waypoint_traffic() -> dict[str, Any]:
    destination = {
        "address": VIP,
        "port": 80,
        "service": "default/backend",
        "route_table": "table",
    }
    return {"type": "waypoint", "destinations": [destination]}


def _config(
    origin: str,
    traffic: dict[str, Any],
    prefixes: tuple[str, ...],
    timeout_ms: int,
    filters: list[dict[str, Any]],
) -> dict[str, Any]:
    listener = {
        "id": "default/gateway/listener",
        "bind": ["127.0.0.1:0"],
        "traffic": traffic,
        "http": CONFIG_HTTP,
    }
    rules = [
        {
            "path": {"prefix": prefix},
            "rank": {"name": "default/route", "rule": index},
            "route": f"route/{index}",
        }
        for index, prefix in enumerate(prefixes)
    ]
    action = {
        "type": "forward",
        "backends": [{"cluster": "origin", "weight": 1}],
        "request_timeout_ms": timeout_ms,
    }
    return {
        "version": 1,
        "listeners": [listener],
        "route_tables": {"table": {"hosts": [{"hostname": "*", "rules": rules}]}},
        "routes": {
            f"route/{index}": {
                "name": f"default/route/{index}/0",
                "filters": filters,
                "action": action,
            }
            for index in range(len(prefixes))
        },
        "clusters": {"origin": {"endpoints": [origin]}},
    }


@dataclass(frozen=True)
class Case:
    """Something whose instructions are counted."""

    name: str
    about: str
    config: Callable[[str, Path], dict[str, Any]]
    """The configuration, of the origin's address and a path for a log."""
    client: Callable[[Engine], Client]
    answer: bytes = field(default_factory=answer)
    round_size: int = 1
    """Requests in flight at the origin."""
    rounds: int = 500
    tolerance: float = 0.02
    """The part by which the figure may grow. Runs of the same build differ by 0.1 %."""


def _get(engine: Engine) -> Client:
    return KeepAlive(engine, [request()], 1)


def _gets(engine: Engine) -> Client:
    return KeepAlive(engine, [request()], 16)


def _waypoint_client(engine: Engine) -> Client:
    targets = [request(f"{prefix.rstrip('/')}/42?x=1") for prefix in PREFIXES]
    return KeepAlive(engine, targets, 16, proxy_header())


def _post(engine: Engine) -> Client:
    return KeepAlive(engine, [request(body=1024)], 16)


def _churn(engine: Engine) -> Client:
    return Churn(engine, proxy_header() + request())


def _http2(engine: Engine) -> Client:
    fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", HOST),
        (":path", "/"),
        ("user-agent", "bench/1"),
        ("accept", "*/*"),
    ]
    return Http2(engine, fields, 32)


CASES = (
    Case("get", "GET, 13 bytes answered, 16 connections", plain, _gets, round_size=16, rounds=60),
    Case("get-alone", "GET, 13 bytes answered, one connection", plain, _get),
    Case(
        "waypoint",
        "PROXY v2, 10 rules, limit, header, time-out, JSON log; 16 connections",
        waypoint,
        _waypoint_client,
        round_size=16,
        rounds=60,
    ),
    Case("post-1k", "POST of 1 KiB, 16 connections", plain, _post, round_size=16, rounds=60),
    Case("churn", "a connection with PROXY v2 for each request", bare_waypoint, _churn, rounds=300),
    Case("http2", "GET over HTTP/2, 32 streams", plain, _http2, round_size=32, rounds=30),
    # How much of a large body each read finds is up to the kernel: runs differ by 3 %.
    Case(
        "get-1m",
        "1 MiB answered, one connection",
        plain,
        _get,
        answer(1 << 20),
        rounds=20,
        tolerance=0.1,
    ),
)
