"""Which listener takes a request, and why the others do not.

What is told apart here are connections: by Gateway, port, protocol, and server name or service.
What a listener's table does with the request is the engine's to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kgw.addresses import Address, parse
from kgw.attach.gateways import Role
from kgw.routing import Route, RouteTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import Named
    from kgw.attach.listeners import ListenerState
    from kgw.config import Config
    from kgw.explaining.question import Question

__all__ = ["Considered", "Taking", "take"]

_TLS = ("HTTPS", "TLS")


@dataclass(frozen=True, slots=True)
class Considered:
    """A listener that could have taken the request, and whether it does."""

    listener: str
    """``namespace/gateway/listener``."""
    port: int
    protocol: str
    hostname: str
    """The hostname, ``*`` for any."""
    taken: bool
    """Whether this is the one."""
    reason: str
    """Why, or why not."""
    place: str | None
    """``file:line:column`` of the listener, if it was read from a file."""

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as JSON data."""
        return {
            "listener": self.listener,
            "port": self.port,
            "protocol": self.protocol,
            "hostname": self.hostname,
            "taken": self.taken,
            "reason": self.reason,
            "place": self.place,
        }


@dataclass(frozen=True, slots=True)
class Taking:
    """Where a connection ends up."""

    considered: tuple[Considered, ...] = ()
    """The listeners, in the order of their Gateways."""
    listener: Mapping[str, Any] | None = None
    """The listener of the IR."""
    table: str | None = None
    """The route table of its requests."""
    forward: Mapping[str, Any] | None = None
    """Where the connection's bytes are passed on to, where nobody looks into them."""
    gateway: GatewayState | None = None
    """Its Gateway."""
    section: str | None = None
    """The name of the Gateway's listener that the host belongs to."""
    service: str | None = None
    """The service of the mesh that is called, ``namespace/name``."""
    local: Address = field(default=Address("127.0.0.1", 0))
    """The address that the client dials, as far as that is known, and the port."""
    why: str | None = None
    """Why nothing serves the connection, if so."""


def take(config: Config, question: Question) -> Taking:
    """Finds the listener that takes a request.

    Raises:
        ValueError: it depends on something that was not told; the message says what.
    """
    attachment = config.translation.base.attachment
    states = sorted(attachment.gateways.values(), key=lambda one: one.gateway.age())
    wanted = [one for one in states if _is_wanted(one, question)]
    if not wanted:
        named = question.gateway or question.listener
        known = ", ".join("/".join(one.named) for one in states) or "none"
        if named is None:
            return Taking(why="no Gateway is served")
        raise ValueError(f"there is no {named!r}; the Gateways that are served: {known}")
    waypoints = [one for one in wanted if one.role is Role.WAYPOINT]
    proxies = [one for one in wanted if one.role is not Role.WAYPOINT]
    if question.to is not None and not waypoints:
        raise ValueError("a mesh service is named, and no waypoint is served")
    of_mesh = [one for one in waypoints if _destinations(config, one, question)]
    if question.to is not None or not proxies or of_mesh:
        return _of_mesh(config, question, waypoints, of_mesh)
    return _of_gateways(config, question, proxies)


def _is_wanted(state: GatewayState, question: Question) -> bool:
    name = "/".join(state.named)
    if question.gateway is not None and not f"/{name}".endswith(f"/{question.gateway}"):
        return False
    wanted = question.listener
    return wanted is None or any(f"/{one.id}".endswith(f"/{wanted}") for one in state.listeners)


def _considered(one: ListenerState, reason: str, *, taken: bool = False) -> Considered:
    origin = one.owner.origin
    place = None if origin is None else origin.describe(("spec", "listeners", one.index))
    return Considered(one.id, one.spec.port, one.spec.protocol, one.hostname, taken, reason, place)


# === Gateways ===


def _of_gateways(config: Config, question: Question, states: Sequence[GatewayState]) -> Taking:
    """The listener of a Gateway that a client dials."""
    served = {one["id"]: one for one in config.listeners}
    at_home = {state.named for state in states if question.host in _addresses(state)}
    reasons: dict[str, str] = {}
    fitting: dict[Named, list[ListenerState]] = {}
    for state in states:
        for one in state.listeners:
            why = _why_not(state, one, question, served)
            if at_home and state.named not in at_home:
                why = f"address {question.host} is another Gateway's"
            if why is None:
                fitting.setdefault(state.named, []).append(one)
            else:
                reasons[one.id] = why
    if len(fitting) > 1:
        names = ", ".join("/".join(named) for named in fitting)
        raise ValueError(
            f"several Gateways have a listener that could take this, and the address that a client "
            f"dials decides. Say which one: {names}"
        )
    everything = [one for state in states for one in state.listeners]
    if not fitting:
        why = f"no listener takes {question.scheme} on port {question.port}"
        return Taking(tuple(_considered(one, reasons[one.id]) for one in everything), why=why)
    ((named, group),) = fitting.items()
    state = next(one for one in states if one.named == named)
    port = group[0].spec.port
    own = _chosen(group, question)
    for one in group:
        reasons.setdefault(one.id, _lost(one, own, question))
    if own is not None:
        reasons[own.id] = _won(own, question)
    considered = tuple(_considered(one, reasons[one.id], taken=one is own) for one in everything)
    listener = next(served[one.id] for one in _sharing(state, port) if one.id in served)
    where = Taking(
        considered,
        listener,
        gateway=state,
        section=None if own is None else own.section,
        local=_dialled(question, port),
    )
    return _into(where, question, listener["traffic"])


