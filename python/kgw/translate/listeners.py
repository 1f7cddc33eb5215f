"""Listeners: sockets, HTTP options and access logs."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from kgw.attach import protocols
from kgw.attach.effects import settings_fields
from kgw.attach.gateways import Role
from kgw.attach.protocols import HTTP2, NOT_HTTP
from kgw.attach.status import Outcome
from kgw.attach.waypoints import own_service
from kgw.diagnostics import Severity
from kgw.translate import settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.api import Resource
    from kgw.api.core.service import ServicePort
    from kgw.attach.attachment import Attachment
    from kgw.attach.gateways import GatewayState, ListenerState
    from kgw.source.memory import FieldPath
    from kgw.translate.options import Options
    from kgw.translate.tables import Tables


class Listeners:
    """Builds the listeners of all Gateways."""

    def __init__(self, attachment: Attachment, tables: Tables, options: Options) -> None:
        self._attachment = attachment
        self._index = attachment.index
        self._tables = tables
        self._options = options
        self._bound: dict[str, str] = {}

    def build(self) -> list[dict[str, Any]]:
        """The listeners, older Gateways first where they compete for an address."""
        found: list[dict[str, Any]] = []
        states = sorted(self._attachment.gateways.values(), key=lambda one: one.gateway.age())
        for state in states:
            if state.refusal is None and self._options.includes("/".join(state.named)):
                found += self._gateway(state)
        return sorted(found, key=lambda one: str(one["id"]))

    def _gateway(self, state: GatewayState) -> list[dict[str, Any]]:
        proxy = state.proxy_listener
        if proxy is not None:
            groups = [[proxy]]
        else:
            ports: dict[int, list[ListenerState]] = defaultdict(list)
            for listener in state.listeners:
                if listener.usable and not listener.foreign:
                    ports[listener.spec.port].append(listener)
            groups = list(ports.values())
        found = [self._listener(state, group) for group in groups]
        return [one for one in found if one is not None]

    def _listener(self, state: GatewayState, group: list[ListenerState]) -> dict[str, Any] | None:
        """One socket and the Gateway listeners that share it."""
        first = group[0]
        port = first.spec.port
        waypoint = state.role is Role.WAYPOINT
        bind = self._options.addresses(first.id, port, waypoint=waypoint)
        if not self._claim(state, group, bind):
            return None
        if waypoint:
            if self._options.exposed:
                self._index.report(
                    state.gateway,
                    "KGW409",
                    Severity.WARNING,
                    "the waypoint listens beyond loopback: anyone who can reach it can forge an "
                    "identity",
                    ("spec", "listeners", first.index),
                )
            traffic = {"type": "waypoint", "destinations": self._destinations(state)}
        else:
            traffic = {"type": "http", "route_table": self._tables.http(state, group)}
        found = {"id": first.id, "bind": bind, "traffic": traffic, "http": {}, "access_logs": []}
        self._settings(state, group, found)
        return found

    def _claim(self, state: GatewayState, group: list[ListenerState], bind: list[str]) -> bool:
        """Takes addresses for a Gateway; two that share one would split its connections."""
        name = "/".join(state.named)
        taken = [one for one in _overlaps(bind, self._bound) if self._bound[one] != name]
        if not taken:
            for one in bind:
                if not one.endswith(":0"):
                    self._bound[one] = name
            return True
        message = f"address {taken[0]} is taken by Gateway {self._bound[taken[0]]}"
        for listener in group:
            listener.accepted = Outcome(False, "PortUnavailable", message)
            path = ("spec", "listeners", listener.index, "port")
            hint = "give one of them another port, or serve each Gateway by a process of its own"
            self._index.report(state.gateway, "KGW405", Severity.ERROR, message, path, hint=hint)
        if not any(one.usable for one in state.listeners):
            state.refusal = Outcome(False, "ListenersNotValid", "No valid listeners")
        return False

    # === Waypoints ===

    def _destinations(self, state: GatewayState) -> list[dict[str, Any]]:
        """The addresses of all service ports that the waypoint serves."""
        found = []
        for named, binding in sorted(self._attachment.bindings.items()):
            service = self._index.services[named]
            # The waypoint's own Service leads to this listener: forwarding would go in circles.
            if binding.state is not state or own_service(state, service):
                continue
            for number, port in enumerate(service.spec.ports):
                if port.protocol != "TCP" or not self._speaks_http(named, number, port):
                    continue
                vips = service.vips()
                if not vips:
                    continue  # headless: no connection names it
                table = self._tables.service(state, service, port)
                found += [
                    {
                        "address": str(vip),
                        "port": port.port,
                        "service": "/".join(named),
                        "route_table": table,
                    }
                    for vip in vips
                ]
        return found

    def _speaks_http(self, named: tuple[str, str], number: int, port: ServicePort) -> bool:
        """Whether HTTP/1.1 may be served on a service port; what names no protocol may be."""
        declared = protocols.declared(port)
        path = ("spec", "ports", number, "appProtocol" if port.app_protocol else "name")
        if declared in NOT_HTTP:
            self._index.report(
                self._index.services[named],
                "KGW504",
                Severity.WARNING,
                f"port {port.port} is declared as {declared}, which this version does not serve; "
                "its connections are closed",
                path,
                legal="http",
            )
            return False
        if declared in HTTP2:
            self._index.report(
                self._index.services[named],
                "KGW504",
                Severity.WARNING,
                f"port {port.port} is declared as {declared}, but only HTTP/1.1 is served so far",
                path,
                legal="http",
            )
        return True

    # === Policies ===

    def _settings(
        self, state: GatewayState, group: list[ListenerState], found: dict[str, Any]
    ) -> None:
        """Writes what policies and annotations set into a listener: of each setting, the first."""
        taken: set[str] = set()
        port = group[0].spec.port
        names = [one.spec.name for one in group]
        for policy in self._attachment.policies.listener_settings(state.named, names):
            for name, (value, path) in settings_fields(policy, port).items():
                if name in taken or name in settings.INHERENT:
                    continue
                taken.add(name)
                if settings.displaced(name, found["http"]):
                    text = "it contradicts one of a policy with precedence"
                    self._idle(policy.policy, path, text)
                    continue
                field, convert = settings.POLICY[name]
                self._put(policy.policy, path, found, field, convert(value))
        for name, one in state.options(names).items():
            if name in settings.ANNOTATED:
                path = ("metadata", "annotations", one.annotation)
                self._put(state.gateway, path, found, settings.ANNOTATED[name], one.value)

    def _put(
        self, owner: Resource, path: FieldPath, found: dict[str, Any], field: str, value: Any
    ) -> None:
        """Writes a setting where the listener has what it is about."""
        traffic = found["traffic"]
        part, _, rest = field.partition(".")
        if part == "proxy_protocol" and traffic["type"] == "waypoint":
            # Its connections have the header in any case: they say in it where they go.
            if not rest:
                if value["optional"]:
                    text = "a waypoint closes connections without a PROXY protocol header"
                    self._idle(owner, (*path, "allowRequestsWithoutProxyProtocol"), text)
                return
            field = f"traffic.{rest}"
        elif part == "proxy_protocol" and rest and "proxy_protocol" not in found:
            self._idle(owner, path, "the listener has no PROXY protocol")
            return
        elif part == "traffic" and traffic["type"] != "tls":
            return  # Envoy too: without TLS there is nothing to wait for.
        settings.put(found, field, value)

    def _idle(self, owner: Resource, path: FieldPath, why: str) -> None:
        message = f"the setting has no effect: {why}"
        self._index.report(owner, "KGW413", Severity.WARNING, message, path)


def _overlaps(bind: Iterable[str], bound: dict[str, str]) -> list[str]:
    """The bound addresses that compete with new ones: the same, or a wildcard on the port."""
    found = []
    for one in bind:
        host, _, port = one.rpartition(":")
        if port == "0":
            continue
        for other in bound:
            other_host, _, other_port = other.rpartition(":")
            same_family = host.startswith("[") == other_host.startswith("[")
            wildcard = {host, other_host} & {"0.0.0.0", "[::]"}
            if port == other_port and same_family and (host == other_host or wildcard):
                found.append(other)
    return found
