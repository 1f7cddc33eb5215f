"""XBackends: destinations outside of the cluster, and how connections to them are made.

One that cannot be used has no connections: what is to be encrypted is never sent in plain text.
Only routes of its own namespace may refer to it (GEP-4894); no grant permits others to.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgw.api.kinds import X_GATEWAY_GROUP
from kgw.attach import backend_tls, certificates
from kgw.attach.status import Outcome
from kgw.attach.upstream import Tls
from kgw.diagnostics import Severity, suggest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.api import XBackend
    from kgw.api.gateway.backend_object import BackendObjectReference
    from kgw.attach.backends import Owner
    from kgw.attach.certificates import KeyPair
    from kgw.attach.index import Index, Named
    from kgw.attach.routes import RouteState
    from kgw.attach.streams import StreamState
    from kgw.source.memory import FieldPath

#: The group and kind by which a backendRef names one.
KIND: Final = (X_GATEWAY_GROUP, "XBackend")

_ACCEPTED: Final = Outcome(True, "Accepted", "Backend accepted")
_RESOLVED: Final = Outcome(True, "ResolvedRefs", "Successfully resolved all references")

#: What is spoken to a destination by its protocol: without TLS and with it. ``auto`` is what TLS
#: negotiates.
_VERSIONS: Final = {
    "HTTP": ("http1", "auto"),
    "HTTP11": ("http1", "http1"),
    "HTTP2": ("http2", "http2"),
    "H2C": ("http2", "http2"),
    "MCP": ("http1", "auto"),
}


@dataclass(slots=True, eq=False)
class ExternalState:
    """An XBackend and what it comes to."""

    backend: XBackend
    accepted: Outcome = _ACCEPTED
    resolved: Outcome = _RESOLVED
    #: TLS to it, if it wants any.
    tls: Tls | None = None
    #: Whether connections to it may be made.
    usable: bool = True

    @property
    def version(self) -> str:
        """The version of HTTP that it speaks, if its protocol says so, else HTTP/1.1 or what TLS
        negotiates."""
        plain, encrypted = _VERSIONS[_protocol(self.backend)]
        return plain if self.tls is None else encrypted

    @property
    def authority(self) -> str:
        """The host that requests to it are for: its name, and its port unless that is the usual
        one."""
        port = self.backend.spec.port.port
        usual = 80 if self.tls is None else 443
        return self.backend.hostname if port == usual else f"{self.backend.hostname}:{port}"

    @property
    def face(self) -> tuple[object, ...]:
        """What is made of it, for comparison."""
        return (self.accepted, self.resolved, self.tls, self.usable)


class External:
    """All XBackends."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self.states: dict[Named, ExternalState] = {
            named: self._state(one) for named, one in index.external_backends.items()
        }

    def _state(self, backend: XBackend) -> ExternalState:
        state = ExternalState(backend)
        given = backend.spec.tls
        if given is None or given.mode == "None":
            if given is not None and given.validation is not None:
                message = "the setting has no effect: there is no TLS"
                where = ("spec", "tls", "validation")
                self._index.report(backend, "KGW413", Severity.WARNING, message, where)
            return state
        if backend.spec.protocol == "H2C":
            message = "H2C is HTTP/2 without TLS: with it, the protocol is HTTP2"
            path = ("spec", "protocol")
            self._index.report(backend, "KGW423", Severity.ERROR, message, path, legal="HTTP2")
            state.accepted, state.usable = Outcome(False, "Invalid", message), False
            return state
        state.tls = self._tls(state)
        state.usable = state.tls is not None
        if not state.usable and state.accepted.ok:
            state.accepted = state.resolved
        return state

    def _tls(self, state: ExternalState) -> Tls | None:
        backend = state.backend
        given = backend.spec.tls
        assert given is not None
        path: FieldPath = ("spec", "tls")
        trust, pem, hostname = "system", "", backend.hostname
        names: tuple[tuple[str, str], ...] = ()
        if given.validation is not None:
            found = backend_tls.verification(
                self._index, backend, given.validation, (*path, "validation")
            )
            state.accepted, state.resolved = found.accepted, found.resolved
            if found.tls is None:
                return None
            trust, pem, names = found.tls.trust, found.tls.ca, found.tls.subject_alt_names
            hostname = found.tls.sni or hostname
        certificate: KeyPair | None = None
        if given.client_certificate_ref is not None:
            where = (*path, "clientCertificateRef")
            pair = certificates.key_pair(
                self._index,
                backend,
                given.client_certificate_ref,
                where,
                reason="InvalidClientCertificateRef",
            )
            if isinstance(pair, Outcome):
                state.resolved = pair
                return None
            certificate = pair
        return Tls(trust, pem, hostname, names, certificate)


def users(routes: Iterable[RouteState | StreamState]) -> dict[Named, set[Named]]:
    """The Gateways that send requests to each XBackend."""
    found: dict[Named, set[Named]] = defaultdict(set)
    for state in routes:
        gateways = {
            parent.gateway.named
            for parent in state.parents
            if parent.gateway is not None and parent.accepted.ok
        }
        gateways.update(named for root in state.through for named in root.gateways)
        for backend in state.all_backends:
            if backend.external is not None:
                found[backend.external.namespace, backend.external.name] |= gateways
    return found


def find(
    index: Index, route: Owner, ref: BackendObjectReference, path: FieldPath
) -> XBackend | Outcome:
    """What a reference to an XBackend leads to, or why it leads nowhere, which is reported."""
    namespace = ref.namespace or route.namespace
    name = f"XBackend {namespace}/{ref.name}"

    def refuse(code: str, reason: str, why: str, field: str, **more: str | None) -> Outcome:
        index.report(route, code, Severity.ERROR, why, (*path, field), **more)
        return Outcome(False, reason, why)

    if namespace != route.namespace:
        why = f"{name} is for routes of its own namespace only"
        return refuse("KGW308", "RefNotPermitted", why, "namespace")
    backend = index.external_backends.get((namespace, ref.name))
    if backend is None:
        codes = index.refusal_codes(*KIND, (namespace, ref.name))
        if codes is not None:
            return refuse("KGW307", "BackendNotFound", f"{name} is not valid ({codes})", "name")
        near = suggest(
            ref.name, (one for where, one in index.external_backends if where == namespace)
        )
        hint = f"did you mean `{near}`?" if near else None
        return refuse("KGW307", "BackendNotFound", f"{name} not found", "name", hint=hint)
    port = backend.spec.port.port
    if ref.port not in (None, port):
        why = f"{name} has no port {ref.port}"
        return refuse("KGW307", "BackendNotFound", why, "port", legal=str(port))
    protocol = backend.spec.protocol
    if not _carries(route.kind, protocol):
        why = f"{name} speaks {protocol}, which a {route.kind} cannot"
        return refuse("KGW504", "UnsupportedProtocol", why, "name")
    return backend


def _carries(kind: str, protocol: str | None) -> bool:
    """Whether routes of a kind can send what they carry to a destination that speaks this."""
    match kind:
        case "HTTPRoute":
            return protocol != "TCP"
        case "GRPCRoute":
            return protocol not in ("TCP", "HTTP11")
        case "UDPRoute":
            return False
        case _:
            return True


def _protocol(backend: XBackend) -> str:
    protocol = backend.spec.protocol
    return "HTTP" if protocol in (None, "TCP") else str(protocol)
