"""Session persistence: a client stays with the endpoint that its token names."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.h2peer import h2_client
from tests.engine.harness import Gateway, Peer, Response, Setup, Upstream, always, forward, ok, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

COOKIE = {"type": "cookie", "name": "session"}


def session(scope: str = "rule", *backends: int, **more: Any) -> dict[str, Any]:
    return {"scope": scope, "backends": list(backends or (0,)), "token": COOKIE, **more}


def setup_of(
    clusters: dict[str, list[Upstream]],
    actions: dict[str, dict[str, Any]],
) -> Setup:
    """Routes by path, to clusters of upstreams."""
    return Setup(
        clusters={
            name: {"endpoints": [one.address for one in several]}
            for name, several in clusters.items()
        },
        routes={path: {"name": path, "action": action} for path, action in actions.items()},
        rules=[rule(path, path) for path in actions],
    )


@pytest.fixture
def upstreams() -> Iterator[list[Upstream]]:
    """Five servers that answer with their number."""
    with contextlib.ExitStack() as stack:
        found = [Upstream(always(ok(f"{number}".encode()))) for number in range(5)]
        for one in found:
            stack.callback(one.close)
        yield found


def cookie(response: Response) -> str:
    """The name and value of the cookie that a response sets."""
    return response["set-cookie"].split(";")[0]


def test_a_client_stays_with_its_endpoint(upstreams: list[Upstream]) -> None:
    setup = setup_of({"c": upstreams}, {"/": forward("c", sessions=[session()])})
    with contextlib.closing(Gateway(setup)) as gateway:
        first = gateway.get()
        assert first["set-cookie"].endswith("; Path=/; HttpOnly; SameSite=Strict")
        for _ in range(10):
            again = gateway.get("/", f"cookie: a=b; {cookie(first)}")
            assert again.body == first.body
            assert again.get("set-cookie") is None
        # Others are spread as ever.
        assert len({gateway.get().body for _ in range(10)}) == 5


def test_other_workers_processes_and_configurations_know_the_client(
    upstreams: list[Upstream],
) -> None:
    actions = {"/": forward("c", sessions=[session()])}
    with contextlib.closing(Gateway(setup_of({"c": upstreams}, actions))) as gateway:
        first = gateway.get()
    with contextlib.closing(Gateway(setup_of({"c": upstreams[::-1]}, actions), workers=3)) as other:
        for _ in range(10):
            assert other.get("/", f"cookie: {cookie(first)}").body == first.body
        actions["/other"] = forward("c")
        other.apply(setup_of({"c": upstreams}, actions))
        assert other.get("/", f"cookie: {cookie(first)}").body == first.body


def test_an_endpoint_that_is_gone_is_replaced(upstreams: list[Upstream]) -> None:
    actions = {"/": forward("c", sessions=[session()])}
    with contextlib.closing(Gateway(setup_of({"c": upstreams}, actions))) as gateway:
        first = gateway.get()
        left = [one for number, one in enumerate(upstreams) if number != int(first.body)]
        gateway.apply(setup_of({"c": left}, actions))
        second = gateway.get("/", f"cookie: {cookie(first)}")
        assert second.body != first.body
        assert cookie(second) != cookie(first)
        for _ in range(5):
            assert gateway.get("/", f"cookie: {cookie(second)}").body == second.body


def test_an_endpoint_that_cannot_be_connected_to_is_replaced(upstreams: list[Upstream]) -> None:
    setup = setup_of({"c": upstreams[:2]}, {"/": forward("c", sessions=[session()])})
    with contextlib.closing(Gateway(setup)) as gateway:
        first = gateway.get()
        upstreams[int(first.body)].close()
        second = gateway.get("/", f"cookie: {cookie(first)}")
        assert (second.status, second.body != first.body) == (200, True)
        again = gateway.get("/", f"cookie: {cookie(second)}")
        assert (again.body, again.get("set-cookie")) == (second.body, None)


def test_the_cookie_is_for_connections_with_tls_where_the_client_has_one(
    upstreams: list[Upstream],
) -> None:
    setup = setup_of({"c": upstreams}, {"/": forward("c", sessions=[session()])})
    setup.http = {"use_remote_address": False}
    with contextlib.closing(Gateway(setup)) as gateway:
        # From a proxy in front that is believed.
        assert "; Secure;" in gateway.get("/", "x-forwarded-proto: https")["set-cookie"]
        assert "Secure" not in gateway.get("/", "x-forwarded-proto: http")["set-cookie"]
    setup.http = {"use_remote_address": True}
    with contextlib.closing(Gateway(setup)) as gateway:
        assert "Secure" not in gateway.get("/", "x-forwarded-proto: https")["set-cookie"]


def test_a_session_stays_with_a_backend_whatever_the_weights(upstreams: list[Upstream]) -> None:
    clusters = {"c": upstreams[:2], "d": upstreams[2:]}
    action = forward("c", "d", sessions=[session("rule", 0, 1)])
    with contextlib.closing(Gateway(setup_of(clusters, {"/": action}))) as gateway:
        found = {response.body: response for response in (gateway.get() for _ in range(60))}
        assert len(found) == 5
        action["backends"][0]["weight"] = 0
        gateway.apply(setup_of(clusters, {"/": action}))
        for body, response in found.items():
            assert gateway.get("/", f"cookie: {cookie(response)}").body == body
        assert {gateway.get().body for _ in range(20)} == {b"2", b"3", b"4"}


def test_backends_may_have_sessions_each_of_its_own(upstreams: list[Upstream]) -> None:
    clusters = {"c": upstreams[:2], "d": upstreams[2:]}
    token = {"type": "header", "name": "x-session"}
    one = session("d", 1) | {"token": token}
    action = forward("c", "d", sessions=[one])
    with contextlib.closing(Gateway(setup_of(clusters, {"/": action}))) as gateway:
        for _ in range(30):
            response = gateway.get()
            with_session = response.get("x-session")
            assert (with_session is not None) == (int(response.body) >= 2)
            if with_session is not None:
                again = gateway.get("/", f"X-Session: {with_session}")
                assert (again.body, again.get("x-session")) == (response.body, None)


def test_rules_do_not_share_sessions_of_one_name(upstreams: list[Upstream]) -> None:
    actions = {
        "/a": forward("c", sessions=[session("a")]),
        "/b": forward("c", sessions=[session("b")]),
    }
    with contextlib.closing(Gateway(setup_of({"c": upstreams}, actions))) as gateway:
        first = gateway.get("/a")
        # Twenty clients with that cookie are spread over all.
        others = [gateway.get("/b", f"cookie: {cookie(first)}") for _ in range(20)]
        assert len({one.body for one in others}) == 5
        for second in others[:5]:
            both = cookie(second)
            assert gateway.get("/a", f"cookie: {both}").body == first.body
            assert gateway.get("/b", f"cookie: {both}").body == second.body


def test_a_session_ends_with_its_time(upstreams: list[Upstream]) -> None:
    permanent = session(absolute_timeout_ms=60_000) | {"token": COOKIE | {"permanent": True}}
    setup = setup_of({"c": upstreams}, {"/": forward("c", sessions=[permanent])})
    with contextlib.closing(Gateway(setup)) as gateway:
        first = gateway.get()
        assert "; Max-Age=60; " in first["set-cookie"]
        gateway.advance(58)
        again = gateway.get("/", f"cookie: {cookie(first)}")
        assert (again.body, again.get("set-cookie")) == (first.body, None)
        gateway.advance(3)
        late = gateway.get("/", f"cookie: {cookie(first)}")
        assert cookie(late) != cookie(first)


def test_what_a_client_makes_up_leads_nowhere(upstreams: list[Upstream]) -> None:
    setup = setup_of({"c": upstreams[:1]}, {"/": forward("c", sessions=[session()])})
    with contextlib.closing(Gateway(setup)) as gateway:
        for value in (upstreams[1].address, "", "A" * 32, "A" * 10_000, '"', ".".join("A" * 99)):
            response = gateway.get("/", f"cookie: session={value}")
            assert response.body == b"0"
            assert cookie(response).startswith("session=")


def well_once(peer: Peer) -> None:
    """A script that answers one request, and fails at those after it."""
    peer.read_request()
    peer.send(ok(b"mine"))
    while True:
        peer.read_request()
        peer.send(ok(b"no", status="500 No"))


def test_a_retry_moves_the_session_to_the_endpoint_that_answered(
    upstreams: list[Upstream],
) -> None:
    retry = {"attempts": 3, "codes": [500], "backoff_ms": 0, "max_backoff_ms": 0}
    action = forward("c", sessions=[session()], retry=retry)
    with contextlib.closing(Upstream(well_once)) as fickle:
        setup = setup_of({"c": [fickle, *upstreams[:2]]}, {"/": action})
        with contextlib.closing(Gateway(setup)) as gateway:
            # It has its turn within three.
            mine = next(one for one in (gateway.get() for _ in range(3)) if one.body == b"mine")
            moved = gateway.get("/", f"cookie: {cookie(mine)}")
            assert moved.body in (b"0", b"1")
            for _ in range(5):
                assert gateway.get("/", f"cookie: {cookie(moved)}").body == moved.body


def test_over_http2(upstreams: list[Upstream]) -> None:
    setup = setup_of({"c": upstreams}, {"/": forward("c", sessions=[session()])})
    with contextlib.closing(Gateway(setup)) as gateway:
        client = h2_client(gateway)
        first = client.ask()
        pair = first["set-cookie"].split(";")[0]
        for _ in range(5):
            # Cookies may come in fields of their own (RFC 9113 8.2.3).
            again = client.ask("/", ("cookie", "a=b"), ("cookie", pair))
            assert again.body == first.body
