"""Tracing from manifests on: of listeners, by request ids, and of routes."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tests.access_log.messages import pairs
from tests.access_log.services import LogService
from tests.access_log.services import serving as collecting
from tests.engine.harness import eventually
from tests.policies.manifests import listener_policy, policy
from tests.scenario.stage import EDGE, Stage
from tests.translate.support import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.scenario.stage import Answer, Scene

pytestmark = pytest.mark.fields(
    "ListenerPolicy.spec.default.httpSettings.tracing",
    "ListenerPolicy.spec.default.httpSettings.uuidRequestIdConfig",
    "TrafficPolicy.spec.tracing",
)

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"
ID = "00000064-d3e3-4921-92af-d06f0f0ce877"
KEEP = {"preserveExternalRequestId": True}

WEB = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: edge}]
  rules:
  - name: api
    matches: [{path: {type: PathPrefix, value: /api}}]
    backendRefs: [{name: web, port: 80}]
  - name: rest
    backendRefs: [{name: web, port: 80}]
"""


def collector(address: str) -> str:
    """A Service whose endpoint is the collector."""
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: traces}}
spec: {{ports: [{{name: grpc, port: 4317}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: traces, labels: {{kubernetes.io/service-name: traces}}}}
addressType: IPv4
endpoints: [{{addresses: ["127.0.0.1"]}}]
ports: [{{name: grpc, port: {address.rpartition(":")[2]}}}]
"""


def provider(**more: Any) -> dict[str, Any]:
    return {
        "openTelemetry": {"grpcService": {"backendRef": {"name": "traces", "port": 4317}}, **more}
    }


def traced(settings: dict[str, Any] | None = None, **tracing: Any) -> str:
    """A ListenerPolicy."""
    tracing.setdefault("provider", provider())
    return json.dumps(listener_policy({"httpSettings": {"tracing": tracing, **(settings or {})}}))


def on_route(**tracing: Any) -> str:
    """A TrafficPolicy on the route."""
    return json.dumps(policy({"tracing": tracing}))


class Tracing:
    """A gateway and its collector."""

    def __init__(self, scene: Scene, service: LogService) -> None:
        self.scene = scene
        self.service = service

    def spans(self, count: int) -> list[dict[str, Any]]:
        """So many spans that the collector is told, and no more."""
        self.scene.settle()

        def are_told() -> bool:
            # A second after the worker has seen that there is something to send.
            self.scene.clock.advance(1)
            return self.scene.stat("trace_spans_sent") >= count

        eventually(are_told, "they are told")
        assert self.scene.stat("trace_spans_sent") == count
        return self.service.spans(count)

    def span(self, path: str = "/", *fields: str) -> tuple[dict[str, Any], Answer]:
        """The span of a request, and its answer."""
        answer = self.scene.get(path, *fields)
        before = self.scene.stat("trace_spans_sent")
        self.scene.settle()

        def is_told() -> bool:
            self.scene.clock.advance(1)
            return self.scene.stat("trace_spans_sent") == before + 1

        eventually(is_told, "it is told")
        (span,) = self.service.spans(1)
        return span, answer


@contextlib.contextmanager
def tracing(directory: Path, *manifests: str) -> Iterator[Tracing]:
    """A gateway with these policies."""
    service = LogService()
    directory.mkdir(exist_ok=True)
    with Stage(directory / "manifests") as stage, collecting(service) as address:
        stage.service("web")
        scene = stage.serve(EDGE, WEB, collector(address), *manifests)
        yield Tracing(scene, service)


def test_a_collector_gets_a_span_for_each_request(tmp_path: Path) -> None:
    with tracing(tmp_path, traced()) as edge:
        answer = edge.scene.get("/a?b=c", "user-agent: test")
        (parent,) = answer.received("traceparent")
        assert edge.scene.get("/none", f"traceparent: {TRACE}-01", "tracestate: a=b").status == 200
        first, second = edge.spans(2)
        assert parent == f"00-{first['trace_id'].hex()}-{first['span_id'].hex()}-01"
        assert "parent_span_id" not in first
        assert (first["name"], first["kind"]) == ("ingress", 2)
        attributes = first["attributes"]
        assert attributes["http.url"] == "http://example.org/a?b=c"
        assert (attributes["http.method"], attributes["http.status_code"]) == ("GET", "200")
        assert attributes["user_agent"] == "test"
        assert attributes["response_flags"] == "-"
        assert attributes["upstream_cluster"] == attributes["upstream_cluster.name"]
        assert attributes["guid:x-request-id"] == answer.received("x-request-id")[0]
        assert attributes["guid:x-request-id"][14] == "9"
        assert second["trace_id"].hex() == TRACE[3:35]
        assert second["parent_span_id"].hex() == TRACE[36:]
        assert second["trace_state"] == "a=b"
        assert edge.scene.stat("trace_spans_dropped") == 0


def test_the_resource_is_what_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=a,zone=b")
    detector = {"environmentResourceDetector": {"enable": True}}
    for given, expected in (
        ({}, {"service.name": "edge.default"}),
        (
            {"serviceName": "shop", "resourceDetectors": [detector]},
            {"service.name": "shop", "team": "a", "zone": "b"},
        ),
        (
            {"resourceDetectors": [{"environmentResourceDetector": {"enable": False}}]},
            {"service.name": "edge.default"},
        ),
    ):
        given_provider = provider(**given)
        directory = tmp_path / str(len(json.dumps(given)))
        with tracing(directory, traced(provider=given_provider)) as edge:
            edge.scene.get("/")
            edge.scene.settle()

            def is_told(edge: Tracing = edge) -> bool:
                edge.scene.clock.advance(1)
                return not edge.service.messages.empty()

            eventually(is_told, "it is told")
            (resource,) = edge.service.message()["resource_spans"]
            found = pairs(resource["resource"]["attributes"])
            texts = {name: one["string"] for name, one in found.items()}
            assert texts.pop("telemetry.sdk.name") == "kgw"
            assert texts.pop("telemetry.sdk.language") == "rust"
            assert texts.pop("telemetry.sdk.version")
            assert texts == expected


def test_shares_of_requests_are_traced(tmp_path: Path) -> None:
    forced = "x-client-trace-id: 7"
    before = f"x-request-id: {ID.replace('-4', '-9', 1)}"
    own = f"x-request-id: {ID}"
    for number, (given, fields, digit) in enumerate(
        [
            ({"randomSampling": 0}, [own], "4"),
            ({"randomSampling": 2}, [own], "9"),
            ({"randomSampling": 1}, [own], "4"),
            ({"randomSampling": 0}, [own, forced], "b"),
            ({"randomSampling": 0, "clientSampling": 0}, [own, forced], "4"),
            ({"overallSampling": 0}, [before], "4"),
        ]
    ):
        with tracing(tmp_path / str(number), traced(KEEP, **given)) as edge:
            answer = edge.scene.get("/", *fields)
            (parent,) = answer.received("traceparent")
            (request_id,) = answer.received("x-request-id")
            assert request_id[14] == digit, given
            assert parent.endswith("-00" if digit == "4" else "-01"), given


def test_only_proxies_in_front_are_believed(tmp_path: Path) -> None:
    before = f"x-request-id: {ID.replace('-4', '-9', 1)}"
    for number, (settings, digit) in enumerate([(KEEP, "4"), ({"useRemoteAddress": False}, "9")]):
        with tracing(tmp_path / str(number), traced(settings, randomSampling=0)) as edge:
            assert edge.scene.get("/", before).received("x-request-id")[0][14] == digit


def test_the_request_id_need_not_decide_or_tell(tmp_path: Path) -> None:
    own = f"x-request-id: {ID}"
    for name, sampled in (("packTraceReason", "01"), ("useRequestIdForTraceSampling", "01")):
        settings = {**KEEP, "uuidRequestIdConfig": {name: False}}
        share = 100 if name == "packTraceReason" else 0
        with tracing(tmp_path / name, traced(settings, randomSampling=share)) as edge:
            answer = edge.scene.get("/", own)
            assert answer.received("x-request-id") == [ID]
            assert answer.received("traceparent")[0].endswith(sampled)


def test_a_sampler_takes_all(tmp_path: Path) -> None:
    always = provider(sampler={"alwaysOnConfig": {}})
    with tracing(tmp_path, traced(provider=always, randomSampling=0)) as edge:
        _, answer = edge.span("/", f"traceparent: {TRACE}-00")
        assert answer.received("traceparent")[0].endswith("-01")


ATTRIBUTES: list[dict[str, Any]] = [
    {"name": "a", "literal": {"value": "b"}},
    {"name": "home", "environment": {"name": "KGW_HOME", "defaultValue": "none"}},
    {"name": "lost", "environment": {"name": "KGW_LOST", "defaultValue": "none"}},
    {"name": "one", "requestHeader": {"name": "x-one", "defaultValue": "1"}},
    {"name": "two", "requestHeader": {"name": "x-two", "defaultValue": "2"}},
    {"name": "nothing", "requestHeader": {"name": "x-none"}},
    *(
        {
            "name": kind,
            "metadata": {
                "kind": kind,
                "metadataKey": {"key": "some.filter", "path": [{"key": "a"}, {"key": "b"}]},
                "defaultValue": "d",
            },
        }
        for kind in ("Request", "Route", "Cluster", "Host")
    ),
]
EXPECTED = {
    "a": "b",
    "home": "here",
    "lost": "none",
    "one": "x",
    "two": "2",
    **dict.fromkeys(("Request", "Route", "Cluster", "Host"), "d"),
}


@pytest.mark.parametrize("place", ["listener", "route"])
def test_spans_say_what_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("KGW_HOME", "here")
    other = [{"name": "a", "literal": {"value": "c"}}, {"name": "z", "literal": {"value": "z"}}]
    on_listener = ATTRIBUTES if place == "listener" else other
    policies = [] if place == "listener" else [on_route(attributes=ATTRIBUTES)]
    more = {} if place == "listener" else {"z": "z"}
    with tracing(tmp_path, traced(attributes=on_listener), *policies) as edge:
        span, _ = edge.span("/", "x-one: x")
        attributes = span["attributes"]
        assert {name: attributes.get(name) for name in EXPECTED | more} == EXPECTED | more
        assert "nothing" not in attributes


def test_what_filters_note_is_told(tmp_path: Path) -> None:
    local = {"tokenBucket": {"maxTokens": 1, "tokensPerFill": 1, "fillInterval": "60s"}}
    limit = policy({"rateLimit": {"local": local}}, "limit")
    limit["metadata"]["annotations"] = {"kgw.dev/shadow": "true"}
    path = [{"key": "default/limit"}]
    key = {"key": "kgw.shadow", "path": path}
    noted = [{"name": "noted", "metadata": {"kind": "Request", "metadataKey": key}}]
    with tracing(tmp_path, traced(attributes=noted), json.dumps(limit)) as edge:
        edge.scene.get("/")
        edge.scene.get("/")
        first, second = edge.spans(2)
        assert "noted" not in first["attributes"]
        assert second["attributes"]["noted"]


def test_paths_are_cut_and_moments_told(tmp_path: Path) -> None:
    with tracing(tmp_path, traced(maxPathTagLength=5, verbose=True)) as edge:
        span, _ = edge.span("/longer/path")
        assert span["attributes"]["http.url"] == "http://example.org/long"
        moments = [one["name"] for one in span["events"]]
        assert moments[0] == "last_downstream_rx_byte_received"
        assert "first_upstream_rx_byte_received" in moments
        assert all(span["start"] <= one["time"] <= span["end"] for one in span["events"])


def test_attempts_have_spans(tmp_path: Path) -> None:
    with tracing(tmp_path, traced(spawnUpstreamSpan=True)) as edge:
        answer = edge.scene.get("/")
        upstream, own = edge.spans(2)
        assert upstream["name"].startswith("router ")
        assert upstream["kind"] == 3
        assert upstream["parent_span_id"] == own["span_id"]
        assert answer.received("traceparent")[0][36:52] == upstream["span_id"].hex()
        assert upstream["attributes"]["http.status_code"] == "200"


def test_routes_have_shares_of_their_own(tmp_path: Path) -> None:
    own = f"x-request-id: {ID}"
    for number, (on_listener, given, fields, flags) in enumerate(
        [
            ({"randomSampling": 0}, {"randomSampling": 100}, [own], "01"),
            ({}, {"randomSampling": 0}, [own], "00"),
            ({}, {"overallSampling": 0}, [own], "00"),
            ({}, {"randomSampling": 0, "clientSampling": 100}, [own, "x-client-trace-id: 1"], "01"),
            ({}, {"randomSampling": 0, "clientSampling": 0}, [own, "x-client-trace-id: 1"], "00"),
        ]
    ):
        manifests = (traced(KEEP, **on_listener), on_route(**given))
        with tracing(tmp_path / str(number), *manifests) as edge:
            answer = edge.scene.get("/", *fields)
            assert answer.received("traceparent")[0][-2:] == flags, given


def test_a_route_can_turn_it_off(tmp_path: Path) -> None:
    always = provider(sampler={"alwaysOnConfig": {}})
    with tracing(tmp_path, traced(provider=always), on_route(disable={})) as edge:
        assert edge.scene.get("/").received("traceparent") == []
        given = f"{TRACE}-01"
        assert edge.scene.get("/", f"traceparent: {given}").received("traceparent") == [given]
        edge.scene.settle()
        edge.scene.clock.advance(5)
        assert edge.scene.stat("trace_spans_sent") == 0


def test_what_is_lost_is_counted(tmp_path: Path) -> None:
    with tracing(tmp_path, traced()) as edge:

        def refuse(context: grpc.ServicerContext) -> bytes:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
            return b""

        edge.service.answer = refuse
        assert edge.scene.get("/").status == 200
        edge.scene.settle()

        def is_lost() -> bool:
            edge.scene.clock.advance(1)
            return edge.scene.stat("trace_spans_dropped") == 1

        eventually(is_lost, "it is lost")
        assert edge.scene.stat("trace_service_failed") == 1
        assert edge.scene.stat("access_log_service_dropped") == 0


def test_a_request_without_tracing_says_nothing_of_a_trace(tmp_path: Path) -> None:
    with tracing(tmp_path) as edge:
        answer = edge.scene.get("/")
        assert answer.received("traceparent") == []
        assert answer.received("x-request-id")[0][14] == "4"


@pytest.mark.parametrize(
    ("tracing", "message"),
    [
        ({"disable": {}, "randomSampling": 1}, "mutually exclusive"),
        ({"attributes": [{"name": "a"}]}, "exactly one"),
        ({"attributes": [ATTRIBUTES[0], ATTRIBUTES[0]]}, "unique"),
        ({"randomSampling": 101}, "out of bounds"),
    ],
)
def test_what_contradicts_itself_is_refused(tracing: dict[str, Any], message: str) -> None:
    found = load(EDGE, WEB, on_route(**tracing)).findings
    assert any(message in one.message for one in found), found


def test_only_routes_have_it() -> None:
    gateway = json.dumps(policy({"tracing": {}}, kind="Gateway", target="edge"))
    found = load(EDGE, WEB, gateway).findings
    assert any("HTTPRoute or GRPCRoute" in one.message for one in found), found
