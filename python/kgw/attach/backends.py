"""What the backendRefs of a route refer to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgw.api.gateway.references import GATEWAY_GROUP
from kgw.attach.protocols import HTTP2, NOT_HTTP
from kgw.attach.status import Outcome
from kgw.diagnostics import Severity, suggest

if TYPE_CHECKING:
    from kgw.api import HTTPRoute, Service
    from kgw.api.core.service import ServicePort
    from kgw.api.gateway.references import HTTPBackendRef
    from kgw.attach.index import Index
    from kgw.source.memory import FieldPath


@dataclass(frozen=True, slots=True)
class Backend:
    """A backendRef and what it resolves to."""

    ref: HTTPBackendRef
    service: Service | None
    port: ServicePort | None
    #: Why there is no service and port.
    problem: Outcome | None
    #: Why a route of a Gateway may not refer to it; routes of the mesh need no grant (GEP-1294).
    denial: Outcome | None

    def failure(self, mesh: bool) -> Outcome | None:
        """Why requests cannot go there, if so; the spec's order of reasons."""
        if self.problem is not None and self.problem.reason == "InvalidKind":
            return self.problem
        return (None if mesh else self.denial) or self.problem


def resolve(index: Index, route: HTTPRoute, ref: HTTPBackendRef, path: FieldPath) -> Backend:
    """Resolves a backendRef, reporting what is wrong with it on the route."""
    namespace = ref.namespace or route.namespace
    if (ref.group, ref.kind) != ("", "Service"):
        problem = Outcome(False, "InvalidKind", f"{ref.group}/{ref.kind} is not a kind of backend")
        _report(index, route, "KGW309", problem, (*path, "kind"), legal="Service")
        return Backend(ref, None, None, problem, None)
    denial = None
    if namespace != route.namespace and not index.granted(
        (GATEWAY_GROUP, "HTTPRoute", route.namespace), ("", "Service", namespace, ref.name)
    ):
        denial = Outcome(
            False,
            "RefNotPermitted",
            f"no ReferenceGrant in namespace {namespace} permits HTTPRoutes of namespace "
            f"{route.namespace} to refer to Service {ref.name}",
        )
    service = index.services.get((namespace, ref.name))
    name = f"{namespace}/{ref.name}"
    if service is None:
        problem = Outcome(False, "BackendNotFound", f"Service {name} not found")
        near = suggest(ref.name, (one for ns, one in index.services if ns == namespace))
        _report(index, route, "KGW307", problem, (*path, "name"), near=near)
        return Backend(ref, None, None, problem, denial)
    if service.spec.type == "ExternalName":
        problem = Outcome(False, "UnsupportedValue", f"Service {name} is of type ExternalName")
        _report(index, route, "KGW506", problem, (*path, "name"))
        return Backend(ref, None, None, problem, denial)
    port = service.port(ref.port or 0)
    if port is None:
        problem = Outcome(False, "BackendNotFound", f"Service {name} has no TCP port {ref.port}")
        legal = ", ".join(str(one.port) for one in service.spec.ports if one.protocol == "TCP")
        _report(index, route, "KGW307", problem, (*path, "port"), legal=legal or None)
        return Backend(ref, service, None, problem, denial)
    # A name is a habit, `appProtocol` a declaration: a backend of another protocol is not valid
    # (GEP-1911).
    protocol = port.app_protocol
    if protocol is not None and protocol.lower() in NOT_HTTP | HTTP2:
        text = f"port {port.port} of Service {name} speaks {protocol}, which is not supported"
        problem = Outcome(False, "UnsupportedProtocol", text)
        _report(index, route, "KGW504", problem, (*path, "port"), legal="http")
        return Backend(ref, service, None, problem, denial)
    return Backend(ref, service, port, None, denial)


def _report(
    index: Index,
    route: HTTPRoute,
    code: str,
    problem: Outcome,
    path: FieldPath,
    *,
    legal: str | None = None,
    near: str | None = None,
) -> None:
    hint = f"did you mean `{near}`?" if near else None
    index.report(route, code, Severity.ERROR, problem.message, path, legal=legal, hint=hint)
