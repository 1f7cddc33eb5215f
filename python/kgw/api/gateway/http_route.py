"""HTTPRoute: which requests go where."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from kgw.api.base import Model, contradiction, given, repeated, shared
from kgw.api.duration import Duration
from kgw.api.gateway.filters import Filter, filter_rules
from kgw.api.gateway.references import (
    HTTPBackendRef,
    ParentReference,
    http_backend_refs,
    parent_refs,
    parent_rules,
)
from kgw.api.gateway.retry import Retry
from kgw.api.gateway.session_persistence import SessionPersistence
from kgw.api.kinds import GATEWAY_GROUP
from kgw.api.meta import ObjectMeta, Resource
from kgw.api.names import HeaderName, Hostname, SectionName

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import timedelta

    from kgw.api.gateway.grpc_route import GRPCRule
    from kgw.api.gateway.references import Backend, Parent

_PATH: Final = re.compile(r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})+")

#: Most paths; there is nothing about them to look for.
_PLAIN_PATH: Final = re.compile(r"(?:/[-A-Za-z0-9_~]+)+/?")


Method = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]


class PathMatch(Model):
    """A path predicate."""

    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    """How the value is compared: as a whole, by leading segments, or as an RE2 expression."""
    value: Annotated[str, StringConstraints(max_length=1024)] = "/"
    """The path, prefix or expression."""

    @classmethod
    def prefix(cls, value: str) -> Self:
        """Matches paths that start with these segments: of ``/a`` also ``/a/b``, not ``/ab``."""
        return cls(type="PathPrefix", value=value)

    @classmethod
    def exact(cls, value: str) -> Self:
        """Matches this path alone."""
        return cls(type="Exact", value=value)

    @classmethod
    def regex(cls, value: str) -> Self:
        """Matches paths that are as a whole what an RE2 expression says."""
        return cls(type="RegularExpression", value=value)

    @model_validator(mode="after")
    def _rules(self) -> Self:
        value = self.value
        if self.type == "RegularExpression" or value == "/" or _PLAIN_PATH.fullmatch(value):
            return self
        if not value.startswith("/"):
            raise contradiction(
                f"value must be an absolute path and start with '/' when type is {self.type}",
                "value",
            )
        for bad in ("//", "/./", "/../", "%2f", "%2F", "#"):
            if bad in value:
                raise contradiction(f"must not contain {bad!r} when type is {self.type}", "value")
        for bad in ("/..", "/."):
            if value.endswith(bad):
                raise contradiction(f"must not end with {bad!r} when type is {self.type}", "value")
        if not _PATH.fullmatch(value):
            raise contradiction(
                "must only contain the characters of a path, others percent-encoded", "value"
            )
        return self


class HeaderMatch(Model):
    """A header predicate."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    """Whether the value is compared as it is, or as an RE2 expression."""
    name: HeaderName
    """The name of the field, in any case."""
    value: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    """The value or expression."""


class QueryParamMatch(Model):
    """A query parameter predicate."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    """Whether the value is compared as it is, or as an RE2 expression."""
    name: HeaderName
    """The name of the parameter."""
    value: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    """The value or expression."""


class RouteMatch(Model):
    """Predicates that must all hold."""

    path: PathMatch = Field(default_factory=PathMatch.model_construct)
    """The path; by default every path."""
    headers: Annotated[tuple[HeaderMatch, ...], Field(max_length=16)] = ()
    """Header fields, all of which must match."""
    query_params: Annotated[tuple[QueryParamMatch, ...], Field(max_length=16)] = ()
    """Query parameters, all of which must match."""
    method: Method | None = None
    """The method; by default every method."""

    @property
    def first_headers(self) -> dict[str, HeaderMatch]:
        """The header fields that count, by their names in lower case: of a name only the first."""
        found: dict[str, HeaderMatch] = {}
        for one in self.headers:
            found.setdefault(one.name.lower(), one)
        return found

    @property
    def first_query_params(self) -> dict[str, QueryParamMatch]:
        """The query parameters that count, by their names: of a name only the first."""
        found: dict[str, QueryParamMatch] = {}
        for one in self.query_params:
            found.setdefault(one.name, one)
        return found

    @classmethod
    def of(
        cls,
        path: PathMatch | str | None = None,
        *,
        method: Method | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes predicates that must all hold; a path that is a text is a prefix."""
        return cls(
            **given(
                path=PathMatch.prefix(path) if isinstance(path, str) else path,
                headers=tuple(
                    HeaderMatch(name=name, value=value) for name, value in (headers or {}).items()
                ),
                query_params=tuple(
                    QueryParamMatch(name=name, value=value) for name, value in (query or {}).items()
                ),
                method=method,
            )
        )


