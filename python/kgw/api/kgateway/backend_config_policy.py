"""BackendConfigPolicy: how a proxy connects to a backend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, Strict, StringConstraints, model_validator

from kgw.api.base import Bool, Model, Remark, contradiction
from kgw.api.duration import Duration
from kgw.api.kgateway import tlvs
from kgw.api.kgateway.backend_limits import (
    CircuitBreakers,
    CommonHttpProtocolOptions,
    ConnectionKeepalive,
    Dns,
    HealthCheck,
    OutlierDetection,
)
from kgw.api.kgateway.count import Count
from kgw.api.kgateway.early import TCPKeepalive
from kgw.api.kgateway.http_settings import WINDOW
from kgw.api.kgateway.targets import KGATEWAY_GROUP
from kgw.api.kgateway.tls_names import CURVES, SIGNATURE_ALGORITHMS
from kgw.api.meta import Resource
from kgw.api.names import Group, Kind, ObjectName
from kgw.api.quantity import Quantity
from kgw.diagnostics import Severity

#: Kinds of targets, by group.
_TARGETS: Final = frozenset(
    {
        ("", "Service"),
        (KGATEWAY_GROUP, "Backend"),
        ("networking.istio.io", "Hostname"),
        ("networking.istio.io", "ServiceEntry"),
    }
)

#: What the engine does not do so far; without it a backend works, if not as well.
_TUNING: Final = Severity.WARNING

_Text = Annotated[str, StringConstraints(min_length=1)]
_Version = Literal["AUTO", "1.0", "1.1", "1.2", "1.3"]


class BackendTargetReference(Model):
    """A backend."""

    group: Group
    """The API group of the backend; empty for a Service."""
    kind: Kind
    """The kind of the backend."""
    name: ObjectName
    """The name of the backend, in the policy's own namespace."""


class BackendTargetSelector(Model):
    """All backends of a kind that have the labels."""

    group: Group
    """The API group of the backends; empty for Services."""
    kind: Kind
    """The kind of the backends."""
    match_labels: dict[str, str]
    """The labels that the backends have."""


class Http1ProtocolOptions(Model):
    """HTTP/1 towards a backend."""

    # Trailers and the case of names are always kept, and what is not valid never passes.
    enable_trailers: Bool | None = None
    """Whether trailers are passed on; they are."""
    override_stream_error_on_invalid_http_message: Bool | None = None
    """Whether a connection outlives an invalid message."""
    preserve_http1_header_case: Bool | None = None
    """Whether names of header fields keep their case; they do."""


class Http2ProtocolOptions(Model):
    """HTTP/2 towards a backend; what makes it HTTP/2 is the ``appProtocol`` of its Service."""

    connection_keepalive: ConnectionKeepalive | None = None
    """PING frames that find out whether the backend is still there."""
    initial_connection_window_size: Annotated[Quantity, WINDOW] | None = None
    """The bytes that the backend may send ahead on a connection."""
    initial_stream_window_size: Annotated[Quantity, WINDOW] | None = None
    """The bytes that the backend may send ahead in a stream."""
    max_concurrent_streams: Annotated[int, Strict(), Field(ge=1, le=2_147_483_647)] | None = None
    """The streams that a connection may have at once; 256 at most."""
    # A message that is not valid ends its stream alone in any case.
    override_stream_error_on_invalid_http_message: Bool | None = None
    """Whether a connection outlives an invalid message."""


class TlsParameters(Model):
    """Versions and cipher suites."""

    cipher_suites: tuple[_Text, ...] = ()
    """The cipher suites that may be used, by OpenSSL's names."""
    ecdh_curves: tuple[_Text, ...] = ()
    """The curves that keys are agreed on with, the best first."""
    min_version: _Version = "AUTO"
    """The lowest version of TLS."""
    max_version: _Version = "AUTO"
    """The highest version of TLS."""
    signature_algorithms: tuple[_Text, ...] = ()
    """The algorithms that signatures may be of, the best first, by the names of RFC 8446."""


