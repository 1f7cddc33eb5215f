"""Copies of requests: what mirrors get, and that the requests themselves never notice."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.h2peer import h2_client, h2_script
from tests.engine.harness import (
    Gateway,
    Peer,
    Script,
    Setup,
    Upstream,
    always,
    deaf_address,
    echo,
    eventually,
    forward,
    get,
    ok,
    post,
    refused_address,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine.h2peer import H2Peer

ALL = {"type": "mirror", "cluster": "mirror", "numerator": 1, "denominator": 1}

MEBIBYTE = 1024 * 1024


class Copies:
    """A mirror that keeps what it gets."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, list[tuple[str, str]], bytes]] = []

    def __call__(self, peer: Peer) -> None:
        while True:
            self.seen.append(peer.read_request())
            peer.send(ok(b"nobody reads this"))

    def one(self) -> tuple[str, dict[str, str], bytes]:
        """The only copy, once it is there: first line, fields and body."""
        eventually(lambda: self.seen, "a copy")
        ((line, fields, body),) = self.seen
        return line, {name.lower(): value for name, value in fields}, body


def mirrored(*filters: dict[str, Any], **more: Any) -> Setup:
    """A route with mirrors, one without more said."""
    route = {
        "name": "default",
        "filters": list(filters) or [ALL],
        "action": forward("c", **more),
    }
    return Setup(routes={"default": route})


@contextlib.contextmanager
def mirroring(
    script: Script | None,
    setup: Setup | None = None,
    main: Script | None = echo,
    *,
    protocol: str = "http1",
    **limits: Any,
) -> Iterator[tuple[Gateway, Upstream, Upstream]]:
    """A gateway with an upstream and a mirror of it."""
    mirror = Upstream(script)
    setup = setup or mirrored()
    setup.clusters["mirror"] = {"endpoints": [mirror.address], "protocol": protocol}
    try:
        with serving(setup, main, **limits) as (gateway, upstream):
            yield gateway, upstream, mirror
    finally:
        mirror.close()


def outcome(gateway: Gateway) -> dict[str, int]:
    """What became of copies, once they all have ended; what did not happen is left out."""
    gateway.reaches("mirror_rq_active", 0)
    names = ("total", "overflow", "cut", "failed")
    return {name: count for name in names if (count := gateway.stat(f"mirror_rq_{name}"))}


# === What a mirror gets ===


def test_a_copy_is_what_the_backend_gets_but_for_its_host() -> None:
    copies = Copies()
    change = {"type": "request_headers", "set": [["x-set", "new"]], "remove": ["x-gone"]}
    rewrite = {"path": {"prefix": {"from": "/a", "to": "/z"}}, "hostname": "new.example:81"}
    with mirroring(copies, mirrored(change, ALL, rewrite=rewrite)) as (gateway, _, _):
        seen = json.loads(gateway.ask(post(b"body", "x-gone: 1", path="/a/b?c=d")).body)
        line, fields, body = copies.one()
        assert (line, body) == (seen["line"], b"body") == ("POST /z/b?c=d HTTP/1.1", b"body")
        own = {name.lower(): value for name, value in seen["headers"]}
        hops = own.pop("x-forwarded-for")
        assert own.pop("host") == "new.example:81"
        assert own["x-set"] == "new"
        assert fields.pop("host") == "new.example-shadow:81"
        assert fields.pop("x-envoy-internal") == "true"
        assert fields.pop("x-forwarded-for") == f"{hops},127.0.0.1"
        # The same x-request-id, too.
        assert fields == own
        assert outcome(gateway) == {"total": 1}


def test_chunks_and_trailers_are_copied() -> None:
    body = b"5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n"

    def taking(peer: Peer) -> None:
        peer.read_until(body)
        peer.send(ok())

    with mirroring(None, main=taking) as (gateway, _, mirror):
        client = gateway.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + body)
        assert client.read_response().status == 200
        copy = mirror.accept()
        assert copy.read_until(b"\r\n\r\n").startswith(b"POST / HTTP/1.1\r\n")
        assert copy.read_until(b"x-sum: 1\r\n\r\n") == body
        copy.send(ok())
        assert outcome(gateway) == {"total": 1}


def test_a_streamed_body_is_copied_as_it_comes() -> None:
    with mirroring(None) as (gateway, _, mirror):
        client = gateway.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\nabc")
        copy = mirror.accept()
        copy.read_until(b"\r\n\r\n")
        assert copy.read_exactly(3) == b"abc"
        client.send(b"def")
        assert copy.read_exactly(3) == b"def"
        assert client.read_response().status == 200
        copy.send(ok())
        assert outcome(gateway) == {"total": 1}


