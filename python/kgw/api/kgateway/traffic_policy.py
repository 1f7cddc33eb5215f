"""TrafficPolicy: what is done to the requests of a Gateway, listener, route or rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, Strict, model_validator

from kgw.api.base import Model, contradiction, given
from kgw.api.duration import Duration
from kgw.api.kgateway.targets import (
    KGATEWAY_GROUP,
    TargetRefs,
    TargetSelectors,
    target_refs,
    target_rules,
)
from kgw.api.meta import ObjectMeta, Resource
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from datetime import timedelta

    from kgw.api.kgateway.targets import PolicyTargetReference

Percent = Annotated[int, Strict(), Field(ge=0, le=100)]
Tokens = Annotated[int, Strict(), Field(ge=1, le=4_294_967_295)]

_KINDS: Final = ("Gateway", "HTTPRoute", "GRPCRoute", "ListenerSet", "XListenerSet")


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


class LocalRateLimit(Model):
    """A limit each proxy keeps for itself; without a bucket it turns an inherited one off."""

    token_bucket: TokenBucket | None = None
    """The bucket; without one an inherited limit is turned off."""
    percent_enabled: Percent = 100
    """The share of the requests that the limit is asked about, in percent."""
    percent_enforced: Percent = 100
    """The share of the requests over the limit that are refused, in percent."""

    @classmethod
    def of(cls, requests: int, per: str | timedelta = "1s", *, burst: int | None = None) -> Self:
        """Allows so many requests in an interval of at least 50 ms.

        Args:
            requests: how many.
            per: the interval, as in ``60s``.
            burst: how many may come at once after a pause; by default as many as *requests*.
        """
        bucket = TokenBucket(
            max_tokens=requests if burst is None else burst,
            tokens_per_fill=requests,
            fill_interval=Duration(per),
        )
        return cls(token_bucket=bucket)


class RateLimit(Model):
    """Rate limits."""

    unsupported: ClassVar[Mapping[str, Severity]] = {"global": Severity.ERROR}

    local: LocalRateLimit | None = None
    """A limit that each proxy keeps for itself."""


class Timeouts(Model):
    """Time-outs of requests."""

    unsupported: ClassVar[Mapping[str, Severity]] = {"streamIdle": Severity.ERROR}

    request: Duration | None = None
    """The time for a whole request, where its rule gives none; ``0s`` is no bound."""


class TrafficPolicySpec(Model):
    """What a TrafficPolicy says."""

    # Also what earlier versions of kgateway had: `ai` (2.0 and 2.1), and `jwt` and
    # `apiKeyAuthentication`, the first names of `jwtAuth` and `apiKeyAuth`.
    unsupported: ClassVar[Mapping[str, Severity]] = dict.fromkeys(
        (
            "acl",
            "ai",
            "apiKeyAuth",
            "apiKeyAuthentication",
            "autoHostRewrite",
            "basicAuth",
            "buffer",
            "compression",
            "cors",
            "csrf",
            "extAuth",
            "extProc",
            "faultInjection",
            "headerModifiers",
            "internalRedirect",
            "jwt",
            "jwtAuth",
            "oauth2",
            "rbac",
            "requestMirror",
            "retry",
            "statPrefix",
            "tracing",
            "transformation",
            "urlRewrite",
        ),
        Severity.ERROR,
    )

    target_refs: TargetRefs = ()
    """What the policy is for: Gateways and routes of its namespace."""
    target_selectors: TargetSelectors = ()
    """What the policy is for, by labels."""
    rate_limit: RateLimit | None = None
    """How many requests are let through; others are answered with 429."""
    timeouts: Timeouts | None = None
    """How long a request may take."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        target_rules(
            self.target_refs,
            self.target_selectors,
            _KINDS,
            "Gateway, HTTPRoute, GRPCRoute, or ListenerSet resources",
        )
        return self


class TrafficPolicy(Resource):
    """A policy for requests."""

    group: ClassVar[str] = KGATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)

    api_version: str = f"{KGATEWAY_GROUP}/v1alpha1"
    kind: Literal["TrafficPolicy"] = "TrafficPolicy"
    spec: TrafficPolicySpec = Field(default_factory=TrafficPolicySpec)
    """What is done to the requests."""

    @classmethod
    def of(
        cls,
        name: str,
        *targets: Resource | PolicyTargetReference,
        rate_limit: LocalRateLimit | None = None,
        timeout: str | timedelta | None = None,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a policy.

            TrafficPolicy.of("limit", route, rate_limit=LocalRateLimit.of(3, per="60s"))

        Args:
            name: its name.
            targets: what it is for: Gateways and routes of its namespace, or references to a
                listener or rule of one.
            rate_limit: the limit of requests.
            timeout: the time for a whole request, where a rule gives none.
            namespace: its namespace.
            labels: its labels.
            annotations: its annotations.
        """
        limit = None if rate_limit is None else RateLimit(local=rate_limit)
        times = None if timeout is None else Timeouts(request=Duration(timeout))
        return cls(
            metadata=ObjectMeta.of(name, namespace, labels, annotations),
            spec=TrafficPolicySpec(
                target_refs=target_refs(targets), **given(rate_limit=limit, timeouts=times)
            ),
        )

    @property
    def local_rate_limit(self) -> LocalRateLimit | None:
        """``rateLimit.local``, if it is set."""
        return self.spec.rate_limit.local if self.spec.rate_limit else None

    @property
    def request_timeout(self) -> int | None:
        """``timeouts.request`` in milliseconds, if it is set; 0 is none."""
        return self.spec.timeouts.request if self.spec.timeouts else None
