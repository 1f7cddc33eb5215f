"""What the engine does with a request: a trial with everything real but the other ends.

The engine is started with the part of the configuration that the request can meet, on a clock that
stands still, and without a socket that anyone could reach: the client and the backends are socket
pairs in this process. What comes out at a backend is what a backend would get, whatever filters
there are; nothing of it is worked out a second time.

Filters that ask somebody else have no answer here. They are taken out, and told.
"""

from __future__ import annotations

import http.client
import json
import selectors
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kgw._native.engine import Engine
from kgw.errors import ProtocolError
from kgw.inprocess import doorbell, next_connection
from kgw.testing import http1

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from kgw.config import Config
    from kgw.explaining.question import Question
    from kgw.explaining.taking import Taking

__all__ = ["Received", "Trial", "alone", "asks", "run", "scene"]

CLIENT: Final = ("192.0.2.1", 40000)
"""Where a request comes from unless it is told: an address for documentation (RFC 5737)."""

PATIENCE: Final = 10.0
"""Real seconds for a trial, which takes a hundredth of one."""

_RECORD: Final = {
    "cluster": "%UPSTREAM_CLUSTER%",
    "code": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "route": "%ROUTE_NAME%",
}

_TAP_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Received:
    """A request as a backend would get it."""

    cluster: str
    """The id of the cluster, where each is a backend of its own."""
    method: str
    target: str
    fields: tuple[tuple[str, str], ...]
    is_copy: bool = False
    """Whether it is a copy for a mirror, where mirrors are backends of their own."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a request."""

    route: str | None
    """The name of the route that the engine chose."""
    path: str
    """The path as it was matched: in its canonical form."""
    status: int
    """The status of the answer; 200 if a backend gave it."""
    details: str
    """What the access log says about it (``%RESPONSE_CODE_DETAILS%``)."""
    flags: str
    """Its response flags; ``-`` for none."""
    cluster: str | None
    """The cluster that it was for."""
    answer: tuple[tuple[str, str], ...]
    """The header fields of the answer."""
    body: bytes
    """The body of the answer; backends give none."""
    received: tuple[Received, ...]
    """What each backend got, in the order of arrival."""

    @property
    def forwarded(self) -> bool:
        """Whether a backend answers."""
        return self.details == "via_upstream"


def scene(config: Config, taking: Taking, hosts: Iterable[str]) -> dict[str, Any]:
    """Returns the part of the configuration that a request for these hosts of a table can meet.

    All backends are one, as there may be thousands.
    """
    assert taking.listener is not None  # it has the table
    assert taking.table is not None
    ir = config.ir
    wanted = set(hosts)
    own = [one for one in ir["route_tables"][taking.table]["hosts"] if one["hostname"] in wanted]
    # A request for none of the hosts is not found by a table that has none of them.
    routes = {rule["route"]: ir["routes"][rule["route"]] for one in own for rule in one["rules"]}
    listener = {
        **{key: one for key, one in taking.listener.items() if key != "proxy_protocol"},
        "bind": [],
        "traffic": {"type": "http", "route_table": taking.table},
        "access_logs": [],
    }
    routes = {name: _decided(route, ir["clusters"]) for name, route in routes.items()}
    return {
        "version": ir["version"],
        "listeners": [listener],
        "route_tables": {taking.table: {"hosts": own}},
        "routes": routes,
        "clusters": {
            name: _cluster(ir["clusters"][name], _ANY)
            for name in sorted(_named(routes, ir["clusters"]))
        },
    }


_ANY: Final = "any"
"""The backend that all are in the first trial."""


