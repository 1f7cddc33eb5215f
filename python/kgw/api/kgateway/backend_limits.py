"""How much a backend is asked for, and how its connections are kept."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, Strict, StringConstraints, model_validator

from kgw.api.base import Bool, Model, contradiction
from kgw.api.duration import Duration
from kgw.api.kgateway.count import Count

_AtLeastOne = Annotated[int, Strict(), Field(ge=1, le=2_147_483_647)]
_Percentage = Annotated[int, Strict(), Field(ge=0, le=100)]
_NotNegative = Annotated[int, Strict(), Field(ge=0, le=2_147_483_647)]


class CircuitBreakers(Model):
    """How much may be under way to a backend at once, over all of the proxy.

    What is not given is as in Envoy: 1024 connections, waiting requests and requests, 3 retries.
    """

    max_connections: _AtLeastOne | None = None
    """Connections, in use or not."""
    max_pending_requests: _AtLeastOne | None = None
    """Requests that wait for a connection."""
    max_requests: _AtLeastOne | None = None
    """Requests that have a connection."""
    max_retries: _NotNegative | None = None
    """Retries."""
    track_remaining: Bool | None = None
    """Whether statistics tell how much is left."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (
            self.max_connections is None
            and self.max_pending_requests is None
            and self.max_requests is None
            and self.max_retries is None
        ):
            raise contradiction(
                "at least one of the fields in [maxConnections maxPendingRequests maxRequests "
                "maxRetries] must be set"
            )
        return self


class ConnectionKeepalive(Model):
    """PING frames that find out whether a backend is still there."""

    connection_idle_interval: Duration | None = None
    """The time without a byte after which one goes before a stream begins."""
    interval: Duration | None = None
    """The time between two; absent, they go only after idle times."""
    timeout: Duration
    """The time for the answer, after which the connection is closed."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        for name, alias in (
            ("connection_idle_interval", "connectionIdleInterval"),
            ("interval", "interval"),
            ("timeout", "timeout"),
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise contradiction(f"{alias} must be at least 1ms", alias)
        return self


class Dns(Model):
    """How often the name of a backend is looked up."""

    jitter: Duration | None = None
    """The time by which a look-up may be later than it is due, at most."""
    refresh_rate: Duration | None = None
    """The time between two look-ups."""
    respect_ttl: Bool | None = None
    """Whether addresses count as long as their servers say."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.refresh_rate is not None and self.refresh_rate < 1:
            raise contradiction("refreshRate must be at least 1ms", "refreshRate")
        if (
            self.jitter is not None
            and self.refresh_rate is not None
            and self.jitter > self.refresh_rate
        ):
            raise contradiction("jitter must be less than or equal to refreshRate", "jitter")
        return self


class CommonHttpProtocolOptions(Model):
    """HTTP towards a backend, whatever the version."""

    idle_timeout: Duration | None = None
    """The time that a connection may sit unused; 0 is no bound."""
    max_headers_count: Count | None = None
    """The header fields that an answer may have."""
    max_requests_per_connection: Count | None = None
    """The requests after which a connection is closed; 0 is no bound."""
    max_stream_duration: Duration | None = None
    """The time for a request and its answer; 0 is no bound."""


class OutlierDetection(Model):
    """When endpoints are out of use for a while: if their requests fail in a row."""

    base_ejection_time: Duration = Duration(30_000)
    """The time of a first ejection; others of the same endpoint take longer."""
    consecutive_5xx: _NotNegative = 5
    """The failures in a row that eject an endpoint; 0 is never."""
    consecutive_local_origin_failure: _NotNegative | None = None
    """The failures in a row to have an answer that eject an endpoint, if they are split."""
    enforcing_consecutive_5xx: _Percentage | None = None
    """How many of a hundred endpoints that are to be ejected are."""
    enforcing_consecutive_local_origin_failure: _Percentage | None = None
    """How many of a hundred endpoints that are to be ejected for the split failures are."""
    interval: Duration = Duration(10_000)
    """The time between two looks whether an ejection is over."""
    max_ejection_percent: _Percentage = 10
    """How many of a hundred endpoints may be ejected at once."""
    split_external_local_origin_errors: Bool | None = None
    """Whether failures to have an answer are counted on their own."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.interval < 1:
            raise contradiction("interval must be at least 1ms", "interval")
        if self.base_ejection_time < 1:
            raise contradiction("baseEjectionTime must be at least 1ms", "baseEjectionTime")
        return self


class HttpHealthCheck(Model):
    """A request that asks an endpoint whether it is in order; 200 says that it is."""

    host: str | None = None
    """The host that is asked for; the name of the cluster if there is none."""
    method: Literal["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"] = "GET"
    """The method."""
    path: Annotated[str, StringConstraints(pattern="^/")]
    """The path."""


class GrpcHealthCheck(Model):
    """A call of ``grpc.health.v1.Health/Check``; ``SERVING`` says that an endpoint is in order."""

    authority: str | None = None
    """The host that is asked for; the name of the cluster if there is none."""
    service_name: str | None = None
    """The service that is asked about; none is the server as a whole."""


class HealthCheck(Model):
    """Each endpoint is asked again and again whether it is in order."""

    grpc: GrpcHealthCheck | None = None
    """A call of gRPC."""
    healthy_threshold: _NotNegative
    """The successes in a row that take an endpoint back."""
    http: HttpHealthCheck | None = None
    """A request."""
    interval: Duration
    """The time between two checks."""
    timeout: Duration
    """The time for an answer."""
    unhealthy_threshold: _NotNegative
    """The failures in a row that take an endpoint out of use."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.grpc is None) == (self.http is None):
            raise contradiction("exactly one of the fields in [http grpc] must be set")
        return self
