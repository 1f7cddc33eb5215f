"""Bodies that are long enough to pass from socket to socket inside the kernel.

Every test that can runs twice: such a body is copied instead if a listener's buffers are small, and
nobody can tell by anything but a counter.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.harness import (
    PATTERN,
    Gateway,
    Peer,
    Setup,
    always,
    eventually,
    get,
    ok,
    post,
    serving,
    tcp_forward,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGE = PATTERN * 30
"""3,932,160 bytes."""

ENDLESS = 1 << 30
"""A length that is never sent whole."""

LOG = {
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "down_received": "%DOWNSTREAM_WIRE_BYTES_RECEIVED%",
    "down_sent": "%DOWNSTREAM_WIRE_BYTES_SENT%",
    "up_received": "%UPSTREAM_WIRE_BYTES_RECEIVED%",
    "up_sent": "%UPSTREAM_WIRE_BYTES_SENT%",
    "up_close": "%UPSTREAM_DETECTED_CLOSE_TYPE%",
}

SPLICED, COPIED = 32 * 1024, 32 * 1024 - 1


@pytest.fixture(params=[SPLICED, COPIED], ids=["spliced", "copied"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Setup:
    """A gateway that goes one way or the other, and logs."""
    http = {"buffer_bytes": request.param}
    return Setup(http=http, log=LOG, log_path=str(tmp_path / "access.log"))


def _goes_its_way(gateway: Gateway) -> bool:
    """Whether bytes were spliced if they should be, and only then."""
    is_spliced = gateway.stat("splice_bytes") > 0
    return is_spliced == bool(gateway.setup.http["buffer_bytes"] == SPLICED)


def _pattern(size: int) -> bytes:
    return (PATTERN * (size // len(PATTERN) + 1))[:size]


def _head(length: int) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n".encode()


def _post_head(length: int) -> bytes:
    return f"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n".encode()


@contextlib.contextmanager
def _meanwhile(peer: Peer, data: bytes) -> Iterator[None]:
    """Sends while something else is done."""
    sender = threading.Thread(target=peer.send, args=(data,))
    sender.start()
    yield
    sender.join()


@contextlib.contextmanager
def _stalled_answer(setup: Setup, length: int = ENDLESS) -> Iterator[tuple[Gateway, Peer, Peer]]:
    """An answer that fills everything on its way, for its client does not read."""
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect(receive_buffer=65_536)
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        peer.send(_head(length))
        peer.fill(length, gateway)
        assert _goes_its_way(gateway)
        yield gateway, client, peer


@pytest.mark.parametrize("around", [16_384, 65_536, 81_920, 262_144, 278_528, 524_288, 1_000_000])
def test_no_byte_is_lost_or_added_at_the_edges(way: Setup, around: int) -> None:
    def script(peer: Peer) -> None:
        while True:
            _, _, received = peer.read_request()
            peer.send(ok(received[::-1]))

    sizes = [around - 1, around, around + 1]
    with serving(way, script) as (gateway, upstream):
        client = gateway.connect()
        for size in sizes:
            body = _pattern(size)
            with _meanwhile(client, post(body)):
                assert client.read_response().body == body[::-1]
        lines = gateway.log_lines(len(sizes))
        assert [(line["received"], line["sent"]) for line in lines] == [(n, n) for n in sizes]
        assert upstream.connections == 1
        assert gateway.stat("downstream_rx_body_bytes") == sum(sizes)
        assert gateway.stat("downstream_tx_body_bytes") == sum(sizes)


def test_connections_carry_on_after_large_bodies(way: Setup) -> None:
    def script(peer: Peer) -> None:
        while True:
            _, _, received = peer.read_request()
            peer.send(ok(received[::-1]))

    with serving(way, script) as (gateway, upstream):
        client = gateway.connect()
        for _ in range(3):
            with _meanwhile(client, post(LARGE)):
                assert client.read_response().body == LARGE[::-1]
            client.send(post(b"small"))
            assert client.read_response().body == b"llams"
        assert upstream.connections == 1
        assert _goes_its_way(gateway)


def test_wire_bytes_are_counted(way: Setup) -> None:
    heads: list[bytes] = []

    def script(peer: Peer) -> None:
        _, headers, head = peer.read_head()
        peer.read_body(headers)
        heads.append(head)
        peer.send(ok(LARGE))

    with serving(way, script) as (gateway, _):
        client = gateway.connect()
        with _meanwhile(client, post(LARGE)):
            response = client.read_response()
        assert response.body == LARGE
        (line,) = gateway.log_lines(1)
        assert _goes_its_way(gateway)
    assert line["received"] == line["sent"] == len(LARGE)
    assert line["down_received"] == len(post(LARGE))
    assert line["down_sent"] == len(response.raw_head) + len(LARGE)
    assert line["up_sent"] == len(heads[0]) + len(LARGE)
    assert line["up_received"] == len(ok(LARGE))


def test_requests_wait_behind_large_answers(way: Setup) -> None:
    with serving(way, always(ok(LARGE))) as (gateway, upstream):
        client = gateway.connect()
        client.send(get("/1") + get("/2") + get("/3"))
        for _ in range(3):
            assert client.read_response().body == LARGE
        assert upstream.connections == 1
        assert _goes_its_way(gateway)


def test_what_follows_a_large_request_is_the_next_one(way: Setup) -> None:
    seen: list[tuple[str, bytes]] = []

    def script(peer: Peer) -> None:
        while True:
            first, _, body = peer.read_request()
            seen.append((first, body))
            peer.send(ok())

    with serving(way, script) as (gateway, _):
        client = gateway.connect()
        with _meanwhile(client, post(LARGE) + get("/next") + post(LARGE[:100_000], path="/last")):
            for _ in range(3):
                assert client.read_response().body == b"ok"
        assert _goes_its_way(gateway)
    lines = ["POST / HTTP/1.1", "GET /next HTTP/1.1", "POST /last HTTP/1.1"]
    assert seen == list(zip(lines, [LARGE, b"", LARGE[:100_000]], strict=True))


def test_what_an_upstream_sends_beyond_its_answer_goes_nowhere(way: Setup) -> None:
    with serving(way, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        with _meanwhile(peer, ok(LARGE) + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"):
            assert client.read_response().body == LARGE
        assert _goes_its_way(gateway)
        assert peer.is_closed()
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        peer.send(ok(b"good"))
        assert client.read_response().body == b"good"


def test_pieces_of_all_sizes(way: Setup) -> None:
    sizes = [1, 40_000, 3, 16_384, 1, 300_000, 70_000, 2, 16_383, 500_000, 5]
    body = _pattern(sum(sizes))
    with serving(way, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(_post_head(len(body)))
        peer = upstream.accept()
        head = peer.read_until(b"\r\n\r\n")
        assert f"content-length: {len(body)}\r\n".encode() in head
        at = 0
        for size in sizes:
            client.send(body[at : at + size])
            assert peer.read_exactly(size) == body[at : at + size]
            at += size
        peer.send(_head(len(body)))
        assert client.read_until(b"\r\n\r\n")
        at = 0
        for size in sizes:
            peer.send(body[at : at + size])
            assert client.read_exactly(size) == body[at : at + size]
            at += size
        (line,) = gateway.log_lines(1)
        assert line["received"] == line["sent"] == len(body)
        assert _goes_its_way(gateway)


@pytest.mark.parametrize("buffer_bytes", [1024, COPIED, SPLICED, 262_144, 262_145, 1 << 20])
def test_a_reader_that_is_late_gets_everything_in_order(buffer_bytes: int, tmp_path: Path) -> None:
    setup = Setup(log=LOG, log_path=str(tmp_path / "access.log"))
    setup.http["buffer_bytes"] = buffer_bytes
    body = _pattern(40_000_000)
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect(receive_buffer=65_536)
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        peer.send(_head(len(body)))
        sent = peer.fill(len(body), gateway)
        assert sent < len(body)
        with _meanwhile(peer, body[sent:]):
            assert client.read_response().body == body
        (line,) = gateway.log_lines(1)
        assert line["sent"] == len(body)


@pytest.mark.parametrize("leave", ["reset", "close"])
def test_a_client_that_leaves_within_an_answer(way: Setup, leave: str) -> None:
    with _stalled_answer(way) as (gateway, client, peer):
        getattr(client, leave)()
        eventually(lambda: _is_cut_off(peer), "the end of the upstream's connection")
        (line,) = gateway.log_lines(1)
        assert (line["code"], line["flags"]) == (200, "DC")
        assert 0 < line["sent"] <= line["up_received"]
        eventually(lambda: gateway.stat("downstream_cx_active") == 1, "nothing but the probe")


def _is_cut_off(peer: Peer) -> bool:
    """Whether the other side is gone: what is sent to it fails."""
    try:
        peer.sock.setblocking(False)
        peer.sock.send(b"x")
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False


def test_a_client_that_leaves_within_its_request(way: Setup) -> None:
    with serving(way, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(_post_head(ENDLESS))
        peer = upstream.accept()
        with _meanwhile(client, LARGE):
            peer.read_until(b"\r\n\r\n")
            assert peer.read_exactly(len(LARGE)) == LARGE
        client.reset()
        assert peer.is_closed()
        (line,) = gateway.log_lines(1)
        assert (line["code"], line["flags"], line["received"]) == (0, "DC", len(LARGE))
        assert _goes_its_way(gateway)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_answer_that_is_cut_short_is_visibly_so(way: Setup, how: str) -> None:
    with serving(way, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        with _meanwhile(peer, _head(len(LARGE) + 1) + LARGE):
            assert client.read_until(b"\r\n\r\n")
            assert client.read_exactly(len(LARGE)) == LARGE
        getattr(peer, how)()
        assert client.is_closed()
        (line,) = gateway.log_lines(1)
        assert (line["code"], line["flags"], line["sent"]) == (200, "UPE", len(LARGE))
        assert line["details"] == "upstream_reset_after_response_started{protocol_error}"
        assert line["up_close"] == ("Normal" if how == "close" else "RemoteReset")
        assert _goes_its_way(gateway)


def test_what_came_before_a_cut_still_reaches_a_late_reader(way: Setup) -> None:
    with serving(way, None) as (gateway, upstream):
        client = gateway.connect(receive_buffer=65_536)
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        peer.send(_head(ENDLESS))
        sent = peer.fill(ENDLESS, gateway)
        peer.close()
        assert client.read_until(b"\r\n\r\n")
        assert client.read_exactly(sent) == _pattern(sent)
        assert client.is_closed()
        assert _goes_its_way(gateway)


def test_an_upstream_that_resets_while_it_is_sent_a_body(way: Setup) -> None:
    with serving(way, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(_post_head(ENDLESS))
        peer = upstream.accept()
        peer.read_until(b"\r\n\r\n")
        client.fill(ENDLESS, gateway)
        assert _goes_its_way(gateway)
        peer.reset()
        response = client.read_response()
        assert (response.status, response["connection"]) == (503, "close")
        (line,) = gateway.log_lines(1)
        assert (line["code"], line["flags"]) == (503, "UC")


def test_an_answer_before_the_end_of_its_request(way: Setup) -> None:
    with serving(way, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(_post_head(2 * len(LARGE)))
        peer = upstream.accept()
        with _meanwhile(client, LARGE):
            peer.read_until(b"\r\n\r\n")
            peer.read_exactly(len(LARGE))
        with _meanwhile(peer, _head(2 * len(LARGE)) + LARGE):
            assert client.read_until(b"\r\n\r\n")
            assert client.read_exactly(len(LARGE)) == LARGE
        with _meanwhile(client, LARGE):
            assert peer.read_exactly(len(LARGE)) == LARGE
        with _meanwhile(peer, LARGE):
            assert client.read_exactly(len(LARGE)) == LARGE
        client.send(get())
        peer.read_request()
        peer.send(ok(b"again"))
        assert client.read_response().body == b"again"
        assert _goes_its_way(gateway)


def test_an_answer_that_ends_with_its_connection(way: Setup) -> None:
    with serving(way, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        with _meanwhile(peer, b"HTTP/1.1 200 OK\r\n\r\n" + LARGE):
            head = client.read_until(b"\r\n\r\n")
            assert b"transfer-encoding: chunked" in head
            received = b""
            while len(received) < len(LARGE):
                size = int(client.read_until(b"\r\n"), 16)
                received += client.read_exactly(size)
                assert client.read_exactly(2) == b"\r\n"
            assert received == LARGE
        peer.close()
        assert client.read_exactly(5) == b"0\r\n\r\n"
        (line,) = gateway.log_lines(1)
        assert (line["flags"], line["sent"]) == ("-", len(LARGE))
        assert _goes_its_way(gateway)


def test_an_old_client_sees_the_end_of_the_connection(way: Setup) -> None:
    way.http["accept_http_10"] = True
    with serving(way, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n")
        peer = upstream.accept()
        peer.read_request()
        with _meanwhile(peer, b"HTTP/1.1 200 OK\r\n\r\n" + LARGE):
            client.read_until(b"\r\n\r\n")
            assert client.read_exactly(len(LARGE)) == LARGE
        peer.close()
        assert client.read_to_end() == b""
        assert _goes_its_way(gateway)


@pytest.mark.parametrize("chunk", [100_000, 1_000_000, len(LARGE)])
def test_large_chunks(way: Setup, chunk: int) -> None:
    coded = b"".join(
        f"{len(LARGE[at : at + chunk]):x};e=1\r\n".encode() + LARGE[at : at + chunk] + b"\r\n"
        for at in range(0, len(LARGE), chunk)
    )
    coded += b"0\r\nx-sum: 1\r\n\r\n"

    def read(peer: Peer) -> bytes:
        body = b""
        while size := int(peer.read_until(b"\r\n"), 16):
            body += peer.read_exactly(size)
            assert peer.read_exactly(2) == b"\r\n"
        assert peer.read_until(b"\r\n\r\n") == b"x-sum: 1\r\n\r\n"
        return body

    field = b"transfer-encoding: chunked\r\n\r\n"
    with serving(way, None) as (gateway, upstream):
        client = gateway.connect()
        with _meanwhile(client, b"POST / HTTP/1.1\r\nhost: a\r\n" + field + coded):
            peer = upstream.accept()
            peer.read_until(b"\r\n\r\n")
            assert read(peer) == LARGE
        with _meanwhile(peer, b"HTTP/1.1 200 OK\r\n" + field + coded):
            client.read_until(b"\r\n\r\n")
            assert read(client) == LARGE
        (line,) = gateway.log_lines(1)
        assert line["received"] == line["sent"] == len(LARGE)
        assert _goes_its_way(gateway)


def test_an_answer_that_stands_still_is_given_up(way: Setup) -> None:
    way.http["stream_idle_timeout_ms"] = 5_000
    with _stalled_answer(way) as (gateway, client, _):
        gateway.advance(4.9)
        gateway.reaches("downstream_rq_active", 1)
        gateway.advance(0.2)
        # What came before the cut may still be read for a while.
        gateway.advance(2)
        with contextlib.suppress(ConnectionResetError):
            client.read_to_end()
        (line,) = gateway.log_lines(1)
        assert (line["code"], line["flags"]) == (200, "SI")


def test_a_drain_lets_a_large_answer_end(way: Setup) -> None:
    length = 40_000_000
    with serving(way, None) as (gateway, upstream):
        client = gateway.connect(receive_buffer=65_536)
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        peer.send(_head(length))
        sent = peer.fill(length, gateway)
        assert sent < length
        assert _goes_its_way(gateway)
        gateway.engine.drain()
        with _meanwhile(peer, _pattern(length)[sent:]):
            assert client.read_response().body == _pattern(length)
        for done in gateway.clients:
            done.close()
        assert gateway.engine.join(5.0) is True


def _pipes() -> int:
    """Count of the pipes' ends that this process has open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{name}").startswith("pipe:")
    return found


