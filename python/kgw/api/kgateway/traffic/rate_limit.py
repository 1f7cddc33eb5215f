"""Limits of how many requests are let through.

kgateway's definition has one bucket in each proxy for all requests of a target, and a service for
everything else. What kgw has beyond that is under one field, ``rateLimit.local.kgw``, that no
definition of kgateway's has: ``kubectl apply`` refuses it there, and an API server that is asked
not to be strict drops it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import Field, Strict, StringConstraints, model_validator

from kgw.api.base import Bool, Int, Model, contradiction, repeated
from kgw.api.duration import Duration
from kgw.api.gateway.filters import HTTPHeader
from kgw.api.kgateway.traffic.global_rate_limit import GlobalRateLimit
from kgw.api.names import HeaderName

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

Percent = Annotated[int, Strict(), Field(ge=0, le=100)]
Tokens = Annotated[int, Strict(), Field(ge=1, le=4_294_967_295)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Headers = Annotated[tuple[HTTPHeader, ...], Field(max_length=16)]

#: The longest that a request waits for tokens. Milliseconds.
_LONGEST_WAIT: Final = 60_000

#: Types of entries that have a name.
_NAMED: Final = ("Header", "QueryParameter", "Cookie", "JWTClaim")


class TokenBucket(Model):
    """A bucket that starts full and gains ``tokens_per_fill`` per ``fill_interval``, evenly."""

    max_tokens: Tokens
    """How many requests may come at once after a pause."""
    tokens_per_fill: Tokens = 1
    """How many requests each interval allows."""
    fill_interval: Duration
    """The interval, of at least 50 ms."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.fill_interval < 50:
            raise contradiction("fillInterval must be at least 50ms", "fillInterval")
        return self


class RateLimitCost(Model):
    """How many tokens a request takes."""

    tokens: Tokens = 1
    """As many at least, and of requests that do not say."""
    header: HeaderName | None = None
    """A header field with their number. It is believed: a filter before the limit should set it."""
    max: Tokens | None = None
    """The largest number that counts there; by default there is none."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.max is not None and self.header is None:
            raise contradiction("max needs a header", "max")
        if self.max is not None and self.max < self.tokens:
            raise contradiction("max must not be less than tokens", "max")
        return self


class LocalRateLimitEntry(Model):
    """Something that requests have; without a ``value``, each value has a bucket of its own."""

    type: Literal[
        "RemoteAddress",
        "Header",
        "QueryParameter",
        "Cookie",
        "JWTClaim",
        "Path",
        "Method",
        "Host",
        "Principal",
    ]
    """What: the client's address; a header field, query parameter or cookie, or a claim of a token
    that was verified, by name; the path without its query; the method; the host; the identity of
    the client's workload."""
    name: Name | None = None
    """The name of the field, parameter or cookie; of a claim, or the way to it, with dots."""
    value: Annotated[str, StringConstraints(max_length=1024)] | None = None
    """The value that a request must have to be counted."""
    ipv4_prefix_length: Annotated[Int, Field(ge=0, le=32)] = 32
    """Of a client's address: how many bits of an IPv4 address count."""
    ipv6_prefix_length: Annotated[Int, Field(ge=0, le=128)] = 64
    """Of a client's address: how many bits of an IPv6 address count. A client usually has 2^64."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.name is None) == (self.type in _NAMED):
            message = (
                "name must be set for the types Header, QueryParameter, Cookie and JWTClaim only"
            )
            raise contradiction(message, "name")
        lengths = {"ipv4_prefix_length", "ipv6_prefix_length"} & self.model_fields_set
        if lengths and self.type != "RemoteAddress":
            raise contradiction("prefix lengths are for the type RemoteAddress only", "type")
        return self


class LocalRateLimitDescriptor(Model):
    """Requests that have buckets of their own, by what all entries say of them."""

    name: Annotated[str, StringConstraints(pattern=r"^[ -~]{1,64}$")] | None = None
    """What clients are told that the limit is called; by default what its entries say."""
    entries: Annotated[tuple[LocalRateLimitEntry, ...], Field(min_length=1, max_length=8)]
    """What requests must have, all of it. One that lacks any is not counted by the descriptor."""
    token_bucket: TokenBucket
    """The size of each bucket."""
    max_keys: Annotated[Int, Field(ge=1, le=1_000_000)] = 10_000
    """How many buckets are kept. The one that was not used for longest gives way."""
    cost: RateLimitCost | None = None
    """How many tokens a request takes, if not as many as of the bucket of all."""


class RateLimitResponse(Model):
    """What clients of requests over the limit get."""

    status: Annotated[Int, Field(ge=400, le=599)] = 429
    """The status."""
    body: Annotated[str, StringConstraints(max_length=4096)] | None = None
    """The body, in place of ``local_rate_limited``."""
    headers: Headers = ()
    """Further header fields."""


class RateLimitQueue(Model):
    """Requests over the limit wait for tokens, in the order in which they came."""

    max_wait: Duration
    """How long a request waits at most, up to 60 s. Who would have to wait longer is refused."""
    max_waiting: Annotated[Int, Field(ge=1, le=10_000)] = 100
    """How many wait at most for one bucket, or for the buckets of one descriptor."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if not 0 < self.max_wait <= _LONGEST_WAIT:
            raise contradiction("maxWait must be between 1ms and 60s", "maxWait")
        return self


