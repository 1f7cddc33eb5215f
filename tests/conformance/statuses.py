"""What holds for every status of every test, whatever else the test is about.

The suite's helpers look at these with each condition that they wait for: a status is of the object
as it is now, and says what it is about as the API server keeps it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgw.api import ResourceKey
    from kgw.attach.status import Status

_GROUP: Final = "gateway.networking.k8s.io"
_CONTROLLER: Final = "kgateway.dev/kgateway"

#: What a condition may have as its type and as its reason, in every CRD.
_TYPE: Final = re.compile(r"([A-Za-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_REASON: Final = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")

#: The kinds of routes that a listener of a protocol can have.
_KINDS: Final = {
    "HTTP": {"HTTPRoute", "GRPCRoute"},
    "HTTPS": {"HTTPRoute", "GRPCRoute"},
    "TLS": {"TLSRoute", "TCPRoute"},
    "TCP": {"TCPRoute"},
    "UDP": {"UDPRoute"},
    "istio.io/PROXY": {"HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"},
}


def check(statuses: Mapping[ResourceKey, Status], manifests: Iterable[dict[str, Any]]) -> None:
    """Checks all statuses against the objects that they are of."""
    objects = {}
    for one in manifests:
        meta = one["metadata"]
        group = one["apiVersion"].rpartition("/")[0]
        objects[group, one["kind"], meta.get("namespace", ""), meta["name"]] = one
    for key, status in statuses.items():
        found = objects.get((key.group, key.kind, key.namespace, key.name))
        assert found is not None, f"a status of {key}, which does not exist"
        _check(str(key), found, status.to_json())


def _check(name: str, found: Mapping[str, Any], status: Mapping[str, Any]) -> None:
    generation = found["metadata"].get("generation", 1)
    spec = found.get("spec", {})
    if "conditions" in status:
        _conditions(name, status["conditions"], generation)
    for address in status.get("addresses", ()):
        assert address["type"], (name, address)
        assert address["value"], (name, address)
    if found["kind"] in ("Gateway", "ListenerSet"):
        _listeners(name, spec["listeners"], status.get("listeners", []), generation)
        written = {one["type"] for one in status.get("conditions", ())}
        assert not status or {"Accepted", "Programmed"} <= written, (name, written)
    if found["kind"] == "Gateway" and status:
        assert isinstance(status["attachedListenerSets"], int), name
        if not any(one["status"] == "False" for one in status["conditions"]):
            assert len(status["listeners"]) == len(spec["listeners"]), name
    stated = [_stored(one) for one in spec.get("parentRefs", ())]
    for entry in status.get("parents", ()):
        assert entry["controllerName"] == _CONTROLLER, name
        assert entry["parentRef"] in stated, (name, entry["parentRef"])
        stated.remove(entry["parentRef"])
        _conditions(name, entry["conditions"], generation)
        assert {one["type"] for one in entry["conditions"]} >= {"Accepted", "ResolvedRefs"}, name
    for entry in status.get("ancestors", ()):
        assert entry["controllerName"] == _CONTROLLER, name
        assert {"group", "kind", "name"} <= set(entry["ancestorRef"]), (name, entry["ancestorRef"])
        _conditions(name, entry["conditions"], generation)


def _conditions(name: str, rows: list[dict[str, Any]], generation: int) -> None:
    types = [one["type"] for one in rows]
    assert 0 < len(types) == len(set(types)) <= 8, (name, types)
    for one in rows:
        assert one["observedGeneration"] == generation, (name, one)
        assert one["status"] in ("True", "False", "Unknown"), (name, one)
        assert _TYPE.fullmatch(one["type"]), (name, one)
        assert _REASON.fullmatch(one["reason"]), (name, one)
        assert len(one["message"]) <= 32_768, (name, one)


def _listeners(
    name: str, stated: list[dict[str, Any]], found: list[dict[str, Any]], generation: int
) -> None:
    protocols = {one["name"]: one["protocol"] for one in stated}
    names = [one["name"] for one in found]
    assert names in ([], list(protocols)), (name, names)
    for one in found:
        _conditions(f"{name}, {one['name']}", one["conditions"], generation)
        assert {row["type"] for row in one["conditions"]} >= {
            "Accepted",
            "Conflicted",
            "Programmed",
            "ResolvedRefs",
        }, (name, one)
        assert one["attachedRoutes"] >= 0
        possible = _KINDS.get(protocols[one["name"]], set())
        for kind in one["supportedKinds"]:
            assert kind["group"] == _GROUP, (name, kind)
            assert kind["kind"] in possible, (name, kind)


def _stored(ref: Mapping[str, Any]) -> dict[str, Any]:
    """A parentRef with the defaults of the CRD."""
    return {"group": _GROUP, "kind": "Gateway", **ref}