def test_pipes_with_bytes_in_them_are_closed_with_their_connections(tmp_path: Path) -> None:
    before = _pipes()
    setup = Setup(http={"buffer_bytes": SPLICED})
    with serving(setup, None) as (gateway, upstream):
        for count in range(1, 13):
            client = gateway.connect(receive_buffer=65_536)
            client.send(get())
            peer = upstream.accept()
            peer.read_request()
            peer.send(_head(ENDLESS))
            peer.fill(ENDLESS, gateway)
            assert _pipes() >= before + 2 * count
        for client in gateway.clients:
            if client is not gateway.probe:
                client.reset()
        eventually(lambda: gateway.stat("downstream_cx_active") == 1, "nothing but the probe")
        eventually(lambda: _pipes() <= before + 2, "the end of the pipes")


def _tcp(tmp_path: Path) -> Setup:
    traffic: dict[str, Any] = {"type": "tcp", "forward": tcp_forward("c")}
    return Setup(traffic=traffic, log=LOG, log_path=str(tmp_path / "access.log"))


@pytest.mark.parametrize("who", ["client", "server"])
def test_bytes_of_a_tunnel_are_counted(tmp_path: Path, who: str) -> None:
    with serving(_tcp(tmp_path), None) as (gateway, upstream):
        client = gateway.connect()
        server = upstream.accept()
        sender, receiver = (client, server) if who == "client" else (server, client)
        with _meanwhile(sender, LARGE):
            assert receiver.read_exactly(len(LARGE)) == LARGE
        sender.finish_sending()
        assert receiver.read_to_end() == b""
        receiver.send(b"bye")
        assert sender.read_exactly(3) == b"bye"
        receiver.close()
        (line,) = gateway.log_lines(1)
        counts = (len(LARGE), 3) if who == "client" else (3, len(LARGE))
        assert (line["received"], line["sent"]) == counts
        assert gateway.stat("splice_bytes") > 0


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_tunnel_delivers_what_a_side_sent_before_it_ended(tmp_path: Path, who: str) -> None:
    with serving(_tcp(tmp_path), None) as (gateway, upstream):
        client = gateway.connect(receive_buffer=65_536)
        server = upstream.accept()
        sender, receiver = (client, server) if who == "client" else (server, client)
        sent = sender.fill(ENDLESS, gateway)
        sender.finish_sending()
        assert receiver.read_to_end() == _pattern(sent)
        with _meanwhile(receiver, LARGE):
            assert sender.read_exactly(len(LARGE)) == LARGE
        assert gateway.stat("splice_bytes") > 0


def test_a_tunnel_whose_reader_resets_is_reset(tmp_path: Path) -> None:
    with serving(_tcp(tmp_path), None) as (gateway, upstream):
        client = gateway.connect(receive_buffer=65_536)
        server = upstream.accept()
        server.fill(ENDLESS, gateway)
        assert gateway.stat("splice_bytes") > 0
        client.reset()
        eventually(lambda: _is_cut_off(server), "a reset")
        eventually(lambda: gateway.stat("tcp_cx_active") == 0, "the end of the connection")
