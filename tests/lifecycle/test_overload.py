"""Too little memory: idle connections go first, then nothing is accepted, and requests get 503."""

from __future__ import annotations

import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.engine.harness import Gateway, Peer, Setup, direct, eventually, get, serving
from tests.lifecycle.conftest import Site
from tests.lifecycle.conftest import serving as serving_at

from kgw._native.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Running

LIMIT = 1000
NORMAL, SHRINKING, OVERLOADED = range(3)


class Memory:
    """A reading that the test decides."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.use(0)

    def use(self, used: int) -> None:
        beside = self.path.with_suffix(".new")
        beside.write_text(f"{used}\n")
        beside.rename(self.path)


@contextmanager
def short(tmp_path: Path, *, real_time: bool = False) -> Iterator[tuple[Gateway, Memory]]:
    memory = Memory(tmp_path / "used")
    setup = Setup(routes={"d": direct(200, "ok")}, log_path=str(tmp_path / "log"))
    setup.log = {
        "code": "%RESPONSE_CODE%",
        "flag": "%RESPONSE_FLAGS%",
        "why": "%RESPONSE_CODE_DETAILS%",
    }
    with serving(
        setup, real_time=real_time, max_memory=LIMIT, memory_usage_file=str(memory.path)
    ) as (gateway, _):
        yield gateway, memory


def reaches(gateway: Gateway, pressure: int) -> None:
    eventually(lambda: gateway.stat("memory_pressure") == pressure, f"pressure {pressure}")


def test_requests_are_shed_with_503_and_the_connection_ends(tmp_path: Path) -> None:
    with short(tmp_path) as (gateway, memory):
        client = gateway.connect()
        client.send(get())
        assert client.read_response().body == b"ok"
        memory.use(LIMIT)
        reaches(gateway, OVERLOADED)
        client.send(get())
        response = client.read_response()
        assert (response.status, response.body) == (503, b"overload")
        assert response["connection"] == "close"
        assert client.is_closed()
        client.close()
        gateway.reaches("downstream_rq_overloaded", 1)
        assert gateway.log_lines(2)[1] == {"code": 503, "flag": "OM", "why": "overload"}


def test_nothing_is_accepted_until_there_is_memory_again(tmp_path: Path) -> None:
    with short(tmp_path) as (gateway, memory):
        before = gateway.connect()
        before.send(get())
        before.read_response()
        memory.use(LIMIT)
        reaches(gateway, OVERLOADED)
        waiting = gateway.connect()
        waiting.send(get())
        before.send(get())
        assert before.read_response().status == 503
        assert not waiting.is_readable()
        # Not at the first wavering below the limit.
        memory.use(LIMIT * 96 // 100)
        eventually(lambda: gateway.stat("memory_used") == LIMIT * 96 // 100, "a reading")
        assert not waiting.is_readable()
        memory.use(LIMIT // 2)
        assert waiting.read_response().status == 200
        reaches(gateway, NORMAL)


def test_idle_connections_are_closed_first(tmp_path: Path) -> None:
    with short(tmp_path) as (gateway, memory):
        idle = gateway.connect()
        idle.send(get())
        idle.read_response()
        memory.use(LIMIT * 95 // 100)
        reaches(gateway, SHRINKING)
        busy = gateway.connect()
        busy.send(get())
        assert busy.read_response().status == 200

        def closed() -> bool:
            gateway.engine.advance(0.5)
            return idle.is_readable()

        eventually(closed, "a closed idle connection")
        assert idle.is_closed()


@pytest.mark.parametrize("reading", ["", "much"])
def test_a_reading_that_is_none_keeps_the_engine_from_starting(
    tmp_path: Path, reading: str
) -> None:
    path = tmp_path / "used"
    path.write_text(reading)
    engine = Engine(workers=1, max_memory=LIMIT, memory_usage_file=str(path))
    with pytest.raises(OSError, match="how much memory"):
        engine.start(Setup().encoded())


def test_a_process_under_its_own_limit_is_not_overloaded() -> None:
    with serving(Setup(routes={"d": direct(200, "ok")}), max_memory=1 << 40) as (gateway, _):
        assert gateway.get().status == 200
        assert 1 << 20 < gateway.stat("memory_used") < 1 << 40
        assert gateway.stat("memory_pressure") == NORMAL


def test_a_drain_tells_who_waits_for_memory(tmp_path: Path) -> None:
    with short(tmp_path, real_time=True) as (gateway, memory):
        memory.use(LIMIT)
        reaches(gateway, OVERLOADED)
        waiting = [gateway.connect() for _ in range(5)]
        for client in waiting:
            client.send(get())
        gateway.engine.drain()
        for client in waiting:
            assert client.read_response().status == 503
            client.close()
        assert gateway.engine.join(5.0) is True


def test_kgw_run_sheds_load_and_says_so(running: type[Running], site: Site) -> None:
    """A limit that a Python process is over from the start."""
    run = running(*site.arguments("--max-memory", "1Mi"))
    address = serving_at(run)
    run.stderr.after("memory runs out: shedding load")
    with socket.create_connection(address, 5) as sock:
        client = Peer(sock)
        client.send(get())
        run.signal(signal.SIGTERM)
        assert client.read_response().body == b"overload"
    assert run.wait() == 0
