"""What the load bench asks of the proxies: every configuration is one that they take."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from benches.load import manifests, probe
from benches.load.__main__ import main
from benches.load.peers import PROXIES
from benches.load.peers.envoy import bootstrap
from benches.load.peers.haproxy import render as render_haproxy
from benches.load.peers.nginx import render as render_nginx
from benches.load.programs import Programs
from benches.load.spec import HOST, KINDS, RouteTable, Spec

import kgw

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PLAIN = Spec(18_080, 18_081)
SPECS: dict[str, Spec] = {
    "plain": PLAIN,
    "h2": replace(PLAIN, h2=True),
    "proxy": replace(PLAIN, proxy_protocol=True),
    "waypoint": replace(PLAIN, proxy_protocol=True, waypoint=True),
    "bucket": replace(PLAIN, bucket=True, workers=2),
    "reload": replace(PLAIN, routes=RouteTable("paths", 40), version="v1"),
    **{str(kind): replace(PLAIN, routes=RouteTable(kind, 40)) for kind in KINDS},
}
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


@every_spec
def test_kgw_takes_the_manifests(spec: Spec, tmp_path: Path) -> None:
    manifests.write(spec, tmp_path / "manifests", tmp_path / "access.log")
    config = kgw.load(tmp_path / "manifests")

    assert [finding for finding in config.findings if finding.severity.name != "INFO"] == []
    config.raise_for_errors()
    routes = config.ir["routes"].values()
    forwards = [route for route in routes if route["action"]["type"] == "forward"]
    assert len(forwards) >= len(spec.rules())


@every_spec
@pytest.mark.parametrize(
    ("name", "render", "check"),
    [("nginx", render_nginx, ["-t", "-c"]), ("haproxy", render_haproxy, ["-c", "-f"])],
)
def test_the_others_take_their_files(
    spec: Spec, tmp_path: Path, name: str, render: Callable[[Spec, Path], str], check: list[str]
) -> None:
    config = tmp_path / "config"
    config.write_text(render(spec, tmp_path))
    program = Programs(tmp_path).find(name)
    if program is None:
        pytest.skip(f"{name} is not installed")  # a peer of the bench, from Debian
    result = subprocess.run([program, *check, str(config)], capture_output=True, text=True)

    assert result.returncode == 0, result.stderr


@every_spec
def test_envoy_has_a_route_for_each_rule(spec: Spec, tmp_path: Path) -> None:
    PROXIES["envoy"].command(Programs(tmp_path, {"envoy": "/envoy"}), spec, tmp_path)
    text = (tmp_path / "envoy.json").read_text()
    if spec.version:
        text = (tmp_path / "rds" / "routes.json").read_text()

    assert json.loads((tmp_path / "envoy.json").read_text()) == bootstrap(spec, tmp_path)
    assert text.count('"name": "route-') == len(spec.rules())
    assert text.count("max_tokens") == sum(map(spec.is_limited, spec.rules()))
    assert text.count("x-version") == bool(spec.version)


def test_a_change_replaces_one_route(tmp_path: Path) -> None:
    where = tmp_path / "manifests"
    spec = SPECS["reload"]
    manifests.write(spec, where, tmp_path / "access.log")
    fixed, changing = (where / "fixed.yaml").read_text(), (where / "changing.yaml").read_text()
    manifests.prepare_change(replace(spec, version="v2"), where)()

    assert (where / "fixed.yaml").read_text() == fixed
    assert (where / "changing.yaml").read_text() == changing.replace('"v1"', '"v2"')
    assert sorted(path.name for path in where.iterdir()) == ["changing.yaml", "fixed.yaml"]


@pytest.mark.parametrize("kind", KINDS)
def test_requests_are_spread_over_the_table_up_to_its_last_rule(kind: str) -> None:
    table = RouteTable(kind, 5000)  # type: ignore[arg-type]  # a parameter has lost its literal
    targets = table.targets()

    assert len(set(targets)) == 1000
    assert f"{4999:06d}" in targets[-1]
    assert len(RouteTable("paths", 7).targets()) == 7


def test_requests_have_the_form_of_the_load_generator() -> None:
    assert probe.request(f"{HOST} /a x-tenant: t-1") == (
        b"GET /a HTTP/1.1\r\nHost: bench.example.com\r\nx-tenant: t-1\r\nConnection: close\r\n\r\n"
    )


def test_the_proxy_header_is_one() -> None:
    header = kgw.parse_proxy_header(probe.proxy_header("10.96.9.9"))

    assert header.destination == ("10.96.9.9", 80)


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "get,nothing"])
    assert "nothing is none of" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--program", "kgw"])
    assert "kgw is not NAME=PATH" in capsys.readouterr().err
