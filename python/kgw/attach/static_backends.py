"""Backends of kgateway: hosts that are listed or that requests name, and what is wrong with them.

A Backend stands where a Service does: policies of backends are for it, and other namespaces need a
ReferenceGrant. It has one port, which no reference names.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, Final

from kgw.api import loaded
from kgw.attach.status import Outcome
from kgw.attach.upstream import Tls

if TYPE_CHECKING:
    from kgw.api import Backend, Opaque
    from kgw.api.gateway.backend_object import BackendObjectReference
    from kgw.attach.index import AnyService, Index
    from kgw.attach.options import PolicyOptions


#: The kinds of routes whose requests name a host.
_NAMING: Final = frozenset({"HTTPRoute", "GRPCRoute"})


@dataclass(frozen=True, slots=True)
class BackendState:
    """A Backend and whether it can be used."""

    backend: Backend | Opaque
    accepted: Outcome


def resolve(index: Index) -> list[BackendState]:
    """All Backends."""
    found = [BackendState(one, accepted(one)) for one in index.backends.values()]
    for key, refused in index.refused.items():
        if (key.group, key.kind) == ("gateway.kgateway.dev", "Backend"):
            outcome = Outcome(False, "Invalid", index.refusal(key) or "")
            found.append(BackendState(refused, outcome))
    return found


def accepted(backend: Backend) -> Outcome:
    """Whether a Backend can be used."""
    errors = [one.message for one in backend.defects]
    if errors:
        return Outcome(False, "Invalid", "; ".join(errors))
    return Outcome(True, "Accepted", "Backend accepted")


def problem(
    backend: Backend, ref: BackendObjectReference, kind: str
) -> tuple[Outcome | None, str, str]:
    """Why a reference of a route to a Backend leads nowhere, with its code and the field.

    Args:
        backend: what is referred to.
        ref: the reference.
        kind: the kind of the route, or of what else refers to it.
    """
    if ref.port is not None:
        # kgateway refuses it, too: what the port is, the Backend says.
        why = f"BackendRef to {backend.key} includes a port"
        return Outcome(False, "UnsupportedValue", why), "KGW307", "port"
    outcome = accepted(backend)
    if not outcome.ok:
        why = f"{backend.key} is not valid: {outcome.message}"
        return Outcome(False, "BackendNotFound", why), "KGW307", "name"
    if kind == "UDPRoute":
        why = f"{backend.key} speaks TCP, which a UDPRoute cannot"
        return Outcome(False, "UnsupportedProtocol", why), "KGW504", "name"
    if backend.spec.dynamic_forward_proxy is not None and kind not in _NAMING:
        why = f"{backend.key} is the host that a request names, and a {kind} has no such request"
        return Outcome(False, "UnsupportedProtocol", why), "KGW427", "name"
    return None, "", ""


def names_hosts(service: object) -> bool:
    """Whether requests go to the hosts that they name."""
    return isinstance(service, loaded.Backend) and service.spec.dynamic_forward_proxy is not None


def own_tls(service: AnyService) -> Tls | None:
    """The TLS that a Backend asks for by itself."""
    if not isinstance(service, loaded.Backend):
        return None
    proxy = service.spec.dynamic_forward_proxy
    return Tls("system", by_host=True) if proxy is not None and proxy.enable_tls else None


def destination(backend: Backend, options: PolicyOptions) -> dict[str, Any]:
    """The endpoints of a Backend that can be used, in the IR."""
    if backend.spec.dynamic_forward_proxy is not None:
        return {"forward_proxy": {"allow_loopback": True} if options.forward_to_loopback else {}}
    static = backend.spec.static
    assert static is not None  # one without hosts cannot be used
    endpoints, names = [], []
    for one in static.hosts:
        try:
            address = ip_address(one.host)
        except ValueError:
            names.append({"hostname": one.host, "port": one.port})
            continue
        host = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
        endpoints.append(f"{host}:{one.port}")
    if not names:
        return {"endpoints": endpoints}
    first, *more = names
    found: dict[str, Any] = {"dns": {**first, "more": more} if more else first}
    return {"endpoints": endpoints, **found} if endpoints else found
