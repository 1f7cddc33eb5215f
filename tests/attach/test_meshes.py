"""XMeshes have a status if they are kgw's."""

from __future__ import annotations

import pytest
from tests.conformance.suite import OFFICIAL
from tests.translate.support import codes, run, status, verdict

MESH = """
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XMesh
metadata: {name: mine, generation: 3}
spec: {controllerName: kgateway.dev/kgateway}
"""


def test_a_mesh_of_kgw_is_accepted_and_says_what_it_can_do() -> None:
    found = run(MESH)
    assert verdict(found, "XMesh mine", "Accepted") == ("True", "Accepted")
    told = status(found, "XMesh mine").to_json()
    assert told["conditions"][0]["observedGeneration"] == 3
    features = [one["name"] for one in told["supportedFeatures"]]
    assert features == sorted(features)
    # All that any test of the suite for meshes needs.
    needed = {
        feature
        for test in OFFICIAL.values()
        if "Mesh" in test.features
        for feature in test.features
    }
    assert set(features) == needed
    assert codes(found) == []


def test_parameters_make_it_invalid() -> None:
    ref = 'parametersRef: {group: "", kind: ConfigMap, name: p, namespace: default}'
    found = run(MESH.replace("{controller", f"{{{ref}, controller"))
    assert verdict(found, "XMesh mine", "Accepted") == ("False", "InvalidParameters")
    assert codes(found) == ["KGW309"]


@pytest.mark.parametrize("controller", ["istio.io/mesh", "example.com/mesh"])
def test_a_mesh_of_others_is_left_to_them(controller: str) -> None:
    assert run(MESH.replace("kgateway.dev/kgateway", controller)).statuses == {}
