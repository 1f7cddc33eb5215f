"""Listeners and route tables in the representation."""

from __future__ import annotations

import json

import pytest
from tests.translate.support import EDGE, MESH, ROUTE, actions, codes, hosts, run

from kgw.translate import Options

TABLE = "gateway/default/edge/80"


def edge(*listeners: str) -> str:
    return EDGE.replace("[{name: http, port: 80, protocol: HTTP}]", f"[{', '.join(listeners)}]")


def listener(name: str, hostname: str = "", port: int = 80) -> str:
    host = f", hostname: '{hostname}'" if hostname else ""
    return f"{{name: {name}, port: {port}, protocol: HTTP{host}}}"


def route(name: str, hostnames: str = "[]", parent: str = "{name: edge}") -> str:
    text = ROUTE.replace("{name: route}", f"{{name: {name}}}").replace("{name: edge}", parent)
    return text.replace("spec:", f"spec:\n  hostnames: {hostnames}")


def named(name: str) -> str:
    return f"httproute/default/{name}/0/0"


# === Addresses ===


def binds(found_options: Options | None, text: str = EDGE) -> list[str]:
    (only,) = run(text, options=found_options).ir["listeners"]
    return list(only["bind"])


def test_a_gateway_listens_on_all_addresses() -> None:
    assert binds(None) == ["0.0.0.0:80", "[::]:80"]


def test_a_waypoint_listens_on_loopback() -> None:
    assert binds(None, MESH) == ["127.0.0.1:15088", "[::1]:15088"]


def test_addresses_and_ports_can_be_chosen() -> None:
    assert binds(Options(bind=("127.0.0.1",), ports={"default/edge/http": 0})) == ["127.0.0.1:0"]
    assert binds(Options(bind=("127.0.0.1",), port_offset=8000)) == ["127.0.0.1:8080"]


def test_a_waypoint_beyond_loopback_is_warned_about() -> None:
    found = run(MESH, options=Options(bind=("0.0.0.0",)))
    assert found.ir["listeners"][0]["bind"] == ["0.0.0.0:15088"]
    assert codes(found) == ["KGW409"]
    assert codes(run(EDGE, options=Options(bind=("0.0.0.0",)))) == []
    assert codes(run(MESH, options=Options(bind=("127.0.0.2",)))) == []


def test_gateways_can_be_chosen() -> None:
    other = EDGE.partition("---")[0].replace("name: edge", "name: other").replace("80", "81")
    found = run(EDGE, other, options=Options(gateways=frozenset({"default/other"})))
    assert [one["id"] for one in found.ir["listeners"]] == ["default/other/http"]


def test_two_gateways_may_share_port_zero() -> None:
    other = EDGE.partition("---")[0].replace("name: edge", "name: other")
    zero = Options(bind=("127.0.0.1",), ports={"default/edge/http": 0, "default/other/http": 0})
    assert len(run(EDGE, other, options=zero).ir["listeners"]) == 2


# === Virtual hosts ===


def test_a_gateway_without_routes_finds_nothing() -> None:
    assert hosts(run(EDGE), TABLE) == {"*": []}


def test_routes_are_under_the_hosts_they_share_with_the_listener() -> None:
    found = run(
        edge(listener("http", "*.example")),
        route("all"),
        route("one", "[a.example, a.test]"),
        route("two", "['*.b.example']"),
    )
    assert hosts(found, TABLE) == {
        "*.example": [named("all")],
        "a.example": [named("one")],
        "*.b.example": [named("two")],
    }


def test_listeners_of_one_port_share_a_socket() -> None:
    found = run(
        edge(listener("a", "a.example"), listener("b", "b.example"), listener("c", "", 81)),
        route("a", parent="{name: edge, sectionName: a}"),
        route("all"),
    )
    assert [one["id"] for one in found.ir["listeners"]] == ["default/edge/a", "default/edge/c"]
    assert hosts(found, TABLE) == {
        "a.example": [named("a"), named("all")],
        "b.example": [named("all")],
    }
    assert hosts(found, "gateway/default/edge/81") == {"*": [named("all")]}


def test_a_listener_without_routes_hides_its_hosts_from_wider_listeners() -> None:
    found = run(
        edge(listener("any"), listener("wild", "*.example"), listener("one", "a.example")),
        route("any", "['*.example', b.example, c.test]", "{name: edge, sectionName: any}"),
        route("wild", "[a.example, b.example]", "{name: edge, sectionName: wild}"),
    )
    assert hosts(found, TABLE) == {
        "*": [],
        "*.example": [],
        "a.example": [],
        "b.example": [named("wild")],
        "c.test": [named("any")],
    }


