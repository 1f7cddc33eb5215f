"""Who keeps rate limits that several proxies share: a rate limit service, or a Redis server."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, Strict, model_validator

from kgw.api.base import Bool, Model, contradiction
from kgw.api.duration import Duration
from kgw.api.gateway.backend_object import BackendObjectReference
from kgw.api.kgateway.extension.grpc_service import GrpcService
from kgw.api.names import ObjectName

Count = Annotated[int, Strict(), Field(ge=1, le=4_294_967_295)]
RateLimitUnit = Literal["Second", "Minute", "Hour", "Day"]


class Limit(Model):
    """So many requests in each of some time. kgw's own: kgateway leaves limits to the service."""

    requests: Count
    """How many."""
    unit: RateLimitUnit
    """In each of these. Requests that are left come back evenly, not all at its end."""
    burst: Count | None = None
    """How many may come at once after a pause; as many as in a unit if none is given. A rate limit
    service is not told."""
    name: str | None = None
    """What answers call it in ``x-ratelimit-limit``."""


class LimitEntry(Model):
    """An entry of the descriptors that a limit is for."""

    key: Annotated[str, Field(min_length=1)]
    """Its key."""
    value: str | None = None
    """Its value; without one each value is counted by itself."""


class RedisLimit(Limit):
    """The limit of the descriptors that have these entries."""

    descriptor: Annotated[tuple[LimitEntry, ...], Field(min_length=1, max_length=64)]
    """The entries, in their order; a descriptor with more or fewer is another one."""


class SecretName(Model):
    """A Secret of the same namespace."""

    name: ObjectName
    """Its name."""


class LocalFallback(Model):
    """What a proxy does by itself while the server is away."""

    percent: Annotated[int, Strict(), Field(ge=1, le=100)] = 100
    """The share of each limit that a proxy then gives itself, such as 50 where there are two."""


class RedisServer(Model):
    """A Redis (5 or later) or Valkey server in which limits are kept without a service. kgw's own.

    Each limit is a token bucket; a decision is one round trip, by the server's clock.
    """

    backend_ref: BackendObjectReference
    """The server, which is one: a cluster of several is not followed. TLS is as the Service's
    BackendTLSPolicy says."""
    secret_ref: SecretName | None = None
    """A Secret with the keys ``password`` and, for a user that is not the default one,
    ``username``."""
    database: Annotated[int, Strict(), Field(ge=0, le=65_535)] = 0
    """The number of the database."""
    key_prefix: Annotated[str, Field(max_length=128)] = "kgw:"
    """What the names of all keys begin with."""
    limits: Annotated[tuple[RedisLimit, ...], Field(max_length=1024)] = ()
    """The limits of descriptors that have none of their own; the first that fits counts. What fits
    none is not limited."""
    local_fallback: LocalFallback | None = None
    """While the server is away, each proxy keeps the limits for itself, whatever ``failOpen``
    says."""


class RateLimitProvider(Model):
    """Who is asked whether a request is within its limits; a service or a Redis server."""

    grpc_service: GrpcService | None = None
    """A service that speaks Envoy's rate limit service protocol."""
    redis: RedisServer | None = None
    """A Redis or Valkey server; kgw's own, in place of ``grpcService``."""
    domain: str
    """What tells its limits from those of others."""
    fail_open: Bool = True
    """Requests that nobody decides about go on; otherwise they are answered with 500."""
    timeout: Duration = Duration("100ms")
    """The time for a decision."""
    x_rate_limit_headers: Literal["Off", "DraftVersion03"] = "Off"
    """Whether answers say what is left, in ``x-ratelimit-limit``, ``-remaining`` and ``-reset``."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.grpc_service is None) == (self.redis is None):
            raise contradiction("exactly one of the fields in [grpcService redis] must be set")
        if not self.domain:
            raise contradiction("domain must not be empty", "domain")
        if self.timeout < 1:
            raise contradiction("timeout must be at least 1ms.", "timeout")
        return self
