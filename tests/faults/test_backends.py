"""What a client is told when its backend fails, and that nothing of the failure stays behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.peers import frames
from tests.peers.frames import Code

from .stage import PAIRS, Stage, stage
from .upstreams import H2Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIMEOUT = 15.0
"""Of a route. Seconds."""

MOST_ATTEMPTS = 8
"""How often a request that nobody has processed may be asked."""


@pytest.fixture(params=PAIRS, ids=lambda pair: "-to-".join(pair))
def on(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    downstream, upstream = request.param
    with stage(downstream, upstream, tmp_path) as found:
        yield found


@pytest.fixture(params=["h1", "h2"])
def on_h2(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """A backend of HTTP/2."""
    with stage(request.param, "h2", tmp_path) as found:
        yield found


@pytest.mark.parametrize("end", ["fin", "rst"])
def test_no_answer(on: Stage, end: str) -> None:
    client, upstream = on.exchange("POST", 0)
    client.send(b"", end=True)
    getattr(upstream, end)()
    answer = client.answer()
    assert (answer.status, answer.whole) == (503, True)
    assert on.logged()["flags"] == "UC"
    on.serves()
    on.nothing_is_left()


@pytest.mark.parametrize("end", ["fin", "rst", "give_up"])
def test_half_an_answer(on: Stage, end: str) -> None:
    client, upstream = on.exchange()
    upstream.answer(b"half", 8)
    assert client.start_of_answer() == 200
    getattr(upstream, end)()
    answer = client.answer()
    assert not answer.whole
    assert b"half".startswith(answer.body)
    line = on.logged()
    assert line["status"] == 200
    assert line["flags"] in ("UC", "UR", "UPE")
    on.serves(upstream if end == "give_up" and isinstance(upstream, H2Upstream) else None)
    on.nothing_is_left()


def test_nobody_listens(on: Stage) -> None:
    on.listener.close()
    client = on.client()
    client.ask("GET")
    answer = client.answer()
    assert (answer.status, answer.whole) == (503, True)
    assert on.logged()["flags"] == "UF"
    on.nothing_is_left()


def test_no_answer_in_time(on: Stage) -> None:
    client, upstream = on.exchange()
    on.gateway.advance(TIMEOUT + 0.1)
    answer = client.answer()
    assert (answer.status, answer.whole) == (504, True)
    assert upstream.is_released()
    assert on.logged()["flags"] == "UT"
    on.nothing_is_left()


def test_half_an_answer_in_time(on: Stage) -> None:
    client, upstream = on.exchange()
    upstream.answer(b"half", 8)
    assert client.start_of_answer() == 200
    on.gateway.advance(TIMEOUT + 0.1)
    assert not client.answer().whole
    assert upstream.is_released()
    assert on.logged()["flags"] == "UT"
    on.nothing_is_left()


def test_an_answer_before_the_end_of_the_request(on: Stage) -> None:
    client, upstream = on.exchange("POST", 8)
    client.send(b"half")
    upstream.read_body(4)
    upstream.answer(b"early")
    answer = client.answer()
    assert (answer.status, answer.body, answer.whole) == (200, b"early", True)
    on.nothing_is_left()


def test_an_answer_before_the_end_of_the_request_and_fin(on: Stage) -> None:
    client, upstream = on.exchange("POST", 8)
    client.send(b"half")
    upstream.read_body(4)
    upstream.answer(b"early")
    upstream.fin()
    answer = client.answer()
    if isinstance(upstream, H2Upstream) and not answer.whole:
        # A backend that closes with a stream open may be taken at its word; it has to reset that.
        assert answer.status in (None, 200, 502, 503)
    else:
        assert (answer.status, answer.body, answer.whole) == (200, b"early", True)
    on.nothing_is_left()


def test_a_backend_that_sends_no_more_but_reads(on: Stage) -> None:
    client, upstream = on.exchange("POST", 4)
    upstream.half_close()
    answer = client.answer()
    assert (answer.status, answer.whole) == (503, True)
    on.nothing_is_left()


def test_an_interim_answer_and_then_none(on: Stage) -> None:
    client, upstream = on.exchange()
    upstream.interim()
    upstream.fin()
    answer = client.answer()
    if answer.status == 103:
        answer = client.answer()
    assert answer.status == 503
    on.serves()
    on.nothing_is_left()


def test_bytes_that_are_not_http(on: Stage) -> None:
    client, upstream = on.exchange()
    upstream.raw(b"\xff\x00\xff\x00 this is no answer\r\n\r\n" * 100)
    answer = client.answer()
    assert answer.status in (502, 503)
    assert answer.whole
    assert upstream.is_released()
    on.nothing_is_left()


@pytest.mark.parametrize("code", [Code.INTERNAL_ERROR, Code.CANCEL, Code.ENHANCE_YOUR_CALM])
def test_a_stream_is_reset_before_its_answer(on_h2: Stage, code: Code) -> None:
    client, upstream = on_h2.exchange()
    upstream.give_up(code)
    answer = client.answer()
    assert (answer.status, answer.whole) == (503, True)
    assert on_h2.logged()["flags"] == "UR"
    on_h2.nothing_is_left()


def test_the_backend_resets_a_stream_that_it_has_answered(on_h2: Stage) -> None:
    """NO_ERROR after a whole answer says that the rest of the request is not wanted (8.1)."""
    client, upstream = on_h2.exchange("POST", 8)
    client.send(b"half")
    upstream.read_body(4)
    upstream.answer(b"early")
    upstream.give_up(Code.NO_ERROR)
    answer = client.answer()
    assert (answer.status, answer.body, answer.whole) == (200, b"early", True)
    on_h2.nothing_is_left()


def test_goaway_leaves_the_stream_that_it_names(on_h2: Stage) -> None:
    client, upstream = on_h2.exchange()
    upstream.raw(frames.goaway(Code.NO_ERROR, 1))
    upstream.answer(b"whole")
    answer = client.answer()
    assert (answer.status, answer.body, answer.whole) == (200, b"whole", True)
    on_h2.serves()
    assert on_h2.listener.connections == 2
    on_h2.nothing_is_left()


@pytest.mark.parametrize("code", [Code.NO_ERROR, Code.PROTOCOL_ERROR])
def test_what_a_goaway_leaves_out_is_asked_elsewhere(on_h2: Stage, code: Code) -> None:
    client, upstream = on_h2.exchange()
    upstream.raw(frames.goaway(code, 0))
    upstream.fin()
    second = on_h2.listener.accept()
    second.read_head()
    second.answer(b"whole")
    answer = client.answer()
    assert (answer.status, answer.body, answer.whole) == (200, b"whole", True)
    on_h2.nothing_is_left()


def test_a_refused_stream_is_asked_again(on_h2: Stage) -> None:
    client, upstream = on_h2.exchange()
    upstream.give_up(Code.REFUSED_STREAM)
    upstream.read_head()
    upstream.answer(b"whole")
    answer = client.answer()
    assert (answer.status, answer.body, answer.whole) == (200, b"whole", True)
    on_h2.nothing_is_left()


def test_a_backend_that_refuses_everything_is_not_asked_for_ever(on_h2: Stage) -> None:
    client, upstream = on_h2.exchange()
    for _ in range(MOST_ATTEMPTS):
        upstream.give_up(Code.REFUSED_STREAM)
        try:
            upstream.read_head()
        except AssertionError:
            break
    else:
        raise AssertionError(f"asked more than {MOST_ATTEMPTS} times")
    answer = client.answer()
    assert (answer.status, answer.whole) == (503, True)
    on_h2.nothing_is_left()


def test_one_stream_that_fails_harms_no_other(on_h2: Stage) -> None:
    first, upstream = on_h2.exchange()
    assert isinstance(upstream, H2Upstream)
    second = on_h2.client()
    second.ask("GET")
    upstream.read_head()
    upstream.raw(frames.rst_stream(1, Code.INTERNAL_ERROR))
    assert first.answer().status == 503
    upstream.answer(b"whole")
    answer = second.answer()
    assert (answer.status, answer.body, answer.whole) == (200, b"whole", True)
    on_h2.nothing_is_left()
