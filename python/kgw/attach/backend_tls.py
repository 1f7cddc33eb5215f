"""BackendTLSPolicies: which one holds for a Service's port, and what it comes to.

Of several on one target the oldest holds, and the others are in conflict with it; one for a port
holds before one for the whole Service. A policy that cannot be used leaves its targets without
connections: what is to be encrypted is never sent in plain text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kgw.api import Opaque, ResourceKey, remains
from kgw.api.gateway.references import GATEWAY_GROUP, ObjectReference
from kgw.attach import certificates
from kgw.attach.index import BACKEND_KINDS
from kgw.attach.status import Outcome
from kgw.attach.upstream import Tls
from kgw.diagnostics import Severity, suggest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgw.api import BackendTLSPolicy, Resource
    from kgw.api.core.service import ServicePort
    from kgw.api.gateway.backend_tls_policy import BackendTLSPolicyValidation
    from kgw.attach.index import AnyService, Index
    from kgw.source.memory import FieldPath

#: A Service or ServiceImport, and the name of a port or nothing.
Slot = tuple["ResourceKey", str]

_ACCEPTED = Outcome(True, "Accepted", "Policy accepted")
_RESOLVED = Outcome(True, "ResolvedRefs", "Successfully resolved all references")


@dataclass(slots=True, eq=False)
class BackendTLSState:
    """A policy, where it holds and what is wrong with it."""

    policy: BackendTLSPolicy | Opaque
    accepted: Outcome = _ACCEPTED
    resolved: Outcome = _RESOLVED
    #: What it comes to, unless it cannot be used.
    tls: Tls | None = None
    targets: list[Slot] = field(default_factory=list)
    #: Targets that an older policy holds for.
    lost: list[Slot] = field(default_factory=list)
    #: Targets that do not exist: the reference and why.
    missing: list[tuple[dict[str, Any], Outcome]] = field(default_factory=list)


class BackendTLS:
    """All BackendTLSPolicies by target."""

    def __init__(self, index: Index) -> None:
        self._index = index
        #: The policy that holds for each target.
        self.slots: dict[Slot, BackendTLSState] = {}
        self.states: list[BackendTLSState] = []
        refused = [
            one
            for key, one in index.refused.items()
            if (key.group, key.kind) == (GATEWAY_GROUP, "BackendTLSPolicy")
        ]
        policies: list[BackendTLSPolicy | Opaque] = [*index.backend_tls_policies.values(), *refused]
        for policy in sorted(policies, key=lambda one: one.age()):
            self._add(policy)

    def of(self, service: AnyService, port: ServicePort) -> BackendTLSState | None:
        """The policy that holds for a port."""
        own = self.slots.get((service.key, port.name)) if port.name else None
        return own or self.slots.get((service.key, ""))

    def _add(self, policy: BackendTLSPolicy | Opaque) -> None:
        state = BackendTLSState(policy)
        self.states.append(state)
        if isinstance(policy, Opaque):
            why = self._index.refusal(policy.key) or ""
            state.accepted = Outcome(False, "Invalid", why)
        else:
            found = verification(
                self._index, policy, policy.spec.validation, ("spec", "validation")
            )
            state.accepted, state.resolved, state.tls = found.accepted, found.resolved, found.tls
        for path, slot, ref in self._targets(policy):
            problem = self._problem(policy, path, slot, ref)
            if problem is not None:
                state.missing.append((ref, problem))
                continue
            holder = self.slots.setdefault(slot, state)
            if holder is state:
                state.targets.append(slot)
                continue
            state.lost.append(slot)
            self._index.report(
                policy,
                "KGW411",
                Severity.WARNING,
                f"the policy has no effect on this target: {holder.policy.key} goes first, "
                "by age or name",
                path,
            )
        if state.lost and not state.targets and state.accepted.ok:
            message = "Policy conflicts with higher priority policy"
            state.accepted = Outcome(False, "Conflicted", message)

    def _targets(
        self, policy: BackendTLSPolicy | Opaque
    ) -> Iterator[tuple[FieldPath, Slot, dict[str, Any]]]:
        """Targets with their places and how a status refers to them."""
        refs = (
            remains.targets(policy)
            if isinstance(policy, Opaque)
            else enumerate(policy.spec.target_refs)
        )
        for number, one in refs:
            section = one.section_name or ""
            ref = {
                "group": one.group,
                "kind": one.kind,
                "namespace": policy.namespace,
                "name": one.name,
                **({"sectionName": section} if section else {}),
            }
            key = ResourceKey(one.group, one.kind, policy.namespace, one.name)
            yield ("spec", "targetRefs", number), (key, section), ref

    def _problem(
        self, policy: BackendTLSPolicy | Opaque, path: FieldPath, slot: Slot, ref: dict[str, Any]
    ) -> Outcome | None:
        """Why there is no such target, if so."""
        (group, kind, namespace, name), section = slot
        if (group, kind) not in BACKEND_KINDS:
            message = f"{group}/{kind} is not a kind of backend"
            place = (*path, "kind")
            self._index.report(
                policy,
                "KGW309",
                Severity.ERROR,
                message,
                place,
                legal='Service with `group: ""`, Backend',
            )
            return Outcome(False, "Invalid", message)
        service = self._index.destination(slot[0])
        if service is None:
            code, place = "KGW302", (*path, "name")
            message = f"{kind} {namespace}/{name} not found"
            known = [one for where, one in self._index.named(kind) if where == namespace]
            near = suggest(name, known)
        else:
            names = [one.name for one in service.spec.ports if one.name]
            if not section or section in names:
                return None
            code, place = "KGW303", (*path, "sectionName")
            message = f"{kind} {namespace}/{name} has no port named {section}"
            near = suggest(section, names)
        hint = f"did you mean `{near}`?" if near else None
        self._index.report(policy, code, Severity.ERROR, message, place, hint=hint)
        return Outcome(False, "TargetNotFound", message)


@dataclass(slots=True)
class Verification:
    """What the verification of a backend's certificate comes to."""

    accepted: Outcome = _ACCEPTED
    resolved: Outcome = _RESOLVED
    #: Nothing if it cannot be used.
    tls: Tls | None = None


