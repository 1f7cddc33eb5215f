"""Retries: when a request is sent once more, with what, where to, and when not."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.filterloop import Loop, asked, declared, filtered, named, stage
from tests.engine.h2peer import INTERNAL_ERROR, REFUSED_STREAM, H2Peer, h2_client
from tests.engine.harness import (
    Gateway,
    Peer,
    Setup,
    Upstream,
    always,
    eventually,
    forward,
    get,
    ok,
    post,
    refused_address,
    rule,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kgw._native.bridge import Request

LOG = {
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "received": "%BYTES_RECEIVED%",
}

NOW = {"backoff_ms": 0, "max_backoff_ms": 0}
"""Retries that are not waited with."""


def retrying(
    attempts: int = 3, codes: list[int] | None = None, timeout_ms: int = 15_000, **more: Any
) -> dict[str, Any]:
    """A route's action with retries; ``attempt_ms`` is the time of each attempt."""
    attempt_ms = more.pop("attempt_ms", 0)
    retry = {"attempts": attempts, "codes": codes or [], **(NOW | more)}
    times = {"timeout_ms": timeout_ms, "backend_request_timeout_ms": attempt_ms}
    return forward("c", retry=retry, **times)


def setup_of(action: dict[str, Any], tmp_path: Path, **more: Any) -> Setup:
    """A gateway whose only route has an action."""
    return Setup(
        routes={"r": {"name": "r", "action": action}},
        rules=[rule("/", "r")],
        log=LOG,
        log_path=str(tmp_path / "access.log"),
        **more,
    )


def failing(status: str = "500 Internal Server Error", body: bytes = b"no") -> bytes:
    return ok(body, status=status)


def served(gateway: Gateway, upstream: Upstream, *answers: bytes | None) -> Peer:
    """Sends a GET; of each attempt a peer gives an answer, or is gone without one."""
    client = gateway.connect()
    client.send(get())
    for answer in answers:
        peer = upstream.accept()
        peer.read_request()
        if answer is None:
            peer.reset()
        else:
            peer.send(answer)
    return client


# === What is retried ===


def test_a_listed_status_is_retried_until_there_is_another(tmp_path: Path) -> None:
    setup = setup_of(retrying(codes=[500, 503]), tmp_path)
    with serving(setup, None) as (gateway, upstream):
        answers = failing(), failing("503 Service Unavailable"), ok(b"done")
        assert served(gateway, upstream, *answers).read_response().body == b"done"
        [line] = gateway.log_lines(1)
        assert line == {
            "code": 200, "flags": "-", "details": "via_upstream", "attempts": 3, "received": 0
        }  # fmt: skip
        assert gateway.stat("upstream_rq_retry") == 2
        assert gateway.stat("upstream_rq_retry_success") == 1
        assert gateway.stat("upstream_rq_retry_limit_exceeded") == 0


def test_another_status_is_passed_on(tmp_path: Path) -> None:
    with serving(setup_of(retrying(codes=[500]), tmp_path), None) as (gateway, upstream):
        client = served(gateway, upstream, failing("503 Service Unavailable"))
        assert client.read_response().status == 503
        assert gateway.log_lines(1)[0]["flags"] == "-"
        assert gateway.stat("upstream_rq_retry") == 0


def test_the_last_answer_is_passed_on_when_retries_are_used_up(tmp_path: Path) -> None:
    with serving(setup_of(retrying(1, codes=[500, 502]), tmp_path), None) as (gateway, upstream):
        client = served(gateway, upstream, failing(), failing("502 Bad Gateway", b"last"))
        response = client.read_response()
        assert (response.status, response.body) == (502, b"last")
        line = gateway.log_lines(1)[0]
        assert (line["flags"], line["details"], line["attempts"]) == ("URX", "via_upstream", 2)
        assert gateway.stat("upstream_rq_retry_limit_exceeded") == 1
        # The connections of answers that were not passed on are not used again.
        assert gateway.stat("upstream_cx_idle") == 1


