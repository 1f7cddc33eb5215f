"""Clusters: the endpoints of a Service's port, and how connections to them are made."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from kgw.api import loaded
from kgw.attach import endpoints, protocols, static_backends
from kgw.attach.gateways import Role
from kgw.translate import limits

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from kgw.api import ResourceKey
    from kgw.api.core.service import ServicePort
    from kgw.attach.attachment import Attachment
    from kgw.attach.external import External, ExternalState
    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import AnyService, Named
    from kgw.attach.upstream import Tls, Upstream
    from kgw.diagnostics import Finding


#: What the ids of clusters begin with, by the kind of what they lead to.
_ORIGINS: Final = {"Service": "kube", "ServiceImport": "import", "Backend": "backend"}

#: What is carried to an XBackend, if not requests.
Variant = Literal["", "http2", "tcp"]


@dataclass(frozen=True, slots=True, eq=False)
class Cluster:
    """A cluster of the IR, and what is wrong with its endpoints."""

    ir: dict[str, Any]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Source:
    """What a cluster is made of, apart from endpoints."""

    service: AnyService
    port: ServicePort
    settings: dict[str, Any]


class Clusters:
    """All clusters that anything named so far, each made once."""

    def __init__(self, attachment: Attachment) -> None:
        self._index = attachment.index
        self._upstreams = attachment.upstreams
        self._names: dict[tuple[Named, ResourceKey, int, str, str, bool, bool], str | None] = {}
        self._sources: dict[str, _Source] = {}
        self._by_service: dict[ResourceKey, list[str]] = defaultdict(list)
        self._used: dict[str, None] = {}
        # Few, and each is what its own resource says.
        self.made: dict[str, Cluster] = dict(_outside(attachment.external))

    def carry(
        self, before: Clusters, services: Container[ResourceKey], gateways: Container[Named]
    ) -> None:
        """Takes over the clusters that were made before, unless they may come out otherwise now.

        Args:
            before: those that there were.
            services: Services of which anything but endpoints is different.
            gateways: Gateways that are different.
        """
        for key, ident in before._names.items():
            gateway, service, *_ = key
            if gateway in gateways or service in services:
                continue
            self._names[key] = ident
            if ident is not None and ident not in self.made:
                self._sources[ident] = before._sources[ident]
                self._by_service[service].append(ident)
                self.made[ident] = before.made[ident]

    @contextmanager
    def noting(self) -> Iterator[dict[str, None]]:
        """Notes the clusters that are named meanwhile."""
        before, self._used = self._used, {}
        try:
            yield self._used
        finally:
            self._used = before

    def name(
        self,
        gateway: GatewayState,
        service: AnyService,
        port: ServicePort,
        *,
        calls: bool = False,
        passes_tls: bool = False,
    ) -> str | None:
        """The cluster of a service port, as a Gateway reaches it.

        Where the port does not declare what it carries, a waypoint speaks the version of HTTP that
        the client has chosen, as Istio's does, and other Gateways HTTP/1.1, as kgateway does. There
        is none where a policy leaves the port without connections.

        Args:
            gateway: whose connections these are.
            service: where they go.
            port: a port of the Service.
            calls: whether they are for gRPC, which knows HTTP/2 only, whatever the port declares.
            passes_tls: whether they pass on the TLS of clients, which has no other around it.
        """
        place = (port.port, port.name, port.protocol)
        key = (gateway.named, service.key, *place, calls, passes_tls)
        try:
            ident = self._names[key]
        except KeyError:
            ident = self._names[key] = self._name(gateway, service, port, calls, passes_tls)
        if ident is not None:
            self._used[ident] = None
        return ident

    def external(self, state: ExternalState, variant: Variant = "") -> str | None:
        """The cluster of an XBackend; none if it cannot be used.

        Args:
            state: the destination.
            variant: ``http2`` for gRPC, which knows HTTP/2 only, and ``tcp`` for connections.
        """
        ident = _ident(state, variant)
        if ident not in self.made:
            return None
        self._used[ident] = None
        return ident

    def note(self, idents: Iterable[str]) -> None:
        """Notes clusters that are named once more."""
        for ident in idents:
            self._used[ident] = None

    def encrypted(self, ident: str) -> bool:
        """Whether connections of a cluster are encrypted."""
        return "tls" in self.made[ident].ir

    def refresh(self, services: Iterable[ResourceKey]) -> list[str]:
        """Makes the clusters of Services anew, whose endpoints have changed; returns which."""
        found = [ident for service in services for ident in self._by_service.get(service, ())]
        for ident in found:
            self._make(ident)
        return found

    def _name(
        self,
        gateway: GatewayState,
        service: AnyService,
        port: ServicePort,
        calls: bool,
        passes_tls: bool,
    ) -> str | None:
        upstream = self._upstreams.of(gateway, service, port)
        suffix = ""
        if passes_tls and (upstream.tls or upstream.broken):
            upstream = self._upstreams.of(gateway, service, port, passes_tls=True)
            suffix = "_passthrough"
        if upstream.broken is not None:
            return None
        origin = _ORIGINS[service.kind]
        ident = f"{origin}_{service.namespace}_{service.name}_{port.port}{suffix}"
        version = protocols.of(port).version
        if port.protocol == "UDP":
            ident += "_udp"
            version = protocols.HTTP1.version
        if calls and version != protocols.HTTP2.version:
            version = protocols.HTTP2.version
            ident += "_http2"
        elif version == "auto" and gateway.role is Role.WAYPOINT:
            ident += "_auto"
        elif version == "auto":
            version = protocols.HTTP1.version
        if upstream.tls is not None:
            version = negotiated(version, upstream.tls.alpn)
            own = gateway.client_certificate
            if own is not None and upstream.tls.certificate is own:
                ident += f"@{'/'.join(gateway.named)}"
        if ident not in self.made:
            given = settings(upstream)
            if static_backends.names_hosts(service):
                for name in ("health_check", "outlier_detection"):
                    given.pop(name, None)
            if version != protocols.HTTP1.version:
                given["protocol"] = version
            self._sources[ident] = _Source(service, port, given)
            self._by_service[service.key].append(ident)
            self._make(ident)
        return ident

    def _make(self, ident: str) -> None:
        source = self._sources[ident]
        findings: list[Finding] = []
        service = source.service
        if isinstance(service, loaded.Backend):
            found = static_backends.destination(service, self._index.options)
        else:
            with self._index.reporting_to(findings):
                found = {"endpoints": endpoints.addresses(self._index, service, source.port)}
        given = source.settings
        if "dns" in given:
            # It is about names; what has addresses is not looked up.
            given = {name: value for name, value in given.items() if name != "dns"}
            for kind in found.keys() & {"dns", "forward_proxy"}:
                found[kind] = {**found[kind], **source.settings["dns"]}
        self.made[ident] = Cluster({**found, **given}, tuple(findings))


def _outside(external: External) -> Iterator[tuple[str, Cluster]]:
    """The clusters of XBackends: as their protocols have it, and for gRPC."""
    for state in external.states.values():
        if not state.usable:
            continue
        port = state.backend.spec.port.port
        given: dict[str, Any] = {"dns": {"hostname": state.backend.hostname, "port": port}}
        if state.tls is not None:
            given["tls"] = _tls(state.tls)
        own = {} if state.version == "http1" else {"protocol": state.version}
        yield _ident(state, ""), Cluster({**given, **own}, ())
        yield _ident(state, "http2"), Cluster({**given, "protocol": "http2"}, ())
        if state.tls is not None:
            # Nothing says which protocol the bytes are of.
            given["tls"] = {**given["tls"], "alpn": []}
        yield _ident(state, "tcp"), Cluster(given, ())


def _ident(state: ExternalState, variant: Variant) -> str:
    backend = state.backend
    ident = f"external_{backend.namespace}_{backend.name}_{backend.spec.port.port}"
    return f"{ident}_{variant}" if variant else ident


def settings(upstream: Upstream) -> dict[str, Any]:
    """The fields of a cluster that policies set; what they leave open is left out."""
    found: dict[str, Any] = {}
    if upstream.connect_timeout_ms is not None:
        found["connect_timeout_ms"] = upstream.connect_timeout_ms
    found.update(limits.settings(upstream))
    if upstream.proxy_protocol is not None:
        header: dict[str, Any] = {"version": upstream.proxy_protocol}
        if upstream.tlvs.passed:
            header["pass_tlvs"] = list(upstream.tlvs.passed)
        if upstream.tlvs.added:
            header["tlvs"] = [[kind, list(value)] for kind, value in upstream.tlvs.added]
        found["proxy_protocol"] = header
    if upstream.tls is not None:
        found["tls"] = _tls(upstream.tls)
    budget = upstream.retry_budget
    if budget is not None:
        found["retry_budget"] = {
            "id": str(budget.service),
            "percent": budget.percent,
            "interval_ms": budget.interval_ms,
            "min_retries": budget.min_retries,
            "min_interval_ms": budget.min_interval_ms,
        }
    return found


def negotiated(version: str, alpn: tuple[str, ...] | None) -> str:
    """The version of HTTP of a backend that application protocols are offered to.

    Args:
        version: what its port declares, ``http1`` if nothing.
        alpn: what a policy offers; ``None`` for what the version asks for.
    """
    if version != "http1" or alpn is None or "h2" not in alpn:
        return version
    return "auto" if "http/1.1" in alpn else "http2"


def _tls(tls: Tls) -> dict[str, Any]:
    found: dict[str, Any] = {
        "trust": {"type": "ca", "value": tls.ca} if tls.trust == "ca" else {"type": tls.trust}
    }
    if tls.sni is not None:
        found["sni"] = tls.sni
    elif tls.by_host:
        found["by_host"] = True
    if tls.subject_alt_names:
        found["subject_alt_names"] = [
            {"type": kind, "value": name} for kind, name in tls.subject_alt_names
        ]
    if tls.certificate is not None:
        found["certificate"] = {"chain": tls.certificate.chain, "key": tls.certificate.key}
    given = {
        "min_version": tls.parameters.min_version,
        "max_version": tls.parameters.max_version,
        "cipher_suites": list(tls.parameters.cipher_suites),
        "curves": list(tls.parameters.curves),
    }
    parameters = {name: value for name, value in given.items() if value}
    if parameters:
        found["parameters"] = parameters
    if tls.alpn is not None:
        found["alpn"] = list(tls.alpn)
    if tls.signature_algorithms:
        found["signature_algorithms"] = list(tls.signature_algorithms)
    return found
