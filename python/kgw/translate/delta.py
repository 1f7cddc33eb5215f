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
    if before.base is not after.base:
        return {
            "routes": _members(before.ir["routes"], after.ir["routes"]),
            "clusters": _members(before.ir["clusters"], after.ir["clusters"]),
            "route_tables": _tables(before.ir["route_tables"], after.ir["route_tables"]),
        }
    routes: dict[str, Any] = {}
    hosts: dict[tuple[str, str], tuple[list[Rule], list[Rule]]] = defaultdict(lambda: ([], []))
    for named in after.renewed(before):
        old, new = before.records.get(named), after.records.get(named)
        if old is new:
            continue
        routes |= _members(old.routes if old else {}, new.routes if new else {})
        for side, record in enumerate((old, new)):
            for part in record.parts if record else ():
                for host in part.hosts:
                    hosts[part.table, host][side].extend(part.rules)
    tables: dict[str, Any] = {}
    for (table, host), (rules, others) in hosts.items():
        had, has = host in before.hosts[table], host in after.hosts[table]
        change = _host(host, rules if had else None, others if has else None)
        if change is not None:
            tables.setdefault(table, {"hosts": []})["hosts"].append(change)
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


def _tables(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(before.keys() - after.keys())
    for name, table in after.items():
        old = {one["hostname"]: one["rules"] for one in before.get(name, {"hosts": ()})["hosts"]}
        new = {one["hostname"]: one["rules"] for one in table["hosts"]}
        changes = (
            _host(host, old.get(host), new.get(host)) for host in dict.fromkeys((*old, *new))
        )
        hosts = [one for one in changes if one is not None]
        if hosts or name not in before:
            found[name] = {"hosts": hosts}
    return found


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