def verification(
    index: Index, referrer: Resource, given: BackendTLSPolicyValidation, path: FieldPath
) -> Verification:
    """What an object says about the verification of a backend's certificate.

    Args:
        index: where to look things up, and to report to.
        referrer: the object.
        given: what it says.
        path: where that stands.
    """
    found = Verification()
    trust, pem = "system", ""
    if given.well_known_ca_certificates not in (None, "System"):
        message = f"`{given.well_known_ca_certificates}` is not a set of authorities"
        place = (*path, "wellKnownCACertificates")
        index.report(referrer, "KGW501", Severity.ERROR, message, place, legal="System")
        found.accepted = Outcome(False, "Invalid", message)
        return found
    if given.ca_certificate_refs:
        authorities = [
            certificates.authorities(
                index,
                referrer,
                ObjectReference(group=one.group, kind=one.kind, name=one.name),
                (*path, "caCertificateRefs", number),
                kind_reason="InvalidKind",
            )
            for number, one in enumerate(given.ca_certificate_refs)
        ]
        wrong = [one for one in authorities if isinstance(one, Outcome)]
        if wrong:
            found.resolved = wrong[0]
        trust, pem = "ca", "\n".join(one for one in authorities if isinstance(one, str))
        if not pem:
            message = "; ".join(one.message for one in wrong)
            found.accepted = Outcome(False, "NoValidCACertificate", message)
            return found
    names = tuple(
        ("dns", one.hostname or "") if one.type == "Hostname" else ("uri", one.uri or "")
        for one in given.subject_alt_names
    )
    found.tls = Tls(trust, pem, given.hostname, names)
    return found
