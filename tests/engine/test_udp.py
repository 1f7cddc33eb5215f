"""Datagrams: sessions with their own sockets, bounds on them, and what becomes of them."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.harness import WAIT, Gateway, Setup, eventually, free_port

from kgw._native.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOG = {
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "host": "%UPSTREAM_HOST%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "route": "%ROUTE_NAME%",
    "flags": "%RESPONSE_FLAGS%",
    "close_reason": "%DOWNSTREAM_LOCAL_CLOSE_REASON%",
    "remote": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "local": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "endpoint_sees": "%UPSTREAM_LOCAL_ADDRESS%",
    "chain": "%FILTER_CHAIN_NAME%",
    "type": "%ACCESS_LOG_TYPE%",
}
LARGEST = 65_507
"""Bytes of the largest datagram over IPv4: 2^16 - 1 without the headers of IP (20) and UDP (8)."""


class Socket:
    """A socket of datagrams with time limits."""

    def __init__(self, host: str = "127.0.0.1", family: int = socket.AF_INET) -> None:
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.settimeout(WAIT)
        self.sock.bind((host, 0))

    @property
    def address(self) -> str:
        host, port, *_ = self.sock.getsockname()
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def receive(self) -> tuple[bytes, Any]:
        data, sender = self.sock.recvfrom(1 << 17)
        return data, sender

    def is_readable(self) -> bool:
        self.sock.setblocking(False)
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        finally:
            self.sock.settimeout(WAIT)
        return True


class Client(Socket):
    """A client of one address."""

    def __init__(self, to: tuple[str, int], host: str = "127.0.0.1", **more: Any) -> None:
        super().__init__(host, **more)
        self.sock.connect(to)

    def send(self, data: bytes) -> None:
        self.sock.send(data)

    def answer(self) -> bytes:
        return self.sock.recv(1 << 17)


class Site:
    """A gateway of datagrams, with sockets that are closed in the end."""

    def __init__(self, gateway: Gateway, stack: contextlib.ExitStack) -> None:
        self.gateway = gateway
        self._stack = stack

    def client(self, host: str = "127.0.0.1") -> Client:
        client = Client(("127.0.0.1", self.gateway.port), host)
        self._stack.callback(client.sock.close)
        return client


def forward(*clusters: str | None, **more: Any) -> dict[str, Any]:
    backends = [{"cluster": one, "weight": 1} for one in clusters or ("c",)]
    return {"type": "udp", "forward": {"name": "udp-route", "backends": backends, **more}}


@pytest.fixture
def endpoints() -> Iterator[list[Socket]]:
    """Three endpoints."""
    found = [Socket() for _ in range(3)]
    yield found
    for one in found:
        one.sock.close()


@contextlib.contextmanager
def serving(setup: Setup, *, workers: int = 1, **limits: Any) -> Iterator[Site]:
    gateway = Gateway(setup, workers=workers, **limits)
    with contextlib.ExitStack() as stack:
        stack.callback(gateway.close)
        yield Site(gateway, stack)


def site(*endpoints: Socket, **more: Any) -> Setup:
    return Setup(endpoints=[one.address for one in endpoints], traffic=forward(**more))


def test_datagrams_go_both_ways_as_they_are(endpoints: list[Socket]) -> None:
    endpoint = endpoints[0]
    with serving(site(endpoint)) as one:
        client = one.client()
        for data in (b"first", b"", bytes(range(256)), b"x" * LARGEST):
            client.send(data)
            received, proxy = endpoint.receive()
            assert received == data
            endpoint.sock.sendto(data[::-1], proxy)
            assert client.answer() == data[::-1]
        # Nothing of it is an answer to a question; the endpoint says as much as it wants.
        for count in range(20):
            endpoint.sock.sendto(b"%d" % count, proxy)
        assert [client.answer() for _ in range(20)] == [b"%d" % count for count in range(20)]
        gateway = one.gateway
        gateway.reaches("udp_sess_tx_datagrams", 24)
        assert gateway.stat("udp_sess_rx_datagrams") == 4
        assert gateway.stat("udp_sess_rx_bytes") == 5 + 256 + LARGEST
        assert (gateway.stat("udp_sess_total"), gateway.stat("udp_sess_active")) == (1, 1)


def test_each_client_has_a_session_of_its_own_that_stays_with_its_endpoint(
    endpoints: list[Socket],
) -> None:
    with serving(site(*endpoints), workers=3) as one:
        clients = [one.client() for _ in range(12)]
        homes: dict[int, set[tuple[str, Any]]] = {}
        for turn in range(3):
            for number, client in enumerate(clients):
                client.send(b"%d" % number)
            for _ in clients:
                endpoint = _ready(endpoints)
                data, proxy = endpoint.receive()
                homes.setdefault(int(data), set()).add((endpoint.address, proxy))
                endpoint.sock.sendto(b"%s.%d" % (data, turn), proxy)
            for number, client in enumerate(clients):
                assert client.answer() == b"%d.%d" % (number, turn)
        # One endpoint each, seen from one address each, and no two share that.
        assert all(len(home) == 1 for home in homes.values())
        assert len({proxy for home in homes.values() for _, proxy in home}) == 12
        assert one.gateway.stat("udp_sess_total") == 12
        # Each worker takes turns.
        assert len({address for home in homes.values() for address, _ in home}) > 1


def _ready(endpoints: list[Socket]) -> Socket:
    found: list[Socket] = []

    def look() -> bool:
        found[:] = [one for one in endpoints if one.is_readable()]
        return bool(found)

    eventually(look, "a datagram")
    return found[0]


def test_a_session_on_which_nothing_moves_is_over(endpoints: list[Socket], tmp_path: Path) -> None:
    endpoint = endpoints[0]
    setup = site(endpoint)
    setup.log, setup.log_path = LOG, str(tmp_path / "access.log")
    with serving(setup) as one:
        client, gateway = one.client(), one.gateway
        client.send(b"four")
        _, proxy = endpoint.receive()
        # Either side keeps it, for a minute each.
        gateway.advance(59)
        endpoint.sock.sendto(b"answer", proxy)
        assert client.answer() == b"answer"
        gateway.advance(59)
        client.send(b"five!")
        assert endpoint.receive() == (b"five!", proxy)
        gateway.advance(59.9)
        assert gateway.stat("udp_sess_active") == 1
        gateway.advance(0.2)
        gateway.reaches("udp_sess_idle_timeout", 1)
        assert gateway.stat("udp_sess_active") == 0
        (line,) = gateway.log_lines(1)
        assert line == {
            "received": 9,
            "sent": 6,
            "duration": 178_100,
            "host": endpoint.address,
            "cluster": "c",
            "route": "udp-route",
            "flags": "-",
            "close_reason": "udp_session_idle_timeout",
            "remote": client.address,
            "local": f"127.0.0.1:{gateway.port}",
            "endpoint_sees": "{}:{}".format(*proxy),
            "chain": "l",
            "type": "UdpSessionEnd",
        }
        # What comes now is a new one's.
        client.send(b"again")
        data, other = endpoint.receive()
        assert (data, other != proxy) == (b"again", True)


@pytest.mark.parametrize(("idle", "wait", "stays"), [(0, 1e6, True), (1_500, 1.6, False)])
def test_the_idle_time_is_the_configurations(
    endpoints: list[Socket], idle: int, wait: float, stays: bool
) -> None:
    with serving(site(endpoints[0], idle_timeout_ms=idle)) as one:
        one.client().send(b"x")
        endpoints[0].receive()
        one.gateway.advance(wait)
        one.gateway.reaches("udp_sess_active", int(stays))


def test_sessions_are_shared_out_by_weight_and_none_goes_to_a_weight_of_zero(
    endpoints: list[Socket],
) -> None:
    setup = site()
    setup.clusters = {str(n): {"endpoints": [one.address]} for n, one in enumerate(endpoints)}
    backends = [{"cluster": str(n), "weight": weight} for n, weight in enumerate((3, 1, 0))]
    setup.traffic = forward()
    setup.traffic["forward"]["backends"] = backends
    # An endpoint that is nobody's: the harness would add one of its own.
    setup.endpoints = ["127.0.0.1:1"]
    with serving(setup) as one:
        counts = [0, 0, 0]
        for _ in range(400):
            one.client().send(b"x")
            endpoint = _ready(endpoints)
            endpoint.receive()
            counts[endpoints.index(endpoint)] += 1
        # 300 are expected of 400, with a standard deviation of under nine.
        assert abs(counts[0] - 300) < 60
        assert counts[2] == 0


@pytest.mark.parametrize(
    ("traffic", "counter"),
    [
        (forward(None), "udp_sess_no_route"),
        ({"type": "udp", "forward": {"name": "", "backends": []}}, "udp_sess_no_route"),
        (forward("empty"), "udp_sess_no_endpoint"),
        (forward("secure"), "udp_sess_no_route"),
        (forward("headed"), "udp_sess_no_route"),
    ],
    ids=["unresolved", "none", "no-endpoint", "tls", "proxy-protocol"],
)
def test_datagrams_for_nobody_are_dropped_and_counted(
    endpoints: list[Socket], traffic: dict[str, Any], counter: str
) -> None:
    to = [endpoints[0].address]
    setup = Setup(endpoints=to, traffic=traffic)
    setup.clusters = {
        "empty": {"endpoints": []},
        "secure": {"endpoints": to, "tls": {"trust": {"type": "system"}, "sni": "a.example"}},
        "headed": {"endpoints": to, "proxy_protocol": {"version": 2}},
    }
    with serving(setup) as one:
        client = one.client()
        for count in (1, 2):
            client.send(b"x")
            one.gateway.reaches(counter, count)
        assert not client.is_readable()
        assert not endpoints[0].is_readable()
        assert one.gateway.stat("udp_sess_total") == 0
        cluster = traffic["forward"]["backends"] and traffic["forward"]["backends"][0]["cluster"]
        problems = [one for one in one.gateway.engine.problems() if "datagrams" in one]
        assert len(problems) == (cluster in ("secure", "headed"))


def test_an_endpoint_that_refuses_is_left_for_another(
    endpoints: list[Socket], tmp_path: Path
) -> None:
    endpoint, gone = endpoints[:2]
    setup = site(endpoint, gone)
    setup.log, setup.log_path = LOG, str(tmp_path / "access.log")
    gone.sock.close()
    with serving(setup) as one:
        # One of the first two sessions is the dead endpoint's. Its host says so, which is heard of
        # with the next datagram; and that one goes to the other endpoint.
        clients = [one.client() for _ in range(2)]
        for client in clients:
            client.send(b"lost or not")
        assert endpoint.receive()[0] == b"lost or not"
        for client in clients:
            client.send(b"again")
            assert endpoint.receive()[0] == b"again"
        one.gateway.reaches("udp_sess_refused", 1)
        (line,) = one.gateway.log_lines(1)
        assert (line["flags"], line["close_reason"]) == ("UF", "udp_session_refused")
        assert line["host"] == setup.endpoints[1]


# === Bounds ===


def test_a_question_that_was_answered_leaves_for_a_newcomer(endpoints: list[Socket]) -> None:
    endpoint = endpoints[0]
    setup = site(endpoint)
    setup.listener = {"max_connections": 3}
    with serving(setup) as one:
        gateway = one.gateway
        for count in range(30):
            client = one.client()
            client.send(b"%d" % count)
            data, proxy = endpoint.receive()
            endpoint.sock.sendto(data, proxy)
            assert client.answer() == b"%d" % count
        gateway.reaches("udp_sess_evicted", 27)
        assert gateway.stat("udp_sess_active") == 3
        assert gateway.stat("udp_sess_overflow") == 0


def test_sessions_with_somebody_at_both_ends_stay_and_newcomers_are_refused(
    endpoints: list[Socket],
) -> None:
    endpoint = endpoints[0]
    setup = site(endpoint)
    setup.listener = {"max_connections": 2}
    with serving(setup) as one:
        gateway = one.gateway

        def talk(client: Client) -> Any:
            client.send(b"question")
            _, proxy = endpoint.receive()
            endpoint.sock.sendto(b"answer", proxy)
            client.answer()
            client.send(b"more")
            assert endpoint.receive() == (b"more", proxy)
            return proxy

        clients = [one.client() for _ in range(2)]
        proxies = [talk(client) for client in clients]
        one.client().send(b"no room")
        gateway.reaches("udp_sess_overflow", 1)
        assert not endpoint.is_readable()
        # After a while without a datagram, the one that has waited for longer makes room.
        gateway.advance(6)
        clients[0].send(b"still here")
        assert endpoint.receive() == (b"still here", proxies[0])
        gateway.advance(5)
        one.client().send(b"now there is")
        assert endpoint.receive()[0] == b"now there is"
        gateway.reaches("udp_sess_evicted", 1)
        endpoint.sock.sendto(b"for the first", proxies[0])
        assert clients[0].answer() == b"for the first"


def test_a_client_has_its_share_and_no_more(endpoints: list[Socket]) -> None:
    endpoint = endpoints[0]
    with serving(site(endpoint, max_sessions_per_client=2)) as one:
        other = one.client("127.0.0.2")
        other.send(b"other")
        _, proxy = endpoint.receive()
        for count in range(5):
            one.client().send(b"%d" % count)
            assert endpoint.receive()[0] == b"%d" % count
        one.gateway.reaches("udp_sess_evicted", 3)
        assert one.gateway.stat("udp_sess_active") == 3
        # It was older than all of those that left.
        endpoint.sock.sendto(b"kept", proxy)
        assert other.answer() == b"kept"


def test_the_limit_of_the_process_counts_sessions_too(endpoints: list[Socket]) -> None:
    with serving(site(endpoints[0]), max_connections=2) as one:
        for count in range(3):
            one.client().send(b"%d" % count)
            assert endpoints[0].receive()[0] == b"%d" % count
        one.gateway.reaches("udp_sess_evicted", 1)
        eventually(lambda: one.gateway.stat("udp_sess_active") == 2, "two sessions")


def test_a_flood_of_clients_leaves_descriptors_and_a_session_alive(
    endpoints: list[Socket],
) -> None:
    endpoint = endpoints[0]
    setup = site(endpoint)
    setup.listener = {"max_connections": 16}
    with serving(setup) as one:
        client = one.client()
        client.send(b"question")
        _, proxy = endpoint.receive()
        endpoint.sock.sendto(b"answer", proxy)
        assert client.answer() == b"answer"
        client.send(b"more")
        assert endpoint.receive() == (b"more", proxy)
        for _ in range(300):
            # Each keeps its socket, so that none gets the port of another.
            one.client().send(b"flood")
            endpoint.receive()
        one.gateway.reaches("udp_sess_evicted", 300 - 15)
        assert one.gateway.stat("udp_sess_active") == 16
        endpoint.sock.sendto(b"kept", proxy)
        assert client.answer() == b"kept"


# === Loops ===


@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("through", ["itself", "another"])
def test_datagrams_that_would_come_back_are_dropped(bound: str, through: str) -> None:
    first, second = free_port(), free_port()
    other = {"id": "other", "bind": [f"{bound}:{second}"], "traffic": forward("back")}
    target = first if through == "itself" else second
    setup = Setup(endpoints=[f"127.0.0.1:{target}"], traffic=forward(), listeners=[other])
    setup.clusters = {"back": {"endpoints": [f"127.0.0.1:{first}"]}}
    setup.listener = {"bind": [f"{bound}:{first}"]}
    with serving(setup) as one:
        one.client().send(b"round and round")
        one.gateway.reaches("udp_sess_loop", 1)
        one.gateway.settle()
        assert one.gateway.stat("udp_sess_loop") == 1
        assert one.gateway.stat("udp_sess_total") == 0


def test_a_client_with_the_address_of_a_listener_gets_no_answers(endpoints: list[Socket]) -> None:
    """A datagram may have any source address; answers to the proxy's own would never end."""
    setup = site(endpoints[0])
    other = {"id": "other", "bind": ["127.0.0.1:0"], "traffic": forward("c")}
    setup.listeners = [other]
    with serving(setup) as one, contextlib.ExitStack() as stack:
        engine = one.gateway.engine
        (_, port) = engine.addresses()["other"][0]
        # A socket of the proxy itself, by way of its duplicate.
        sockets = [
            stack.enter_context(socket.socket(fileno=descriptor))
            for _, descriptor in engine.listening_sockets()
        ]
        (own,) = (
            sock
            for sock in sockets
            if sock.type == socket.SOCK_DGRAM and sock.getsockname()[1] == port
        )
        own.sendto(b"forged", ("127.0.0.1", one.gateway.port))
        one.gateway.reaches("udp_sess_loop", 1)
        assert not endpoints[0].is_readable()


