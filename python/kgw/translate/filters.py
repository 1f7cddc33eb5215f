"""Filter chains: the order of filters, and filters from header modifiers.

gRPC-Web is translated first, so that what refuses a request is told in the client's own protocol.
For the rest the order is kgateway's: CORS comes before anything that could refuse a preflight
request, policy filters run in stages in front of the router, the Gateway API's header modifiers are
applied by the router when it has chosen the backend, and mirrors get what the backend gets. So a
request that is refused by a limit has not been modified, while response modifiers hold for the
refusal as for any answer. A service that decides about requests is told what the modifiers in front
of it in the rule have made of them.
"""

from __future__ import annotations

import re
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kgw.attach import protocols

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgw.api.core.service import ServicePort
    from kgw.api.gateway.cors import CORS
    from kgw.api.gateway.external_auth import ExternalAuth
    from kgw.api.gateway.filters import Filter, HeaderModifier, LocalObjectReference
    from kgw.api.gateway.grpc_route import GRPCFilter
    from kgw.attach.gateways import GatewayState
    from kgw.attach.listeners import ListenerState

#: The filters of the IR in the order in which they run; of some that is the rule's own. Those of
#: policies are looked for as ``policy/TYPE`` first.
ORDER: Final[tuple[str | tuple[str, ...], ...]] = (
    "grpc_web",
    "tracing",
    "fault",
    "acl",
    "cors",
    ("compression", "decompression"),
    "oauth2",
    "api_key_auth",
    "basic_auth",
    "policy/ext_authz",
    "jwt_auth",
    "rbac",
    "python",
    "ext_proc",
    "global_rate_limit",
    "local_rate_limit",
    "buffer",
    "transformation",
    ("csrf", "policy/request_headers", "policy/response_headers"),
    ("ext_authz", "request_headers"),
    "response_headers",
    "redirect",
    "rewrite",
    "mirror",
)

_OPERATOR: Final = re.compile(r"%[A-Z][A-Z_0-9]+(?:\([^)]*\))?(?::[0-9]+)?%")


