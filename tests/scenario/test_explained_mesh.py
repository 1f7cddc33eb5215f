"""Routes of the mesh in tests of one's own, and in `kgw explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.scenario.stage import MESH_NAMESPACE, WAYPOINT, route
from tests.scenario.test_mesh_routes import IMPORT, of_service

from kgw.testing import Gateway

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Kgw

SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: theirs}
spec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 80}]}
"""

CALLS = """
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls}
spec:
  parentRefs: [{group: "", kind: Service, name: theirs}]
  rules:
  - matches: [{method: {method: Check}}]
    backendRefs: [{name: web, port: 80}]
"""

IMPORTED = route(
    "- backendRefs: [{name: theirs, port: 80}]",
    parent="{group: multicluster.x-k8s.io, kind: ServiceImport, name: web}",
    name="imported",
)

MANIFESTS = "\n---\n".join(
    [
        WAYPOINT,
        MESH_NAMESPACE,
        SERVICES,
        of_service("ours", "web"),
        of_service("mine", "theirs", namespace="shop"),
        CALLS,
        IMPORT.replace("PORT", "9000"),
        IMPORTED,
    ]
)


@pytest.mark.parametrize(
    ("url", "namespace", "chosen"),
    [
        ("http://web.default/", "default", "default/ours/0/0"),
        ("http://web.default/", "shop", "shop/mine/0/0"),
        ("http://web.default.svc.clusterset.local/", "shop", "default/imported/0/0"),
    ],
)
def test_who_asks_decides(url: str, namespace: str, chosen: str, kgw: Kgw, tmp_path: Path) -> None:
    identity = f"spiffe://cluster.local/ns/{namespace}/sa/client"
    with Gateway(MANIFESTS) as gateway:
        assert gateway.explain("GET", url, identity=identity) == (
            f"{chosen}: prefix / on *: selected"
        )
        assert gateway.get(url, identity=identity).route == chosen
    (tmp_path / "mesh.yaml").write_text(MANIFESTS)
    told = kgw("explain", "-f", tmp_path, url, "--source-namespace", namespace, "-o", "json")
    assert told.returncode == 0, told.stderr
    assert f'"route": "{chosen}"' in told.stdout


def test_a_method_of_any_service_is_explained(kgw: Kgw, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(MANIFESTS)
    told = kgw("explain", "-f", tmp_path, "http://theirs/any.Service/Check", "--grpc")
    assert told.returncode == 0, told.stderr
    assert "GRPCRoute default/calls" in told.stdout
    other = kgw("explain", "-f", tmp_path, "http://theirs/any.Service/Watch", "--grpc")
    assert "default/calls" in other.stdout
    assert "grpc-status: 12" in other.stdout
