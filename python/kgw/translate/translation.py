"""What a configuration comes to, as a snapshot that later changes do not touch.

A translation stands on a base (all that is no route of requests, and what it comes to) and has a
record for each HTTPRoute and GRPCRoute. Representation, findings and statuses are put together from
these when they are asked for. Translations that follow one another share their base and most of
their records, so what differs between them is found without looking into what they share.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from kgw import diagnostics
from kgw.attach import Status, statuses

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from kgw.api import ResourceKey
    from kgw.attach.attachment import Attachment
    from kgw.diagnostics import Finding
    from kgw.translate.clusters import Cluster
    from kgw.translate.records import Part, RouteRecord
    from kgw.translate.tables import Table

#: The version of the representation; `kgw_engine::config::ir::VERSION`.
VERSION: Final = 1

#: How many parts of routes each host of each table has; one more for hosts that are always there.
Hosts = dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """What routes of requests stand on."""

    attachment: Attachment
    listeners: list[dict[str, Any]]
    tables: dict[str, Table]
    #: Routes that are of no object.
    routes: dict[str, Any]
    findings: tuple[Finding, ...]
    #: The clusters that these and the listeners name.
    clusters: tuple[str, ...]


class Translation:
    """What a configuration comes to; equal input gives equal output, byte for byte."""

    def __init__(
        self,
        base: Base,
        records: dict[ResourceKey, RouteRecord],
        clusters: dict[str, Cluster],
        hosts: Hosts,
        route_count: int,
        noted: dict[ResourceKey, RouteRecord],
        previous: tuple[Translation, Collection[ResourceKey]] | None = None,
    ) -> None:
        self.base = base
        self.records = records
        self.clusters = clusters
        self.hosts = hosts
        self.route_count = route_count
        """The number of routes of the representation."""
        self.noted = noted
        """The records that there are findings about."""
        # What this was made from, while that is there, and the routes that differ.
        self._previous = None if previous is None else (ref(previous[0]), previous[1])

    def __repr__(self) -> str:
        return f"<Translation of {len(self.records)} routes>"  # the rest holds private keys

    @property
    def listeners(self) -> list[dict[str, Any]]:
        """The listeners of the representation."""
        return self.base.listeners

    def renewed(self, before: Translation) -> Iterable[ResourceKey]:
        """The routes that may have another record than in an earlier translation."""
        if self._previous is not None:
            made_from, names = self._previous
            if made_from() is before:
                return names
        records = self.records
        found = [named for named, one in before.records.items() if records.get(named) is not one]
        return [*found, *(records.keys() - before.records.keys())]

    @cached_property
    def ir(self) -> dict[str, Any]:
        """The representation, as JSON data."""
        ordered = [record for _, record in sorted(self.records.items())]
        routes = dict(self.base.routes)
        for record in ordered:
            routes |= record.routes
        return {
            "version": VERSION,
            "listeners": self.base.listeners,
            "route_tables": self._tables(ordered),
            "routes": dict(sorted(routes.items())),
            "clusters": {name: one.ir for name, one in sorted(self.clusters.items())},
        }

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong between resources, in reading order.

        What is wrong inside one was found when it was parsed.
        """
        found = chain(
            self.base.findings,
            *(one.findings for one in self.noted.values()),
            *(one.findings for one in self.clusters.values() if one.findings),
        )
        return tuple(diagnostics.sort(found))

    @cached_property
    def statuses(self) -> dict[ResourceKey, Status]:
        """The status of every resource that has one."""
        states = (record.state for record in self.records.values())
        return statuses(self.base.attachment, states)

    def _tables(self, records: list[RouteRecord]) -> dict[str, Any]:
        parts: dict[tuple[str, str], list[Part]] = defaultdict(list)
        for record in records:
            for part in record.parts:
                parts[part.table, part.listener].append(part)
        tables = {}
        for name, table in sorted(self.base.tables.items()):
            hosts = {host: list(rules) for host, rules in table.hosts.items()}
            for listener, _ in table.listeners:
                for part in parts.get((name, listener.id), ()):
                    for host in part.hosts:
                        hosts.setdefault(host, []).extend(part.rules)
            tables[name] = {
                "hosts": [
                    {"hostname": host, "rules": rules} for host, rules in sorted(hosts.items())
                ]
            }
        return tables