# === Addresses ===


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.77"])
def test_answers_come_from_the_address_that_was_asked(endpoints: list[Socket], host: str) -> None:
    setup = site(endpoints[0])
    setup.listener = {"bind": ["0.0.0.0:0"]}
    with serving(setup) as one:
        # A connected socket takes answers from nowhere else.
        client = Client((host, one.gateway.port))
        with contextlib.closing(client.sock):
            client.send(b"question")
            _, proxy = endpoints[0].receive()
            endpoints[0].sock.sendto(b"answer", proxy)
            assert client.answer() == b"answer"


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
@pytest.mark.parametrize("bind", ["[::1]:0", "[::]:0"])
def test_sessions_of_ipv6_may_have_endpoints_of_ipv4(endpoints: list[Socket], bind: str) -> None:
    setup = site(endpoints[0])
    setup.listener = {"bind": [bind]}
    with serving(setup) as one:
        client = Client(("::1", one.gateway.port), "::1", family=socket.AF_INET6)
        with contextlib.closing(client.sock):
            client.send(b"question")
            _, proxy = endpoints[0].receive()
            endpoints[0].sock.sendto(b"answer", proxy)
            assert client.answer() == b"answer"


def test_a_port_of_udp_is_not_that_of_tcp(endpoints: list[Socket]) -> None:
    port = free_port()
    setup = site(endpoints[0])
    setup.listener = {"bind": [f"127.0.0.1:{port}"]}
    tcp = {
        "id": "tcp",
        "bind": [f"127.0.0.1:{port}"],
        "traffic": {"type": "http", "route_table": "probe"},
    }
    setup.listeners = [tcp]
    with serving(setup) as one:
        one.client().send(b"datagram")
        assert endpoints[0].receive()[0] == b"datagram"
        socket.create_connection(("127.0.0.1", port), WAIT).close()
        # And a port that somebody has is somebody's.
        with pytest.raises(OSError, match="in use"):
            Gateway(setup)