def test_a_route_with_two_parents_on_one_listener_is_there_once() -> None:
    # An API server takes these for two parents, because only one of them names the namespace.
    parents = "{name: edge, sectionName: http}, {name: edge, namespace: default, port: 80}"
    found = run(EDGE, route("a", parent=parents))
    assert hosts(found, TABLE) == {"*": [named("a")]}


# === Waypoints ===

WEB = '{group: "", kind: Service, name: web}'
SERVICE = "service/default/web/80"


def test_a_service_without_routes_is_served_as_it_is() -> None:
    found = run(MESH)
    assert hosts(found, SERVICE) == {"*": ["default"]}
    assert actions(found)["default/web:80"] == {
        "type": "forward",
        "backends": [{"cluster": "kube_default_web_80", "weight": 1, "filters": []}],
        "request_timeout_ms": 15_000,
    }
    destinations = found.ir["listeners"][0]["traffic"]["destinations"]
    assert [(one["address"], one["port"], one["route_table"]) for one in destinations] == [
        ("10.0.0.2", 80, "service/default/api/80"),
        ("10.0.0.1", 80, SERVICE),
        ("fd00::1", 80, SERVICE),
        ("10.0.0.1", 81, "service/default/web/81"),
        ("fd00::1", 81, "service/default/web/81"),
    ]


def test_a_route_of_a_service_replaces_the_default_one_on_all_its_ports() -> None:
    found = run(MESH, route("web", parent=WEB))
    assert hosts(found, SERVICE) == {"*": [named("web")]}
    assert hosts(found, "service/default/web/81") == {"*": [named("web")]}
    assert hosts(found, "service/default/api/80") == {"*": ["default"]}


@pytest.mark.parametrize("section", ["port: 81", "sectionName: http-admin"])
def test_a_route_of_a_service_port_is_on_that_port_only(section: str) -> None:
    found = run(MESH, route("web", parent=WEB.replace("name: web", f"name: web, {section}")))
    assert hosts(found, SERVICE) == {"*": ["default"]}
    assert hosts(found, "service/default/web/81") == {"*": [named("web")]}


def test_hostnames_do_not_count_for_a_service() -> None:
    found = run(MESH, route("web", "[a.example]", WEB))
    assert hosts(found, SERVICE) == {"*": [named("web")]}


def test_routes_of_the_waypoint_serve_services_without_routes() -> None:
    found = run(MESH, route("web", parent=WEB), route("way", "[a.example]", "{name: way}"))
    assert hosts(found, SERVICE) == {"*": [named("web")]}
    assert hosts(found, "service/default/api/80") == {"a.example": [named("way")]}


def test_a_route_with_two_parents_on_one_port_is_there_once() -> None:
    two = WEB + ", " + WEB.replace("name: web", "name: web, port: 80")
    text = route("web").replace(
        "{name: edge}", two.replace("name: web}", "name: web, port: 81}", 1)
    )
    found = run(MESH, text)
    assert hosts(found, SERVICE) == {"*": [named("web")]}


# === The whole ===


def test_an_empty_configuration_listens_on_nothing() -> None:
    assert run().ir == {
        "version": 1,
        "listeners": [],
        "route_tables": {},
        "routes": {},
        "clusters": {},
    }


def test_every_id_that_is_named_is_there() -> None:
    ir = run(MESH, EDGE.partition("---")[0], route("a"), route("b", parent=WEB)).ir
    tables = set()
    for one in ir["listeners"]:
        traffic = one["traffic"]
        if traffic["type"] == "http":
            tables.add(traffic["route_table"])
        else:
            tables |= {destination["route_table"] for destination in traffic["destinations"]}
    assert tables == ir["route_tables"].keys()
    routes = {
        rule["route"]
        for table in ir["route_tables"].values()
        for host in table["hosts"]
        for rule in host["rules"]
    }
    assert routes == ir["routes"].keys()
    clusters = {
        backend["cluster"]
        for one in ir["routes"].values()
        for backend in one["action"].get("backends", ())
    }
    assert clusters == ir["clusters"].keys()


def test_a_change_of_one_route_changes_that_route_only() -> None:
    one = route("a", "[a.example]")
    before = run(EDGE, one, route("b", "[b.example]")).ir
    after = run(
        EDGE, one, route("b", "[b.example]").replace("port: 80}]", "port: 80, weight: 2}]")
    ).ir
    changed = [key for key in before["routes"] if before["routes"][key] != after["routes"][key]]
    assert changed == [f"{named('b')}@{TABLE}"]
    for part in ("listeners", "route_tables", "clusters"):
        assert json.dumps(before[part]) == json.dumps(after[part])
