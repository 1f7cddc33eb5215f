"""Access logs that go to services, from manifests on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.access_log.services import LogService
from tests.access_log.services import serving as logging
from tests.engine.harness import eventually
from tests.scenario.stage import EDGE, route

if TYPE_CHECKING:
    from tests.scenario.stage import Stage

BACKEND = "- backendRefs: [{name: web, port: 80}]"


def collector(address: str) -> str:
    """A Service with the one endpoint, and the port of it that speaks gRPC."""
    host, port = address.split(":")
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: logs}}
spec: {{ports: [{{name: grpc, port: 9000}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: logs, labels: {{kubernetes.io/service-name: logs}}}}
addressType: IPv4
endpoints: [{{addresses: ["{host}"]}}]
ports: [{{name: grpc, port: {port}}}]
"""


POLICY = """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: ListenerPolicy
metadata: {name: logs}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]
  default:
    httpSettings:
      accessLog:
      - grpcService:
          backendRef: {name: logs, port: 9000}
          logName: errors
        filter: {statusCodeFilter: {op: GE, value: 400}}
      - openTelemetry:
          grpcService:
            backendRef: {name: logs, port: 9000}
            logName: all
          body: "%REQ(:PATH)%"
      localReplies:
        mappers:
        - filter: {responseFlagFilter: {flags: [NR]}}
          statusCode: 410
        defaultBodyFormat: {text: "gone: %REQ(:PATH)%"}
"""


def test_requests_are_logged_to_services(stage: Stage) -> None:
    stage.service("web")
    service = LogService()
    with logging(service) as address:
        rules = f"- matches: [{{path: {{value: /web}}}}]\n  {BACKEND.removeprefix('- ')}"
        scene = stage.serve(EDGE, route(rules), collector(address), POLICY)
        assert scene.get("/web").backend == "web"
        gone = scene.get("/none")
        assert (gone.status, gone.body) == (410, b"gone: /none")
        scene.reaches("downstream_rq_total", 2)

        def is_told() -> bool:
            # A second after the worker has seen that there is something to send.
            scene.clock.advance(1)
            return service.messages.qsize() == 2

        eventually(is_told, "both are told")
        told = [service.message(), service.message()]
        (stream,) = [one for one in told if "http_logs" in one]
        (export,) = [one for one in told if "resource_logs" in one]
        assert stream["identifier"]["log_name"] == "errors"
        (entry,) = stream["http_logs"]["log_entry"]
        assert entry["request"]["path"] == "/none"
        assert entry["response"]["response_code"] == {"value": 410}
        assert entry["common_properties"]["response_flags"] == {"no_route_found": 1}
        (scope,) = export["resource_logs"][0]["scope_logs"]
        bodies = [one["body"]["string"] for one in scope["log_records"]]
        assert bodies == ["/web", "/none"]