def alone(scene: Mapping[str, Any], route: str, number: int) -> dict[str, Any]:
    """Returns a part of the configuration with one route, of whose backends only one has a share.

    What is received tells which cluster it is for, and whether it is a mirror's: that may be the
    backend's own Service.
    """
    (table, hosts), *_ = scene["route_tables"].items()
    chosen = _apart(scene["routes"][route])
    action = chosen["action"]
    # The others keep their places, which sessions refer to.
    backends = [
        {**_apart(one), "weight": int(place == number)}
        for place, one in enumerate(action["backends"])
    ]
    routes = {route: {**chosen, "action": {**action, "backends": backends}}}
    known = scene["clusters"]
    clusters = {**known, **{f"{_COPY}{name}": one for name, one in known.items()}}
    kept = [
        {**one, "rules": [rule for rule in one["rules"] if rule["route"] == route]}
        for one in hosts["hosts"]
    ]
    return {
        **scene,
        "route_tables": {table: {"hosts": kept}},
        "routes": routes,
        "clusters": {
            name: {**clusters[name], "in_process": name}
            if "in_process" in clusters[name]
            else clusters[name]
            for name in sorted(_named(routes, clusters))
        },
    }


_COPY: Final = "copy:"
"""What the id of a cluster begins with that stands for another one as a mirror."""


def _apart(filtered: Mapping[str, Any]) -> dict[str, Any]:
    """A route or backend, the mirrors of which are clusters of their own."""
    filters = [
        {**one, "cluster": f"{_COPY}{one['cluster']}"} if one["type"] == "mirror" else one
        for one in filtered.get("filters", ())
    ]
    return {**filtered, "filters": filters}


def asks(one: Mapping[str, Any], clusters: Mapping[str, Any]) -> bool:
    """Whether a filter has its verdict from somebody who is not there in a trial.

    A service that could not be asked in earnest either is no such somebody: then the filter's own
    answer to that is what becomes of the request.
    """
    match one["type"]:
        case "python":
            return True
        case "ext_authz":
            cluster = clusters.get(one["cluster"])
            return cluster is not None and _has_endpoints(cluster)
        case "global_rate_limit":
            cluster = clusters.get(one["service"]["cluster"])
            return cluster is not None and _has_endpoints(cluster)
        case _:
            return False


def _decided(route: Mapping[str, Any], clusters: Mapping[str, Any]) -> dict[str, Any]:
    """A route that asks nobody and leaves nothing to chance, so that each trial has one outcome."""
    filters = [_certain(one) for one in route.get("filters", ()) if not asks(one, clusters)]
    action = route["action"]
    if "backends" in action:
        backends = [
            {**one, "filters": [_certain(it) for it in one.get("filters", ())]}
            for one in action["backends"]
        ]
        action = {**action, "backends": backends}
    return {**route, "filters": filters, "action": action}


def _certain(one: dict[str, Any]) -> dict[str, Any]:
    """A filter; a mirror of some requests is one of this request."""
    if one["type"] == "mirror" and one["numerator"]:
        return {**one, "numerator": one["denominator"]}
    return one


def _has_endpoints(cluster: Mapping[str, Any]) -> bool:
    return bool(cluster.get("endpoints") or cluster.get("dns") or "forward_proxy" in cluster)


