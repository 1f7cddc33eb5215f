"""Route tables: the rules of all routes that serve one port, by hostname.

Ids say what a thing is and do not change with anything else, so that state that has identity
survives a reload:

    table    gateway/NAMESPACE/GATEWAY/PORT, gateway/NAMESPACE/GATEWAY/PORT/LISTENER (of a
             ListenerSet's: NAMESPACE/SET/LISTENER), service/NAMESPACE/SERVICE/PORT,
             service/NAMESPACE/SERVICE/PORT/CLIENTS for the clients of a namespace;
             serviceimport/... likewise
    route    httproute/NAMESPACE/NAME/RULE/MATCH@TABLE, grpcroute/... likewise, default@TABLE,
             misdirected@TABLE
    cluster  kube_NAMESPACE_SERVICE_PORT, followed by _auto or _http2 where requests go there in
             another version of HTTP than the port's, by _udp for a port of UDP, by _passthrough
             where the TLS of clients is passed on although a policy asks for TLS; import_...
             likewise for a ServiceImport, backend_... for a Backend; with the certificate of a
             Gateway, by @NAMESPACE/GATEWAY

A table is known before its routes are: `kgw.translate.records` makes what each route has in it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kgw.attach import hostnames
from kgw.attach.frontends import ServiceAddress
from kgw.attach.policies import Place
from kgw.translate import filters
from kgw.translate.policies import filters as policy_filters
from kgw.translate.policies.action import settings
from kgw.translate.policies.context import PolicyContext
from kgw.translate.retries import DEFAULT_TIMEOUT_MS
from kgw.translate.rules import REPLACED
from kgw.translate.sessions import sessions

if TYPE_CHECKING:
    from collections.abc import Collection

    from kgw.api.core.service import ServicePort
    from kgw.attach.attachment import Attachment
    from kgw.attach.backends import Backend
    from kgw.attach.external import ExternalState
    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import AnyService
    from kgw.attach.listeners import ListenerState
    from kgw.translate.clusters import Clusters, Variant


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A route table without what routes have in it."""

    name: str
    gateway: GatewayState
    #: The port that clients connect to.
    port: int
    #: The listeners whose routes it has, each with the hostnames that narrower ones serve instead.
    listeners: tuple[tuple[ListenerState, tuple[str, ...]], ...]
    #: The service port whose own routes it has, if so: then it has no others.
    service: ServiceAddress | None = None
    #: Hosts that are there whatever the routes are, with their rules.
    hosts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


