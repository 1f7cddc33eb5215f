"""What each route of requests comes to, by itself: its part of route tables, routes and clusters.

A record depends on its route and on what it stands on (Gateways, Services, policies, tables), and
on no other route. So when routes change, theirs are the only records to be made anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kgw.attach import direct_responses, hostnames, protocols, static_backends
from kgw.attach.policies import Place
from kgw.diagnostics import Severity
from kgw.translate import filters
from kgw.translate.delegated import DelegatedRules
from kgw.translate.policies import filters as policy_filters
from kgw.translate.policies.action import settings
from kgw.translate.policies.context import PolicyContext
from kgw.translate.rules import (
    REPLACED,
    CompiledMatch,
    CompiledRule,
    RuleCompiler,
    action,
    own_filters,
)
from kgw.translate.sessions import sessions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kgw.api import DirectResponse
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
    from kgw.translate.policies.action import ActionSettings
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
    settings: ActionSettings
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
    #: What answers in the place of backends.
    direct: DirectResponse | None = None
    #: The action, if it is the same for all matches: there are no filters that look at them.
    action: dict[str, Any] | None = None
    #: The filters in their order, where policies add none.
    chain: list[dict[str, Any]] | None = None

    def of(self, match: CompiledMatch) -> dict[str, Any]:
        """The action for the requests of a match."""
        if self.action is not None:
            return self.action
        if self.direct is not None:
            self.action = direct_responses.action(self.direct)
            return self.action
        found = action(self.rule, match, self.backends, self.port, self.settings.request_timeout)
        if found["type"] == "forward":
            self.settings.put(found)
        if self.unresolved_status is not None and found["type"] == "forward":
            found["unresolved_status"] = self.unresolved_status
        if self.upgrades and found["type"] == "forward":
            found["upgrades"] = self.upgrades
        if self.sessions and found["type"] == "forward":
            found["sessions"] = self.sessions
        if not any(one.request_redirect or one.url_rewrite for one in self.rule.filters):
            self.action = found
        return found

    def chained(self, policies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The filters of requests, with those of policies."""
        if policies:
            return filters.chain([*self.own, *self.filters], policies)
        if self.chain is None:
            self.chain = filters.chain([*self.own, *self.filters])
        return self.chain


_MOST_TARGETS: Final = 1 << 14
"""Targets that are kept for other rules."""