def chain(
    filters: Iterable[dict[str, Any]], policies: Iterable[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Filters in the order in which they run.

    Args:
        filters: those of the rule.
        policies: those of TrafficPolicies. What has a place in a stage says so in ``stage``: the
            stage, the predicate and the weight.
    """
    ranked: list[tuple[tuple[float, int], dict[str, Any]]]
    ranked = [((_RANKS[one["type"]], 0), one) for one in filters]
    # What a rule itself says about origins has precedence.
    has_cors = any(one["type"] == "cors" for _, one in ranked)
    for one in policies:
        inner = one["filter"] if one["type"] == "shadow" else one
        kind = inner["type"]
        stage = inner.pop("stage", None)
        if stage is not None:
            ranked.append((_staged(*stage), one))
            continue
        if kind == "cors" and has_cors:
            continue
        rank = _RANKS.get(f"policy/{kind}")
        ranked.append(((_RANKS[kind] if rank is None else rank, 0), one))
    return [one for _, one in sorted(ranked, key=itemgetter(0))]


_RANKS: Final = {
    kind: rank
    for rank, kinds in enumerate(ORDER)
    for kind in ((kinds,) if isinstance(kinds, str) else kinds)
}


#: The types of what runs in a stage of kgateway's.
_STAGES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "Fault": ("fault",),
        "AuthN": ("basic_auth", "api_key_auth", "policy/ext_authz", "jwt_auth"),
        "AuthZ": ("rbac",),
        "RateLimit": ("global_rate_limit", "local_rate_limit"),
        "Route": ("csrf",),
    }
)


def _staged(stage: str, predicate: str, weight: int) -> tuple[float, int]:
    """The rank of a filter that has its place in a stage: during it, behind the others.

    Of several the one of the greatest weight runs first.
    """
    ranks = [_RANKS[kind] for kind in _STAGES[stage]]
    match predicate:
        case "Before":
            rank = min(ranks) - 0.5
        case "During":
            rank = max(ranks) + 0.25
        case _:
            rank = max(ranks) + 0.5
    return rank, -weight


def grpc_web(
    gateway: GatewayState, listener: ListenerState, ports: Iterable[ServicePort | None]
) -> list[dict[str, Any]]:
    """The filter that translates gRPC-Web: where a backend's port is declared so, or all over.

    Args:
        gateway: the Gateway that a route serves.
        listener: its listener, which may have the option.
        ports: the ports of the route's backends.
    """
    option = gateway.options([listener.section]).get("grpc-web")
    declared = any(port and protocols.declared(port) == "grpc-web" for port in ports)
    wanted = declared if option is None else option.value
    return [{"type": "grpc_web"}] if wanted else []


#: The group and kind by which an `ExtensionRef` names a filter in Python.
PYTHON_FILTER: Final = ("kgw.dev", "PythonFilter")


def is_python(ref: LocalObjectReference) -> bool:
    """Whether an extension is a filter in Python. Which ones there are, the proxy knows."""
    return (ref.group, ref.kind) == PYTHON_FILTER


class Authorizer(NamedTuple):
    """A service that decides about requests."""

    #: Nothing if the reference cannot be resolved, or no connection made: all are refused.
    cluster: str | None
    #: The host that calls are for.
    authority: str


_NO_AUTHORIZERS: Final[Mapping[int, Authorizer]] = MappingProxyType({})


def rule_filters(
    filters: Iterable[Filter | GRPCFilter], authorizers: Mapping[int, Authorizer] = _NO_AUTHORIZERS
) -> list[dict[str, Any]]:
    """The filters of header modifiers and CORS, and those in Python that are named.

    Args:
        filters: the filters.
        authorizers: what those lead to that are services which decide about requests, by the places
            of the filters; others are left out.
    """
    found: list[dict[str, Any]] = []
    for place, one in enumerate(filters):
        if one.external_auth is not None and place in authorizers:
            found.append(ext_authz(one.external_auth, authorizers[place]))
        if one.extension_ref is not None and is_python(one.extension_ref):
            found.append({"type": "python", "filter": one.extension_ref.name})
        if one.cors is not None:
            found.append(_cors(one.cors))
        for kind, modifier in (
            ("request_headers", one.request_header_modifier),
            ("response_headers", one.response_header_modifier),
        ):
            if modifier is not None:
                found.append({"type": kind, **_mutation(modifier)})
    return found


#: Time for a service to decide. The Gateway API has no field for it, and without a decision a
#: request is refused, so it is kgateway's for services over HTTP. Milliseconds.
AUTHORIZATION_TIMEOUT_MS: Final = 2_000


def ext_authz(auth: ExternalAuth, authorizer: Authorizer) -> dict[str, Any]:
    """The filter that asks a service about requests."""
    found: dict[str, Any] = {
        "type": "ext_authz",
        "cluster": authorizer.cluster,
        "timeout_ms": AUTHORIZATION_TIMEOUT_MS,
    }
    if auth.grpc is not None:
        found["service"] = {"type": "grpc", "authority": authorizer.authority}
        if auth.grpc.allowed_headers:
            found["request_headers"] = list(auth.grpc.allowed_headers)
    elif auth.http is not None:
        service: dict[str, Any] = {"type": "http"}
        if auth.http.path is not None:
            service["path_prefix"] = "/" + auth.http.path.strip("/")
        named = list(auth.http.allowed_response_headers)
        service["upstream_headers"] = named or None
        found["service"] = service
        found["request_headers"] = list(auth.http.allowed_headers)
    if auth.max_body:
        found["body"] = {"max_bytes": auth.max_body}
    return found


def mirror(cluster: str, share: tuple[int, int]) -> dict[str, Any]:
    """The filter that sends copies of a share of the requests to a cluster."""
    numerator, denominator = share
    return {
        "type": "mirror",
        "cluster": cluster,
        "numerator": numerator,
        "denominator": denominator,
    }


def _cors(cors: CORS) -> dict[str, Any]:
    return {
        "type": "cors",
        "allow_origins": list(cors.allow_origins),
        "allow_credentials": cors.allow_credentials,
        "allow_methods": list(cors.allow_methods),
        "allow_headers": list(cors.allow_headers),
        "expose_headers": list(cors.expose_headers),
        "max_age_s": cors.max_age,
    }


def _mutation(modifier: HeaderModifier) -> dict[str, Any]:
    return {
        "set": [[one.name, one.value] for one in modifier.set],
        "add": [[one.name, one.value] for one in modifier.add],
        "remove": list(modifier.remove),
    }


def operators(modifier: HeaderModifier) -> list[str]:
    """What Envoy would expand in the values of a modifier; the Gateway API takes it literally."""
    values = (one.value for one in (*modifier.set, *modifier.add))
    return [found for value in values for found in _OPERATOR.findall(value)]