class Tables:
    """All route tables, by name and by whose routes they have."""

    def __init__(self, attachment: Attachment, clusters: Clusters) -> None:
        self._attachment = attachment
        self.clusters = clusters
        self.every: dict[str, Table] = {}
        self.by_listener: dict[str, list[Table]] = defaultdict(list)
        self.by_service: dict[ServiceAddress, Table] = {}
        #: Listeners whose first route is in the place of default ones, which the last leaves it to.
        self.fallback_listeners: set[str] = set()
        #: Routes that are of no object.
        self.routes: dict[str, Any] = {}

    def http(self, gateway: GatewayState, listeners: list[ListenerState]) -> str:
        """The table of a Gateway's listeners on one port.

        Each listener's hostname is a virtual host even without routes, so that what no route of the
        most specific listener matches is not found, rather than served by another listener.
        """
        port = listeners[0].spec.port
        name = f"gateway/{gateway.named[0]}/{gateway.named[1]}/{port}"
        own = tuple((one, _narrower(one, listeners)) for one in listeners)
        hosts: dict[str, list[dict[str, Any]]] = {one.hostname: [] for one in listeners}
        return self._add(Table(name, gateway, port, own, hosts=hosts))

    def https(
        self, gateway: GatewayState, listener: ListenerState, sharing: Collection[str]
    ) -> str:
        """The table of a listener of protocol HTTPS, whose port has listeners for some hostnames.

        A request for a host that is not the listener's is answered 421 where the port has others:
        the client has come with the name of this one, and what another asks of clients has not been
        asked.
        """
        port = listener.spec.port
        name = f"gateway/{'/'.join(gateway.named)}/{port}/{listener.section}"
        hosts: dict[str, list[dict[str, Any]]] = {listener.hostname: []}
        narrower = tuple(hostnames.narrower(listener.hostname, sharing))
        if len(sharing) > 1:
            route = f"misdirected@{name}"
            direct = {"type": "direct", "status": 421}
            self.routes[route] = {"name": "misdirected", "filters": [], "action": direct}
            rank = {"created": None, "name": "", "rule": 0, "match": 0}
            for host in dict.fromkeys((*narrower, hostnames.ANY)):
                if host == listener.hostname:
                    continue
                hosts[host] = [{"path": {"prefix": "/"}, "rank": rank, "route": route}]
        own = ((listener, narrower),)
        return self._add(Table(name, gateway, port, own, hosts=hosts))

    def clients(self, gateway: GatewayState, address: ServiceAddress) -> str:
        """The table of the routes that a service port has of its own, for all clients or some."""
        listener = gateway.proxy_listener
        assert listener is not None  # a Service is only bound to a waypoint that has one
        own = ((listener, ()),)
        return self._add(Table(address.name, gateway, address.port, own, address))

    def service(self, gateway: GatewayState, service: AnyService, port: ServicePort) -> str:
        """The table of a service port on a waypoint.

        Routes of the Service if there are any, else routes of the waypoint, else a route to the
        Service itself.
        """
        listener = gateway.proxy_listener
        assert listener is not None  # a Service is only bound to a waypoint that has one
        routes = self._attachment.routes
        address = ServiceAddress(service.key, port.port)
        if address in routes.by_port:
            return self.clients(gateway, address)
        name = address.name
        self.fallback_listeners.add(listener.id)
        if listener.id in routes.by_listener:
            return self._add(Table(name, gateway, port.port, ((listener, ()),)))
        hosts = {hostnames.ANY: [self._default(name, gateway, listener, service, port)]}
        return self._add(Table(name, gateway, port.port, (), hosts=hosts))

    def cluster(
        self,
        gateway: GatewayState,
        service: AnyService,
        port: ServicePort,
        *,
        calls: bool = False,
        passes_tls: bool = False,
    ) -> str | None:
        """The cluster of a service port, as a Gateway reaches it; see `Clusters.name`."""
        name = self.clusters.name
        return name(gateway, service, port, calls=calls, passes_tls=passes_tls)

    def backend(
        self,
        gateway: GatewayState,
        backend: Backend,
        *,
        mesh: bool,
        variant: Variant = "",
        passes_tls: bool = False,
    ) -> str | None:
        """The cluster of a backend; none if it cannot be used.

        Args:
            gateway: whose connections these are.
            backend: where they go.
            mesh: whether the route is one of the mesh.
            variant: what they carry, if not the requests of an HTTPRoute.
            passes_tls: whether that is the TLS of clients.
        """
        if backend.failure(mesh) is not None:
            return None
        if (external := self.external(backend)) is not None:
            return self.clusters.external(external, variant)
        if backend.service is None or backend.port is None:
            return None
        calls = variant == "http2"
        return self.cluster(
            gateway, backend.service, backend.port, calls=calls, passes_tls=passes_tls
        )

    def external(self, backend: Backend) -> ExternalState | None:
        """What a backend outside of the cluster comes to, if it is one."""
        if backend.external is None:
            return None
        return self._attachment.external.states[backend.external.namespace, backend.external.name]

    def authority(self, backend: Backend) -> str:
        """The host that calls of a service are for, where nothing else is said."""
        external = self.external(backend)
        if external is not None:
            return external.authority
        namespace = "" if backend.service is None else f".{backend.service.namespace}"
        return f"{backend.ref.name}{namespace}"

    def _add(self, table: Table) -> str:
        self.every[table.name] = table
        if table.service is not None:
            self.by_service[table.service] = table
            return table.name
        for listener, _ in table.listeners:
            self.by_listener[listener.id].append(table)
        return table.name

    def _default(
        self,
        table: str,
        gateway: GatewayState,
        listener: ListenerState,
        service: AnyService,
        port: ServicePort,
    ) -> dict[str, Any]:
        """The rule of a service port that no route serves."""
        ident = f"default@{table}"
        name = f"{service.namespace}/{service.name}:{port.port}"
        place = Place(gateway.named, listener.section)
        effective = self._attachment.policies.effective(place)
        chain = filters.grpc_web(gateway, listener, [port])
        target: dict[str, Any]
        if isinstance(effective, str):
            target = {"type": "direct", "status": 500, "body": REPLACED}
        else:
            given = settings(effective)
            timeout = given.request_timeout
            context = PolicyContext(self._attachment, self, gateway, table, listener, ident)
            chain = filters.chain(chain, policy_filters(effective, context))
            target = {
                "type": "forward",
                "backends": [
                    {"cluster": self.cluster(gateway, service, port), "weight": 1, "filters": []}
                ],
                "request_timeout_ms": DEFAULT_TIMEOUT_MS if timeout is None else int(timeout),
            }
            given.put(target)
            of = self._attachment.upstreams.traffic.session
            found = sessions(None, f"{service.kind}/{name}", [service], of)
            if found:
                target["sessions"] = found
        self.routes[ident] = {"name": name, "filters": chain, "action": target}
        rank = {"created": None, "name": name, "rule": 0, "match": 0}
        return {"path": {"prefix": "/"}, "rank": rank, "route": ident}


def _narrower(listener: ListenerState, sharing: list[ListenerState]) -> tuple[str, ...]:
    return tuple(hostnames.narrower(listener.hostname, (one.hostname for one in sharing)))
