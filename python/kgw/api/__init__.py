"""Kubernetes objects as pydantic models, one kind a file, and how raw objects become them.

Nothing here knows what the objects mean together: that is :mod:`kgw.attach`.
"""

from __future__ import annotations

from kgw.api import remains
from kgw.api.core.config_map import ConfigMap
from kgw.api.core.namespace import Namespace
from kgw.api.core.secret import Secret
from kgw.api.core.service import Service
from kgw.api.discovery.endpoint_slice import EndpointSlice
from kgw.api.gateway.backend_tls_policy import BackendTLSPolicy
from kgw.api.gateway.gateway import Gateway
from kgw.api.gateway.gateway_class import GatewayClass
from kgw.api.gateway.http_route import HTTPRoute
from kgw.api.gateway.reference_grant import ReferenceGrant
from kgw.api.gateway.tcp_route import TCPRoute
from kgw.api.gateway.tls_route import TLSRoute
from kgw.api.kgateway.backend_config_policy import BackendConfigPolicy
from kgw.api.kgateway.http_listener_policy import HTTPListenerPolicy
from kgw.api.kgateway.listener_policy import ListenerPolicy
from kgw.api.kgateway.traffic_policy import TrafficPolicy
from kgw.api.meta import ObjectMeta, Opaque, Resource, ResourceKey
from kgw.api.parse import KINDS, Parsed, parse, parse_all

__all__ = [
    "KINDS",
    "BackendConfigPolicy",
    "BackendTLSPolicy",
    "ConfigMap",
    "EndpointSlice",
    "Gateway",
    "GatewayClass",
    "HTTPListenerPolicy",
    "HTTPRoute",
    "ListenerPolicy",
    "Namespace",
    "ObjectMeta",
    "Opaque",
    "Parsed",
    "ReferenceGrant",
    "Resource",
    "ResourceKey",
    "Secret",
    "Service",
    "TCPRoute",
    "TLSRoute",
    "TrafficPolicy",
    "parse",
    "parse_all",
    "remains",
]
