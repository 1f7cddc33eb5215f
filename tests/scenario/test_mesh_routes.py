"""Routes of Services: of producers and consumers, of requests, TLS and connections."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
from tests.scenario.stage import CLIENT, MESH_NAMESPACE, WAYPOINT, ask, named, route
from tests.scenario.tls import behind, handshake

import kgw

if TYPE_CHECKING:
    from tests.engine.harness import Peer
    from tests.scenario.stage import Scene, Stage

WEB = "10.0.0.1"

SHOP = kgw.MeshIdentity("cluster.local", "shop", "till")
BANK = kgw.MeshIdentity("cluster.local", "bank", "desk")


def of_service(
    name: str, to: str, *, namespace: str = "default", kind: str = "HTTPRoute", more: str = ""
) -> str:
    """A route of Service web to another one, of whatever namespace."""
    text = route(
        f"- {{{more}backendRefs: [{{name: {to}, namespace: default, port: 80}}]}}",
        parent='{group: "", kind: Service, name: web, namespace: default}',
        name=f"{name}, namespace: {namespace}",
    )
    return text.replace("kind: HTTPRoute", f"kind: {kind}")


def asked_by(scene: Scene, who: kgw.MeshIdentity | None, path: str = "/") -> str | int:
    peer = scene.mesh(WEB, identity=who)
    return ask(peer, path).outcome


@pytest.fixture
def mesh(stage: Stage) -> Stage:
    stage.service("web", WEB)
    stage.service("ours")
    stage.service("theirs")
    return stage


# === Producers and consumers ===


def test_a_consumers_route_is_for_the_clients_of_its_namespace(mesh: Stage) -> None:
    consumer = of_service("r", "theirs", namespace="shop")
    scene = mesh.serve(WAYPOINT, MESH_NAMESPACE, consumer)
    assert asked_by(scene, SHOP) == "theirs"
    # For others the service is as if it had no route; one without an identity is nobody's.
    assert [asked_by(scene, one) for one in (CLIENT, BANK, None)] == ["web"] * 3


def test_it_takes_the_place_of_the_producers_and_is_not_merged(mesh: Stage) -> None:
    producer = of_service("r", "ours", more="matches: [{path: {value: /a}}], ")
    consumer = of_service("r", "theirs", namespace="shop", more="matches: [{path: {value: /b}}], ")
    scene = mesh.serve(WAYPOINT, MESH_NAMESPACE, producer, consumer)
    assert [asked_by(scene, CLIENT, path) for path in ("/a", "/b")] == ["ours", 404]
    assert [asked_by(scene, SHOP, path) for path in ("/a", "/b")] == [404, "theirs"]


def test_open_connections_follow_changes(mesh: Stage) -> None:
    producer = of_service("r", "ours")
    scene = mesh.serve(WAYPOINT, MESH_NAMESPACE, producer)
    shop, bank = (scene.mesh(WEB, identity=one) for one in (SHOP, BANK))
    assert [ask(one).outcome for one in (shop, bank)] == ["ours", "ours"]
    scene.apply(WAYPOINT, MESH_NAMESPACE, producer, of_service("r", "theirs", namespace="shop"))
    assert [ask(one).outcome for one in (shop, bank)] == ["theirs", "ours"]
    scene.apply(WAYPOINT, MESH_NAMESPACE, of_service("r", "web", namespace="bank"))
    assert [ask(one).outcome for one in (shop, bank)] == ["web", "web"]


def test_routes_of_the_waypoint_are_for_services_without_their_own(mesh: Stage) -> None:
    mesh.service("api", "10.0.0.9")
    of_waypoint = route("- backendRefs: [{name: ours, port: 80}]", parent="{name: way}", name="w")
    consumer = of_service("r", "theirs", namespace="shop")
    scene = mesh.serve(WAYPOINT, MESH_NAMESPACE, of_waypoint, consumer)
    assert [asked_by(scene, one) for one in (SHOP, BANK)] == ["theirs", "ours"]
    assert scene.call("10.0.0.9").backend == "ours"
    # Only one level: a backend's own routes do not apply.
    scene.apply(
        WAYPOINT,
        MESH_NAMESPACE,
        of_service("r", "theirs"),
        of_service("more", "web").replace("name: web, namespace: default}]", "name: theirs}]", 1),
    )
    assert asked_by(scene, CLIENT) == "theirs"


def test_a_limit_of_a_consumers_route_is_its_own(mesh: Stage) -> None:
    limit = """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: limit, namespace: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}]
  rateLimit: {local: {tokenBucket: {maxTokens: 1, fillInterval: 60s}}}
