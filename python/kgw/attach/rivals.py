"""HTTPRoutes and GRPCRoutes for the same requests: only routes of one of the kinds are served.

On a listener it is the older of two whose hostnames have something in common (Gateway API,
`GRPCRouteSpec.hostnames`); on a port of a Service it is the GRPCRoute, whatever the ages are
(GEP-1294). A route that leaves all that a parentRef leads to is not accepted there.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from kgw.attach.hostnames import ANY
from kgw.attach.index import REQUEST_KINDS
from kgw.attach.status import Outcome
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from kgw.attach.index import Index
    from kgw.attach.parents import ParentState
    from kgw.attach.routes import Place, RouteState
    from kgw.source.memory import FieldPath


def settle(index: Index, states: Iterable[RouteState], contested: Collection[Place]) -> None:
    """Detaches routes from places that others have, reporting it on them.

    Args:
        index: where to report.
        states: all routes of the places.
        contested: places that routes of both kinds are for.
    """
    served: dict[str, dict[str, _Hosts]] = defaultdict(
        lambda: {kind: _Hosts() for kind in REQUEST_KINDS}
    )
    for state in sorted(states, key=lambda one: (one.route.age(), one.route.kind)):
        kind = state.route.kind
        lost: dict[str, str] = {}
        for ident, hosts in state.listeners.items():
            if ident not in contested:
                continue
            others = (own for other, own in served[ident].items() if other != kind)
            winner = next((one for own in others for host in hosts if (one := own.rival(host))), "")
            if winner:
                lost[ident] = winner
            else:
                for host in hosts:
                    served[ident][kind].add(host, str(state.route.key))
        with index.reporting_to(state.findings):
            for number, parent in enumerate(state.parents):
                _detach(index, state, number, parent, lost, contested)


def _detach(
    index: Index,
    state: RouteState,
    number: int,
    parent: ParentState,
    lost: dict[str, str],
    contested: Collection[Place],
) -> None:
    """Takes from a parent what others have."""
    if not parent.accepted.ok:
        return
    winners = [lost[one.id] for one, _ in parent.listeners if one.id in lost]
    parent.listeners = [one for one in parent.listeners if one[0].id not in lost]
    if parent.service is not None and state.route.kind != "GRPCRoute":
        taken = [one.port for one in parent.addresses() if one in contested]
        parent.ports = tuple(one for one in parent.ports if one not in taken)
        winners += ["a GRPCRoute"] if taken else []
    if not winners:
        return
    whole = not parent.listeners and not parent.ports
    what = "the route has no effect" if whole else "the route has no effect on a part of its parent"
    message = f"{what}: {winners[0]} has precedence for the same requests"
    path: FieldPath = ("spec", "parentRefs", number)
    if number >= len(state.route.spec.parent_refs):
        path = ("spec", "useDefaultGateways")
    index.report(state.route, "KGW420", Severity.WARNING, message, path)
    if whole:
        parent.accepted = Outcome(False, "Conflicted", message)


class _Hosts:
    """The hostnames that routes of a kind have on a listener, with one route of each."""

    def __init__(self) -> None:
        self._own: dict[str, str] = {}
        #: The wildcards that they are covered by.
        self._above: dict[str, str] = {}

    def add(self, host: str, route: str) -> None:
        """Adds a hostname of a route."""
        self._own.setdefault(host, route)
        for wider in _wider(host):
            self._above.setdefault(wider, route)

    def rival(self, host: str) -> str | None:
        """A route whose hostname has hosts in common with another one."""
        found = self._own.get(host) or self._above.get(host)
        return found or next((self._own[one] for one in _wider(host) if one in self._own), None)


def _wider(host: str) -> Iterator[str]:
    """The hostnames, other than a given one, that cover it."""
    labels = host.removeprefix("*.").split(".")
    start = 0 if host.startswith("*.") else 1
    for at in range(start, len(labels)):
        wider = f"*.{'.'.join(labels[at:])}"
        if wider != host:
            yield wider
    if host != ANY:
        yield ANY