# === Reloads and ends ===


def test_a_reload_keeps_the_sessions_whose_endpoint_is_still_there(
    endpoints: list[Socket], tmp_path: Path
) -> None:
    stays, goes, comes = endpoints
    setup = site(stays, goes)
    setup.log, setup.log_path = LOG, str(tmp_path / "access.log")
    with serving(setup) as one:
        clients: dict[str, tuple[Client, Any]] = {}
        while len(clients) < 2:
            client = one.client()
            client.send(b"x")
            endpoint = _ready(endpoints)
            clients[endpoint.address] = (client, endpoint.receive()[1])
        kept, proxy = clients[stays.address]
        moved, _ = clients[goes.address]
        total = one.gateway.stat("udp_sess_total")

        setup.endpoints = [stays.address, comes.address]
        # A new weight, and a new name, are nothing to a session that is there.
        setup.traffic = forward(idle_timeout_ms=30_000)
        setup.traffic["forward"]["backends"][0]["weight"] = 7
        one.gateway.apply(setup)

        eventually(lambda: one.gateway.stat("udp_sess_backend_gone") >= 1, "the end of a session")
        stays.sock.sendto(b"still there", proxy)
        assert kept.answer() == b"still there"
        kept.send(b"me too")
        assert stays.receive() == (b"me too", proxy)
        moved.send(b"elsewhere")
        endpoint = _ready([stays, comes])
        assert endpoint.receive()[0] == b"elsewhere"
        assert not goes.is_readable()
        assert one.gateway.stat("udp_sess_total") == total + 1
        # What the new configuration says of time holds for it.
        one.gateway.advance(31)
        one.gateway.reaches("udp_sess_active", 0)


