"""`kgw explain`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Kgw

ROOT = Path(__file__).parents[2]


def test_the_scenario_is_explained_from_listener_to_policies(kgw: Kgw, manifests: Path) -> None:
    result = kgw("explain", "-f", manifests, "GET", "http://ollama/api", "-H", "x-a: b")

    assert (result.returncode, result.stderr) == (0, "")
    for line in (
        "  a connection of the mesh to Service default/ollama",
        "    GET /api",
        "    + x-envoy-expected-rq-timeout-ms: 180000",
        "  default/ollama:80 -> 127.0.0.4:11434",
    ):
        assert line in result.stdout.splitlines()
    limit = manifests / "trafficpolicy-ratelimit.yaml"
    source = "rateLimit.local.tokenBucket.maxTokens = 3 <- TrafficPolicy default/ratelimit"
    assert f"  {source}  [{limit}:13:20]" in result.stdout
    assert "--all shows" in result.stdout
    assert (
        "jsonFormat.authority" in kgw("explain", "-f", manifests, "--all", "http://ollama/").stdout
    )


def test_the_page_shows_what_is_printed(kgw: Kgw) -> None:
    page = (ROOT / "docs" / "explain.md").read_text()
    (block,) = re.findall(r"```console\n\$ kgw (explain [^\n]*)\n(.*?)```", page, re.DOTALL)
    command, expected = block
    arguments = command.replace("examples/", f"{ROOT}/examples/").split()

    result = kgw(*arguments)
    assert result.returncode == 0
    assert result.stdout.replace(f"{ROOT}/", "") == expected


def test_json_has_all_of_it(kgw: Kgw, manifests: Path) -> None:
    result = kgw("explain", "-f", manifests, "http://ollama/", "-o", "json")

    report = json.loads(result.stdout)
    assert report["route"] == "default/ollama/0/0"
    assert report["branches"][0]["sent"]["method"] == "GET"
    assert report["candidates"][0]["outcome"] == "selected"
    assert report["settings"][0]["source"] == "HTTPRoute default/ollama"


def test_an_answer_of_the_proxy_is_an_explanation(kgw: Kgw, tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text("""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: kgateway
  listeners: [{name: http, port: 80, protocol: HTTP}]
""")
    result = kgw("explain", "-f", tmp_path, "http://a.example/")

    assert result.returncode == 0
    assert "Answer 404, of the proxy itself: no route matches" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["GET", "ollama"], "'ollama' is not a URL"),
        (["GET", "http://a/", "http://b/"], "one request is explained at a time"),
        (["http://ollama/", "-H", "x"], "'x' is not a header field"),
        (["http://ollama/", "--gateway", "nobody"], "there is no 'nobody'"),
        (["http://ollama/", "--source-identity", "x"], "spiffe://"),
        (
            [
                "http://ollama/",
                "--source-namespace",
                "a",
                "--source-identity",
                "spiffe://t/ns/a/sa/b",
            ],
            "give one of both",
        ),
    ],
)
def test_what_is_no_request_is_a_usage_error(
    kgw: Kgw, manifests: Path, arguments: list[str], message: str
) -> None:
    result = kgw("explain", "-f", manifests, *arguments)

    assert result.returncode == 2
    assert message in result.stderr


def test_what_cannot_be_read_is_a_finding_unless_that_is_wanted(kgw: Kgw, manifests: Path) -> None:
    (manifests / "broken.yaml").write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: many}]}\n"
    )

    result = kgw("explain", "-f", manifests, "http://ollama/")
    assert (result.returncode, result.stdout) == (1, "")
    assert "broken.yaml:4" in result.stderr
    result = kgw("explain", "-f", manifests, "http://ollama/", "--lenient")
    assert result.returncode == 0
    assert "broken.yaml:4" in result.stderr
    assert "selected" in result.stdout


def test_where_nothing_is_served_there_is_nothing_to_explain(kgw: Kgw, tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")

    result = kgw("explain", "-f", tmp_path, "http://a/")
    assert result.returncode == 1
    assert "nothing is served: no listener in" in result.stderr
