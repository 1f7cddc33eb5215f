"""Certificates, keys and certificate authorities in Secrets and ConfigMaps.

A reference into another namespace needs a ReferenceGrant there. It is looked at before the object,
so that who may not refer to an object does not learn whether there is one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kgw.attach import native
from kgw.attach.status import Outcome
from kgw.diagnostics import Severity, suggest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.api import Resource
    from kgw.api.gateway.references import ObjectReference
    from kgw.attach.index import Index, Named
    from kgw.source.memory import FieldPath

#: The keys under which a Secret has a certificate chain and its private key.
CHAIN: Final = "tls.crt"
KEY: Final = "tls.key"

#: The key under which a ConfigMap or Secret has certificate authorities.
AUTHORITIES: Final = "ca.crt"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate chain and its private key, both PEM."""

    chain: str = field(repr=False)
    key: str = field(repr=False)


def key_pair(
    index: Index,
    referrer: Resource,
    ref: ObjectReference,
    path: FieldPath,
    *,
    reason: str = "InvalidCertificateRef",
) -> KeyPair | Outcome:
    """The certificate that a reference to a Secret leads to, or why there is none.

    Args:
        index: where to look things up, and to report to.
        referrer: what refers to the Secret.
        ref: the reference.
        path: where it stands.
        reason: that of a reference that does not lead to a certificate.
    """
    found = _Reference(index, referrer, ref, path)
    if (ref.group, ref.kind) != ("", "Secret"):
        return found.refuse(
            "KGW309",
            reason,
            f"{_kind(ref)} cannot hold a certificate",
            "kind",
            legal="Secret",
        )
    if (denial := found.denial()) is not None:
        return denial
    secret = index.secrets.get(found.named)
    if secret is None:
        return found.missing(reason, index.secrets)
    chain, key = (secret.read(name) for name in (CHAIN, KEY))
    if chain is None or key is None:
        missing = CHAIN if chain is None else KEY
        return found.refuse("KGW313", reason, f"{found.name} has no {missing}", "name")
    pair = KeyPair(_text(chain), _text(key))
    problem = native.certificate_error(pair.chain, pair.key)
    if problem is not None:
        return found.refuse("KGW313", reason, f"{found.name} cannot be used: {problem}", "name")
    return pair


def authorities(
    index: Index,
    referrer: Resource,
    ref: ObjectReference,
    path: FieldPath,
    *,
    reason: str = "InvalidCACertificateRef",
    kind_reason: str = "InvalidCACertificateKind",
) -> str | Outcome:
    """The certificate authorities that a reference leads to, as PEM, or why there are none.

    They are under ``ca.crt`` of a ConfigMap (Gateway API, core) or of a Secret (kgateway).
    """
    found = _Reference(index, referrer, ref, path)
    content: bytes | None = None
    if (ref.group, ref.kind) not in (("", "ConfigMap"), ("", "Secret")):
        return found.refuse(
            "KGW309",
            kind_reason,
            f"{_kind(ref)} cannot hold certificate authorities",
            "kind",
            legal="ConfigMap, Secret",
        )
    if (denial := found.denial()) is not None:
        return denial
    if ref.kind == "ConfigMap":
        config_map = index.config_maps.get(found.named)
        if config_map is None:
            return found.missing(reason, index.config_maps)
        text = config_map.data.get(AUTHORITIES)
        content = None if text is None else text.encode()
    else:
        secret = index.secrets.get(found.named)
        if secret is None:
            return found.missing(reason, index.secrets)
        content = secret.read(AUTHORITIES)
    if content is None:
        return found.refuse("KGW313", reason, f"{found.name} has no {AUTHORITIES}", "name")
    pem = _text(content)
    problem = native.authorities_error(pem)
    if problem is not None:
        return found.refuse("KGW313", reason, f"{found.name} cannot be used: {problem}", "name")
    return pem


class _Reference:
    """A reference to a Secret or ConfigMap, and what can be wrong with it."""

    def __init__(
        self, index: Index, referrer: Resource, ref: ObjectReference, path: FieldPath
    ) -> None:
        self._index = index
        self._referrer = referrer
        self._ref = ref
        self._path = path
        self.named = (ref.namespace or referrer.namespace, ref.name)

    @property
    def name(self) -> str:
        """What is referred to, for people."""
        return f"{self._ref.kind} {'/'.join(self.named)}"

    def denial(self) -> Outcome | None:
        """Why the reference is not permitted, if so."""
        referrer, (namespace, name) = self._referrer, self.named
        if namespace == referrer.namespace or self._index.granted(
            (referrer.key.group, referrer.kind, referrer.namespace),
            ("", self._ref.kind, namespace, name),
        ):
            return None
        message = (
            f"no ReferenceGrant in namespace {namespace} permits {referrer.kind}s of namespace "
            f"{referrer.namespace} to refer to {self._ref.kind} {name}"
        )
        return self.refuse("KGW308", "RefNotPermitted", message, "namespace")

    def missing(self, reason: str, known: Iterable[Named]) -> Outcome:
        """The object does not exist, or is not valid."""
        namespace, name = self.named
        codes = self._index.refusal_codes("", self._ref.kind, self.named)
        if codes is not None:
            return self.refuse("KGW312", reason, f"{self.name} is not valid ({codes})", "name")
        near = suggest(name, (one for where, one in known if where == namespace))
        hint = f"did you mean `{near}`?" if near else None
        return self.refuse("KGW312", reason, f"{self.name} not found", "name", hint=hint)

    def refuse(
        self,
        code: str,
        reason: str,
        message: str,
        field: str,
        *,
        legal: str | None = None,
        hint: str | None = None,
    ) -> Outcome:
        """Reports what is wrong on the referrer."""
        self._index.report(
            self._referrer,
            code,
            Severity.ERROR,
            message,
            (*self._path, field),
            legal=legal,
            hint=hint,
        )
        return Outcome(False, reason, message)


def _text(content: bytes) -> str:
    """PEM is ASCII; what is not is not PEM, whatever it is taken for."""
    return content.decode("ascii", "replace")


def _kind(ref: ObjectReference) -> str:
    return f"{ref.group}/{ref.kind}" if ref.group else ref.kind
