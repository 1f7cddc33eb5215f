"""HTTP settings of a listener, shared by ListenerPolicy and HTTPListenerPolicy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, Strict, StringConstraints

from kgw.api.base import Bool, Model
from kgw.api.duration import Duration
from kgw.api.kgateway.access_log import AccessLog
from kgw.diagnostics import Severity


class HTTPSettings(Model):
    """Settings of the HTTP connections of a listener; absent fields keep their defaults."""

    unsupported: ClassVar[Mapping[str, Severity]] = dict.fromkeys(
        (
            "acceptHttp10",
            "defaultHostForHttp10",
            "earlyRequestHeaderModifier",
            "forwardClientCertDetails",
            "generateRequestId",
            "healthCheck",
            "http2ProtocolOptions",
            "localReplies",
            "maxRequestsPerConnection",
            "preserveExternalRequestId",
            "preserveHttp1HeaderCase",
            "proxy100Continue",
            "serverHeaderTransformation",
            "skipXFFAppend",
            "stripHostPortMode",
            "stripTrailingHostDot",
            "tracing",
            "upgradeConfig",
            "uuidRequestIdConfig",
            "xffNumTrustedHops",
            "xffTrustedCIDRs",
        ),
        Severity.ERROR,
    )

    access_log: Annotated[tuple[AccessLog, ...], Field(max_length=16)] | None = None
    idle_timeout: Duration | None = None
    stream_idle_timeout: Duration | None = None
    max_headers_count: Annotated[int, Strict(), Field(ge=1)] | None = None
    max_request_headers_kb: Annotated[int, Strict(), Field(ge=1, le=8192)] | None = None
    server_name: Annotated[str, StringConstraints(min_length=1)] | None = None
    use_remote_address: Bool | None = None
