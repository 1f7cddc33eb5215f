"""Route tables: the rules of all routes that serve one port, by hostname.

Ids say what a thing is and do not change with anything else, so that state that has identity
survives a reload:

    table    gateway/NAMESPACE/GATEWAY/PORT, service/NAMESPACE/SERVICE/PORT
    route    httproute/NAMESPACE/NAME/RULE/MATCH@TABLE, default@TABLE
    cluster  kube_NAMESPACE_SERVICE_PORT
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from kgw.attach import endpoints, hostnames
from kgw.translate import clusters, filters
from kgw.translate.rules import DEFAULT_TIMEOUT_MS, REPLACED, CompiledRule, RuleCompiler, action

if TYPE_CHECKING:
    from kgw.api import Service
    from kgw.api.core.service import ServicePort
    from kgw.attach.attachment import Attachment
    from kgw.attach.gateways import GatewayState, ListenerState
    from kgw.attach.routes import RouteState


class Tables:
    """Builds route tables, and the routes and clusters that they name."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        compiler = RuleCompiler(attachment)
        self._rules = {
            named: compiler.compile(state) for named, state in attachment.routes.states.items()
        }
        self.route_tables: dict[str, Any] = {}
        self.routes: dict[str, Any] = {}
        self.clusters: dict[str, Any] = {}

    # === Tables ===

    def http(self, gateway: GatewayState, listeners: list[ListenerState]) -> str:
        """The table of a Gateway's listeners on one port.

        Each listener's hostname is a virtual host even without routes, so that what no route of the
        most specific listener matches is not found, rather than served by another listener.
        """
        port = listeners[0].spec.port
        table = f"gateway/{gateway.named[0]}/{gateway.named[1]}/{port}"
        hosts: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for listener in listeners:
            own = listener.hostname
            hosts.setdefault(own, [])
            narrower = [
                one.hostname
                for one in listeners
                if one.hostname != own and hostnames.covers(own, one.hostname)
            ]
            for state, names in self._attachment.routes.by_listener.get(listener.id, ()):
                reachable = [
                    name
                    for name in names
                    if not any(hostnames.covers(one, name) for one in narrower)
                ]
                rules = self._route(table, gateway, listener, state, port, mesh=False)
                for name in reachable:
                    hosts[name] += rules
        self._table(table, hosts)
        return table

    def service(self, gateway: GatewayState, service: Service, port: ServicePort) -> str:
        """The table of a service port on a waypoint.

        Routes of the Service if there are any, else routes of the waypoint, else a route to the
        Service itself.
        """
        listener = gateway.proxy_listener
        assert listener is not None  # a Service is only bound to a waypoint that has one
        table = f"service/{service.namespace}/{service.name}/{port.port}"
        hosts: dict[str, list[dict[str, Any]]] = defaultdict(list)
        routes = self._attachment.routes
        own = routes.by_service.get((service.namespace, service.name, port.port), ())
        shared = routes.by_listener.get(listener.id, ())
        if own:
            for state in own:
                hosts[hostnames.ANY] += self._route(
                    table, gateway, listener, state, port.port, mesh=True
                )
        elif shared:
            for state, names in shared:
                rules = self._route(table, gateway, listener, state, port.port, mesh=False)
                for name in names:
                    hosts[name] += rules
        else:
            hosts[hostnames.ANY].append(self._default(table, gateway, listener, service, port))
        self._table(table, hosts)
        return table

    def _table(self, name: str, hosts: dict[str, list[dict[str, Any]]]) -> None:
        self.route_tables[name] = {
            "hosts": [{"hostname": host, "rules": rules} for host, rules in sorted(hosts.items())]
        }

    # === Routes ===

    def _route(
        self,
        table: str,
        gateway: GatewayState,
        listener: ListenerState,
        state: RouteState,
        port: int,
        *,
        mesh: bool,
    ) -> list[dict[str, Any]]:
        """The rules of one HTTPRoute in a table."""
        route = state.route
        named = (route.namespace, route.name)
        rules = []
        for rule in self._rules[named]:
            limit = self._attachment.policies.limit(
                gateway.named, listener.spec.name, named, rule.name, rule.policies
            )
            if isinstance(limit, str):
                state.replaced[rule.index, limit] = None
            broken = rule.fault is not None or isinstance(limit, str)
            backends = [] if broken else self._backends(state, rule, mesh)
            for match in rule.matches:
                name = f"{route.namespace}/{route.name}/{rule.label}/{match.index}"
                ident = f"httproute/{name}@{table}"
                rules.append(
                    {
                        **match.predicates,
                        "rank": {
                            "created": route.created,
                            "name": f"{route.namespace}/{route.name}",
                            "rule": rule.index,
                            "match": match.index,
                        },
                        "route": ident,
                    }
                )
                if ident in self.routes:
                    continue
                if broken or isinstance(limit, str):
                    direct = {"type": "direct", "status": 500, "body": REPLACED}
                    self.routes[ident] = {"name": name, "filters": [], "action": direct}
                    continue
                scope = _scope(limit.level, table, listener, ident) if limit else ""
                limits = filters.local_rate_limit(limit, scope) if limit else []
                ports = (one.port for one in state.backends[rule.index])
                web = filters.grpc_web(gateway, listener, ports)
                assert rule.source is not None
                self.routes[ident] = {
                    "name": name,
                    "filters": filters.chain([*web, *limits, *rule.filters]),
                    "action": action(rule.source, match, backends, port),
                }
        return rules

    def _default(
        self,
        table: str,
        gateway: GatewayState,
        listener: ListenerState,
        service: Service,
        port: ServicePort,
    ) -> dict[str, Any]:
        """The rule of a service port that no HTTPRoute serves."""
        ident = f"default@{table}"
        limit = self._attachment.policies.limit(gateway.named, listener.spec.name)
        chain = filters.grpc_web(gateway, listener, [port])
        target: dict[str, Any]
        if isinstance(limit, str):
            target = {"type": "direct", "status": 500, "body": REPLACED}
        else:
            if limit is not None:
                scope = _scope(limit.level, table, listener, ident)
                chain += filters.local_rate_limit(limit, scope)
            target = {
                "type": "forward",
                "backends": [{"cluster": self._cluster(service, port), "weight": 1, "filters": []}],
                "request_timeout_ms": DEFAULT_TIMEOUT_MS,
            }
        name = f"{service.namespace}/{service.name}:{port.port}"
        self.routes[ident] = {"name": name, "filters": chain, "action": target}
        rank = {"created": None, "name": name, "rule": 0, "match": 0}
        return {"path": {"prefix": "/"}, "rank": rank, "route": ident}

    # === Backends ===

    def _backends(self, state: RouteState, rule: CompiledRule, mesh: bool) -> list[dict[str, Any]]:
        found = []
        for place, backend in enumerate(state.backends[rule.index]):
            cluster = None
            usable = backend.failure(mesh) is None and place not in rule.broken_backends
            if usable and backend.service is not None and backend.port is not None:
                cluster = self._cluster(backend.service, backend.port)
            found.append(
                {
                    "cluster": cluster,
                    "weight": backend.ref.weight,
                    "filters": filters.chain(filters.header_filters(backend.ref.filters))
                    if usable
                    else [],
                }
            )
        return found

    def _cluster(self, service: Service, port: ServicePort) -> str | None:
        """The cluster of a port; none where a policy leaves it without connections."""
        upstream = self._attachment.upstreams.of(service, port)
        if upstream.broken is not None:
            return None
        ident = f"kube_{service.namespace}_{service.name}_{port.port}"
        if ident not in self.clusters:
            found = endpoints.addresses(self._attachment.index, service, port)
            self.clusters[ident] = {"endpoints": found, **clusters.settings(upstream)}
        return ident


def _scope(level: str, table: str, listener: ListenerState, route: str) -> str:
    """What shares a bucket: a match for policies of routes, more for those of Gateways."""
    match level:
        case "route":
            return route
        case "listener":
            return f"{table}/{listener.spec.name}"
        case _:
            return table
