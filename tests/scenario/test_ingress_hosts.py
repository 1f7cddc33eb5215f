"""Hostnames of listeners and routes on a plain HTTP listener."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.scenario.stage import EDGE, route

if TYPE_CHECKING:
    from tests.scenario.stage import Stage


def to(service: str) -> str:
    return f"- backendRefs: [{{name: {service}, port: 80}}]"


def test_the_most_specific_hostname_of_the_routes_counts(stage: Stage) -> None:
    for name in ("exact", "wild", "deep", "any"):
        stage.service(name)
    scene = stage.serve(
        EDGE,
        route(to("any"), name="a"),
        route(to("wild"), name="b", more='hostnames: ["*.example.com"]'),
        route(to("deep"), name="c", more='hostnames: ["*.deep.example.com"]'),
        route(to("exact"), name="d", more="hostnames: [www.example.com]"),
    )
    hosts = {
        "www.example.com": "exact",
        "WWW.Example.COM": "exact",
        "www.example.com:1234": "exact",
        "other.example.com": "wild",
        "two.labels.example.com": "wild",
        "x.deep.example.com": "deep",
        "deep.example.com": "wild",
        "example.com": "any",
        "notexample.com": "any",
        "192.0.2.1": "any",
    }
    assert {host: scene.get(host=host).backend for host in hosts} == hosts


def test_a_route_is_reached_by_its_hostnames_only(stage: Stage) -> None:
    stage.service("web")
    scene = stage.serve(
        EDGE, route(to("web"), more='hostnames: [one.example.com, "*.two.example.com"]')
    )
    outcomes = [
        scene.get(host=host).outcome
        for host in ("one.example.com", "x.two.example.com", "two.example.com", "example.com")
    ]
    assert outcomes == ["web", "web", 404, 404]


def test_the_host_reaches_the_backend_as_the_client_wrote_it(stage: Stage) -> None:
    stage.service("web")
    scene = stage.serve(EDGE, route(to("web")))
    assert scene.get(host="Very.Specific.com:1234").received("host") == ["Very.Specific.com:1234"]


LISTENERS = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: kgateway
  listeners:
  - {name: http, port: 8080, protocol: HTTP}
  - {name: wild, port: 8080, protocol: HTTP, hostname: "*.example.com"}
  - {name: foo-wild, port: 8080, protocol: HTTP, hostname: "*.foo.example.com"}
  - {name: exact, port: 8080, protocol: HTTP, hostname: abc.foo.example.com}
"""


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("bar.com", "/empty-hostname"),
        ("bar.example.com", "/wildcard-example-com"),
        ("bar.foo.example.com", "/wildcard-foo-example-com"),
        ("abc.foo.example.com", "/abc-foo-example-com"),
    ],
)
def test_listeners_are_isolated(stage: Stage, host: str, path: str) -> None:
    """A request is the most specific listener's: what that has no route for is not found."""
    stage.service("web")
    paths = {
        "http": "/empty-hostname",
        "wild": "/wildcard-example-com",
        "foo-wild": "/wildcard-foo-example-com",
        "exact": "/abc-foo-example-com",
    }
    routes = [
        route(
            f"- matches: [{{path: {{value: {prefix}}}}}]\n  backendRefs: [{{name: web, port: 80}}]",
            parent=f"{{name: edge, sectionName: {listener}}}",
            name=listener,
        )
        for listener, prefix in paths.items()
    ]
    scene = stage.serve(LISTENERS, *routes)
    outcomes = {prefix: scene.get(prefix, host=host).status for prefix in paths.values()}
    assert outcomes == dict.fromkeys(paths.values(), 404) | {path: 200}


def test_a_route_of_a_wider_listener_does_not_get_hosts_of_a_narrower_one(stage: Stage) -> None:
    """Also when the route names the host and the narrower listener has no route for it."""
    stage.service("web")
    hosts = 'hostnames: [bar.com, bar.example.com, "*.foo.example.com"]'
    scene = stage.serve(
        LISTENERS, route(to("web"), parent="{name: edge, sectionName: http}", more=hosts)
    )
    outcomes = [
        scene.get(host=host).outcome
        for host in ("bar.com", "bar.example.com", "x.foo.example.com", "abc.foo.example.com")
    ]
    assert outcomes == ["web", 404, 404, 404]


def test_a_listener_without_routes_keeps_its_hosts_from_wider_ones(stage: Stage) -> None:
    stage.service("web")
    scene = stage.serve(LISTENERS, route(to("web"), parent="{name: edge, sectionName: http}"))
    outcomes = [scene.get(host=host).outcome for host in ("bar.com", "x.example.com")]
    assert outcomes == ["web", 404]


def test_hostnames_of_listener_and_route_intersect(stage: Stage) -> None:
    stage.service("web")
    listener = EDGE.replace("protocol: HTTP", 'protocol: HTTP, hostname: "*.foo.example.com"')
    scene = stage.serve(
        listener, route(to("web"), more='hostnames: ["*.example.com", bar.foo.example.com, x.com]')
    )
    outcomes = [
        scene.get(host=host).outcome
        for host in ("bar.foo.example.com", "x.foo.example.com", "x.example.com", "x.com")
    ]
    assert outcomes == ["web", "web", 404, 404]


def test_a_route_whose_hostnames_are_not_the_listeners_is_not_served(stage: Stage) -> None:
    stage.service("web")
    listener = EDGE.replace("protocol: HTTP", "protocol: HTTP, hostname: very.specific.com")
    manifests = listener, route(to("web"), more="hostnames: [else.where]")
    scene = stage.serve(*manifests, strict=False)
    [status] = [
        one for key, one in stage.config(*manifests).statuses.items() if key.kind == "HTTPRoute"
    ]
    [accepted] = [one for _, one in status.all_conditions() if one.type == "Accepted"]
    assert (accepted.status, accepted.reason) == ("False", "NoMatchingListenerHostname")
    assert scene.get(host="else.where").status == 404
    assert scene.get(host="very.specific.com").status == 404


def test_two_ports_are_two_listeners(stage: Stage) -> None:
    stage.service("web")
    stage.service("admin")
    gateway = EDGE.replace(
        "protocol: HTTP}", "protocol: HTTP}, {name: admin, port: 9090, protocol: HTTP}"
    )
    scene = stage.serve(
        gateway,
        route(to("web"), parent="{name: edge, sectionName: http}", name="web"),
        route(to("admin"), parent="{name: edge, port: 9090}", name="admin"),
    )
    assert scene.get().backend == "web"
    assert scene.get(listener="default/edge/admin").backend == "admin"
