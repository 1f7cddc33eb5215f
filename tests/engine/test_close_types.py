"""How connections ended, in the access log, and what a repeated attempt leaves in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engine.harness import Setup, eventually, get, ok, serving

if TYPE_CHECKING:
    from pathlib import Path

LOG = {
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "downstream": "%DOWNSTREAM_DETECTED_CLOSE_TYPE%",
    "upstream": "%UPSTREAM_DETECTED_CLOSE_TYPE%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "hosts": "%UPSTREAM_HOSTS_ATTEMPTED%",
    "connections": "%UPSTREAM_CONNECTION_IDS_ATTEMPTED%",
}


def logged(tmp_path: Path) -> Setup:
    return Setup(log=LOG, log_path=str(tmp_path / "access.log"))


def test_a_client_that_resets_is_told_from_one_that_leaves(tmp_path: Path) -> None:
    with serving(logged(tmp_path), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        upstream.accept().read_request()
        client.reset()
        (line,) = gateway.log_lines(1)
    assert (line["flags"], line["downstream"], line["upstream"]) == ("DC", "RemoteReset", "Normal")


def test_an_endpoint_that_resets_is_told_from_one_that_closes(tmp_path: Path) -> None:
    with serving(logged(tmp_path), None) as (gateway, upstream):
        for end in ["close", "reset"]:
            client = gateway.connect()
            client.send(get())
            peer = upstream.accept()
            peer.read_request()
            getattr(peer, end)()
            assert client.read_response().status == 503
        closed, reset = gateway.log_lines(2)
    assert (closed["flags"], closed["upstream"]) == ("UC", "Normal")
    assert (reset["flags"], reset["upstream"]) == ("UC", "RemoteReset")


def test_a_repeated_attempt_is_counted_and_named(tmp_path: Path) -> None:
    with serving(logged(tmp_path), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        first = upstream.accept()
        first.read_request()
        first.send(ok())
        client.read_response()
        eventually(lambda: gateway.stat("upstream_cx_idle") == 1)
        client.send(get())
        first.read_request()
        first.close()
        second = upstream.accept()
        second.read_request()
        second.send(ok())
        assert client.read_response().status == 200
        _, line = gateway.log_lines(2)
    assert line["attempts"] == 2
    assert line["hosts"] == f"{upstream.address},{upstream.address}"
    assert len(set(line["connections"].split(","))) == 2
