"""Changes without end under load. `make soak` gives each a minute; a test run, a few seconds."""

from __future__ import annotations

import json
import os
import signal
import time
from threading import Event
from typing import TYPE_CHECKING

import pytest
from tests.engine.harness import Setup, always, ok, rule, serving
from tests.lifecycle.conftest import Site
from tests.lifecycle.conftest import serving as address_of
from tests.lifecycle.load import Load
from tests.lifecycle.load_http2 import Http2Load

if TYPE_CHECKING:
    from tests.cli.conftest import Running

SECONDS = float(os.environ.get("KGW_SOAK_SECONDS", "3"))

pytestmark = pytest.mark.timeout(SECONDS * 20 + 120)


def test_reloads_a_hundred_times_a_second_lose_no_request() -> None:
    with (
        serving(script=always(ok(b"other"))) as (_, other),
        serving(script=always(ok(b"one")), workers=2, real_time=True) as (gateway, one),
        Load(("127.0.0.1", gateway.port)) as busy,
        Load(("127.0.0.1", gateway.port), thinking=0.3) as thinking,
        Http2Load(("127.0.0.1", gateway.port)) as streams,
    ):
        started = time.monotonic()
        applied = 0
        while (elapsed := time.monotonic() - started) < SECONDS:
            # Routes, an upstream, an option, a limit and another listener: all at once.
            more = {
                "id": f"more-{applied % 3}",
                "bind": ["127.0.0.1:0"],
                "traffic": {"type": "http", "route_table": "t"},
            }
            setup = Setup(
                endpoints=[(other if applied % 2 else one).address],
                rules=[
                    rule("/", "default"),
                    *[rule(f"/{n}", "default") for n in range(applied % 7)],
                ],
                http={"idle_timeout_ms": 1_000_000 + applied},
                listeners=[more],
            )
            ir = setup.ir()
            ir["listeners"][0]["max_connections"] = 1000 + applied
            gateway.engine.apply(json.dumps(ir).encode())
            applied += 1
            Event().wait(max(0.0, applied / 100 - elapsed))
        busy.stop()
        thinking.stop()
        streams.stop()
        assert busy.lost == thinking.lost == []
        assert streams.lost == []
        # Nobody had to connect anew.
        assert busy.connections == thinking.connections == 8
        assert streams.connections == 4
        assert set(busy.statuses) == {200}
        assert gateway.stat("generation") == applied + 1
        print(f"{applied} reloads, {busy.statuses.total()} answers in {elapsed:.1f} s")


def test_starts_and_ends_without_end_lose_no_request(running: type[Running], site: Site) -> None:
    started = time.monotonic()
    ends = answers = 0
    while not ends or time.monotonic() - started < SECONDS:
        run = running(*site.arguments())
        with (
            Load(address_of(run)) as busy,
            Load(busy.address, thinking=0.5) as thinking,
            Http2Load(busy.address) as streams,
        ):
            run.signal(signal.SIGTERM)
            busy.join()
            thinking.join()
            streams.join()
        assert busy.lost == thinking.lost == []
        assert streams.lost == []
        assert streams.unprocessed == 0
        assert run.wait() == 0
        answers += busy.statuses.total() + thinking.statuses.total()
        ends += 1
    print(f"{ends} ends, {answers} answers")


def test_upgrades_without_end_lose_no_request(running: type[Running], site: Site) -> None:
    path = str(site.directory / "upgrade")
    run = running(*site.arguments("--upgrade-socket", path))
    started = time.monotonic()
    upgrades = 0
    with (
        Load(address_of(run)) as busy,
        Load(busy.address, thinking=0.5) as thinking,
        Http2Load(busy.address) as streams,
    ):
        while not upgrades or time.monotonic() - started < SECONDS:
            newer = running(*site.arguments("--upgrade-socket", path, "--upgrade"))
            newer.stderr.after("took over")
            assert run.wait() == 0
            run = newer
            upgrades += 1
        busy.goes_on()
        thinking.goes_on(1)
        streams.goes_on()
        busy.stop()
        thinking.stop()
        streams.stop()
    assert busy.lost == thinking.lost == []
    assert streams.lost == []
    assert streams.unprocessed == 0
    assert busy.refused == thinking.refused == streams.refused == 0
    print(f"{upgrades} upgrades, {busy.statuses.total()} answers")
