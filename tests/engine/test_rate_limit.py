"""The local rate limit: the scenario's answer byte by byte, and the bucket's life."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

from tests.engine.h2peer import h2_client
from tests.engine.harness import WAIT, Gateway, Setup, forward, get, post, rule, serving

if TYPE_CHECKING:
    from pathlib import Path

LIMIT: dict[str, Any] = {
    "type": "local_rate_limit",
    "bucket": "default/ollama-rate-limit/0",
    "max_tokens": 3,
    "tokens_per_fill": 3,
    "fill_interval_ns": 60_000_000_000,
}


def limited(limit: dict[str, Any] | None = None, **more: Any) -> Setup:
    route = {"name": "default", "filters": [limit or LIMIT], "action": forward("c")}
    return Setup(routes={"default": route}, **more)


def test_the_fourth_request_is_answered_with_exactly_these_bytes() -> None:
    with serving(limited()) as (gateway, upstream):
        client = gateway.connect()
        for _ in range(3):
            client.send(get())
            assert client.read_response().status == 200
        client.send(get())
        raw = client.read_until(b"local_rate_limited")
        date = re.search(rb"date: (\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT)\r\n", raw)
        assert date is not None
        assert raw == (
            b"HTTP/1.1 429 Too Many Requests\r\n"
            b"content-length: 18\r\n"
            b"content-type: text/plain\r\n"
            b"retry-after: 20\r\n"
            b"date: " + date[1] + b"\r\n"
            b"server: kgw\r\n"
            b"\r\n"
            b"local_rate_limited"
        )
        gateway.settle()
        assert not client.is_readable()
        gateway.reaches("rate_limited", 1)
        gateway.reaches("upstream_rq_total", 3)
        assert upstream.connections == 1


def test_one_more_passes_each_twenty_seconds() -> None:
    with serving(limited()) as (gateway, _):
        statuses = [gateway.get().status for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        gateway.advance(19.9)
        response = gateway.get()
        assert (response.status, response["retry-after"]) == (429, "1")
        gateway.advance(0.1)
        assert [gateway.get().status for _ in range(2)] == [200, 429]
        gateway.advance(3600)
        assert [gateway.get().status for _ in range(4)] == [200, 200, 200, 429]


def test_a_limited_request_is_logged_with_its_cluster(tmp_path: Path) -> None:
    log = {
        "code": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "cluster": "%UPSTREAM_CLUSTER%",
        "host": "%UPSTREAM_HOST%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "sent": "%BYTES_SENT%",
    }
    setup = limited(LIMIT | {"max_tokens": 0}, log=log, log_path=str(tmp_path / "log"))
    with serving(setup) as (gateway, _):
        assert gateway.get().status == 429
        assert gateway.log_lines(1) == [
            {
                "code": 429,
                "flags": "RL",
                "details": "local_rate_limited",
                "cluster": "c",
                "host": None,
                "attempts": 0,
                "sent": 18,
            }
        ]


def test_a_limited_request_with_a_small_body_keeps_the_connection() -> None:
    with serving(limited(LIMIT | {"max_tokens": 0})) as (gateway, _):
        client = gateway.connect()
        client.send(post(b"small") + get())
        for _ in range(2):
            assert client.read_response().status == 429


def test_a_reload_that_changes_something_else_keeps_the_bucket() -> None:
    with serving(limited()) as (gateway, upstream):
        for _ in range(3):
            assert gateway.get().status == 200
        changed = limited(http={"server_name": "other"})
        changed.endpoints = [upstream.address]
        changed.routes["default"]["action"] = forward("c", timeout_ms=1)
        gateway.apply(changed)
        response = gateway.get()
        assert (response.status, response["server"]) == (429, "other")


def test_a_reload_that_changes_the_limit_starts_a_full_bucket() -> None:
    with serving(limited()) as (gateway, upstream):
        for _ in range(3):
            assert gateway.get().status == 200
        changed = limited(LIMIT | {"max_tokens": 2})
        changed.endpoints = [upstream.address]
        gateway.apply(changed)
        assert [gateway.get().status for _ in range(3)] == [200, 200, 429]


def test_routes_with_the_same_bucket_share_it() -> None:
    setup = limited()
    setup.routes["other"] = dict(setup.routes["default"], name="other")
    setup.rules = [rule("/", "default"), rule("/other", "other")]
    with serving(setup) as (gateway, _):
        assert [gateway.get(path).status for path in ("/", "/other", "/", "/other")] == [
            200,
            200,
            200,
            429,
        ]


def test_workers_share_the_bucket() -> None:
    with serving(limited(LIMIT | {"max_tokens": 50}), workers=4) as (gateway, _):
        statuses: list[int] = []

        def load() -> None:
            statuses.extend(gateway.get().status for _ in range(25))

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses.count(200) == 50
        assert statuses.count(429) == 50


def test_a_limited_head_request_has_no_body() -> None:
    with serving(limited(LIMIT | {"max_tokens": 0})) as (gateway, _):
        response = gateway.ask(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n", head=True)
        assert (response.status, response["content-length"]) == (429, "18")


def test_taking_a_limit_away_and_putting_it_back_refills_nothing() -> None:
    with serving(limited()) as (gateway, upstream):
        assert [gateway.get().status for _ in range(4)] == [200, 200, 200, 429]
        free = Setup(endpoints=[upstream.address])
        again = limited(endpoints=[upstream.address])
        for _ in range(3):
            gateway.apply(free)
            assert gateway.get().status == 200
        gateway.apply(again)
        assert gateway.get().status == 429
        gateway.apply(free)
        gateway.advance(60)
        gateway.apply(again)
        assert [gateway.get().status for _ in range(4)] == [200, 200, 200, 429]


# === Waiting ===

QUEUE: dict[str, Any] = LIMIT | {
    "max_tokens": 1,
    "tokens_per_fill": 1,
    "fill_interval_ns": 1_000_000_000,
    "queue": {"max_wait_ms": 10_000, "max_waiting": 3},
}


def waits(gateway: Gateway, count: int) -> None:
    """Returns once so many requests wait."""
    gateway.reaches("rate_limit_queue_active", count)


def test_whoever_goes_away_makes_room_for_those_behind() -> None:
    with serving(limited(QUEUE)) as (gateway, upstream):
        assert gateway.get().status == 200
        clients = [gateway.connect() for _ in range(3)]
        for number, client in enumerate(clients):
            client.send(get(f"/{number}"))
            waits(gateway, number + 1)
        assert gateway.get()["retry-after"] == "4", "three wait already"
        clients[0].reset()
        gateway.reaches("rate_limit_abandoned", 1)
        waits(gateway, 2)
        gateway.advance(1)
        # The token of the first is the second one's, a second earlier than it was told.
        assert b'"GET /1 HTTP/1.1"' in clients[1].read_response().body
        gateway.settle()
        assert not clients[2].is_readable()
        gateway.advance(1)
        assert b'"GET /2 HTTP/1.1"' in clients[2].read_response().body
        waits(gateway, 0)
        gateway.reaches("rate_limit_queued", 3)
        gateway.reaches("upstream_rq_total", 3)
        assert upstream.connections <= 3


def test_all_but_the_last_may_go_away() -> None:
    with serving(limited(QUEUE)) as (gateway, _):
        assert gateway.get().status == 200
        clients = [gateway.connect() for _ in range(3)]
        for number, client in enumerate(clients):
            client.send(get())
            waits(gateway, number + 1)
        for number in (1, 0):  # the one in the middle first
            clients[number].reset()
            waits(gateway, number + 1)
        gateway.advance(1)
        assert clients[2].read_response().status == 200
        gateway.advance(1)
        assert [gateway.get().status for _ in range(1)] == [200], "no token was lost"


def test_requests_of_several_workers_wait_in_one_line() -> None:
    queue = QUEUE["queue"] | {"max_waiting": 8}
    with serving(limited(QUEUE | {"queue": queue}), workers=4) as (gateway, _):
        assert gateway.get().status == 200
        clients = [gateway.connect() for _ in range(8)]
        for number, client in enumerate(clients):
            client.send(get())
            waits(gateway, number + 1)
        # The half of them that came first go away: the others are served by the second.
        for number, client in enumerate(clients[:4]):
            client.reset()
            waits(gateway, 7 - number)
        for served, client in enumerate(clients[4:]):
            assert gateway.engine.settle(WAIT)
            gateway.engine.advance(1)
            assert client.read_response().status == 200
            waits(gateway, 3 - served)
            assert not any(later.is_readable() for later in clients[5 + served :])


def test_who_waits_keeps_its_place_over_a_reload() -> None:
    with serving(limited(QUEUE)) as (gateway, upstream):
        assert gateway.get().status == 200
        client = gateway.connect()
        client.send(get())
        waits(gateway, 1)
        changed = limited(QUEUE | {"queue": {"max_wait_ms": 1_500, "max_waiting": 3}})
        changed.endpoints = [upstream.address]
        gateway.apply(changed)
        assert gateway.get()["retry-after"] == "2", "behind the one that waits"
        gateway.advance(1)
        assert client.read_response().status == 200


def test_who_waits_is_let_go_when_the_gateway_stops() -> None:
    with serving(limited(QUEUE)) as (gateway, _):
        assert gateway.get().status == 200
        client = gateway.connect()
        client.send(get())
        waits(gateway, 1)
        gateway.engine.join(0.0)
        assert client.is_closed()


def test_streams_of_a_connection_wait_by_themselves() -> None:
    with serving(limited(QUEUE)) as (gateway, _):
        client = h2_client(gateway)
        assert client.ask("/").status == 200
        streams = [client.request("/0")]
        waits(gateway, 1)
        streams.append(client.request("/1"))
        waits(gateway, 2)
        client.reset(streams[0])
        gateway.reaches("rate_limit_abandoned", 1)
        gateway.advance(1)
        assert b'"GET /1 HTTP/1.1"' in client.response(streams[1]).body
        waits(gateway, 0)
