"""A translation, and what the next one is made with: what did not change is not done again.

There are three ways from one translation to the next; all of them come to the same.

1.  HTTPRoutes, GRPCRoutes and EndpointSlices alone: the records of these routes, and the clusters
    of these endpoints. That is right as long as nothing that other records stand on sees the
    change. Of such a route, only this is seen by anything else:

    *   By policies: that it exists, its labels, the names of its rules, and the Gateways and
        ListenerSets that it is attached to; by those that name it, that look for labels in its
        namespace, or for a name one may have meant there (`Targets.sees`). By those that its own
        filters refer to: that they do, and its Gateways.
    *   By a Service's port: whether it has any route of its own. Then it has no default route,
        carries requests only, and no route of connections (`Routes.by_port`).
    *   By the other services of a waypoint: whether that has any route (`Routes.by_listener`).
    *   By routes of the other kind: whether it is for the same place (`Routes.contested`).

    Of an EndpointSlice, only clusters see anything.

2.  Anything else: all that is of no such route is made anew, which costs little beside routes, and
    of routes those that look at something that is different now, or are where routes of both kinds
    are. `Readers` knows who looks at an object, and `kgw.attach.faces` what it is that they see
    there.

3.  From scratch: the first time, when two objects have one name, for kinds of objects of which it
    is not known here who looks at them, and where routes hand on requests to others: of these each
    may see any other. (Of EndpointSlices they see nothing.)
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from kgw.api import EndpointSlice, HTTPRoute, Opaque, ResourceKey
from kgw.attach import attach, delegation, faces, gateways, waypoints
from kgw.attach.attachment import complete
from kgw.attach.index import REQUEST_KINDS, is_consulted
from kgw.attach.parents import Parents
from kgw.translate import readers
from kgw.translate.clusters import Clusters
from kgw.translate.filters import is_python
from kgw.translate.listeners import Listeners
from kgw.translate.readers import Readers
from kgw.translate.records import Recorder, RouteRecord
from kgw.translate.tables import Tables
from kgw.translate.translation import Base, Hosts, Translation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from kgw.api import Resource
    from kgw.attach.attachment import Attachment
    from kgw.attach.faces import Face
    from kgw.attach.frontends import ServiceAddress
    from kgw.attach.routes import Place, RouteState
    from kgw.translate.clusters import Cluster
    from kgw.translate.options import Options
    from kgw.translate.readers import Key
    from kgw.translate.tables import Table

#: Of one key, the resource before and the one after; `None` where there is none.
Change = tuple["Resource | None", "Resource | None"]

#: A record before and after; `None` where there is none.
_Exchange = tuple["RouteRecord | None", "RouteRecord | None"]

#: Kinds of objects of which it is known who looks at them.
_KNOWN: Final = frozenset(
    {
        "Backend",
        "BackendConfigPolicy",
        "BackendTLSPolicy",
        "ConfigMap",
        "DirectResponse",
        "EndpointSlice",
        "GRPCRoute",
        "Gateway",
        "GatewayClass",
        "HTTPListenerPolicy",
        "HTTPRoute",
        "ListenerPolicy",
        "ListenerSet",
        "Namespace",
        "ReferenceGrant",
        "Secret",
        "Service",
        "ServiceImport",
        "TCPRoute",
        "TLSRoute",
        "TrafficPolicy",
        "UDPRoute",
        "XBackend",
        "XBackendTrafficPolicy",
        "XMesh",
    }
)


#: Kinds of what clusters lead to, but for endpoints.
_DESTINATIONS: Final = ("Service", "ServiceImport", "Backend")


class State:
    """The last translation, and what the next one is made with."""

    def __init__(self, resources: Sequence[Resource], options: Options) -> None:
        self._options = options
        self._unique = len({one.key for one in resources}) == len(resources)
        self._readers = Readers()
        #: How often each cluster is named.
        self._uses: Counter[str] = Counter()
        self._attachment: Attachment = attach(resources, options.policies)
        self._faces = _Faces(self._attachment)
        self._clusters = Clusters(self._attachment)
        listeners, used = self._base()
        states = self._attachment.routes.states
        records = {key: self._recorder.record(state) for key, state in states.items()}
        self.translation: Translation = self._made(listeners, used, None, records, records.keys())

    def update(self, changed: Mapping[ResourceKey, Change]) -> bool:
        """Takes changes in; returns whether it could. If not, this is of no use any more."""
        if not self._unique or not all(_is_known(*one) for one in changed.items()):
            return False
        if not all(_is_slice(key) or _is_idle(one) for key, one in changed.items()):
            delegating = any(delegation.concerns(one) for _, one in changed.values())
            if delegating or self._attachment.routes.delegating:
                return False
        if not (_is_local(changed) and self._update_routes(changed)):
            self._update_all(changed)
        return True

    # === Routes and endpoints alone ===

    def _update_routes(self, changed: Mapping[ResourceKey, Change]) -> bool:
        """Takes changes in that nothing else sees; returns whether they were such.

        If not, the index and the routes have the changes, or some of them, and nothing else has.
        """
        before = self.translation
        clusters, hosts, records = dict(before.clusters), dict(before.hosts), dict(before.records)
        for ident in self._clusters.refresh(self._put_slices(changed)):
            if ident in clusters:
                clusters[ident] = self._clusters.made[ident]
        states = self._put_routes(changed)
        if states is None:
            return False
        total, noted = before.route_count, dict(before.noted)
        for key, state in states.items():
            self._readers.put(key, state)
            old = records.pop(key, None)
            noted.pop(key, None)
            new = None
            if state is not None:
                new = records[key] = self._recorder.record(state)
                if new.findings:
                    noted[key] = new
            total += len(new.routes) if new else 0
            total -= len(old.routes) if old else 0
            self._count_clusters(clusters, old, new)
            _count_hosts(hosts, before.hosts, old, new)
        made_from = before, states.keys()
        self.translation = Translation(
            before.base, records, clusters, hosts, total, noted, made_from
        )
        return True

    def _put_slices(self, changed: Mapping[ResourceKey, Change]) -> set[ResourceKey]:
        """Puts EndpointSlices in the place of others; returns the Services they are about."""
        services: set[ResourceKey] = set()
        for key, change in changed.items():
            if _is_slice(key):
                old, new = (one if isinstance(one, EndpointSlice) else None for one in change)
                services |= self._attachment.index.put_slice(old, new)
        return services

    def _put_routes(
        self, changed: Mapping[ResourceKey, Change]
    ) -> dict[ResourceKey, RouteState | None] | None:
        """Puts routes in the place of others, unless something else sees the difference."""
        routes, index = self._attachment.routes, self._attachment.index
        targets = self._attachment.policies.targets
        states: dict[ResourceKey, RouteState | None] = {}
        claims: set[Place] = set()
        served: dict[ServiceAddress, bool] = {}
        fallback: dict[str, bool] = {}
        for key, (_, resource) in changed.items():
            if not _is_route(key):
                continue
            route = index.put_route(key, resource)
            old, new = routes.states.get(key), None if route is None else routes.attach(route)
            if targets.sees(old, new) or _referring(old) != _referring(new):
                return None
            for state in filter(None, (old, new)):
                claims.update(state.claims)
                served |= {one: one in routes.by_port for one in state.ports}
                fallback |= {
                    one: one in routes.by_listener
                    for one in state.listeners
                    if one in self._tables.fallback_listeners
                }
            states[key] = new
        if routes.contested(claims):
            return None
        for key, after in states.items():
            routes.put(key, after)
        if routes.contested(claims):
            return None
        if any(had != (one in routes.by_port) for one, had in served.items()):
            return None
        if any(had != (one in routes.by_listener) for one, had in fallback.items()):
            return None
        return states

    def _count_clusters(
        self, clusters: dict[str, Cluster], old: RouteRecord | None, new: RouteRecord | None
    ) -> None:
        """Adds the clusters that are named for the first time, removes those that nothing names."""
        for ident in new.clusters if new else ():
            self._uses[ident] += 1
            clusters[ident] = self._clusters.made[ident]
        for ident in old.clusters if old else ():
            self._uses[ident] -= 1
            if not self._uses[ident]:
                del self._uses[ident], clusters[ident]

    # === Everything else ===

    def _update_all(self, changed: Mapping[ResourceKey, Change]) -> None:
        """Takes in changes that more than routes and endpoints see."""
        before, old = self.translation, self._attachment
        index = old.index.renewed(changed)
        states = gateways.resolve(index)
        seen = {named: faces.gateway(state) for named, state in states.items()}
        renewed = faces.differing(old.gateway_faces, seen)
        bindings = waypoints.resolve(index, states)
        rebound = faces.differing(faces.bindings(old.bindings), faces.bindings(bindings))
        looked_at = {readers.key(one) for one in changed}
        looked_at |= {("Gateway", *named) for named in renewed}
        looked_at |= {readers.key(one) for one in rebound}
        # What could not be resolved may be resolved otherwise, or be told otherwise.
        looked_at.add(readers.UNRESOLVED)
        again = {one for one in changed if _is_route(one)}
        again |= self._readers.of(looked_at)
        routes = old.routes.renewed(index, Parents(index, states, bindings))
        for key in again:
            route = index.route(key)
            routes.put(key, None if route is None else routes.attach(route))
        contested = old.routes.contested() | routes.contested()
        if contested:
            # Who has a place there is decided among all of them, from the beginning.
            for key in routes.claiming(contested) - again:
                route = index.route(key)
                assert route is not None  # it is attached
                routes.put(key, routes.attach(route))
                again.add(key)
            routes.settle()

        self._attachment = attachment = complete(index, states, seen, bindings, routes)
        self._faces, was = _Faces(attachment), self._faces
        clusters, self._clusters = self._clusters, Clusters(attachment)
        upstreams = faces.differing(was.upstreams, self._faces.upstreams)
        services = {one for one in changed if one.kind in _DESTINATIONS}
        self._clusters.carry(clusters, services | upstreams, renewed)
        endpoints = {
            owner
            for change in changed.values()
            for one in change
            if isinstance(one, EndpointSlice)
            for owner in one.owners
        }
        self._clusters.refresh(endpoints)
        tables = _composition(self._tables)
        listeners, used = self._base()

        looked_at = {readers.key(one) for one in upstreams}
        looked_at |= {
            ("XBackend", *named) for named in faces.differing(was.external, self._faces.external)
        }
        looked_at |= {
            ("TrafficPolicy", *named)
            for named in faces.differing(was.referred, self._faces.referred)
        }
        targets = {target[:3] for target in faces.differing(was.targets, self._faces.targets)}
        looked_at |= {one for one in targets if one[0] in ("Gateway", "ListenerSet")}
        looked_at |= faces.differing(tables, _composition(self._tables))
        more = {ResourceKey(HTTPRoute.group, *one) for one in targets if one[0] in REQUEST_KINDS}
        called = {one for each in attachment.extensions.states.values() for one in each.services}
        if upstreams & called:
            # Connections of policies' services are made otherwise.
            more |= routes.states.keys()
        for key in (more | self._readers.of(looked_at)) - again:
            # Where routes of both kinds are, all of them are attached anew already.
            if (route := index.route(key)) is not None:
                routes.put(key, routes.attach(route))
                again.add(key)
        records = dict(before.records)
        # In their order, in which policies have those that refer to them.
        for key in sorted(again | self._readers.of_kind("TrafficPolicy")):
            state = routes.states.get(key)
            if key not in again:
                for name in records[key].referred:
                    attachment.policies.refer(name, key)
            elif state is not None:
                records[key] = self._recorder.record(state)
            else:
                records.pop(key, None)
        self.translation = self._made(listeners, used, before, records, again)

    # === What routes stand on ===

    def _base(self) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
        """Makes tables and listeners; returns the listeners, and the clusters that both name."""
        self._tables = Tables(self._attachment, self._clusters)
        self._recorder = Recorder(self._attachment, self._tables)
        with self._clusters.noting() as used:
            listeners = Listeners(self._attachment, self._tables, self._options).build()
        return listeners, tuple(used)

    def _made(
        self,
        listeners: list[dict[str, Any]],
        used: tuple[str, ...],
        before: Translation | None,
        records: dict[ResourceKey, RouteRecord],
        again: Collection[ResourceKey],
    ) -> Translation:
        """A translation on a new base.

        Args:
            listeners: the listeners.
            used: the clusters that they name.
            before: the last translation, if it is the one to count on from.
            records: those of all routes.
            again: the routes whose records are not those of the last translation.
        """
        self._attachment.policies.report_idle()
        # Attached routes have their findings themselves.
        base = Base(
            self._attachment,
            listeners,
            self._tables.every,
            self._tables.routes,
            tuple(self._attachment.index.findings),
            used,
        )
        old = {} if before is None else before.records
        changes: list[_Exchange] = [(old.get(key), records.get(key)) for key in again]
        for key in again:
            self._readers.put(key, self._attachment.routes.states.get(key))
        self._uses.subtract(() if before is None else before.base.clusters)
        self._uses.update(used)
        for was, now in changes:
            self._uses.subtract(was.clusters if was else ())
            self._uses.update(now.clusters if now else ())
        self._uses = +self._uses  # what nothing names is not counted
        clusters = {ident: self._clusters.made[ident] for ident in self._uses}
        total = len(base.routes) + sum(len(one.routes) for one in records.values())
        noted = {key: record for key, record in records.items() if record.findings}
        made_from = None if before is None else (before, again)
        hosts = _hosts(before, base.tables, changes)
        return Translation(base, records, clusters, hosts, total, noted, made_from)


class _Faces:
    """What routes see of policies."""

    def __init__(self, attachment: Attachment) -> None:
        self.targets = faces.targets(attachment.policies)
        self.referred = faces.referred(attachment.policies)
        self.upstreams = faces.upstreams(attachment.upstreams)
        self.external = faces.external(attachment.external)


def _composition(tables: Tables) -> dict[Key, Face]:
    """What routes see of the tables that they are in, by what they are attached to."""
    found: dict[Key, Face] = {
        readers.listener(ident): tuple(
            (one.name, one.port, tuple((each.id, narrower) for each, narrower in one.listeners))
            for one in several
        )
        for ident, several in tables.by_listener.items()
    }
    return found | {readers.port(at): table.name for at, table in tables.by_service.items()}


def _hosts(
    before: Translation | None, tables: Mapping[str, Table], changes: Iterable[_Exchange]
) -> Hosts:
    """How many parts of routes each host of each table has; one more for those always there."""
    had: Hosts = {} if before is None else before.hosts
    hosts: Hosts = {name: dict(had.get(name, {})) for name in tables}
    for name, table in before.base.tables.items() if before else ():
        if name in hosts:
            _count(hosts[name], table.hosts, -1)
    for name, table in tables.items():
        _count(hosts[name], table.hosts, 1)
    for change in changes:
        for record, by in zip(change, (-1, 1), strict=True):
            for part in record.parts if record else ():
                if part.table in hosts:
                    _count(hosts[part.table], part.hosts, by)
    return {
        name: {host: number for host, number in counts.items() if number}
        for name, counts in hosts.items()
    }


def _count_hosts(
    hosts: Hosts, before: Hosts, old: RouteRecord | None, new: RouteRecord | None
) -> None:
    """Counts the parts of one record out of the hosts and those of another in."""
    for record, by in ((new, 1), (old, -1)):
        for part in record.parts if record else ():
            if hosts[part.table] is before[part.table]:
                hosts[part.table] = dict(before[part.table])
            counts = hosts[part.table]
            _count(counts, part.hosts, by)
            for host in part.hosts:
                if not counts.get(host, 1):
                    del counts[host]


def _count(counts: dict[str, int], hosts: Iterable[str], by: int) -> None:
    for host in hosts:
        counts[host] = counts.get(host, 0) + by


def _referring(state: RouteState | None) -> tuple[object, ...]:
    """The policies that filters of a route refer to, and the Gateways that these get from it."""
    if state is None or state.refusal is not None:
        return ()
    refs = tuple(
        one.extension_ref
        for rule in state.rules
        for one in rule.filters
        if one.extension_ref is not None and not is_python(one.extension_ref)
    )
    return (refs, state.ancestors) if refs else ()


def _is_local(changed: Mapping[ResourceKey, Change]) -> bool:
    """Whether changes may leave everything but records and clusters as it is."""
    return all(_is_route(key) or _is_slice(key) or _is_idle(one) for key, one in changed.items())


def _is_known(key: ResourceKey, change: Change) -> bool:
    """Whether it is known who looks at an object."""
    return key.kind in _KNOWN or _is_idle(change)


def _is_idle(change: Change) -> bool:
    """Whether a change is of what has no effect: it is kept as it is."""
    return all(
        one is None or (isinstance(one, Opaque) and not one.refused and not is_consulted(one.key))
        for one in change
    )


def _is_route(key: ResourceKey) -> bool:
    return key.group == HTTPRoute.group and key.kind in REQUEST_KINDS


def _is_slice(key: ResourceKey) -> bool:
    return (key.group, key.kind) == (EndpointSlice.group, EndpointSlice.__name__)
