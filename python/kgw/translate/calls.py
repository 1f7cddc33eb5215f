"""gRPC calls as requests: matches of a GRPCRoute as those of an HTTPRoute.

A call of a method is a ``POST`` of ``/service/method`` (gRPC over HTTP/2). A GRPCRoute has more
precedence the more characters the service has that it names, then the method, then the more headers
it asks for. Paths give the same order: that of a method of a service goes before all of the
service, and that before all others. A method of any service is asked for beside the path, together
with ``POST``: so it goes before rules for all calls, whatever headers they ask for, and after those
for a service. Regular expressions stand where those of HTTPRoutes do, after exact methods of exact
services.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kgw.api.gateway.http_route import HeaderMatch, PathMatch, RouteMatch

if TYPE_CHECKING:
    from kgw.api.gateway.grpc_route import GRPCRouteMatch
    from kgw.source.memory import FieldPath

#: A regular expression of any one segment of a path.
_ANY: Final = "[^/]+"


def http_match(match: GRPCRouteMatch) -> RouteMatch:
    """The match of an HTTPRoute that is for the same calls."""
    called = match.method
    service, method = ("", "") if called is None else (called.service or "", called.method or "")
    headers = match.headers
    if called is not None and called.type == "RegularExpression" and (service or method):
        value = f"/{_group(service)}/{_group(method)}"
        return RouteMatch.model_construct(path=_path("RegularExpression", value), headers=headers)
    if service and method:
        path = _path("Exact", f"/{service}/{method}")
        return RouteMatch.model_construct(path=path, headers=headers)
    if service:
        path = _path("PathPrefix", f"/{service}")
        return RouteMatch.model_construct(path=path, headers=headers)
    if method:
        own = HeaderMatch.model_construct(
            type="RegularExpression", name=":path", value=f"/{_ANY}/{method}"
        )
        return RouteMatch.model_construct(method="POST", headers=(*headers, own))
    return RouteMatch.model_construct(headers=headers)


def patterns(match: GRPCRouteMatch) -> list[tuple[FieldPath, str]]:
    """The regular expressions of what is called, with their places."""
    called = match.method
    if called is None or called.type != "RegularExpression":
        return []
    given = (("service", called.service), ("method", called.method))
    return [(("method", name), value) for name, value in given if value]


def _path(kind: str, value: str) -> PathMatch:
    return PathMatch.model_construct(type=kind, value=value)


def _group(pattern: str) -> str:
    return f"(?:{pattern})" if pattern else _ANY
