"""What becomes of connections: TLS by server name, and bytes that are passed on.

A name belongs to the most specific listener of the port, whether or not that one has a route for it
or can be served at all. What nothing serves is closed, and not left to a wider listener, which may
ask less of clients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kgw.attach import hostnames
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.api.core.service import ServicePort
    from kgw.attach.attachment import Attachment
    from kgw.attach.frontends import ServiceAddress
    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import AnyService
    from kgw.attach.listeners import ListenerState
    from kgw.attach.server_tls import ServerTLS
    from kgw.attach.streams import StreamState
    from kgw.translate.tables import Tables


#: Fields of clusters that are about connections.
_OF_CONNECTIONS: Final = {"tls": "TLS", "proxy_protocol": "a PROXY protocol header"}


class Streams:
    """Builds the traffic of listeners and service ports that carry more than plain HTTP."""

    def __init__(self, attachment: Attachment, tables: Tables) -> None:
        self._index = attachment.index
        self._streams = attachment.streams
        self._tables = tables

    def tcp(self, gateway: GatewayState, listener: ListenerState) -> dict[str, Any]:
        """The traffic of a listener of protocol TCP: the oldest route has it all."""
        attached = self._streams.by_listener.get(listener.id)
        forward = self._forward(gateway, attached[0][0], mesh=False) if attached else _closed()
        return {"type": "tcp", "forward": forward}

    def udp(self, gateway: GatewayState, listener: ListenerState) -> dict[str, Any]:
        """The traffic of a listener of protocol UDP: the oldest route has it all."""
        attached = self._streams.by_listener.get(listener.id)
        forward = self._forward(gateway, attached[0][0], mesh=False) if attached else _closed()
        return {"type": "udp", "forward": forward}

    def tls(self, gateway: GatewayState, listeners: list[ListenerState]) -> dict[str, Any]:
        """The traffic of the listeners of protocols HTTPS and TLS on one port."""
        chains: list[dict[str, Any]] = []
        names = dict.fromkeys(one.hostname for one in listeners)
        for listener in listeners:
            if not listener.usable:
                chains.append(_chain(listener.section, [listener.hostname], _refusal()))
            elif listener.spec.protocol == "HTTPS":
                action = {
                    "type": "http",
                    "tls": _server_tls(listener.tls),
                    "route_table": self._tables.https(gateway, listener, names),
                }
                chains.append(_chain(listener.section, [listener.hostname], action))
            else:
                chains += self._chains(gateway, listener, listeners)
        return {"type": "tls", "chains": _disjoint(chains)}

    def service(self, gateway: GatewayState, address: ServiceAddress) -> dict[str, Any]:
        """Where the routes of a service port send its connections; empty if it has none.

        TLS goes by the server name that the client asks for: of routes for one name the oldest has
        it. What asks for another name is closed, as is what is not TLS.
        """
        own = self._streams.by_service.get(address)
        if not own:
            return {}
        if own[0].route.kind == "TCPRoute":
            return {"tcp": self._forward(gateway, own[0], mesh=True)}
        owners: dict[str, StreamState] = {}
        for state in own:
            for name in state.server_names:
                owners.setdefault(name, state)
        routes = [
            {
                "server_names": [name for name, owner in owners.items() if owner is state],
                "forward": self._forward(gateway, state, mesh=True),
            }
            for state in dict.fromkeys(owners.values())
        ]
        return {"tls": {"routes": routes}}

    def to_service(
        self, gateway: GatewayState, service: AnyService, port: ServicePort
    ) -> dict[str, Any]:
        """The connections of a service port, to the Service itself."""
        cluster = self._tables.cluster(gateway, service, port)
        name = f"{service.namespace}/{service.name}:{port.port}"
        return {"name": name, "backends": [{"cluster": cluster, "weight": 1}]}

    def _chains(
        self, gateway: GatewayState, listener: ListenerState, listeners: list[ListenerState]
    ) -> list[dict[str, Any]]:
        """The chains of a listener of protocol TLS: of the routes for a name the oldest has it."""
        narrower = hostnames.narrower(listener.hostname, (one.hostname for one in listeners))
        owners: dict[str, StreamState] = {}
        attached = self._streams.by_listener.get(listener.id, ())
        # A TLSRoute says whose names it is for, a TCPRoute takes what is left.
        for state, names in sorted(attached, key=lambda one: one[0].route.kind == "TCPRoute"):
            for name in names:
                if not any(hostnames.covers(one, name) for one in narrower):
                    owners.setdefault(name, state)
        found = []
        for state in dict.fromkeys(owners.values()):
            own = [name for name, owner in owners.items() if owner is state]
            action = self._action(gateway, listener, state)
            found.append(_chain(f"{listener.section}/{state.name}", own, action))
        if listener.hostname not in owners:
            found.append(_chain(listener.section, [listener.hostname], _refusal()))
        return found

    def _action(
        self, gateway: GatewayState, listener: ListenerState, state: StreamState
    ) -> dict[str, Any]:
        passes = listener.passes_through
        forward = self._forward(gateway, state, mesh=False, passes_tls=passes)
        # Where nothing can be reached no handshake begins either: a client must not take it for one
        # that serves it (TLSRoute: a connection without a valid backend is rejected).
        reachable = any(one["cluster"] and one["weight"] for one in forward["backends"])
        if passes or not reachable:
            return {"type": "passthrough", "forward": forward}
        return {"type": "tcp", "tls": _server_tls(listener.tls), "forward": forward}

    def _forward(
        self, gateway: GatewayState, state: StreamState, *, mesh: bool, passes_tls: bool = False
    ) -> dict[str, Any]:
        backends = []
        for number, one in enumerate(state.backends[0]):
            cluster = self._tables.backend(
                gateway, one, mesh=mesh, variant="tcp", passes_tls=passes_tls
            )
            if cluster is not None and state.route.kind == "UDPRoute":
                cluster = self._plain(state, number, cluster)
            backends.append({"cluster": cluster, "weight": one.weight})
        return {"name": state.name, "backends": backends}

    def _plain(self, state: StreamState, number: int, cluster: str) -> str | None:
        """A cluster, unless datagrams cannot be sent to it as its policies ask."""
        made = self._tables.clusters.made[cluster].ir
        asked = [word for field, word in _OF_CONNECTIONS.items() if field in made]
        if not asked:
            return cluster
        text = f"policies of the Service ask for {asked[0]}, without which datagrams are not sent"
        path = ("spec", "rules", 0, "backendRefs", number)
        self._index.report(state.route, "KGW504", Severity.ERROR, text, path)
        return None


def _server_tls(tls: ServerTLS | None) -> dict[str, Any]:
    assert tls is not None  # a listener that ends TLS and has no certificate is not usable
    found: dict[str, Any] = {
        "certificates": [{"chain": one.chain, "key": one.key} for one in tls.key_pairs]
    }
    options = tls.options
    parameters: dict[str, Any] = {}
    if options.min_version is not None:
        parameters["min_version"] = options.min_version
    if options.max_version is not None:
        parameters["max_version"] = options.max_version
    if options.cipher_suites:
        parameters["cipher_suites"] = list(options.cipher_suites)
    if parameters:
        found["parameters"] = parameters
    if options.alpn is not None:
        found["alpn"] = list(options.alpn)
    if tls.authorities:
        found["client_validation"] = {
            "ca": tls.authorities,
            "mode": tls.mode,
            "subject_alt_names": [_subject_alt_name(one) for one in options.subject_alt_names],
        }
    return found


def _subject_alt_name(text: str) -> dict[str, str]:
    """A name that a certificate must have; kgateway's option says no more than the name."""
    return {"type": "uri" if "://" in text else "dns", "value": text}


def _chain(name: str, server_names: list[str], action: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "server_names": server_names, "action": action}


def _closed() -> dict[str, Any]:
    return {"name": "", "backends": []}


def _refusal() -> dict[str, Any]:
    """Closes connections before TLS begins, so that no certificate is shown for the name."""
    return {"type": "passthrough", "forward": _closed()}


def _disjoint(chains: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Chains without the names of earlier ones: listeners that conflict share theirs."""
    seen: set[str] = set()
    found = []
    for chain in chains:
        names = [one for one in chain["server_names"] if one not in seen]
        seen.update(names)
        if names:
            found.append({**chain, "server_names": names})
    return found
