"""kgw and Envoy ask an external processor the same, and make the same of its answers.

Envoy gets a configuration of its own ``ext_proc`` filter. Both have the same processor, in front of
the same backend.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tests.engine.harness import WAIT, Gateway, Peer, Setup, Upstream, eventually, forward, ok, rule
from tests.rpc.authorizer import decode, inside
from tests.rpc.authorizer import encode as encoded
from tests.rpc.processor import (
    Asked,
    Processor,
    Script,
    Stream,
    answer,
    immediate,
    of_all,
    plain,
    set_header,
)
from tests.rpc.processor import serving as processing
from tests.rpc.test_ext_authz_envoy import OTHERS, _cluster, _envoy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.envoy

_TYPE = "type.googleapis.com/envoy.extensions"
_MANAGER = f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = f"{_TYPE}.filters.http.router.v3.Router"
_EXT_PROC = f"{_TYPE}.filters.http.ext_proc.v3.ExternalProcessor"
_LOG = f"{_TYPE}.access_loggers.file.v3.FileAccessLog"

BUFFER = 1000
"""Bytes that are buffered."""

_MODES = (
    "request_header",
    "response_header",
    "request_body",
    "response_body",
    "request_trailer",
    "response_trailer",
)


def mode(*given: str) -> dict[str, str]:
    """A processing mode, as kgw has it: parts like ``request_body=STREAMED``."""
    found = dict(one.split("=") for one in given)
    return {name: found[name].lower() for name in _MODES if name in found}


#: The filters under test: kgw's members; Envoy's are made of them.
FILTERS: dict[str, dict[str, Any]] = {
    "default": {},
    "open": {"failure_mode_allow": True},
    "short": {"message_timeout_ms": 200, "max_message_timeout_ms": 5000},
    "short open": {"message_timeout_ms": 200, "failure_mode_allow": True},
    "override": {"allow_mode_override": True},
    "some overrides": {
        "allow_mode_override": True,
        "allowed_mode_overrides": [
            mode("request_body=BUFFERED"),
            mode("response_header=SKIP"),
        ],
    },
    "skip all": {"mode": mode("request_header=SKIP", "response_header=SKIP")},
    "response only": {"mode": mode("request_header=SKIP")},
    "request only": {"mode": mode("response_header=SKIP")},
    "buffered": {"mode": mode("request_body=BUFFERED", "response_body=BUFFERED")},
    "only bodies": {
        "mode": mode(
            "request_header=SKIP",
            "response_header=SKIP",
            "request_body=BUFFERED",
            "response_body=BUFFERED",
        )
    },
    "partial": {"mode": mode("request_body=BUFFERED_PARTIAL", "response_body=BUFFERED_PARTIAL")},
    "streamed": {"mode": mode("request_body=STREAMED", "response_body=STREAMED")},
    "streamed open": {
        "failure_mode_allow": True,
        "mode": mode("request_body=STREAMED", "response_body=STREAMED"),
    },
    "trailers": {
        "mode": mode(
            "request_body=BUFFERED",
            "response_body=BUFFERED",
            "request_trailer=SEND",
            "response_trailer=SEND",
        )
    },
    "only trailers": {"mode": mode("request_trailer=SEND", "response_trailer=SEND")},
    "streamed trailers": {
        "mode": mode(
            "request_body=STREAMED",
            "response_body=STREAMED",
            "request_trailer=SEND",
            "response_trailer=SEND",
        )
    },
    "duplex": {
        "mode": mode(
            "request_body=FULL_DUPLEX_STREAMED",
            "response_body=FULL_DUPLEX_STREAMED",
            "request_trailer=SEND",
            "response_trailer=SEND",
        )
    },
    "attributes": {
        "attributes": [
            "request.path",
            "request.url_path",
            "request.host",
            "request.scheme",
            "request.method",
            "request.headers",
            "request.headers['x-a']",
            "request.query",
            "request.protocol",
            "request.useragent",
            "request.referer",
            "request.nonsense",
            "source.address",
            "connection.mtls",
            "connection.requested_server_name",
        ]
    },
    "timeout": {"message_timeout_ms": 3000, "stream_timeout_ms": 400},
}


def _envoy_mode(found: dict[str, str]) -> dict[str, str]:
    return {f"{name}_mode": value.upper() for name, value in found.items()}


def _envoy_filter(ours: dict[str, Any]) -> dict[str, Any]:
    service = {"envoy_grpc": {"cluster_name": "processor", "authority": "processor"}}
    if "stream_timeout_ms" in ours:
        service["timeout"] = f"{ours['stream_timeout_ms'] / 1000}s"  # type: ignore[assignment]
    theirs: dict[str, Any] = {
        "@type": _EXT_PROC,
        "grpc_service": service,
        "message_timeout": f"{ours.get('message_timeout_ms', 10_000) / 1000}s",
        "failure_mode_allow": ours.get("failure_mode_allow", False),
        "processing_mode": _envoy_mode(ours.get("mode", {})),
    }
    if "max_message_timeout_ms" in ours:
        theirs["max_message_timeout"] = f"{ours['max_message_timeout_ms'] / 1000}s"
    if "allow_mode_override" in ours:
        theirs["allow_mode_override"] = True
    if "allowed_mode_overrides" in ours:
        modes = ours["allowed_mode_overrides"]
        theirs["allowed_override_modes"] = [_envoy_mode(one) for one in modes]
    if "attributes" in ours:
        theirs["request_attributes"] = ours["attributes"]
    return theirs


def _listener(name: str, ours: dict[str, Any], log: str) -> dict[str, Any]:
    routes = [
        {
            "match": {"prefix": "/other"},
            "route": {"cluster": "backend"},
            "request_headers_to_add": [{"header": {"key": "x-route", "value": "other"}}],
        },
        {"match": {"prefix": "/"}, "route": {"cluster": "backend"}},
    ]
    form = {"json_format": {"details": "%RESPONSE_CODE_DETAILS%", "flags": "%RESPONSE_FLAGS%"}}
    manager = {
        "@type": _MANAGER,
        "stat_prefix": name.replace(" ", "_"),
        "http_protocol_options": {"enable_trailers": True},
        "access_log": [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {"@type": _LOG, "path": log, "log_format": form},
            }
        ],
        "route_config": {"virtual_hosts": [{"name": "a", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {"name": "envoy.filters.http.ext_proc", "typed_config": _envoy_filter(ours)},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}},
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {
        "name": name,
        "address": address,
        "per_connection_buffer_limit_bytes": BUFFER,
        "filter_chains": [{"filters": filters}],
    }


def _bootstrap(backend: str, processor: str, logs: Path) -> dict[str, Any]:
    listeners = [
        _listener(name, ours, str(logs / f"envoy-{name}.log")) for name, ours in FILTERS.items()
    ]
    http1 = {"explicit_http_config": {"http_protocol_options": {"enable_trailers": True}}}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    to_backend = _cluster("backend", backend)
    to_backend["typed_extension_protocol_options"] = {
        options: {"@type": f"type.googleapis.com/{options}", **http1}
    }
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {
            "listeners": listeners,
            "clusters": [to_backend, _cluster("processor", processor, http2=True)],
        },
    }


def _read_message(
    peer: Peer, *, head: bool = False
) -> tuple[str, list[tuple[str, str]], bytes, list[tuple[str, str]]]:
    """Reads a message: first line, fields, body and trailer fields."""
    first, headers, _ = peer.read_head()
    fields = {name.lower(): value for name, value in headers}
    if head:
        return first, headers, b"", []
    if "transfer-encoding" not in fields:
        return first, headers, peer.read_exactly(int(fields.get("content-length", "0"))), []
    body = b""
    while size := int(peer.read_until(b"\r\n"), 16):
        body += peer.read_exactly(size)
        assert peer.read_exactly(2) == b"\r\n"
    trailers = []
    while (line := peer.read_until(b"\r\n")) != b"\r\n":
        name, value = line[:-2].decode().split(":", 1)
        trailers.append((name, value.strip()))
    return first, headers, body, trailers


def chunked(*chunks: bytes, trailers: tuple[str, ...] = ()) -> bytes:
    """A body in chunks."""
    data = b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in chunks)
    return data + b"0\r\n" + b"".join(one.encode() + b"\r\n" for one in trailers) + b"\r\n"


def backend(peer: Peer) -> None:
    """Says what it was asked, in the way that the request's ``x-up`` wants it."""
    while True:
        line, headers, body, trailers = _read_message(peer)
        seen = {"line": line, "headers": headers, "body": body.decode("latin-1")}
        said = json.dumps(seen | {"trailers": trailers}).encode()
        head = ["HTTP/1.1 200 OK", "x-echo: 1", "x-answer: 1"]
        match {name.lower(): value for name, value in headers}.get("x-up"):
            case "trailers":
                head += ["trailer: x-end", "transfer-encoding: chunked", "", ""]
                half = len(said) // 2
                tail = chunked(said[:half], said[half:], trailers=("x-end: 1",))
                peer.send("\r\n".join(head).encode() + tail)
            case "long":
                peer.send(ok(said + b" " * (2 * BUFFER), *head[1:]))
            case "empty":
                peer.send(ok(b"", "x-answer: 1"))
            case _:
                peer.send(ok(said, *head[1:]))


