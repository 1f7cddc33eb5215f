"""kgw and Envoy say the same about traces: what requests carry on, and what collectors are told."""

from __future__ import annotations

import contextlib
import queue
import socket
from typing import TYPE_CHECKING, Any

import pytest
from tests.access_log import envoy
from tests.access_log.services import LogService
from tests.access_log.services import serving as collecting
from tests.engine.harness import WAIT, Gateway, Peer, Setup, Upstream, forward, get, ok, post, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.envoy

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"
ID = "x-request-id: 00000064-d3e3-{}921-92af-d06f0f0ce877"

#: By names of listeners: tracing in Envoy's terms and in the IR's.
LISTENERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "all": ({}, {}),
    "none": ({"random_sampling": {"value": 0}}, {"sampling": {"random": 0}}),
    "some": ({"random_sampling": {"value": 2}}, {"sampling": {"random": 2}}),
    "overall": ({"overall_sampling": {"value": 0}}, {"sampling": {"overall": 0}}),
    "client": (
        {"random_sampling": {"value": 0}, "client_sampling": {"value": 0}},
        {"sampling": {"random": 0, "client": 0}},
    ),
    "upstream": ({"spawn_upstream_span": True}, {"upstream_spans": True}),
    "custom": (
        {
            "max_path_tag_length": 5,
            "custom_tags": [
                {"tag": "a", "literal": {"value": "b"}},
                {"tag": "path", "request_header": {"name": ":path"}},
                {"tag": "one", "request_header": {"name": "x-one", "default_value": "1"}},
                {"tag": "nothing", "request_header": {"name": "x-none"}},
                {"tag": "home", "environment": {"name": "KGW_NONE", "default_value": "h"}},
                {
                    "tag": "noted",
                    "metadata": {
                        "kind": {"request": {}},
                        "metadata_key": {"key": "a", "path": [{"key": "b"}]},
                        "default_value": "n",
                    },
                },
                {"tag": "component", "literal": {"value": "mine"}},
            ],
        },
        {
            "max_path_bytes": 5,
            "attributes": [
                {"name": "a", "value": {"type": "literal", "value": "b"}},
                {"name": "path", "value": {"type": "request_header", "name": ":path"}},
                {
                    "name": "one",
                    "value": {"type": "request_header", "name": "x-one", "default": "1"},
                },
                {"name": "nothing", "value": {"type": "request_header", "name": "x-none"}},
                {
                    "name": "home",
                    "value": {"type": "environment", "name": "KGW_NONE", "default": "h"},
                },
                {
                    "name": "noted",
                    "value": {
                        "type": "metadata",
                        "namespace": "a",
                        "path": ["b"],
                        "default": "n",
                    },
                },
                {"name": "component", "value": {"type": "literal", "value": "mine"}},
            ],
        },
    ),
}

CASES: dict[str, tuple[str, bytes]] = {
    "plain": ("all", get("/ok?q=1", "user-agent: test")),
    "body": ("all", post(b"body", path="/ok")),
    "packed": ("all", get("/ok", ID.format("4"))),
    "sampled": ("none", get("/ok", f"traceparent: {TRACE}-01", "tracestate: a=b,c=d")),
    "unsampled": ("all", get("/ok", f"traceparent: {TRACE}-00")),
    "unread": ("all", get("/ok", "traceparent: no", "tracestate: a=b")),
    "none": ("none", get("/ok", ID.format("4"))),
    "forced": ("none", get("/ok", ID.format("4"), "x-client-trace-id: 7")),
    "unforced": ("client", get("/ok", ID.format("4"), "x-client-trace-id: 7")),
    "before": ("none", get("/ok", ID.format("b"))),
    "overall": ("overall", get("/ok", ID.format("9"))),
    "some": ("some", get("/ok", ID.format("4"))),
    "some-not": ("some", get("/ok", ID.format("4").replace("0064", "00c8"))),
    "odd-id": ("all", get("/ok", "x-request-id: odd")),
    "refused": ("all", get("/refused")),
    "empty": ("all", get("/empty")),
    "no-route": ("all", get("/elsewhere")),
    "failing": ("all", get("/ok/500")),
    "call": ("all", post(b"", "content-type: application/grpc", "te: trailers", path="/ok/grpc")),
    "upstream": ("upstream", get("/ok")),
    "custom": ("custom", get("/ok/long?q=1", "x-one: 2")),
}


def _comparable(span: dict[str, Any], parents: set[bytes]) -> dict[str, Any]:
    """What is to be the same; of what differs by its nature, that it is there."""
    attributes = dict(span["attributes"])
    for name in ("guid:x-request-id", "node_id", "upstream_address"):
        if name in attributes:
            attributes[name] = "there"
    attributes["peer.address"] = attributes["peer.address"].partition(":")[0]
    assert span["start"] <= span["end"]
    parent = span.get("parent_span_id", b"")
    return {
        "name": span["name"],
        "kind": span["kind"],
        "status": span.get("status"),
        "state": span.get("trace_state"),
        "parent": "own" if parent in parents else parent.hex(),
        "attributes": attributes,
    }