@pytest.mark.parametrize("ending", ["reset", "close"])
def test_a_lost_connection_is_retried_without_any_codes(tmp_path: Path, ending: str) -> None:
    with serving(setup_of(retrying(2), tmp_path), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(post(b"body"))
        for _ in range(2):
            peer = upstream.accept()
            assert peer.read_request()[2] == b"body"
            getattr(peer, ending)()
        peer = upstream.accept()
        assert peer.read_request()[2] == b"body"
        peer.send(ok(b"done"))
        assert client.read_response().body == b"done"


def test_a_connection_lost_once_too_often_is_a_503(tmp_path: Path) -> None:
    with serving(setup_of(retrying(2), tmp_path), None) as (gateway, upstream):
        response = served(gateway, upstream, None, None, None).read_response()
        assert response.status == 503
        assert response.body == (
            b"upstream connect error or disconnect/reset before headers. "
            b"retried and the latest reset reason: connection termination"
        )
        line = gateway.log_lines(1)[0]
        assert (line["flags"], line["attempts"]) == ("URX,UC", 3)
        assert line["details"] == ("upstream_reset_before_response_started{connection_termination}")


def test_a_kept_connection_that_died_counts_as_an_attempt(tmp_path: Path) -> None:
    # What a retry policy allows is not exceeded by the retry that there is without one.
    with serving(setup_of(retrying(1), tmp_path), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        first = upstream.accept()
        first.read_request()
        first.send(ok())
        client.read_response()
        client.send(get())
        first.read_head()
        first.reset()
        second = upstream.accept()
        second.read_head()
        second.reset()
        assert client.read_response().status == 503
        assert gateway.log_lines(2)[1]["attempts"] == 2
        assert gateway.stat("upstream_rq_retry_reused") == 0


def test_a_refused_connection_is_retried_elsewhere(tmp_path: Path) -> None:
    upstream = Upstream(always(ok(b"alive")))
    with refused_address() as dead, contextlib.closing(upstream):
        setup = setup_of(retrying(1), tmp_path, endpoints=[dead, upstream.address])
        with contextlib.closing(Gateway(setup)) as gateway:
            for _ in range(10):
                assert gateway.get().body == b"alive"
            assert gateway.stat("upstream_rq_retry") > 0


def test_an_endpoint_that_nobody_listens_at_is_a_503_in_the_end(tmp_path: Path) -> None:
    with refused_address() as dead:
        setup = setup_of(retrying(2), tmp_path, endpoints=[dead])
        with contextlib.closing(Gateway(setup)) as gateway:
            response = gateway.get()
            assert response.status == 503
            assert b"retried and the latest reset reason: remote conn" in response.body
            line = gateway.log_lines(1)[0]
            assert (line["flags"], line["attempts"]) == ("URX,UF", 3)


def test_the_next_attempt_goes_to_another_endpoint(tmp_path: Path) -> None:
    answers = [Upstream(None) for _ in range(3)]
    with contextlib.ExitStack() as stack:
        for one in answers:
            stack.callback(one.close)
        endpoints = [one.address for one in answers]
        setup = setup_of(retrying(3, codes=[500]), tmp_path, endpoints=endpoints)
        gateway = stack.enter_context(contextlib.closing(Gateway(setup)))
        client = gateway.connect()
        client.send(get())
        left = list(answers)
        for _ in range(3):
            eventually(lambda: any(not one.accepted.empty() for one in left), "an attempt")
            tried = next(one for one in left if not one.accepted.empty())
            left.remove(tried)
            peer = tried.accept()
            peer.read_request()
            peer.send(failing())
        # All have failed: any but the last one.
        eventually(lambda: any(not one.accepted.empty() for one in answers), "an attempt")
        again = next(one for one in answers if not one.accepted.empty())
        assert again is not tried
        peer = again.accept()
        peer.read_request()
        peer.send(ok(b"done"))
        assert client.read_response().body == b"done"


# === What is not ===


def test_nothing_is_retried_once_the_client_has_seen_something(tmp_path: Path) -> None:
    with serving(setup_of(retrying(codes=[500]), tmp_path), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        client.read_until(b"half")
        peer.reset()
        assert client.is_closed()
        assert gateway.log_lines(1)[0]["attempts"] == 1
        assert upstream.connections == 1


def test_a_request_for_another_protocol_is_not_retried(tmp_path: Path) -> None:
    action = retrying(codes=[500]) | {"upgrades": ["websocket"]}
    with serving(setup_of(action, tmp_path), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get("/", "connection: upgrade", "upgrade: websocket"))
        peer = upstream.accept()
        peer.read_request()
        peer.send(failing())
        assert client.read_response().status == 500
        assert gateway.log_lines(1)[0]["flags"] == "-"


def test_without_endpoints_there_is_nothing_to_retry(tmp_path: Path) -> None:
    setup = setup_of(retrying(), tmp_path, clusters={"c": {"endpoints": []}})
    with contextlib.closing(Gateway(setup)) as gateway:
        assert gateway.get().status == 503
        line = gateway.log_lines(1)[0]
        assert (line["flags"], line["attempts"]) == ("UH", 1)


# === Bodies ===


def test_a_chunked_body_with_trailers_is_sent_again(tmp_path: Path) -> None:
    body = b"5\r\nhello\r\n6\r\n world\r\n0\r\nsum: 1\r\n\r\n"
    with serving(setup_of(retrying(codes=[500]), tmp_path), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + body)
        for answer in (failing(), ok(b"done")):
            peer = upstream.accept()
            peer.read_head()
            data = b""
            while size := int(peer.read_until(b"\r\n"), 16):
                data += peer.read_exactly(size + 2)[:-2]
            assert data == b"hello world"
            assert peer.read_until(b"\r\n\r\n") == b"sum: 1\r\n\r\n"
            peer.send(answer)
        assert client.read_response().body == b"done"
        assert gateway.log_lines(1)[0]["received"] == 11


def test_an_attempt_may_fail_while_the_client_is_sending(tmp_path: Path) -> None:
    with serving(setup_of(retrying(codes=[503]), tmp_path), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(post(b"a" * 100_000)[:-50_000])
        first = upstream.accept()
        first.read_head()
        first.read_exactly(20_000)
        first.reset()
        second = upstream.accept()
        second.read_head()
        assert second.read_exactly(50_000) == b"a" * 50_000
        second.send(failing("503 Service Unavailable"))
        third = upstream.accept()
        client.send(b"a" * 50_000)
        assert third.read_request()[2] == b"a" * 100_000
        third.send(ok(b"done"))
        assert client.read_response().body == b"done"
        client.send(get())
        assert third.read_head()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit_passes_and_is_sent_once(tmp_path: Path, chunked: bool) -> None:
    body = random.Random(1).randbytes(300_000)
    action = retrying(codes=[500], max_body_bytes=299_999)
    with serving(setup_of(action, tmp_path), None) as (gateway, upstream):
        client = gateway.connect()
        if chunked:
            head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
            client.send(head + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
        else:
            client.send(post(body))
        peer = upstream.accept()
        assert peer.read_request()[2] == body
        peer.send(failing(body=b"the answer"))
        assert client.read_response().body == b"the answer"
        # As Envoy has it: nothing was used up.
        line = gateway.log_lines(1)[0]
        assert (line["flags"], line["attempts"], line["received"]) == ("-", 1, 300_000)


def test_a_body_at_the_limit_is_sent_again(tmp_path: Path) -> None:
    body = random.Random(2).randbytes(300_000)
    action = retrying(codes=[500], max_body_bytes=300_000)
    with serving(setup_of(action, tmp_path), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(post(body))
        for answer in (failing(), ok(b"done")):
            peer = upstream.accept()
            assert peer.read_request()[2] == body
            peer.send(answer)
        assert client.read_response().body == b"done"


@pytest.mark.parametrize("seed", range(12))
def test_whatever_the_pieces_and_failures_the_body_arrives(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    body = chance.randbytes(chance.randrange(1, 200_000))
    cuts = sorted(chance.randrange(len(body) + 1) for _ in range(chance.randrange(6)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    with serving(setup_of(retrying(3, codes=[500]), tmp_path), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(post(body)[: -len(body)])
        sent = 0
        for _ in range(3):
            peer = upstream.accept()
            peer.read_head()
            if pieces and chance.random() < 0.7:
                piece = pieces.pop(0)
                client.send(piece)
                sent += len(piece)
            count = chance.randrange(sent + 1)
            assert peer.read_exactly(count) == body[:count]
            if chance.random() < 0.5:
                peer.reset()
            else:
                peer.send(failing())
        peer = upstream.accept()
        client.send(b"".join(pieces))
        assert peer.read_request()[2] == body
        peer.send(ok(b"done"))
        assert client.read_response().body == b"done"


def test_a_client_that_waits_to_be_asked_is_asked_once(tmp_path: Path) -> None:
    with serving(setup_of(retrying(codes=[500]), tmp_path), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(post(b"body", "expect: 100-continue")[:-4])
        first = upstream.accept()
        assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"body")
        assert first.read_request()[2] == b"body"
        first.send(failing())
        second = upstream.accept()
        assert second.read_request()[2] == b"body"
        second.send(ok(b"done"))
        assert client.read_response().body == b"done"


# === Filters ===


def recovering(failures: int) -> tuple[Callable[[Peer], None], list[tuple[dict[str, str], bytes]]]:
    """A script that fails so often and then serves, and what it was asked."""
    requests: list[tuple[dict[str, str], bytes]] = []

    def script(peer: Peer) -> None:
        while True:
            _, fields, body = peer.read_request()
            requests.append(({name.lower(): value for name, value in fields}, body))
            peer.send(failing() if len(requests) <= failures else ok(b"done"))

    return script, requests


def test_filters_run_once(tmp_path: Path) -> None:
    setup = setup_of(retrying(2, codes=[500]), tmp_path)
    bucket = {"bucket": "b", "max_tokens": 1, "tokens_per_fill": 1, "fill_interval_ns": 10**12}
    setup.routes["r"]["filters"] = [
        {"type": "local_rate_limit", **bucket},
        {"type": "request_headers", "add": [["x-added", "1"]]},
        {"type": "response_headers", "add": [["x-answered", "1"]]},
    ]
    script, requests = recovering(2)
    with serving(setup, script) as (gateway, _):
        response = gateway.get("/", "x-added: 0")
        assert (response.body, response.names().count("x-answered")) == (b"done", 1)
        assert len(requests) == 3
        assert len({fields["x-request-id"] for fields, _ in requests}) == 1
        assert [fields["x-added"] for fields, _ in requests] == ["1"] * 3
        assert gateway.get().status == 429


@pytest.mark.parametrize("whole", [False, True])
def test_a_filter_sees_a_body_once_and_its_change_is_sent_again(whole: bool) -> None:
    chunks = declared(on_request=False, on_request_chunk=True)
    loop = Loop(declared(request_body=True, max_body=1_000) if whole else chunks)
    calls: list[bytes] = []

    def change(request: Request) -> None:
        calls.append(request.body or b"")
        request.body = (request.body or b"").upper()

    def chunk(_: Request, data: bytes, end: bool) -> bytes:
        calls.append(data)
        return data.upper() + (b"!" if end else b"")

    loop.on_request(change)
    loop.on_request_chunk(chunk)
    script, requests = recovering(2)
    setup = filtered(named("f"), retrying(2, codes=[500]))
    with stage(loop, setup, script) as (gateway, _):
        client = asked(gateway, post(b"some body"))
        loop.drain_until(client.is_readable)
        assert client.read_response().body == b"done"
    sent = b"SOME BODY" if whole else b"SOME BODY!"
    assert [body for _, body in requests] == [sent] * 3
    assert b"".join(calls) == b"some body"


def test_a_translated_body_is_sent_again(tmp_path: Path) -> None:
    setup = setup_of(retrying(1, codes=[500]), tmp_path)
    setup.routes["r"]["filters"] = [{"type": "grpc_web"}]
    script, requests = recovering(1)
    with serving(setup, script) as (gateway, _):
        # base64 of a message of two bytes.
        text = b"AAAAAAJoaQ=="
        gateway.ask(post(text, "content-type: application/grpc-web-text"))
        assert [body for _, body in requests] == [b"\0\0\0\0\2hi"] * 2


def test_a_retry_is_not_copied_to_mirrors(tmp_path: Path) -> None:
    copies: list[bytes] = []

    def mirror(peer: Peer) -> None:
        while True:
            copies.append(peer.read_request()[2])
            peer.send(ok())

    with contextlib.closing(Upstream(mirror)) as other:
        setup = setup_of(retrying(3, codes=[500]), tmp_path)
        setup.clusters["mirror"] = {"endpoints": [other.address]}
        copy = {"type": "mirror", "cluster": "mirror", "numerator": 1, "denominator": 1}
        setup.routes["r"]["filters"] = [copy]
        with serving(setup, None) as (gateway, upstream):
            client = gateway.connect()
            client.send(post(b"one body")[:-4])
            # The first attempt fails when half is there, the second when all is.
            first = upstream.accept()
            first.read_head()
            assert first.read_exactly(4) == b"one "
            first.reset()
            second = upstream.accept()
            second.read_head()
            assert second.read_exactly(4) == b"one "
            client.send(b"body")
            assert second.read_exactly(4) == b"body"
            second.send(failing())
            third = upstream.accept()
            assert third.read_request()[2] == b"one body"
            third.send(ok(b"done"))
            assert client.read_response().body == b"done"
            eventually(lambda: copies, "a copy")
            gateway.settle()
            assert copies == [b"one body"]


# === Time ===


def test_a_retry_is_waited_with(tmp_path: Path) -> None:
    action = retrying(2, codes=[500], backoff_ms=1_000, max_backoff_ms=10_000)
    with serving(setup_of(action, tmp_path), None) as (gateway, upstream):
        client = served(gateway, upstream, failing())
        gateway.advance(0.999)
        assert upstream.accepted.empty()
        gateway.advance(0.251)
        second = upstream.accept()
        _, headers, _ = second.read_request()
        # What is left of the route's time.
        left = int(dict(headers)["x-envoy-expected-rq-timeout-ms"])
        assert 13_700 <= left <= 13_800
        second.send(failing())
        gateway.advance(0.999)
        assert upstream.accepted.empty()
        gateway.advance(1.501)
        third = upstream.accept()
        third.read_request()
        third.send(ok(b"done"))
        assert client.read_response().body == b"done"


def test_an_attempt_that_takes_too_long_is_retried(tmp_path: Path) -> None:
    with serving(setup_of(retrying(1, attempt_ms=2_000), tmp_path), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        for last in (False, True):
            peer = upstream.accept()
            _, headers, _ = peer.read_request()
            assert dict(headers)["x-envoy-expected-rq-timeout-ms"] == "2000"
            gateway.advance(1.9)
            assert not client.is_readable()
            gateway.advance(0.2)
            assert peer.is_closed()
            assert client.is_readable() is last
        response = client.read_response()
        assert (response.status, response.body) == (504, b"upstream request timeout")
        line = gateway.log_lines(1)[0]
        assert (line["flags"], line["details"], line["attempts"]) == (
            "URX,UT", "upstream_per_try_timeout", 2
        )  # fmt: skip
        assert gateway.stat("upstream_rq_per_try_timeout") == 2
        assert gateway.stat("upstream_rq_timeout") == 0


def test_the_time_of_an_attempt_covers_its_answer(tmp_path: Path) -> None:
    with serving(setup_of(retrying(1, attempt_ms=2_000), tmp_path), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        client.read_until(b"half")
        gateway.advance(2.1)
        assert client.is_closed()
        assert gateway.log_lines(1)[0]["flags"] == "UT"


def test_the_time_of_the_route_covers_all_attempts(tmp_path: Path) -> None:
    action = retrying(9, timeout_ms=5_000, attempt_ms=2_000)
    with serving(setup_of(action, tmp_path), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        for seconds in (2, 2, 1):
            upstream.accept().read_request()
            assert not client.is_readable()
            gateway.advance(seconds)
        assert client.read_response().status == 504
        line = gateway.log_lines(1)[0]
        assert (line["flags"], line["details"], line["attempts"]) == ("UT", "response_timeout", 3)


def test_the_time_of_the_route_covers_the_wait_for_a_retry(tmp_path: Path) -> None:
    action = retrying(
        9, codes=[500], timeout_ms=2_000, backoff_ms=5_000, max_backoff_ms=5_000
    )  # fmt: skip
    with serving(setup_of(action, tmp_path), None) as (gateway, upstream):
        client = served(gateway, upstream, failing())
        gateway.advance(1.9)
        assert not client.is_readable()
        gateway.advance(0.1)
        assert client.read_response().status == 504
        line = gateway.log_lines(1)[0]
        assert (line["details"], line["attempts"]) == ("response_timeout", 1)
        gateway.reaches("upstream_rq_timeout", 1)


def test_a_client_that_leaves_while_a_retry_is_waited_with_is_noticed(tmp_path: Path) -> None:
    action = retrying(9, codes=[500], backoff_ms=5_000, max_backoff_ms=5_000)
    with serving(setup_of(action, tmp_path), None) as (gateway, upstream):
        client = served(gateway, upstream, failing())
        gateway.settle()
        client.reset()
        assert gateway.log_lines(1)[0]["flags"] == "DC"
        gateway.advance(6)
        assert upstream.accepted.empty()


# === Budgets ===


def budget(percent: int, min_retries: int, ident: str = "ns/svc") -> dict[str, Any]:
    return {
        "id": ident,
        "percent": percent,
        "interval_ms": 10_000,
        "min_retries": min_retries,
        "min_interval_ms": 1_000,
    }


@contextlib.contextmanager
def budgeted(tmp_path: Path, retry_budget: dict[str, Any], status: str) -> Iterator[Gateway]:
    """A gateway whose only endpoint always fails, and whose service has a budget."""
    with contextlib.closing(Upstream(always(failing(status)))) as upstream:
        cluster = {"endpoints": [upstream.address], "retry_budget": retry_budget}
        action = retrying(1, codes=[500, 503])
        setup = setup_of(action, tmp_path, clusters={"c": cluster})
        with contextlib.closing(Gateway(setup)) as gateway:
            yield gateway


def test_a_retry_above_the_budget_is_a_503(tmp_path: Path) -> None:
    with budgeted(tmp_path, budget(0, 2), "500 No") as gateway:
        assert [gateway.get().status for _ in range(3)] == [500, 500, 503]
        assert gateway.stat("upstream_rq_retry") == 2
        assert gateway.stat("upstream_rq_retry_overflow") == 1
        line = gateway.log_lines(3)[2]
        assert (line["flags"], line["attempts"]) == ("UO", 1)
        assert line["details"] == "upstream_reset_before_response_started{overflow}"
        gateway.advance(1.1)
        assert gateway.get().status == 500


def test_an_endpoints_own_503_is_passed_on_above_the_budget(tmp_path: Path) -> None:
    with budgeted(tmp_path, budget(0, 0), "503 No") as gateway:
        assert gateway.get().body == b"no"
        assert gateway.log_lines(1)[0]["flags"] == "UO"


def test_a_share_of_the_requests_may_be_retries(tmp_path: Path) -> None:
    with budgeted(tmp_path, budget(20, 0), "500 No") as gateway:
        for _ in range(40):
            gateway.get()
        # 10 of then 50.
        assert gateway.stat("upstream_rq_retry") == 10


def test_what_was_counted_outlives_a_reload(tmp_path: Path) -> None:
    with budgeted(tmp_path, budget(0, 1), "500 No") as gateway:
        assert gateway.get().status == 500
        setup = gateway.setup
        setup.http = {"server_name": "other"}
        gateway.apply(setup)
        assert gateway.get().status == 503
        setup.clusters["c"]["retry_budget"] = budget(0, 2)
        gateway.apply(setup)
        assert gateway.get().status == 500


def test_workers_share_a_budget(tmp_path: Path) -> None:
    with contextlib.closing(Upstream(always(failing()))) as upstream:
        cluster = {"endpoints": [upstream.address], "retry_budget": budget(0, 5)}
        setup = setup_of(retrying(1, codes=[500]), tmp_path, clusters={"c": cluster})
        with contextlib.closing(Gateway(setup, workers=3)) as gateway:
            for _ in range(20):
                gateway.get()
            assert gateway.stat("upstream_rq_retry") == 5


# === HTTP/2 ===


def test_over_http2_statuses_resets_and_refusals_are_retried(tmp_path: Path) -> None:
    setup = setup_of(retrying(3, codes=[503]), tmp_path)
    setup.clusters = {"c": {"endpoints": [], "protocol": "http2"}}
    with contextlib.closing(Upstream(None)) as upstream:
        setup.clusters["c"]["endpoints"] = [upstream.address]
        with contextlib.closing(Gateway(setup)) as gateway:
            client = h2_client(gateway)
            stream = client.request(method="POST", body=b"body", end=False)
            server = H2Peer(upstream.accept(), client=False)
            first = server.accept()
            server.body_of(first, 4)
            server.respond(first, status=503, body=b"no")
            # The endpoint is told that nobody waits for the rest.
            second = server.accept()
            assert server.reset_of(first) is not None
            server.body_of(second, 4)
            server.reset(second, INTERNAL_ERROR)
            third = server.accept()
            server.body_of(third, 4)
            server.reset(third, REFUSED_STREAM)
            fourth = server.accept()
            client.headers(stream, [("x-sum", "1")], end=True)
            message = server.response(fourth)
            assert (message.body, message.trailers) == (b"body", [("x-sum", "1")])
            server.respond(fourth, body=b"done")
            assert client.response(stream).body == b"done"
            assert gateway.log_lines(1)[0]["attempts"] == 4
            assert upstream.connections == 1


def test_a_client_that_resets_its_stream_while_a_retry_is_waited_with(tmp_path: Path) -> None:
    action = retrying(9, codes=[500], backoff_ms=5_000, max_backoff_ms=5_000)
    with serving(setup_of(action, tmp_path), None) as (gateway, upstream):
        client = h2_client(gateway)
        stream = client.request()
        peer = upstream.accept()
        peer.read_request()
        peer.send(failing())
        gateway.settle()
        client.reset(stream)
        assert gateway.log_lines(1)[0]["flags"] == "DR"
