"""HTTP settings of a listener, shared by ListenerPolicy and HTTPListenerPolicy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, Strict, StringConstraints, model_validator

from kgw.api.base import Bool, Model, Remark, contradiction
from kgw.api.cidr import Cidr
from kgw.api.duration import Duration
from kgw.api.kgateway.access_log import AccessLog
from kgw.api.quantity import Quantity
from kgw.diagnostics import Severity

#: Windows of HTTP/2: Envoy's least, and RFC 9113's most. Bytes.
WINDOW: Final = Field(ge=65_535, le=2_147_483_647)

Count = Annotated[int, Strict(), Field(ge=0, le=4_294_967_295)]


class UpgradeConfig(Model):
    """Protocols that requests may switch to."""

    enabled_upgrades: Annotated[tuple[str, ...], Field(min_length=1)] | None = None


class Http2ProtocolOptions(Model):
    """HTTP/2 towards clients."""

    allow_connect: Bool | None = None
    initial_connection_window_size: Annotated[Quantity, WINDOW] | None = None
    initial_stream_window_size: Annotated[Quantity, WINDOW] | None = None
    max_concurrent_streams: Annotated[int, Strict(), Field(ge=1, le=2_147_483_647)] | None = None


class HTTPSettings(Model):
    """Settings of the HTTP connections of a listener; absent fields keep their defaults."""

    unsupported: ClassVar[Mapping[str, Severity]] = dict.fromkeys(
        (
            "earlyRequestHeaderModifier",
            "forwardClientCertDetails",
            "healthCheck",
            "localReplies",
            "proxy100Continue",
            "stripHostPortMode",
            "stripTrailingHostDot",
            "tracing",
            "uuidRequestIdConfig",
        ),
        Severity.ERROR,
    )

    accept_http10: Bool | None = None
    access_log: Annotated[tuple[AccessLog, ...], Field(max_length=16)] | None = None
    default_host_for_http10: Annotated[str, StringConstraints(min_length=1)] | None = None
    generate_request_id: Bool | None = None
    http2_protocol_options: Http2ProtocolOptions | None = None
    idle_timeout: Duration | None = None
    max_headers_count: Annotated[Count, Field(ge=1)] | None = None
    max_request_headers_kb: Annotated[int, Strict(), Field(ge=1, le=8192)] | None = None
    max_requests_per_connection: Count | None = None
    preserve_external_request_id: Bool | None = None
    preserve_http1_header_case: Bool | None = None
    server_header_transformation: Literal["Overwrite", "AppendIfAbsent", "PassThrough"] | None = (
        None
    )
    server_name: Annotated[str, StringConstraints(min_length=1)] | None = None
    skip_xff_append: Bool | None = None
    stream_idle_timeout: Duration | None = None
    upgrade_config: UpgradeConfig | None = None
    use_remote_address: Bool | None = None
    xff_num_trusted_hops: Count | None = None
    xff_trusted_cidrs: Annotated[tuple[Cidr, ...], Field(min_length=1)] | None = None

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
        http2 = self.http2_protocol_options
        if http2 is not None and http2.allow_connect is False:
            yield Remark(
                "KGW501",
                Severity.ERROR,
                "`allowConnect: false` is not supported by this version of kgw: what may be "
                "upgraded to over HTTP/1.1 may be over HTTP/2",
                (*path, "http2ProtocolOptions", "allowConnect"),
                legal="true",
            )
        if self.preserve_http1_header_case is False:
            yield Remark(
                "KGW501",
                Severity.WARNING,
                "the case of HTTP/1 header names is kept all the same",
                (*path, "preserveHttp1HeaderCase"),
                legal="true",
            )
