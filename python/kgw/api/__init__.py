"""Kubernetes objects as pydantic models, one kind a file, and how raw objects become them.

Nothing here knows what the objects mean together: that is :mod:`kgw.attach`.
Models are imported when they are first used, here and in :mod:`kgw.api.kinds`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kgw.api.kinds import HOMES, KINDS
from kgw.api.parse import Parsed, examine, parse, parse_all

if TYPE_CHECKING:
    from kgw.api import remains as remains
    from kgw.api.core.config_map import ConfigMap as ConfigMap
    from kgw.api.core.namespace import Namespace as Namespace
    from kgw.api.core.secret import Secret as Secret
    from kgw.api.core.service import Service as Service
    from kgw.api.core.service import ServicePort as ServicePort
    from kgw.api.discovery.endpoint_slice import EndpointSlice as EndpointSlice
    from kgw.api.documents import dumps as dumps
    from kgw.api.documents import loads as loads
    from kgw.api.duration import Duration as Duration
    from kgw.api.gateway.backend_tls_policy import BackendTLSPolicy as BackendTLSPolicy
    from kgw.api.gateway.filters import Filter as Filter
    from kgw.api.gateway.gateway import Gateway as Gateway
    from kgw.api.gateway.gateway import Listener as Listener
    from kgw.api.gateway.gateway_class import GatewayClass as GatewayClass
    from kgw.api.gateway.grpc_route import GRPCBackendRef as GRPCBackendRef
    from kgw.api.gateway.grpc_route import GRPCFilter as GRPCFilter
    from kgw.api.gateway.grpc_route import GRPCRoute as GRPCRoute
    from kgw.api.gateway.grpc_route import GRPCRouteMatch as GRPCRouteMatch
    from kgw.api.gateway.grpc_route import GRPCRule as GRPCRule
    from kgw.api.gateway.http_route import HTTPRoute as HTTPRoute
    from kgw.api.gateway.http_route import PathMatch as PathMatch
    from kgw.api.gateway.http_route import RouteMatch as RouteMatch
    from kgw.api.gateway.http_route import Rule as Rule
    from kgw.api.gateway.listener_set import ListenerSet as ListenerSet
    from kgw.api.gateway.reference_grant import ReferenceGrant as ReferenceGrant
    from kgw.api.gateway.references import BackendRef as BackendRef
    from kgw.api.gateway.references import HTTPBackendRef as HTTPBackendRef
    from kgw.api.gateway.references import ParentReference as ParentReference
    from kgw.api.gateway.retry import Retry as Retry
    from kgw.api.gateway.session_persistence import SessionPersistence as SessionPersistence
    from kgw.api.gateway.tcp_route import TCPRoute as TCPRoute
    from kgw.api.gateway.tls_route import TLSRoute as TLSRoute
    from kgw.api.gateway.udp_route import UDPRoute as UDPRoute
    from kgw.api.gateway.x_backend import XBackend as XBackend
    from kgw.api.gateway.x_backend_traffic_policy import (
        XBackendTrafficPolicy as XBackendTrafficPolicy,
    )
    from kgw.api.gateway.x_mesh import XMesh as XMesh
    from kgw.api.jsonschema import json_schema as json_schema
    from kgw.api.kgateway.access_log import AccessLog as AccessLog
    from kgw.api.kgateway.backend import Backend as Backend
    from kgw.api.kgateway.backend_config_policy import BackendConfigPolicy as BackendConfigPolicy
    from kgw.api.kgateway.direct_response import DirectResponse as DirectResponse
    from kgw.api.kgateway.gateway_extension import GatewayExtension as GatewayExtension
    from kgw.api.kgateway.http_listener_policy import HTTPListenerPolicy as HTTPListenerPolicy
    from kgw.api.kgateway.http_settings import HTTPSettings as HTTPSettings
    from kgw.api.kgateway.listener_policy import ListenerPolicy as ListenerPolicy
    from kgw.api.kgateway.listener_policy import ProxyProtocol as ProxyProtocol
    from kgw.api.kgateway.targets import PolicyTargetReference as PolicyTargetReference
    from kgw.api.kgateway.traffic_policy import LocalRateLimit as LocalRateLimit
    from kgw.api.kgateway.traffic_policy import TrafficPolicy as TrafficPolicy
    from kgw.api.kgw.test import Test as Test
    from kgw.api.meta import ObjectMeta as ObjectMeta
    from kgw.api.meta import Opaque as Opaque
    from kgw.api.meta import Resource as Resource
    from kgw.api.meta import ResourceKey as ResourceKey
    from kgw.api.multicluster.service_import import ServiceImport as ServiceImport

__all__ = [
    "KINDS",
    "AccessLog",
    "Backend",
    "BackendConfigPolicy",
    "BackendRef",
    "BackendTLSPolicy",
    "ConfigMap",
    "DirectResponse",
    "Duration",
    "EndpointSlice",
    "Filter",
    "GRPCBackendRef",
    "GRPCFilter",
    "GRPCRoute",
    "GRPCRouteMatch",
    "GRPCRule",
    "Gateway",
    "GatewayClass",
    "GatewayExtension",
    "HTTPBackendRef",
    "HTTPListenerPolicy",
    "HTTPRoute",
    "HTTPSettings",
    "Listener",
    "ListenerPolicy",
    "ListenerSet",
    "LocalRateLimit",
    "Namespace",
    "ObjectMeta",
    "Opaque",
    "ParentReference",
    "Parsed",
    "PathMatch",
    "PolicyTargetReference",
    "ProxyProtocol",
    "ReferenceGrant",
    "Resource",
    "ResourceKey",
    "Retry",
    "RouteMatch",
    "Rule",
    "Secret",
    "Service",
    "ServiceImport",
    "ServicePort",
    "SessionPersistence",
    "TCPRoute",
    "TLSRoute",
    "Test",
    "TrafficPolicy",
    "UDPRoute",
    "XBackend",
    "XBackendTrafficPolicy",
    "XMesh",
    "dumps",
    "examine",
    "json_schema",
    "loads",
    "parse",
    "parse_all",
    "remains",
]

_OTHERS = {
    "AccessLog": "kgw.api.kgateway.access_log",
    "BackendRef": "kgw.api.gateway.references",
    "Filter": "kgw.api.gateway.filters",
    "GRPCBackendRef": "kgw.api.gateway.grpc_route",
    "GRPCFilter": "kgw.api.gateway.grpc_route",
    "GRPCRouteMatch": "kgw.api.gateway.grpc_route",
    "GRPCRule": "kgw.api.gateway.grpc_route",
    "HTTPBackendRef": "kgw.api.gateway.references",
    "HTTPSettings": "kgw.api.kgateway.http_settings",
    "Listener": "kgw.api.gateway.gateway",
    "LocalRateLimit": "kgw.api.kgateway.traffic_policy",
    "ParentReference": "kgw.api.gateway.references",
    "PathMatch": "kgw.api.gateway.http_route",
    "PolicyTargetReference": "kgw.api.kgateway.targets",
    "ProxyProtocol": "kgw.api.kgateway.listener_policy",
    "Retry": "kgw.api.gateway.retry",
    "RouteMatch": "kgw.api.gateway.http_route",
    "Rule": "kgw.api.gateway.http_route",
    "ServicePort": "kgw.api.core.service",
    "SessionPersistence": "kgw.api.gateway.session_persistence",
    "Duration": "kgw.api.duration",
    "ObjectMeta": "kgw.api.meta",
    "Opaque": "kgw.api.meta",
    "Resource": "kgw.api.meta",
    "ResourceKey": "kgw.api.meta",
    "dumps": "kgw.api.documents",
    "json_schema": "kgw.api.jsonschema",
    "loads": "kgw.api.documents",
}


if not TYPE_CHECKING:  # for a type checker, every name would exist

    def __getattr__(name: str) -> Any:
        """Imports a name on its first use (PEP 562)."""
        home = HOMES.get(name) or _OTHERS.get(name)
        if home is None:
            raise AttributeError(f"module 'kgw.api' has no attribute {name!r}")
        value = getattr(importlib.import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Returns the names, imported or not."""
    return sorted({*globals(), *__all__})
