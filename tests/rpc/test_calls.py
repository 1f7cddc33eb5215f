"""Calls of all four shapes, with HTTP/2 on both sides of the proxy."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import grpc
import pytest
from tests.engine.harness import WAIT, Gateway
from tests.engine.test_waypoint_listener import header
from tests.rpc.calls import DETAILS, Prefixed, calling, channel, service, setup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_one_message_for_another() -> None:
    with calling() as (opened, handlers, _):
        answer, call = opened.unary_unary("/test.Service/Echo").with_call(
            b"hello", metadata=[("said", "yes"), ("said-bin", b"\x00\x01")], timeout=WAIT
        )
        assert answer == b"hello"
        before = dict(call.initial_metadata())
        assert (before["before"], before["before-bin"]) == ("1", b"\x00\xff")
        assert dict(call.trailing_metadata()) == {"behind": "2", "behind-bin": b"\xff\x00"}
        assert handlers.metadata["said"] == "yes"
        assert handlers.metadata["said-bin"] == b"\x00\x01"


def test_many_messages_for_one() -> None:
    with calling() as (opened, _, _):
        join = opened.stream_unary("/test.Service/Join")
        assert join(iter([b"a", b"b", b"c"]), timeout=WAIT) == b"a,b,c"


def test_one_message_for_many() -> None:
    with calling() as (opened, _, _):
        answers = opened.unary_stream("/test.Service/Count")(b"1000", timeout=WAIT)
        assert [int(answer) for answer in answers] == list(range(1000))


class Turns:
    """Messages that are sent when the test says so."""

    def __init__(self) -> None:
        self.said: list[bytes | None] = []
        self.more = threading.Condition()

    def say(self, message: bytes | None) -> None:
        """Sends a message; none ends them."""
        with self.more:
            self.said.append(message)
            self.more.notify()

    def __iter__(self) -> Iterator[bytes]:
        """Gives the messages as they are said."""
        while True:
            with self.more:
                assert self.more.wait_for(lambda: self.said, WAIT)
                message = self.said.pop(0)
            if message is None:
                return
            yield message


def test_messages_in_turns() -> None:
    with calling() as (opened, _, _):
        turns = Turns()
        answers = opened.stream_stream("/test.Service/Chat")(iter(turns), timeout=WAIT)
        for number in range(20):
            turns.say(b"%d" % number)
            assert next(answers) == b"%d" % number
        turns.say(None)
        assert list(answers) == []


def test_a_hundred_calls_at_a_time_share_a_connection() -> None:
    with calling() as (opened, _, gateway):
        chat = opened.stream_stream("/test.Service/Chat")
        turns = [Turns() for _ in range(100)]
        answers = [chat(iter(turn), timeout=4 * WAIT) for turn in turns]
        for turn in turns:
            turn.say(b"first")
        assert [next(answer) for answer in answers] == [b"first"] * 100
        gateway.reaches("downstream_rq_active", 100)
        for turn in turns:
            turn.say(b"last")
            turn.say(None)
        assert [list(answer) for answer in answers] == [[b"last"]] * 100


def test_large_messages() -> None:
    with calling() as (opened, _, _):
        large = bytes(range(256)) * (4 * 1024 * 1024 // 256)
        echo = opened.unary_unary("/test.Service/Echo")
        assert echo(large, timeout=4 * WAIT) == large


def test_a_failure_keeps_its_words_and_details() -> None:
    with calling() as (opened, _, _):
        with pytest.raises(grpc.RpcError) as failed:
            opened.unary_unary("/test.Service/Fail")("nicht schön 100 %".encode(), timeout=WAIT)
        error = failed.value
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert error.details() == "nicht schön 100 %"
        trailers = dict(error.trailing_metadata())
        assert trailers["grpc-status-details-bin"] == DETAILS
        assert trailers["why"] == "so"


def test_an_unknown_method_is_the_services_answer() -> None:
    with calling() as (opened, _, _):
        with pytest.raises(grpc.RpcError) as failed:
            opened.unary_unary("/test.Service/None")(b"", timeout=WAIT)
        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert failed.value.details() == "Method not found!"


def test_the_clients_deadline_ends_a_call() -> None:
    with calling() as (opened, handlers, gateway):
        call = opened.unary_unary("/test.Service/Wait").future(b"", timeout=10)
        assert handlers.waiting.acquire(timeout=WAIT)
        gateway.advance(10.1)
        error = call.exception(timeout=WAIT)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert error.details() == "downstream duration timeout"
        assert handlers.cancelled.acquire(timeout=WAIT)


def test_the_routes_time_ends_a_call() -> None:
    with calling() as (opened, handlers, gateway):
        call = opened.unary_unary("/test.Service/Wait").future(b"", timeout=60)
        assert handlers.waiting.acquire(timeout=WAIT)
        gateway.advance(15.1)
        error = call.exception(timeout=WAIT)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert error.details() == "upstream request timeout"
        assert handlers.cancelled.acquire(timeout=WAIT)


def test_a_cancelled_call_is_cancelled_at_the_service() -> None:
    with calling() as (opened, handlers, _):
        call = opened.unary_unary("/test.Service/Wait").future(b"", timeout=60)
        assert handlers.waiting.acquire(timeout=WAIT)
        assert call.cancel()
        assert handlers.cancelled.acquire(timeout=WAIT)
        # The connection serves others still.
        assert opened.unary_unary("/test.Service/Echo")(b"x", timeout=WAIT) == b"x"


def test_the_access_log_has_the_calls_status(tmp_path: Path) -> None:
    log = tmp_path / "log"
    keys = {"grpc": "%GRPC_STATUS_NUMBER%", "name": "%GRPC_STATUS%", "code": "%RESPONSE_CODE%"}
    with service() as (_, address):
        gateway = Gateway(setup(address, log=keys, log_path=str(log)))
        try:
            with channel(gateway.port) as opened:
                opened.unary_unary("/test.Service/Echo")(b"", timeout=WAIT)
                with pytest.raises(grpc.RpcError):
                    opened.unary_unary("/test.Service/Fail")(b"", timeout=WAIT)
                assert [json.dumps(line) for line in gateway.log_lines(2)] == [
                    json.dumps({"code": 200, "grpc": 0, "name": "OK"}),
                    json.dumps({"code": 200, "grpc": 5, "name": "NotFound"}),
                ]
        finally:
            gateway.close()


def test_calls_come_to_a_waypoint() -> None:
    with service() as (_, address):
        gateway = Gateway(setup(address, waypoint=True))
        ztunnel = Prefixed(gateway.port, header())
        try:
            with channel(ztunnel.port) as opened:
                echo = opened.unary_unary("/test.Service/Echo")
                assert echo(b"hello", timeout=WAIT) == b"hello"
                answers = opened.stream_stream("/test.Service/Chat")(
                    iter([b"a", b"b"]), timeout=WAIT
                )
                assert list(answers) == [b"a", b"b"]
            gateway.reaches("proxy_header_accepted", 1)
        finally:
            ztunnel.close()
            gateway.close()
