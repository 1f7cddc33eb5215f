"""Route tables: the rules of all routes that serve one port, by hostname.

Ids say what a thing is and do not change with anything else, so that state that has identity
survives a reload:

    table    gateway/NAMESPACE/GATEWAY/PORT, gateway/NAMESPACE/GATEWAY/PORT/LISTENER,
             service/NAMESPACE/SERVICE/PORT
    route    httproute/NAMESPACE/NAME/RULE/MATCH@TABLE, default@TABLE, misdirected@TABLE
    cluster  kube_NAMESPACE_SERVICE_PORT, kube_NAMESPACE_SERVICE_PORT_auto; with the certificate of
             a Gateway, followed by @NAMESPACE/GATEWAY
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from kgw.attach import endpoints, hostnames, protocols
from kgw.attach.gateways import Role
from kgw.attach.policies import Place
from kgw.diagnostics import Severity
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
            self._hosts(hosts, table, gateway, listener, listeners)
        self._table(table, hosts)
        return table

    def https(
        self, gateway: GatewayState, listener: ListenerState, sharing: list[ListenerState]
    ) -> str:
        """The table of a listener of protocol HTTPS.

        A request for a host of another listener of the port is answered 421: the client has come
        with the name of this one, and what the other asks of clients has not been asked.
        """
        table = f"gateway/{'/'.join(gateway.named)}/{listener.spec.port}/{listener.spec.name}"
        hosts: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._hosts(hosts, table, gateway, listener, sharing)
        others = {one.hostname for one in sharing} - {listener.hostname}
        if others:
            route = f"misdirected@{table}"
            direct = {"type": "direct", "status": 421}
            self.routes[route] = {"name": "misdirected", "filters": [], "action": direct}
            rank = {"created": None, "name": "", "rule": 0, "match": 0}
            for host in others:
                hosts[host] = [{"path": {"prefix": "/"}, "rank": rank, "route": route}]
        self._table(table, hosts)
        return table

    def _hosts(
        self,
        hosts: dict[str, list[dict[str, Any]]],
        table: str,
        gateway: GatewayState,
        listener: ListenerState,
        sharing: list[ListenerState],
    ) -> None:
        """Adds the rules of a listener under its hosts, but for those of narrower listeners."""
        hosts.setdefault(listener.hostname, [])
        narrower = hostnames.narrower(listener.hostname, (one.hostname for one in sharing))
        port = listener.spec.port
        for state, names in self._attachment.routes.by_listener.get(listener.id, ()):
            rules = self._route(table, gateway, listener, state, port, mesh=False)
            for name in names:
                if not any(hostnames.covers(one, name) for one in narrower):
                    hosts[name] += rules

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
            place = Place(gateway.named, listener.spec.name, named, rule.name, rule.policies)
            limit = self._attachment.policies.limit(place)
            if isinstance(limit, str):
                state.replaced[rule.index, limit] = None
            broken = rule.fault is not None or isinstance(limit, str)
            backends = [] if broken else self._backends(gateway, state, rule, mesh)
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
                timeout = self._attachment.policies.request_timeout(place)
                assert rule.source is not None
                target = action(rule.source, match, backends, port, timeout)
                upgrades = self._upgrades(state, rule)
                if target["type"] == "forward" and upgrades:
                    target["upgrades"] = upgrades
                self.routes[ident] = {
                    "name": name,
                    "filters": filters.chain([*web, *limits, *rule.filters]),
                    "action": target,
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
        place = Place(gateway.named, listener.spec.name)
        limit = self._attachment.policies.limit(place)
        chain = filters.grpc_web(gateway, listener, [port])
        target: dict[str, Any]
        if isinstance(limit, str):
            target = {"type": "direct", "status": 500, "body": REPLACED}
        else:
            timeout = self._attachment.policies.request_timeout(place)
            if limit is not None:
                scope = _scope(limit.level, table, listener, ident)
                chain += filters.local_rate_limit(limit, scope)
            target = {
                "type": "forward",
                "backends": [
                    {"cluster": self.cluster(gateway, service, port), "weight": 1, "filters": []}
                ],
                "request_timeout_ms": DEFAULT_TIMEOUT_MS if timeout is None else int(timeout),
            }
        name = f"{service.namespace}/{service.name}:{port.port}"
        self.routes[ident] = {"name": name, "filters": chain, "action": target}
        rank = {"created": None, "name": name, "rule": 0, "match": 0}
        return {"path": {"prefix": "/"}, "rank": rank, "route": ident}

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
                cluster = self.cluster(gateway, backend.service, backend.port)
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
        if protocols.of(port).http or cluster is None or "tls" in self.clusters[cluster]:
            return
        word = port.app_protocol or port.name
        self._attachment.index.report(
            state.route,
            "KGW422",
            Severity.WARNING,
            f"port {port.port} is declared as {word}, and gets HTTP/1.1 without TLS",
            ("spec", "rules", rule.index, "backendRefs", place, "port"),
            hint="a BackendTLSPolicy asks for TLS"
            if protocols.declared(port) in protocols.ENCRYPTED
            else None,
        )

    def _upgrades(self, state: RouteState, rule: CompiledRule) -> list[str]:
        """What requests may switch to because the port of a backend says so."""
        ports = (one.port for one in state.backends[rule.index])
        return sorted({what for one in ports if one for what in protocols.of(one).upgrades})

    def cluster(self, gateway: GatewayState, service: Service, port: ServicePort) -> str | None:
        """The cluster of a service port, as a Gateway reaches it.

        Where the port does not declare what it carries, a waypoint speaks the version of HTTP that
        the client has chosen, as Istio's does, and other Gateways HTTP/1.1, as kgateway does. There
        is none where a policy leaves the port without connections.
        """
        upstream = self._attachment.upstreams.of(gateway, service, port)
        if upstream.broken is not None:
            return None
        ident = f"kube_{service.namespace}_{service.name}_{port.port}"
        version = protocols.of(port).version
        if version == "auto" and gateway.role is Role.WAYPOINT:
            ident += "_auto"
        elif version == "auto":
            version = protocols.HTTP1.version
        if upstream.tls is not None:
            version = clusters.negotiated(version, upstream.tls.alpn)
            own = gateway.client_certificate
            if own is not None and upstream.tls.certificate is own:
                ident += f"@{'/'.join(gateway.named)}"
        if ident not in self.clusters:
            found = endpoints.addresses(self._attachment.index, service, port)
            cluster = {"endpoints": found, **clusters.settings(upstream)}
            if version != protocols.HTTP1.version:
                cluster["protocol"] = version
            self.clusters[ident] = cluster
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
