"""`kgw check`."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Kgw


def test_the_scenario_has_no_errors_and_every_resource_its_status(
    kgw: Kgw, manifests: Path
) -> None:
    result = kgw("check", "-f", manifests)

    assert result.returncode == 0, result.stdout
    lines = result.stdout.splitlines()
    heads = next(line for line in lines if line.startswith("RESOURCE"))
    assert heads.split() == ["RESOURCE", "ABOUT", "CONDITION", "STATUS", "REASON", "MESSAGE"]
    for resource in (
        "Gateway default/kgateway-waypoint",
        "HTTPRoute default/ollama",
        "TrafficPolicy default/ratelimit",
        "HTTPListenerPolicy default/access-logging",
    ):
        accepted = [line for line in lines if line.startswith(resource) and "Accepted" in line]
        assert accepted, resource
        assert all("True" in line for line in accepted)


def test_json_has_findings_and_statuses(kgw: Kgw, manifests: Path) -> None:
    result = kgw("check", "-f", manifests, "-o", "json")

    assert result.returncode == 0
    report = json.loads(result.stdout)
    assert report.keys() == {"findings", "statuses"}
    [route] = [
        entry["status"]
        for entry in report["statuses"]
        if entry["resource"] == "HTTPRoute default/ollama"
    ]
    conditions = {one["type"]: one["status"] for one in route["parents"][0]["conditions"]}
    assert conditions["Accepted"] == conditions["ResolvedRefs"] == "True"


def test_an_error_points_at_the_place_and_exits_with_1(kgw: Kgw, manifests: Path) -> None:
    route = manifests / "httproute-timeout.yaml"
    route.write_text(route.read_text().replace("type: PathPrefix", "type: PathPrefx"))

    result = kgw("check", "-f", manifests)

    assert result.returncode == 1
    assert f"--> {route}:13:17\n" in result.stdout
    assert "13 |           type: PathPrefx\n" in result.stdout
    assert "   |                 ^^^^^^^^^\n" in result.stdout
    assert "did you mean `PathPrefix`?" in result.stdout

    findings = json.loads(kgw("check", "-f", manifests, "-o", "json").stdout)["findings"]
    [error] = [finding for finding in findings if finding.get("file") == str(route)]
    assert (error["line"], error["column"], error["severity"]) == (13, 17, "error")
    assert error["resource"] == "HTTPRoute default/ollama"
    assert error["code"].startswith("KGW2")


def test_a_warning_exits_with_1_only_when_strict(kgw: Kgw, manifests: Path) -> None:
    route = manifests / "httproute-timeout.yaml"
    route.write_text(route.read_text().replace("timeouts:", "timeout:"))

    lenient, strict = kgw("check", "-f", manifests), kgw("check", "-f", manifests, "--strict")

    assert "did you mean `timeouts`" in lenient.stdout
    assert lenient.returncode == 0
    assert strict.returncode == 1
    assert strict.stdout == lenient.stdout


def test_there_are_no_colours_in_a_pipe(kgw: Kgw, manifests: Path) -> None:
    assert "\x1b" not in kgw("check", "-f", manifests).stdout


def test_nothing_to_check_is_not_a_success(kgw: Kgw, tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n---\n")
    (tmp_path / "sub").mkdir()

    for arguments in (["-f", tmp_path], ["-f", tmp_path / "sub"], ["-f", "-"]):
        result = kgw("check", *arguments)
        assert result.returncode == 1
        assert "nothing to check" in result.stderr
    report = kgw("check", "-f", tmp_path / "sub", "-o", "json")
    assert report.returncode == 1
    assert json.loads(report.stdout)["statuses"] == []


def test_check_needs_files(kgw: Kgw) -> None:
    assert kgw("check").returncode == 2


def test_a_policy_of_a_mistyped_group_is_an_error(kgw: Kgw, manifests: Path) -> None:
    for manifest in manifests.glob("*.yaml"):
        text = manifest.read_text()
        manifest.write_text(text.replace("gateway.kgateway.dev/", "gateway.kgateway.io/"))

    result = kgw("check", "-f", manifests)

    assert result.returncode == 1
    assert "error[KGW211]: kind `TrafficPolicy` is not of group `gateway.kgateway.io`" in (
        result.stdout
    )
    assert "did you mean `apiVersion: gateway.kgateway.dev/v1alpha1`?" in result.stdout


def test_routes_of_connections_have_statuses_and_secrets_stay_secret(
    kgw: Kgw, tmp_path: Path
) -> None:
    key = base64.b64encode(b"canary").decode()
    data = {"tls.crt": "not base64", "tls.key": key}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cert"}, "data": data}
    (tmp_path / "secret.json").write_text(json.dumps(secret))
    (tmp_path / "tls.yaml").write_text("""\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: kgateway
  listeners:
  - {name: pass, port: 443, protocol: TLS, tls: {mode: Passthrough}}
  - {name: end, port: 444, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: web}
spec:
  parentRefs: [{name: edge}]
  hostnames: [a.example]
  rules: [{backendRefs: [{name: web, port: 443}]}]
""")
    result = kgw("check", "-f", tmp_path)

    assert result.returncode == 1
    lines = result.stdout.splitlines()
    [resolved] = [one for one in lines if one.startswith("TLSRoute") and "ResolvedRefs" in one]
    assert resolved.split()[-5:] == ["BackendNotFound", "Service", "default/web", "not", "found"]
    [broken] = [one for one in lines if "listener end" in one and "ResolvedRefs" in one]
    assert "InvalidCertificateRef" in broken
    assert "error[KGW207]: the value is not base64" in lines
    assert key not in result.stdout + result.stderr