class Side:
    """One proxy, and what it tells."""

    def __init__(self, service: LogService, ports: dict[str, int], stack: Any) -> None:
        self.service = service
        self.ports = ports
        self.heads: queue.Queue[dict[str, str]] = queue.Queue()
        self.gateway: Gateway | None = None
        self.upstream = Upstream(self._answer)
        stack.callback(self.upstream.close)

    def _answer(self, peer: Peer) -> None:
        while True:
            line, fields, _ = peer.read_request()
            self.heads.put({name.lower(): value for name, value in fields})
            path = line.split()[1]
            if path == "/ok/grpc":
                grpc = ("content-type: application/grpc", "grpc-status: 13", "grpc-message: no")
                peer.send(ok(b"", *grpc))
            else:
                status = "500 Failed" if path == "/ok/500" else "200 OK"
                peer.send(ok(b"hello", status=status))

    def ask(self, listener: str, request: bytes) -> dict[str, Any]:
        """What became of a request: what the backend got, and what the collector is told."""
        peer = Peer(socket.create_connection(("127.0.0.1", self.ports[listener]), WAIT))
        peer.send(request.replace(b"host: ollama\r\n", b"host: ollama\r\nconnection: close\r\n"))
        peer.read_to_end()
        peer.close()
        if self.gateway is not None:
            self.gateway.settle()
            assert self.gateway.engine.flush_logs(WAIT)
        head = {} if self.heads.empty() else self.heads.get()
        parent = head.get("traceparent", "")
        given = TRACE in request.decode()
        # What does not get to the backend is sampled in all cases here.
        is_sampled = parent.endswith("-01") or not head
        spans = self.service.spans(2 if listener == "upstream" else 1) if is_sampled else []
        ids = {one["span_id"] for one in spans}
        for one in spans:
            if parent:
                assert one["trace_id"].hex() == parent[3:35]
        if parent and spans:
            last = [one for one in spans if one["name"] != "ingress"] or spans
            assert last[0]["span_id"].hex() == parent[36:52]
        spans.sort(key=lambda one: one["name"])
        return {
            "trace": parent[:35] if given or parent == "no" else len(parent),
            "flags": parent[-2:],
            # Envoy writes an empty one, too.
            "state": head.get("tracestate") or None,
            "reason": head.get("x-request-id", "")[14:15] if b"x-request-id" in request else None,
            "spans": [_comparable(one, ids) for one in spans],
        }


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Side]]:
    """Both."""
    with contextlib.ExitStack() as stack:
        with socket.create_server(("127.0.0.1", 0)) as free:
            refused = "{}:{}".format(*free.getsockname())
        theirs, ours = LogService(), LogService()
        to_theirs = stack.enter_context(collecting(theirs))
        to_ours = stack.enter_context(collecting(ours))
        found = {"envoy": Side(theirs, {}, stack), "kgw": Side(ours, {}, stack)}
        routes = [
            {"match": {"prefix": f"/{name}"}, "route": {"cluster": name}}
            for name in ("ok", "refused", "empty")
        ]
        provider = {
            "name": "envoy.tracers.opentelemetry",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                "grpc_service": {"envoy_grpc": {"cluster_name": "traces"}, "timeout": "5s"},
                "service_name": "edge.default",
            },
        }
        found["envoy"].ports = stack.enter_context(
            envoy.running(
                tmp_path_factory.mktemp("envoy"),
                [
                    envoy.listener(name, routes, tracing={"provider": provider, **given})
                    for name, (given, _) in LISTENERS.items()
                ],
                [
                    envoy.cluster("ok", found["envoy"].upstream.address),
                    envoy.cluster("refused", refused),
                    envoy.cluster("empty"),
                    envoy.cluster("traces", to_theirs, http2=True),
                ],
                {"tracing.opentelemetry.min_flush_spans": 1},
            )
        )
        setup = _setup(found["kgw"].upstream.address, refused, to_ours)
        gateway = Gateway(setup, real_time=True)
        stack.callback(gateway.close)
        assert gateway.engine.problems() == []
        addresses = gateway.engine.addresses()
        found["kgw"].ports = {name: addresses[name][0][1] for name in LISTENERS}
        found["kgw"].gateway = gateway
        yield found


def _setup(upstream: str, refused: str, traces: str) -> Setup:
    resource = [["service.name", {"string": "edge.default"}]]
    service = {
        "cluster": "traces",
        "authority": "traces",
        "protocol": {"type": "traces", "resource_attributes": resource},
    }
    names = ("ok", "refused", "empty")
    return Setup(
        clusters={
            "ok": {"endpoints": [upstream]},
            "refused": {"endpoints": [refused]},
            "empty": {"endpoints": []},
            "traces": {"endpoints": [traces], "protocol": "http2"},
        },
        routes={name: {"name": name, "action": forward(name)} for name in names},
        rules=[rule(f"/{name}", name) for name in names],
        listeners=[
            {
                "id": name,
                "bind": ["127.0.0.1:0"],
                "traffic": {"type": "http", "route_table": "t"},
                "http": {"request_id": {"preserve_external": True}},
                "tracing": {"service": service, **given},
            }
            for name, (_, given) in LISTENERS.items()
        ],
    )


@pytest.mark.parametrize("case", CASES)
def test_traces_are_the_same(sides: dict[str, Side], case: str) -> None:
    listener, request = CASES[case]
    ours, theirs = (sides[side].ask(listener, request) for side in ("kgw", "envoy"))
    assert ours == theirs