class LocalRateLimitOptions(Model):
    """What kgw has beyond kgateway's limits."""

    descriptors: Annotated[tuple[LocalRateLimitDescriptor, ...], Field(max_length=16)] = ()
    """Requests with buckets of their own. They take tokens of all that they have, the slowest
    bucket first, and then of the bucket of all."""
    consume_token_bucket: Literal["Always", "Unmatched"] = "Always"
    """Whether requests with a descriptor take tokens of the bucket of all, too."""
    cost: RateLimitCost | None = None
    """How many tokens a request takes."""
    headers: tuple[Literal["XRateLimit", "RateLimit"], ...] = ()
    """Fields that tell the limit on each answer: ``XRateLimit`` for ``X-RateLimit-Limit``,
    ``-Remaining`` and ``-Reset`` as Envoy has them, ``RateLimit`` for the IETF's ``RateLimit`` and
    ``RateLimit-Policy``."""
    retry_after: Bool = True
    """Whether refusals say in ``Retry-After`` when there are tokens again."""
    response: RateLimitResponse | None = None
    """What clients of requests over the limit get."""
    not_enforced_headers: Headers = ()
    """Header fields of requests that are over the limit and let pass, by ``percentEnforced``."""
    queue: RateLimitQueue | None = None
    """Requests over the limit wait for tokens before they are refused."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (at := repeated(self.headers)) is not None:
            raise contradiction("headers must not contain duplicates", "headers", at)
        kinds = [str(one.entries) for one in self.descriptors]
        if (at := repeated(kinds)) is not None:
            message = "descriptors must not have the same entries"
            raise contradiction(message, "descriptors", at, "entries")
        return self


class LocalRateLimit(Model):
    """A limit each proxy keeps for itself; without a bucket it turns an inherited one off."""

    token_bucket: TokenBucket | None = None
    """The bucket; without one an inherited limit is turned off."""
    percent_enabled: Percent = 100
    """The share of the requests that the limit is asked about, in percent."""
    percent_enforced: Percent = 100
    """The share of the requests over the limit that are refused, in percent."""
    kgw: LocalRateLimitOptions | None = None
    """What kgateway does not have: an API server with its definitions refuses or drops it."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.kgw is not None and self.token_bucket is None and not self.kgw.descriptors:
            raise contradiction("tokenBucket or kgw.descriptors must be set", "kgw")
        return self

    @classmethod
    def of(
        cls,
        requests: int,
        per: str | timedelta = "1s",
        *,
        burst: int | None = None,
        by: Iterable[LocalRateLimitEntry] = (),
    ) -> Self:
        """Allows so many requests in an interval of at least 50 ms.

        Args:
            requests: how many.
            per: the interval, as in ``60s``.
            burst: how many may come at once after a pause; by default as many as *requests*.
            by: what each bucket is of, as ``LocalRateLimitEntry(type="RemoteAddress")``; by default
                there is one bucket for all requests.
        """
        bucket = TokenBucket(
            max_tokens=requests if burst is None else burst,
            tokens_per_fill=requests,
            fill_interval=Duration(per),
        )
        entries = tuple(by)
        if not entries:
            return cls(token_bucket=bucket)
        descriptor = LocalRateLimitDescriptor(entries=entries, token_bucket=bucket)
        return cls(kgw=LocalRateLimitOptions(descriptors=(descriptor,)))


class RateLimit(Model):
    """Rate limits."""

    local: LocalRateLimit | None = None
    """A limit that each proxy keeps for itself."""
    global_: GlobalRateLimit | None = None
    """A limit that several proxies share."""
