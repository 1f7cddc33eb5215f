"""The suites: what is sent, through which proxy, and who judges."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import (
    field_verdict,
    h2_verdict,
    path_verdict,
    proxy_header_verdict,
    request_verdict,
    response_verdict,
    sweep,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .lane import Case, Lane, Patience, Verdict

DATA = Path(__file__).parent / "data"


def read(name: str) -> list[Case]:
    """The cases of a file."""
    found: list[Case] = json.loads((DATA / f"{name}.json").read_text())
    return found


def waypoint(table: str) -> dict[str, Any]:
    """A waypoint's listener with the services that the PROXY headers name."""
    traffic = {
        "type": "waypoint",
        "header_timeout_ms": proxy_header_verdict.HEADER_TIMEOUT_MS,
        "destinations": [
            {"address": address, "port": 80, "service": service, "route_table": table}
            for address, service in (("10.4.5.6", "test/lab"), ("2001:db8::2", "test/lab6"))
        ],
    }
    return {"traffic": traffic}


def waypoint_of_both_versions(table: str) -> dict[str, Any]:
    """As :func:`waypoint`, which takes version 1 of the header too."""
    traffic = waypoint(table)["traffic"] | {"accept_v1": True}
    return {"traffic": traffic}


def with_http_10(table: str) -> dict[str, Any]:
    """A listener that serves HTTP/1.0."""
    http = {"accept_http_10": True, "default_host_for_http_10": "lab.test"}
    return {"http": http}


@dataclass(frozen=True)
class Suite:
    """One kind of input."""

    name: str
    cases: Callable[[], list[Case]]
    judge: Callable[[Lane, Case, Patience], Verdict]
    listener: Callable[[str], dict[str, Any]] | None = None
    """What the proxy's listener has beside its defaults, by the name of its route table."""
    denied: str | None = None
    """A path prefix that the proxy answers itself."""
    relayed: bool = False
    """Whether a relay of bytes is a meaningful control."""


REQUESTS = Suite("requests", lambda: read("requests"), request_verdict.judge, relayed=True)
H2_REQUESTS = Suite("h2_requests", lambda: read("h2_requests"), h2_verdict.judge)
OLD_REQUESTS = Suite("old_requests", lambda: read("requests"), request_verdict.judge, with_http_10)
SWEEP = Suite("sweep", sweep.cases, request_verdict.judge, relayed=True)
RESPONSES = Suite("responses", lambda: read("responses"), response_verdict.judge, relayed=True)
PROXY_HEADERS = Suite(
    "proxy_headers", lambda: read("proxy_headers"), proxy_header_verdict.judge, waypoint
)
BOTH_PROXY_HEADERS = Suite(
    "both_proxy_headers",
    lambda: read("proxy_headers"),
    proxy_header_verdict.judge,
    waypoint_of_both_versions,
)
PATHS = Suite("paths", path_verdict.cases, path_verdict.judge, denied=path_verdict.DENIED)
FIELDS = Suite("fields", field_verdict.cases, field_verdict.judge)

SUITES = (
    REQUESTS,
    OLD_REQUESTS,
    SWEEP,
    H2_REQUESTS,
    RESPONSES,
    PROXY_HEADERS,
    BOTH_PROXY_HEADERS,
    PATHS,
    FIELDS,
)
