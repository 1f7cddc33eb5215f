"""The kinds that kgw reads, and where the model of each is.

A model is imported when an object of its kind comes: most configurations have objects of a few
kinds only, and pydantic takes a millisecond of every start for each class.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgw.api.meta import Resource

GATEWAY_GROUP: Final = "gateway.networking.k8s.io"
"""The Gateway API's group."""

X_GATEWAY_GROUP: Final = "gateway.networking.x-k8s.io"
"""The group of what the Gateway API tries out."""

KGATEWAY_GROUP: Final = "gateway.kgateway.dev"
"""The group of kgateway's policies."""

MULTICLUSTER_GROUP: Final = "multicluster.x-k8s.io"
"""The group of the Multi-Cluster Services API."""

KGW_GROUP: Final = "kgw.dev"
"""kgw's own group."""

_MODULES: Final[Mapping[tuple[str, str], str]] = {
    (KGATEWAY_GROUP, "Backend"): "kgw.api.kgateway.backend",
    (KGATEWAY_GROUP, "BackendConfigPolicy"): "kgw.api.kgateway.backend_config_policy",
    (GATEWAY_GROUP, "BackendTLSPolicy"): "kgw.api.gateway.backend_tls_policy",
    ("", "ConfigMap"): "kgw.api.core.config_map",
    (KGATEWAY_GROUP, "DirectResponse"): "kgw.api.kgateway.direct_response",
    ("discovery.k8s.io", "EndpointSlice"): "kgw.api.discovery.endpoint_slice",
    (GATEWAY_GROUP, "Gateway"): "kgw.api.gateway.gateway",
    (KGATEWAY_GROUP, "GatewayExtension"): "kgw.api.kgateway.gateway_extension",
    (GATEWAY_GROUP, "GatewayClass"): "kgw.api.gateway.gateway_class",
    (GATEWAY_GROUP, "GRPCRoute"): "kgw.api.gateway.grpc_route",
    (KGATEWAY_GROUP, "HTTPListenerPolicy"): "kgw.api.kgateway.http_listener_policy",
    (GATEWAY_GROUP, "HTTPRoute"): "kgw.api.gateway.http_route",
    (KGATEWAY_GROUP, "ListenerPolicy"): "kgw.api.kgateway.listener_policy",
    (GATEWAY_GROUP, "ListenerSet"): "kgw.api.gateway.listener_set",
    ("", "Namespace"): "kgw.api.core.namespace",
    (GATEWAY_GROUP, "ReferenceGrant"): "kgw.api.gateway.reference_grant",
    ("", "Secret"): "kgw.api.core.secret",
    ("", "Service"): "kgw.api.core.service",
    (MULTICLUSTER_GROUP, "ServiceImport"): "kgw.api.multicluster.service_import",
    (GATEWAY_GROUP, "TCPRoute"): "kgw.api.gateway.tcp_route",
    (GATEWAY_GROUP, "TLSRoute"): "kgw.api.gateway.tls_route",
    (KGW_GROUP, "Test"): "kgw.api.kgw.test",
    (KGATEWAY_GROUP, "TrafficPolicy"): "kgw.api.kgateway.traffic_policy",
    (GATEWAY_GROUP, "UDPRoute"): "kgw.api.gateway.udp_route",
    (X_GATEWAY_GROUP, "XBackend"): "kgw.api.gateway.x_backend",
    (X_GATEWAY_GROUP, "XBackendTrafficPolicy"): "kgw.api.gateway.x_backend_traffic_policy",
    (X_GATEWAY_GROUP, "XMesh"): "kgw.api.gateway.x_mesh",
}

HOMES: Final[Mapping[str, str]] = {kind: module for (_, kind), module in _MODULES.items()}
"""The module of each kind's model, which has the kind's name."""


class _Kinds(Mapping[tuple[str, str], "type[Resource]"]):
    """Imports a model when it is looked up, and none to say which there are."""

    def __getitem__(self, key: tuple[str, str]) -> type[Resource]:
        model: type[Resource] = getattr(importlib.import_module(_MODULES[key]), key[1])
        return model

    def __contains__(self, key: object) -> bool:
        return key in _MODULES

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


KINDS: Final[Mapping[tuple[str, str], type[Resource]]] = _Kinds()
"""The model of each kind, by group and kind."""