class SecretReference(Model):
    """A Secret of the policy's own namespace."""

    name: ObjectName
    """The name of the Secret."""


class TlsFiles(Model):
    """Files of the machine that the proxy runs on, in PEM. They are read with the configuration."""

    root_ca: _Text | None = None
    """The path of the authorities that the backend's certificate is verified with."""
    tls_certificate: _Text | None = None
    """The path of the certificate that is shown."""
    tls_key: _Text | None = None
    """The path of its key."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.root_ca is None and self.tls_certificate is None and self.tls_key is None:
            raise contradiction(
                "At least one of tlsCertificate, tlsKey, or rootCA must be set in TLSFiles"
            )
        return self


class BackendTls(Model):
    """TLS to a backend."""

    allow_renegotiation: Bool = False
    """Whether a server may renegotiate; the connection ends when it asks to."""
    alpn_protocols: tuple[Annotated[str, StringConstraints(min_length=1, max_length=255)], ...] = ()
    """The protocols that are offered, the best first."""
    files: TlsFiles | None = None
    """Files with certificates."""
    insecure_skip_verify: Bool | None = None
    """Whether the certificate is not verified, which makes TLS pointless."""
    parameters: TlsParameters | None = None
    """Versions and cipher suites."""
    secret_ref: SecretReference | None = None
    """The Secret with the client's certificate and key, and the authorities under ``ca.crt``."""
    simple_tls: Bool = False
    """Whether the Secret has authorities only, and no certificate is shown."""
    sni: _Text | None = None
    """The server name that the backend is asked for."""
    verify_subject_alt_names: tuple[_Text, ...] = ()
    """The names of which the certificate must have one."""
    well_known_ca_certificates: Literal["System"] | None = None
    """``System``, to trust the system's authorities."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        sources = (
            self.secret_ref,
            self.files,
            self.insecure_skip_verify,
            self.well_known_ca_certificates,
        )
        if sum(one is not None for one in sources) != 1:
            raise contradiction(
                "exactly one of the fields in [secretRef files insecureSkipVerify "
                "wellKnownCACertificates] must be set"
            )
        return self


class UpstreamProxyProtocol(Model):
    """A PROXY protocol header that starts each connection."""

    version: Literal["V1", "V2"] = "V1"
    """The version of the header."""


class BackendConfigPolicySpec(Model):
    """What a BackendConfigPolicy says."""

    unsupported: ClassVar[Mapping[str, Severity]] = dict.fromkeys(
        ("loadBalancer",),
        _TUNING,
    )

    target_refs: Annotated[tuple[BackendTargetReference, ...], Field(max_length=16)] = ()
    """The backends that the policy is for."""
    target_selectors: tuple[BackendTargetSelector, ...] = ()
    """The backends that the policy is for, by labels."""
    circuit_breakers: CircuitBreakers | None = None
    """How much may be under way to the backend at once."""
    common_http_protocol_options: CommonHttpProtocolOptions | None = None
    """HTTP towards the backend, whatever the version."""
    connect_timeout: Duration | None = None
    """The time to connect to an endpoint."""
    dns: Dns | None = None
    """How often the name of the backend is looked up."""
    health_check: HealthCheck | None = None
    """How endpoints are asked whether they are in order."""
    http1_protocol_options: Http1ProtocolOptions | None = None
    """HTTP/1 towards the backend."""
    http2_protocol_options: Http2ProtocolOptions | None = None
    """HTTP/2 towards the backend."""
    outlier_detection: OutlierDetection | None = None
    """When endpoints are out of use for a while."""
    per_connection_buffer_limit_bytes: Count | None = None
    """What is buffered of a request or an answer; 0 is what the listener has."""
    tcp_keepalive: TCPKeepalive | None = None
    """Probes of connections on which nothing happens."""
    tls: BackendTls | None = None
    """TLS to the backend."""
    upstream_proxy_protocol: UpstreamProxyProtocol | None = None
    """A PROXY protocol header that starts each connection."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        lists: tuple[tuple[str, Sequence[BackendTargetReference | BackendTargetSelector]], ...] = (
            ("targetRefs", self.target_refs),
            ("targetSelectors", self.target_selectors),
        )
        for name, targets in lists:
            for number, target in enumerate(targets):
                if (target.group, target.kind) not in _TARGETS:
                    text = (
                        f"{name[0].upper()}{name[1:]} must reference either a Kubernetes Service, "
                        "a Backend, or an Istio Hostname"
                    )
                    raise contradiction(text, name, number, "kind")
        return self


