"""HTTP settings of a listener, shared by ListenerPolicy and HTTPListenerPolicy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import Field, Strict, StringConstraints, model_validator

from kgw.api.base import Bool, Model, Remark, contradiction
from kgw.api.cidr import Cidr
from kgw.api.duration import Duration
from kgw.api.gateway.filters import HeaderModifier
from kgw.api.kgateway.access_log import AccessLog
from kgw.api.kgateway.count import Count
from kgw.api.kgateway.early import (
    ForwardClientCertDetails,
    HealthCheck,
    StripHostPortMode,
    UuidRequestIdConfig,
)
from kgw.api.kgateway.local_replies import LocalReplies
from kgw.api.kgateway.tracing import Tracing
from kgw.api.quantity import Quantity
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Windows of HTTP/2: Envoy's least, and RFC 9113's most. Bytes.
WINDOW: Final = Field(ge=65_535, le=2_147_483_647)


class UpgradeConfig(Model):
    """Protocols that requests may switch to."""

    enabled_upgrades: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """The protocols, such as ``websocket`` and ``CONNECT``."""


class Http2ProtocolOptions(Model):
    """HTTP/2 towards clients."""

    allow_connect: Bool | None = None
    """Whether streams may be upgraded (RFC 8441); they may."""
    initial_connection_window_size: Annotated[Quantity, WINDOW] | None = None
    """The bytes that a client may send ahead on a connection."""
    initial_stream_window_size: Annotated[Quantity, WINDOW] | None = None
    """The bytes that a client may send ahead in a stream."""
    max_concurrent_streams: Annotated[int, Strict(), Field(ge=1, le=2_147_483_647)] | None = None
    """The streams that a client may have open at once."""


class HTTPSettings(Model):
    """Settings of the HTTP connections of a listener; absent fields keep their defaults."""

    accept_http10: Bool | None = None
    """Whether HTTP/1.0 is served."""
    access_log: Annotated[tuple[AccessLog, ...], Field(max_length=16)] | None = None
    """The logs, each of which gets a line for every request."""
    default_host_for_http10: Annotated[str, StringConstraints(min_length=1)] | None = None
    """The host of HTTP/1.0 requests that name none."""
    early_request_header_modifier: HeaderModifier | None = None
    """Changes of header fields before requests are routed."""
    forward_client_cert_details: ForwardClientCertDetails | None = None
    """What becomes of ``x-forwarded-client-cert``."""
    generate_request_id: Bool | None = None
    """Whether requests without an ``x-request-id`` get one."""
    health_check: HealthCheck | None = None
    """A path under which the proxy tells whether it takes requests."""
    http2_protocol_options: Http2ProtocolOptions | None = None
    """HTTP/2 towards clients."""
    idle_timeout: Duration | None = None
    """The time after which a connection without a request is closed."""
    local_replies: LocalReplies | None = None
    """What becomes of answers that the gateway makes itself."""
    max_headers_count: Annotated[Count, Field(ge=1)] | None = None
    """The header fields that a request may have."""
    max_request_headers_kb: Annotated[int, Strict(), Field(ge=1, le=8192)] | None = None
    """The size that the header of a request may have, in KiB."""
    max_requests_per_connection: Count | None = None
    """The requests after which a connection is closed; 0 is no bound."""
    preserve_external_request_id: Bool | None = None
    """Whether an ``x-request-id`` from outside is kept."""
    preserve_http1_header_case: Bool | None = None
    """Whether names of HTTP/1 header fields keep their case; they do."""
    proxy100_continue: Bool | None = None
    """Whether ``expect: 100-continue`` is the endpoint's to answer, and not the proxy's."""
    server_header_transformation: Literal["Overwrite", "AppendIfAbsent", "PassThrough"] | None = (
        None
    )
    """Whether the ``server`` field of answers is replaced, added or left alone."""
    server_name: Annotated[str, StringConstraints(min_length=1)] | None = None
    """The value of the ``server`` field."""
    skip_xff_append: Bool | None = None
    """Whether the client's address is left out of ``x-forwarded-for``."""
    stream_idle_timeout: Duration | None = None
    """The time after which a request with no byte in either direction is ended."""
    strip_host_port_mode: StripHostPortMode | None = None
    """Which ports are taken off the hosts of requests."""
    strip_trailing_host_dot: Bool | None = None
    """Whether a dot at the end of a host's name is taken off."""
    tracing: Tracing | None = None
    """Which requests are traced, and where spans go."""
    upgrade_config: UpgradeConfig | None = None
    """What HTTP/1.1 connections may be upgraded to."""
    use_remote_address: Bool | None = None
    """Whether the peer is the client, so that ``x-forwarded-for`` is not trusted."""
    uuid_request_id_config: UuidRequestIdConfig | None = None
    """What ``x-request-id`` says about traces."""
    xff_num_trusted_hops: Count | None = None
    """How many proxies in front are trusted to have added to ``x-forwarded-for``."""
    xff_trusted_cidrs: Annotated[tuple[Cidr, ...], Field(min_length=1)] | None = None
    """The networks of proxies that are trusted to have added to ``x-forwarded-for``."""

    @model_validator(mode="after")
    def _xff_rules(self) -> Self:
        if self.xff_trusted_cidrs is not None:
            if self.use_remote_address is not False:
                raise contradiction(
                    "useRemoteAddress must be set to false if xffTrustedCIDRs is set",
                    "xffTrustedCIDRs" if self.use_remote_address is None else "useRemoteAddress",
                )
            if self.xff_num_trusted_hops is not None:
                raise contradiction(
                    "only one of xffNumTrustedHops and xffTrustedCIDRs may be set",
                    "xffNumTrustedHops",
                )
        return self

    def unkept(self, path: tuple[str | int, ...]) -> Iterator[Remark]:
        """Values that the data plane does not keep to.

        Args:
            path: where the settings stand in the object.
        """
        if self.preserve_http1_header_case is False:
            yield Remark(
                "KGW501",
                Severity.WARNING,
                "the case of HTTP/1 header names is kept all the same",
                (*path, "preserveHttp1HeaderCase"),
                legal="true",
            )
