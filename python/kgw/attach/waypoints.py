"""Which waypoint serves a Service, as Istio decides it.

The label ``istio.io/use-waypoint`` of the Service counts, else that of its namespace; ``none`` opts
out. A named waypoint that is missing or does not accept the Service is *not* replaced by another:
Istio then lets the traffic pass at layer 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgw.attach.gateways import Role
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from kgw.api import Service
    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import Index, Named

USE_WAYPOINT: Final = "istio.io/use-waypoint"
USE_WAYPOINT_NAMESPACE: Final = "istio.io/use-waypoint-namespace"
WAYPOINT_FOR: Final = "istio.io/waypoint-for"
GATEWAY_NAME: Final = "gateway.networking.k8s.io/gateway-name"


@dataclass(frozen=True, slots=True)
class Binding:
    """The waypoint that a Service's labels name."""

    namespace: str
    name: str
    #: The waypoint, if kgw serves it and it accepts the Service.
    state: GatewayState | None


def resolve(index: Index, gateways: dict[Named, GatewayState]) -> dict[Named, Binding]:
    """The waypoints of all Services that have one."""
    bindings = {}
    for named, service in index.services.items():
        binding = _bind(index, gateways, service)
        if binding is not None:
            bindings[named] = binding
    return bindings


def own_service(state: GatewayState, service: Service) -> bool:
    """Whether a Service is the one that leads to a Gateway: its endpoints are the proxies."""
    selector = service.spec.selector
    return (service.namespace, selector.get(GATEWAY_NAME)) == state.named


def _bind(index: Index, gateways: dict[Named, GatewayState], service: Service) -> Binding | None:
    labels = service.metadata.labels
    namespaced = USE_WAYPOINT not in labels
    if namespaced:
        labels = index.namespace_labels(service.namespace)
    name = labels.get(USE_WAYPOINT)
    if not name or name == "none":
        return None
    namespace = labels.get(USE_WAYPOINT_NAMESPACE) or service.namespace
    state = gateways.get((namespace, name))
    if state is None and (namespace, name) in index.gateways:
        return Binding(namespace, name, None)  # another controller's waypoint
    problem = _problem(index, state, service, f"{namespace}/{name}")
    if problem is not None:
        index.report(
            service,
            "KGW311",
            Severity.WARNING,
            problem + "; its traffic passes no waypoint",
            () if namespaced else ("metadata", "labels", USE_WAYPOINT),
        )
        return None
    return Binding(namespace, name, state)


def _problem(index: Index, state: GatewayState | None, service: Service, name: str) -> str | None:
    """Why a waypoint does not serve a Service, if so."""
    if state is None:
        return f"waypoint {name} does not exist"
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