@pytest.mark.parametrize("main", ["http1", "http2"])
@pytest.mark.parametrize("mirror", ["http1", "http2"])
def test_streams_are_copied(main: str, mirror: str) -> None:
    """A client that speaks HTTP/2, and either version behind it."""
    bodies: dict[str, bytes] = {}

    def serve(name: str, version: str) -> Script:
        def stream(peer: H2Peer, number: int) -> None:
            bodies[name] = bytes(peer.message(number).body)
            peer.respond(number, body=b"ok")

        def connection(peer: Peer) -> None:
            while True:
                bodies[name] = peer.read_request()[2]
                peer.send(ok())

        return h2_script(stream) if version == "http2" else connection

    sent = bytes(range(256)) * 60
    setup = mirrored()
    upstream = Upstream(serve("main", main))
    setup.clusters["c"] = {"endpoints": [upstream.address], "protocol": main}
    with mirroring(serve("mirror", mirror), setup, protocol=mirror) as (gateway, _, _):
        client = h2_client(gateway)
        assert client.ask("/", method="POST", body=sent).status == 200
        assert outcome(gateway) == {"total": 1}
        assert bodies == {"main": sent, "mirror": sent}
        client.close()
    upstream.close()


def test_connections_to_mirrors_are_used_again() -> None:
    copies = Copies()
    with mirroring(copies) as (gateway, _, mirror):
        for number in range(3):
            assert gateway.get(f"/{number}").status == 200
            assert outcome(gateway) == {"total": number + 1}
        assert [line for line, _, _ in copies.seen] == [f"GET /{n} HTTP/1.1" for n in range(3)]
        assert mirror.connections == 1


def test_a_body_that_is_not_copied_any_more_is_spliced_again() -> None:
    """A mirror that answers at once does not cost the rest of a long body its short cut."""
    body = b"x" * (4 * MEBIBYTE)

    def hasty(peer: Peer) -> None:
        peer.read_until(b"\r\n\r\n")
        peer.send(ok())

    with mirroring(hasty) as (gateway, _, _):
        client = gateway.connect()
        client.send(post(body)[: -len(body)] + body[:MEBIBYTE])
        gateway.reaches("mirror_rq_active", 0)
        client.send(body[MEBIBYTE:])
        assert client.read_response().status == 200
        assert gateway.stat("splice_bytes") > 0


# === Which requests are copied ===


def test_a_share_of_nothing_is_nothing() -> None:
    copies = Copies()
    with mirroring(copies, mirrored({**ALL, "numerator": 0})) as (gateway, _, _):
        for _ in range(50):
            assert gateway.get().status == 200
        assert outcome(gateway) == {}


def test_only_the_chosen_backend_has_its_mirror() -> None:
    copies = Copies()
    setup = mirrored()
    setup.routes["default"]["filters"] = []
    setup.routes["default"]["action"]["backends"] = [
        {"cluster": "c", "weight": 1},
        {"cluster": "c", "weight": 0, "filters": [ALL]},
    ]
    with mirroring(copies, setup) as (gateway, _, _):
        assert gateway.get("/without").status == 200
        assert outcome(gateway) == {}
        backends = setup.routes["default"]["action"]["backends"]
        backends[0]["weight"], backends[1]["weight"] = 0, 1
        setup.routes["default"]["filters"] = [ALL]
        gateway.apply(setup)
        assert gateway.get("/with").status == 200
        # The rule's mirror and the backend's.
        assert outcome(gateway) == {"total": 2}
        assert [line for line, _, _ in copies.seen] == ["GET /with HTTP/1.1"] * 2


def test_requests_that_nobody_serves_are_not_copied() -> None:
    copies = Copies()
    setup = mirrored()
    setup.clusters["c"] = {"endpoints": []}
    with mirroring(copies, setup) as (gateway, _, _):
        assert gateway.get().status == 503
        assert outcome(gateway) == {}


def test_requests_that_switch_protocols_are_not_copied() -> None:
    def switching(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n")
        peer.send(b"connection: upgrade\r\n\r\n")
        peer.read_to_end()

    setup = mirrored(upgrades=["websocket"])
    with mirroring(Copies(), setup, switching) as (gateway, _, _):
        client = gateway.connect()
        client.send(get("/", "connection: upgrade", "upgrade: websocket"))
        assert client.read_head()[0].startswith("HTTP/1.1 101")
        client.close()
        assert outcome(gateway) == {}


# === What a mirror cannot do ===


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", b"garbage\r\n\r\n"],
    ids=["none", "short", "garbage"],
)
def test_what_a_mirror_answers_does_not_matter(answer: bytes) -> None:
    def broken(peer: Peer) -> None:
        peer.read_request()
        peer.send(answer)

    with mirroring(broken) as (gateway, _, _):
        for number in range(1, 4):
            assert gateway.ask(post(b"body")).status == 200
            assert outcome(gateway) == {"total": number, "failed": number}


