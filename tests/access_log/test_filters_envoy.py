"""kgw and Envoy log the same requests, whatever the filter.

Each filter has a log on a listener of its own in both. All requests are sent to all listeners, and
each log has a line for those that passed.
"""

from __future__ import annotations

import contextlib
import json
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from tests.access_log import envoy
from tests.engine.harness import WAIT, Gateway, Peer, Setup, Upstream, forward, ok, rule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.envoy

_RUNTIME = {"runtime_key": "access_log.sampled"}


def _comparison(op: str, value: int) -> dict[str, Any]:
    return {"comparison": {"op": op, "value": {"default_value": value, "runtime_key": "unused"}}}


class Pair(NamedTuple):
    """A filter, as Envoy is told of it and as kgw is."""

    theirs: dict[str, Any]
    ours: dict[str, Any]


def _status(op: str, value: int) -> Pair:
    return Pair(
        {"status_code_filter": _comparison(op, value)},
        {"type": "status_code", "op": op.lower(), "value": value},
    )


def _duration(op: str, value: int) -> Pair:
    return Pair(
        {"duration_filter": _comparison(op, value)},
        {"type": "duration", "op": op.lower(), "value": value},
    )


def _header(name: str, match: dict[str, Any], value: Any) -> Pair:
    return Pair(
        {"header_filter": {"header": {"name": name, **match}}},
        {"type": "header", "name": name, "value": value},
    )


def _flags(*flags: str) -> Pair:
    return Pair(
        {"response_flag_filter": {"flags": list(flags)}},
        {"type": "response_flag", "flags": list(flags)},
    )


def _grpc(*statuses: tuple[str, int], exclude: bool = False) -> Pair:
    return Pair(
        {
            "grpc_status_filter": {
                "statuses": [name for name, _ in statuses],
                "exclude": exclude,
            }
        },
        {
            "type": "grpc_status",
            "statuses": [number for _, number in statuses],
            "exclude": exclude,
        },
    )


def _share(numerator: int, denominator: str = "HUNDRED", **more: bool) -> Pair:
    numbers = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}
    independent = more.get("independent", False)
    return Pair(
        {
            "runtime_filter": {
                **_RUNTIME,
                "percent_sampled": {"numerator": numerator, "denominator": denominator},
                "use_independent_randomness": independent,
            }
        },
        {
            "type": "runtime",
            "key": "access_log.sampled",
            "numerator": numerator,
            "denominator": numbers[denominator],
            "independent": independent,
        },
    )


def _both(kind: str, *filters: Pair) -> Pair:
    return Pair(
        {f"{kind}_filter": {"filters": [one.theirs for one in filters]}},
        {"type": kind, "filters": [one.ours for one in filters]},
    )


def _cel(expression: str) -> Pair:
    type_ = "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"
    config = {"@type": type_, "expression": expression}
    return Pair(
        {"extension_filter": {"name": "cel", "typed_config": config}},
        {"type": "cel", "expression": expression},
    )


FILTERS: dict[str, Pair] = {
    "cel-code": _cel("response.code >= 400 && response.code < 500"),
    "cel-header": _cel("request.headers['x-a'].startsWith('o')"),
    "cel-in": _cel("'x-a' in request.headers || request.url_path == '/teapot'"),
    "cel-flags": _cel("response.flags != 0 && !('x-a' in request.headers)"),
    "cel-grpc": _cel("response.grpc_status == 5"),
    "status-eq": _status("EQ", 404),
    "status-ge": _status("GE", 404),
    "status-le": _status("LE", 404),
    "status-none": _status("EQ", 0),
    "duration-ge": _duration("GE", 0),
    "duration-long": _duration("GE", 60_000),
    "duration-le": _duration("LE", 60_000),
    "not-health-check": Pair({"not_health_check_filter": {}}, {"type": "not_health_check"}),
    "traceable": Pair({"traceable_filter": {}}, {"type": "traceable"}),
    "header-exact": _header("x-a", {"string_match": {"exact": "one"}}, {"exact": "one"}),
    "header-regex": _header(
        "x-a", {"string_match": {"safe_regex": {"regex": "o.*"}}}, {"regex": "o.*"}
    ),
    "header-path": _header(":path", {"string_match": {"exact": "/ok?q=1"}}, {"exact": "/ok?q=1"}),
    "flags": _flags("UH", "UF"),
    "flags-other": _flags("NR"),
    "grpc-ok": _grpc(("OK", 0)),
    "grpc-some": _grpc(("UNKNOWN", 2), ("UNAVAILABLE", 14), ("NOT_FOUND", 5)),
    "grpc-others": _grpc(("UNKNOWN", 2), ("UNAVAILABLE", 14), exclude=True),
    "share-none": _share(0),
    "share-all": _share(100),
    "share-half": _share(50),
    "share-fine": _share(4321, "TEN_THOUSAND"),
    "share-finest": _share(500_000, "MILLION"),
    "share-all-independent": _share(100, independent=True),
    "and": _both("and", _status("GE", 400), _header("x-a", {"present_match": True}, "present")),
    "or": _both("or", _status("EQ", 503), _header("x-a", {"present_match": True}, "present")),
    "nested": _both(
        "and",
        _both("or", _status("EQ", 200), _status("EQ", 503)),
        _both("or", _share(50), _flags("UH")),
    ),
}