class Timeouts(Model):
    """Bounds on a request; zero is none."""

    request: Duration | None = None
    """The time from the request's start to the end of its answer; ``0s`` is no bound."""
    backend_request: Duration | None = None
    """The time for one attempt at a backend; ``0s`` is no bound."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.request and self.backend_request and self.backend_request > self.request:
            raise contradiction(
                "backendRequest timeout cannot be longer than request timeout", "backendRequest"
            )
        return self


_ANY: Final = (RouteMatch.model_construct(),)
_NO_TIMEOUTS: Final = Timeouts.model_construct()


class Rule(Model):
    """What happens to the requests that match."""

    name: SectionName | None = None
    """The name, unique in the route, by which policies choose the rule."""
    matches: Annotated[tuple[RouteMatch, ...], Field(max_length=64)] = Field(
        default_factory=lambda: _ANY
    )
    """The requests that the rule is for: any of these; all requests if there is none."""
    filters: Annotated[tuple[Filter, ...], Field(max_length=16), shared()] = ()
    """What is done to requests and answers, in order."""
    backend_refs: Annotated[
        tuple[Annotated[HTTPBackendRef, shared()], ...], Field(max_length=16), shared()
    ] = ()
    """Where requests go, by weight; without a backend they are answered with 500."""
    timeouts: Annotated[Timeouts, shared()] = Field(default_factory=lambda: _NO_TIMEOUTS)
    """How long a request may take."""
    retry: Annotated[Retry, shared()] | None = None
    """When a request is sent once more; by default never."""
    session_persistence: SessionPersistence | None = None
    """Sessions, whose requests go to one backend; by default there are none."""

    @classmethod
    def of(
        cls,
        *matches: RouteMatch | PathMatch | str,
        to: Backend | Iterable[Backend] = (),
        filters: Iterable[Filter] = (),
        timeout: str | timedelta | None = None,
        backend_timeout: str | timedelta | None = None,
        retry: Retry | None = None,
        session: SessionPersistence | None = None,
        name: str | None = None,
    ) -> Self:
        """Makes a rule.

            Rule.of("/v1", to=users, timeout="3s")
            Rule.of(RouteMatch.of("/", method="POST"), to=["a:80", BackendRef.of("b:80", weight=3)])

        Args:
            matches: the requests that it is for, if any of these is true of them: predicates,
                paths, or prefixes of paths. All requests, if there is none.
            to: the backends: Services with one port, ``name:port``, or references.
            filters: what is done to requests and responses, in order.
            timeout: the time for a whole request, as in ``1m30s``.
            backend_timeout: the time for one attempt at a backend.
            retry: when a request is sent once more.
            session: sessions, whose requests go to one backend.
            name: the name of the rule, for policies and logs.
        """
        times = given(
            request=None if timeout is None else Duration(timeout),
            backend_request=None if backend_timeout is None else Duration(backend_timeout),
        )
        return cls(
            **given(
                name=name,
                matches=tuple(
                    one if isinstance(one, RouteMatch) else RouteMatch.of(one) for one in matches
                ),
                filters=tuple(filters),
                backend_refs=http_backend_refs(to),
                timeouts=Timeouts(**times) if times else None,
                retry=retry,
                session_persistence=session,
            )
        )

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if not self.filters and not any(one.filters for one in self.backend_refs):
            return self
        filter_rules(self.filters)
        redirects = any(one.type == "RequestRedirect" for one in self.filters)
        if redirects and self.backend_refs:
            raise contradiction(
                "RequestRedirect filter must not be used together with backendRefs", "backendRefs"
            )
        one_prefix = len(self.matches) == 1 and self.matches[0].path.type == "PathPrefix"
        where: list[tuple[str, tuple[str | int, ...], tuple[Filter, ...]]] = [
            ("", (), self.filters),
            *(
                ("Within backendRefs, ", ("backendRefs", number), one.filters)
                for number, one in enumerate(self.backend_refs)
            ),
        ]
        for prefix, place, filters in where:
            for number, one in enumerate(filters):
                action = one.request_redirect or one.url_rewrite
                path = action.path if action else None
                if path and path.type == "ReplacePrefixMatch" and not one_prefix:
                    raise contradiction(
                        f"{prefix}When using {one.type} filter with path.replacePrefixMatch, "
                        "exactly one PathPrefix match must be specified",
                        *place,
                        "filters",
                        number,
                        "requestRedirect" if one.request_redirect else "urlRewrite",
                        "path",
                        "type",
                    )
        return self


def total_rules(rules: Collection[Rule | GRPCRule]) -> None:
    """Checks what holds between the rules of one route.

    Raises:
        ValueError: in the words of the CRD.
    """
    if sum(len(rule.matches) for rule in rules) > 128:
        raise contradiction(
            "While 16 rules and 64 matches per rule are allowed, the total number of matches "
            "across all rules in a route must be less than 128",
            "rules",
        )
    # Rules without a name are all different.
    twice = repeated(rule.name or index for index, rule in enumerate(rules))
    if twice is not None:
        raise contradiction("Rule name must be unique within the route", "rules", twice, "name")


class HTTPRouteSpec(Model):
    """What an HTTPRoute says."""

    parent_refs: Annotated[tuple[ParentReference, ...], Field(max_length=32)] = ()
    """What the route attaches to: Gateways, ListenerSets, or Services of the mesh."""
    use_default_gateways: Literal["All", "None"] = "None"
    """Whether it also attaches to the Gateways that are default ones (experimental)."""
    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=16)] = ()
    """The hosts that the route is for, which may start with ``*.``; all if there is none."""
    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=16)] = Field(
        default_factory=lambda: (Rule.model_construct(),)
    )
    """What happens to requests; the most specific match decides, not the order."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        total_rules(self.rules)
        parent_rules(self.parent_refs)
        return self


class HTTPRoute(Resource):
    """A route of HTTP requests."""

    group: ClassVar[str] = GATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1", "v1beta1")

    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: Literal["HTTPRoute"] = "HTTPRoute"
    spec: HTTPRouteSpec = Field(default_factory=HTTPRouteSpec)
    """Which requests go where."""

    @classmethod
    def of(
        cls,
        name: str,
        parents: Parent | Iterable[Parent],
        *rules: Rule,
        hostnames: Iterable[str] = (),
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a route.

        Args:
            name: its name.
            parents: what it attaches to: Gateways, Services, names of Gateways, or references.
            rules: what happens to which requests.
            hostnames: the hosts that it is for, which may start with ``*.``; all if there is none.
            namespace: its namespace.
            labels: its labels.
            annotations: its annotations.
        """
        spec = given(parent_refs=parent_refs(parents), hostnames=tuple(hostnames), rules=rules)
        return cls(
            metadata=ObjectMeta.of(name, namespace, labels, annotations),
            spec=HTTPRouteSpec(**spec),
        )
