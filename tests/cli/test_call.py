"""`kgw call` against a stand-in for a waypoint that notes what it receives."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Kgw, Running

IDENTITY = "spiffe://cluster.local/ns/default/sa/client"
VIP = "10.96.238.187"


class Header(NamedTuple):
    """What a PROXY protocol v2 header says, parsed by the book and not by kgw."""

    source: tuple[str, int]
    destination: tuple[str, int]
    tlvs: dict[int, bytes]


class Exchange(NamedTuple):
    line: str
    fields: list[tuple[str, str]]
    body: bytes


class Waypoint(ThreadingHTTPServer):
    """Answers every request with the number of requests seen; `closing` closes connections."""

    daemon_threads = True

    def __init__(self, *, header: bool = True, answers: int | None = None) -> None:
        self.header = header
        self.answers = answers
        self.headers: list[Header] = []
        self.exchanges: list[Exchange] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Waypoint

    def handle(self) -> None:
        if self.server.header:
            self.server.headers.append(_read_header(self.rfile))
        super().handle()

    def do_GET(self) -> None:
        waypoint = self.server
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        waypoint.exchanges.append(Exchange(self.requestline, list(self.headers.items()), body))
        if waypoint.answers is not None and len(waypoint.exchanges) > waypoint.answers:
            self.close_connection = True
            return
        text = f"answer {len(waypoint.exchanges)}\n".encode()
        self.send_response(429 if len(waypoint.exchanges) > 3 else 200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_PUT = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


def _read_header(stream: object) -> Header:
    head = stream.read(16)  # type: ignore[attr-defined]
    assert head[:12] == b"\r\n\r\n\0\r\nQUIT\n"
    assert head[12] == 0x21
    rest = stream.read(struct.unpack("!H", head[14:16])[0])  # type: ignore[attr-defined]
    size = {0x11: 4, 0x21: 16}[head[13]]
    source, destination = (
        str(ipaddress.ip_address(rest[start : start + size])) for start in (0, size)
    )
    source_port, destination_port = struct.unpack_from("!HH", rest, 2 * size)
    tlvs = {}
    rest = rest[2 * size + 4 :]
    while rest:
        kind, length = struct.unpack_from("!BH", rest)
        tlvs[kind] = rest[3 : 3 + length]
        rest = rest[3 + length :]
    return Header((source, source_port), (destination, destination_port), tlvs)


@pytest.fixture
def waypoint() -> Iterator[Waypoint]:
    yield from _served(Waypoint())


@pytest.fixture
def plain_listener() -> Iterator[Waypoint]:
    yield from _served(Waypoint(header=False))


@pytest.fixture
def failing_waypoint() -> Iterator[Waypoint]:
    yield from _served(Waypoint(answers=1))


def _served(server: Waypoint) -> Iterator[Waypoint]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_call_sends_the_header_that_ztunnel_sends(kgw: Kgw, waypoint: Waypoint) -> None:
    result = kgw("call", "--via", waypoint.address, "--to", f"{VIP}:80", "--identity", IDENTITY)

    assert result.returncode == 0, result.stderr
    [header] = waypoint.headers
    assert header.destination == (VIP, 80)
    assert header.source[0] == "127.0.0.1"
    assert header.tlvs == {0xD0: IDENTITY.encode()}


def test_call_prints_like_curl(kgw: Kgw, waypoint: Waypoint) -> None:
    result = kgw("call", "--via", waypoint.address, "--to", f"{VIP}:80", "--identity", IDENTITY)

    assert result.stdout == "answer 1\n"
    lines = result.stderr.splitlines()
    assert lines[0] == f"* Trying {waypoint.address}..."
    assert lines[1] == f"* Connected to {waypoint.address}"
    assert lines[2].startswith("* PROXY v2 header: 127.0.0.1:")
    assert lines[2].endswith(f" -> {VIP}:80, identity {IDENTITY}")
    assert lines[3:5] == ["> GET / HTTP/1.1", f"> Host: {VIP}"]
    assert lines[5].startswith("> User-Agent: kgw/")
    assert lines[6:9] == ["> Accept: */*", ">", "< HTTP/1.1 200 OK"]
    assert "< Content-Length: 9" in lines
    assert lines[-2:] == ["<", f"* Connection to host {VIP} left intact"]


def test_call_without_an_identity_sends_none(kgw: Kgw, waypoint: Waypoint) -> None:
    result = kgw("call", "--via", waypoint.address, "--to", f"{VIP}:80")

    assert result.returncode == 0, result.stderr
    assert waypoint.headers[0].tlvs == {}
    assert "identity none" in result.stderr


def test_call_takes_the_source_and_an_ipv6_vip(kgw: Kgw, waypoint: Waypoint) -> None:
    to = ("--via", waypoint.address, "--to", "[fd00::1]:8080")
    assert kgw("call", *to).returncode == 0
    assert kgw("call", *to, "--source", "[fd00::24]:46238").returncode == 0

    first, second = waypoint.headers
    assert first.destination == second.destination == ("fd00::1", 8080)
    assert first.source[0] == "::1"
    assert second.source == ("fd00::24", 46238)


def test_call_resolves_a_service_name_with_manifests(
    kgw: Kgw, waypoint: Waypoint, manifests: Path
) -> None:
    for name in ("ollama", "ollama.default", "ollama.default.svc.cluster.local"):
        result = kgw("call", f"http://{name}/api?x=1", "-f", manifests, "--via", waypoint.address)
        assert result.returncode in (0, None), result.stderr

    assert [header.destination for header in waypoint.headers] == [(VIP, 80)] * 3
    assert waypoint.exchanges[0].line == "GET /api?x=1 HTTP/1.1"
    assert waypoint.exchanges[0].fields[0] == ("Host", "ollama")


def test_call_says_when_a_name_has_no_vip(kgw: Kgw, waypoint: Waypoint, manifests: Path) -> None:
    unknown = kgw("call", "http://olama/", "-f", manifests, "--via", waypoint.address)
    assert unknown.returncode == 1
    assert "no Service 'olama' with a VIP" in unknown.stderr

    without = kgw("call", "http://ollama/", "--via", waypoint.address)
    assert without.returncode == 2
    assert "which VIP has 'ollama'?" in without.stderr
    assert not waypoint.headers


def test_call_keeps_the_url_and_dials_what_to_says(kgw: Kgw, waypoint: Waypoint) -> None:
    result = kgw("call", "http://ollama/x", "--to", f"{VIP}:81", "--via", waypoint.address)

    assert result.returncode == 0, result.stderr
    assert waypoint.headers[0].destination == (VIP, 81)
    assert waypoint.exchanges[0].line == "GET /x HTTP/1.1"
    assert waypoint.exchanges[0].fields[0] == ("Host", "ollama")


def test_call_posts_data(kgw: Kgw, waypoint: Waypoint, tmp_path: Path) -> None:
    file = tmp_path / "body.json"
    file.write_text('{"prompt": "why"}')
    arguments = ("--via", waypoint.address, "--to", f"{VIP}:80")
    kgw("call", *arguments, "-d", "a=b")
    kgw("call", *arguments, "-d", f"@{file}", "-X", "PUT", "-H", "content-type: application/json")

    first, second = waypoint.exchanges
    assert (first.line, first.body) == ("POST / HTTP/1.1", b"a=b")
    assert ("Content-Type", "application/x-www-form-urlencoded") in first.fields
    assert (second.line, second.body) == ("PUT / HTTP/1.1", b'{"prompt": "why"}')
    types = [value for name, value in second.fields if name.lower() == "content-type"]
    assert types == ["application/json"]


def test_call_repeats_on_one_connection(kgw: Kgw, waypoint: Waypoint) -> None:
    result = kgw("call", "--via", waypoint.address, "--to", f"{VIP}:80", "-n", "4")

    assert result.returncode == 0, result.stderr
    assert result.stdout == "answer 1\nanswer 2\nanswer 3\nanswer 4\n"
    assert len(waypoint.headers) == 1
    assert result.stderr.count("< HTTP/1.1 200 OK") == 3
    assert result.stderr.count("< HTTP/1.1 429 Too Many Requests") == 1


def test_call_without_a_header_reaches_a_plain_listener(kgw: Kgw, plain_listener: Waypoint) -> None:
    result = kgw("call", "http://ollama/", "--no-header", "--via", plain_listener.address)

    assert result.returncode == 0, result.stderr
    assert plain_listener.exchanges[0].fields[0] == ("Host", "ollama")
    assert "PROXY" not in result.stderr


def test_call_silent_prints_only_the_body(kgw: Kgw, waypoint: Waypoint) -> None:
    result = kgw("call", "-s", "--via", waypoint.address, "--to", f"{VIP}:80")

    assert (result.stdout, result.stderr) == ("answer 1\n", "")


def test_call_without_a_header_dials_what_the_url_says(kgw: Kgw, plain_listener: Waypoint) -> None:
    result = kgw("call", f"http://{plain_listener.address}/x", "--no-header")

    assert result.returncode == 0, result.stderr
    assert plain_listener.exchanges[0].line == "GET /x HTTP/1.1"
    assert plain_listener.exchanges[0].fields[0] == ("Host", plain_listener.address)


def test_call_knows_the_ports_of_a_service(kgw: Kgw, waypoint: Waypoint, manifests: Path) -> None:
    result = kgw("call", "http://ollama:99/", "-f", manifests, "--via", waypoint.address)

    assert result.returncode == 2
    assert "Service default/ollama has no port 99 (it has 80;" in result.stderr
    assert not waypoint.headers


def test_call_ends_when_nobody_reads_its_answers(kgw: Kgw, waypoint: Waypoint) -> None:
    command = [sys.executable, "-m", "kgw", "call", "--via", waypoint.address, "--to", f"{VIP}:80"]
    ours, theirs = os.pipe()
    os.close(ours)
    result = subprocess.run(
        [*command, "-n", "5"], stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(theirs)

    assert result.returncode == 141
    assert "Traceback" not in result.stderr
    assert "Broken pipe" not in result.stderr
    assert len(waypoint.exchanges) == 1


def test_call_sends_fields_as_they_were_typed(kgw: Kgw, waypoint: Waypoint) -> None:
    result = kgw("call", "--via", waypoint.address, "--to", f"{VIP}:80", "-H", "x-name: Zoë")

    assert result.returncode == 0, result.stderr
    # http.server reads fields as Latin-1.
    assert ("x-name", "Zoë".encode().decode("latin-1")) in waypoint.exchanges[0].fields


def test_a_reset_is_explained_as_a_close_is(kgw: Kgw) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reset() -> None:
            peer, _ = listener.accept()
            peer.recv(1)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()

        resetting = threading.Thread(target=reset)
        resetting.start()
        where = f"127.0.0.1:{listener.getsockname()[1]}"
        result = kgw("call", "--via", where, "--to", f"{VIP}:80")
        resetting.join()

    assert result.returncode == 3
    assert "closed the connection without an answer" in result.stderr


def test_interrupted_call_exits_with_130(running: type[Running]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        where = f"127.0.0.1:{mute.getsockname()[1]}"
        call = running("call", "--via", where, "--to", f"{VIP}:80")
        call.stderr.after("> GET /")
        call.signal(signal.SIGINT)

        assert call.wait() == 130
    assert "Aborted" not in str(call.stderr)


def test_call_exits_with_3_when_nothing_listens(kgw: Kgw) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: nobody else gets the port
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = kgw("call", "--via", address, "--to", f"{VIP}:80", "-n", "3")

    assert result.returncode == 3
    assert result.stderr.count("Trying") == 1
    assert f"cannot connect to {address}: Connection refused" in result.stderr


def test_call_exits_with_3_when_no_call_is_answered(kgw: Kgw) -> None:
    for mute in _served(Waypoint(answers=0)):
        result = kgw("call", "--via", mute.address, "--to", f"{VIP}:80")

    assert result.returncode == 3
    assert "closed the connection without an answer" in result.stderr


def test_call_exits_with_4_when_some_calls_are_answered(
    kgw: Kgw, failing_waypoint: Waypoint
) -> None:
    result = kgw("call", "--via", failing_waypoint.address, "--to", f"{VIP}:80", "-n", "2")

    assert result.returncode == 4
    assert result.stdout == "answer 1\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what to call"),
        (["https://ollama/"], "only http:// URLs"),
        (["http:///x"], "has no host"),
        (["--to", "10.0.0.1:http"], "'http' is not a port"),
        (["--to", "10.0.0.1:70000"], "'70000' is not a port"),
        (["--to", "fd00::1:80"], "[IPv6]:PORT"),
        (["--to", "10.0.0.1:80", "--identity", "spiffe://td/x"], "--identity:"),
        (["--to", "10.0.0.1:80", "-H", "nocolon"], "is not 'Name: value'"),
        (["--to", "10.0.0.1:80", "-d", "@/does/not/exist"], "No such file"),
        (["--to", "10.0.0.1:80", "--via", "nowhere"], "has no port"),
        (["http://10.0.0.1/a b"], "perhaps as 'http://10.0.0.1/a%20b'"),
        (["http://10.0.0.1/é"], "perhaps as 'http://10.0.0.1/%C3%A9'"),
        (["http://10.0.0.1/\r\nx: y"], "has to be percent-encoded"),
        (["http://[::1/"], "Invalid IPv6 URL"),
        (["http://10.0.0.1:x/"], "Port could not be cast"),
        (["--to", "10.0.0.1:80", "-X", "GE T"], "is not a method"),
        (["--to", "10.0.0.1:80", "-H", "a: b\r\nc: d"], "control character"),
        (["--to", "10.0.0.1:80", "-H", "a b: c"], "is not 'Name: value'"),
        (["--to", "10.0.0.1:80", "--source", "name:1"], "not an IP address"),
        (["--to", "10.0.0.1:80", "--source", "[::1]:1"], "different families"),
    ],
)
def test_call_explains_what_it_cannot_understand(
    kgw: Kgw, arguments: list[str], message: str
) -> None:
    result = kgw("call", *arguments)

    assert result.returncode == 2
    assert message in result.stderr
