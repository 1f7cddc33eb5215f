"""kgw and Envoy tell services the same about the same requests, field by field."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

import pytest
from tests.access_log import envoy
from tests.access_log.messages import pairs
from tests.access_log.services import LogService
from tests.access_log.services import serving as logging
from tests.engine.harness import (
    WAIT,
    Gateway,
    Peer,
    Setup,
    Upstream,
    forward,
    get,
    ok,
    post,
    rule,
    tcp_forward,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.envoy

HEADERS = {
    "request_headers": ["x-one", "x-two", "x-none", ":path"],
    "response_headers": ["x-answer", "content-type"],
    "response_trailers": ["x-behind"],
}

BODY = '%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% "%REQ(x-one)%"'

ATTRIBUTES = {
    "code": "%RESPONSE_CODE%",
    "none": "%REQ(x-none)%",
    "details": "%RESPONSE_CODE_DETAILS%",
}

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def _case(name: str, *fields: str, body: bytes | None = None) -> bytes:
    fields = (f"x-case: {name}", *fields)
    path = f"/{name}?q=1"
    return get(path, *fields) if body is None else post(body, *fields, path=path)


CASES: dict[str, bytes] = {
    "ok": _case("ok", "user-agent: test", "referer: http://a/b", "x-one: 1"),
    "body": _case("ok", "x-one: 1", "x-two: a", "x-two: b", body=b"some body"),
    "traced": _case("ok", f"traceparent: {TRACE}"),
    "chunked": _case("chunked"),
    "refused": _case("refused"),
    "empty": _case("empty", "x-one: caf\u00e9"),
    "none": _case("none"),
}

#: What differs by its nature: moments, and bytes of what only one of both adds to messages.
OTHERS = frozenset(
    {
        "start_time",
        "duration",
        "stream_id",
        "request_id",
        "request_headers_bytes",
        "response_headers_bytes",
        "upstream_header_bytes_sent",
        "upstream_header_bytes_received",
        "downstream_header_bytes_received",
        "downstream_header_bytes_sent",
        "downstream_wire_bytes_sent",
        "upstream_wire_bytes_sent",
        "upstream_wire_bytes_received",
        "port",
        "time",
        # Envoy names an address of its machine in place of loopback.
        "forwarded_for",
    }
)


def _backend(peer: Peer) -> None:
    while True:
        line, _, _ = peer.read_request()
        if line.split()[1].startswith("/chunked"):
            peer.send(
                b"HTTP/1.1 200 OK\r\nx-answer: yes\r\ntransfer-encoding: chunked\r\n"
                b"trailer: x-behind\r\n\r\n5\r\nhello\r\n0\r\nx-behind: last\r\n\r\n"
            )
        else:
            peer.send(ok(b"hello", "x-answer: yes", "content-type: text/plain"))


def _ask(port: int, request: bytes, *, is_passed_on: bool = False) -> None:
    peer = Peer(socket.create_connection(("127.0.0.1", port), WAIT))
    peer.send(request.replace(b"host: ollama\r\n", b"host: ollama\r\nconnection: close\r\n"))
    if is_passed_on:
        # The backend does not look at `connection`.
        peer.read_response()
    else:
        peer.read_to_end()
    peer.close()


def _comparable(value: Any) -> Any:
    """What is to be the same; of what differs by its nature, that it is there."""
    if isinstance(value, list):
        return [_comparable(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: "there" if name in OTHERS or name.startswith("time_to_") else _comparable(one)
        for name, one in value.items()
        # Envoy's routes have no names here.
        if name != "route_name"
    }


class Side:
    """One proxy and the service that it tells."""

    def __init__(self, service: LogService, ports: dict[str, int]) -> None:
        self.service = service
        self.ports = ports
        self.gateway: Gateway | None = None

    def flush(self) -> None:
        if self.gateway is not None:
            # A client may have its answer before that is logged.
            self.gateway.settle()
            assert self.gateway.engine.flush_logs(WAIT)

    def entry(self, listener: str, request: bytes) -> dict[str, Any]:
        """What is told of a request."""
        kind = "tcp_logs" if listener == "tcp" else "http_logs"
        _ask(self.ports[listener], request, is_passed_on=listener == "tcp")
        if self.gateway is not None and listener == "tcp":
            self.gateway.reaches("tcp_cx_total", 1)
        self.flush()
        (entry,) = self.service.entries(1, kind)
        return entry

    def record(self, request: bytes) -> dict[str, Any]:
        """What a collector is told of a request."""
        _ask(self.ports["telemetry"], request)
        self.flush()
        return self.service.message()


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Side]]:
    """Both."""
    with contextlib.ExitStack() as stack:
        upstream = Upstream(_backend)
        stack.callback(upstream.close)
        with socket.create_server(("127.0.0.1", 0)) as free:
            refused = "{}:{}".format(*free.getsockname())
        theirs, ours = LogService(), LogService()
        to_theirs = stack.enter_context(logging(theirs))
        to_ours = stack.enter_context(logging(ours))
        routes = [
            {"match": {"prefix": "/refused"}, "route": {"cluster": "refused"}},
            {"match": {"prefix": "/empty"}, "route": {"cluster": "empty"}},
            *(
                {"match": {"prefix": path}, "route": {"cluster": "c"}}
                for path in ("/ok", "/chunked")
            ),
        ]
        additional = {f"additional_{name}_to_log": names for name, names in HEADERS.items()}
        values = [{"key": key, "value": {"string_value": one}} for key, one in ATTRIBUTES.items()]
        telemetry = envoy.telemetry_log(
            "logs",
            "requests",
            body={"string_value": BODY},
            attributes={"values": values},
            resource_attributes={"values": [{"key": "own", "value": {"string_value": "%A%"}}]},
        )
        ports = stack.enter_context(
            envoy.running(
                tmp_path_factory.mktemp("envoy"),
                [
                    envoy.listener(
                        "envoy",
                        routes,
                        access_log=[envoy.grpc_log("Http", "logs", "requests", **additional)],
                    ),
                    envoy.listener("telemetry", routes, access_log=[telemetry]),
                    envoy.tcp_listener(
                        "tcp",
                        cluster="c",
                        access_log=[envoy.grpc_log("Tcp", "logs", "connections")],
                    ),
                ],
                [
                    envoy.cluster("c", upstream.address),
                    envoy.cluster("refused", refused),
                    envoy.cluster("empty"),
                    envoy.cluster("logs", to_theirs, http2=True),
                ],
            )
        )
        gateway = Gateway(_setup(upstream.address, refused, to_ours), real_time=True)
        stack.callback(gateway.close)
        assert gateway.engine.problems() == []
        addresses = gateway.engine.addresses()
        own = {name: addresses[name][0][1] for name in ports}
        found = {"envoy": Side(theirs, ports), "kgw": Side(ours, own)}
        found["kgw"].gateway = gateway
        yield found


def _setup(upstream: str, refused: str, logs: str) -> Setup:
    common = {
        "cluster": "logs",
        "authority": "logs",
        "node_cluster": "gateway.namespace",
        "log_name": "requests",
    }
    protocols: dict[str, dict[str, Any]] = {
        "envoy": {"type": "envoy"} | HEADERS,
        "telemetry": {
            "type": "open_telemetry",
            "body": {"string": BODY},
            "attributes": [[key, {"string": one}] for key, one in ATTRIBUTES.items()],
            "resource_attributes": [["own", {"string": "%A%"}]],
            "builtin_labels": True,
        },
        "tcp": {"type": "envoy"},
    }
    http = {"type": "http", "route_table": "t"}
    tcp = {"type": "tcp", "forward": tcp_forward("c")}
    names = ("c", "refused", "empty")
    return Setup(
        clusters={
            "c": {"endpoints": [upstream]},
            "refused": {"endpoints": [refused]},
            "empty": {"endpoints": []},
            "logs": {"endpoints": [logs], "protocol": "http2"},
        },
        routes={name: {"name": name, "action": forward(name)} for name in names},
        rules=[
            rule("/refused", "refused"),
            rule("/empty", "empty"),
            rule("/ok", "c"),
            rule("/chunked", "c"),
        ],
        listeners=[
            {
                "id": name,
                "bind": ["127.0.0.1:0"],
                "traffic": tcp if name == "tcp" else http,
                "http": {"request_id": {"preserve_external": True}},
                "access_log_services": [common | {"protocol": protocol}],
            }
            for name, protocol in protocols.items()
        ],
    )


def _sorted(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry whose maps are in no order."""
    for part, name in (
        ("request", "request_headers"),
        ("response", "response_headers"),
        ("response", "response_trailers"),
    ):
        if name in entry.get(part, {}):
            entry[part][name] = pairs(entry[part][name])
    return entry


