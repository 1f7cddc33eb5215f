"""What one translation differs from another in, as the engine takes it (`docs/ir.md`).

Applied to the one before, it gives the one after. What both share is not looked into, so a changed
route costs a route, and not a configuration.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgw.translate.translation import Translation

#: A rule of a route table.
Rule = dict[str, Any]


def difference(before: Translation, after: Translation) -> dict[str, Any]:
    """Returns what is to be put, and as ``null`` removed, in routes, clusters and route tables."""
    routes: dict[str, Any] = {}
    tables: dict[str, Any] = {}
    hosts: dict[tuple[str, str], tuple[list[Rule], list[Rule]]] = defaultdict(lambda: ([], []))
    if before.base is not after.base:
        routes = _members(before.base.routes, after.base.routes)
        tables = dict.fromkeys(before.base.tables.keys() - after.base.tables.keys())
        tables |= {name: {"hosts": []} for name in after.base.tables if name not in before.hosts}
        for side, base in enumerate((before.base, after.base)):
            for name, table in base.tables.items():
                for host, own in table.hosts.items():
                    hosts[name, host][side].extend(own)
    for named in after.renewed(before):
        old, new = before.records.get(named), after.records.get(named)
        if old is new:
            continue
        routes |= _members(old.routes if old else {}, new.routes if new else {})
        for side, record in enumerate((old, new)):
            for part in record.parts if record else ():
                for host in part.hosts:
                    hosts[part.table, host][side].extend(part.rules)
    for (place, host), (rules, others) in hosts.items():
        if place not in after.hosts:
            continue  # it is removed as a whole
        had, has = host in before.hosts.get(place, ()), host in after.hosts[place]
        change = _host(host, rules if had else None, others if has else None)
        if change is not None:
            tables.setdefault(place, {"hosts": []})["hosts"].append(change)
    clusters: dict[str, Any] = dict.fromkeys(before.clusters.keys() - after.clusters.keys())
    for name, cluster in after.clusters.items():
        same = before.clusters.get(name)
        if same is not cluster and (same is None or same.ir != cluster.ir):
            clusters[name] = cluster.ir
    return {"routes": routes, "clusters": clusters, "route_tables": tables}


def _members(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The members to put and, as ``None``, to remove."""
    found: dict[str, Any] = {
        name: value for name, value in after.items() if name not in before or before[name] != value
    }
    return found | dict.fromkeys(before.keys() - after.keys())


def _host(host: str, before: list[Rule] | None, after: list[Rule] | None) -> dict[str, Any] | None:
    """What a virtual host differs in, if anything; ``None`` stands for one that is not there.

    The rules of one route go together: all of them are sent if any of them changed.
    """
    if after is None:
        return None if before is None else {"hostname": host, "removed": True}
    if before is after:
        return None
    old, new = _by_route(before or ()), _by_route(after)
    rules = [one for route, group in new.items() if old.get(route) != group for one in group]
    removed = sorted(old.keys() - new.keys())
    if before is not None and not rules and not removed:
        return None
    found: dict[str, Any] = {"hostname": host, "rules": rules}
    if removed:
        found["removed_rules"] = removed
    return found


def _by_route(rules: Iterable[Rule]) -> dict[str, list[Rule]]:
    found: dict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        found[rule["route"]].append(rule)
    return found
