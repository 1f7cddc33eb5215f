"""What each route of requests comes to, by itself: its part of route tables, routes and clusters.

A record depends on its route and on what it stands on (Gateways, Services, policies, tables), and
on no other route. So when routes change, theirs are the only records to be made anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kgw.attach import hostnames, protocols
from kgw.attach.policies import Place
from kgw.diagnostics import Severity
from kgw.translate import filters
from kgw.translate.rules import (
    REPLACED,
    CompiledMatch,
    CompiledRule,
    RuleCompiler,
    action,
    own_filters,
)
from kgw.translate.sessions import sessions
from kgw.translate.tables import bucket_scope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kgw.api.core.service import ServicePort
    from kgw.api.gateway.filters import Filter
    from kgw.api.gateway.grpc_route import GRPCBackendRef, GRPCFilter, GRPCRule
    from kgw.api.gateway.http_route import Rule
    from kgw.api.gateway.references import HTTPBackendRef
    from kgw.attach.attachment import Attachment
    from kgw.attach.listeners import ListenerState
    from kgw.attach.routes import RouteState
    from kgw.diagnostics import Finding
    from kgw.source.memory import FieldPath
    from kgw.translate.clusters import Variant
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
    #: The names of the policies that its filters refer to.
    referred: tuple[str, ...] = ()

    @property
    def findings(self) -> list[Finding]:
        """What is wrong with it."""
        return self.state.findings


@dataclass(slots=True)
class _Target:
    """Where the requests of a rule go, or of several rules that say the same."""

    rule: Rule | GRPCRule
    backends: list[dict[str, Any]]
    port: int
    timeout: int | None
    #: Filters that are there because of the backends, or that have some.
    own: list[dict[str, Any]]
    #: The other filters of the rule.
    filters: list[dict[str, Any]]
    #: What requests may switch to because of the backends.
    upgrades: list[str]
    #: The clusters of the backends.
    clusters: list[str]
    #: The sessions of its requests.
    sessions: list[dict[str, Any]]
    #: The status of requests that would go to a backend that there is not, if not 500.
    unresolved_status: int | None = None
    #: The action, if it is the same for all matches: there are no filters that look at them.
    action: dict[str, Any] | None = None

    def of(self, match: CompiledMatch) -> dict[str, Any]:
        """The action for the requests of a match."""
        if self.action is not None:
            return self.action
        found = action(self.rule, match, self.backends, self.port, self.timeout)
        if self.unresolved_status is not None and found["type"] == "forward":
            found["unresolved_status"] = self.unresolved_status
        if self.upgrades and found["type"] == "forward":
            found["upgrades"] = self.upgrades
        if self.sessions and found["type"] == "forward":
            found["sessions"] = self.sessions
        if not self.rule.filters:
            self.action = found
        return found


_MOST_TARGETS: Final = 1_000
"""Targets that are kept for other rules."""


class Recorder:
    """Makes the records of routes."""

    def __init__(self, attachment: Attachment, tables: Tables) -> None:
        self._attachment = attachment
        self._index = attachment.index
        self._tables = tables
        self._compiler = RuleCompiler(attachment)
        self._targets: dict[tuple[object, ...], _Target] = {}

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
        referred = (policy.policy.name for rule in rules for policy in rule.policies)
        names = tuple(dict.fromkeys(referred))
        return RouteRecord(state, tuple(parts), routes, tuple(used), names)

    def _rules(
        self,
        table: Table,
        listener: ListenerState,
        state: RouteState,
        compiled: list[CompiledRule],
        routes: dict[str, Any],
    ) -> list[dict[str, Any]]:
        """The rules of a route in a table; its routes are added to *routes*."""
        gateway, route, policies = table.gateway, state.route, self._attachment.policies
        key = route.key
        whole, created = f"{route.namespace}/{route.name}", route.created
        found = []
        place: Place | None = None
        for rule in compiled:
            here = Place(gateway.named, listener.section, key, rule.name, rule.policies)
            if here != place:
                place, limit, timeout = here, policies.limit(here), policies.request_timeout(here)
                # Calls may be streams, and say in `grpc-timeout` how long they may take.
                if timeout is None and key.kind == "GRPCRoute":
                    timeout = 0
            if isinstance(limit, str):
                state.replaced[rule.index, limit] = None
            target: _Target | None = None
            if rule.fault is None and not isinstance(limit, str):
                target = self._target(table, listener, state, rule, timeout)
            for match in rule.matches:
                name = f"{whole}/{rule.label}/{match.index}"
                ident = f"{key.kind.lower()}/{name}@{table.name}"
                rank = {
                    "created": created,
                    "name": whole,
                    "rule": rule.index,
                    "match": match.index,
                }
                found.append({**match.predicates, "rank": rank, "route": ident})
                if ident in routes:
                    continue
                if target is None or isinstance(limit, str):
                    direct = {"type": "direct", "status": 500, "body": REPLACED}
                    routes[ident] = {"name": name, "filters": [], "action": direct}
                    continue
                limits = []
                if limit is not None:
                    scope = bucket_scope(limit.level, table.name, listener, ident)
                    limits = filters.local_rate_limit(limit, scope)
                routes[ident] = {
                    "name": name,
                    "filters": filters.chain([*target.own, *limits, *target.filters]),
                    "action": target.of(match),
                }
        return found

    # === Targets ===

    def _target(
        self,
        table: Table,
        listener: ListenerState,
        state: RouteState,
        rule: CompiledRule,
        timeout: int | None,
    ) -> _Target:
        """Where the requests of a rule go; of rules that say the same it is the same."""
        source = rule.source
        assert source is not None  # the rule has no fault
        # What is resolved from a reference depends on the namespace as well. The ids are of parts
        # that equal rules share, and a target that is kept keeps them.
        key = (
            table.name,
            listener.id,
            state.route.kind,
            state.route.namespace,
            timeout,
            id(source.timeouts),
            id(source.retry),
            *map(id, source.backend_refs),
        )
        found_sessions = self._sessions(state, rule)
        plain = not source.filters and not rule.broken_backends and not found_sessions
        if plain and (known := self._targets.get(key)) is not None:
            self._tables.clusters.note(known.clusters)
            return known
        reported = len(state.findings)
        backends = self._backends(table, state, rule)
        ports = [one.port for one in state.backends[rule.index]]
        own = filters.grpc_web(table.gateway, listener, ports)
        where: FieldPath = ("spec", "rules", rule.index, "filters")
        own += self._mirrors(table, state, source.filters, where)
        clusters = [one["cluster"] for one in backends if one["cluster"] is not None]
        upgrades = _upgrades(ports)
        given = self._authorized(table, state, rule)
        # 503 is UNAVAILABLE to a client of gRPC, as the Gateway API wants it.
        status = 503 if state.route.kind == "GRPCRoute" else None
        found = _Target(
            source,
            backends,
            table.port,
            timeout,
            own,
            rule.filters if given is None else given,
            upgrades,
            clusters,
            found_sessions,
            status,
        )
        # What is reported is to be reported on each rule.
        if plain and len(state.findings) == reported:
            if len(self._targets) >= _MOST_TARGETS:
                self._targets.clear()
            self._targets[key] = found
        return found

    def _sessions(self, state: RouteState, rule: CompiledRule) -> list[dict[str, Any]]:
        """The sessions of a rule, which are of no other."""
        traffic = self._attachment.upstreams.traffic
        own = rule.source.session_persistence if rule.source else None
        if own is None and not traffic.has_sessions:
            return []
        route = state.route
        scope = f"{route.kind}/{route.namespace}/{route.name}/{rule.label}"
        services = [one.service for one in state.backends[rule.index]]
        return sessions(own, scope, services, traffic.session)

    def _backends(
        self, table: Table, state: RouteState, rule: CompiledRule
    ) -> list[dict[str, Any]]:
        gateway, mesh = table.gateway, table.service is not None
        found = []
        refs: Sequence[HTTPBackendRef | GRPCBackendRef] = (
            rule.source.backend_refs if rule.source else ()
        )
        for place, backend in enumerate(state.backends[rule.index]):
            cluster = None
            usable = backend.failure(mesh) is None and place not in rule.broken_backends
            if usable:
                variant: Variant = "http2" if state.route.kind == "GRPCRoute" else ""
                cluster = self._tables.backend(gateway, backend, mesh=mesh, variant=variant)
                if backend.port is not None:
                    self._declared(state, rule, place, backend.port, cluster)
            own: list[dict[str, Any]] = []
            if usable and refs[place].filters:
                where: FieldPath = ("spec", "rules", rule.index, "backendRefs", place, "filters")
                prefix = rule.matches[0].prefix if rule.matches else ""
                own = own_filters(refs[place], prefix, table.port)
                own += self._mirrors(table, state, refs[place].filters, where)
            if (external := self._tables.external(backend)) is not None:
                own = _addressed(own, rule, external.authority)
            found.append(
                {"cluster": cluster, "weight": backend.weight, "filters": filters.chain(own)}
            )
        return found

    def _mirrors(
        self, table: Table, state: RouteState, given: Sequence[Filter | GRPCFilter], path: FieldPath
    ) -> list[dict[str, Any]]:
        """The mirrors among filters; one whose backend cannot be used is left out."""
        gateway, mesh = table.gateway, table.service is not None
        variant: Variant = "http2" if state.route.kind == "GRPCRoute" else ""
        found = []
        for place, one in enumerate(given):
            if one.request_mirror is None:
                continue
            backend = state.filter_backends[(*path, place)]
            cluster = self._tables.backend(gateway, backend, mesh=mesh, variant=variant)
            if cluster is not None:
                found.append(filters.mirror(cluster, one.request_mirror.share))
        return found

    def _authorized(
        self, table: Table, state: RouteState, rule: CompiledRule
    ) -> list[dict[str, Any]] | None:
        """The filters of a rule that has some which ask a service; none if it has none."""
        given: Sequence[Filter | GRPCFilter] = () if rule.source is None else rule.source.filters
        if all(one.external_auth is None for one in given):
            return None
        gateway, mesh = table.gateway, table.service is not None
        authorizers = {}
        for place, one in enumerate(given):
            if one.external_auth is None:
                continue
            backend = state.filter_backends["spec", "rules", rule.index, "filters", place]
            variant: Variant = "http2" if one.external_auth.grpc is not None else ""
            cluster = self._tables.backend(gateway, backend, mesh=mesh, variant=variant)
            external = self._tables.external(backend)
            ref = backend.ref
            host = f"{ref.name}.{ref.namespace or state.route.namespace}"
            if external is not None:
                host = external.authority
            authorizers[place] = filters.Authorizer(cluster, host)
        return filters.rule_filters(given, authorizers)

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
        version = "gRPC" if state.route.kind == "GRPCRoute" else "HTTP/1.1"
        self._index.report(
            state.route,
            "KGW422",
            Severity.WARNING,
            f"port {port.port} is declared as {word}, and gets {version} without TLS",
            ("spec", "rules", rule.index, "backendRefs", place, "port"),
            hint="a BackendTLSPolicy asks for TLS"
            if protocols.declared(port) in protocols.ENCRYPTED
            else None,
        )


def _addressed(own: list[dict[str, Any]], rule: CompiledRule, host: str) -> list[dict[str, Any]]:
    """The filters of a backend outside of the cluster: requests are for its host.

    Nobody there knows the host that clients of the Gateway ask for. What the rule or the backend
    says itself goes first.
    """
    source = rule.source
    rewrites = [one.url_rewrite for one in source.filters if one.url_rewrite] if source else []
    if any(one.hostname is not None for one in rewrites):
        return own
    for one in own:
        if one["type"] == "rewrite":
            return [other if other is not one else {"hostname": host, **one} for other in own]
    return [*own, {"type": "rewrite", "hostname": host}]


def _upgrades(ports: list[ServicePort | None]) -> list[str]:
    """What requests may switch to because the port of a backend says so."""
    return sorted({what for one in ports if one for what in protocols.of(one).upgrades})
