"""Why a request is answered as it is: the routes that could have served it, and the policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kgw.attach.policies import Place
from kgw.routing import HeaderMatch, QueryMatch, Route, RouteTable, canonical_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgw.attach.gateways import GatewayState
    from kgw.config import Config
    from kgw.translate.records import RouteRecord

__all__ = ["policies", "routes"]


def routes(
    config: Config,
    table: str,
    method: str,
    target: str,
    host: str,
    headers: Iterable[tuple[str, str]],
) -> list[str]:
    """Returns a line for each route of a table whose hostname matches: selected, or why not.

    In order of precedence, as `RouteTable.explain` says them.
    """
    ir = config.ir
    rules = [
        (one["hostname"], rule)
        for one in ir["route_tables"][table]["hosts"]
        for rule in one["rules"]
    ]
    # Of equal routes the first given wins, which in the representation the rank says.
    rules.sort(key=lambda one: (one[1]["rank"]["rule"], one[1]["rank"]["match"]))
    made = [_route(hostname, rule, ir["routes"][rule["route"]]["name"]) for hostname, rule in rules]
    if not made:
        hosts = (
            ", ".join(one["hostname"] for one in ir["route_tables"][table]["hosts"]) or "no host"
        )
        return [f"no route is attached here (there is {hosts})"]
    try:
        path = canonical_path(target)
    except ValueError as error:
        return [f"no route is looked for: {error}"]
    considered = RouteTable(made).explain(path, host=host, method=method, headers=list(headers))
    # A line begins with the place among the routes given, which means nothing here.
    lines = [f"{one.value}: {str(one).partition(': ')[2]}" for one in considered]
    return lines or [f"no route has a hostname that matches {host!r}"]


def _route(hostname: str, rule: Mapping[str, Any], name: str) -> Route[str]:
    ((kind, path),) = rule["path"].items()
    return Route(
        path,
        name,
        kind=kind,
        hosts=(hostname,),
        method=rule.get("method"),
        headers=[HeaderMatch(*_value(one)) for one in rule.get("headers", ())],
        query=[QueryMatch(*_value(one)) for one in rule.get("query", ())],
        created=rule["rank"]["created"],
        name=rule["rank"]["name"],
    )


def _value(predicate: Mapping[str, Any]) -> tuple[str, str, Any]:
    ((kind, value),) = predicate["value"].items()
    return predicate["name"], value, kind


def policies(config: Config, listener: str, route: str | None) -> tuple[str, ...]:
    """Returns the policies that count for a request, as ``Kind namespace/name``.

    Those of the route come first, the most specific one in front, then those of its listener. One
    that others override as a whole is among them.

    Args:
        config: the configuration.
        listener: id of the listener.
        route: name of the route, as access logs have it.
    """
    attachment = config.translation.base.attachment
    namespace, name, section = listener.split("/", 2)
    gateway = attachment.gateways.get((namespace, name))
    if gateway is None:
        return ()
    place = Place(gateway.named, section)
    record = None if route is None else _record(config, route)
    if record is not None and route is not None:
        place = _place(config, gateway, section, record, route)
    states = [] if route is None else attachment.policies.traffic(place)
    states += attachment.policies.listener_settings(gateway.named, _sharing(gateway, section))
    return tuple(dict.fromkeys(str(state.policy.key) for state in states))


def _record(config: Config, route: str) -> RouteRecord | None:
    """The record of the HTTPRoute that a route's name is of: ``namespace/name/rule/match``."""
    parts = route.split("/")
    return config.translation.records.get((parts[0], parts[1])) if len(parts) == 4 else None


def _place(
    config: Config, gateway: GatewayState, section: str, record: RouteRecord, route: str
) -> Place:
    """Where a route of an HTTPRoute is served."""
    resource = record.state.route
    label = route.split("/")[2]
    rules = enumerate(resource.spec.rules)
    rule = next((one for number, one in rules if label in (one.name, str(number))), None)
    referred = []
    for one in rule.filters if rule is not None else ():
        if one.extension_ref is not None:
            state = config.translation.base.attachment.policies.named(
                one.extension_ref.name, (resource.namespace, resource.name)
            )
            referred += [state] if state is not None else []
    # Listeners that share a port are one for the engine; the route is attached to one of them.
    own = _sharing(gateway, section)
    prefix = "/".join(gateway.named)
    attached = [
        part.listener.removeprefix(f"{prefix}/")
        for part in record.parts
        if part.listener.startswith(f"{prefix}/")
        and any(one["route"].startswith(f"httproute/{route}@") for one in part.rules)
    ]
    listener = next((one for one in attached if one in own), section)
    named = (resource.namespace, resource.name)
    return Place(
        gateway.named, listener, named, rule.name if rule is not None else None, tuple(referred)
    )


def _sharing(gateway: GatewayState, section: str) -> list[str]:
    """The listeners of a Gateway that share the port of one of them."""
    ports = {one.spec.name: one.spec.port for one in gateway.listeners}
    return [name for name, port in ports.items() if port == ports.get(section)]