"""
    consumer = of_service("r", "theirs", namespace="shop")
    scene = mesh.serve(WAYPOINT, MESH_NAMESPACE, of_service("r", "ours"), consumer, limit)
    assert [asked_by(scene, SHOP) for _ in range(2)] == ["theirs", 429]
    assert [asked_by(scene, CLIENT) for _ in range(3)] == ["ours"] * 3


# === TLS and connections ===


def tls_route(name: str, host: str, to: str, namespace: str = "default") -> str:
    text = of_service(name, to, kind="TLSRoute", namespace=namespace)
    return text.replace("spec:", f'spec:\n  hostnames: ["{host}"]')


def hello(scene: Scene, name: str, who: kgw.MeshIdentity = CLIENT) -> Peer:
    """A connection on which TLS was spoken with what is behind the waypoint."""
    return handshake(scene.mesh(WEB, identity=who), name)


def test_tls_goes_by_server_name_to_the_end(stage: Stage) -> None:
    stage.service("web", WEB, protocol="tls")
    stage.service("a", protocol="tls", script=behind(named("a"), "a.example"))
    stage.service("b", protocol="tls", script=behind(named("b"), "x.b.example"))
    routes = [tls_route("a", "a.example", "a"), tls_route("b", "*.b.example", "b")]
    scene = stage.serve(WAYPOINT, MESH_NAMESPACE, *routes)
    for name, outcome in (("a.example", "a"), ("x.b.example", "b")):
        assert ask(hello(scene, name)).outcome == outcome
    # A route says what the service is for: other names are for nobody, and neither is plain text.
    with pytest.raises((ssl.SSLError, OSError)):
        hello(scene, "c.example")
    peer = scene.mesh(WEB)
    peer.send(b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n")
    assert b"HTTP/1.1 200" not in peer.read_to_end()


def test_a_slow_hello_is_not_waited_for_without_end(stage: Stage) -> None:
    stage.service("web", WEB, protocol="tls")
    scene = stage.serve(WAYPOINT, MESH_NAMESPACE, tls_route("a", "a.example", "web"))
    peer = scene.mesh(WEB)
    peer.send(b"\x16\x03\x01")
    scene.reaches("proxy_header_accepted", 1)
    # The clock is the worker's: nothing passes until it is told so.
    scene.settle("default/way/proxy")
    scene.clock.advance(16)
    assert peer.is_closed()


def test_consumers_have_tls_of_their_own(stage: Stage) -> None:
    stage.service("web", WEB, protocol="tls")
    for name in ("ours", "theirs"):
        stage.service(name, protocol="tls", script=behind(named(name), "a.example"))
    producer = tls_route("r", "a.example", "ours")
    consumer = tls_route("r", "a.example", "theirs", "shop")
    scene = stage.serve(WAYPOINT, MESH_NAMESPACE, producer, consumer)
    assert ask(hello(scene, "a.example")).outcome == "ours"
    assert ask(hello(scene, "a.example", SHOP)).outcome == "theirs"


def test_connections_of_consumers_go_elsewhere(mesh: Stage) -> None:
    consumer = of_service("r", "theirs", kind="TCPRoute", namespace="shop")
    scene = mesh.serve(WAYPOINT, MESH_NAMESPACE, consumer)
    assert [asked_by(scene, one) for one in (SHOP, CLIENT)] == ["theirs", "web"]


# === Sets of clusters ===

IMPORT = """
apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceImport
metadata: {name: web}
spec: {ips: [10.2.0.1], ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: far, labels: {multicluster.kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [127.0.0.1]}]
ports: [{name: http, port: PORT}]
"""


def test_a_service_of_a_set_of_clusters_is_apart_from_the_local_one(mesh: Stage) -> None:
    far = mesh.backend("far").address.rpartition(":")[2]
    imported = IMPORT.replace("PORT", far)
    scene = mesh.serve(WAYPOINT, MESH_NAMESPACE, imported)
    assert (scene.call("10.2.0.1").backend, scene.call(WEB).backend) == ("far", "web")
    ref = "{group: multicluster.x-k8s.io, kind: ServiceImport, name: web, port: 80}"
    local = of_service("r", "web").replace("{name: web, namespace: default, port: 80}", ref)
    parent = "{group: multicluster.x-k8s.io, kind: ServiceImport, name: web}"
    other = route("- backendRefs: [{name: ours, port: 80}]", parent=parent, name="other")
    scene.apply(WAYPOINT, MESH_NAMESPACE, imported, local, other)
    assert (scene.call("10.2.0.1").backend, scene.call(WEB).backend) == ("ours", "far")


def test_what_in_process_callers_name_is_told_apart_too(mesh: Stage) -> None:
    """Names of a set of clusters end in another domain."""
    imported = IMPORT.replace("PORT", mesh.backend("far").address.rpartition(":")[2])
    scene = mesh.serve(WAYPOINT, MESH_NAMESPACE, imported)
    # A header without addresses: the host of the request says where it goes.
    for host, backend in [
        ("web.default.svc.clusterset.local", "far"),
        ("web.default.svc.cluster.local", "web"),
        ("web", "web"),
    ]:
        peer = scene.connect("default/way/proxy")
        peer.send(kgw.ProxyHeader(identity=CLIENT).encode())
        assert ask(peer, host=host).outcome == backend
