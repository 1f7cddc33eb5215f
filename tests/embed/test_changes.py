"""What a proxy sends to its engine when the configuration changes: the change, if that will do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.embed.upstream import fetch

import kgw
from kgw._native import engine as native
from kgw.config import Session
from kgw.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

ENGINE = native.Engine

GATEWAY = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "web"},
    "spec": {
        "gatewayClassName": "kgateway",
        "listeners": [{"name": "http", "port": 8080, "protocol": "HTTP"}],
    },
}


def route(name: str, path: str, status: int = 302) -> dict[str, Any]:
    redirect = {"type": "RequestRedirect", "requestRedirect": {"statusCode": status}}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name},
        "spec": {
            "parentRefs": [{"name": "web"}],
            "rules": [{"matches": [{"path": {"value": path}}], "filters": [redirect]}],
        },
    }


class Recorder:
    """An engine that notes what it is given."""

    def __init__(self, **options: Any) -> None:
        self.engine = ENGINE(**options)
        self.given: list[tuple[str, dict[str, Any]]] = []
        self.stale = False
        RECORDERS.append(self)

    def apply(self, config: bytes) -> int:
        self.given.append(("whole", json.loads(config)))
        return self.engine.apply(config)

    def apply_delta(self, delta: bytes) -> int:
        self.given.append(("delta", json.loads(delta)))
        if self.stale:
            self.engine.apply_delta(json.dumps({**json.loads(delta), "base": 0}).encode())
        return self.engine.apply_delta(delta)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


RECORDERS: list[Recorder] = []


@pytest.fixture
def models() -> Callable[[dict[str, Any]], Any]:
    """Makes a model of a mapping: the same one is what does not change."""
    return lambda one: kgw.Config.from_objects([one]).resources[0]


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    monkeypatch.setattr("kgw.proxy.native.Engine", Recorder)
    RECORDERS.clear()
    return RECORDERS


def status(proxy: kgw.BlockingProxy, path: str) -> int:
    ((address,),) = proxy.addresses.values()
    return fetch(address, path)[0]


def test_a_change_is_sent_alone(engines: list[Recorder], models: Any) -> None:
    session = Session()
    gateway, first, second = map(models, [GATEWAY, route("a", "/a"), route("b", "/b")])
    with kgw.Proxy(session.from_objects([gateway, first, second]), bind="127.0.0.1:0") as proxy:
        (engine,) = engines
        third = models(route("b", "/b", 301))
        proxy.apply(session.from_objects([gateway, first, third]))
        assert (status(proxy, "/a"), status(proxy, "/b")) == (302, 301)
        proxy.apply(session.from_objects([gateway, third]))
        assert (status(proxy, "/a"), status(proxy, "/b")) == (404, 301)
        proxy.apply(session.from_objects([gateway, third]))
    ident = "httproute/default/{}/0/0@gateway/default/web/8080".format
    assert [(what, sorted(one["routes"])) for what, one in engine.given] == [
        ("delta", [ident("b")]),
        ("delta", [ident("a")]),
        ("delta", []),
    ]
    assert [one["base"] for _, one in engine.given] == [1, 2, 3]
    assert not any("listeners" in one for _, one in engine.given)


def test_a_change_of_everything_is_sent_as_a_whole(engines: list[Recorder]) -> None:
    def config(status: int) -> kgw.Config:
        routes = (route(f"r{number}", f"/{number}", status) for number in range(120))
        return kgw.Config.from_objects([GATEWAY, *routes])

    with kgw.Proxy(config(302), bind="127.0.0.1:0") as proxy:
        proxy.apply(config(301))
        assert status(proxy, "/119") == 301
    assert [what for what, _ in engines[0].given] == ["whole"]


def test_listeners_are_sent_as_they_are_bound(engines: list[Recorder]) -> None:
    with kgw.Proxy([GATEWAY, route("a", "/a")], bind="127.0.0.1:0") as proxy:
        listener = {"name": "http", "port": 8081, "protocol": "HTTP"}
        spec = {"gatewayClassName": "kgateway", "listeners": [listener]}
        more = {**GATEWAY, "metadata": {"name": "more"}, "spec": spec}
        proxy.apply([GATEWAY, more, route("a", "/a")])
        assert len(proxy.addresses) == 2
    ((what, delta),) = engines[0].given
    assert what == "delta"
    assert [one["bind"] for one in delta["listeners"]] == [["127.0.0.1:0"]] * 2


def test_an_engine_that_runs_something_else_gets_the_whole(engines: list[Recorder]) -> None:
    with kgw.Proxy([GATEWAY, route("a", "/a")], bind="127.0.0.1:0") as proxy:
        engines[0].stale = True
        proxy.apply([GATEWAY, route("a", "/a", 301)])
        assert status(proxy, "/a") == 301
        engines[0].stale = False
        proxy.apply([GATEWAY, route("a", "/a", 303)])
        assert status(proxy, "/a") == 303
    assert [what for what, _ in engines[0].given] == ["delta", "whole", "delta"]


def test_after_a_refused_change_the_next_one_is_to_what_serves(engines: list[Recorder]) -> None:
    with kgw.Proxy([GATEWAY, route("a", "/a")], bind="127.0.0.1:0") as proxy:
        with pytest.raises(ConfigError):
            proxy.apply([GATEWAY, {**route("a", "/a"), "spec": {"rules": 1}}])
        proxy.apply([GATEWAY, route("a", "/a", 301)])
        assert status(proxy, "/a") == 301
    assert [(what, one["base"]) for what, one in engines[0].given] == [("delta", 1)]


def test_models_that_are_defined_twice_are_told_of_each_time(models: Any) -> None:
    session = Session()
    gateway, first, second = map(models, [GATEWAY, route("a", "/a"), route("a", "/b")])
    for given, used, codes in (
        ([gateway, first], first, []),
        ([gateway, first, second], second, ["KGW301"]),
        ([gateway, second, first], first, ["KGW301"]),
        ([gateway, first, first], first, ["KGW301"]),
        ([gateway, second], second, []),
        ([first, gateway], first, []),
    ):
        config = session.from_objects(given)
        assert {*map(id, config.resources)} == {id(gateway), id(used)}
        assert [one.code for one in config.findings] == codes
        anew = kgw.Config.from_objects(given)
        assert (config.ir_bytes, config.findings) == (anew.ir_bytes, anew.findings)
