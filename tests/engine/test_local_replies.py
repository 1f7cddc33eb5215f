"""What the proxy answers itself, and what it says about it: Envoy's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.harness import (
    Gateway,
    Peer,
    Setup,
    Upstream,
    deaf_address,
    direct,
    forward,
    get,
    ok,
    post,
    refused_address,
    rule,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RESET = "upstream connect error or disconnect/reset before headers. reset reason: "
BEFORE = "upstream_reset_before_response_started"
AFTER = "upstream_reset_after_response_started"

LOG = {
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "host": "%UPSTREAM_HOST%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "route": "%ROUTE_NAME%",
    "method": "%REQ(:METHOD)%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
}


@dataclass
class Case:
    """A failure and all that is said about it."""

    status: int
    body: str
    flags: str
    details: str
    attempts: int
    host: bool
    cluster: str | None = "c"


def logged(gateway: Gateway, case: Case, upstream: Upstream | None = None) -> dict[str, Any]:
    [line] = gateway.log_lines(1)
    assert line["code"] == case.status
    assert line["flags"] == case.flags
    assert line["details"] == case.details
    assert line["attempts"] == case.attempts
    assert line["cluster"] == case.cluster
    if upstream is not None:
        assert line["host"] == (upstream.address if case.host else None)
    return line


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(log=LOG, log_path=str(tmp_path / "access.log"))


def check(setup: Setup, case: Case, script: Callable[[Peer], None] | None = None) -> None:
    """The failure is answered as the case says, and the connection goes on."""
    with serving(setup, script) as (gateway, upstream):
        client = gateway.connect()
        client.send(get("/path"))
        response = client.read_response()
        assert (response.status, response.body.decode()) == (case.status, case.body)
        assert response["content-length"] == str(len(case.body))
        assert response.get("content-type") == ("text/plain" if case.body else None)
        assert response["server"] == "kgw"
        assert response["date"].endswith(" GMT")
        assert response.get("connection") is None
        gateway.settle()
        assert not client.is_readable()
        line = logged(gateway, case)
        if case.host:
            assert line["host"] == (setup.endpoints or [upstream.address])[0]
        else:
            assert line["host"] is None
        assert line["method"] == "GET"
        assert (line["received"], line["sent"]) == (0, len(case.body))


def test_no_route(setup: Setup) -> None:
    setup.rules = [rule("/elsewhere", "default")]
    check(setup, Case(404, "", "NR", "route_not_found", 0, False, None))


def test_no_host(setup: Setup) -> None:
    setup.hosts = [{"hostname": "example.org", "rules": [rule("/", "default")]}]
    check(setup, Case(404, "", "NR", "route_not_found", 0, False, None))


def test_a_host_without_rules(setup: Setup) -> None:
    setup.hosts = [
        {"hostname": "ollama", "rules": []},
        {"hostname": "*", "rules": [rule("/", "default")]},
    ]
    check(setup, Case(404, "", "NR", "route_not_found", 0, False, None))


def test_a_direct_response(setup: Setup) -> None:
    setup.routes = {"d": direct(418, "short and stout")}
    check(setup, Case(418, "short and stout", "-", "direct_response", 0, False, None))


def test_a_redirect(setup: Setup) -> None:
    setup.routes = {"r": {"name": "r", "action": {"type": "redirect", "status": 302}}}
    check(setup, Case(302, "", "-", "direct_response", 0, False, None))


def test_no_endpoints(setup: Setup) -> None:
    setup.clusters = {"empty": {"endpoints": []}}
    setup.routes = {"default": {"name": "default", "action": forward("empty")}}
    case = Case(503, "no healthy upstream", "UH", "no_healthy_upstream", 1, False, "empty")
    check(setup, case)


def test_an_unresolved_backend(setup: Setup) -> None:
    backends = [{"cluster": None, "weight": 1}]
    action = forward() | {"backends": backends}
    setup.routes = {"default": {"name": "default", "action": action}}
    check(setup, Case(500, "", "NC", "cluster_not_found", 0, False, None))


def test_no_backends(setup: Setup) -> None:
    setup.routes = {"default": {"name": "default", "action": forward()}}
    check(setup, Case(500, "", "NC", "cluster_not_found", 0, False, None))


def test_a_broken_route_takes_no_other_down(setup: Setup) -> None:
    setup.routes = {
        "default": {"name": "default", "action": forward("nowhere")},
        "good": direct(200, "good"),
    }
    setup.rules = [rule("/", "default"), rule("/good", "good")]
    body = "invalid route configuration detected and replaced with a direct response."
    check(setup, Case(500, body, "-", "direct_response", 0, False, None))
    with serving(setup) as (gateway, _):
        assert gateway.get("/good").body == b"good"
        assert gateway.engine.problems() == ['route default: no cluster "nowhere"']


def test_connect_refused(setup: Setup) -> None:
    details = BEFORE + "{remote_connection_failure|delayed_connect_error:_Connection_refused}"
    with refused_address() as address:
        setup.endpoints = [address]
        check(setup, Case(503, RESET + "remote connection failure", "UF", details, 1, True))


def test_connect_time_out(setup: Setup) -> None:
    with deaf_address() as address:
        setup.endpoints = [address]
        with serving(setup) as (gateway, _):
            client = gateway.connect()
            client.send(get())
            gateway.advance(4.9)
            assert not client.is_readable()
            gateway.advance(0.2)
            response = client.read_response()
            assert response.status == 503
            assert response.body.decode() == RESET + "connection timeout"
            assert response.get("connection") is None
            case = Case(503, "", "UF", BEFORE + "{connection_timeout}", 1, True)
            assert logged(gateway, case)["host"] == address
            gateway.reaches("upstream_cx_connect_timeout", 1)


@pytest.mark.parametrize("reset", [False, True])
def test_upstream_closes_before_the_answer(setup: Setup, reset: bool) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        if reset:
            peer.reset()

    details = BEFORE + "{connection_termination}"
    check(setup, Case(503, RESET + "connection termination", "UC", details, 1, True), script)


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad field\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nname : v\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 101 + b"content-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 83_000 + b"\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 O",
    ],
)
def test_upstream_breaks_the_protocol(setup: Setup, answer: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(answer)

    details = BEFORE + "{protocol_error}"
    check(setup, Case(502, RESET + "protocol error", "UPE", details, 1, True), script)


def test_a_large_but_allowed_answer_head_passes(setup: Setup) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(ok(b"ok", "x: " + "y" * 79_000, *["z: z"] * 95))

    with serving(setup, script) as (gateway, _):
        assert gateway.get().body == b"ok"


@pytest.mark.parametrize("reset", [False, True])
def test_upstream_goes_away_in_the_answer(setup: Setup, reset: bool) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        peer.send(b"HTTP/1.1 201 Created\r\ncontent-length: 10\r\n\r\npart!")
        client.read_until(b"part!")
        if reset:
            peer.reset()
        else:
            peer.close()
        assert client.is_closed()
        case = Case(201, "", "UPE", AFTER + "{protocol_error}", 1, True)
        assert logged(gateway, case, upstream)["sent"] == 5


@pytest.mark.parametrize("reset", [False, True])
def test_client_goes_away_before_the_request_has_ended(setup: Setup, reset: bool) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\npart!")
        peer = upstream.accept()
        peer.read_until(b"part!")
        if reset:
            client.reset()
        else:
            client.finish_sending()
        assert peer.is_closed()
        case = Case(0, "", "DC", "downstream_remote_disconnect", 1, True)
        line = logged(gateway, case, upstream)
        assert (line["method"], line["received"]) == ("POST", 5)


def test_client_resets_before_the_answer(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        client.reset()
        assert peer.is_closed()
        logged(gateway, Case(0, "", "DC", "downstream_remote_disconnect", 1, True), upstream)


def test_client_resets_in_the_answer(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\npart!")
        client.read_until(b"part!")
        client.reset()
        assert peer.is_closed()
        case = Case(200, "", "DC", "downstream_remote_disconnect", 1, True)
        assert logged(gateway, case, upstream)["sent"] == 5


def test_client_goes_away_in_the_head(setup: Setup) -> None:
    with serving(setup, None) as (gateway, _):
        client = gateway.connect()
        client.send(b"GET / HTTP/1.1\r\nhost")
        client.finish_sending()
        assert client.is_closed()
        case = Case(0, "", "DC", "downstream_remote_disconnect", 0, False, None)
        assert logged(gateway, case)["method"] is None


def test_a_connection_without_a_request_is_not_logged(setup: Setup) -> None:
    with serving(setup) as (gateway, _):
        client = gateway.connect()
        client.finish_sending()
        assert client.is_closed()
        assert gateway.get().status == 200
        assert gateway.log_lines(1)[0]["code"] == 200


def test_a_proxied_request(setup: Setup) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(ok(b"answer", status="404 Not Found"))

    with serving(setup, script) as (gateway, upstream):
        assert gateway.ask(post(b"question")).status == 404
        line = logged(gateway, Case(404, "", "-", "via_upstream", 1, True), upstream)
        assert (line["received"], line["sent"], line["route"]) == (8, 6, "default")


def test_a_local_reply_takes_a_small_body_and_keeps_the_connection() -> None:
    with serving(Setup(routes={"d": direct(403, "no")})) as (gateway, _):
        client = gateway.connect()
        chunked = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        body = b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"
        size = f"{len(body):x}\r\n".encode()
        client.send(post(body) + chunked + size + body + b"\r\n0\r\n\r\n" + get())
        for _ in range(3):
            response = client.read_response()
            assert (response.status, response.get("connection")) == (403, None)
        gateway.settle()
        assert not client.is_readable()


def test_a_local_reply_to_a_request_that_is_still_being_sent_closes() -> None:
    with serving(Setup(routes={"d": direct(403, "no")})) as (gateway, _):
        client = gateway.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\npart")
        response = client.read_response()
        assert (response.status, response["connection"]) == (403, "close")
        assert client.is_closed()


def test_what_follows_a_last_answer_is_read_for_a_while_so_that_it_arrives() -> None:
    with serving(Setup(routes={"d": direct(403, "no")})) as (gateway, _):
        client = gateway.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n")
        client.send(bytes(30_000))
        gateway.settle()
        client.send(bytes(20_000))
        assert client.read_response().body == b"no"
        assert client.sock.recv(1) == b""
        gateway.advance(1.1)
        assert gateway.stat("downstream_cx_active") == 1  # the probe's


def test_a_failure_with_the_body_half_sent_closes_the_connection(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\npart!")
        peer = upstream.accept()
        peer.read_until(b"part!")
        peer.close()
        response = client.read_response()
        assert (response.status, response["connection"]) == (503, "close")
        client.send(b"part2" + get())
        assert client.is_closed()
        logged(gateway, Case(503, "", "UC", BEFORE + "{connection_termination}", 1, True), upstream)


def test_asterisk_and_connect_are_not_routed(setup: Setup) -> None:
    with serving(setup) as (gateway, upstream):
        client = gateway.connect()
        client.send(b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n")
        response = client.read_response()
        assert (response.status, response.body, response.get("connection")) == (404, b"", None)
        client.send(b"CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n")
        response = client.read_response()
        assert (response.status, response["connection"]) == (404, "close")
        assert client.is_closed()
        asterisk, connect = gateway.log_lines(2)
        assert (asterisk["flags"], asterisk["details"]) == ("-", "absolute_path_rejected")
        assert (connect["flags"], connect["details"]) == ("NR", "route_not_found")
        assert upstream.connections == 0