def _addresses(state: GatewayState) -> set[str]:
    """The addresses of a Gateway: those that it was given, else those that it asks for."""
    if state.addresses is not None:
        return set(state.addresses)
    return {one.value for one in state.gateway.spec.addresses if one.type == "IPAddress"}


def _why_not(
    state: GatewayState,
    one: ListenerState,
    question: Question,
    served: Mapping[str, Mapping[str, Any]],
) -> str | None:
    """Why a listener cannot take a connection, whatever host it is for."""
    if question.listener is not None and not f"/{one.id}".endswith(f"/{question.listener}"):
        # Listeners that share a port share its connections: the host decides among them.
        ports = {
            other.spec.port
            for other in state.listeners
            if f"/{other.id}".endswith(f"/{question.listener}")
        }
        if one.spec.port not in ports:
            return "another listener is asked for"
    elif question.listener is None and one.spec.port != question.port:
        return f"port {one.spec.port}, not {question.port}"
    if state.refusal is not None:
        return f"the Gateway is not accepted: {state.refusal.message}"
    if not one.usable:
        return f"not served: {one.programmed.message}"
    protocol = one.spec.protocol
    if protocol not in ("HTTP", "TCP", *_TLS):
        return f"protocol {protocol} is for no requests"
    if not any(other.id in served for other in _sharing(state, one.spec.port)):
        return "not served"
    if protocol == "HTTP" and question.secure:
        return "it takes no TLS"
    if protocol in _TLS and not question.secure:
        return f"protocol {protocol}: it takes nothing but TLS"
    return None


def _sharing(state: GatewayState, port: int) -> list[ListenerState]:
    """The listeners of a port of connections; one of datagrams may have its number."""
    return [one for one in state.listeners if one.spec.port == port and one.spec.protocol != "UDP"]


def _chosen(group: Sequence[ListenerState], question: Question) -> ListenerState | None:
    """The listener with the most specific hostname that matches, by the engine's host index."""
    host = question.server_name if group[0].spec.protocol in _TLS else question.authority
    table = RouteTable([Route("/", one, hosts=(one.hostname,)) for one in group])
    found = table.match("/", host=host)
    return None if found is None else found.value


def _asked(question: Question, one: ListenerState) -> str:
    if one.spec.protocol in _TLS:
        return _server_name(question)
    return f"host {question.authority}"


def _server_name(question: Question) -> str:
    name = question.server_name
    return "a client that names no server" if name is None else f"server name {name}"


def _won(own: ListenerState, question: Question) -> str:
    if own.hostname == "*":
        return "it takes any host that no other listener of the port has"
    return f"hostname {own.hostname} is the most specific one for {_asked(question, own)}"


def _lost(one: ListenerState, own: ListenerState | None, question: Question) -> str:
    alone = RouteTable([Route("/", one, hosts=(one.hostname,))])
    host = question.server_name if one.spec.protocol in _TLS else question.authority
    if own is not None and alone.match("/", host=host) is not None:
        return f"hostname {one.hostname} is less specific than {own.hostname}"
    return f"hostname {one.hostname} does not match {_asked(question, one)}"


def _dialled(question: Question, port: int) -> Address:
    address = Address(question.host, port)
    return address if address.ip is not None else Address("127.0.0.1", port)


def _into(where: Taking, question: Question, traffic: Mapping[str, Any]) -> Taking:
    """What becomes of a connection on a listener of the IR."""
    match traffic["type"]:
        case "http":
            return replace(where, table=traffic["route_table"])
        case "tcp":
            return replace(where, forward=traffic["forward"])
        case "tls":
            chains = [Route("/", one, hosts=one["server_names"]) for one in traffic["chains"]]
            found = RouteTable(chains).match("/", host=question.server_name)
            if found is None:
                why = f"no listener of the port is for {_server_name(question)}"
                return replace(where, why=why)
            action = found.value["action"]
            if action["type"] == "http":
                return replace(where, table=action["route_table"])
            if not action["forward"]["backends"]:
                return replace(
                    where, why="the connection is closed before TLS begins: nothing serves it"
                )
            return replace(where, forward=action["forward"])
        case other:
            raise ValueError(f"listener {where.listener} carries {other}, which is no request")