class BackendConfigPolicy(Resource):
    """How to connect to a backend."""

    group: ClassVar[str] = KGATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)

    api_version: str = f"{KGATEWAY_GROUP}/v1alpha1"
    kind: Literal["BackendConfigPolicy"] = "BackendConfigPolicy"
    spec: BackendConfigPolicySpec = Field(default_factory=BackendConfigPolicySpec)
    """Which backends, and how to connect to them."""

    def remarks(self) -> Iterator[Remark]:
        """Values that the data plane does not keep to."""
        proxy = self.spec.upstream_proxy_protocol
        carried = proxy is not None and proxy.version == "V2"
        yield from tlvs.remarks(self.metadata.annotations, carried=carried)
        http1, tls = self.spec.http1_protocol_options, self.spec.tls
        path: tuple[str | int, ...] = ("spec", "http1ProtocolOptions")
        if http1 is not None:
            for alias, value, text in (
                ("enableTrailers", http1.enable_trailers, "trailers are passed on all the same"),
                (
                    "preserveHttp1HeaderCase",
                    http1.preserve_http1_header_case,
                    "the case of HTTP/1 header names is kept all the same",
                ),
            ):
                if value is False:
                    yield Remark("KGW501", Severity.WARNING, text, (*path, alias), legal="true")
        if self.spec.dns is not None and self.spec.dns.respect_ttl:
            text = "names are looked up by the system's resolver, which does not tell their TTL"
            place: tuple[str | int, ...] = ("spec", "dns", "respectTTL")
            hint = "set refreshRate to how long addresses may be out of date"
            yield Remark("KGW480", Severity.WARNING, text, place, legal="false", hint=hint)
        if tls is None:
            return
        path = ("spec", "tls")
        if tls.allow_renegotiation:
            text = "a connection ends when its server asks for renegotiation"
            yield Remark(
                "KGW501", Severity.WARNING, text, (*path, "allowRenegotiation"), legal="false"
            )
        given = tls.parameters or TlsParameters()
        path = (*path, "parameters")
        if given.max_version in ("1.0", "1.1"):
            text = f"TLS {given.max_version} is not supported by this version of kgw"
            place = (*path, "maxVersion")
            yield Remark("KGW501", Severity.ERROR, text, place, legal="AUTO, 1.2, 1.3")
        if given.min_version in ("1.0", "1.1"):
            text = f"TLS {given.min_version} is not supported: the lowest version is 1.2"
            place = (*path, "minVersion")
            yield Remark("KGW501", Severity.WARNING, text, place, legal="AUTO, 1.2, 1.3")
        for alias, names, known in (
            ("ecdhCurves", given.ecdh_curves, CURVES),
            ("signatureAlgorithms", given.signature_algorithms, SIGNATURE_ALGORITHMS),
        ):
            left = [name for name in names if name not in known]
            # Fewer than may be is less, none at all would be no connection.
            severity = Severity.ERROR if len(left) == len(names) else Severity.WARNING
            for name in left:
                text = f"{name} is not supported by this version of kgw, and is left out"
                yield Remark(
                    "KGW481", severity, text, (*path, alias), legal=", ".join(dict.fromkeys(known))
                )
        if (given.min_version, given.max_version) == ("1.3", "1.2"):
            text = "the lowest version of TLS is above the highest"
            yield Remark("KGW208", Severity.ERROR, text, (*path, "minVersion"))
