"""Runs cases through Envoy and kgw side by side: one process of each, several lanes at once.

Envoy's clock cannot be turned by hand, so the cases that let time pass do it in real time.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import subprocess
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kgw._native.engine import Engine

from . import exchange, observation, scenario
from .bootstrap import render
from .scenario import Lane
from .upstream import Upstreams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .exchange import Case
    from .observation import Observation

LANES = 4
WAIT = 20.0
"""Seconds that a proxy may take to start or to write its log."""

Addresses = dict[str, tuple[str, int]]


@dataclass
class Side:
    """One proxy in one lane."""

    lane: Lane
    upstreams: Upstreams
    addresses: Addresses
    own_address: str = "127.0.0.1"
    position: int = 0
    marks: int = 0

    def observe(self, case: Case) -> Observation:
        """Runs a case and returns what was seen."""
        self.upstreams.take()
        responses, ends, rest = [], [], ""
        for turn in range(int(case.get("times", 1))):
            if turn:
                time.sleep(float(case.get("interval", 0)))  # a bucket refills meanwhile
            found, end, left = exchange.run(case, self._address(case.get("target", "main")))
            responses += found
            ends.append(end)
            rest += left
        self._await_requests(int(case.get("upstream", 0)))
        time.sleep(float(case.get("settle", 0)))  # the case lets a time-out pass
        lines = self.log_lines()
        operators = scenario.operators()
        return observation.observe(
            responses,
            ends,
            rest,
            self.upstreams.take(),
            [observation.log_line(line, operators) for line in lines],
            self._masks(),
        )

    def _await_requests(self, count: int) -> None:
        deadline = time.monotonic() + WAIT
        while self.upstreams.count() < count and time.monotonic() < deadline:
            time.sleep(0.01)  # looks again, until the deadline

    def learn_own_address(self) -> None:
        """Notes what a loopback client is called: Envoy gives it the address of an interface."""
        exchange.run({"send": "GET / HTTP/1.1\r\nhost: plain.test\r\n\r\n"}, self._address("main"))
        (record,) = self.upstreams.take()
        fields = dict(line.split(": ", 1) for line in record["fields"])
        self.own_address = fields["x-forwarded-for"]

    def _address(self, listener: str) -> tuple[str, int]:
        return self.addresses[self.lane.named(listener)]

    def _masks(self) -> dict[str, str]:
        upstreams = {address: f"<{name}>" for name, address in self.upstreams.addresses.items()}
        listeners = {
            f"{host}:{port}": f"<{name.rpartition('.')[0]}>"
            for name, (host, port) in self.addresses.items()
        }
        return upstreams | listeners | {self.own_address: "127.0.0.1"}

    def log_lines(self) -> list[Any]:
        """The lines since the last call: those before the line of a request that marks the end."""
        self.marks += 1
        mark = {"mark": f"/{self.marks}"}
        request = f"GET {mark['mark']} HTTP/1.1\r\nhost: mark\r\nconnection: close\r\n\r\n"
        exchange.run({"send": request}, self._address("mark"))
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            data = Path(self.lane.log).read_bytes()[self.position :]
            lines = [_parsed(line) for line in data.decode("latin-1").splitlines()]
            if mark in lines:
                self.position += len(data)
                return lines[: lines.index(mark)]
            time.sleep(0.01)  # looks again, until the deadline
        raise AssertionError(f"the access log never had {mark}")


def _parsed(line: str) -> Any:
    with contextlib.suppress(ValueError):
        return json.loads(line.encode("latin-1"))
    return line


@contextlib.contextmanager
def running(envoy: Path, directory: Path) -> Iterator[list[tuple[Side, Side]]]:
    """Starts everything; yields the pair of sides (Envoy, kgw) of each lane."""
    with contextlib.ExitStack() as stack:
        loop = stack.enter_context(_event_loop())
        starts: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
            ("envoy", lambda config: _envoy(envoy, directory, config)),
            ("kgw", _kgw),
        ]
        sides = [stack.enter_context(_proxy(*it, directory, loop)) for it in starts]
        for side in (side for lane in sides for side in lane):
            side.learn_own_address()
            side.log_lines()
        yield list(zip(*sides, strict=True))


def run(sides: list[tuple[Side, Side]], cases: list[Case]) -> dict[str, list[Observation]]:
    """Runs all cases; returns the observations (Envoy's, kgw's) by case id."""
    threads = concurrent.futures.ThreadPoolExecutor(2 * len(sides))
    queue = iter(cases)
    lock = threading.Lock()
    found: dict[str, list[Observation]] = {}

    def work(pair: tuple[Side, Side]) -> None:
        while True:
            with lock:
                case = next(queue, None)
            if case is None:
                return
            both = [threads.submit(side.observe, case) for side in pair]
            found[case["id"]] = [it.result() for it in both]

    with threads, concurrent.futures.ThreadPoolExecutor(len(sides)) as lanes:
        for result in [lanes.submit(work, pair) for pair in sides]:
            result.result()
    return found


@contextlib.contextmanager
def _event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result(WAIT)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(WAIT)
    loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def _proxy(
    name: str,
    start: Callable[[dict[str, Any]], contextlib.AbstractContextManager[Addresses]],
    directory: Path,
    loop: asyncio.AbstractEventLoop,
) -> Iterator[list[Side]]:
    with contextlib.ExitStack() as stack:
        upstreams = [Upstreams(loop) for _ in range(LANES)]
        for it in upstreams:
            stack.callback(it.close)
        lanes = []
        for number, it in enumerate(upstreams):
            log = directory / f"{name}-{number}.log"
            log.touch()
            lanes.append(Lane(number, str(log), it.addresses))
        addresses = stack.enter_context(start(scenario.merged(lanes)))
        yield [Side(lane, it, addresses) for lane, it in zip(lanes, upstreams, strict=True)]


@contextlib.contextmanager
def _kgw(config: dict[str, Any]) -> Iterator[Addresses]:
    engine = Engine(workers=1)
    engine.start(json.dumps(config).encode())
    assert engine.wait_applied(1, WAIT)
    yield {name: bound[0] for name, bound in engine.addresses().items()}
    engine.join(0.0)


@contextlib.contextmanager
def _envoy(binary: Path, directory: Path, config: dict[str, Any]) -> Iterator[Addresses]:
    bootstrap, admin = directory / "envoy.json", directory / "admin"
    bootstrap.write_text(json.dumps(render(config)))
    command = [str(binary), "--config-path", str(bootstrap), "--concurrency", "1"]
    command += ["--admin-address-path", str(admin), "--disable-hot-restart"]
    command += ["--file-flush-interval-msec", "10", "--log-level", "error"]
    with (directory / "envoy.out").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield _envoy_addresses(process, admin, output.name)
    finally:
        process.terminate()
        process.wait(WAIT)


def _envoy_addresses(process: subprocess.Popen[bytes], admin: Path, output: str) -> Addresses:
    """The listeners' addresses, once Envoy serves."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            base = f"http://{admin.read_text()}"
            with urllib.request.urlopen(f"{base}/ready", timeout=WAIT) as ready:
                assert ready.status == 200
            with urllib.request.urlopen(f"{base}/listeners?format=json", timeout=WAIT) as reply:
                listeners = json.load(reply)["listener_statuses"]
            return {
                it["name"]: (address["address"], address["port_value"])
                for it in listeners
                if (address := it["local_address"]["socket_address"])
            }
        time.sleep(0.05)  # looks again, until the deadline
    raise AssertionError(f"Envoy did not start: {Path(output).read_text()}")
