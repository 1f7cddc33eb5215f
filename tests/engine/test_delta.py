"""Changes to what is served: one route, one host, one cluster at a time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.harness import (
    VIP,
    WAIT,
    Gateway,
    Setup,
    always,
    direct,
    free_port,
    get,
    ok,
    rule,
    serving,
)

from kgw.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator


def change(gateway: Gateway, **changes: Any) -> None:
    """Applies changes to the newest generation and waits until they are served."""
    base = gateway.stat("generation")
    delta = {"version": 1, "base": base} | changes
    generation = gateway.engine.apply_delta(json.dumps(delta).encode())
    assert generation == base + 1
    assert gateway.engine.wait_applied(generation, WAIT)


def hosts(*deltas: dict[str, Any]) -> dict[str, Any]:
    """Changes to the hosts of the table."""
    return {"t": {"hosts": list(deltas)}}


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """Two routes on ``*``, two on ``a.example``."""
    routes = {name: direct(200, name) for name in ("one", "two", "three", "four")}
    table = [
        {"hostname": "*", "rules": [rule("/", "one"), rule("/two", "two")]},
        {"hostname": "a.example", "rules": [rule("/", "three"), rule("/four", "four")]},
    ]
    with serving(Setup(routes=routes, hosts=table)) as (gateway, _):
        yield gateway


def body(gateway: Gateway, path: str, host: str = "any") -> str:
    response = gateway.get(path, host=host)
    return response.body.decode() if response.status == 200 else str(response.status)


def test_a_route_changes_wherever_it_is_used(gateway: Gateway) -> None:
    client = gateway.connect()
    client.send(get("/two"))
    assert client.read_response().body == b"two"
    change(gateway, routes={"two": direct(200, "new")})
    client.send(get("/two"))
    assert client.read_response().body == b"new"
    assert body(gateway, "/") == "one"


def test_rules_come_and_go(gateway: Gateway) -> None:
    added = {"hostname": "*", "rules": [rule("/five", "five")]}
    change(gateway, routes={"five": direct(200, "five")}, route_tables=hosts(added))
    assert [body(gateway, path) for path in ("/", "/two", "/five")] == ["one", "two", "five"]
    moved = {"hostname": "*", "rules": [rule("/6", "five", "exact"), rule("/5", "five")]}
    change(gateway, route_tables=hosts(moved))
    assert [body(gateway, path) for path in ("/five", "/5/x", "/6", "/6/x")] == [
        "one",
        "five",
        "five",
        "one",
    ]
    gone = {"hostname": "*", "removed_rules": ["five", "two", "never there"]}
    change(gateway, routes={"five": None}, route_tables=hosts(gone))
    assert [body(gateway, path) for path in ("/", "/two", "/5", "/6")] == ["one"] * 4
    assert body(gateway, "/four", "a.example") == "four"


def test_precedence_is_that_of_the_whole(gateway: Gateway) -> None:
    ranked = rule("/two", "five", rank={"name": "a", "created": 1})
    header = {"name": "x-version", "value": {"exact": "2"}}
    versioned = rule("/two", "six", headers=[header], rank={"name": "z"})
    added = {"hostname": "*", "rules": [versioned, ranked]}
    routes = {"five": direct(200, "five"), "six": direct(200, "six")}
    change(gateway, routes=routes, route_tables=hosts(added))
    assert body(gateway, "/two") == "five"
    assert gateway.get("/two", "x-version: 2").body == b"six"
    change(gateway, route_tables=hosts({"hostname": "*", "removed_rules": ["five"]}))
    assert body(gateway, "/two") == "two"


def test_hosts_come_and_go(gateway: Gateway) -> None:
    added = {"hostname": "b.example", "rules": [rule("/b", "two")]}
    change(gateway, route_tables=hosts(added, {"hostname": "c.example", "rules": []}))
    assert [body(gateway, "/b/x", host) for host in ("b.example", "c.example", "d.example")] == [
        "two",
        "404",
        "one",
    ]
    removed = [{"hostname": name, "removed": True} for name in ("a.example", "c.example")]
    change(gateway, route_tables=hosts(*removed))
    assert [body(gateway, "/four", host) for host in ("a.example", "c.example")] == ["one", "one"]
    # A host without rules is still the most specific one.
    change(gateway, route_tables=hosts({"hostname": "b.example", "removed_rules": ["two"]}))
    assert body(gateway, "/b", "b.example") == "404"


def test_an_endpoint_changes_under_its_routes() -> None:
    with (
        serving(script=always(ok(b"old"))) as (_, old),
        serving(script=always(ok(b"new"))) as (_, new),
        serving(Setup(endpoints=[old.address])) as (gateway, _),
    ):
        assert gateway.get().body == b"old"
        change(gateway, clusters={"c": {"endpoints": [new.address]}})
        assert gateway.get().body == b"new"
        # A route whose cluster is gone is broken, until it is back.
        change(gateway, clusters={"c": None})
        assert gateway.get().status == 500
        assert gateway.engine.problems() == ['route default: no cluster "c"']
        change(gateway, clusters={"c": {"endpoints": [old.address]}})
        assert gateway.get().body == b"old"
        assert gateway.engine.problems() == []


def test_a_rule_whose_route_is_gone_answers_500_until_it_is_back(gateway: Gateway) -> None:
    change(gateway, routes={"two": None})
    assert body(gateway, "/two") == "500"
    assert gateway.engine.problems() == ['t: no route "two"']
    change(gateway, routes={"two": direct(200, "back")})
    assert body(gateway, "/two") == "back"
    assert gateway.engine.problems() == []


def test_a_listener_comes_with_its_table(gateway: Gateway) -> None:
    port = free_port()
    listeners = gateway.setup.ir()["listeners"]
    extra = {
        "id": "extra",
        "bind": [f"127.0.0.1:{port}"],
        "traffic": {"type": "http", "route_table": "extra"},
    }
    tables = {"extra": {"hosts": [{"hostname": "*", "rules": [rule("/", "four")]}]}}
    change(gateway, listeners=[*listeners, extra], route_tables=tables)
    assert gateway.engine.addresses()["extra"] == [("127.0.0.1", port)]
    gateway.port = port
    assert body(gateway, "/") == "four"
    # The table cannot go before the listener does.
    with pytest.raises(ConfigError, match="names route table"):
        change(gateway, route_tables={"extra": None})
    assert body(gateway, "/") == "four"
    change(gateway, listeners=listeners, route_tables={"extra": None})
    assert "extra" not in gateway.engine.addresses()


def test_a_service_of_a_waypoint_changes() -> None:
    routes = {name: direct(200, name) for name in ("one", "two")}
    destination = {"address": VIP, "port": 80, "service": "default/web", "route_table": "t"}
    traffic = {"type": "waypoint", "accept_v1": True, "destinations": [destination]}
    with serving(Setup(routes=routes, traffic=traffic)) as (gateway, _):
        client = gateway.connect()
        client.send(f"PROXY TCP4 127.0.0.9 {VIP} 40000 80\r\n".encode() + get("/two"))
        assert client.read_response().body == b"one"
        change(gateway, route_tables=hosts({"hostname": "*", "rules": [rule("/two", "two")]}))
        client.send(get("/two"))
        assert client.read_response().body == b"two"


def test_buckets_keep_their_tokens() -> None:
    limit = {
        "type": "local_rate_limit",
        "bucket": "b",
        "max_tokens": 1,
        "tokens_per_fill": 1,
        "fill_interval_ns": 60_000_000_000,
    }
    limited = direct(200, "let through") | {"filters": [limit]}
    with serving(Setup(routes={"d": limited})) as (gateway, _):
        assert [gateway.get().status for _ in range(2)] == [200, 429]
        change(gateway, routes={"other": direct(200)})
        assert gateway.get().status == 429
        change(gateway, routes={"d": limited | {"name": "renamed"}})
        assert gateway.get().status == 429
        change(gateway, routes={"d": limited | {"filters": [limit | {"max_tokens": 2}]}})
        assert gateway.get().status == 200


@pytest.mark.parametrize(
    ("delta", "error"),
    [
        ({"version": 2}, "version 2"),
        ({"base": 7}, "stale base"),
        ({"unknown": 1}, "unknown"),
        ({"routes": {"one": {"name": "one", "action": {"type": "none"}}}}, "none"),
        ({"routes": {"one": direct(200) | {"filters": [{"type": "none"}]}}}, "none"),
        ({"route_tables": {"t": None}, "routes": {"one": direct(200, "lost")}}, "route table"),
        ({"listeners": [{"id": "l", "bind": ["192.0.2.1:80"]}]}, "traffic"),
    ],
)
def test_bad_changes_change_nothing(gateway: Gateway, delta: dict[str, Any], error: str) -> None:
    before = {"version": 1, "base": 1}
    with pytest.raises(ConfigError, match=error):
        gateway.engine.apply_delta(json.dumps(before | delta).encode())
    gateway.reaches("generation", 1)
    change(gateway, routes={"two": direct(200, "new")})
    assert [body(gateway, path) for path in ("/", "/two")] == ["one", "new"]


def test_an_address_that_cannot_be_bound_changes_nothing(gateway: Gateway) -> None:
    stranger = {
        "id": "stranger",
        "bind": ["192.0.2.1:80"],
        "traffic": {"type": "http", "route_table": "t"},
    }
    listeners = [*gateway.setup.ir()["listeners"], stranger]
    gone = {"hostname": "*", "removed_rules": ["two"]}
    delta = {
        "version": 1,
        "base": 1,
        "listeners": listeners,
        "routes": {"one": direct(200, "lost")},
        "route_tables": hosts(gone),
    }
    with pytest.raises(OSError, match="cannot listen"):
        gateway.engine.apply_delta(json.dumps(delta).encode())
    change(gateway, routes={"four": direct(200, "new")})
    assert [body(gateway, path) for path in ("/", "/two")] == ["one", "two"]
    assert "stranger" not in gateway.engine.addresses()


def test_a_whole_configuration_is_a_base_as_well(gateway: Gateway) -> None:
    setup = Setup(routes={"d": direct(200, "whole")})
    gateway.apply(setup)
    with pytest.raises(ConfigError, match="stale base"):
        gateway.engine.apply_delta(b'{"version": 1, "base": 1}')
    change(gateway, routes={"d": direct(200, "changed")})
    assert body(gateway, "/") == "changed"
