"""GRPCRoute: which gRPC calls go where."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from kgw.api.base import Model, contradiction, given
from kgw.api.gateway.filters import (
    FIELDS,
    HeaderModifier,
    LocalObjectReference,
    filter_rules,
)
from kgw.api.gateway.http_route import HeaderMatch, Timeouts, total_rules
from kgw.api.gateway.mirror import RequestMirror
from kgw.api.gateway.references import (
    BackendRef,
    ParentReference,
    backend_refs,
    parent_refs,
    parent_rules,
)
from kgw.api.gateway.retry import Retry
from kgw.api.gateway.session_persistence import SessionPersistence
from kgw.api.kinds import GATEWAY_GROUP
from kgw.api.meta import ObjectMeta, Resource
from kgw.api.names import Hostname, SectionName

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgw.api.gateway.references import Backend, Parent

_SERVICE: Final = re.compile(r"\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*", re.IGNORECASE | re.ASCII)
_METHOD: Final = re.compile(r"[A-Za-z_][A-Za-z_0-9]*", re.ASCII)

_Name = Annotated[str, StringConstraints(max_length=1024)]


class GRPCMethodMatch(Model):
    """A predicate on what is called: a method of a service."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    """Whether the names are compared as they are, or as RE2 expressions."""
    service: _Name | None = None
    """The service with its package, as in ``helloworld.Greeter``; by default every service."""
    method: _Name | None = None
    """The method, as in ``SayHello``; by default every method."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.service is None and self.method is None:
            raise contradiction("One or both of 'service' or 'method' must be specified", "type")
        if self.type == "RegularExpression":
            return self
        if self.service is not None and not _SERVICE.fullmatch(self.service):
            raise contradiction(
                "service must only contain valid characters "
                r"(matching ^(?i)\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*$)",
                "service",
            )
        if self.method is not None and not _METHOD.fullmatch(self.method):
            raise contradiction(
                "method must only contain valid characters (matching ^[A-Za-z_][A-Za-z_0-9]*$)",
                "method",
            )
        return self


