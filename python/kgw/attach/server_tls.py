"""How TLS ends at a listener: its certificates, what is asked of clients, and options.

What is wrong takes its own listener only. Its hostname is not left to another listener of the port:
that one may ask less of clients.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from kgw.attach import certificates
from kgw.attach.status import Outcome
from kgw.attach.tls_options import Reader, TLSOptions
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from kgw.api import Gateway, ListenerSet
    from kgw.api.gateway.gateway import FrontendValidation
    from kgw.attach.certificates import KeyPair
    from kgw.attach.index import Index
    from kgw.attach.listeners import ListenerState
    from kgw.source.memory import FieldPath


@dataclass(frozen=True, slots=True)
class ServerTLS:
    """The server's side of TLS."""

    key_pairs: tuple[KeyPair, ...]
    options: TLSOptions
    #: Certificate authorities of clients, as PEM; none if no certificate is asked for.
    authorities: str | None = field(default=None, repr=False)
    #: ``require``; ``optional``, where a certificate that is shown must be valid; or
    #: ``insecure_fallback``, where a client without a valid one is let in.
    mode: str = "require"
    #: Whether a policy asks for certificates, and not the Gateway itself.
    by_policy: bool = False


def resolve(index: Index, listener: ListenerState) -> None:
    """Finds what a listener of protocol HTTPS or TLS ends connections with, if it does."""
    if listener.passes_through:
        return
    tls = listener.spec.tls
    path: FieldPath = ("spec", "listeners", listener.index, "tls")
    pairs = _key_pairs(index, listener, path)
    reader = Reader(index, listener.owner, (*path, "options"))
    options = reader.read(tls.options if tls else {})
    found = _validation(listener, path)
    authorities = None
    if found is not None:
        authorities = _authorities(index, listener, found)
    if reader.error is not None:
        listener.accepted = Outcome(False, "UnsupportedValue", reader.error)
    fallback = found is not None and found.validation.mode == "AllowInsecureFallback"
    mode = "insecure_fallback" if fallback else "require"
    listener.tls = ServerTLS(pairs, options, authorities, mode)


def _key_pairs(index: Index, listener: ListenerState, path: FieldPath) -> tuple[KeyPair, ...]:
    owner, tls = listener.owner, listener.spec.tls
    if tls is None or not tls.certificate_refs:
        message = f"a listener of protocol {listener.spec.protocol} needs a certificate"
        where = path if tls else path[:-1]
        index.report(owner, "KGW204", Severity.ERROR, message, where, legal="tls.certificateRefs")
        listener.fault = listener.resolved = Outcome(False, "InvalidCertificateRef", message)
        return ()
    found = []
    for number, ref in enumerate(tls.certificate_refs):
        pair = certificates.key_pair(index, owner, ref, (*path, "certificateRefs", number))
        if isinstance(pair, Outcome):
            listener.fault = listener.resolved = listener.fault or pair
        else:
            found.append(pair)
    return tuple(found)


class _Validation(NamedTuple):
    """What is asked of clients, and where that stands."""

    validation: FrontendValidation
    owner: Gateway | ListenerSet
    path: FieldPath


def _validation(listener: ListenerState, path: FieldPath) -> _Validation | None:
    """What is asked of a listener's clients: what it says itself, else what its Gateway does."""
    if listener.spec.tls is not None and listener.spec.tls.frontend_validation is not None:
        own = listener.spec.tls.frontend_validation
        return _Validation(own, listener.owner, (*path, "frontendValidation"))
    gateway = listener.gateway
    config = gateway.spec.tls
    if config is None or config.frontend is None or listener.spec.protocol != "HTTPS":
        return None
    validation = config.frontend.default.validation
    where: FieldPath = ("default", "validation")
    for number, one in enumerate(config.frontend.per_port):
        if one.port == listener.spec.port:
            validation, where = one.tls.validation, ("perPort", number, "tls", "validation")
            break
    if validation is None:
        return None
    return _Validation(validation, gateway, ("spec", "tls", "frontend", *where))


def _authorities(index: Index, listener: ListenerState, asked: _Validation) -> str:
    """The authorities that can be used; a listener that has none is not accepted."""
    validation, owner, path = asked
    found: list[str] = []
    problems: list[Outcome] = []
    for number, ref in enumerate(validation.ca_certificate_refs):
        where = (*path, "caCertificateRefs", number)
        one = certificates.authorities(index, owner, ref, where)
        if isinstance(one, Outcome):
            problems.append(one)
        else:
            found.append(one if one.endswith("\n") else one + "\n")
    if problems and listener.fault is None:
        listener.resolved = problems[0]
    if not found:
        message = f"no certificate authority for clients: {problems[0].message}"
        listener.accepted = Outcome(False, "NoValidCACertificate", message)
    elif validation.mode == "AllowInsecureFallback":
        index.report(
            owner,
            "KGW424",
            Severity.WARNING,
            "clients without a valid certificate are let in",
            (*path, "mode"),
        )
    return "".join(found)
