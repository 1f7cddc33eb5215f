"""Addresses that move between listeners, and reloads that follow each other closely."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from kgw.errors import NotRunning

from .harness import Gateway, Setup, always, get, ok, serving


def rebound(gateway: Gateway, host: str, listener: str = "l") -> dict[str, Any]:
    """The configuration with its one listener on the port in use, at another address or name."""
    ir = deepcopy(gateway.setup.ir())
    ir["listeners"][0] |= {"id": listener, "bind": [f"{host}:{gateway.port}"]}
    return ir


def test_a_renamed_listener_serves_its_address() -> None:
    with serving(Setup(), always(ok(b"served"))) as (gateway, _):
        gateway.apply_ir(rebound(gateway, "127.0.0.1"))
        gateway.apply_ir(rebound(gateway, "127.0.0.1", listener="renamed"))
        assert gateway.get().body == b"served"
        assert "renamed" in gateway.engine.addresses()


def test_a_listener_moves_to_every_address_of_its_port_and_back() -> None:
    with serving(Setup(), always(ok(b"served"))) as (gateway, _):
        for host in ["127.0.0.1", "0.0.0.0", "127.0.0.1"]:
            gateway.apply_ir(rebound(gateway, host))
            assert gateway.get().body == b"served"


def test_a_listener_that_goes_and_comes_at_once_is_there() -> None:
    with serving(Setup(), always(ok(b"served")), workers=2) as (gateway, _):
        with_listener = rebound(gateway, "127.0.0.1")
        gateway.apply_ir(with_listener)
        without = deepcopy(with_listener) | {"listeners": []}
        for _ in range(20):
            gateway.publish(without)
            gateway.apply_ir(with_listener)
            assert gateway.get().body == b"served"


def test_a_specific_and_a_wildcard_address_share_a_port() -> None:
    with serving(Setup(), always(ok(b"served"))) as (gateway, _):
        ir = rebound(gateway, "127.0.0.1")
        wildcard = {"id": "wildcard", "bind": [f"0.0.0.0:{gateway.port}"]}
        ir["listeners"].append(deepcopy(ir["listeners"][0]) | wildcard)
        gateway.apply_ir(ir)
        assert gateway.get().body == b"served"


def test_a_draining_engine_takes_no_new_configuration() -> None:
    with serving(Setup()) as (gateway, _):
        client = gateway.connect()
        client.send(get("/", "connection: keep-alive"))
        client.read_response()
        gateway.engine.drain()
        with pytest.raises(NotRunning):
            gateway.engine.apply(gateway.setup.encoded())
