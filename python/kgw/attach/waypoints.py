"""Which waypoint serves a Service, as Istio decides it.

The label ``istio.io/use-waypoint`` of the Service counts, else that of its namespace; ``none`` opts
out. A named waypoint that is missing or does not accept the Service is *not* replaced by another:
Istio then lets the traffic pass at layer 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgw.attach.gateways import Role
from kgw.attach.infrastructure import GATEWAY_NAME, short_name
from kgw.diagnostics import Severity, suggest

if TYPE_CHECKING:
    from kgw.api import Namespace, ResourceKey
    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import Index, MeshService, Named

USE_WAYPOINT: Final = "istio.io/use-waypoint"
USE_WAYPOINT_NAMESPACE: Final = "istio.io/use-waypoint-namespace"
WAYPOINT_FOR: Final = "istio.io/waypoint-for"


@dataclass(frozen=True, slots=True)
class Binding:
    """The waypoint that a Service's labels name."""

    namespace: str
    name: str
    #: The waypoint, if kgw serves it and it accepts the Service.
    state: GatewayState | None


def resolve(index: Index, gateways: dict[Named, GatewayState]) -> dict[ResourceKey, Binding]:
    """The waypoints of all Services and ServiceImports that have one."""
    bindings = {}
    told: set[tuple[ResourceKey, str]] = set()
    services: list[MeshService] = [*index.services.values(), *index.imports.values()]
    for service in services:
        binding = _bind(index, gateways, service, told)
        if binding is not None:
            bindings[service.key] = binding
    return bindings


def own_service(state: GatewayState, service: MeshService) -> bool:
    """Whether a Service is the one that leads to a Gateway: its endpoints are the proxies."""
    selector = service.spec.selector
    namespace, name = state.named
    return (service.namespace, selector.get(GATEWAY_NAME)) == (namespace, short_name(name))


def _bind(
    index: Index,
    gateways: dict[Named, GatewayState],
    service: MeshService,
    told: set[tuple[ResourceKey, str]],
) -> Binding | None:
    """The waypoint of one Service.

    Args:
        index: where to look things up, and to report to.
        gateways: the Gateways that kgw serves.
        service: whose waypoint it is.
        told: what was reported already; a namespace's label counts for many Services.
    """
    holder: MeshService | Namespace = service
    labels = service.metadata.labels
    if USE_WAYPOINT not in labels:
        if (holder := index.namespaces.get(service.namespace) or service) is service:
            return None
        labels = holder.metadata.labels
    name = labels.get(USE_WAYPOINT)
    if not name or name == "none":
        return None
    namespace = labels.get(USE_WAYPOINT_NAMESPACE) or service.namespace
    state = gateways.get((namespace, name))
    if state is None and (namespace, name) in index.gateways:
        return Binding(namespace, name, None)  # another controller's waypoint
    problem = _problem(index, state, service, f"{namespace}/{name}")
    if problem is None:
        return Binding(namespace, name, state)
    if (holder.key, problem) not in told:
        told.add((holder.key, problem))
        whose = "its traffic passes" if holder is service else "the traffic of its Services passes"
        index.report(
            holder,
            "KGW311",
            Severity.WARNING,
            f"{problem}; {whose} no waypoint",
            ("metadata", "labels", USE_WAYPOINT),
            hint=_near(gateways, namespace, name) if state is None else None,
        )
    return None


def _near(gateways: dict[Named, GatewayState], namespace: str, name: str) -> str | None:
    """What may be meant by the name of a waypoint that does not exist."""
    waypoints = [named for named, one in gateways.items() if one.role is Role.WAYPOINT]
    near = suggest(name, (one for where, one in waypoints if where == namespace))
    if near is not None:
        return f"did you mean `{near}`?"
    elsewhere = next((where for where, one in waypoints if one == name), None)
    if elsewhere is not None:
        return f"namespace `{elsewhere}` has it: add `{USE_WAYPOINT_NAMESPACE}: {elsewhere}`"
    return None


def _problem(
    index: Index, state: GatewayState | None, service: MeshService, name: str
) -> str | None:
    """Why a waypoint does not serve a Service, if so."""
    if state is None:
        refused = index.is_refused("Gateway", tuple(name.split("/", 1)))
        return f"waypoint {name} {'is not valid' if refused else 'does not exist'}"
    if state.role is not Role.WAYPOINT:
        return f"Gateway {name} is not a waypoint"
    listener = state.proxy_listener
    if listener is None or state.refusal is not None:
        return f"waypoint {name} is not valid"
    kinds = state.gateway.metadata.labels.get(WAYPOINT_FOR)
    if kinds is None:
        declared = index.classes.get(state.gateway.spec.gateway_class_name)
        kinds = declared.metadata.labels.get(WAYPOINT_FOR) if declared else None
    if (kinds or "service") not in ("service", "all"):
        return f"waypoint {name} is not for services ({WAYPOINT_FOR}: {kinds})"
    if service.namespace != state.gateway.namespace and not listener.allows_namespace(
        index, service.namespace
    ):
        return f"waypoint {name} does not allow services of namespace {service.namespace}"
    return None
