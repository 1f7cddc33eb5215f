"""Where listeners bind instead of where the manifests put them."""

from __future__ import annotations

from typing import Any

import pytest

from kgw.binding import Binding, exposed, rebind, without_ipv6


def listeners(**binds: str) -> list[dict[str, Any]]:
    """Listeners of a Gateway with these binds; the one called `proxy` is a waypoint's."""
    return [
        {"id": f"default/gw/{name}", "bind": [bind], "traffic": {"type": kind}}
        for name, bind in binds.items()
        for kind in ["waypoint" if name == "proxy" else "http"]
    ]


@pytest.mark.parametrize(
    ("text", "binding"),
    [
        ("0.0.0.0", Binding(None, "0.0.0.0", None)),
        ("127.0.0.1:0", Binding(None, "127.0.0.1", 0)),
        ("::1", Binding(None, "::1", None)),
        ("[::1]", Binding(None, "::1", None)),
        ("[::1]:80", Binding(None, "::1", 80)),
        ("proxy=127.0.0.1:81", Binding("proxy", "127.0.0.1", 81)),
        ("default/gw/proxy=::", Binding("default/gw/proxy", "::", None)),
    ],
)
def test_a_binding_is_an_address_for_all_listeners_or_one(text: str, binding: Binding) -> None:
    assert Binding.parse(text) == binding


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'' is not IP"),
        ("foo", r"'foo' is not IP\[:PORT\]"),
        ("proxy=", "'' is not IP"),
        ("localhost:80", "'localhost' is not an IP address"),
        ("127.0.0.1:x", "'x' is not a port"),
        ("127.0.0.1:65536", "'65536' is not a port"),
    ],
)
def test_anything_else_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Binding.parse(text)


def binds(of: list[dict[str, Any]]) -> list[str]:
    return [bind for listener in of for bind in listener["bind"]]


def test_a_host_alone_keeps_the_ports() -> None:
    before = listeners(a="127.0.0.1:80", b="127.0.0.1:81")

    assert binds(rebind(before, ["::"])) == ["[::]:80", "[::]:81"]
    assert binds(before) == ["127.0.0.1:80", "127.0.0.1:81"]


def test_one_listener_is_named_by_the_end_of_its_id() -> None:
    both = listeners(a="127.0.0.1:80", b="127.0.0.1:81")

    assert binds(rebind(both, ["b=127.0.0.1:0"])) == ["127.0.0.1:80", "127.0.0.1:0"]
    assert binds(rebind(both, ["gw/a=127.0.0.1:9", "127.0.0.2"])) == [
        "127.0.0.2:9",
        "127.0.0.2:81",
    ]


def test_a_port_for_several_listeners_or_an_unknown_one_is_refused() -> None:
    both = listeners(a="127.0.0.1:80", b="127.0.0.1:81")

    with pytest.raises(ValueError, match="port 82 would be bound by default/gw/a, default/gw/b"):
        rebind(both, ["127.0.0.1:82"])
    with pytest.raises(ValueError, match="no listener 'c'"):
        rebind(both, ["c=127.0.0.1:82"])


def test_only_proxy_listeners_off_loopback_are_exposed() -> None:
    served = listeners(proxy="127.0.0.1:0", web="0.0.0.0:80")
    bound = {"default/gw/proxy": [("127.0.0.1", 15088), ("::1", 15088)]}
    bound["default/gw/web"] = [("0.0.0.0", 80)]

    assert list(exposed(served, bound)) == []
    bound["default/gw/proxy"].append(("0.0.0.0", 41234))
    assert list(exposed(served, bound)) == [("default/gw/proxy", ("0.0.0.0", 41234))]


def test_without_ipv6_only_listeners_on_ipv6_alone_keep_it() -> None:
    both = listeners(a="127.0.0.1:80", b="[::1]:81")
    both[0]["bind"].append("[::1]:80")

    assert binds(without_ipv6(both)) == ["127.0.0.1:80", "[::1]:81"]
