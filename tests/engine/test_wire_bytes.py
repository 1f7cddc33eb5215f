"""Byte counts of the access log: what went over the wire, framing included."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .harness import Peer, Setup, get, ok, serving

if TYPE_CHECKING:
    from pathlib import Path

LOG = {
    name: f"%{name}%"
    for name in [
        "BYTES_RECEIVED",
        "BYTES_SENT",
        "DOWNSTREAM_HEADER_BYTES_RECEIVED",
        "DOWNSTREAM_HEADER_BYTES_SENT",
        "DOWNSTREAM_WIRE_BYTES_RECEIVED",
        "DOWNSTREAM_WIRE_BYTES_SENT",
        "UPSTREAM_HEADER_BYTES_RECEIVED",
        "UPSTREAM_HEADER_BYTES_SENT",
        "UPSTREAM_WIRE_BYTES_RECEIVED",
        "UPSTREAM_WIRE_BYTES_SENT",
    ]
}


def test_each_request_of_a_connection_is_counted_alone(tmp_path: Path) -> None:
    answer = ok(b"hello")
    seen: list[bytes] = []

    def script(peer: Peer) -> None:
        while True:
            _, headers, head = peer.read_head()
            seen.append(head + peer.read_body(headers))
            peer.send(answer)

    chunked = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    body = b"3\r\nabc\r\n0\r\n\r\n"
    setup = Setup(log=LOG, log_path=str(tmp_path / "access.log"))
    with serving(setup, script) as (gateway, _):
        client = gateway.connect()
        client.send(get())
        first = client.read_response()
        client.send(chunked + body)
        second = client.read_response()
        plain, posted = gateway.log_lines(2)

    assert plain["BYTES_RECEIVED"] == 0
    assert plain["BYTES_SENT"] == 5
    assert plain["DOWNSTREAM_HEADER_BYTES_RECEIVED"] == len(get())
    assert plain["DOWNSTREAM_WIRE_BYTES_RECEIVED"] == len(get())
    assert plain["DOWNSTREAM_HEADER_BYTES_SENT"] == len(first.raw_head)
    assert plain["DOWNSTREAM_WIRE_BYTES_SENT"] == len(first.raw_head) + 5
    assert plain["UPSTREAM_HEADER_BYTES_SENT"] == len(seen[0])
    assert plain["UPSTREAM_WIRE_BYTES_SENT"] == len(seen[0])
    assert plain["UPSTREAM_HEADER_BYTES_RECEIVED"] == len(answer) - 5
    assert plain["UPSTREAM_WIRE_BYTES_RECEIVED"] == len(answer)

    assert posted["BYTES_RECEIVED"] == 3
    assert posted["DOWNSTREAM_HEADER_BYTES_RECEIVED"] == len(chunked)
    assert posted["DOWNSTREAM_WIRE_BYTES_RECEIVED"] == len(chunked + body)
    assert posted["DOWNSTREAM_WIRE_BYTES_SENT"] == len(second.raw_head) + 5
    assert posted["UPSTREAM_WIRE_BYTES_RECEIVED"] == len(answer)


def test_a_reply_of_the_proxy_has_no_upstream_bytes(tmp_path: Path) -> None:
    setup = Setup(log=LOG, log_path=str(tmp_path / "access.log"), hosts=[])
    with serving(setup) as (gateway, _):
        response = gateway.get()
        (line,) = gateway.log_lines(1)
    assert response.status == 404
    assert line["DOWNSTREAM_HEADER_BYTES_SENT"] == len(response.raw_head)
    assert line["UPSTREAM_WIRE_BYTES_SENT"] == 0
    assert line["UPSTREAM_WIRE_BYTES_RECEIVED"] == 0
