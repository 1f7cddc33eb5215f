"""What the demo does and what must come of it: four calls within a minute, three allowed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgw.addresses import Address
from kgw.mesh import MeshConnection, Origin, Request, status_line

if TYPE_CHECKING:
    from kgw.cli.demo.waypoint import Waypoint

OLLAMA = Address("10.96.238.187", 80)
"""The VIP and port of Service ``default/ollama`` in ``cluster.yaml``."""

ENDPOINT = Address("127.0.0.4", 11434)
"""Its only endpoint in ``cluster.yaml``, where the stand-in listens."""

ENDPOINTS = (ENDPOINT, *(Address(f"127.0.0.{last}", ENDPOINT.port) for last in range(6, 10)))
"""Where the stand-in listens if that is taken: the first of these that is free."""

IDENTITY = "spiffe://cluster.local/ns/default/sa/client"
"""Who calls: the ServiceAccount of the ``client`` workload."""

LOG_KEYS = frozenset(
    {
        "authority",
        "bytes_received",
        "bytes_sent",
        "method",
        "path",
        "protocol",
        "request_id",
        "response_code",
        "response_flags",
        "start_time",
    }
)
"""The keys that ``httplistenerpolicy-accesslog.yaml`` asks for."""

STATUSES = (200, 200, 200, 429)
"""``trafficpolicy-ratelimit.yaml`` allows three calls a minute."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one call, and the access log line that it left."""

    status_line: str
    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes
    log_line: str | None


def call(waypoint: Waypoint) -> Answer:
    """Calls ``http://ollama/`` on a connection of its own, as ``curl`` in a pod does.

    Raises:
        OSError: the waypoint cannot be reached.
        http.client.HTTPException: it closed the connection, or its answer is not HTTP.
    """
    from kgw._native import __version__
    from kgw.proxyproto import MeshIdentity

    request = Request(
        "GET", "/", (("Host", "ollama"), ("User-Agent", f"kgw/{__version__}"), ("Accept", "*/*"))
    )
    origin = Origin(OLLAMA, MeshIdentity.parse(IDENTITY))
    connection = MeshConnection(waypoint.address, origin, timeout=30)
    try:
        response = request.send(connection)
        body = response.read()
        return Answer(
            status_line(response),
            response.status,
            tuple(response.getheaders()),
            body,
            waypoint.line(),
        )
    finally:
        connection.close()


def problems(answers: list[Answer]) -> list[str]:
    """Returns what is not as the scenario says; nothing if all is well."""
    from kgw.cli.demo.ollama import GREETING

    found = []
    statuses = tuple(answer.status for answer in answers)
    if statuses != STATUSES:
        found.append(f"the answers are {_listed(statuses)}, not {_listed(STATUSES)}")
    for number, answer in enumerate(answers, 1):
        body = GREETING if answer.status == 200 else b"local_rate_limited"
        if answer.body != body:
            found.append(f"call {number} is answered with {answer.body!r}, not {body!r}")
        flags = "RL" if answer.status == 429 else "-"
        found += (f"call {number}: {problem}" for problem in _log_problems(answer, flags))
    return found


def _log_problems(answer: Answer, flags: str) -> list[str]:
    if answer.log_line is None:
        return ["no access log line came"]
    try:
        entry = json.loads(answer.log_line)
    except ValueError:
        return [f"the access log line is not JSON: {answer.log_line!r}"]
    if entry.keys() != LOG_KEYS:
        return [f"the access log line has the keys {', '.join(sorted(entry))}"]
    expected = {
        "authority": "ollama",
        "bytes_received": 0,
        "bytes_sent": len(answer.body),
        "method": "GET",
        "path": "/",
        "protocol": "HTTP/1.1",
        "response_code": answer.status,
        "response_flags": flags,
    }
    return [
        f"the access log says {key} {entry[key]!r}, not {value!r}"
        for key, value in expected.items()
        if entry[key] != value
    ]


def _listed(statuses: tuple[int, ...]) -> str:
    return ", ".join(map(str, statuses))
