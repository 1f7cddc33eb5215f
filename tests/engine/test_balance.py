"""Which worker serves a connection: the kernel's choice, or the one with the fewest."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.harness import Peer, Setup, direct, eventually, get, serving

if TYPE_CHECKING:
    from pathlib import Path

ANSWERING = {"d": direct(200, "ok")}

WORKERS = 3


def balanced(balance: str | None, log: Path) -> Setup:
    listener = {} if balance is None else {"balance": balance}
    return Setup(
        routes=ANSWERING,
        listener=listener,
        log_path=str(log),
        log={"id": "%CONNECTION_ID%", "path": "%PATH%"},
    )


def ask(client: Peer, path: str) -> None:
    client.send(get(path))
    assert client.read_response().body == b"ok"


def entries(log: Path, path: str, count: int) -> list[dict[str, Any]]:
    """The entries of a log for *path*, once there are *count*."""

    def found() -> list[dict[str, Any]]:
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        every = [json.loads(line) for line in lines if line.endswith("\n")]
        return [entry for entry in every if entry["path"] == path]

    eventually(lambda: len(found()) == count, f"{count} log lines")
    return found()


def per_worker(log: Path, path: str, count: int) -> list[int]:
    """How many connections each worker has of those that asked for *path*, fewest first.

    Workers number their connections in steps of how many workers there are.
    """
    workers = Counter(int(entry["id"]) % WORKERS for entry in entries(log, path, count))
    return sorted(workers[worker] for worker in range(WORKERS))


@pytest.mark.parametrize("count", [WORKERS, 4 * WORKERS + 1])
def test_each_worker_has_its_share_of_a_balanced_listener(count: int, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(balanced("exact", log), workers=WORKERS) as (gateway, _):
        clients = [gateway.connect() for _ in range(count)]
        for client in clients:
            ask(client, "/all")
        even, more = divmod(count, WORKERS)
        shares = [even] * (WORKERS - more) + [even + 1] * more
        assert per_worker(log, "/all", count) == shares
        assert gateway.stat("downstream_cx_total") == count
        assert gateway.stat("downstream_cx_active") == count


def test_what_was_handed_over_is_served_byte_for_byte(tmp_path: Path) -> None:
    """Requests that came with the connection, and one that comes in pieces later."""
    with serving(balanced("exact", tmp_path / "log"), workers=WORKERS) as (gateway, _):
        clients = [gateway.connect() for _ in range(4 * WORKERS)]
        for client in clients:
            client.send(get("/first") + get("/second"))
        for client in clients:
            assert client.read_response().body == b"ok"
            assert client.read_response().body == b"ok"
        for client in clients:
            client.send(get("/third")[:9])
        for client in clients:
            client.send(get("/third")[9:])
        for client in clients:
            assert client.read_response().body == b"ok"
        assert 0 <= gateway.stat("downstream_cx_handed_over") <= len(clients)
        assert gateway.stat("downstream_cx_total") == len(clients)


def test_a_worker_that_lost_its_connections_gets_the_next_ones(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(balanced("exact", log), workers=WORKERS) as (gateway, _):
        clients = [gateway.connect() for _ in range(3 * WORKERS)]
        by_worker: dict[int, list[Peer]] = {}
        for number, client in enumerate(clients):
            ask(client, f"/{number}")
            (entry,) = entries(log, f"/{number}", 1)
            by_worker.setdefault(int(entry["id"]) % WORKERS, []).append(client)
        for client in by_worker[1]:
            client.close()
        eventually(lambda: gateway.stat("downstream_cx_active") == 2 * WORKERS, "their ends")
        again = [gateway.connect() for _ in range(2)]
        for client in again:
            ask(client, "/again")
        assert per_worker(log, "/again", 2) == [0, 0, 2]


def test_without_it_nothing_is_handed_over(tmp_path: Path) -> None:
    for number, balance in enumerate((None, "kernel")):
        setup = balanced(balance, tmp_path / f"log{number}")
        with serving(setup, workers=WORKERS) as (gateway, _), ExitStack() as stack:
            for _ in range(20):
                client = gateway.connect()
                stack.callback(client.close)
                ask(client, "/")
            assert gateway.stat("downstream_cx_handed_over") == 0


def test_a_reload_balances_what_is_accepted_from_then_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(balanced("kernel", log), workers=WORKERS) as (gateway, _):
        before = gateway.connect()
        ask(before, "/before")
        gateway.apply_ir(balanced("exact", log).ir())
        clients = [gateway.connect() for _ in range(2 * WORKERS)]
        for client in clients:
            ask(client, "/exact")
        assert per_worker(log, "/exact", 2 * WORKERS) == [2] * WORKERS
        gateway.apply_ir(balanced("kernel", log).ir())
        handed = gateway.stat("downstream_cx_handed_over")
        for client in [before, *clients, *(gateway.connect() for _ in range(8))]:
            ask(client, "/kernel")
        assert gateway.stat("downstream_cx_handed_over") == handed


def test_limits_hold_for_a_balanced_listener(tmp_path: Path) -> None:
    setup = balanced("exact", tmp_path / "log")
    setup.listener["max_connections"] = 2
    with serving(setup, workers=WORKERS) as (gateway, _):
        waiting = [gateway.connect() for _ in range(7)]
        for client in waiting:
            client.send(get())
        while waiting:
            served = next((client for client in waiting if client.is_readable()), None)
            assert gateway.stat("downstream_cx_active") <= 2
            if served is not None:
                assert served.read_response().body == b"ok"
                served.close()
                waiting.remove(served)


def test_a_drain_loses_nobody_on_the_way_to_another_worker(tmp_path: Path) -> None:
    setup = balanced("exact", tmp_path / "log")
    with serving(setup, workers=WORKERS, real_time=True) as (gateway, _):
        clients = [gateway.connect() for _ in range(60)]
        for client in clients:
            client.send(get())
        gateway.engine.drain()
        for client in clients:
            assert client.read_response().status == 200
            client.close()
        assert gateway.engine.join(5.0) is True


def test_one_worker_hands_nothing_over(tmp_path: Path) -> None:
    with serving(balanced("exact", tmp_path / "log")) as (gateway, _):
        clients = [gateway.connect() for _ in range(3)]
        for client in clients:
            ask(client, "/")
        assert gateway.stat("downstream_cx_handed_over") == 0
