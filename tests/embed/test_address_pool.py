"""Gateways with addresses of their own inside a program, and in tests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from tests.cli.test_status_files import gateways
from tests.embed.upstream import Upstream, fetch

import kgw
from kgw.api import ResourceKey
from kgw.testing import Gateway

if TYPE_CHECKING:
    from kgw.config import Config

#: Addresses of loopback that no test of another process has.
POOL = f"127.{60 + os.getpid() % 40}.{os.getpid() // 40 % 250}.0/24"


def address(config: Config, name: str) -> str:
    key = ResourceKey("gateway.networking.k8s.io", "Gateway", "default", name)
    (one,) = config.statuses[key].addresses
    return one["value"]


def test_each_gateway_is_on_its_own_address(upstream: Upstream) -> None:
    with kgw.Proxy(gateways(upstream, "a", "b"), address_pool=POOL, workers=1) as proxy:
        places = {name: proxy.addresses[f"default/{name}/http"][0] for name in "ab"}
        assert places["a"][0] != places["b"][0]
        assert {port for _, port in places.values()} == {8080}
        for name, at in places.items():
            assert fetch(at, f"/{name}") == (200, f"/{name}".encode())
        config = proxy.apply(gateways(upstream, "b", "c"))
        assert address(config, "b") == places["b"][0]
        assert fetch((address(config, "c"), 8080), "/c") == (200, b"/c")
        with pytest.raises(ConnectionRefusedError):
            fetch(places["a"], "/a")


def test_a_config_has_options_of_its_own(upstream: Upstream) -> None:
    config = kgw.Config.from_objects(gateways(upstream, "a"))
    with pytest.raises(ValueError, match="options of its own"):
        kgw.Proxy(config, address_pool=POOL)
    with pytest.raises(ValueError, match="options"):
        Gateway(config, address_pool=POOL)
    with (
        kgw.Proxy(gateways(upstream, "a"), address_pool=POOL, workers=1) as proxy,
        pytest.raises(ValueError, match="options of its own"),
    ):
        proxy.apply(config)


def test_what_is_no_network_is_refused(upstream: Upstream) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        kgw.Proxy(gateways(upstream, "a"), address_pool="anywhere")


def test_a_gateway_under_test_may_have_several(upstream: Upstream) -> None:
    objects: list[Any] = gateways(upstream, "a", "b")
    with Gateway(objects, address_pool=POOL) as gateway:
        assert len({at[0][0] for at in gateway.addresses.values()}) == 2
        assert {at[0][1] for at in gateway.addresses.values()} == {8080}
        answer = gateway.get("/a", listener="default/a/http")
        assert answer.status == 200
