"""Options of connections that are not HTTP, or not yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.attach.test_policies import NEW, listener_policy
from tests.attach.test_tls_listeners import gateway, https, tls
from tests.translate.certificates import secret
from tests.translate.support import EDGE, MESH, codes, run
from tests.translate.test_listener_options import annotated
from tests.translate.test_tls import SERVICE, stream_route

from kgw.translate import settings

if TYPE_CHECKING:
    from kgw.translate import Translation

pytestmark = pytest.mark.fields("ListenerPolicy.spec.default.transportSocketConnectTimeout")

HANDSHAKE = listener_policy("a", NEW, "default: {transportSocketConnectTimeout: 3s}")
TCP = "{name: tcp, port: 443, protocol: TCP}"


def traffic(found: Translation) -> dict[str, Any]:
    (only,) = found.ir["listeners"]
    return dict(only["traffic"])


def test_time_for_the_handshake() -> None:
    found = run(gateway(https()), secret("cert"), HANDSHAKE)
    assert traffic(found)["handshake_timeout_ms"] == 3000
    assert codes(found) == []


def test_without_tls_there_is_no_handshake() -> None:
    found = run(EDGE, HANDSHAKE)
    assert "handshake_timeout_ms" not in traffic(found)
    assert codes(found) == []


@pytest.mark.parametrize(
    ("listener", "kind"), [(TCP, "TCPRoute"), (tls("tls"), "TLSRoute")], ids=["tcp", "tls"]
)
def test_idle_time_of_connections_that_are_passed_on(listener: str, kind: str) -> None:
    text = annotated({"tcp-idle-timeout": "90s"}, gateway(listener))
    hostnames = "" if kind == "TCPRoute" else "[a.example]"
    found = run(text, SERVICE, stream_route("route", hostnames, kind=kind))
    every = list(settings.forwards(traffic(found)))
    assert any(one["backends"] for one in every)
    assert {one["idle_timeout_ms"] for one in every} == {90_000}


def test_idle_time_of_the_streams_of_a_waypoint() -> None:
    streams = MESH.replace("{name: http, port: 80}, ", "{name: tcp, port: 80}, ")
    found = run(annotated({"tcp-idle-timeout.proxy": "0s"}, streams, "way"))
    (only,) = {one["idle_timeout_ms"] for one in settings.forwards(traffic(found))}
    assert only == 0


def test_requests_are_not_passed_on_as_bytes() -> None:
    assert codes(run(annotated({"tcp-idle-timeout": "90s"}))) == ["KGW413"]


def test_an_option_for_all_listeners_need_not_have_an_effect_on_each() -> None:
    both = gateway("{name: web, port: 80, protocol: HTTP}", TCP)
    found = run(annotated({"tcp-idle-timeout": "90s"}, both))
    assert codes(found) == []
    streams = (one["traffic"] for one in found.ir["listeners"])
    assert [one["idle_timeout_ms"] for each in streams for one in settings.forwards(each)] == [
        90_000
    ]

    own = run(annotated({"tcp-idle-timeout.web": "90s"}, both))
    assert codes(own) == ["KGW413"]