def test_errors_of_a_mirror_are_answers() -> None:
    with mirroring(always(ok(status="500 Oh"))) as (gateway, _, _):
        assert gateway.get().status == 200
        assert outcome(gateway) == {"total": 1}


def test_a_mirror_that_is_not_there_does_not_matter() -> None:
    setup = mirrored()
    with refused_address() as address, serving(setup) as (gateway, _):
        setup.clusters["mirror"] = {"endpoints": [address]}
        gateway.apply(setup)
        for number in range(1, 4):
            assert gateway.ask(post(b"body")).status == 200
            assert outcome(gateway) == {"total": number, "failed": number}
        setup.clusters["mirror"] = {"endpoints": []}
        gateway.apply(setup)
        assert gateway.get().status == 200
        assert outcome(gateway) == {"total": 4, "failed": 4}


def test_a_mirror_that_never_answers_has_the_time_of_the_route() -> None:
    setup = mirrored(timeout_ms=3_000)
    with mirroring(None, setup) as (gateway, _, mirror):
        assert gateway.get().status == 200
        mirror.accept().read_until(b"\r\n\r\n")
        gateway.advance(2.9)
        assert gateway.stat("mirror_rq_active") == 1
        gateway.advance(0.2)
        assert outcome(gateway) == {"total": 1, "failed": 1}


def test_a_mirror_has_a_time_where_the_route_has_none() -> None:
    with mirroring(None, mirrored(timeout_ms=0)) as (gateway, _, mirror):
        assert gateway.get().status == 200
        mirror.accept().read_until(b"\r\n\r\n")
        gateway.advance(15.1)
        assert outcome(gateway) == {"total": 1, "failed": 1}


def test_a_mirror_that_takes_no_body_is_cut_off_and_nobody_waits_for_it() -> None:
    # More than the sockets' own buffers hold.
    body = b"x" * (32 * MEBIBYTE)

    def counting(peer: Peer) -> None:
        peer.send(ok(str(len(peer.read_request()[2])).encode()))

    with mirroring(None, main=counting) as (gateway, _, mirror):
        client = gateway.connect()
        client.send(post(body))
        assert client.read_response().body == str(len(body)).encode()
        stuck = mirror.accept()
        assert outcome(gateway) == {"total": 1, "cut": 1}
        # What had left for it before is all that it gets.
        with contextlib.suppress(ConnectionResetError):
            assert len(stuck.read_to_end()) < len(body)


def test_a_client_that_gives_up_leaves_its_copy_without_the_rest() -> None:
    with mirroring(None) as (gateway, _, mirror):
        client = gateway.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\nabc")
        copy = mirror.accept()
        copy.read_until(b"abc")
        client.close()
        assert outcome(gateway) == {"total": 1, "cut": 1}
        assert copy.is_closed()


def test_the_copy_outlives_its_request() -> None:
    with mirroring(None) as (gateway, _, mirror):
        client = gateway.connect()
        client.send(post(b"body"))
        assert client.read_response().status == 200
        client.close()
        copy = mirror.accept()
        assert copy.read_request()[2] == b"body"
        copy.send(ok())
        assert outcome(gateway) == {"total": 1}


def test_a_long_answer_of_a_mirror_is_not_read_to_its_end() -> None:
    with mirroring(always(ok(b"x" * (8 * MEBIBYTE)))) as (gateway, _, mirror):
        for number in range(1, 3):
            assert gateway.get().status == 200
            assert outcome(gateway) == {"total": number}
            assert mirror.connections == number


def test_no_more_than_so_many_copies_are_under_way() -> None:
    """Connecting takes for ever, and there is one connection for all."""
    setup = mirrored(*[ALL] * 16)
    with deaf_address() as address:
        setup.clusters["mirror"] = {"endpoints": [address], "protocol": "http2"}
        with serving(setup) as (gateway, _):
            client = gateway.connect()
            for _ in range(65):
                client.send(get())
                assert client.read_response().status == 200
            assert gateway.stat("mirror_rq_active") == 1024
            assert gateway.stat("mirror_rq_total") == 1024
            assert gateway.stat("mirror_rq_overflow") == 16


# === What it does not look like ===


def test_copies_are_neither_logged_nor_counted_as_requests(tmp_path: Any) -> None:
    setup = mirrored(ALL, ALL)
    setup.log_path = str(tmp_path / "log")
    with mirroring(Copies(), setup) as (gateway, _, _):
        assert gateway.get("/once").status == 200
        assert outcome(gateway) == {"total": 2}
        (line,) = gateway.log_lines(1)
        assert line["path"] == "/once"
        gateway.reaches("downstream_rq_total", 1)
        assert gateway.stat("downstream_rq_2xx") == 1