@pytest.mark.parametrize("case", CASES)
def test_entries_of_requests_are_the_same(sides: dict[str, Side], case: str) -> None:
    request = CASES[case]
    ours, theirs = (
        _comparable(_sorted(sides[side].entry("envoy", request))) for side in ("kgw", "envoy")
    )
    if "upstream_transport_failure_reason" in theirs["common_properties"]:
        # How the kernel's error is spelt is Envoy's own.
        for one in (ours, theirs):
            reason = one["common_properties"].pop("upstream_transport_failure_reason")
            assert "Connection refused" in reason.replace("_", " ")
    # Envoy passes no trailer fields on over HTTP/1.1 unless it is told to.
    ours["response"].pop("response_trailers", None)
    assert ours == theirs


def test_entries_of_connections_are_the_same(sides: dict[str, Side]) -> None:
    ours, theirs = (_comparable(sides[side].entry("tcp", CASES["ok"])) for side in ("kgw", "envoy"))
    # Envoy makes an id for connections too; kgw's have a number, for other operators.
    del theirs["common_properties"]["stream_id"]
    assert ours == theirs


@pytest.mark.parametrize("case", CASES)
def test_records_are_the_same(sides: dict[str, Side], case: str) -> None:
    found = []
    for side in ("kgw", "envoy"):
        (logs,) = sides[side].record(CASES[case])["resource_logs"]
        resource = pairs(logs["resource"]["attributes"])
        assert resource.pop("node_name")["string"]
        (scope,) = logs["scope_logs"]
        (record,) = scope["log_records"]
        record["attributes"] = pairs(record["attributes"])
        if side == "kgw" and case == "traced":
            # Envoy has these of its own spans only; kgw says of which trace the request is.
            assert record.pop("trace_id").hex() == TRACE[3:35]
            assert record.pop("span_id").hex() == TRACE[36:52]
        found.append((_comparable(record), resource))
    ours, theirs = found
    assert ours == theirs