def _cluster(ir: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A cluster whose endpoints are this process; one without any stays without."""
    return {"endpoints": [], "in_process": name} if _has_endpoints(ir) else {"endpoints": []}


def _named(data: Any, clusters: Container[str]) -> set[str]:
    """The clusters that JSON data names, wherever in it."""
    if isinstance(data, str):
        return {data} if data in clusters else set()
    parts = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    found: set[str] = set()
    for one in parts:
        found |= _named(one, clusters)
    return found


def run(scene: Mapping[str, Any], question: Question, taking: Taking) -> Trial:
    """Sends a request through an engine of its own, and returns what came of it.

    Raises:
        OSError: the process has no descriptor left.
        RuntimeError: the engine did not answer, which is a defect of it.
    """
    clusters = scene["clusters"].values()
    names = sorted({one["in_process"] for one in clusters if "in_process" in one})
    with ExitStack() as stack:
        bells: dict[str, socket.socket] = {}
        theirs = []
        for name in names:
            ours, bells[name] = doorbell()
            theirs.append((name, ours))
            stack.callback(bells[name].close)
        engine = Engine(workers=1, manual_clock=True, backends=theirs)
        engine.start(json.dumps(scene).encode())
        stack.callback(engine.join, 0.0)
        tap = engine.tap(json.dumps(_RECORD), _TAP_BYTES)
        stack.callback(tap.close)
        client = socket.socket(
            fileno=engine.connect(
                scene["listeners"][0]["id"],
                peer=question.source or CLIENT,
                local=taking.local,
                secure=question.secure,
                server_name=question.server_name,
            )
        )
        stack.callback(client.close)
        ends = stack.enter_context(_Ends(client, bells))
        status, fields, body = ends.exchange(question)
        engine.settle(PATIENCE)
        ends.rest()
        engine.flush_logs(PATIENCE)
        record = json.loads(tap.take().splitlines()[0])
        return Trial(
            _text(record["route"]),
            _text(record["path"]) or question.target,
            status,
            record["details"],
            record["flags"],
            _text(record["cluster"]),
            fields,
            body,
            tuple(ends.received),
        )


def _text(value: Any) -> str | None:
    return None if value in (None, "", "-") else str(value)


@dataclass(eq=False)
class _Ends:
    """The client and the backends: one thread, which waits for all of them at once."""

    client: socket.socket
    bells: Mapping[str, socket.socket]
    received: list[Received] = field(default_factory=list)
    _selector: selectors.DefaultSelector = field(default_factory=selectors.DefaultSelector)
    _connections: list[socket.socket] = field(default_factory=list)

    def __enter__(self) -> _Ends:
        for name, bell in self.bells.items():
            self._selector.register(bell, selectors.EVENT_READ, ("bell", name))
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for one in self._connections:
            one.close()

    def exchange(self, question: Question) -> tuple[int, tuple[tuple[str, str], ...], bytes]:
        """Sends the request, plays the backends, and returns the answer."""
        self.client.setblocking(True)
        self.client.settimeout(PATIENCE)
        lines = [f"{question.method} {question.target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in question.fields]
        head = "\r\n".join([*lines, "", ""])
        self.client.sendall(head.encode("utf-8", "surrogateescape"))
        self._selector.register(self.client, selectors.EVENT_READ, ("client", ""))
        deadline = time.monotonic() + PATIENCE
        while not self._step(deadline - time.monotonic()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the engine does not answer {question.method} {question.url}")
        response = http.client.HTTPResponse(self.client, method=question.method)
        response.begin()
        body = response.read()
        return response.status, tuple(response.getheaders()), body

    def rest(self) -> None:
        """Takes what else has been sent: copies of the request, which nobody waits for."""
        self._selector.unregister(self.client)
        before = -1
        while before != (before := len(self.received) + len(self._connections)):
            self._step(0)

    def _step(self, timeout: float) -> bool:
        """Does what can be done; returns whether the client's answer is there."""
        for key, _ in self._selector.select(max(0.0, timeout)):
            kind, name = key.data
            if kind == "client":
                return True
            if kind == "bell":
                connection = next_connection(self.bells[name])
                if connection is None:
                    self._selector.unregister(key.fileobj)
                    continue
                connection.setblocking(True)
                connection.settimeout(PATIENCE)
                self._connections.append(connection)
                self._selector.register(connection, selectors.EVENT_READ, ("backend", name))
            else:
                self._serve(key.fileobj, name)
        return False

    def _serve(self, connection: Any, name: str) -> None:
        """Notes a request and answers it; the connection serves no other."""
        self._selector.unregister(connection)
        reader = http1.Reader(connection)
        try:
            head = reader.head()
            if head is None:
                return
            reader.body(head.headers)
            fields, cluster = tuple(head.headers.pairs), name.removeprefix(_COPY)
            is_copy = cluster != name
            self.received.append(Received(cluster, head.method, head.target, fields, is_copy))
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        except (OSError, EOFError, ProtocolError):
            return  # the engine has lost interest in it
