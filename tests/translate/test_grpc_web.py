"""Where gRPC-Web is translated."""

from __future__ import annotations

import pytest
from tests.attach.test_policies import policy
from tests.translate.support import EDGE, MESH, ROUTE, filters, run
from tests.translate.test_listener_options import TWO_LISTENERS, annotated

WEB = {"type": "grpc_web"}
DECLARED = MESH.replace(
    "{name: http, port: 80}, ", "{name: http, port: 80, appProtocol: GRPC-Web}, "
)


def test_a_port_that_is_declared_so_is_reached_through_the_filter() -> None:
    found = filters(run(DECLARED))
    assert found["default/web:80"] == [WEB]
    assert found["default/web:81"] == found["default/api:80"] == []


def test_an_option_is_for_all_routes_of_a_listener() -> None:
    assert filters(run(annotated({"grpc-web": "true"}), ROUTE)) == {"default/route/0/0": [WEB]}
    found = run(annotated({"grpc-web.b": "true"}, TWO_LISTENERS), ROUTE).ir["routes"]
    assert {name.partition("@")[2]: one["filters"] for name, one in found.items()} == {
        "gateway/default/edge/80": [],
        "gateway/default/edge/81": [WEB],
    }


def test_an_option_turns_it_off() -> None:
    found = filters(run(annotated({"grpc-web": "false"}, DECLARED, "way")))
    assert found["default/web:80"] == []


@pytest.mark.parametrize(
    ("text", "gateway", "route"),
    [(EDGE + "---" + ROUTE, "edge", "default/route/0/0"), (MESH, "way", "default/web:80")],
)
def test_it_comes_before_what_may_refuse_a_request(text: str, gateway: str, route: str) -> None:
    limit = policy("a", f"kind: Gateway, name: {gateway}")
    found = filters(run(annotated({"grpc-web": "true"}, text, gateway), limit))
    assert [one["type"] for one in found[route]] == ["grpc_web", "local_rate_limit"]