class GRPCRouteMatch(Model):
    """Predicates that must all hold."""

    method: GRPCMethodMatch | None = None
    """What is called; by default everything."""
    headers: Annotated[tuple[HeaderMatch, ...], Field(max_length=16)] = ()
    """Header fields (gRPC calls them metadata), all of which must match."""

    @classmethod
    def of(
        cls,
        service: str | None = None,
        method: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes predicates that must all hold."""
        called = given(service=service, method=method)
        fields = tuple(HeaderMatch(name=name, value=text) for name, text in (headers or {}).items())
        return cls(**given(method=GRPCMethodMatch(**called) if called else None, headers=fields))


class GRPCFilter(Model):
    """One filter of a call: a type and the field of that type."""

    # What a filter of an HTTPRoute may have beside, for what serves both.
    request_redirect: ClassVar[None] = None
    url_rewrite: ClassVar[None] = None
    cors: ClassVar[None] = None
    external_auth: ClassVar[None] = None

    type: Literal[
        "RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "ExtensionRef"
    ]
    """What the filter does; the field of that name says how."""
    request_header_modifier: HeaderModifier | None = None
    """Edits of the header of requests."""
    response_header_modifier: HeaderModifier | None = None
    """Edits of the header of responses."""
    request_mirror: RequestMirror | None = None
    """A copy of requests to another backend."""
    extension_ref: LocalObjectReference | None = None
    """A filter by its name; ``kgw.dev`` PythonFilter is one of ``kgw.Proxy.filter``."""

    @classmethod
    def request_headers(
        cls,
        set: Mapping[str, str] | None = None,
        add: Mapping[str, str] | None = None,
        remove: Iterable[str] = (),
    ) -> Self:
        """Edits the header of requests."""
        edits = HeaderModifier.of(set, add, remove)
        return cls(type="RequestHeaderModifier", request_header_modifier=edits)

    @classmethod
    def response_headers(
        cls,
        set: Mapping[str, str] | None = None,
        add: Mapping[str, str] | None = None,
        remove: Iterable[str] = (),
    ) -> Self:
        """Edits the header of responses."""
        edits = HeaderModifier.of(set, add, remove)
        return cls(type="ResponseHeaderModifier", response_header_modifier=edits)

    @classmethod
    def python(cls, name: str) -> Self:
        """Calls the filter that `kgw.Proxy.filter` registered under a name."""
        reference = LocalObjectReference(group="kgw.dev", kind="PythonFilter", name=name)
        return cls(type="ExtensionRef", extension_ref=reference)

    @model_validator(mode="after")
    def _rules(self) -> Self:
        for kind, field in FIELDS.items():
            given = getattr(self, field) is not None
            if given == (kind == self.type):
                continue
            name = type(self).model_fields[field].alias
            if given:
                raise contradiction(
                    f"filter.{name} must be nil if the filter.type is not {kind}", str(name)
                )
            raise contradiction(f"filter.{name} must be specified for {kind} filter.type", "type")
        return self


class GRPCBackendRef(BackendRef):
    """A weighted backend with filters of its own."""

    filters: Annotated[tuple[GRPCFilter, ...], Field(max_length=16)] = ()
    """What is done to the calls that go to this backend."""

    @model_validator(mode="after")
    def _filter_rules(self) -> Self:
        filter_rules(self.filters)
        return self


class GRPCRule(Model):
    """What happens to the calls that match."""

    #: A GRPCRoute bounds no time: a call says its own in ``grpc-timeout``.
    timeouts: ClassVar[Timeouts] = Timeouts.model_construct()

    #: Nor has it retries.
    retry: ClassVar[Retry | None] = None

    name: SectionName | None = None
    """The name, unique in the route, by which policies choose the rule."""
    matches: Annotated[tuple[GRPCRouteMatch, ...], Field(max_length=64)] = ()
    """The calls that the rule is for: any of these; all calls if there is none."""
    filters: Annotated[tuple[GRPCFilter, ...], Field(max_length=16)] = ()
    """What is done to calls and answers, in order."""
    backend_refs: Annotated[tuple[GRPCBackendRef, ...], Field(max_length=16)] = ()
    """Where calls go, by weight; without a backend they end as UNAVAILABLE."""
    session_persistence: SessionPersistence | None = None
    """Sessions, whose calls go to one backend; by default there are none."""

    @classmethod
    def of(
        cls,
        *matches: GRPCRouteMatch | str,
        to: Backend | Iterable[Backend] = (),
        filters: Iterable[GRPCFilter] = (),
        session: SessionPersistence | None = None,
        name: str | None = None,
    ) -> Self:
        """Makes a rule.

            GRPCRule.of("helloworld.Greeter", to="greeter:50051")
            GRPCRule.of("helloworld.Greeter/SayHello", to=["a:50051", "b:50051"])

        Args:
            matches: the calls that it is for, if any of these is true of them: predicates, names
                of services, or ``service/method``. All calls, if there is none.
            to: the backends: Services with one port, ``name:port``, or references.
            filters: what is done to calls and answers, in order.
            session: sessions, whose calls go to one backend.
            name: the name of the rule, for policies and logs.
        """
        return cls(
            **given(
                name=name,
                matches=tuple(_match(one) for one in matches),
                filters=tuple(filters),
                session_persistence=session,
                backend_refs=tuple(
                    one
                    if isinstance(one, GRPCBackendRef)
                    else GRPCBackendRef.model_validate(one.model_dump(exclude_unset=True))
                    for one in backend_refs(to)
                ),
            )
        )

    @model_validator(mode="after")
    def _rules(self) -> Self:
        filter_rules(self.filters)
        return self


class GRPCRouteSpec(Model):
    """What a GRPCRoute says."""

    parent_refs: Annotated[tuple[ParentReference, ...], Field(max_length=32)] = ()
    """What the route attaches to: Gateways, or Services of the mesh."""
    use_default_gateways: Literal["All", "None"] = "None"
    """Whether the route attaches to the default Gateways as well (experimental)."""
    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=16)] = ()
    """The hosts that the route is for, which may start with ``*.``; all if there is none."""
    rules: Annotated[tuple[GRPCRule, ...], Field(max_length=16)] = ()
    """What happens to calls; the most specific match decides, not the order."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        total_rules(self.rules)
        parent_rules(self.parent_refs)
        return self


class GRPCRoute(Resource):
    """A route of gRPC calls."""

    group: ClassVar[str] = GATEWAY_GROUP

    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: Literal["GRPCRoute"] = "GRPCRoute"
    spec: GRPCRouteSpec = Field(default_factory=GRPCRouteSpec)
    """Which calls go where."""

    @classmethod
    def of(
        cls,
        name: str,
        parents: Parent | Iterable[Parent],
        *rules: GRPCRule,
        hostnames: Iterable[str] = (),
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a route.

        Args:
            name: its name.
            parents: what it attaches to: Gateways, Services, names of Gateways, or references.
            rules: what happens to which calls.
            hostnames: the hosts that it is for, which may start with ``*.``; all if there is none.
            namespace: its namespace.
            labels: its labels.
            annotations: its annotations.
        """
        spec = given(parent_refs=parent_refs(parents), hostnames=tuple(hostnames), rules=rules)
        return cls(
            metadata=ObjectMeta.of(name, namespace, labels, annotations),
            spec=GRPCRouteSpec(**spec),
        )


def _match(one: GRPCRouteMatch | str) -> GRPCRouteMatch:
    if not isinstance(one, str):
        return one
    service, _, method = one.partition("/")
    return GRPCRouteMatch.of(service, method or None)