def test_a_listener_that_goes_takes_its_sessions_with_it(endpoints: list[Socket]) -> None:
    setup = site(endpoints[0])
    port = free_port()
    setup.listeners = [{"id": "other", "bind": [f"127.0.0.1:{port}"], "traffic": forward()}]
    with serving(setup) as one:
        client = Client(("127.0.0.1", port))
        with contextlib.closing(client.sock):
            client.send(b"x")
            endpoints[0].receive()
            one.client().send(b"y")
            endpoints[0].receive()
            setup.listeners = []
            one.gateway.apply(setup)
            one.gateway.reaches("udp_sess_active", 1)
            # The address is free again.
            eventually(lambda: _is_free(port), "a free port")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def test_a_drain_lets_sessions_finish_and_opens_none(endpoints: list[Socket]) -> None:
    endpoint = endpoints[0]
    with serving(site(endpoint)) as one:
        client, engine = one.client(), one.gateway.engine
        client.send(b"question")
        _, proxy = endpoint.receive()
        engine.drain()
        one.client().send(b"may I")
        one.gateway.reaches("udp_sess_draining", 1)
        endpoint.sock.sendto(b"answer", proxy)
        assert client.answer() == b"answer"
        client.send(b"more")
        assert endpoint.receive() == (b"more", proxy)
        assert engine.settle(WAIT)
        engine.advance(4.9)
        assert engine.settle(WAIT)
        assert one.gateway.stat("udp_sess_active") == 1
        engine.advance(0.2)
        ended = engine.join(WAIT)
        assert ended


