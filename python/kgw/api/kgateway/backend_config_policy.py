"""BackendConfigPolicy: how a proxy connects to a backend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, Strict, StringConstraints, model_validator

from kgw.api.base import Bool, Model, Remark, contradiction
from kgw.api.duration import Duration
from kgw.api.kgateway import tlvs
from kgw.api.kgateway.targets import KGATEWAY_GROUP
from kgw.api.meta import Resource
from kgw.api.names import Group, Kind, ObjectName
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
    kind: Kind
    name: ObjectName


class BackendTargetSelector(Model):
    """All backends of a kind that have the labels."""

    group: Group
    kind: Kind
    match_labels: dict[str, str]


class CommonHttpProtocolOptions(Model):
    """HTTP towards a backend, whatever the version."""

    unsupported: ClassVar[Mapping[str, Severity]] = dict.fromkeys(
        ("idleTimeout", "maxHeadersCount", "maxStreamDuration"), _TUNING
    )

    max_requests_per_connection: Annotated[int, Strict(), Field(ge=0, le=4_294_967_295)] | None = (
        None
    )


class Http1ProtocolOptions(Model):
    """HTTP/1 towards a backend."""

    # Trailers and the case of names are always kept, and what is not valid never passes.
    enable_trailers: Bool | None = None
    override_stream_error_on_invalid_http_message: Bool | None = None
    preserve_http1_header_case: Bool | None = None


class Http2ProtocolOptions(Model):
    """HTTP/2 towards a backend; what makes it HTTP/2 is the ``appProtocol`` of its Service."""

    unsupported: ClassVar[Mapping[str, Severity]] = dict.fromkeys(
        (
            "connectionKeepalive",
            "initialConnectionWindowSize",
            "initialStreamWindowSize",
            "maxConcurrentStreams",
        ),
        _TUNING,
    )

    # A message that is not valid ends its stream alone in any case.
    override_stream_error_on_invalid_http_message: Bool | None = None


class TlsParameters(Model):
    """Versions and cipher suites."""

    unsupported: ClassVar[Mapping[str, Severity]] = dict.fromkeys(
        ("ecdhCurves", "signatureAlgorithms"), Severity.ERROR
    )

    cipher_suites: tuple[_Text, ...] = ()
    min_version: _Version = "AUTO"
    max_version: _Version = "AUTO"


class SecretReference(Model):
    """A Secret of the policy's own namespace."""

    name: ObjectName


class BackendTls(Model):
    """TLS to a backend."""

    unsupported: ClassVar[Mapping[str, Severity]] = {"files": Severity.ERROR}

    allow_renegotiation: Bool = False
    alpn_protocols: tuple[Annotated[str, StringConstraints(min_length=1, max_length=255)], ...] = ()
    files: Any = None
    insecure_skip_verify: Bool | None = None
    parameters: TlsParameters | None = None
    secret_ref: SecretReference | None = None
    simple_tls: Bool = False
    sni: _Text | None = None
    verify_subject_alt_names: tuple[_Text, ...] = ()
    well_known_ca_certificates: Literal["System"] | None = None

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


class BackendConfigPolicySpec(Model):
    """What a BackendConfigPolicy says."""

    unsupported: ClassVar[Mapping[str, Severity]] = dict.fromkeys(
        (
            "circuitBreakers",
            "dns",
            "healthCheck",
            "loadBalancer",
            "outlierDetection",
            "perConnectionBufferLimitBytes",
            "tcpKeepalive",
        ),
        _TUNING,
    )

    target_refs: Annotated[tuple[BackendTargetReference, ...], Field(max_length=16)] = ()
    target_selectors: tuple[BackendTargetSelector, ...] = ()
    common_http_protocol_options: CommonHttpProtocolOptions | None = None
    connect_timeout: Duration | None = None
    http1_protocol_options: Http1ProtocolOptions | None = None
    http2_protocol_options: Http2ProtocolOptions | None = None
    tls: BackendTls | None = None
    upstream_proxy_protocol: UpstreamProxyProtocol | None = None

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
        if (given.min_version, given.max_version) == ("1.3", "1.2"):
            text = "the lowest version of TLS is above the highest"
            yield Remark("KGW208", Severity.ERROR, text, (*path, "minVersion"))
