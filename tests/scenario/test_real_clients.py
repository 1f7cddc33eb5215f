"""Clients that were not written for these tests: curl, and `kgw call` in ztunnel's place."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.engine.harness import Peer, ok
from tests.scenario.load import Run
from tests.scenario.stage import EDGE, EXAMPLES, route

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Kgw, Running
    from tests.scenario.stage import Stage

CURL = shutil.which("curl")

needs_curl = pytest.mark.skipif(CURL is None, reason="curl is not installed")


def curl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Runs curl without the user's settings and proxies."""
    assert CURL is not None
    command = [CURL, "--disable", "--noproxy", "*", "--silent", "--show-error", *arguments]
    result = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr.decode()
    return result


@needs_curl
def test_curl_uploads_downloads_and_keeps_its_connection(
    running: type[Running], stage: Stage, tmp_path: Path
) -> None:
    def double(peer: Peer) -> None:
        while True:
            _, _, body = peer.read_request()
            peer.send(ok(body * 2))

    stage.service("web", script=double)
    stage.write(EDGE, route("- backendRefs: [{name: web, port: 80}]"))
    run = Run(running, stage.directory)
    body = tmp_path / "body"
    body.write_bytes(bytes(range(256)) * 4096)
    url = "http://{}:{}/".format(*run.address)

    upload = ("--data-binary", f"@{body}", "--header", "content-type: application/octet-stream")
    fixed, chunked = tmp_path / "fixed", tmp_path / "chunked"
    shown = "%{http_code} %{num_connects}\\n"
    result = curl(
        *("--write-out", shown, *upload, "--output", str(fixed), url, "--next"),
        *("--silent", "--write-out", shown, *upload, "--header", "transfer-encoding: chunked"),
        *("--output", str(chunked), url),
    )
    assert result.stdout.decode().splitlines() == ["200 1", "200 0"]
    assert fixed.read_bytes() == chunked.read_bytes() == body.read_bytes() * 2


@needs_curl
def test_curl_follows_a_redirect_and_asks_for_heads(running: type[Running], stage: Stage) -> None:
    stage.service("web")
    rules = """
    - matches: [{path: {type: Exact, value: /old}}]
      filters: [{type: RequestRedirect, requestRedirect: {port: PORT,
        path: {type: ReplaceFullPath, replaceFullPath: /new}}}]
    - backendRefs: [{name: web, port: 80}]
    """
    stage.write(EDGE, route(rules.replace("PORT", "80")))
    run = Run(running, stage.directory)
    stage.write(EDGE, route(rules.replace("PORT", str(run.address[1]))))
    run.live()
    url = "http://{}:{}".format(*run.address)

    followed = curl("--location", f"{url}/old?q=1")
    assert json.loads(followed.stdout)["line"] == "GET /new?q=1 HTTP/1.1"
    head = curl("--head", f"{url}/x").stdout
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.fixture
def walkthrough(stage: Stage) -> Path:
    """The example's manifests, with ollama on a port that is surely free."""

    def ollama(peer: Peer) -> None:
        while True:
            peer.read_request()
            peer.send(ok(b"Ollama is running"))

    shutil.copytree(EXAMPLES, stage.directory)
    port = stage.backend("ollama", ollama).address.rpartition(":")[2]
    (stage.directory / "zz-endpoints.yaml").write_text(
        f"""
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: ollama-1, labels: {{kubernetes.io/service-name: ollama}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1]}}]
ports: [{{name: http, port: {port}}}]
"""
    )
    return stage.directory


def test_kgw_call_gets_the_documents_answers_from_kgw_run(
    running: type[Running], kgw: Kgw, walkthrough: Path
) -> None:
    run = Run(running, walkthrough)
    result = kgw(
        *("call", "http://ollama/", "-f", walkthrough, "--via", "{}:{}".format(*run.address)),
        *("--identity", "spiffe://cluster.local/ns/default/sa/client", "-n", "4"),
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "Ollama is running" * 3 + "local_rate_limited"
    answers = [line for line in result.stderr.splitlines() if line.startswith("< HTTP")]
    assert answers == ["< HTTP/1.1 200 OK"] * 3 + ["< HTTP/1.1 429 Too Many Requests"]
    entries = [json.loads(run.process.stdout.after("{")) for _ in range(4)]
    assert [(one["response_code"], one["response_flags"]) for one in entries] == [
        (200, "-"),
        (200, "-"),
        (200, "-"),
        (429, "RL"),
    ]
