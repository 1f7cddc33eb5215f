"""Requests whose meaning is in doubt are refused and end their connection."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.engine.harness import Peer, Setup, get, serving

LOG = {
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "authority": "%REQ(:AUTHORITY)%",
    "sent": "%BYTES_SENT%",
}


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(log=LOG, log_path=str(tmp_path / "access.log"))


def refused(
    setup: Setup, request: bytes, status: int, body: str, details: str, flags: str = "DPE"
) -> None:
    """The request is refused, what follows it is not served, and no upstream hears of it."""
    with serving(setup) as (gateway, upstream):
        client = gateway.connect()
        client.send(request + get("/smuggled"))
        response = client.read_response()
        assert (response.status, response.body.decode()) == (status, body)
        assert response["connection"] == "close"
        assert client.is_closed()
        [line] = gateway.log_lines(1)
        assert (line["code"], line["flags"], line["details"]) == (status, flags, details)
        assert line["sent"] == len(body)
        if flags == "DPE":
            assert line["method"] is line["path"] is line["authority"] is None
        assert upstream.connections == 0
        gateway.reaches("downstream_rq_malformed", 1)


def head(*fields: str, line: str = "POST /p HTTP/1.1", host: str = "host: a") -> bytes:
    return "\r\n".join([line, *([host] if host else []), *fields, "", ""]).encode("latin-1")


CODEC = "http1.codec_error"
CHARACTERS = "http1.invalid_characters"


@pytest.mark.parametrize(
    ("request_bytes", "details"),
    [
        pytest.param(head("content-length: 3", "content-length: 3"), CODEC, id="two lengths"),
        pytest.param(head("content-length: 3", "content-length: 4"), CODEC, id="other lengths"),
        pytest.param(head("content-length: 3, 3"), CODEC, id="length list"),
        pytest.param(head("content-length: +3"), CODEC, id="signed length"),
        pytest.param(head("content-length: 0x3"), CODEC, id="hexadecimal length"),
        pytest.param(head("content-length:"), CODEC, id="empty length"),
        pytest.param(head("content-length: 99999999999999999999"), CODEC, id="huge length"),
        pytest.param(
            head("content-length: 3", "transfer-encoding: chunked"),
            "http1.content_length_and_chunked_not_allowed",
            id="length and chunked",
        ),
        pytest.param(
            head("transfer-encoding: chunked", "content-length: 3"),
            "http1.content_length_and_chunked_not_allowed",
            id="chunked and length",
        ),
        pytest.param(head("x: a\r\n b"), CODEC, id="folded line"),
        pytest.param(head("x : a"), CODEC, id="space before the colon"),
        pytest.param(head("no colon"), CODEC, id="no colon"),
        pytest.param(head(": empty"), CODEC, id="empty name"),
        pytest.param(head("x(a): b"), CODEC, id="name with a delimiter"),
        pytest.param(head("x: a\x00b"), CHARACTERS, id="NUL in a value"),
        pytest.param(head("x: a\x7fb"), CHARACTERS, id="DEL in a value"),
        pytest.param(b"GET / HTTP/1.1\nhost: a\n\n", CODEC, id="bare line feeds"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n", CODEC, id="a bare line feed"),
        pytest.param(head("host: b"), "http.invalid_authority", id="two hosts"),
        pytest.param(head("host: a"), "http.invalid_authority", id="the same host twice"),
        pytest.param(head(host="host: a b"), "http.invalid_authority", id="host with a space"),
        pytest.param(
            head("connection: :authority"),
            "http1.connection_header_rejected",
            id="nominated pseudo header",
        ),
        pytest.param(head(line="FOO /p HTTP/1.1"), CODEC, id="unknown method"),
        pytest.param(head(line="get /p HTTP/1.1"), CODEC, id="lower case method"),
        pytest.param(head(line="GET  /p HTTP/1.1"), CODEC, id="two spaces"),
        pytest.param(head(line=" GET /p HTTP/1.1"), CODEC, id="leading space"),
        pytest.param(head(line="GET p HTTP/1.1"), CODEC, id="no leading slash"),
        pytest.param(head(line="GET /a b HTTP/1.1"), CODEC, id="space in the path"),
        pytest.param(head(line="GET * HTTP/1.1"), "http1.invalid_url", id="asterisk of GET"),
        pytest.param(head(line="GET ftp://a/p HTTP/1.1"), "http1.invalid_scheme", id="scheme"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", CODEC, id="TLS"),
        pytest.param(head(host="host:"), "http.invalid_authority", id="empty host"),
    ],
)
def test_doubtful_heads_are_refused(setup: Setup, request_bytes: bytes, details: str) -> None:
    refused(setup, request_bytes, 400, "Bad Request", details)


@pytest.mark.parametrize("coding", ["identity", "gzip, chunked", "xchunked", "chunked, chunked"])
def test_other_transfer_codings_are_not_implemented(setup: Setup, coding: str) -> None:
    details = "http1.invalid_transfer_encoding"
    refused(setup, head(f"transfer-encoding: {coding}"), 501, "Not Implemented", details)


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/0.9"])
def test_other_versions_are_told_to_upgrade(setup: Setup, version: str) -> None:
    refused(setup, head(line=f"GET / {version}"), 426, "Upgrade Required", "low_version")


def test_what_only_begins_as_http_2_is_told_to_upgrade(setup: Setup) -> None:
    refused(setup, b"PRI * HTTP/2.0\r\n\r\nSX", 426, "Upgrade Required", "low_version")


TOO_LARGE = "Request Header Fields Too Large"


def test_a_head_of_more_than_60_kib_is_too_large(setup: Setup) -> None:
    for request in (head("x: " + "y" * 62_000), head(line=f"GET /{'a' * 62_000} HTTP/1.1")):
        Path(str(setup.log_path)).unlink(missing_ok=True)
        refused(setup, request, 431, TOO_LARGE, "http1.headers_too_large")


def test_an_endless_head_is_refused_while_it_comes(setup: Setup) -> None:
    with serving(setup) as (gateway, _):
        client = gateway.connect()
        client.send(b"GET / HTTP/1.1\r\nx: ")
        client.send(b"y" * 62_000)
        assert client.read_response().status == 431


def test_more_than_100_fields_are_too_many(setup: Setup) -> None:
    fields = [f"x-{n}: {n}" for n in range(99)]
    with serving(setup) as (gateway, _):
        assert gateway.ask(head("content-length: 0", *fields[:98])).status == 200
    Path(str(setup.log_path)).unlink()
    request = head("content-length: 0", *fields)
    refused(setup, request, 431, TOO_LARGE, "http1.too_many_headers")


def test_a_large_but_allowed_head_passes(setup: Setup) -> None:
    with serving(setup) as (gateway, _):
        assert gateway.get("/", "x: " + "y" * 60_000).status == 200
        assert gateway.get("/" + "y" * 60_000).status == 200


def test_a_missing_host_is_refused_without_a_flag(setup: Setup) -> None:
    request = b"GET /p HTTP/1.1\r\nx: y\r\n\r\n"
    refused(setup, request, 400, "", "missing_host_header", "-")


def test_https_on_plain_text_is_forbidden(setup: Setup) -> None:
    request = head(line="GET https://a/ HTTP/1.1")
    details = "http1.https_url_on_plaintext_connection"
    refused(setup, request, 403, "Forbidden", details)


@pytest.mark.parametrize("path", ["/a%00b", "/a#b"])
def test_a_path_that_cannot_be_normalised_is_refused(setup: Setup, path: str) -> None:
    request = head(line=f"GET {path} HTTP/1.1")
    refused(setup, request, 400, "", "path_normalization_failed", "-")


def test_a_request_that_was_understood_is_logged_and_counted_once(setup: Setup) -> None:
    with serving(setup) as (gateway, _):
        client = gateway.connect()
        client.send(head(line="GET /a%00b HTTP/1.1"))
        assert client.read_response().status == 400
        assert client.is_closed()
        [line] = gateway.log_lines(1)
        assert (line["method"], line["authority"]) == ("GET", "a")
        gateway.reaches("downstream_rq_total", 1)


@pytest.mark.parametrize(
    "chunk",
    [
        b"zz\r\n",
        b"0x3\r\nabc\r\n",
        b"3\nabc\r\n",
        b"-1\r\n",
        b"fffffffffffffffff\r\n",
        b"3\r\nabcd\r\n",
        b"\r\n",
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_malformed_chunks_end_the_connection(setup: Setup, chunk: bytes, late: bool) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        start = head("transfer-encoding: chunked")
        if late:
            client.send(start + b"4\r\ngood\r\n")
            peer = upstream.accept()
            peer.read_until(b"good\r\n")
            client.send(chunk + get("/smuggled"))
        else:
            client.send(start + chunk + get("/smuggled"))
            peer = upstream.accept()
        response = client.read_response()
        assert (response.status, response.body) == (400, b"Bad Request")
        assert response["connection"] == "close"
        assert client.is_closed()
        with pytest.raises((EOFError, ConnectionResetError)):
            peer.read_until(b"smuggled")
        [line] = gateway.log_lines(1)
        assert (line["code"], line["flags"], line["details"]) == (400, "DPE", CODEC)


def test_a_malformed_chunk_after_the_answer_began_cuts_it_short(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(head("transfer-encoding: chunked") + b"4\r\ngood\r\n")
        peer: Peer = upstream.accept()
        peer.read_until(b"good\r\n")
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\npart!")
        client.read_until(b"part!")
        client.send(b"zz\r\n")
        assert client.is_closed()
        [line] = gateway.log_lines(1)
        assert (line["code"], line["flags"], line["details"]) == (200, "DPE", CODEC)


def test_what_looks_odd_but_has_one_meaning_passes() -> None:
    odd = [
        head("content-length: 0", host="Host: A.Example:80"),
        head("content-length: 0", "x:", "y:   spaced\t"),
        head("transfer-encoding: CHUNKED") + b"003\r\nabc\r\n0\r\n\r\n",
        head(line="GET http://b/p HTTP/1.1"),
        head("content-length: 0", "x_under: score", "latin: \xe9"),
    ]
    with serving() as (gateway, _):
        for request in odd:
            assert gateway.ask(request).status == 200, request


def test_an_absolute_target_names_the_host() -> None:
    with serving() as (gateway, _):
        seen = json.loads(gateway.ask(head(line="GET http://b:8080/p?q HTTP/1.1")).body)
        assert seen["line"] == "GET /p?q HTTP/1.1"
        assert dict(seen["headers"])["host"] == "b:8080"


def test_a_request_may_come_byte_by_byte() -> None:
    with serving() as (gateway, _):
        client = gateway.connect()
        for byte in get("/slow", "x: y"):
            client.send(bytes([byte]))
        assert json.loads(client.read_response().body)["line"] == "GET /slow HTTP/1.1"
