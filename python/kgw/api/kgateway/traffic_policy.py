"""TrafficPolicy: what is done to the requests of a Gateway, listener, route or rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from kgw.api.base import Bool, Model, Remark, contradiction, given, kubernetes_name
from kgw.api.duration import Duration
from kgw.api.kgateway.targets import (
    KGATEWAY_GROUP,
    TargetRefs,
    TargetSelectors,
    target_refs,
    target_rules,
)
from kgw.api.kgateway.traffic.acl import ACL
from kgw.api.kgateway.traffic.api_key_auth import APIKeyAuth
from kgw.api.kgateway.traffic.basic_auth import BasicAuth
from kgw.api.kgateway.traffic.buffer import Buffer
from kgw.api.kgateway.traffic.compression import Compression
from kgw.api.kgateway.traffic.cors import CorsPolicy
from kgw.api.kgateway.traffic.csrf import CSRF
from kgw.api.kgateway.traffic.ext_auth import ExtAuthPolicy
from kgw.api.kgateway.traffic.ext_proc import ExtProcPolicy
from kgw.api.kgateway.traffic.fault_injection import FaultInjection
from kgw.api.kgateway.traffic.header_modifiers import HeaderModifiers
from kgw.api.kgateway.traffic.jwt_auth import JWTAuthentication
from kgw.api.kgateway.traffic.rate_limit import LocalRateLimit as LocalRateLimit
from kgw.api.kgateway.traffic.rate_limit import RateLimit as RateLimit
from kgw.api.kgateway.traffic.rate_limit import TokenBucket as TokenBucket
from kgw.api.kgateway.traffic.rbac import Authorization
from kgw.api.kgateway.traffic.request_mirror import PolicyRequestMirror
from kgw.api.kgateway.traffic.retry import RetryPolicy
from kgw.api.kgateway.traffic.timeouts import Timeouts
from kgw.api.kgateway.traffic.tracing import TracingPolicy
from kgw.api.kgateway.traffic.transformation import Transformation
from kgw.api.kgateway.traffic.url_rewrite import PolicyURLRewrite
from kgw.api.meta import ObjectMeta, Resource
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from datetime import timedelta

    from kgw.api.kgateway.targets import PolicyTargetReference

_KINDS: Final = ("Gateway", "HTTPRoute", "GRPCRoute", "ListenerSet", "XListenerSet")


class TrafficPolicySpec(Model):
    """What a TrafficPolicy says."""

    # Also `ai`, which kgateway 2.0 and 2.1 had.
    unsupported: ClassVar[Mapping[str, Severity]] = dict.fromkeys(
        (
            "ai",
            "internalRedirect",
            "oauth2",
            "statPrefix",
        ),
        Severity.ERROR,
    )

    target_refs: TargetRefs = ()
    """What the policy is for: Gateways and routes of its namespace."""
    target_selectors: TargetSelectors = ()
    """What the policy is for, by labels."""
    acl: ACL | None = None
    """Which clients may send requests, by their addresses."""
    api_key_auth: APIKeyAuth | None = None
    """Requests have to have an API key."""
    api_key_authentication: APIKeyAuth | None = None
    """What ``api_key_auth`` was called first."""
    auto_host_rewrite: Bool | None = None
    """Whether requests ask for the name of the endpoint that they go to, where it has one."""
    basic_auth: BasicAuth | None = None
    """Requests have to name a user and the password."""
    buffer: Buffer | None = None
    """Requests are passed on as a whole."""
    compression: Compression | None = None
    """What is compressed and decompressed."""
    cors: CorsPolicy | None = None
    """Which pages of other origins may use a route."""
    csrf: CSRF | None = None
    """Requests that change something have to come from a page of their host."""
    ext_auth: ExtAuthPolicy | None = None
    """A service decides about requests."""
    ext_proc: ExtProcPolicy | None = None
    """A service processes requests and their answers."""
    fault_injection: FaultInjection | None = None
    """Faults that are made on purpose."""
    header_modifiers: HeaderModifiers | None = None
    """Changes of header fields, of requests that are not refused and of answers."""
    jwt: JWTAuthentication | None = None
    """What ``jwt_auth`` was called first."""
    jwt_auth: JWTAuthentication | None = None
    """Who calls, by signed tokens; others are answered with 401."""
    rate_limit: RateLimit | None = None
    """How many requests are let through; others are answered with 429."""
    rbac: Authorization | None = None
    """Who may do what; others are answered with 403."""
    request_mirror: PolicyRequestMirror | None = None
    """What copies of requests ask for."""
    retry: RetryPolicy | None = None
    """When requests are sent once more, where their rule does not say so."""
    timeouts: Timeouts | None = None
    """How long a request may take."""
    tracing: TracingPolicy | None = None
    """What is traced of routes."""
    transformation: Transformation | None = None
    """What templates make of requests and responses."""
    url_rewrite: PolicyURLRewrite | None = None
    """Rewrites of paths, where their rule has none."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        self._kinds()
        for old, new in (("api_key_authentication", "api_key_auth"), ("jwt", "jwt_auth")):
            if getattr(self, old) is not None and getattr(self, new) is not None:
                names = kubernetes_name(old), kubernetes_name(new)
                message = f"only one of {names[0]} and {names[1]} may be set, which are the same"
                raise contradiction(message, names[0])
        attempt = None if self.retry is None else self.retry.per_try_timeout
        whole = None if self.timeouts is None else self.timeouts.request
        if attempt is not None and whole is not None and attempt >= whole:
            message = "retry.perTryTimeout must be less than timeouts.request"
            raise contradiction(message, "retry", "perTryTimeout")
        target_rules(
            self.target_refs,
            self.target_selectors,
            _KINDS,
            "Gateway, HTTPRoute, GRPCRoute, or ListenerSet resources",
        )
        return self

    def _kinds(self) -> None:
        """Some fields are for routes only."""
        targets = [
            *((("targetRefs", number), one.kind) for number, one in enumerate(self.target_refs)),
            *(
                (("targetSelectors", number), one.kind)
                for number, one in enumerate(self.target_selectors)
            ),
        ]
        for name, alias, kinds in (
            ("auto_host_rewrite", "autoHostRewrite", ("HTTPRoute",)),
            ("tracing", "tracing", ("HTTPRoute", "GRPCRoute")),
            ("url_rewrite", "urlRewrite", ("HTTPRoute",)),
        ):
            if getattr(self, name) is None:
                continue
            for path, kind in targets:
                if kind not in kinds:
                    words = " or ".join(kinds)
                    message = f"{alias} can only be used when targeting {words} resources"
                    raise contradiction(message, *path, "kind")


class TrafficPolicy(Resource):
    """A policy for requests."""

    group: ClassVar[str] = KGATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)

    api_version: str = f"{KGATEWAY_GROUP}/v1alpha1"
    kind: Literal["TrafficPolicy"] = "TrafficPolicy"
    spec: TrafficPolicySpec = Field(default_factory=TrafficPolicySpec)
    """What is done to the requests."""

    def remarks(self) -> Iterator[Remark]:
        """What is to be said about forms of earlier versions."""
        for value, old, new in (
            (self.spec.api_key_authentication, "apiKeyAuthentication", "apiKeyAuth"),
            (self.spec.jwt, "jwt", "jwtAuth"),
            (self.spec.ext_auth and self.spec.ext_auth.enablement, "extAuth.enablement", "disable"),
        ):
            if value is not None:
                path = ("spec", *old.split("."))
                text = f"`{path[-1]}` has a successor, `{new}`"
                yield Remark("KGW601", Severity.WARNING, text, path, hint=f"write `{new}`")

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