#: What says how a message is framed: kgw states a length that it knows, and announces no trailers.
FRAMING = ("content-length", "transfer-encoding", "trailer")


class Sides:
    """Both proxies, and the processor that they ask."""

    def __init__(self, ports: dict[str, dict[str, int]], processor: Processor, logs: Path):
        self.ports = ports
        self.processor = processor
        self.logs = logs

    def ask(self, side: str, kind: str, request: bytes, script: Script) -> dict[str, Any]:
        """What a client of one of them sees, and what its backend and the processor saw."""
        self.processor.script = script
        while not self.processor.streams.empty():
            self.processor.streams.get()
        log = self.logs / f"{side}-{kind}.log"
        before = log.read_text().count("\n") if log.exists() else 0
        peer = Peer(socket.create_connection(("127.0.0.1", self.ports[side][kind]), WAIT))
        peer.send(request)
        found: dict[str, Any] = {}
        try:
            line, headers, body, trailers = _read_message(peer, head=request.startswith(b"HEAD"))
            found["status"] = int(line.split(" ")[1])
            found["fields"] = _fields(headers)
            if trailers:
                found["trailers"] = sorted(trailers)
            for name in FRAMING:
                found["fields"].pop(name, None)
            if "x-echo" in dict(headers):
                try:
                    seen = json.loads(body)
                except ValueError:
                    found["body"] = body
                else:
                    found["length"] = len(body) > 2 * BUFFER
                    fields = _fields(seen["headers"])
                    for name in FRAMING:
                        fields.pop(name, None)
                    found["backend"] = (seen["line"], fields, seen["body"])
                    if seen["trailers"]:
                        found["sent trailers"] = sorted(map(tuple, seen["trailers"]))
            else:
                found["body"] = body
        except (EOFError, ConnectionResetError):
            found["cut"] = True
        peer.close()
        streams = []
        while not self.processor.streams.empty():
            told = [_told(one) for one in _joined(self.processor.streams.get())]
            streams.append(told)
        found["told"] = streams
        eventually(lambda: log.exists() and log.read_text().count("\n") > before, "a log line")
        found["log"] = json.loads(log.read_text().splitlines()[before])
        return found


