"""How connections to a Service's port are made, as policies say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kgw.api.kgateway.tlvs import Tlvs

if TYPE_CHECKING:
    from kgw.api.kgateway.backend_config_policy import Http2ProtocolOptions
    from kgw.api.kgateway.backend_limits import (
        CircuitBreakers,
        CommonHttpProtocolOptions,
        Dns,
        HealthCheck,
        OutlierDetection,
    )
    from kgw.api.kgateway.early import TCPKeepalive
    from kgw.attach.backend_traffic import RetryBudget
    from kgw.attach.certificates import KeyPair


@dataclass(frozen=True, slots=True)
class Parameters:
    """Versions of TLS, ``None`` for the default, cipher suites and curves by name."""

    min_version: str | None = None
    max_version: str | None = None
    cipher_suites: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS to an endpoint."""

    #: ``system``, ``insecure``, or ``ca`` for the authorities of ``ca``.
    trust: str
    ca: str = ""
    sni: str | None = None
    #: Pairs of ``dns`` or ``uri`` and a name, one of which the certificate must have.
    subject_alt_names: tuple[tuple[str, str], ...] = ()
    certificate: KeyPair | None = None
    parameters: Parameters = Parameters()
    alpn: tuple[str, ...] | None = None
    signature_algorithms: tuple[str, ...] = ()
    #: Without an own server name: that of the host that a request names.
    by_host: bool = False


@dataclass(frozen=True, slots=True)
class Upstream:
    """How connections to the endpoints of a port are made."""

    tls: Tls | None = None
    #: Why no connection may be made, if so.
    broken: str | None = None
    connect_timeout_ms: int | None = None
    common: CommonHttpProtocolOptions | None = None
    http2: Http2ProtocolOptions | None = None
    tcp_keepalive: TCPKeepalive | None = None
    buffer_bytes: int | None = None
    circuit_breakers: CircuitBreakers | None = None
    outlier_detection: OutlierDetection | None = None
    health_check: HealthCheck | None = None
    #: How often a name is looked up, where the endpoints have one.
    dns: Dns | None = None
    #: Version of the PROXY protocol header that starts a connection, and its TLVs.
    proxy_protocol: int | None = None
    tlvs: Tlvs = field(default_factory=Tlvs)
    #: How many of the requests may be retries.
    retry_budget: RetryBudget | None = None
