"""What waits and what does not: clients that leave, heads that do not come, reloads meanwhile."""

from __future__ import annotations

from .harness import (
    Setup,
    always,
    deaf_address,
    eventually,
    forward,
    get,
    ok,
    post,
    refused_address,
    serving,
)


def test_a_client_that_resets_during_a_connect_ends_it() -> None:
    with deaf_address() as deaf, serving(Setup(endpoints=[deaf])) as (gateway, _):
        client = gateway.connect()
        client.send(get())
        eventually(lambda: gateway.stat("downstream_rq_active") == 1)
        client.reset()
        eventually(lambda: gateway.stat("downstream_cx_active") == 0)
        assert gateway.stat("upstream_cx_connect_timeout") == 0


def test_a_client_that_only_finished_sending_still_gets_the_time_out_of_its_connect() -> None:
    with deaf_address() as deaf, serving(Setup(endpoints=[deaf])) as (gateway, _):
        client = gateway.connect()
        client.send(get())
        client.finish_sending()
        eventually(lambda: gateway.stat("downstream_rq_active") == 1)
        gateway.settle()
        gateway.advance(5)
        assert client.read_response().status == 503


def test_nobody_is_told_to_continue_before_there_is_an_upstream() -> None:
    with refused_address() as nobody, serving(Setup(endpoints=[nobody])) as (gateway, _):
        client = gateway.connect()
        client.send(
            b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n"
        )
        assert client.read_response().status == 503


def test_empty_lines_before_a_head_that_is_too_large_do_not_hold_up_its_refusal() -> None:
    with serving(Setup()) as (gateway, _):
        client = gateway.connect()
        client.send(b"\r\n\r\n" + b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 62_000)
        assert client.read_response().status == 431


def test_an_empty_line_begins_no_request_that_a_drain_would_wait_for() -> None:
    with serving(Setup(), real_time=True) as (gateway, _):
        client = gateway.connect()
        client.send(get())
        client.read_response()
        client.send(b"\r\n")
        gateway.settle()
        gateway.engine.drain()
        assert client.is_closed()


def test_a_drain_does_not_wait_for_a_proxy_header() -> None:
    with serving(Setup(waypoint=True), real_time=True) as (gateway, _):
        client = gateway.connect()
        eventually(lambda: gateway.stat("downstream_cx_active") == 1)
        gateway.engine.drain()
        assert client.is_closed()


def test_reloads_do_not_favour_an_endpoint() -> None:
    with (
        serving(Setup(), always(ok(b"a"))) as (gateway, one),
        serving(Setup(), always(ok(b"b"))) as (_, other),
    ):
        setup = Setup(endpoints=[one.address, other.address])
        answers = set()
        for _ in range(64):
            gateway.apply(setup)
            answers.add(gateway.get().body)
        assert answers == {b"a", b"b"}


def test_a_token_is_asked_for_when_the_request_is_there_not_when_it_began() -> None:
    limit = {
        "type": "local_rate_limit",
        "bucket": "b",
        "max_tokens": 1,
        "tokens_per_fill": 1,
        "fill_interval_ns": 10_000_000_000,
    }
    routes = {"r": {"name": "r", "filters": [limit], "action": forward("c")}}
    with serving(Setup(routes=routes)) as (gateway, _):
        slow = gateway.connect()
        slow.send(b"GET / HTTP/1.1\r\n")
        gateway.settle()
        assert gateway.get().status == 200
        gateway.advance(15)
        slow.send(b"host: a\r\n\r\n")
        assert slow.read_response().status == 200


def test_a_filter_cannot_take_the_servers_name_off_a_reply() -> None:
    change = {"type": "response_headers", "set": [["server", "other"]], "remove": ["date"]}
    routes = {"r": {"name": "r", "filters": [change], "action": {"type": "direct", "status": 200}}}
    with serving(Setup(routes=routes)) as (gateway, _):
        response = gateway.ask(post(b"x"))
        assert response["server"] == "kgw"
        assert response.get("date")
