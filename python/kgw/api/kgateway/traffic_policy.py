"""TrafficPolicy: what is done to the requests of a Gateway, listener, route or rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, Strict, model_validator

from kgw.api.base import Model, contradiction
from kgw.api.duration import Duration
from kgw.api.kgateway.targets import (
    KGATEWAY_GROUP,
    TargetRefs,
    TargetSelectors,
    target_rules,
)
from kgw.api.meta import Resource
from kgw.diagnostics import Severity

Percent = Annotated[int, Strict(), Field(ge=0, le=100)]
Tokens = Annotated[int, Strict(), Field(ge=1, le=4_294_967_295)]

_KINDS: Final = ("Gateway", "HTTPRoute", "GRPCRoute", "ListenerSet", "XListenerSet")


class TokenBucket(Model):
    """A bucket that starts full and gains ``tokens_per_fill`` per ``fill_interval``, evenly."""

    max_tokens: Tokens
    tokens_per_fill: Tokens = 1
    fill_interval: Duration

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.fill_interval < 50:
            raise contradiction("fillInterval must be at least 50ms", "fillInterval")
        return self


class LocalRateLimit(Model):
    """A limit each proxy keeps for itself; without a bucket it turns an inherited one off."""

    token_bucket: TokenBucket | None = None
    percent_enabled: Percent = 100
    percent_enforced: Percent = 100


class RateLimit(Model):
    """Rate limits."""

    unsupported: ClassVar[Mapping[str, Severity]] = {"global": Severity.ERROR}

    local: LocalRateLimit | None = None


class Timeouts(Model):
    """Time-outs of requests."""

    unsupported: ClassVar[Mapping[str, Severity]] = {"streamIdle": Severity.ERROR}

    request: Duration | None = None


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
    target_selectors: TargetSelectors = ()
    rate_limit: RateLimit | None = None
    timeouts: Timeouts | None = None

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

    @property
    def local_rate_limit(self) -> LocalRateLimit | None:
        """``rateLimit.local``, if it is set."""
        return self.spec.rate_limit.local if self.spec.rate_limit else None

    @property
    def request_timeout(self) -> int | None:
        """``timeouts.request`` in milliseconds, if it is set; 0 is none."""
        return self.spec.timeouts.request if self.spec.timeouts else None
