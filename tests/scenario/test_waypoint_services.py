"""What a waypoint serves: labels decide, routes of Services and of the waypoint apply."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.engine.harness import eventually
from tests.scenario.stage import CLIENT, EDGE, MESH_NAMESPACE, WAYPOINT, ask, log_lines, route

import kgw

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenario.stage import Scene, Stage

USE = "istio.io/use-waypoint"
WEB, API = "10.0.0.1", "10.0.0.2"


def assert_closed(scene: Scene, vip: str, port: int = 80) -> None:
    """A mesh connection to the address is closed without an answer, and counted."""
    before = scene.stat("proxy_header_no_destination")
    peer = scene.mesh(vip, port)
    assert peer.is_closed()
    eventually(
        lambda: scene.stat("proxy_header_no_destination") == before + 1, "the closed connection"
    )


# === Labels ===


def test_the_namespaces_label_puts_all_its_services_behind_the_waypoint(stage: Stage) -> None:
    stage.service("web", WEB)
    stage.service("api", API)
    scene = stage.serve(WAYPOINT, MESH_NAMESPACE)
    assert [scene.call(vip).backend for vip in (WEB, API)] == ["web", "api"]


def test_the_services_label_is_enough(stage: Stage) -> None:
    stage.service("web", WEB, labels={USE: "way"})
    stage.service("api", API)
    scene = stage.serve(WAYPOINT)
    assert scene.call(WEB).backend == "web"
    assert_closed(scene, API)


def test_none_takes_a_service_out(stage: Stage) -> None:
    stage.service("web", WEB)
    stage.service("api", API, labels={USE: "none"})
    scene = stage.serve(WAYPOINT, MESH_NAMESPACE)
    assert scene.call(WEB).backend == "web"
    assert_closed(scene, API)


def test_a_service_of_another_waypoint_is_that_ones(stage: Stage) -> None:
    stage.service("web", WEB)
    stage.service("api", API, labels={USE: "other"})
    other = WAYPOINT.replace("name: way", "name: other").replace("15088", "15089")
    scene = stage.serve(WAYPOINT, other, MESH_NAMESPACE)
    assert_closed(scene, API)
    peer = scene.mesh(API, listener="default/other/proxy")
    assert ask(peer).backend == "api"
    peer = scene.mesh(WEB, listener="default/other/proxy")
    assert peer.is_closed()


def test_a_waypoint_that_does_not_exist_is_not_replaced_by_the_namespaces(stage: Stage) -> None:
    stage.service("web", WEB, labels={USE: "wya"})
    scene = stage.serve(WAYPOINT, MESH_NAMESPACE)
    [finding] = stage.config(WAYPOINT, MESH_NAMESPACE).warnings
    assert finding.code == "KGW311"
    assert "default/wya" in finding.message
    assert_closed(scene, WEB)


def test_a_label_that_is_taken_away_closes_the_next_connection(stage: Stage) -> None:
    stage.service("web", WEB)
    scene = stage.serve(WAYPOINT, MESH_NAMESPACE)
    assert scene.call(WEB).backend == "web"
    scene.apply(WAYPOINT)
    assert_closed(scene, WEB)
    scene.apply(WAYPOINT, MESH_NAMESPACE)
    assert scene.call(WEB).backend == "web"


LOG = """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: ListenerPolicy
metadata: {{name: log}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: way}}]
  default: {{httpSettings: {{accessLog: [{{fileSink: {{path: {path}, jsonFormat: {{
    who: "%FILTER_STATE(io.istio.peer_principal:PLAIN)%",
    source: "%DOWNSTREAM_REMOTE_ADDRESS%", to: "%DOWNSTREAM_LOCAL_ADDRESS%"}}}}}}]}}}}
"""


def test_the_source_is_the_workload_and_not_ztunnel(stage: Stage, tmp_path: Path) -> None:
    stage.service("web", WEB)
    log = tmp_path / "access.log"
    scene = stage.serve(WAYPOINT, MESH_NAMESPACE, LOG.format(path=log))
    known = ask(scene.mesh(WEB, identity=CLIENT))
    assert known.received("x-forwarded-for") == ["10.244.0.24"]
    assert ask(scene.mesh(WEB, identity=None)).backend == "web"

    first, second = (json.loads(line) for line in log_lines(log, 2))
    assert first == {"who": str(CLIENT), "source": "10.244.0.24:46238", "to": f"{WEB}:80"}
    assert second == first | {"who": None}


def test_a_service_is_reached_by_its_ipv6_address(stage: Stage) -> None:
    stage.service("web", "fd00::1")
    scene = stage.serve(WAYPOINT, MESH_NAMESPACE)
    header = kgw.ProxyHeader(("fd00::24", 46238), ("fd00::1", 80), identity=CLIENT)
    peer = scene.connect("default/way/proxy")
    peer.send(header.encode())
    answer = ask(peer, host="web")
    assert answer.backend == "web"
    assert answer.received("x-forwarded-for") == ["fd00::24"]


def test_between_address_families_the_host_names_the_service(stage: Stage) -> None:
    """ztunnel's header then has no addresses; Envoy closes such connections."""
    stage.service("web", "fd00::1")
    stage.service("api", "fd00::2")
    scene = stage.serve(WAYPOINT, MESH_NAMESPACE)
    for host in ("web", "api.default.svc.cluster.local"):
        header = kgw.ProxyHeader(transport="stream", identity=CLIENT)
        assert header.family == "unspec"
        peer = scene.connect("default/way/proxy")
        peer.send(header.encode())
        assert ask(peer, host=host).backend == host.partition(".")[0]


