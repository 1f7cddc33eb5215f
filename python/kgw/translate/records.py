"""What each HTTPRoute comes to, by itself: its part of route tables, its routes and its clusters.

A record depends on its route and on what it stands on (Gateways, Services, policies, tables), and
on no other route. So when routes change, theirs are the only records to be made anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kgw.attach import hostnames, protocols
from kgw.attach.policies import Place
from kgw.diagnostics import Severity
from kgw.translate import filters
from kgw.translate.rules import REPLACED, CompiledRule, RuleCompiler, action
from kgw.translate.tables import bucket_scope

if TYPE_CHECKING:
    from kgw.api.core.service import ServicePort
    from kgw.attach.attachment import Attachment
    from kgw.attach.gateways import GatewayState, ListenerState
    from kgw.attach.routes import RouteState
    from kgw.diagnostics import Finding
    from kgw.translate.tables import Table, Tables


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The rules that a route has in a table because of one listener."""

    table: str
    listener: str
    hosts: tuple[str, ...]
    rules: list[dict[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class RouteRecord:
    """What a route comes to."""

    state: RouteState
    parts: tuple[Part, ...]
    #: Its routes of the IR, by id.
    routes: dict[str, Any]
    #: The clusters that these name.
    clusters: tuple[str, ...]

    @property
    def findings(self) -> list[Finding]:
        """What is wrong with it."""
        return self.state.findings


class Recorder:
    """Makes the records of routes."""

    def __init__(self, attachment: Attachment, tables: Tables) -> None:
        self._attachment = attachment
        self._index = attachment.index
        self._tables = tables
        self._compiler = RuleCompiler(attachment)

    def record(self, state: RouteState) -> RouteRecord:
        """The record of a route that was attached; its faults and findings are completed."""
        parts: list[Part] = []
        routes: dict[str, Any] = {}
        with self._index.reporting_to(state.findings), self._tables.clusters.noting() as used:
            rules = self._compiler.compile(state)
            listeners = state.listeners
            # By name: a table of several listeners is there for each of them.
            tables = {
                table.name: table
                for ident in listeners
                for table in self._tables.by_listener.get(ident, ())
            }
            for table in tables.values():
                for listener, narrower in table.listeners:
                    names = listeners.get(listener.id)
                    if names is None:
                        continue
                    made = self._rules(table, listener, state, rules, routes)
                    hosts = tuple(
                        name
                        for name in names
                        if not any(hostnames.covers(one, name) for one in narrower)
                    )
                    parts.append(Part(table.name, listener.id, hosts, made))
            for address in sorted(state.ports):
                own = self._tables.by_service.get(address)
                if own is not None:
                    ((listener, _),) = own.listeners
                    made = self._rules(own, listener, state, rules, routes)
                    parts.append(Part(own.name, listener.id, (hostnames.ANY,), made))
        return RouteRecord(state, tuple(parts), routes, tuple(used))

    def _rules(
        self,
        table: Table,
        listener: ListenerState,
        state: RouteState,
        compiled: list[CompiledRule],
        routes: dict[str, Any],
    ) -> list[dict[str, Any]]:
        """The rules of a route in a table; its routes are added to *routes*."""
        gateway, mesh = table.gateway, table.service is not None
        route, policies = state.route, self._attachment.policies
        named = (route.namespace, route.name)
        whole, created = f"{route.namespace}/{route.name}", route.created
        found = []
        for rule in compiled:
            place = Place(gateway.named, listener.spec.name, named, rule.name, rule.policies)
            limit = policies.limit(place)
            if isinstance(limit, str):
                state.replaced[rule.index, limit] = None
            broken = rule.fault is not None or isinstance(limit, str)
            backends = [] if broken else self._backends(gateway, state, rule, mesh)
            for match in rule.matches:
                name = f"{whole}/{rule.label}/{match.index}"
                ident = f"httproute/{name}@{table.name}"
                rank = {
                    "created": created,
                    "name": whole,
                    "rule": rule.index,
                    "match": match.index,
                }
                found.append({**match.predicates, "rank": rank, "route": ident})
                if ident in routes:
                    continue
                if broken or isinstance(limit, str):
                    direct = {"type": "direct", "status": 500, "body": REPLACED}
                    routes[ident] = {"name": name, "filters": [], "action": direct}
                    continue
                limits = []
                if limit is not None:
                    scope = bucket_scope(limit.level, table.name, listener, ident)
                    limits = filters.local_rate_limit(limit, scope)
                ports = [one.port for one in state.backends[rule.index]]
                web = filters.grpc_web(gateway, listener, ports)
                timeout = policies.request_timeout(place)
                assert rule.source is not None
                target = action(rule.source, match, backends, table.port, timeout)
                upgrades = _upgrades(ports) if target["type"] == "forward" else []
                if upgrades:
                    target["upgrades"] = upgrades
                routes[ident] = {
                    "name": name,
                    "filters": filters.chain([*web, *limits, *rule.filters]),
                    "action": target,
                }
        return found

    # === Backends ===

    def _backends(
        self, gateway: GatewayState, state: RouteState, rule: CompiledRule, mesh: bool
    ) -> list[dict[str, Any]]:
        found = []
        refs = rule.source.backend_refs if rule.source else ()
        for place, backend in enumerate(state.backends[rule.index]):
            cluster = None
            usable = backend.failure(mesh) is None and place not in rule.broken_backends
            if usable and backend.service is not None and backend.port is not None:
                cluster = self._tables.cluster(gateway, backend.service, backend.port)
                self._declared(state, rule, place, backend.port, cluster)
            found.append(
                {
                    "cluster": cluster,
                    "weight": backend.ref.weight,
                    "filters": filters.chain(filters.rule_filters(refs[place].filters))
                    if usable
                    else [],
                }
            )
        return found

    def _declared(
        self,
        state: RouteState,
        rule: CompiledRule,
        place: int,
        port: ServicePort,
        cluster: str | None,
    ) -> None:
        """Warns about requests to a port that is declared to carry something else.

        kgateway sends HTTP/1.1 to whatever a port declares; TLS is for a policy to ask for.
        """
        if protocols.of(port).http or cluster is None or self._tables.clusters.encrypted(cluster):
            return
        word = port.app_protocol or port.name
        self._index.report(
            state.route,
            "KGW422",
            Severity.WARNING,
            f"port {port.port} is declared as {word}, and gets HTTP/1.1 without TLS",
            ("spec", "rules", rule.index, "backendRefs", place, "port"),
            hint="a BackendTLSPolicy asks for TLS"
            if protocols.declared(port) in protocols.ENCRYPTED
            else None,
        )


def _upgrades(ports: list[ServicePort | None]) -> list[str]:
    """What requests may switch to because the port of a backend says so."""
    return sorted({what for one in ports if one for what in protocols.of(one).upgrades})
