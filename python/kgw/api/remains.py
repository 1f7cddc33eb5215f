"""What can still be read of an object that was refused.

One wrong field makes an object invalid as a whole, but it does not take away what the object is
about. What refers to others is read part by part here, so that those can be taken out of service
rather than be served as if the object had never been.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import ValidationError

from kgw.api.base import Model, without_nulls
from kgw.api.gateway.references import GATEWAY_GROUP, ParentReference
from kgw.api.kgateway.targets import PolicyTargetReference, PolicyTargetSelector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgw.api.gateway.grpc_route import GRPCRoute
    from kgw.api.gateway.http_route import HTTPRoute
    from kgw.api.gateway.tcp_route import TCPRoute
    from kgw.api.gateway.tls_route import TLSRoute
    from kgw.api.gateway.udp_route import UDPRoute
    from kgw.api.meta import Opaque

M = TypeVar("M", bound=Model)

#: Fields that narrow a reference: one that cannot be read leaves the reference to the whole.
_NARROWING = ("port", "sectionName")


def parents(refused: Opaque) -> list[tuple[int, ParentReference]]:
    """The parents of a refused route, with their places in ``spec.parentRefs``."""
    return list(_references(ParentReference, _spec(refused).get("parentRefs")))


def targets(refused: Opaque) -> list[tuple[int, PolicyTargetReference]]:
    """The targets of a refused policy, with their places in ``spec.targetRefs``."""
    return list(_references(PolicyTargetReference, _spec(refused).get("targetRefs")))


def selectors(refused: Opaque) -> list[tuple[int, PolicyTargetSelector]]:
    """The selectors of a refused policy, with their places in ``spec.targetSelectors``."""
    return list(_references(PolicyTargetSelector, _spec(refused).get("targetSelectors")))


def route(refused: Opaque) -> HTTPRoute | GRPCRoute:
    """What a refused route is about: parents, hostnames and matches, and nothing to do.

    A rule whose matches cannot be read is about all requests, and so is a route without rules.
    """
    spec = _spec(refused)
    about: dict[str, Any] = {
        "parent_refs": tuple(ref for _, ref in parents(refused)),
        "use_default_gateways": _scope(spec),
        "hostnames": _hostnames(spec),
    }
    names: dict[str, Any] = {"api_version": refused.api_version, "metadata": refused.metadata}
    found: HTTPRoute | GRPCRoute
    if refused.kind == "GRPCRoute":
        from kgw.api.gateway.grpc_route import GRPCRoute, GRPCRouteSpec, GRPCRule

        about["rules"] = _rules(GRPCRule, spec)
        found = GRPCRoute.model_construct(**names, spec=GRPCRouteSpec.model_construct(**about))
    else:
        from kgw.api.gateway.http_route import HTTPRoute, HTTPRouteSpec, Rule

        about["rules"] = _rules(Rule, spec)
        found = HTTPRoute.model_construct(**names, spec=HTTPRouteSpec.model_construct(**about))
    found._origin = refused.origin
    return found


def stream_route(refused: Opaque) -> TCPRoute | TLSRoute | UDPRoute:
    """What a refused TCPRoute, TLSRoute or UDPRoute is about: parents, hostnames, no backends."""
    from kgw.api.gateway.tcp_route import StreamRule, TCPRoute, TCPRouteSpec
    from kgw.api.gateway.tls_route import TLSRoute, TLSRouteSpec
    from kgw.api.gateway.udp_route import UDPRoute, UDPRouteSpec

    spec = _spec(refused)
    parent_refs = tuple(ref for _, ref in parents(refused))
    rules = (StreamRule.model_construct(backend_refs=()),)
    found: TCPRoute | TLSRoute | UDPRoute
    if refused.kind == "TCPRoute":
        found = TCPRoute.model_construct(
            api_version=refused.api_version,
            metadata=refused.metadata,
            spec=TCPRouteSpec.model_construct(
                parent_refs=parent_refs, use_default_gateways=_scope(spec), rules=rules
            ),
        )
    elif refused.kind == "UDPRoute":
        found = UDPRoute.model_construct(
            api_version=refused.api_version,
            metadata=refused.metadata,
            spec=UDPRouteSpec.model_construct(
                parent_refs=parent_refs, use_default_gateways=_scope(spec), rules=rules
            ),
        )
    else:
        found = TLSRoute.model_construct(
            api_version=refused.api_version,
            metadata=refused.metadata,
            spec=TLSRouteSpec.model_construct(
                parent_refs=parent_refs,
                use_default_gateways=_scope(spec),
                hostnames=_hostnames(spec),
                rules=rules,
            ),
        )
    found._origin = refused.origin
    return found


def _scope(spec: dict[str, Any]) -> Literal["All", "None"]:
    return "All" if spec.get("useDefaultGateways") == "All" else "None"


def _hostnames(spec: dict[str, Any]) -> tuple[str, ...]:
    from kgw.api.gateway.http_route import HTTPRouteSpec

    return tuple(
        host
        for text in _items(spec.get("hostnames"))
        if (part := _part(HTTPRouteSpec, {"hostnames": [text]})) is not None
        for host in part.hostnames
    )


def _rules(model: type[M], spec: dict[str, Any]) -> tuple[M, ...]:
    return tuple(_rule(model, one) for one in _items(spec.get("rules"))) or (model(),)


def _rule(model: type[M], value: Any) -> M:
    if not isinstance(value, dict):
        return model()
    kept = {key: value[key] for key in ("name", "matches") if key in value}
    for attempt in (kept, {"matches": kept.get("matches")}, {"name": kept.get("name")}):
        part = _part(model, attempt)
        if part is not None:
            return part
    return model()


def _references(model: type[M], value: Any) -> Iterator[tuple[int, M]]:
    for number, one in enumerate(_items(value)):
        if not isinstance(one, dict):
            continue
        whole = {"group": GATEWAY_GROUP} | one
        wide = {key: item for key, item in whole.items() if key not in _NARROWING}
        found = _part(model, whole) or _part(model, wide)
        if found is not None:
            yield number, found


def _part(model: type[M], value: dict[str, Any]) -> M | None:
    try:
        return model.model_validate(without_nulls(model, value), by_alias=True, by_name=False)
    except ValidationError:
        return None


def _spec(refused: Opaque) -> dict[str, Any]:
    return refused.spec if isinstance(refused.spec, dict) else {}


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
