"""What the backendRefs of a route refer to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgw.api import ResourceKey, loaded
from kgw.api.gateway.references import GATEWAY_GROUP, BackendRef
from kgw.attach import external, static_backends
from kgw.attach.index import BACKEND_KINDS
from kgw.attach.status import Outcome
from kgw.diagnostics import Severity, suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgw.api import (
        GatewayExtension,
        HTTPListenerPolicy,
        ListenerPolicy,
        Resource,
        XBackend,
    )
    from kgw.api.core.service import ServicePort
    from kgw.api.gateway.backend_object import BackendObjectReference
    from kgw.attach.index import AnyService, Index
    from kgw.attach.parents import Route
    from kgw.source.memory import FieldPath

    #: What has references to backends.
    Owner = Route | GatewayExtension | HTTPListenerPolicy | ListenerPolicy


#: Group and kind of what stands for other routes: their name, or a label.
DELEGATING: Final = ((GATEWAY_GROUP, "HTTPRoute"), ("delegation.kgateway.dev", "label"))

_RESOLVED: Final = Outcome(True, "ResolvedRefs", "Successfully resolved all references")

#: The worst first.
_REASONS: Final = (
    "InvalidKind",
    "RefNotPermitted",
    "BackendNotFound",
    "UnsupportedProtocol",
    "UnsupportedValue",
)


@dataclass(frozen=True, slots=True)
class Backend:
    """A backendRef and what it resolves to."""

    ref: BackendObjectReference
    service: AnyService | None
    port: ServicePort | None
    #: Why there is no service and port.
    problem: Outcome | None
    #: Why a route of a Gateway may not refer to it; routes of the mesh need no grant (GEP-1294).
    denial: Outcome | None
    #: What it is, if it is no Service.
    external: XBackend | None = None
    #: Whether it stands for other routes: `kgw.attach.delegation`.
    delegates: bool = False
    #: Why these take no requests, or not all that they should, if so.
    unserved: Outcome | None = None

    @property
    def weight(self) -> int:
        """The share of the requests that it gets, against that of the others."""
        return self.ref.weight if isinstance(self.ref, BackendRef) else 1

    def failure(self, mesh: bool) -> Outcome | None:
        """Why requests cannot go there, if so; the spec's order of reasons."""
        if self.problem is not None and self.problem.reason == "InvalidKind":
            return self.problem
        return (None if mesh else self.denial) or self.problem or self.unserved


def resolved(backends: Iterable[Backend], mesh: bool) -> Outcome:
    """Whether all references resolve, for a parent of the mesh or a Gateway."""
    failures = [one for backend in backends if (one := backend.failure(mesh)) is not None]
    return min(failures, key=lambda one: _REASONS.index(one.reason)) if failures else _RESOLVED


def report_denials(index: Index, route: Route, rules: Iterable[Iterable[Backend]]) -> None:
    """Reports references that a route of a Gateway may not make."""
    for i, rule in enumerate(rules):
        for j, backend in enumerate(rule):
            report_denial(
                index, route, backend, ("spec", "rules", i, "backendRefs", j, "namespace")
            )


def report_denial(index: Index, owner: Resource, backend: Backend, path: FieldPath) -> None:
    """Reports a reference that an object may not make."""
    if backend.denial is not None:
        index.report(owner, "KGW308", Severity.ERROR, backend.denial.message, path)


def report_filter_denials(index: Index, route: Route, filters: Mapping[FieldPath, Backend]) -> None:
    """The same of references in filters, by the places of these."""
    for path, backend in filters.items():
        report_denial(index, route, backend, path)


def resolve(index: Index, route: Owner, ref: BackendObjectReference, path: FieldPath) -> Backend:
    """Resolves a backendRef, reporting what is wrong with it on the route, or what else has it."""
    if route.kind == "HTTPRoute" and (ref.group, ref.kind) in DELEGATING:
        return Backend(ref, None, None, None, None, delegates=True)
    if (ref.group, ref.kind) == external.KIND:
        found = external.find(index, route, ref, path)
        if isinstance(found, Outcome):
            return Backend(ref, None, None, found, None)
        return Backend(ref, None, None, None, None, found)
    key = ResourceKey(ref.group, ref.kind, ref.namespace or route.namespace, ref.name)
    if (ref.group, ref.kind) not in BACKEND_KINDS:
        problem = Outcome(False, "InvalidKind", f"{ref.group}/{ref.kind} is not a kind of backend")
        legal = ", ".join(kind for _, kind in BACKEND_KINDS)
        _report(index, route, "KGW309", problem, (*path, "kind"), legal=legal)
        return Backend(ref, None, None, problem, None)
    denial = None
    if key.namespace != route.namespace and not index.granted(
        (route.group, route.kind, route.namespace), key
    ):
        denial = Outcome(
            False,
            "RefNotPermitted",
            f"no ReferenceGrant in namespace {key.namespace} permits {route.kind}s of namespace "
            f"{route.namespace} to refer to {key.kind} {ref.name}",
        )
    service = index.destination(key)
    if service is None:
        codes = index.refusal_codes(ref.group, ref.kind, (key.namespace, key.name))
        refused = codes is not None and ref.kind == "Backend"
        why = f"{key} is not valid ({codes})" if refused else f"{key} not found"
        problem = Outcome(False, "BackendNotFound", why)
        near = suggest(ref.name, (one for ns, one in index.named(key.kind) if ns == key.namespace))
        _report(index, route, "KGW307", problem, (*path, "name"), near=near)
        return Backend(ref, None, None, problem, denial)
    if isinstance(service, loaded.Backend):
        wrong, code, field = static_backends.problem(service, ref, route.kind)
        if wrong is not None:
            _report(index, route, code, wrong, (*path, field))
            return Backend(ref, None, None, wrong, denial)
        return Backend(ref, service, service.spec.ports[0], None, denial)
    if service.spec.type == "ExternalName":
        problem = Outcome(False, "UnsupportedValue", f"{key} is of type ExternalName")
        _report(index, route, "KGW506", problem, (*path, "name"))
        return Backend(ref, None, None, problem, denial)
    protocol = "UDP" if route.kind == "UDPRoute" else "TCP"
    port = service.port(ref.port or 0, protocol)
    if port is None:
        other = next((one for one in service.spec.ports if one.port == ref.port), None)
        if other is not None:
            text = f"port {ref.port} of {key} is a {other.protocol} port"
            problem = Outcome(False, "UnsupportedProtocol", text)
            _report(index, route, "KGW504", problem, (*path, "port"), legal=f"a {protocol} port")
            return Backend(ref, service, None, problem, denial)
        problem = Outcome(False, "BackendNotFound", f"{key} has no {protocol} port {ref.port}")
        fitting = (one.port for one in service.spec.ports if one.protocol == protocol)
        numbers = ", ".join(str(one) for one in fitting)
        _report(index, route, "KGW307", problem, (*path, "port"), legal=numbers or None)
        return Backend(ref, service, None, problem, denial)
    return Backend(ref, service, port, None, denial)


def _report(
    index: Index,
    route: Owner,
    code: str,
    problem: Outcome,
    path: FieldPath,
    *,
    legal: str | None = None,
    near: str | None = None,
) -> None:
    hint = f"did you mean `{near}`?" if near else None
    index.report(route, code, Severity.ERROR, problem.message, path, legal=legal, hint=hint)