def _fields(pairs: Any) -> dict[str, list[str]]:
    """Values by name: Envoy appends to a line where kgw adds one."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        if name.lower() not in OTHERS:
            found.setdefault(name.lower(), []).extend(value.split(","))
    return {name: sorted(values) for name, values in found.items()}


def _joined(all_: list[Asked]) -> list[Asked]:
    """The pieces of a body as one: where it is cut is a matter of chance."""
    found: list[Asked] = []
    for one in all_:
        if found and found[-1].kind == one.kind == f"{one.kind.split('_')[0]}_body":
            body = {1: found[-1].body + one.body, 2: int(one.end)}
            number = 4 if one.kind == RQB else 5
            joined = Asked(encoded({number: body}))
            joined.message |= {key: found[-1].message[key] for key in found[-1].message if key > 7}
            found[-1] = joined
        else:
            found.append(one)
    return found


def _attributes(message: bytes) -> dict[bytes, bytes]:
    """What attributes say, save for ports, and for what Envoy has no text for."""
    entries = decode(inside(message, 2)).get(1, [])
    found = {inside(one, 1): inside(one, 2) for one in entries}
    del found[b"source.address"], found[b"request.headers"]
    return found


def _told(asked: Asked) -> Any:
    if asked.kind.endswith("body"):
        said = b'"line"' in asked.body or b'"headers"' in asked.body
        # What the backend says has the proxy's own fields, of other lengths.
        found: Any = (asked.kind, "echo" if said else asked.body, asked.end)
    else:
        fields = _fields(asked.fields)
        for name in FRAMING if "x-echo" in fields else FRAMING[1:]:
            fields.pop(name, None)
        found = (asked.kind, fields, asked.end)
    more = {number: asked.message[number] for number in asked.message if number > 7}
    if 9 in more:
        more[9] = [_attributes(one) for one in more[9]]
    return (*found, more) if more else found


def request(line: str = "GET /a?b=c", *fields: str, body: bytes = b"") -> bytes:
    """The bytes of a request."""
    length = [f"content-length: {len(body)}"] if body else []
    head = [f"{line} HTTP/1.1", "host: a.example", *fields, *length, "", ""]
    return "\r\n".join(head).encode() + body


def in_chunks(
    *chunks: bytes, trailers: tuple[str, ...] = (), fields: tuple[str, ...] = ()
) -> bytes:
    """A request with a body in chunks."""
    named = [f"trailer: {', '.join(one.split(':')[0] for one in trailers)}"] if trailers else []
    head = ["POST /a HTTP/1.1", "host: a.example", *fields, *named, "transfer-encoding: chunked"]
    return "\r\n".join([*head, "", ""]).encode() + chunked(*chunks, trailers=trailers)


REQUESTS = {
    "get": request("GET /a?b=c", "X-A: 1", "x-a: 2", "x-b: 3", "cookie: a=b", "te: trailers"),
    "post": request("POST /a", "x-a: 1", body=b"hello"),
    "chunks": in_chunks(b"hello", b"world"),
    "trailers": in_chunks(b"hello", trailers=("x-t: 1", "x-u: 2"), fields=("x-up: trailers",)),
    "answer trailers": request("GET /", "x-up: trailers"),
    "long": request("POST /a", body=b"0123456789" * 200),
    "long answer": request("GET /a", "x-up: long"),
    "empty answer": request("GET /a", "x-up: empty"),
    "head": request("HEAD /a", "x-up: empty"),
}


RQH, RSH = "request_headers", "response_headers"
RQB, RSB = "request_body", "response_body"


def stops(*answers: bytes) -> Any:
    """Gives some answers and ends the stream."""

    def script(stream: Stream) -> Iterator[bytes]:
        for one in answers:
            stream.next()
            yield one

    return script


def fails(code: grpc.StatusCode, message: str, *answers: bytes) -> Any:
    """Gives some answers and fails."""

    def script(stream: Stream) -> Iterator[bytes]:
        for one in answers:
            stream.next()
            yield one
        stream.next()
        stream.fail(code, message)
        yield b""

    return script


def waits(seconds: float, *first: bytes) -> Any:
    """Answers late, and at once says something."""

    def script(stream: Stream) -> Iterator[bytes]:
        for asked in stream:
            yield from first
            threading.Event().wait(seconds)  # the wait is what is tested
            yield plain(asked.kind)

    return script


def echoes(stream: Stream) -> Iterator[bytes]:
    """Streams bodies back, those of requests in upper case."""
    for asked in stream:
        if asked.kind.endswith("body"):
            # What the backend says is read as JSON.
            body = asked.body.upper() if asked.kind == RQB else asked.body
            yield answer(asked.kind, streamed=(body, asked.end))
        else:
            yield plain(asked.kind)


def holds_back(stream: Stream) -> Iterator[bytes]:
    """Answers to headers only once the whole body is there."""
    held: dict[str, list[Asked]] = {"request": [], "response": []}
    for asked in stream:
        way = asked.kind.split("_")[0]
        held[way].append(asked)
        if asked.kind.endswith("trailers") or asked.end:
            # What the backend says has not the same length with both.
            count = sum(len(one.body) for one in held[way] if one.kind == RQB)
            headers = [set_header("x-len", str(count))]
            for one in held[way]:
                if one.kind.endswith("headers"):
                    yield answer(one.kind, headers=headers)
                elif one.kind.endswith("body"):
                    yield answer(one.kind, streamed=(one.body, one.end))
                else:
                    yield plain(one.kind)


def on_request(**members: Any) -> dict[str, bytes]:
    return {RQH: answer(RQH, **members)}


def on_response(**members: Any) -> dict[str, bytes]:
    return {RSH: answer(RSH, **members)}


H = set_header
#: What is asked of which filters, and what the processor says.
CASES: list[tuple[str, str, str, Any]] = []


def _cases(filters: str, requests: str, **scripts: Any) -> None:
    for kind in filters.split(", "):
        for asked in requests.split(", "):
            CASES.extend((name, kind, asked, script) for name, script in scripts.items())


_cases("default", ", ".join(REQUESTS), plain={})
_cases(
    "default",
    "get",
    set=on_request(headers=[H("x-a", "9"), H("x-new", "9")]),
    set_append_true=on_request(headers=[H("x-a", "9", append=True), H("x-new", "9", append=True)]),
    set_append_false=on_request(headers=[H("x-a", "9", append=False), H("x-n", "9", append=False)]),
    set_action_0=on_request(headers=[H("x-a", "9", 0), H("x-new", "9", 0)]),
    set_action_1=on_request(headers=[H("x-a", "9", 1), H("x-new", "9", 1)]),
    set_action_2=on_request(headers=[H("x-a", "9", 2), H("x-new", "9", 2)]),
    set_action_3=on_request(headers=[H("x-a", "9", 3), H("x-new", "9", 3)]),
    set_action_0_false=on_request(headers=[H("x-a", "9", 0, append=False)]),
    set_action_2_true=on_request(headers=[H("x-a", "9", 2, append=True)]),
    set_text=on_request(headers=[H("x-a", "", text="9"), H("x-new", "", text="9")]),
    set_empty=on_request(headers=[H("x-a", ""), H("x-new", "")]),
    set_upper=on_request(headers=[H("X-A", "9"), H("X-New", "9")]),
    set_twice=on_request(headers=[H("x-a", "8"), H("x-a", "9"), H("x-m", "8"), H("x-m", "9", 0)]),
    set_bad_name=on_request(headers=[H("x a", "9")]),
    set_no_name=on_request(headers=[H("", "9")]),
    set_bad_value=on_request(headers=[H("x-a", "9\r\nx-b: 1")]),
    set_path=on_request(headers=[H(":path", "/b?c")]),
    set_path_append=on_request(headers=[H(":path", "/b?c", append=True)]),
    set_bad_path=on_request(headers=[H(":path", "b c")]),
    set_method=on_request(headers=[H(":method", "PUT")]),
    set_scheme=on_request(headers=[H(":scheme", "https")]),
    set_authority=on_request(headers=[H(":authority", "b.example")]),
    set_host=on_request(headers=[H("host", "b.example")]),
    set_status=on_request(headers=[H(":status", "404")]),
    set_pseudo=on_request(headers=[H(":other", "1")]),
    set_envoy=on_request(headers=[H("x-envoy-foo", "1"), H("x-envoy-max-retries", "1")]),
    set_length=on_request(headers=[H("content-length", "3")]),
    set_te=on_request(headers=[H("transfer-encoding", "chunked"), H("connection", "close")]),
    removed=on_request(remove=("x-a", "X-B", "cookie")),
    remove_pseudo=on_request(remove=(":path", ":method", "host", ":authority")),
    remove_bad=on_request(remove=("x a", "")),
    removed_and_set=on_request(headers=[H("x-a", "9")], remove=("x-a",)),
    remove_envoy=on_request(remove=("x-envoy-foo",)),
    body=on_request(body=b"new"),
    replaced=on_request(replace=True, body=b"new"),
    replaced_empty=on_request(replace=True),
    clear_route=on_request(clear_route=True, headers=[H(":path", "/other/b")]),
    not_cleared=on_request(headers=[H(":path", "/other/b")]),
    metadata=on_request(metadata={"a": {"b": "c"}}),
)
_cases(
    "default",
    "get, empty answer, head",
    answer_set=on_response(headers=[H("x-answer", "9"), H("x-new", "9")]),
    answer_append=on_response(headers=[H("x-answer", "9", 0), H("x-new", "9", 0)]),
    answer_removed=on_response(remove=("x-answer", ":status")),
    answer_status=on_response(headers=[H(":status", "404")]),
    answer_bad_status=on_response(headers=[H(":status", "999")]),
    answer_no_status=on_response(headers=[H(":status", "abc")]),
    answer_interim=on_response(headers=[H(":status", "101")]),
    answer_path=on_response(headers=[H(":path", "/b")]),
    answer_length=on_response(headers=[H("content-length", "3")]),
    answer_remove_length=on_response(remove=("content-length",)),
    answer_replaced=on_response(replace=True, body=b"new"),
    answer_body=on_response(body=b"new"),
    answer_bad=on_response(headers=[H("x a", "9")]),
)
_cases(
    "default, open",
    "get, post",
    replaced_all=on_request(replace=True, body=b"new"),
    denied={RQH: immediate(403, "no")},
    denied_bare={RQH: immediate(None)},
    denied_all={
        RQH: immediate(
            401,
            "no",
            H("x-why", "so"),
            H("www-authenticate", "Basic"),
            H("content-type", "text/html"),
            details="so it is",
        )
    },
    denied_append={
        RQH: immediate(403, "no", H("content-type", "a/b", 0), H("content-length", "9"))
    },
    denied_remove={RQH: immediate(403, "no", remove=("content-type",))},
    denied_grpc={RQH: immediate(403, "no", grpc_status=7)},
    denied_status={RQH: immediate(403, "no", H(":status", "404"))},
    denied_bad={RQH: immediate(403, "no", H("x a", "404"))},
    denied_weird={RQH: immediate(100, "no")},
    denied_more={RQH: immediate(700, "no")},
    denied_200={RQH: immediate(200, "yes")},
    denied_204={RQH: immediate(204)},
    answer_denied={RSH: immediate(403, "no", H("x-why", "so"))},
    spurious={RQH: plain("request_body")},
    spurious_response={RQH: plain(RSH)},
    spurious_answer={RSH: plain(RQH)},
    spurious_empty={RQH: encoded({})},
    nonsense={RQH: b"\xff\xff"},
    twice={RQH: [plain(RQH), plain(RQH)]},
    stops=stops(),
    stops_answered=stops(plain(RQH)),
    stops_all=stops(plain(RQH), plain(RSH)),
    fails=fails(grpc.StatusCode.INTERNAL, "b oom"),
    fails_bare=fails(grpc.StatusCode.UNAVAILABLE, ""),
    fails_later=fails(grpc.StatusCode.INTERNAL, "boom", plain(RQH)),
    fails_last=fails(grpc.StatusCode.INTERNAL, "boom", plain(RQH), plain(RSH)),
    bad_mutation=on_request(headers=[H("x a", "9")]),
)
_cases(
    "short, short open",
    "get",
    late=waits(1),
    late_extended=waits(0.5, encoded(of_all(timeout=4000))),
    late_too_long=waits(0.5, encoded(of_all(timeout=6000))),
    late_too_short=waits(0.5, encoded(of_all(timeout=0))),
    late_twice=waits(0.5, encoded(of_all(timeout=400)), encoded(of_all(timeout=4000))),
)
_cases("timeout", "get", stream_late=waits(1))
_cases(
    "override, some overrides, default",
    "post, trailers",
    body={
        RQH: answer(RQH, mode={"request_body": "BUFFERED"}),
        "request_body": answer("request_body", body=b"new"),
    },
    body_length={
        RQH: answer(RQH, mode={"request_body": "BUFFERED"}, remove=("content-length",)),
        "request_body": answer("request_body", body=b"new"),
    },
    streamed={RQH: answer(RQH, mode={"request_body": "STREAMED", "response_body": "STREAMED"})},
    no_response={RQH: answer(RQH, mode={"response_header": "SKIP"})},
    trailers={RQH: answer(RQH, mode={"request_trailer": "SEND", "response_trailer": "SEND"})},
    on_answer={RSH: answer(RSH, mode={"response_body": "BUFFERED"})},
    empty={RQH: answer(RQH, mode={})},
)
_cases(
    "override",
    "post",
    from_body={"request_body": answer("request_body", mode={"response_header": "SKIP"})},
)
_cases(
    "skip all, response only, request only, only bodies, only trailers",
    "get, post, trailers",
    plain={},
)
RQT, RST = "request_trailers", "response_trailers"
NOL = ("content-length",)
_cases(
    "buffered",
    "get, post, chunks, long, long answer, trailers, empty answer, head",
    plain={},
    replaced={
        RQB: answer(RQB, body=b"new"),
        RSB: answer(RSB, body=b"newer", headers=[H("x-echo", "0")]),
    },
    lengthened={
        RQH: answer(RQH, remove=NOL),
        RSH: answer(RSH, remove=NOL),
        RQB: answer(RQB, body=b"new"),
        RSB: answer(RSB, body=b"newer"),
    },
    stated={
        RQB: answer(RQB, body=b"new", headers=[H("content-length", "3")]),
        RSB: answer(RSB, body=b"newer", headers=[H("content-length", "5")]),
    },
    misstated={RQB: answer(RQB, body=b"new", headers=[H("content-length", "4")])},
    headers={
        RQB: answer(RQB, headers=[H("x-body", "1")]),
        RSB: answer(RSB, headers=[H("x-body", "1")]),
    },
    path={
        RQB: answer(RQB, headers=[H(":path", "/new")]),
        RSB: answer(RSB, headers=[H(":status", "404")]),
    },
    cleared={RQB: answer(RQB, clear=True, remove=NOL), RSB: answer(RSB, clear=True, remove=NOL)},
    denied={RQB: immediate(403, "no")},
    answer_denied={RSB: immediate(403, "no")},
    replaced_head=on_request(replace=True, body=b"new", remove=NOL),
    replaced_answer=on_response(replace=True, body=b"new", remove=NOL),
    replaced_again={RQB: answer(RQB, replace=True, body=b"new", remove=NOL)},
    fails=fails(grpc.StatusCode.INTERNAL, "boom", plain(RQH)),
    streamed={RQB: answer(RQB, streamed=(b"new", True))},
)
_cases(
    "partial",
    "get, post, chunks, trailers, long, long answer",
    plain={},
    replaced={
        RQH: answer(RQH, remove=NOL),
        RSH: answer(RSH, remove=NOL),
        RQB: answer(RQB, body=b"new"),
        RSB: answer(RSB, headers=[H("x-partial", "1")]),
    },
)
_cases(
    "streamed, streamed open",
    "get, post, chunks, trailers, long answer, empty answer, head",
    plain={},
    replaced={RQB: answer(RQB, body=b"new"), RSB: answer(RSB, body=b"newer")},
    headers={RQB: answer(RQB, headers=[H("x-body", "1")])},
    cleared={RQB: answer(RQB, clear=True)},
    denied={RQB: immediate(403, "no")},
    answer_denied={RSB: immediate(403, "no")},
    fails=fails(grpc.StatusCode.INTERNAL, "boom", plain(RQH)),
    stops=stops(plain(RQH)),
    late_fails=fails(grpc.StatusCode.INTERNAL, "boom", plain(RQH), plain(RQB), plain(RSH)),
)
_cases(
    "trailers, streamed trailers, only trailers",
    "post, trailers, answer trailers",
    plain={},
    added={
        RQT: answer(RQT, headers=[H("x-more", "1"), H("x-t", "9")], remove=("x-u",)),
        RST: answer(RST, headers=[H("x-more", "1"), H("x-end", "9")]),
    },
    denied={RQT: immediate(403, "no")},
)
_cases(
    "duplex",
    "get, post, chunks, trailers, long, long answer",
    echo=echoes,
    held=holds_back,
    plain={},
    denied={RQH: immediate(403, "no")},
    denied_body={RQB: immediate(403, "no")},
    fails=fails(grpc.StatusCode.INTERNAL, "boom"),
    stops=stops(),
    body={RQB: answer(RQB, body=b"new")},
)
_cases("attributes", "get", plain={})


#: What kgw does in another way, or Envoy in no way that could be told; by filter, request and case.
#: What kgw does is in the tests beside.
DIFFERENT: dict[tuple[str | None, str | None, str], str] = {
    (None, None, "set_no_name"): "Envoy sends a field without a name",
    (None, None, "set_bad_path"): "Envoy sends a path that is none",
    (None, None, "set_length"): "Envoy waits for a body that there is not",
    (None, None, "set_te"): "Envoy waits for a body that there is not",
    (None, None, "answer_length"): "Envoy breaks the answer's framing",
    (None, None, "answer_bad_status"): "Envoy answers 999",
    (None, None, "denied_more"): "Envoy answers 700",
    ("buffered", "long", "replaced_head"): "Envoy receives the body before it is told to drop it",
    ("buffered", "long answer", "replaced_answer"): "Envoy receives the body before it is told so",
    ("buffered", "long answer", "fails"): "Envoy receives the body before it is told so",
    ("partial", "long", "replaced"): "how much is the beginning of a body is a matter of chance",
    ("buffered", "trailers", "stated"): "Envoy sends no trailers behind a length",
    ("streamed", None, "late_fails"): "whether the answer has begun is a matter of chance",
    (None, "head", "answer_remove_length"): "kgw adds no transfer-encoding to an answer to HEAD",
    (
        None,
        "head",
        "answer_replaced",
    ): "kgw gives an answer to HEAD no body, nor says that it has one",
    ("streamed", None, "answer_denied"): "whether the answer has begun is a matter of chance",
    ("streamed open", None, "answer_denied"): "whether the answer has begun is a matter of chance",
    ("streamed", None, "headers"): "whether the request has left is a matter of chance",
    ("streamed open", None, "headers"): "whether the request has left is a matter of chance",
    ("buffered", None, "streamed"): "to Envoy a piece is no change, or one to nothing",
    ("duplex", None, "plain"): "Envoy has several names for it",
    ("duplex", None, "body"): "Envoy has several names for it",
    ("duplex", None, "denied_body"): "Envoy has several names for it",
    ("duplex", None, "stops"): "Envoy passes a body on that is cut short",
}


def _is_same(kind: str, asked: str, name: str) -> bool:
    kinds, requests = (kind, None), (asked, None)
    return not any((one, two, name) in DIFFERENT for one in kinds for two in requests)


#: How much is told is a matter of chance: of a body that is too long, beside an answer to something
#: else, and before an answer is understood.
UNTOLD = {
    ("buffered", "long answer", None),
    ("partial", "long", None),
    ("partial", "long answer", None),
    ("duplex", None, "denied"),
    ("duplex", None, "fails"),
    (None, None, "twice"),
}


def _is_told(kind: str, asked: str, name: str) -> bool:
    return not any(
        one in (None, kind) and two in (None, asked) and three in (None, name)
        for one, two, three in UNTOLD
    )


SAME = [case for case in CASES if _is_same(case[1], case[2], case[0])]


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    """Both proxies."""
    processor = Processor()
    logs = tmp_path_factory.mktemp("envoy")
    with contextlib.ExitStack() as stack:
        upstream = Upstream(backend)
        stack.callback(upstream.close)
        address = stack.enter_context(processing(processor))
        config = _bootstrap(upstream.address, address, logs)
        theirs = stack.enter_context(_envoy(logs, config))
        ours: dict[str, int] = {}
        for name, members in FILTERS.items():
            setup = _setup(members, upstream.address, address, str(logs / f"kgw-{name}.log"))
            gateway = Gateway(setup, workers=1, real_time=True)
            stack.callback(gateway.close)
            ours[name] = gateway.port
        yield Sides({"kgw": ours, "envoy": theirs}, processor, logs)


def _setup(members: dict[str, Any], upstream: str, processor: str, log: str) -> Setup:
    members = dict(members)
    members.pop("stream_timeout_ms", None)
    if "attributes" in members:
        members["request_attributes"] = members.pop("attributes")
    members.setdefault("message_timeout_ms", 10_000)
    filter_ = {
        "type": "ext_proc",
        "name": "processor",
        "cluster": "processor",
        "authority": "processor",
        "max_body": BUFFER,
        **members,
    }
    # The route that a request is on once its path was changed has a field that shows it.
    to_other = {"type": "request_headers", "set": [], "add": [["x-route", "other"]], "remove": []}
    action = forward("c")
    return Setup(
        endpoints=[upstream],
        clusters={"processor": {"endpoints": [processor], "protocol": "http2"}},
        routes={
            "default": {"name": "default", "action": action, "filters": [filter_]},
            "other": {"name": "other", "action": action, "filters": [filter_, to_other]},
        },
        rules=[rule("/other", "other"), rule("/", "default")],
        http={"use_remote_address": False},
        log={"details": "%RESPONSE_CODE_DETAILS%", "flags": "%RESPONSE_FLAGS%"},
        log_path=log,
    )


@pytest.mark.parametrize(
    ("name", "kind", "asked"),
    [(name, kind, asked) for name, kind, asked, _ in SAME],
    ids=[f"{kind}-{asked}-{name}" for name, kind, asked, _ in SAME],
)
def test_both_do_the_same(sides: Sides, name: str, kind: str, asked: str) -> None:
    script = next(script for *case, script in CASES if case == [name, kind, asked])
    ours = sides.ask("kgw", kind, REQUESTS[asked], script)
    theirs = sides.ask("envoy", kind, REQUESTS[asked], script)
    if not _is_told(kind, asked, name):
        del ours["told"], theirs["told"]
    assert ours == theirs
