"""`kgw run`: serving, reloading, signals."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import threading
import time
from contextlib import suppress
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

import pytest
from tests.attach.test_tls_listeners import gateway, https
from tests.embed.upstream import TIMEOUT, Upstream, fetch, resources
from tests.translate.certificates import secret

from kgw.refusals import INTERVAL, REASONS, Refusals

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Kgw, Running

LOCAL = "127.0.0.1:0"


def write(directory: Path, *items: dict[str, Any]) -> None:
    """Puts the objects into the directory as editors and Kubernetes do: all at once."""
    directory.mkdir(exist_ok=True)
    beside = directory / ".new"
    beside.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    beside.rename(directory / "all.json")


@pytest.fixture
def directory(tmp_path: Path, upstream: Upstream) -> Path:
    write(tmp_path / "manifests", *resources(upstream))
    return tmp_path / "manifests"


def address(run: Running) -> tuple[str, int]:
    """Where it listens, once it serves."""
    line = run.stderr.after("listening")
    run.stderr.after("serving")
    found = re.search(r"address=(\S+):(\d+)", line)
    assert found, line
    return found[1], int(found[2])


def answered(at: tuple[str, int], path: str, status: int) -> None:
    """Calls until the answer is as expected."""
    deadline = time.monotonic() + TIMEOUT
    while (got := fetch(at, path)[0]) != status:
        assert time.monotonic() < deadline, f"{path} is answered with {got}"


def test_run_serves_until_it_is_told_to_end(running: type[Running], directory: Path) -> None:
    run = running("run", "-f", directory, "--bind", LOCAL, "--workers", "1")
    at = address(run)
    assert fetch(at, "/x") == (200, b"/x")

    run.signal(signal.SIGTERM)

    assert run.wait() == 0
    assert "draining signal=SIGTERM" in str(run.stderr)
    assert "closed" in str(run.stderr)
    with pytest.raises(ConnectionRefusedError):
        fetch(at)


def test_it_serves_before_it_imports_an_event_loop(
    running: type[Running], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    run = running("run", "-f", directory, "--bind", LOCAL, "--workers", "1")
    run.stderr.after(" serving ")
    before = str(run.stderr).partition(" serving ")[0]
    imported = {line.rpartition("|")[2].strip() for line in before.splitlines()}
    assert "pydantic" in imported
    assert not {"anyio", "asyncio"} & imported


def test_run_follows_changes(running: type[Running], directory: Path, upstream: Upstream) -> None:
    run = running("run", "-f", directory, "--bind", LOCAL, "--workers", "2")
    at = address(run)
    assert fetch(at, "/old") == (200, b"/old")

    write(directory, *resources(upstream, prefix="/new"))

    assert "routes=1" in run.stderr.after("configuration is live")
    assert fetch(at, "/old")[0] == 404
    assert fetch(at, "/new") == (200, b"/new")


def test_a_bad_edit_keeps_the_last_good_configuration_and_says_why(
    running: type[Running], directory: Path, upstream: Upstream
) -> None:
    run = running("run", "-f", directory, "--bind", LOCAL, "--workers", "1")
    at = address(run)

    (directory / "extra.yaml").write_text("kind: HTTPRoute\n  name: [\n")
    assert "extra.yaml:" in run.stderr.after("-->")
    run.stderr.after("kept the last good configuration")
    assert fetch(at, "/x") == (200, b"/x")

    (directory / "extra.yaml").unlink()
    write(directory, *resources(upstream, prefix="/new"))
    run.stderr.after("configuration is live")
    answered(at, "/x", 404)


def test_a_new_listener_whose_port_is_taken_keeps_the_last_good_configuration(
    running: type[Running], directory: Path, upstream: Upstream
) -> None:
    run = running("run", "-f", directory, "--bind", f"http={LOCAL}", "--workers", "1")
    at = address(run)
    with socket.create_server(("0.0.0.0", 0)) as taken:
        gateway, *rest = resources(upstream, prefix="/new")
        gateway["spec"]["listeners"].append(
            {"name": "more", "port": taken.getsockname()[1], "protocol": "HTTP"}
        )
        write(directory, gateway, *rest)

        assert "in use" in run.stderr.after("kept the last good configuration")
        assert fetch(at, "/x") == (200, b"/x")


def test_an_emptied_directory_keeps_the_last_good_configuration(
    running: type[Running], directory: Path
) -> None:
    run = running("run", "-f", directory, "--bind", LOCAL, "--workers", "1")
    at = address(run)

    (directory / "all.json").unlink()

    run.stderr.after("kept the last good configuration")
    assert fetch(at, "/x") == (200, b"/x")


def test_hangup_without_the_files_keeps_serving(running: type[Running], directory: Path) -> None:
    run = running("run", "-f", directory, "--bind", LOCAL, "--workers", "1", "--no-watch")
    at = address(run)
    directory.rename(directory.with_name("elsewhere"))

    run.signal(signal.SIGHUP)

    run.stderr.after("kept the last good configuration")
    assert fetch(at, "/x") == (200, b"/x")


def test_hangup_reads_the_files_again_without_watching(
    running: type[Running], directory: Path, upstream: Upstream
) -> None:
    run = running("run", "-f", directory, "--bind", LOCAL, "--workers", "1", "--no-watch")
    at = address(run)
    write(directory, *resources(upstream, prefix="/new"))
    assert fetch(at, "/old") == (200, b"/old")

    run.signal(signal.SIGHUP)

    run.stderr.after("configuration is live")
    assert fetch(at, "/old")[0] == 404


def test_hangup_reopens_the_access_log(
    running: type[Running], directory: Path, upstream: Upstream, tmp_path: Path
) -> None:
    log = tmp_path / "access.log"
    write(directory, *resources(upstream), access_log(log))
    run = running("run", "-f", directory, "--bind", LOCAL, "--workers", "1", "--no-watch")
    at = address(run)
    fetch(at, "/before")
    holds(log, "/before 200\n")
    log.rename(tmp_path / "access.log.1")

    run.signal(signal.SIGHUP)

    run.stderr.after("configuration is live")
    fetch(at, "/after")
    holds(log, "/after 200\n")
    holds(tmp_path / "access.log.1", "/before 200\n")


def access_log(file: Path) -> dict[str, Any]:
    """A policy that has the Gateway of `resources` log path and status to a file."""
    sink = {"path": str(file), "stringFormat": "%REQ(:PATH)% %RESPONSE_CODE%\n"}
    return {
        "apiVersion": "gateway.kgateway.dev/v1alpha1",
        "kind": "HTTPListenerPolicy",
        "metadata": {"name": "log"},
        "spec": {
            "targetRefs": [
                {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "web"}
            ],
            "accessLog": [{"fileSink": sink}],
        },
    }


def holds(file: Path, text: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not file.exists() or file.read_text() != text:
        assert time.monotonic() < deadline, file.read_text() if file.exists() else "no file"


def test_a_request_in_flight_is_finished(
    running: type[Running], directory: Path, upstream: Upstream
) -> None:
    run = running("run", "-f", directory, "--bind", LOCAL, "--workers", "1")
    at = address(run)
    answers: list[tuple[int, bytes]] = []
    asking = threading.Thread(target=lambda: answers.append(fetch(at, "/slow")))
    asking.start()
    assert upstream.arrived.wait(TIMEOUT)

    run.signal(signal.SIGINT)
    run.stderr.after("draining signal=SIGINT")
    upstream.let_go.set()

    assert run.wait() == 0
    asking.join(TIMEOUT)
    assert answers == [(200, b"/slow")]


def test_a_second_signal_ends_at_once(
    running: type[Running], directory: Path, upstream: Upstream
) -> None:
    run = running("run", "-f", directory, "--bind", LOCAL, "--workers", "1")
    at = address(run)
    failures: list[Exception] = []

    def ask() -> None:
        try:
            fetch(at, "/slow")
        except (OSError, HTTPException) as error:
            failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    assert upstream.arrived.wait(TIMEOUT)

    run.signal(signal.SIGTERM)
    run.stderr.after("draining")
    run.signal(signal.SIGTERM)

    run.stderr.after("ending at once")
    assert run.wait() == 4
    asking.join(TIMEOUT)
    assert len(failures) == 1


def test_run_does_not_start_when_nothing_can_be_served(kgw: Kgw, directory: Path) -> None:
    (directory / "all.json").write_text("{}")

    result = kgw("run", "-f", directory, "--lenient")

    assert result.returncode == 1
    assert "error[KGW2" in result.stderr
    assert "nothing can be served" in result.stderr


def test_run_does_not_start_without_an_object_that_cannot_be_read(
    kgw: Kgw, running: type[Running], directory: Path
) -> None:
    """It may be the rate limit."""
    (directory / "broken.yaml").write_text("kind: TrafficPolicy\nspec: [\n")
    arguments = ("run", "-f", directory, "--bind", LOCAL, "--workers", "1")

    refused = kgw(*arguments)
    assert refused.returncode == 1
    assert "error[KGW1" in refused.stderr
    assert "does not start: 1 object cannot be read" in refused.stderr
    assert "listening" not in refused.stderr

    run = running(*arguments, "--lenient")
    run.stderr.after("serving without 1 object that cannot be read")
    assert fetch(address(run), "/x") == (200, b"/x")


def test_an_access_log_that_cannot_be_opened_is_said_until_it_can(
    running: type[Running], directory: Path, upstream: Upstream, tmp_path: Path
) -> None:
    log = tmp_path / "missing" / "access.log"
    write(directory, *resources(upstream), access_log(log))
    run = running("run", "-f", directory, "--bind", LOCAL, "--workers", "1")
    lost = f'access log cannot be opened path={log} listener=default/web/http because="No such'
    run.stderr.after(lost)
    at = address_after_problems(run)
    assert fetch(at, "/before") == (200, b"/before")

    write(directory, *resources(upstream, prefix="/new"), access_log(log))
    run.stderr.after(lost)
    run.stderr.after("configuration is live")

    run.signal(signal.SIGHUP)
    run.stderr.after(lost)
    run.stderr.after("configuration is live")

    log.parent.mkdir()
    run.signal(signal.SIGHUP)
    run.stderr.after("configuration is live")
    assert fetch(at, "/new") == (200, b"/new")
    holds(log, "/new 200\n")
    assert str(run.stderr).count("cannot be opened") == 3


def address_after_problems(run: Running) -> tuple[str, int]:
    run.stderr.after("serving")
    found = re.search(r"listening.* address=(\S+):(\d+)", str(run.stderr))
    assert found
    return found[1], int(found[2])


def test_refused_connections_are_said(running: type[Running], manifests: Path) -> None:
    run = running("run", "-f", manifests, "--bind", LOCAL, "--workers", "1")
    at = address(run)
    for _ in range(3):
        with socket.create_connection(at) as peer:
            peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with suppress(ConnectionResetError):
                assert peer.recv(1) == b""

    line = run.stderr.after("refused connections")
    assert "warn" in line
    assert "reason=proxy_header_malformed" in line
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    counts = re.findall(r"reason=proxy_header_malformed count=(\d+)", str(run.stderr))
    assert sum(map(int, counts)) == 3


def test_clients_that_tls_refuses_are_said(running: type[Running], tmp_path: Path) -> None:
    manifest = tmp_path / "tls.yaml"
    manifest.write_text(f"{gateway(https())}---\n{secret('cert')}")
    run = running("run", "-f", manifest, "--bind", LOCAL, "--workers", "1")
    with socket.create_connection(address(run)) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with suppress(ConnectionResetError):
            while peer.recv(100):
                pass

    assert "reason=downstream_tls_fail count=1" in run.stderr.after("refused connections")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


def test_a_reason_is_reported_at_once_and_then_every_interval() -> None:
    refusals = Refusals()
    stats = dict.fromkeys(REASONS, 0)
    assert list(refusals.due(stats, 0.0)) == []

    stats["proxy_header_absent"] = 2
    assert list(refusals.due(stats, 1.0)) == [("proxy_header_absent", 2)]
    stats |= {"proxy_header_absent": 7, "downstream_cx_overflow": 1}
    assert list(refusals.due(stats, 1.0 + INTERVAL / 2)) == [("downstream_cx_overflow", 1)]
    assert list(refusals.due(stats, 1.0 + INTERVAL)) == [("proxy_header_absent", 5)]
    assert list(refusals.due(stats, 1.0 + 9 * INTERVAL)) == []
    stats["proxy_header_absent"] = 8
    assert list(refusals.due(stats, 1.0 + 9 * INTERVAL)) == [("proxy_header_absent", 1)]
    stats["proxy_header_absent"] = 9
    assert list(refusals.due(stats, float("inf"))) == [("proxy_header_absent", 1)]


def test_run_exits_with_3_when_the_address_is_taken(kgw: Kgw, directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        result = kgw("run", "-f", directory, "--bind", where)

    assert result.returncode == 3
    assert where in result.stderr
    assert "in use" in result.stderr


def test_run_warns_when_others_can_claim_identities(
    running: type[Running], manifests: Path
) -> None:
    run = running("run", "-f", manifests, "--bind", "0.0.0.0:0", "--workers", "1")

    line = run.stderr.after("can claim any identity")
    found = re.search(r"address=0\.0\.0\.0:(\d+)", line)
    assert found, line
    assert int(found[1]) != 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "Missing option '-f'"),
        (["-f", "/does/not/exist"], 2, "does not exist"),
        (["-f", "{directory}", "--bind", "localhost:80"], 2, "is not an IP address"),
        (["-f", "{directory}", "--bind", "foo"], 2, "'foo' is not IP[:PORT]"),
        (["-f", "{directory}", "--bind", "x=127.0.0.1:0"], 1, "no listener 'x'"),
        (["-f", "{directory}", "--workers", "0"], 2, "0 is not in the range"),
        (["-f", "{directory}", "--drain-timeout", "nan"], 2, "nan is no number of seconds"),
        (["-f", "{directory}", "--drain-min", "nan"], 2, "nan is no number of seconds"),
    ],
)
def test_run_explains_what_it_cannot_understand(
    kgw: Kgw, directory: Path, arguments: list[str], code: int, message: str
) -> None:
    result = kgw("run", *(argument.format(directory=directory) for argument in arguments))

    assert result.returncode == code
    assert message in result.stderr


def test_several_paths_are_one_configuration(
    running: type[Running], directory: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(directory / "all.json", other / "gateway.json")
    (directory / "all.json").unlink()
    (directory / "route.yaml").write_text(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: more}\nspec:\n"
        "  parentRefs: [{name: web}]\n"
        "  rules:\n"
        "  - matches: [{path: {type: Exact, value: /moved}}]\n"
        "    filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301}}]\n"
    )

    run = running("run", "-f", directory, "-f", other, "--bind", LOCAL, "--workers", "1")

    at = address(run)
    assert fetch(at, "/moved")[0] == 301
    assert fetch(at, "/x") == (200, b"/x")