class Recorder:
    """Makes the records of routes."""

    def __init__(self, attachment: Attachment, tables: Tables) -> None:
        self._attachment = attachment
        self._index = attachment.index
        self._tables = tables
        self._compiler = RuleCompiler(attachment)
        self._delegated = DelegatedRules(attachment, self._compiler)
        self._targets: dict[tuple[object, ...], _Target] = {}

    def record(self, state: RouteState) -> RouteRecord:
        """The record of a route that was attached; its faults and findings are completed."""
        parts: list[Part] = []
        routes: dict[str, Any] = {}
        with self._index.reporting_to(state.findings), self._tables.clusters.noting() as used:
            rules = self._compiler.compile(state)
            own = [(state, [one for one in rules if not _is_handed_on(state, one)])]
            handed_on = self._attachment.delegation.of(state.route.key)
            served = [*own, *self._delegated.rules(state, rules, handed_on)]
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
                    made = self._all_rules(table, listener, served, routes)
                    hosts = tuple(
                        name
                        for name in names
                        if not any(hostnames.covers(one, name) for one in narrower)
                    )
                    parts.append(Part(table.name, listener.id, hosts, made))
            for address in sorted(state.ports):
                at_port = self._tables.by_service.get(address)
                if at_port is not None:
                    ((listener, _),) = at_port.listeners
                    made = self._all_rules(at_port, listener, served, routes)
                    parts.append(Part(at_port.name, listener.id, (hostnames.ANY,), made))
        referred = (policy.policy.name for rule in rules for policy in rule.policies)
        names = tuple(dict.fromkeys(referred))
        return RouteRecord(state, tuple(parts), routes, tuple(used), names)

    def _all_rules(
        self,
        table: Table,
        listener: ListenerState,
        served: list[tuple[RouteState, list[CompiledRule]]],
        routes: dict[str, Any],
    ) -> list[dict[str, Any]]:
        """The rules of a route in a table, and of routes that it hands on requests to."""
        found = []
        for state, rules in served:
            with self._index.reporting_to(state.findings):
                found += self._rules(table, listener, state, rules, routes)
        return found

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
        named, section, kind = gateway.named, listener.section, key.kind.lower()
        whole, created = f"{route.namespace}/{route.name}", route.created
        found = []
        place: Place | None = None
        for rule in compiled:
            wanted = (rule.name, rule.policies, rule.via)
            if place is None or (place.rule, place.referred, place.via) != wanted:
                place = Place(named, section, key, *wanted)
                effective = policies.effective(place)
            if isinstance(effective, str):
                state.replaced[rule.index, effective] = None
            target: _Target | None = None
            given: list[dict[str, Any]] | None = None
            if rule.fault is None and not isinstance(effective, str):
                target = self._target(table, listener, state, rule, settings(effective))
            for match in rule.matches:
                name = f"{whole}/{rule.label}/{match.index}"
                ident = f"{kind}/{name}{rule.suffix}@{table.name}"
                rank = {
                    "created": created,
                    "name": whole,
                    "rule": rule.index,
                    "match": match.index,
                }
                found.append({**match.predicates, "rank": rank, "route": ident})
                if ident in routes:
                    continue
                if target is None or isinstance(effective, str):
                    direct = {"type": "direct", "status": 500, "body": REPLACED}
                    routes[ident] = {"name": name, "filters": [], "action": direct}
                    continue
                if given is None and not effective.fields and not effective.shadow:
                    made = given = []
                elif given is None:
                    attachment, tables = self._attachment, self._tables
                    context = PolicyContext(
                        attachment, tables, gateway, table.name, listener, ident
                    )
                    made = policy_filters(effective, context)
                    # What nothing of the match is in is the same for the others.
                    given = None if context.is_scoped else made
                routes[ident] = {
                    "name": name,
                    "filters": target.chained(made),
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
        given: ActionSettings,
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
            given,
            id(source.timeouts),
            id(source.retry),
            id(source.filters),
            *map(id, source.backend_refs),
        )
        found_sessions = self._sessions(state, rule)
        # A filter of a backend may look at the match.
        plain = rule.self_contained and not found_sessions
        plain = plain and not any(one.filters for one in source.backend_refs)
        if plain and (known := self._targets.get(key)) is not None:
            self._tables.clusters.note(known.clusters)
            return known
        reported = len(state.findings)
        backends = self._backends(table, state, rule, given)
        ports = [one.port for one in state.backends[rule.index]]
        own = filters.grpc_web(table.gateway, listener, ports)
        where: FieldPath = ("spec", "rules", rule.index, "filters")
        mirrors = self._mirrors(table, state, source.filters, where)
        own += map(given.mirrored, mirrors)
        clusters = [one["cluster"] for one in backends if one["cluster"] is not None]
        upgrades = _upgrades(ports)
        authorized = self._authorized(table, state, rule)
        # Calls may be streams, and say in `grpc-timeout` how long they may take.
        if given.request_timeout is None and state.route.kind == "GRPCRoute":
            given = given._replace(request_timeout=0)
        # 503 is UNAVAILABLE to a client of gRPC, as the Gateway API wants it.
        status = 503 if state.route.kind == "GRPCRoute" else None
        found = _Target(
            source,
            backends,
            table.port,
            given,
            own,
            rule.filters if authorized is None else authorized,
            upgrades,
            clusters,
            found_sessions,
            status,
            rule.direct,
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
        services = [
            # There is no endpoint to come back to: the next request may name another host.
            None if static_backends.names_hosts(one.service) else one.service
            for one in state.backends[rule.index]
        ]
        if own is not None and any(
            static_backends.names_hosts(one.service) for one in state.backends[rule.index]
        ):
            self._index.report(
                route,
                "KGW427",
                Severity.WARNING,
                "requests that go to the host that they name are of no session",
                ("spec", "rules", rule.index, "sessionPersistence"),
            )
            places = [place for place, one in enumerate(services) if one is not None]
            return sessions(own, scope, services, traffic.session, places) if places else []
        return sessions(own, scope, services, traffic.session)

    def _backends(
        self, table: Table, state: RouteState, rule: CompiledRule, given: ActionSettings
    ) -> list[dict[str, Any]]:
        gateway, mesh = table.gateway, table.service is not None
        found = []
        refs: Sequence[HTTPBackendRef | GRPCBackendRef] = (
            rule.source.backend_refs if rule.source else ()
        )
        for place, backend in enumerate(state.backends[rule.index]):
            if backend.delegates:
                continue
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
                mirrors = self._mirrors(table, state, refs[place].filters, where)
                own += map(given.mirrored, mirrors)
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
            namespace = (
                state.route.namespace if backend.service is None else backend.service.namespace
            )
            host = f"{ref.name}.{ref.namespace or namespace}"
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


def _is_handed_on(state: RouteState, rule: CompiledRule) -> bool:
    """Whether other rules are in the place of one."""
    return rule.fault is None and any(one.delegates for one in state.backends[rule.index])


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
