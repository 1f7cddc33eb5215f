"""How connections to Services are made: what all policies about backends come to."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from kgw.api import loaded
from kgw.attach import static_backends
from kgw.attach.backend_config import BackendConfig
from kgw.attach.backend_tls import BackendTLS
from kgw.attach.backend_traffic import BackendTraffic
from kgw.attach.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.api import ResourceKey
    from kgw.api.core.service import ServicePort
    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import AnyService, Index, Named
    from kgw.attach.routes import RouteState
    from kgw.attach.streams import StreamState
    from kgw.attach.waypoints import Binding


class Upstreams:
    """The policies about backends."""

    def __init__(self, index: Index) -> None:
        self.tls: BackendTLS = BackendTLS(index)
        self.traffic: BackendTraffic = BackendTraffic(index)
        self.config: BackendConfig = BackendConfig(index)
        every: list[AnyService] = [*index.services.values(), *index.backends.values()]
        self.config.contend(
            frozenset(
                service.key
                for service in every
                if all(self.tls.of(service, port) for port in service.spec.ports)
            )
        )

    def of(
        self,
        gateway: GatewayState,
        service: AnyService,
        port: ServicePort,
        *,
        passes_tls: bool = False,
    ) -> Upstream:
        """How a Gateway makes connections to a port.

        Args:
            gateway: whose connections they are.
            service: where they go.
            port: to which port of it.
            passes_tls: whether they carry the TLS of clients, as it is: then there is none around
                it, whatever policies say of TLS.
        """
        if passes_tls:
            if isinstance(service, loaded.ServiceImport):
                return Upstream()
            return self.config.of(service, tls=False)
        policy = self.tls.of(service, port)
        found = Upstream()
        if not isinstance(service, loaded.ServiceImport):  # kgateway's policies are for Services
            found = self.config.of(service, tls=policy is None)
        budget = self.traffic.retry_budget(service)
        if budget is not None:
            found = replace(found, retry_budget=budget)
        if policy is not None and policy.tls is None:
            return replace(found, broken=f"{policy.policy.key}: {policy.accepted.message}")
        tls = found.tls if policy is None else policy.tls
        if tls is None:
            # No client certificate: whoever a client names could ask for it.
            return replace(found, tls=static_backends.own_tls(service))
        if tls.certificate is not None:
            return replace(found, tls=tls)
        if not gateway.resolved.ok:
            return replace(found, broken=gateway.resolved.message)
        return replace(found, tls=replace(tls, certificate=gateway.client_certificate))


def users(
    routes: Iterable[RouteState | StreamState], bindings: dict[ResourceKey, Binding]
) -> dict[ResourceKey, set[Named]]:
    """The Gateways that send requests to each Service."""
    found: dict[ResourceKey, set[Named]] = defaultdict(set)
    for key, binding in bindings.items():
        if binding.state is not None:
            found[key].add(binding.state.named)
    for state in routes:
        gateways = {
            parent.gateway.named
            for parent in state.parents
            if parent.gateway is not None and parent.accepted.ok
        }
        gateways.update(named for root in state.through for named in root.gateways)
        for rule in state.backends:
            for backend in rule:
                if backend.service is not None:
                    found[backend.service.key] |= gateways
    return found
