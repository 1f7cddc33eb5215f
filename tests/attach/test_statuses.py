"""The form of statuses."""

from __future__ import annotations

from kgw.attach import Condition, ListenerStatus, ParentStatus, Status

ACCEPTED = Condition("Accepted", "True", "Accepted", "fine", 3)
JSON = {
    "type": "Accepted",
    "status": "True",
    "reason": "Accepted",
    "message": "fine",
    "observedGeneration": 3,
}


def test_a_status_is_written_as_kubernetes_has_it() -> None:
    kinds = ({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"},)
    status = Status(
        (ACCEPTED,),
        (ListenerStatus("http", kinds, 2, (ACCEPTED,)),),
        ({"type": "IPAddress", "value": "10.0.0.1"},),
        ancestors=(ParentStatus({"kind": "Gateway", "name": "edge"}, (ACCEPTED,)),),
    )
    assert status.to_json() == {
        "addresses": [{"type": "IPAddress", "value": "10.0.0.1"}],
        "conditions": [JSON],
        "listeners": [
            {
                "name": "http",
                "supportedKinds": list(kinds),
                "attachedRoutes": 2,
                "conditions": [JSON],
            }
        ],
        "ancestors": [
            {
                "ancestorRef": {"kind": "Gateway", "name": "edge"},
                "controllerName": "kgateway.dev/kgateway",
                "conditions": [JSON],
            }
        ],
    }


def test_every_condition_says_what_it_is_about() -> None:
    status = Status(
        (ACCEPTED,),
        (ListenerStatus("http", (), 0, (ACCEPTED,)),),
        parents=(
            ParentStatus({"name": "edge", "namespace": "infra", "sectionName": "a"}, (ACCEPTED,)),
        ),
    )
    assert [about for about, _ in status.all_conditions()] == [
        "",
        "listener http",
        "Gateway infra/edge/a",
    ]
