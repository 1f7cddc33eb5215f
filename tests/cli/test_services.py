"""`kgw services`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Kgw

TABLE = """\
NAMESPACE    SERVICE NAME         SERVICE VIP      WAYPOINT             ENDPOINTS
default      client               10.96.143.111    kgateway-waypoint    1/1
default      kgateway-waypoint    10.96.235.185    kgateway-waypoint    1/1
default      ollama               10.96.238.187    kgateway-waypoint    1/1
"""


def test_the_scenario_has_the_table_of_the_walkthrough(kgw: Kgw, manifests: Path) -> None:
    result = kgw("services", "-f", manifests)

    assert (result.returncode, result.stdout) == (0, TABLE)


def test_wide_adds_the_ports(kgw: Kgw, manifests: Path) -> None:
    result = kgw("services", "-f", manifests, "-o", "wide")

    assert result.returncode == 0
    narrow = TABLE.splitlines()
    for line, before in zip(result.stdout.splitlines(), narrow, strict=True):
        assert line.startswith(before)
    assert [line.split()[-1] for line in result.stdout.splitlines()] == [
        "PORTS",
        "80/TCP",
        "15088/TCP",
        "80/TCP",
    ]


def test_json_has_a_member_per_column(kgw: Kgw, manifests: Path) -> None:
    rows = json.loads(kgw("services", "-f", manifests, "-o", "json").stdout)

    assert [row["service"] for row in rows] == ["client", "kgateway-waypoint", "ollama"]
    assert rows[2] == {
        "namespace": "default",
        "service": "ollama",
        "vips": ["10.96.238.187"],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        "waypoint": "kgateway-waypoint",
        "endpoints": {"ready": 1, "total": 1},
    }


def test_a_service_that_opts_out_has_no_waypoint(kgw: Kgw, manifests: Path) -> None:
    cluster = manifests / "cluster.yaml"
    cluster.write_text(
        cluster.read_text().replace(
            "metadata: {name: client, namespace: default}",
            "metadata: {name: client, labels: {istio.io/use-waypoint: none}}",
        )
    )

    rows = json.loads(kgw("services", "-f", manifests, "-o", "json").stdout)

    assert {row["service"]: row["waypoint"] for row in rows} == {
        "client": None,
        "kgateway-waypoint": "kgateway-waypoint",
        "ollama": "kgateway-waypoint",
    }
