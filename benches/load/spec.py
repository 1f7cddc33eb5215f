"""What a proxy under test is asked to do, independent of the product that does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HOST = "bench.example.com"
"""The host that requests name, unless a route table has hosts of its own."""

SERVICE_VIP = "10.96.1.1"
"""The destination in PROXY headers; kgateway's filter chains match on it."""

WAYPOINT_PREFIXES = (
    "/api/v1/orders",
    "/api/v2/orders",
    "/api/v1/users",
    "/api/v2/users",
    "/api/v1/items",
    "/api/v2/items",
    "/static",
    "/metrics",
    "/admin",
    "/",
)
"""The rules of the waypoint chain, most specific first, as the Gateway API orders them."""

LIMITED, UNLIMITED = "/limited", "/unbound"
"""The two routes of a configuration with a bucket on one of them; of one length."""

LOG_FIELDS = {
    "start_time": "%START_TIME%",
    "method": "%REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "authority": "%REQ(:AUTHORITY)%",
}
"""The access log of kgateway's documentation."""

RouteKind = Literal["paths", "hosts", "mixed"]
"""Path prefixes; hosts; path prefixes, path regexes and headers in equal parts."""

KINDS: tuple[RouteKind, ...] = ("paths", "hosts", "mixed")


@dataclass(frozen=True)
class Route:
    """A rule: a host (or any) with a path prefix, a path regex, or a prefix and an exact header."""

    host: str = "*"
    prefix: str = "/"
    regex: str | None = None
    header: tuple[str, str] | None = None


@dataclass(frozen=True)
class RouteTable:
    """Rules of one kind that all lead to the same backend, so that only the matching differs."""

    kind: RouteKind
    size: int

    def routes(self) -> list[Route]:
        """Returns every rule."""
        return [self.route(number) for number in range(self.size)]

    def route(self, number: int) -> Route:
        """Returns one rule."""
        if self.kind == "paths":
            return Route(prefix=f"/svc-{number:06d}")
        if self.kind == "hosts":
            return Route(host=f"svc-{number:06d}.example.com")
        match number % 3:
            case 0:
                return Route(prefix=f"/svc-{number:06d}")
            case 1:
                return Route(regex=f"/re-{number:06d}/[a-z]+/[0-9]+")
            case _:
                return Route(prefix="/tenant", header=("x-tenant", f"t-{number:06d}"))

    def targets(self, at_most: int = 1000) -> list[str]:
        """Returns requests that match, spread evenly over the table and with its last rule.

        Each is ``HOST PATH`` or ``HOST PATH NAME: VALUE``, as the load generator reads them.
        """
        count = min(self.size, at_most)
        numbers = [(place + 1) * self.size // count - 1 for place in range(count)]
        return [_target(self.route(number)) for number in numbers]


def _target(route: Route) -> str:
    host = HOST if route.host == "*" else route.host
    if route.regex is not None:
        return f"{host} {route.regex.partition('[')[0]}abc/123"
    if route.header is not None:
        name, value = route.header
        return f"{host} {route.prefix}/items/42 {name}: {value}"
    return f"{host} {route.prefix.rstrip('/')}/items/42"


@dataclass(frozen=True)
class Spec:
    """One configuration of a proxy under test."""

    port: int
    """Where it listens, on 127.0.0.1."""
    backend: int
    """The port of the origin, on 127.0.0.1."""
    workers: int = 1
    h2: bool = False
    """Clients speak HTTP/2 without TLS, with prior knowledge."""
    proxy_protocol: bool = False
    """Each connection begins with a PROXY protocol v2 header."""
    waypoint: bool = False
    """Ten rules, a rate limit that never limits, a request header, a JSON log, a time-out."""
    bucket: bool = False
    """Routes for `LIMITED` and `UNLIMITED`, the first with a bucket that never runs dry."""
    routes: RouteTable | None = None
    version: str = ""
    """What the last route of the table puts into the header x-version of its answers.

    With it the configuration can be replaced while it serves.
    """

    open_files: int = 20_000
    """The limit of open files that the proxy has."""

    @property
    def connections(self) -> int:
        """How many clients may be connected at once: each may take two open files."""
        return self.open_files // 2 - 500

    def rules(self) -> list[Route]:
        """Returns the rules, in the order in which they are to be tried."""
        if self.waypoint:
            return [Route(host=HOST, prefix=prefix) for prefix in WAYPOINT_PREFIXES]
        if self.bucket:
            return [Route(prefix=LIMITED), Route(prefix=UNLIMITED)]
        return [Route()] if self.routes is None else self.routes.routes()

    def is_limited(self, route: Route) -> bool:
        """Returns whether a rule has a bucket."""
        return self.waypoint or (self.bucket and route.prefix == LIMITED)