def test_another_process_takes_over_without_a_datagram_lost(endpoints: list[Socket]) -> None:
    endpoint = endpoints[0]
    setup = site(endpoint)
    setup.listener = {"bind": [f"127.0.0.1:{free_port()}"]}
    with serving(setup, workers=2) as one:
        old = one.gateway.engine
        client = one.client()
        client.send(b"question")
        _, proxy = endpoint.receive()
        passed = [
            (listener, socket.socket(fileno=descriptor))
            for listener, descriptor in old.listening_sockets()
        ]
        assert sum(sock.type == socket.SOCK_DGRAM for _, sock in passed) == 2
        new = Engine(workers=2, manual_clock=True)
        new.start(setup.encoded(), passed)
        try:
            old.drain()
            # The answer to what was asked comes from the old process, the rest is the new one's.
            assert old.settle(WAIT)
            endpoint.sock.sendto(b"answer", proxy)
            assert client.answer() == b"answer"
            for count in range(20):
                client.send(b"%d" % count)
                data, other = endpoint.receive()
                assert (data, other != proxy) == (b"%d" % count, True)
                endpoint.sock.sendto(data, other)
                assert client.answer() == data
            old.advance(6)
            assert old.join(WAIT)
        finally:
            new.join(0.0)


def test_many_clients_at_once_get_their_own_answers(endpoints: list[Socket]) -> None:
    """Nothing of one session is ever seen by another, in real time and on several workers."""
    ends = threading.Event()

    def answer(endpoint: Socket) -> None:
        endpoint.sock.settimeout(0.1)
        while not ends.is_set():
            with contextlib.suppress(TimeoutError):
                data, proxy = endpoint.receive()
                endpoint.sock.sendto(data, proxy)

    threads = [threading.Thread(target=answer, args=(one,)) for one in endpoints]
    for thread in threads:
        thread.start()
    wrong: list[bytes] = []

    def talk(client: Client, name: int) -> None:
        for count in range(100):
            said = b"%d:%d" % (name, count)
            client.send(said)
            if client.answer() != said:
                wrong.append(said)

    try:
        with serving(site(*endpoints), workers=2, real_time=True) as one:
            talks = [threading.Thread(target=talk, args=(one.client(), name)) for name in range(16)]
            for thread in talks:
                thread.start()
            for thread in talks:
                thread.join(4 * WAIT)
                assert not thread.is_alive()
            assert wrong == []
            assert one.gateway.stat("udp_sess_rx_datagrams") == 1600
    finally:
        ends.set()
        for thread in threads:
            thread.join()