#: Paths, and fields of requests.
CASES: dict[str, tuple[str, list[str]]] = {
    "ok": ("/ok", []),
    "ok-query": ("/ok?q=1", []),
    "other": ("/ok", ["x-a: other"]),
    "one": ("/ok", ["x-a: one"]),
    "two": ("/ok", ["x-a: two", "x-a: one"]),
    "joined": ("/ok", ["x-a: one,two"]),
    "teapot": ("/teapot", []),
    "not-found": ("/none", []),
    "refused": ("/refused", []),
    "empty": ("/empty", ["x-a: one"]),
    "grpc-0": ("/grpc?0", []),
    "grpc-5": ("/grpc?5", []),
    "grpc-14": ("/grpc?14", []),
    "grpc-99": ("/grpc?99", []),
    "grpc-text": ("/grpc?x", []),
} | {
    f"id-{number:08x}": ("/ok", [f"x-request-id: {number:08x}-1234-4123-8123-123456789abc"])
    for number in (0, 31, 49, 50, 99, 100, 4320, 4321, 500_000, 999_999, 2**31, 2**32 - 1)
}


def _backend(peer: Peer) -> None:
    while True:
        line, _, _ = peer.read_request()
        path = line.split()[1]
        if path.startswith("/grpc"):
            peer.send(ok(b"", f"grpc-status: {path.partition('?')[2]}"))
        elif path == "/teapot":
            peer.send(ok(status="418 I'm a teapot"))
        else:
            peer.send(ok())


def _routes(refused: str) -> list[dict[str, Any]]:
    return [
        {"match": {"path": "/refused"}, "route": {"cluster": "refused"}},
        {"match": {"path": "/empty"}, "route": {"cluster": "empty"}},
        *(
            {"match": {"prefix": path}, "route": {"cluster": "c"}}
            for path in ("/ok", "/grpc", "/teapot")
        ),
    ]


def _ask(port: int) -> None:
    for name, (path, fields) in CASES.items():
        peer = Peer(socket.create_connection(("127.0.0.1", port), WAIT))
        if not any(field.startswith("x-request-id") for field in fields):
            # By the name, so that both proxies make the same of it.
            fields = [
                *fields,
                f"x-request-id: {sum(name.encode()):08x}-1234-4123-8123-123456789abc",
            ]
        lines = [f"GET {path} HTTP/1.1", "host: a", f"x-case: {name}", *fields, "", ""]
        peer.send("\r\n".join(lines).encode())
        peer.read_response()
        peer.close()


LINE = "%REQ(X-CASE)%\n"


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, list[str]]]]:
    """What both logged, by filter."""
    directory = tmp_path_factory.mktemp("filters")
    with contextlib.ExitStack() as stack:
        upstream = Upstream(_backend)
        stack.callback(upstream.close)
        with socket.create_server(("127.0.0.1", 0)) as free:
            refused = "{}:{}".format(*free.getsockname())
        _theirs(directory, upstream.address, refused)
        _ours(directory, upstream.address, refused)
        yield {
            side: {
                name: (directory / f"{side}-{name}.log").read_text().splitlines()
                for name in FILTERS
            }
            for side in ("kgw", "envoy")
        }


def _theirs(directory: Path, upstream: str, refused: str) -> None:
    listeners = [
        envoy.listener(
            name,
            _routes(refused),
            access_log=[envoy.file_log(directory / f"envoy-{name}.log", LINE, filter=pair.theirs)],
        )
        for name, pair in FILTERS.items()
    ]
    clusters = [
        envoy.cluster("c", upstream),
        envoy.cluster("refused", refused),
        envoy.cluster("empty"),
    ]
    with envoy.running(directory, listeners, clusters) as ports:
        for port in ports.values():
            _ask(port)


def _ours(directory: Path, upstream: str, refused: str) -> None:
    http = {"request_id": {"preserve_external": True}}

    def logs(name: str) -> list[dict[str, Any]]:
        path = str(directory / f"kgw-{name}.log")
        return [{"path": path, "format": {"text": LINE}, "filter": FILTERS[name].ours}]

    setup = Setup(
        clusters={
            "c": {"endpoints": [upstream]},
            "refused": {"endpoints": [refused]},
            "empty": {"endpoints": []},
        },
        routes={
            name: {"name": name, "action": forward(name)} for name in ("c", "refused", "empty")
        },
        rules=[
            rule("/refused", "refused", "exact"),
            rule("/empty", "empty", "exact"),
            *(rule(path, "c") for path in ("/ok", "/grpc", "/teapot")),
        ],
        listeners=[
            {
                "id": name,
                "bind": ["127.0.0.1:0"],
                "traffic": {"type": "http", "route_table": "t"},
                "http": http,
                "access_logs": logs(name),
            }
            for name in FILTERS
        ],
    )
    gateway = Gateway(setup, real_time=True)
    try:
        assert json.loads(json.dumps(gateway.engine.problems())) == []
        addresses = gateway.engine.addresses()
        for name in FILTERS:
            _ask(addresses[name][0][1])
        assert gateway.engine.flush_logs(WAIT)
    finally:
        gateway.close()


@pytest.mark.parametrize("name", FILTERS)
def test_both_log_the_same_requests(logged: dict[str, dict[str, list[str]]], name: str) -> None:
    ours, theirs = logged["kgw"][name], logged["envoy"][name]
    assert ours == theirs
    # Each filter tells requests apart, apart from those that are meant not to.
    if name in ("share-none", "status-none", "traceable", "duration-long"):
        assert ours == []
    elif name in (
        "share-all",
        "share-all-independent",
        "duration-ge",
        "duration-le",
        "not-health-check",
    ):
        assert ours == list(CASES)
    else:
        assert 0 < len(ours) < len(CASES)
