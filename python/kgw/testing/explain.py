"""Why a request is answered as it is: the routes that could have served it, and the policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgw.attach.index import REQUEST_KINDS
from kgw.attach.policies import Place
from kgw.explaining import candidates
from kgw.explaining.origins import place_of, sharing
from kgw.routing import canonical_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.config import Config

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
    hosts = ir["route_tables"][table]["hosts"]
    if not any(one["rules"] for one in hosts):
        names = ", ".join(one["hostname"] for one in hosts) or "no host"
        return [f"no route is attached here (there is {names})"]
    try:
        path = canonical_path(target)
    except ValueError as error:
        return [f"no route is looked for: {error}"]
    found = candidates.considered(config, table, method, path, host, headers)
    # A line begins with the place among the routes given, which means nothing here.
    lines = [
        f"{ir['routes'][rule['route']]['name']}: {str(one).partition(': ')[2]}"
        for rule, one in found
    ]
    return lines or [f"no route has a hostname that matches {host!r}"]


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
    for kind in REQUEST_KINDS if route is not None else ():
        found = place_of(config, gateway, section, f"{kind.lower()}/{route}")
        place = place if found.route is None else found
    states = [] if route is None else attachment.policies.traffic(place)
    states += attachment.policies.listener_settings(gateway.named, sharing(gateway, section))
    return tuple(dict.fromkeys(str(state.policy.key) for state in states))
