"""HTTPRoute: which requests go where."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from kgw.api.base import Model, contradiction, repeated
from kgw.api.duration import Duration
from kgw.api.gateway.filters import Filter, filter_rules
from kgw.api.gateway.references import HTTPBackendRef, ParentReference, parent_rules
from kgw.api.kinds import GATEWAY_GROUP
from kgw.api.meta import Resource
from kgw.api.names import HeaderName, Hostname, SectionName
from kgw.diagnostics import Severity

_PATH: Final = re.compile(r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})+")


class PathMatch(Model):
    """A path predicate."""

    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: Annotated[str, StringConstraints(max_length=1024)] = "/"

    @model_validator(mode="after")
    def _rules(self) -> Self:
        value = self.value
        if self.type == "RegularExpression" or value == "/":
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
    name: HeaderName
    value: Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class QueryParamMatch(Model):
    """A query parameter predicate."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: HeaderName
    value: Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class RouteMatch(Model):
    """Predicates that must all hold."""

    path: PathMatch = Field(default_factory=PathMatch.model_construct)
    headers: Annotated[tuple[HeaderMatch, ...], Field(max_length=16)] = ()
    query_params: Annotated[tuple[QueryParamMatch, ...], Field(max_length=16)] = ()
    method: (
        Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
        | None
    ) = None


class Timeouts(Model):
    """Bounds on a request; zero is none."""

    request: Duration | None = None
    backend_request: Duration | None = None

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.request and self.backend_request and self.backend_request > self.request:
            raise contradiction(
                "backendRequest timeout cannot be longer than request timeout", "backendRequest"
            )
        return self


class Rule(Model):
    """What happens to the requests that match."""

    # Nothing insecure follows from leaving these out, so the rule is served and the user is told.
    unsupported: ClassVar[Mapping[str, Severity]] = {
        "retry": Severity.WARNING,
        "sessionPersistence": Severity.WARNING,
    }

    name: SectionName | None = None
    matches: Annotated[tuple[RouteMatch, ...], Field(max_length=64)] = Field(
        default_factory=lambda: (RouteMatch.model_construct(),)
    )
    filters: Annotated[tuple[Filter, ...], Field(max_length=16)] = ()
    backend_refs: Annotated[tuple[HTTPBackendRef, ...], Field(max_length=16)] = ()
    timeouts: Timeouts = Field(default_factory=Timeouts.model_construct)

    @model_validator(mode="after")
    def _rules(self) -> Self:
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


class HTTPRouteSpec(Model):
    """What an HTTPRoute says."""

    unsupported: ClassVar[Mapping[str, Severity]] = {"useDefaultGateways": Severity.WARNING}

    parent_refs: Annotated[tuple[ParentReference, ...], Field(max_length=32)] = ()
    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=16)] = ()
    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=16)] = Field(
        default_factory=lambda: (Rule.model_construct(),)
    )

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if sum(len(rule.matches) for rule in self.rules) > 128:
            raise contradiction(
                "While 16 rules and 64 matches per rule are allowed, the total number of matches "
                "across all rules in a route must be less than 128",
                "rules",
            )
        # Rules without a name are all different.
        twice = repeated(rule.name or index for index, rule in enumerate(self.rules))
        if twice is not None:
            raise contradiction("Rule name must be unique within the route", "rules", twice, "name")
        parent_rules(self.parent_refs)
        return self


class HTTPRoute(Resource):
    """A route of HTTP requests."""

    group: ClassVar[str] = GATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1", "v1beta1")

    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: Literal["HTTPRoute"] = "HTTPRoute"
    spec: HTTPRouteSpec = Field(default_factory=HTTPRouteSpec)
