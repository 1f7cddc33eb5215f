"""BackendConfigPolicies: what they set for a Service, and which of several counts.

They are ordered like other policies of kgateway, and field by field the first one that sets it
counts; TLS of a BackendTLSPolicy goes before theirs. A policy whose TLS cannot be used leaves its
Services without connections, any other that is not valid has no effect.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kgw.api import Opaque, loaded, remains
from kgw.api.gateway.references import ObjectReference
from kgw.api.kgateway import tlvs
from kgw.api.kgateway.tls_names import CURVES, SIGNATURE_ALGORITHMS
from kgw.api.kinds import KGATEWAY_GROUP
from kgw.attach import certificates, native, static_backends
from kgw.attach.certificates import AUTHORITIES, CHAIN, KEY, KeyPair
from kgw.attach.effects import contend
from kgw.attach.policy import PolicyState
from kgw.attach.status import Outcome
from kgw.attach.upstream import Parameters, Tls, Upstream
from kgw.diagnostics import Severity, suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kgw.api import Backend, BackendConfigPolicy, ResourceKey, Service
    from kgw.api.kgateway.backend_config_policy import (
        BackendTargetReference,
        BackendTargetSelector,
        BackendTls,
        TlsFiles,
    )
    from kgw.api.kgateway.targets import PolicyTargetReference, PolicyTargetSelector
    from kgw.attach.index import Index, Named
    from kgw.source.memory import FieldPath

#: What policies can be about.
_TARGETS: Final = frozenset({("", "Service"), (KGATEWAY_GROUP, "Backend")})

_PROXY_PROTOCOL: Final = {"V1": 1, "V2": 2}

#: Versions of TLS that can be asked for; older ones count as the oldest of these.
_VERSIONS: Final = {"AUTO": None, "1.0": "1.2", "1.1": "1.2", "1.2": "1.2", "1.3": "1.3"}

#: Most bytes of a file with certificates.
_LARGEST_FILE: Final = 1024 * 1024


@dataclass(slots=True, eq=False)
class BackendConfigState(PolicyState):
    """A policy, and what its fields come to."""

    #: Whether it is about TLS: then nothing else may be done in its place.
    secures: bool = False
    #: What its Secret holds: a certificate, and authorities as PEM.
    certificate: KeyPair | None = None
    ca: str = field(default="", repr=False)
    services: list[ResourceKey] = field(default_factory=list)


class BackendConfig:
    """All BackendConfigPolicies by Service."""

    def __init__(self, index: Index) -> None:
        self._index = index
        #: The policies about each Service, the first one first.
        self.by_service: dict[ResourceKey, list[BackendConfigState]] = defaultdict(list)
        self.states: list[BackendConfigState] = []
        for policy in index.backend_config_policies.values():
            self._add(policy)
        for key, refused in index.refused.items():
            if (key.group, key.kind) == (KGATEWAY_GROUP, "BackendConfigPolicy"):
                self._add(refused)
        for states in self.by_service.values():
            states.sort(key=PolicyState.order)

    def contend(self, encrypted: frozenset[ResourceKey]) -> None:
        """Finds out which policies have an effect.

        Args:
            encrypted: Services and Backends all of whose ports have a BackendTLSPolicy.
        """
        for key, states in self.by_service.items():
            taken = {"tls"} if key in encrypted else set()
            target = (key.kind, key.namespace, key.name, "")
            contend([(state, _fields(state)) for state in states], [target], settled=taken)
        for state in self.states:
            if state.targets and state.attached.reason == "Overridden":
                self._index.report(
                    state.policy,
                    "KGW411",
                    Severity.WARNING,
                    "the policy has no effect: others with precedence set the same fields",
                )

    def of(self, service: Service | Backend, *, tls: bool) -> Upstream:
        """What the policies say about a Service or Backend.

        Args:
            service: the Service or Backend.
            tls: whether their TLS counts.
        """
        found: dict[str, Any] = {}
        for state in self.by_service.get(service.key, ()):
            for name, value in _fields(state).items():
                if name == "tls" and "tls" not in found and "broken" not in found:
                    if not tls:
                        continue
                    if state.errors:
                        found["broken"] = f"{state.policy.key}: {state.accepted.message}"
                    else:
                        found["tls"] = _tls(state, value, service)
                elif name == "upstream_proxy_protocol":
                    if "proxy_protocol" not in found:
                        found["proxy_protocol"] = _PROXY_PROTOCOL[value.version]
                        found["tlvs"] = tlvs.read(state.policy.metadata.annotations)
                elif name in _CONVERT:
                    field_name, convert = _CONVERT[name]
                    found.setdefault(field_name, convert(value))
        return Upstream(**found)

    # === Targets ===

    def _add(self, policy: BackendConfigPolicy | Opaque) -> None:
        refusal = self._index.refusal(policy.key)
        errors = [one.message for one in policy.defects] if refusal is None else [refusal]
        state = BackendConfigState(policy, errors)
        self.states.append(state)
        if isinstance(policy, Opaque):
            state.secures = isinstance(policy.spec, dict) and policy.spec.get("tls") is not None
        elif policy.spec.tls is not None:
            state.secures = True
            self._secret(state, policy, policy.spec.tls)
        for path, group, kind, name in self._targets(policy):
            self._target(state, path, group, kind, name)

    def _targets(
        self, policy: BackendConfigPolicy | Opaque
    ) -> Iterator[tuple[FieldPath, str, str, str]]:
        """Group, kind and name of the targets, with their places."""
        refs: Iterable[tuple[int, PolicyTargetReference | BackendTargetReference]]
        selectors: Iterable[tuple[int, PolicyTargetSelector | BackendTargetSelector]]
        if isinstance(policy, Opaque):
            refs, selectors = remains.targets(policy), remains.selectors(policy)
        else:
            refs = enumerate(policy.spec.target_refs)
            selectors = enumerate(policy.spec.target_selectors)
        for number, ref in refs:
            yield ("spec", "targetRefs", number), ref.group, ref.kind, ref.name
        for number, one in selectors:
            path: FieldPath = ("spec", "targetSelectors", number)
            names = [
                name
                for (namespace, name), service in self._objects(one.group, one.kind).items()
                if namespace == policy.namespace
                and one.match_labels.items() <= service.metadata.labels.items()
            ]
            if not names:
                message = f"no {one.kind} in namespace {policy.namespace} has the labels"
                self._index.report(policy, "KGW304", Severity.WARNING, message, path)
            for name in names:
                yield path, one.group, one.kind, name

    def _objects(self, group: str, kind: str) -> Mapping[Named, Service | Backend]:
        """What there is of a kind of targets."""
        match group, kind:
            case ("", "Service"):
                return self._index.services
            case (group, "Backend") if group == KGATEWAY_GROUP:
                return self._index.backends
            case _:
                return {}

    def _target(
        self, state: BackendConfigState, path: FieldPath, group: str, kind: str, name: str
    ) -> None:
        policy = state.policy
        named = (policy.namespace, name)
        objects = self._objects(group, kind)
        if named in objects:
            key = objects[named].key
            spec = policy.spec if isinstance(policy, loaded.BackendConfigPolicy) else None
            watches = spec is not None and (spec.outlier_detection or spec.health_check)
            if watches and static_backends.names_hosts(objects[named]):
                message = f"Backend {name} has no hosts of its own whose health could be known"
                self._index.report(policy, "KGW427", Severity.WARNING, message, path)
            if key not in state.services:
                state.services.append(key)
                state.targets.append((kind, *named, ""))
                self.by_service[key].append(state)
            return
        hint = None
        if (group, kind) not in _TARGETS:
            code, reason, place = "KGW309", "Invalid", (*path, "kind")
            message = f"{group}/{kind} is not supported as a target by this version of kgw"
            hint = 'write `group: ""` and `kind: Service`'
        else:
            code, reason, place = "KGW302", "TargetNotFound", (*path, "name")
            message = f"{kind} {'/'.join(named)} not found"
            near = suggest(name, (one for where, one in objects if where == named[0]))
            hint = f"did you mean `{near}`?" if near else None
        self._index.report(policy, code, Severity.ERROR, message, place, hint=hint)
        ref = {"group": group, "kind": kind, "namespace": policy.namespace, "name": name}
        outcome = state.accepted if state.errors else Outcome(False, reason, message)
        state.missing.append((ref, outcome))

    # === TLS ===

    def _secret(
        self, state: BackendConfigState, policy: BackendConfigPolicy, tls: BackendTls
    ) -> None:
        """Takes certificate, key and authorities out of the Secret of a policy."""
        if tls.files is not None:
            self._files(state, tls, tls.files)
        if tls.secret_ref is None:
            return
        ref = ObjectReference(group="", kind="Secret", name=tls.secret_ref.name)
        path: FieldPath = ("spec", "tls", "secretRef")
        secret = self._index.secrets.get((policy.namespace, ref.name))
        held = {one for one in (CHAIN, KEY, AUTHORITIES) if secret and secret.read(one) is not None}
        # A Secret that is missing, or has nothing of use, is reported as one without authorities.
        if AUTHORITIES in held or not held:
            ca = certificates.authorities(self._index, policy, ref, path)
            if isinstance(ca, Outcome):
                state.errors.append(ca.message)
                return
            state.ca = ca
        if held & {CHAIN, KEY} and not tls.simple_tls:
            pair = certificates.key_pair(self._index, policy, ref, path)
            if isinstance(pair, Outcome):
                state.errors.append(pair.message)
                return
            state.certificate = pair

    def _files(self, state: BackendConfigState, tls: BackendTls, files: TlsFiles) -> None:
        """Takes certificate, key and authorities out of the files that a policy names."""
        path: FieldPath = ("spec", "tls", "files")

        def refuse(message: str, *field: str) -> None:
            self._index.report(state.policy, "KGW482", Severity.ERROR, message, (*path, *field))
            state.errors.append(message)

        texts: dict[str, str] = {}
        for field_name, name in (
            ("rootCA", files.root_ca),
            ("tlsCertificate", files.tls_certificate),
            ("tlsKey", files.tls_key),
        ):
            if name is None or (tls.simple_tls and field_name != "rootCA"):
                continue
            try:
                content = _content(name)
            except OSError as error:
                refuse(f"{name} cannot be read: {error.strerror}", field_name)
                continue
            if len(content) > _LARGEST_FILE:
                refuse(f"{name} is longer than {_LARGEST_FILE} bytes", field_name)
                continue
            texts[field_name] = content.decode("ascii", "replace")
        if state.errors:
            return
        if "rootCA" in texts:
            problem = native.authorities_error(texts["rootCA"])
            if problem is not None:
                refuse(f"{files.root_ca} cannot be used: {problem}", "rootCA")
                return
            state.ca = texts["rootCA"]
        chain, key = texts.get("tlsCertificate"), texts.get("tlsKey")
        if (chain is None) != (key is None):
            missing = "tlsCertificate" if chain is None else "tlsKey"
            refuse(f"a certificate and its key go together: there is no {missing}")
        elif chain is not None and key is not None:
            problem = native.certificate_error(chain, key)
            if problem is not None:
                refuse(f"{files.tls_certificate} cannot be used: {problem}", "tlsCertificate")
                return
            state.certificate = KeyPair(chain, key)


def _content(name: str) -> bytes:
    """What is in a file, and at most one byte more than may be. Of a pipe or a device, which may
    have none for a long time, there is nothing to read.

    Raises:
        OSError: it is no file, or cannot be read.
    """
    # A path is opened without waiting for whoever is at the other end.
    with open(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return file.read(_LARGEST_FILE + 1)


def _fields(state: BackendConfigState) -> dict[str, Any]:
    """The fields that a policy sets; TLS that cannot be used is set all the same."""
    policy = state.policy
    if state.errors or not isinstance(policy, loaded.BackendConfigPolicy):
        return {"tls": None} if state.secures else {}
    given = {
        name: getattr(policy.spec, name)
        for name in type(policy.spec).model_fields
        if name not in ("target_refs", "target_selectors")
    }
    return {name: value for name, value in given.items() if value is not None}


#: Fields of policies that set one of a cluster as they are.
_CONVERT: Final[dict[str, Any]] = {
    "connect_timeout": ("connect_timeout_ms", int),
    "circuit_breakers": ("circuit_breakers", lambda one: one),
    "common_http_protocol_options": ("common", lambda one: one),
    "dns": ("dns", lambda one: one),
    "health_check": ("health_check", lambda one: one),
    "http2_protocol_options": ("http2", lambda one: one),
    "outlier_detection": ("outlier_detection", lambda one: one),
    "per_connection_buffer_limit_bytes": ("buffer_bytes", int),
    "tcp_keepalive": ("tcp_keepalive", lambda one: one),
}


def _names(service: Service | Backend) -> tuple[str, ...]:
    """The names that certificates of a Service or Backend have, one of them at least."""
    if isinstance(service, loaded.Backend):
        static = service.spec.static
        return tuple(one.host for one in static.hosts) if static is not None else ()
    name, namespace = service.name, service.namespace
    suffixes = (f"{name}.{namespace}.svc.cluster.local", f"{name}.{namespace}.svc")
    return (*suffixes, f"{name}.{namespace}", name)


def _tls(state: BackendConfigState, tls: BackendTls, service: Service | Backend) -> Tls:
    trust = "insecure" if tls.insecure_skip_verify else "ca" if state.ca else "system"
    names = tuple(("uri" if "://" in one else "dns", one) for one in tls.verify_subject_alt_names)
    if trust != "insecure" and tls.sni is None and not names:
        # Envoy would take any certificate of the authorities. A Service's has one of its names, and
        # that of a Backend the name of a host.
        names = tuple(("dns", one) for one in _names(service))
    parameters = Parameters()
    algorithms: tuple[str, ...] = ()
    if tls.parameters is not None:
        parameters = Parameters(
            _VERSIONS[tls.parameters.min_version],
            _VERSIONS[tls.parameters.max_version],
            tls.parameters.cipher_suites,
            tuple(CURVES[name] for name in tls.parameters.ecdh_curves if name in CURVES),
        )
        algorithms = tuple(
            name for name in tls.parameters.signature_algorithms if name in SIGNATURE_ALGORITHMS
        )
    alpn = tls.alpn_protocols or None
    certificate, by_host = state.certificate, static_backends.names_hosts(service)
    return Tls(
        trust, state.ca, tls.sni, names, certificate, parameters, alpn, algorithms, by_host=by_host
    )