# === Routes ===


def test_without_a_route_all_requests_go_to_the_service(stage: Stage) -> None:
    stage.service("web", WEB)
    scene = stage.serve(WAYPOINT, MESH_NAMESPACE)
    peer = scene.mesh(WEB)
    for path in ("/", "/any/path?with=query"):
        answer = ask(peer, path, host="whatever.example")
        assert (answer.backend, answer.target) == ("web", path)
        assert answer.received("host") == ["whatever.example"]


def test_with_routes_what_none_of_them_matches_is_not_found(stage: Stage) -> None:
    stage.service("web", WEB)
    stage.service("api", API)
    rules = """
    - matches: [{path: {type: PathPrefix, value: /v1}}]
      backendRefs: [{name: api, port: 80}]
    """
    scene = stage.serve(
        WAYPOINT, MESH_NAMESPACE, route(rules, parent='{group: "", kind: Service, name: web}')
    )
    assert scene.call(WEB, "/v1/x").backend == "api"
    assert scene.call(WEB, "/v2").status == 404
    assert scene.call(API, "/v2").backend == "api", "the route is of web alone"


def test_a_route_of_a_port_leaves_the_others_alone(stage: Stage) -> None:
    stage.service("web", WEB, ports=(80, 81))
    rules = """
    - matches: [{path: {type: Exact, value: /only}}]
      backendRefs: [{name: web, port: 81}]
    """
    parent = '{group: "", kind: Service, name: web, port: 81}'
    scene = stage.serve(WAYPOINT, MESH_NAMESPACE, route(rules, parent=parent))
    assert scene.call(WEB, "/x").backend == "web"
    assert scene.call(WEB, "/only", port=81).backend == "web"
    assert scene.call(WEB, "/x", port=81).status == 404


def test_a_route_of_the_waypoint_serves_services_without_routes_of_their_own(
    stage: Stage,
) -> None:
    stage.service("web", WEB)
    stage.service("api", API)
    shared = """
    - matches: [{path: {type: PathPrefix, value: /shared}}]
      backendRefs: [{name: api, port: 80}]
    """
    own = "- backendRefs: [{name: api, port: 80}]"
    scene = stage.serve(
        WAYPOINT,
        MESH_NAMESPACE,
        route(shared, parent="{name: way}", name="shared", more="hostnames: [web.default]"),
        route(own, parent='{group: "", kind: Service, name: api}', name="own"),
    )
    assert scene.call(WEB, "/shared", host="web.default").backend == "api"
    assert scene.call(WEB, "/", host="web.default").status == 404
    assert scene.call(WEB, "/shared", host="web").status == 404, "hostnames count there"
    assert scene.call(API, "/any", host="web.default").backend == "api", "its own route counts"


def test_hostnames_of_a_route_for_a_service_are_ignored(stage: Stage) -> None:
    stage.service("web", WEB)
    rules = "- backendRefs: [{name: web, port: 80}]"
    parent = '{group: "", kind: Service, name: web}'
    scene = stage.serve(
        WAYPOINT, MESH_NAMESPACE, route(rules, parent=parent, more="hostnames: [else.where]")
    )
    assert scene.call(WEB, host="web").backend == "web"


@pytest.mark.parametrize(("backend", "status"), [("missing", 500), ("unready", 503)])
def test_a_backend_that_is_not_there_and_one_that_is_not_ready(
    stage: Stage, backend: str, status: int
) -> None:
    stage.service("web", WEB)
    stage.service("unready", API, ready=False)
    rules = f"- backendRefs: [{{name: {backend}, port: 80}}]"
    parent = '{group: "", kind: Service, name: web}'
    scene = stage.serve(WAYPOINT, MESH_NAMESPACE, route(rules, parent=parent), strict=False)
    assert scene.call(WEB).status == status


def test_a_route_on_both_doors_behaves_the_same(stage: Stage) -> None:
    """One HTTPRoute for the mesh and for the outside: an ingress next to the waypoint."""
    stage.service("web", WEB)
    rules = """
    - matches: [{path: {type: PathPrefix, value: /old}}]
      filters:
      - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}
      backendRefs: [{name: web, port: 80}]
    """
    parents = '{group: "", kind: Service, name: web}, {name: edge}'
    scene = stage.serve(WAYPOINT, EDGE, MESH_NAMESPACE, route(rules, parent=parents))
    answers = [scene.call(WEB, "/old/x?q=1"), scene.get("/old/x?q=1")]
    assert [one.target for one in answers] == ["/new/x?q=1"] * 2
    assert [scene.call(WEB, "/x").status, scene.get("/x").status] == [404, 404]