# === The mesh ===


def _destinations(
    config: Config, state: GatewayState, question: Question
) -> list[Mapping[str, Any]]:
    """The service ports of a waypoint that a client dials, by address or by name."""
    address = _service(question)
    listener = _mesh_listener(config, state)
    if listener is None:
        return []
    return [
        one
        for one in listener["traffic"]["destinations"]
        if one["port"] == address.port and _names(one, address.host, question)
    ]


def _mesh_listener(config: Config, state: GatewayState) -> Mapping[str, Any] | None:
    own = state.proxy_listener
    found = (one for one in config.listeners if own is not None and one["id"] == own.id)
    return next(found, None)


def _service(question: Question) -> Address:
    """The service that is dialled, by name or virtual IP."""
    if question.to is None:
        return Address(question.host, question.port)
    host, port = parse(question.to, question.port)
    if "/" in host:
        namespace, _, name = host.partition("/")
        host = f"{name}.{namespace}"
    return Address(host, port)


def _names(destination: Mapping[str, Any], host: str, question: Question) -> bool:
    """Whether a host is a destination: its virtual IP, or its name as the client writes it."""
    if destination["address"] == host:
        return True
    given = host.lower().rstrip(".")
    if destination.get("cluster_set", False) != given.endswith(".clusterset.local"):
        return False
    domain = given.removesuffix(".cluster.local").removesuffix(".clusterset.local")
    labels = domain.removesuffix(".svc").split(".")
    name, namespace = (*labels, _namespace(question) or "default")[:2]
    return len(labels) <= 2 and destination["service"] == f"{namespace}/{name}"


def _of_mesh(
    config: Config,
    question: Question,
    states: Iterable[GatewayState],
    found: Sequence[GatewayState],
) -> Taking:
    """The waypoint of the service that a client calls."""
    address = _service(question)
    own = found[0] if found else None
    considered = []
    for state in states:
        for one in state.listeners:
            if state is own and one is state.proxy_listener:
                service = _destinations(config, state, question)[0]["service"]
                reason = f"it serves Service {service}, port {address.port}"
                considered.append(_considered(one, reason, taken=True))
            elif state.refusal is not None:
                considered.append(
                    _considered(one, f"the Gateway is not accepted: {state.refusal.message}")
                )
            elif one is state.proxy_listener:
                considered.append(_considered(one, f"it does not serve {address}"))
    if own is None:
        why = f"no waypoint serves {address}: the mesh passes the connection on as it is"
        return Taking(tuple(considered), why=why)
    listener = _mesh_listener(config, own)
    assert listener is not None  # it has the destination
    destination = _destinations(config, own, question)[0]
    section = own.proxy_listener
    carried = _for_client(destination, question)
    if carried is not destination:
        whose = f"the routes of the clients in namespace {_namespace(question)} are used"
        considered = [
            replace(one, reason=f"{one.reason}; {whose}") if one.taken else one
            for one in considered
        ]
    where = Taking(
        tuple(considered),
        listener,
        gateway=own,
        section=None if section is None else section.section,
        service=destination["service"],
        local=Address(destination["address"], destination["port"]),
    )
    return _carry(where, question, carried)


def _namespace(question: Question) -> str | None:
    """The namespace of who calls, if that is known."""
    return None if question.identity is None else question.identity.namespace


def _for_client(destination: Mapping[str, Any], question: Question) -> Mapping[str, Any]:
    """What a client meets at a service port: in some namespaces they have routes of their own."""
    found: Mapping[str, Any] = destination.get("clients", {}).get(_namespace(question), destination)
    return found


def _carry(where: Taking, question: Question, carried: Mapping[str, Any]) -> Taking:
    """What becomes of a connection to a service port, which nobody ends TLS on."""
    if "tls" in carried:
        if not question.secure:
            return replace(where, why="the service's TLSRoutes close what is no TLS")
        routes = [Route("/", one, hosts=one["server_names"]) for one in carried["tls"]["routes"]]
        found = RouteTable(routes).match("/", host=question.server_name)
        if found is None:
            return replace(where, why=f"no TLSRoute is for {_server_name(question)}")
        return replace(where, forward=found.value["forward"])
    if "route_table" in carried and not question.secure:
        return replace(where, table=carried["route_table"])
    if "tcp" in carried:
        return replace(where, forward=carried["tcp"])
    return replace(where, why="the service port carries requests, which are not encrypted")
