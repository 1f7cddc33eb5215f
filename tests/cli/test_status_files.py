"""Statuses without a cluster: printed by `kgw check`, kept in a file by `kgw run`."""

from __future__ import annotations

import json
import os
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.cli.test_run import write
from tests.embed.upstream import Upstream, fetch, resources

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Kgw, Running

#: Addresses of loopback that no test of another process has.
POOL = f"127.{100 + os.getpid() % 100}.{os.getpid() // 100 % 250}.0/24"


def gateways(upstream: Upstream, *names: str) -> list[dict[str, Any]]:
    """Gateways on one port, each with a route that only it has."""
    (gateway, route, *backends) = resources(upstream)
    found = list(backends)
    for name in names:
        found.append({**gateway, "metadata": {"name": name}})
        (rule,) = route["spec"]["rules"]
        path = [{"path": {"type": "PathPrefix", "value": f"/{name}"}}]
        spec = {"parentRefs": [{"name": name}], "rules": [{**rule, "matches": path}]}
        found.append({**route, "metadata": {"name": name}, "spec": spec})
    return found


def statuses(text: str) -> dict[str, Any]:
    """The documents of a text, by kind and name."""
    documents = list(yaml.safe_load_all(text))
    return {f"{one['kind']} {one['metadata']['name']}": one for one in documents}


def address(text: str, gateway: str) -> str:
    """The only address of a Gateway."""
    (one,) = statuses(text)[f"Gateway {gateway}"]["status"]["addresses"]
    assert one["type"] == "IPAddress"
    return str(one["value"])


def test_check_prints_statuses_as_a_cluster_has_them(
    kgw: Kgw, tmp_path: Path, upstream: Upstream
) -> None:
    write(tmp_path / "m", *gateways(upstream, "a", "b"))
    result = kgw("check", "-f", tmp_path / "m", "--status", "-o", "yaml", "--address-pool", POOL)
    assert result.returncode == 0, result.stderr
    found = statuses(result.stdout)
    assert found.keys() == {"Gateway a", "Gateway b", "HTTPRoute a", "HTTPRoute b"}
    assert found["Gateway a"]["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert found["Gateway a"]["metadata"] == {"name": "a", "namespace": "default", "generation": 1}
    addresses = {address(result.stdout, name) for name in "ab"}
    assert len(addresses) == 2
    assert all(ip_address(one) in ip_network(POOL) for one in addresses)
    conditions = {one["type"]: one for one in found["Gateway a"]["status"]["conditions"]}
    assert conditions["Programmed"]["status"] == "True"

    as_json = kgw("check", "-f", tmp_path / "m", "--status", "-o", "json", "--address-pool", POOL)
    items = json.loads(as_json.stdout)["items"]
    assert [one["status"] for one in items] == [one["status"] for one in found.values()]


def test_check_prints_only_conditions_as_a_table_and_findings_beside(
    kgw: Kgw, tmp_path: Path, upstream: Upstream
) -> None:
    objects = gateways(upstream, "a")
    objects[2]["spec"]["addresses"] = [{"value": "192.0.2.1"}]
    write(tmp_path / "m", *objects)
    result = kgw("check", "-f", tmp_path / "m", "--status", "--address-pool", POOL)
    assert result.returncode == 1
    assert result.stdout.startswith("RESOURCE")
    assert "AddressNotUsable" in result.stdout
    assert "KGW417" in result.stderr
    assert "KGW417" not in result.stdout


def test_check_says_all_in_yaml_too(kgw: Kgw, tmp_path: Path, upstream: Upstream) -> None:
    write(tmp_path / "m", *gateways(upstream, "a"))
    result = kgw("check", "-f", tmp_path / "m", "-o", "yaml")
    assert yaml.safe_load(result.stdout).keys() == {"findings", "statuses"}


def test_run_gives_gateways_addresses_and_keeps_a_file_of_statuses(
    running: type[Running], tmp_path: Path, upstream: Upstream
) -> None:
    file = tmp_path / "statuses.yaml"
    write(tmp_path / "m", *gateways(upstream, "a", "b"))
    arguments = ("-f", tmp_path / "m", "--address-pool", POOL, "--status", file, "--workers", "1")
    run = running("run", *arguments)
    run.stderr.after("serving")

    first = file.read_text()
    at = {name: (address(first, name), 8080) for name in "ab"}
    assert fetch(at["a"], "/a") == (200, b"/a")
    assert fetch(at["b"], "/b") == (200, b"/b")
    assert fetch(at["a"], "/b")[0] == 404
    assert oct(file.stat().st_mode & 0o777) == oct(0o666 & ~_umask())

    # A change that no status is about leaves the file as it is.
    before = file.stat()
    objects = gateways(upstream, "a", "b")
    objects[1]["endpoints"][0]["conditions"]["serving"] = True
    write(tmp_path / "m", *objects)
    run.stderr.after("configuration is live")
    assert file.stat().st_ino == before.st_ino

    write(tmp_path / "m", *gateways(upstream, "a", "b", "c"))
    run.stderr.after("configuration is live")
    third = file.read_text()
    assert file.stat().st_ino != before.st_ino
    assert statuses(third)["Gateway a"] == statuses(first)["Gateway a"]
    assert fetch((address(third, "c"), 8080), "/c") == (200, b"/c")
    run.end()

    # The next process keeps what this one gave.
    moved = third.replace(at["a"][0], at["b"][0].rpartition(".")[0] + ".200")
    file.write_text(moved)
    run = running("run", *arguments)
    run.stderr.after("serving")
    assert address(file.read_text(), "a").endswith(".200")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("notes.txt", "keep me\n", "holds something else"),
        ("m/statuses.yaml", None, "would be read as a manifest"),
        ("m", None, "would be read as a manifest"),
    ],
)
def test_a_file_of_anything_else_is_not_written(
    kgw: Kgw, tmp_path: Path, upstream: Upstream, name: str, content: str | None, why: str
) -> None:
    write(tmp_path / "m", *gateways(upstream, "a"))
    if content is not None:
        (tmp_path / name).write_text(content)
    result = kgw("run", "-f", tmp_path / "m", "--status", tmp_path / name)
    assert result.returncode == 2
    assert why in " ".join(result.stderr.split())
    if content is not None:
        assert (tmp_path / name).read_text() == content


def test_a_file_that_cannot_be_written_is_told_and_the_rest_goes_on(
    running: type[Running], tmp_path: Path, upstream: Upstream
) -> None:
    write(tmp_path / "m", *gateways(upstream, "a"))
    run = running(
        "run", "-f", tmp_path / "m", "--bind", "127.0.0.1:0", "--status", tmp_path / "no" / "file"
    )
    run.stderr.after("statuses cannot be written")
    run.stderr.after("serving")


@pytest.mark.parametrize("pool", ["10.0.0.1/24", "nowhere"])
def test_a_pool_is_a_network(kgw: Kgw, tmp_path: Path, upstream: Upstream, pool: str) -> None:
    write(tmp_path / "m", *gateways(upstream, "a"))
    result = kgw("check", "-f", tmp_path / "m", "--address-pool", pool)
    assert result.returncode == 2
    assert "--address-pool" in result.stderr
