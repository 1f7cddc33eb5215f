"""From resources to translations, one after another: what did not change is not done again.

What is done again are the records of HTTPRoutes that changed, and clusters whose endpoints did.
That is right as long as nothing that the records stand on sees the change. Of an HTTPRoute, only
this is seen by anything else:

1. By policies: that it exists, its labels, the names of its rules, and the Gateways of its parents;
   by those that name it, that look for labels in its namespace, or for a name one may have meant
   there (`Targets.sees`). By those that its own filters refer to: that they do, and its Gateways.
2. By a Service's port: whether it has any route of its own. Then it has no default route, carries
   requests only, and no TCPRoute (`Routes.by_port`).
3. By the other services of a waypoint: whether that has any route (`Routes.by_listener`).

Of an EndpointSlice, only clusters see anything. A change that something else sees, or of any other
kind of object, is translated from scratch. So is the first set of resources.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

from kgw.api import EndpointSlice, HTTPRoute, Opaque
from kgw.attach import attach
from kgw.source.sequences import exchanged
from kgw.translate.clusters import Clusters
from kgw.translate.filters import is_python
from kgw.translate.listeners import Listeners
from kgw.translate.options import Options
from kgw.translate.records import Recorder, RouteRecord
from kgw.translate.tables import Tables
from kgw.translate.translation import Base, Hosts, Translation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kgw.api import Resource, ResourceKey
    from kgw.attach.attachment import Attachment
    from kgw.attach.index import Named
    from kgw.attach.routes import RouteState, ServiceAddress
    from kgw.translate.clusters import Cluster

#: Of one key, the resource before and the one after; `None` where there is none.
Change = tuple["Resource | None", "Resource | None"]


class Translator:
    """Translates sets of resources that are mostly the same: the same Python objects.

    May be called from any thread; calls wait for one another.
    """

    def __init__(self, options: Options | None = None) -> None:
        self._options = options or Options()
        self._lock = threading.Lock()
        self._resources: tuple[Resource, ...] = ()
        self._state: _State | None = None

    @property
    def has_state(self) -> bool:
        """Whether there is something to build on."""
        return self._state is not None

    def translate(self, resources: Iterable[Resource]) -> Translation:
        """Translates resources; never raises for what they say.

        What cannot be used is reported, and the rest is served: a broken rule answers 500, a broken
        backend answers 500 for its share, a broken listener is not bound.
        """
        with self._lock:
            after = tuple(resources)
            before, state = self._resources, self._state
            # What is half done when something raises must not be built on.
            self._state, self._resources = None, ()
            if state is None or not state.update(changes(before, after)):
                state = _State(after, self._options)
            self._resources, self._state = after, state
            return state.translation


def translate(resources: Iterable[Resource], options: Options | None = None) -> Translation:
    """Translates resources, once; see `Translator.translate`."""
    return Translator(options).translate(resources)


def changes(before: Sequence[Resource], after: Sequence[Resource]) -> dict[ResourceKey, Change]:
    """What two sets of resources differ in, other than their order.

    Both are compared by identity, and are equal for the most part.
    """
    old, new = exchanged(before, after)
    removed = {one.key: one for one in old}
    added = {one.key: one for one in new}
    return {key: (removed.get(key), added.get(key)) for key in dict.fromkeys((*removed, *added))}


class _State:
    """The last translation, and what the next one is made with."""

    def __init__(self, resources: Sequence[Resource], options: Options) -> None:
        self._unique = len({one.key for one in resources}) == len(resources)
        self._attachment: Attachment = attach(resources)
        index = self._attachment.index
        self._clusters = Clusters(self._attachment)
        self._tables = Tables(self._attachment, self._clusters)
        self._recorder = Recorder(self._attachment, self._tables)
        with self._clusters.noting() as used:
            listeners = Listeners(self._attachment, self._tables, options).build()
        states = self._attachment.routes.states
        records = {named: self._recorder.record(state) for named, state in states.items()}
        self._attachment.policies.report_idle()
        # Attached routes have their findings themselves.
        base = Base(
            self._attachment,
            listeners,
            self._tables.every,
            self._tables.routes,
            tuple(index.findings),
        )
        #: How often each cluster is named.
        self._uses = Counter(iter(used))
        hosts: Hosts = {
            table.name: dict.fromkeys(table.hosts, 1) for table in self._tables.every.values()
        }
        for record in records.values():
            self._uses.update(record.clusters)
            for part in record.parts:
                counts = hosts[part.table]
                for host in part.hosts:
                    counts[host] = counts.get(host, 0) + 1
        clusters = {ident: self._clusters.made[ident] for ident in self._uses}
        total = len(base.routes) + sum(len(one.routes) for one in records.values())
        noted = {named: record for named, record in records.items() if record.findings}
        self.translation = Translation(base, records, clusters, hosts, total, noted)

    def update(self, changed: dict[ResourceKey, Change]) -> bool:
        """Takes changes in; returns whether it could. If not, this is of no use any more."""
        if not self._unique or not all(map(_is_local, changed, changed.values())):
            return False
        before = self.translation
        clusters, hosts, records = dict(before.clusters), dict(before.hosts), dict(before.records)
        for ident in self._clusters.refresh(self._put_slices(changed)):
            if ident in clusters:
                clusters[ident] = self._clusters.made[ident]
        states = self._put_routes(changed)
        if states is None:
            return False
        total, noted = before.route_count, dict(before.noted)
        for named, state in states.items():
            old = records.pop(named, None)
            noted.pop(named, None)
            new = None
            if state is not None:
                new = records[named] = self._recorder.record(state)
                if new.findings:
                    noted[named] = new
            total += len(new.routes) if new else 0
            total -= len(old.routes) if old else 0
            self._count_clusters(clusters, old, new)
            _count_hosts(hosts, before.hosts, old, new)
        made_from = before, states.keys()
        self.translation = Translation(
            before.base, records, clusters, hosts, total, noted, made_from
        )
        return True

    def _put_slices(self, changed: dict[ResourceKey, Change]) -> set[Named]:
        """Puts EndpointSlices in the place of others; returns the Services they are about."""
        services: set[Named] = set()
        for key, change in changed.items():
            if _is_slice(key):
                old, new = (one if isinstance(one, EndpointSlice) else None for one in change)
                services |= self._attachment.index.put_slice(old, new)
        return services

    def _put_routes(
        self, changed: dict[ResourceKey, Change]
    ) -> dict[Named, RouteState | None] | None:
        """Puts HTTPRoutes in the place of others, unless something else sees the difference."""
        routes, index = self._attachment.routes, self._attachment.index
        targets = self._attachment.policies.targets
        states: dict[Named, RouteState | None] = {}
        served: dict[ServiceAddress, bool] = {}
        fallback: dict[str, bool] = {}
        for key, (_, resource) in changed.items():
            if not _is_route(key):
                continue
            named = (key.namespace, key.name)
            route = index.put_route(key, resource)
            old, new = routes.states.get(named), None if route is None else routes.attach(route)
            if targets.sees(old, new) or _referring(old) != _referring(new):
                return None
            for state in filter(None, (old, new)):
                served |= {one: one in routes.by_port for one in state.ports}
                fallback |= {
                    one: one in routes.by_listener
                    for one in state.listeners
                    if one in self._tables.fallback_listeners
                }
            states[named] = new
        for named, after in states.items():
            routes.put(named, after)
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


def _count_hosts(
    hosts: Hosts, before: Hosts, old: RouteRecord | None, new: RouteRecord | None
) -> None:
    """Counts the parts of one record out of the hosts and those of another in."""
    for record, by in ((new, 1), (old, -1)):
        for part in record.parts if record else ():
            if hosts[part.table] is before[part.table]:
                hosts[part.table] = dict(before[part.table])
            counts = hosts[part.table]
            for host in part.hosts:
                number = counts.get(host, 0) + by
                if number:
                    counts[host] = number
                else:
                    del counts[host]


def _referring(state: RouteState | None) -> tuple[object, ...]:
    """The policies that filters of a route refer to, and the Gateways that these get from it."""
    if state is None or state.refusal is not None:
        return ()
    refs = tuple(
        one.extension_ref
        for rule in state.route.spec.rules
        for one in rule.filters
        if one.extension_ref is not None and not is_python(one.extension_ref)
    )
    return (refs, state.gateways) if refs else ()


def _is_local(key: ResourceKey, change: Change) -> bool:
    """Whether a change may leave everything but records and clusters as it is."""
    if _is_route(key) or _is_slice(key):
        return True
    # What is kept as it is has no effect.
    return all(one is None or (isinstance(one, Opaque) and not one.refused) for one in change)


def _is_route(key: ResourceKey) -> bool:
    return (key.group, key.kind) == (HTTPRoute.group, HTTPRoute.__name__)


def _is_slice(key: ResourceKey) -> bool:
    return (key.group, key.kind) == (EndpointSlice.group, EndpointSlice.__name__)
