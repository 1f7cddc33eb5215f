"""Listeners: sockets, HTTP options and access logs."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from kgw.attach.effects import settings_fields
from kgw.attach.gateways import Role
from kgw.attach.status import Outcome
from kgw.diagnostics import Severity
from kgw.translate import addresses, log_services, settings, tracing
from kgw.translate.destinations import Destinations
from kgw.translate.streams import Streams

if TYPE_CHECKING:
    from kgw.api import Resource
    from kgw.attach.attachment import Attachment
    from kgw.attach.gateways import GatewayState
    from kgw.attach.listeners import ListenerState
    from kgw.source.memory import FieldPath
    from kgw.translate.options import Options
    from kgw.translate.tables import Tables


class Listeners:
    """Builds the listeners of all Gateways."""

    def __init__(self, attachment: Attachment, tables: Tables, options: Options) -> None:
        self._attachment = attachment
        self._index = attachment.index
        self._tables = tables
        self._streams = Streams(attachment, tables)
        self._destinations = Destinations(attachment, tables, self._streams)
        self._options = options
        #: Whose each address is, by transport, port and family, and by host.
        self._bound: dict[tuple[str, str, bool], dict[str, str]] = defaultdict(dict)
        #: Annotations of the Gateway at hand, and why they do nothing on its listeners so far.
        self._annotations: dict[FieldPath, str | None] = {}

    def build(self) -> list[dict[str, Any]]:
        """The listeners, older Gateways first where they compete for an address."""
        found: list[dict[str, Any]] = []
        states = sorted(self._attachment.gateways.values(), key=lambda one: one.gateway.age())
        states = [one for one in states if self._options.includes("/".join(one.named))]
        addresses.assign(self._index, self._options.pool, states)
        for state in states:
            if state.refusal is None and state.addresses != ():
                found += self._gateway(state)
        return sorted(found, key=lambda one: str(one["id"]))

    def _gateway(self, state: GatewayState) -> list[dict[str, Any]]:
        proxy = state.proxy_listener
        if proxy is not None:
            groups = [[proxy]]
        else:
            ports: dict[tuple[int, bool], list[ListenerState]] = defaultdict(list)
            for listener in state.listeners:
                # What is displaced must not take anything from what has precedence.
                if not listener.foreign and not listener.displaced:
                    ports[listener.spec.port, listener.spec.protocol == "UDP"].append(listener)
            groups = [group for group in ports.values() if any(one.usable for one in group)]
        self._annotations = {}
        found = [self._listener(state, group) for group in groups]
        for path, why in self._annotations.items():
            if why is not None:
                self._idle(state.gateway, path, why)
        return [one for one in found if one is not None]

    def _listener(self, state: GatewayState, group: list[ListenerState]) -> dict[str, Any] | None:
        """One socket and the Gateway listeners that share it."""
        first = group[0]
        port = first.spec.port
        waypoint = state.role is Role.WAYPOINT
        bind = self._options.addresses(first.id, port, state.addresses, waypoint=waypoint)
        if not self._claim(state, group, bind):
            return None
        if waypoint:
            if self._options.is_exposed(state.addresses):
                self._index.report(
                    state.gateway,
                    "KGW409",
                    Severity.WARNING,
                    "the waypoint listens beyond loopback: anyone who can reach it can forge an "
                    "identity",
                    ("spec", "listeners", first.index),
                )
            destinations = self._destinations.build(state)
            traffic: dict[str, Any] = {"type": "waypoint", "destinations": destinations}
        elif first.spec.protocol == "HTTP":
            traffic = {"type": "http", "route_table": self._tables.http(state, group)}
        elif first.spec.protocol == "TCP":
            traffic = self._streams.tcp(state, first)
        elif first.spec.protocol == "UDP":
            traffic = self._streams.udp(state, first)
        else:
            traffic = self._streams.tls(state, group)
        found: dict[str, Any] = {
            "id": first.id,
            "bind": bind,
            "traffic": traffic,
            "http": {},
            "access_logs": [],
        }
        self._settings(state, group, found)
        if waypoint:
            # As Istio's waypoints do; elsewhere a port or a policy asks for it, as in kgateway.
            upgrades = found["http"].get("upgrades", ())
            found["http"]["upgrades"] = sorted({"websocket", *upgrades})
            # Their clients may be gateways, which state whom they speak for.
            found["http"].setdefault("strip_client_address", False)
        return found

    def _claim(self, state: GatewayState, group: list[ListenerState], bind: list[str]) -> bool:
        """Takes addresses for a Gateway; two that share one would split its connections."""
        name = "/".join(state.named)
        transport = "UDP" if group[0].spec.protocol == "UDP" else "TCP"
        places = [_place(transport, one) for one in bind if not one.endswith(":0")]
        taken = next((one for place in places if (one := self._taken(*place, name))), None)
        if taken is None:
            for place, host in places:
                self._bound[place][host] = name
            return True
        message = f"address {taken[0]} is taken by Gateway {taken[1]}"
        for listener in group:
            listener.accepted = Outcome(False, "PortUnavailable", message)
            path = ("spec", "listeners", listener.index, "port")
            hint = "give one of them another port, or each its own address with --address-pool"
            self._index.report(listener.owner, "KGW405", Severity.ERROR, message, path, hint=hint)
        if not any(one.usable for one in state.own):
            state.refusal = Outcome(False, "ListenersNotValid", "No valid listeners")
        return False

    def _taken(self, place: tuple[str, str, bool], host: str, name: str) -> tuple[str, str] | None:
        """An address of another Gateway that competes with a new one, and whose it is."""
        bound = self._bound[place]
        hosts = bound if host in _WILDCARDS else (host, *_WILDCARDS)
        for one in hosts:
            if bound.get(one, name) != name:
                return f"{one}:{place[1]}", bound[one]
        return None

    # === Policies ===

    def _settings(
        self, state: GatewayState, group: list[ListenerState], found: dict[str, Any]
    ) -> None:
        """Writes what policies and annotations set into a listener: of each setting, the first."""
        taken: set[str] = set()
        port = group[0].spec.port
        names = [one.section for one in group]
        for policy in self._attachment.policies.listener_settings(state.named, names):
            for name, (value, path) in settings_fields(policy, port).items():
                if name in taken:
                    continue
                taken.add(name)
                if name == "tracing":
                    traced = tracing.build(self._tables, state, policy, value)
                    if traced is not None:
                        found["tracing"] = traced
                if name in settings.APART:
                    continue
                if settings.displaced(name, found["http"]):
                    text = "it contradicts one of a policy with precedence"
                    self._idle(policy.policy, path, text)
                    continue
                field, convert = settings.POLICY[name]
                idle = self._put(found, field, convert(value), path)
                if idle is not None:
                    self._idle(policy.policy, *idle)
                if name == "access_log":
                    services = log_services.build(self._tables, state, policy, value)
                    if services:
                        found["access_log_services"] = services
        for name, one in state.options(names).items():
            if name in settings.ANNOTATED:
                path = ("metadata", "annotations", one.annotation)
                idle = self._put(found, settings.ANNOTATED[name], one.value, path)
                # One for all listeners need not have an effect on each of them.
                if idle is None:
                    self._annotations[path] = None
                else:
                    self._annotations.setdefault(path, idle[1])

    @staticmethod
    def _put(
        found: dict[str, Any], field: str, value: Any, path: FieldPath
    ) -> tuple[FieldPath, str] | None:
        """Writes a setting where the listener has what it is about.

        Returns what has no effect instead, and why.
        """
        traffic = found["traffic"]
        part, _, rest = field.partition(".")
        if part == "proxy_protocol" and traffic["type"] == "waypoint":
            # Its connections have the header in any case: they say in it where they go.
            if not rest:
                if value["optional"]:
                    text = "a waypoint closes connections without a PROXY protocol header"
                    return (*path, "allowRequestsWithoutProxyProtocol"), text
                return None
            field = f"traffic.{rest}"
        elif part == "proxy_protocol" and rest and "proxy_protocol" not in found:
            return path, "the listener has no PROXY protocol"
        elif part == "forward":
            every = list(settings.forwards(traffic))
            for one in every:
                settings.put(one, rest, value)
            return None if every else (path, "the listener passes no bytes on as they are")
        elif part == "datagrams":
            if traffic["type"] != "udp":
                return path, "the listener takes no datagrams"
            settings.put(traffic["forward"], rest, value)
            return None
        elif part == "traffic" and traffic["type"] != "tls":
            return None  # Envoy too: without TLS there is nothing to wait for.
        settings.put(found, field, value)
        return None

    def _idle(self, owner: Resource, path: FieldPath, why: str) -> None:
        message = f"the setting has no effect: {why}"
        self._index.report(owner, "KGW413", Severity.WARNING, message, path)


def _place(transport: str, bind: str) -> tuple[tuple[str, str, bool], str]:
    """Transport, port and family of an address, within which hosts compete, and the host."""
    host, _, port = bind.rpartition(":")
    return (transport, port, host.startswith("[")), host


#: Hosts that compete with all of their family.
_WILDCARDS: Final = ("0.0.0.0", "[::]")
