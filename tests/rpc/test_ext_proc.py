"""Services that process messages: what only kgw does, or Envoy cannot be made to show.

What both do in the same way is in :mod:`tests.rpc.test_ext_proc_envoy`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tests.engine.h2peer import H2Peer
from tests.engine.harness import (
    PATTERN,
    WAIT,
    Setup,
    Upstream,
    echo,
    eventually,
    get,
    ok,
    post,
    refused_address,
)
from tests.engine.harness import serving as served
from tests.rpc.processor import (
    Processor,
    Stream,
    answer,
    immediate,
    plain,
    serving,
    set_header,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.engine.harness import Gateway, Peer, Script

LOG = {
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "noted": "%DYNAMIC_METADATA(ns:key)%",
}

STREAMED = {"request_body": "streamed", "response_body": "streamed"}
DUPLEX = {"request_body": "full_duplex_streamed", "response_body": "full_duplex_streamed"}
BODIES = {"request_body": "buffered", "response_body": "buffered"}


class Processed(Setup):
    """A set-up whose requests go through a processor."""

    filters: list[dict[str, Any]]
    at: str

    def ir(self) -> dict[str, Any]:
        ir = super().ir()
        ir["clusters"]["processor"] = {"endpoints": [self.at], "protocol": "http2"}
        ir["routes"]["default"]["filters"] = self.filters
        return ir


def processing(name: str = "a", **members: Any) -> dict[str, Any]:
    """The filter."""
    found = {"type": "ext_proc", "name": name, "cluster": "processor", "authority": "processor"}
    return found | members


@contextlib.contextmanager
def gateway_of(
    directory: Path,
    processor: Processor | None,
    *filters: dict[str, Any],
    upstream: Script | None = echo,
    real_time: bool = False,
    at: str | None = None,
) -> Iterator[tuple[Gateway, Upstream]]:
    """A gateway whose requests go through a processor, in front of one upstream."""
    setup = Processed(log=LOG, log_path=str(directory / "access.log"))
    setup.filters = [*filters] or [processing()]
    with contextlib.ExitStack() as stack:
        setup.at = at or ""
        if processor is not None:
            setup.at = stack.enter_context(serving(processor))
        yield stack.enter_context(served(setup, upstream, real_time=real_time))


def seen(body: bytes) -> dict[str, Any]:
    """What the upstream was asked."""
    found: dict[str, Any] = json.loads(body)
    found["headers"] = {name.lower(): value for name, value in found["headers"]}
    return found


def test_a_stream_ends_in_peace_when_its_exchange_does(tmp_path: Path) -> None:
    processor = Processor()
    with gateway_of(tmp_path, processor) as (gateway, _):
        assert gateway.get().status == 200
        assert processor.ended.get(timeout=WAIT) is False
        gateway.reaches("ext_proc_stream_msgs_received", 2)
        assert gateway.stat("ext_proc_streams_started") == 1


def test_a_client_that_goes_cancels_the_stream(tmp_path: Path) -> None:
    processor = Processor(_says_nothing)
    with gateway_of(tmp_path, processor) as (gateway, _):
        client = gateway.connect()
        client.send(get())
        asked = processor.stream()
        eventually(lambda: len(asked) == 1, "the question")
        client.reset()
        assert processor.ended.get(timeout=WAIT) is True
        (line,) = gateway.log_lines(1)
        assert line["details"] == "downstream_remote_disconnect"


def _says_nothing(stream: Stream) -> Iterator[bytes]:
    for _ in stream:
        yield from ()


def test_a_message_has_its_time(tmp_path: Path) -> None:
    processor = Processor(_says_nothing)
    with gateway_of(tmp_path, processor, processing(message_timeout_ms=700)) as (gateway, _):
        client = gateway.connect()
        client.send(get())
        eventually(lambda: gateway.stat("ext_proc_stream_msgs_sent") == 1, "the question")
        asked = processor.stream()
        eventually(lambda: len(asked) == 1, "the question")
        gateway.advance(0.6)
        assert not client.is_readable()
        gateway.advance(0.2)
        assert client.read_response().status == 504
        assert gateway.stat("ext_proc_message_timeouts") == 1


@pytest.mark.parametrize("is_open", [True, False])
def test_no_service_is_there(tmp_path: Path, is_open: bool) -> None:
    members = processing(failure_mode_allow=is_open)
    with (
        refused_address() as address,
        gateway_of(tmp_path, None, members, at=address) as (gateway, _),
    ):
        response = gateway.get()
        assert response.status == (200 if is_open else 500)
        (line,) = gateway.log_lines(1)
        if is_open:
            assert gateway.stat("ext_proc_failure_mode_allowed") == 1
        else:
            assert line["details"].startswith("ext_proc_error_gRPC_error_14{")


def test_a_reference_that_leads_nowhere_is_answered_500(tmp_path: Path) -> None:
    members = processing(cluster=None, failure_mode_allow=True)
    with gateway_of(tmp_path, Processor(), members) as (gateway, _):
        assert gateway.get().status == 500
        (line,) = gateway.log_lines(1)
        assert line["details"] == "ext_proc_unresolved"


def test_a_stream_that_failed_before_a_word_is_opened_again(tmp_path: Path) -> None:
    failed = threading.Semaphore(2)

    def script(stream: Stream) -> Iterator[bytes]:
        if failed.acquire(blocking=False):
            stream.next()
            stream.fail(grpc.StatusCode.UNAVAILABLE, "not yet")
        for asked in stream:
            yield plain(asked.kind)

    processor = Processor(script)
    members = processing(retries=2, retry_interval_ms=1, message_timeout_ms=5_000)
    with gateway_of(tmp_path, processor, members, real_time=True) as (gateway, _):
        assert gateway.get().status == 200
        firsts = [processor.stream()[0] for _ in range(3)]
        assert len({one.content for one in firsts}) == 1


def test_a_stream_that_goes_on_failing_fails(tmp_path: Path) -> None:
    def script(stream: Stream) -> Iterator[bytes]:
        stream.next()
        stream.fail(grpc.StatusCode.UNAVAILABLE, "never")
        yield b""

    processor = Processor(script)
    members = processing(retries=1, retry_interval_ms=1, message_timeout_ms=5_000)
    with gateway_of(tmp_path, processor, members, real_time=True) as (gateway, _):
        assert gateway.get().status == 500
        (line,) = gateway.log_lines(1)
        assert line["details"] == "ext_proc_error_gRPC_error_14{never{via_upstream}}"
        assert processor.streams.qsize() == 2


def test_several_services_see_what_those_before_them_made(tmp_path: Path) -> None:
    def script(stream: Stream) -> Iterator[bytes]:
        for asked in stream:
            value = dict(asked.fields).get("x-seen", "")
            yield answer(asked.kind, headers=[set_header("x-seen", value + "+")])

    processor = Processor(script)
    filters = [processing("a"), processing("b")]
    with gateway_of(tmp_path, processor, *filters) as (gateway, _):
        response = gateway.get()
        assert seen(response.body)["headers"]["x-seen"] == "++"
        assert response["x-seen"] == "++"
        assert processor.streams.qsize() == 2


def test_answers_of_the_proxy_are_processed(tmp_path: Path) -> None:
    limit = {
        "type": "local_rate_limit",
        "bucket": "b",
        "max_tokens": 1,
        "tokens_per_fill": 1,
        "fill_interval_ns": 60_000_000_000,
    }
    kind = "response_headers"
    processor = Processor({kind: answer(kind, headers=[set_header("x-seen", "1")])})
    members = processing(mode=BODIES)
    with gateway_of(tmp_path, processor, members, limit) as (gateway, _):
        assert gateway.get().status == 200
        response = gateway.get()
        assert (response.status, response["x-seen"]) == (429, "1")
        assert response.body == b"local_rate_limited"


def test_a_service_notes_metadata(tmp_path: Path) -> None:
    kind = "request_headers"
    noted = answer(kind, metadata={"ns": {"key": "value"}, "other": {"key": "no"}})
    processor = Processor({kind: noted})
    members = [
        processing("a", receive_metadata=["ns"]),
        processing("b", forward_metadata=["ns"]),
    ]
    with gateway_of(tmp_path, processor, *members) as (gateway, _):
        assert gateway.get().status == 200
        (line,) = gateway.log_lines(1)
        assert line["noted"] == "value"
        first, second = processor.stream()[0], processor.stream()[0]
        told = [one.message[8][-1] for one in (first, second)]
        assert told[0] == b""
        assert b"key" in told[1]
        assert b"other" not in told[1]


def test_a_service_behind_the_router_sees_what_the_backend_will(tmp_path: Path) -> None:
    modifier = {"type": "request_headers", "set": [["x-set", "1"]], "add": [], "remove": []}
    processor = Processor()
    members = [processing("a"), processing("b", after_router=True), modifier]
    with gateway_of(tmp_path, processor, *members) as (gateway, _):
        assert gateway.get().status == 200
        early, late = processor.stream(), processor.stream()
        assert "x-set" not in dict(early[0].fields)
        assert dict(late[0].fields)["x-set"] == "1"
        assert [one.kind for one in late] == ["request_headers", "response_headers"]


def test_a_service_in_shadow_changes_nothing(tmp_path: Path) -> None:
    kind = "request_headers"
    processor = Processor({kind: immediate(403, "no")})
    filter_ = {"type": "shadow", "policy": "ns/p", "filter": processing(mode=BODIES)}
    with gateway_of(tmp_path, processor, filter_) as (gateway, _):
        response = gateway.ask(post(b"hello"))
        assert response.status == 200
        assert seen(response.body)["body"] == "hello"
        assert gateway.stat("shadow_denied") == 1
        assert [one.kind for one in processor.stream()] == [kind]


# === Bodies ===


def _uppercases(stream: Stream) -> Iterator[bytes]:
    for asked in stream:
        if not asked.kind.endswith("body"):
            yield plain(asked.kind)
        elif stream.is_duplex:
            yield answer(asked.kind, streamed=(asked.body.upper(), asked.end))
        else:
            yield answer(asked.kind, body=asked.body.upper())


@pytest.mark.parametrize("mode", [STREAMED, DUPLEX], ids=["streamed", "duplex"])
def test_long_bodies_go_through_in_little_memory(tmp_path: Path, mode: dict[str, str]) -> None:
    length = 10 * 1024 * 1024
    body = (PATTERN * (length // len(PATTERN) + 1))[:length]

    def returns(peer: Peer) -> None:
        _, _, received = peer.read_request()
        peer.send(ok(received))

    def script(stream: Stream) -> Iterator[bytes]:
        stream.is_duplex = mode is DUPLEX
        yield from _uppercases(stream)

    processor = Processor(script)
    members = processing(mode=mode, message_timeout_ms=60_000)
    with gateway_of(tmp_path, processor, members, upstream=returns, real_time=True) as (gateway, _):
        client = gateway.connect()
        client.sock.settimeout(60)  # a megabyte a second is enough
        sender = threading.Thread(target=client.send, args=(post(body),))
        sender.start()
        response = client.read_response()
        sender.join()
        assert response.status == 200
        digest = hashlib.sha256(body.upper()).hexdigest()
        assert hashlib.sha256(response.body).hexdigest() == digest


@pytest.mark.parametrize("mode", [STREAMED, DUPLEX], ids=["streamed", "duplex"])
def test_a_service_that_takes_nothing_stops_the_sender(
    tmp_path: Path, mode: dict[str, str]
) -> None:
    released = threading.Event()

    def script(stream: Stream) -> Iterator[bytes]:
        yield plain(stream.next().kind)
        released.wait(WAIT * 4)
        for asked in stream:
            if mode is DUPLEX and asked.kind.endswith("body"):
                yield answer(asked.kind, streamed=(asked.body, asked.end))
            else:
                yield plain(asked.kind)

    processor = Processor(script)
    length = 64 * 1024 * 1024
    with gateway_of(tmp_path, processor, processing(mode=mode)) as (gateway, _):
        client = gateway.connect()
        head = f"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n"
        client.send(head.encode())
        taken = client.fill(length, gateway)
        # What the kernel's buffers hold, and the windows of the stream.
        assert taken < 32 * 1024 * 1024
        released.set()
        client.close()


def test_over_http2_with_trailers(tmp_path: Path) -> None:
    kind = "request_trailers"
    processor = Processor({kind: answer(kind, headers=[set_header("x-more", "1")])})
    got: list[bytes] = []

    def upstream(peer: Peer) -> None:
        _, headers, _ = peer.read_head()
        assert ("transfer-encoding", "chunked") in [(n.lower(), v) for n, v in headers]
        got.append(peer.read_until(b"\r\n\r\n"))
        peer.send(ok(b"fine"))

    members = processing(mode={"request_trailer": "send"})
    with gateway_of(tmp_path, processor, members, upstream=upstream) as (gateway, _):
        client = H2Peer(gateway.connect())
        stream = client.request("/", method="POST", body=b"hello", end=False)
        client.headers(stream, [("x-t", "1")], end=True)
        answered = client.response(stream)
        assert answered.status == 200
        assert got == [b"5\r\nhello\r\n0\r\nx-t: 1\r\nx-more: 1\r\n\r\n"]
        kinds = [one.kind for one in processor.stream()]
        assert kinds[:2] == ["request_headers", "request_trailers"]
        client.close()


def test_an_answer_that_has_begun_is_cut_short(tmp_path: Path) -> None:
    def script(stream: Stream) -> Iterator[bytes]:
        count = 0
        for asked in stream:
            count += asked.kind == "response_body"
            yield immediate(403, "late") if count == 3 else plain(asked.kind)

    def upstream(peer: Peer) -> None:
        peer.read_request()
        peer.send(ok(b"x" * 200_000))

    processor = Processor(script)
    with gateway_of(tmp_path, processor, processing(mode=STREAMED), upstream=upstream) as (
        gateway,
        _,
    ):
        client = gateway.connect()
        client.send(get())
        head = client.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        with contextlib.suppress(ConnectionResetError):
            assert len(client.read_to_end()) < 200_000


def test_an_exchange_without_a_processor_has_none(tmp_path: Path) -> None:
    processor = Processor()
    filter_ = processing(mode={"request_header": "skip", "response_header": "skip"})
    with gateway_of(tmp_path, processor, filter_) as (gateway, _):
        assert gateway.ask(post(b"hello")).status == 200
        assert gateway.stat("ext_proc_streams_started") == 0
