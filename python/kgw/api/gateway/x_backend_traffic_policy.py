"""XBackendTrafficPolicy: how much of a Service's traffic may be retries, and its sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, Strict, model_validator

from kgw.api.base import Model, contradiction, given, repeated
from kgw.api.duration import Duration
from kgw.api.gateway.session_persistence import SessionPersistence
from kgw.api.kinds import X_GATEWAY_GROUP
from kgw.api.meta import ObjectMeta, Resource
from kgw.api.names import Group, Kind, ObjectName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kgw.api.core.service import Service

_SECOND: Final = 1_000
_HOUR: Final = 3_600_000


class LocalPolicyTargetReference(Model):
    """What a policy is for, in its own namespace."""

    group: Group
    """The API group of the target; empty for a Service."""
    kind: Kind
    """The kind of the target: Service."""
    name: ObjectName
    """The name of the target."""


class BudgetDetails(Model):
    """A share of the requests."""

    percent: Annotated[int, Strict(), Field(ge=0, le=100)] = 20
    """How many of the requests may be retries, in percent."""
    interval: Duration = Duration("10s")
    """The time for which requests count, from one second to one hour."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if not _SECOND <= self.interval <= _HOUR:
            raise contradiction(
                "interval cannot be greater than one hour or less than one second", "interval"
            )
        return self


class RequestRate(Model):
    """A number of requests in a time."""

    count: Annotated[int, Strict(), Field(ge=1, le=1_000_000)] = 10
    """The number of requests."""
    interval: Duration = Duration("1s")
    """The time, of up to one hour."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if not 0 < self.interval <= _HOUR:
            raise contradiction("interval cannot be greater than one hour", "interval")
        return self


class RetryConstraint(Model):
    """How many retries there may be, whatever routes say of each request."""

    budget: BudgetDetails = Field(default_factory=BudgetDetails)
    """The share of the requests that may be retries."""
    min_retry_rate: RequestRate = Field(default_factory=RequestRate)
    """How many retries there may be in any case."""


class XBackendTrafficPolicySpec(Model):
    """What an XBackendTrafficPolicy says."""

    target_refs: Annotated[
        tuple[LocalPolicyTargetReference, ...], Field(min_length=1, max_length=16)
    ]
    """The Services that the policy is for."""
    retry_constraint: RetryConstraint | None = None
    """How many of the requests may be retries."""
    session_persistence: SessionPersistence | None = None
    """Sessions of the requests that no rule has sessions for."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        twice = repeated((one.group, one.kind, one.name) for one in self.target_refs)
        if twice is not None:
            text = "each target may be referred to once"
            raise contradiction(text, "targetRefs", twice)
        return self


class XBackendTrafficPolicy(Resource):
    """A policy for the requests to Services."""

    group: ClassVar[str] = X_GATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)

    api_version: str = f"{X_GATEWAY_GROUP}/v1alpha1"
    kind: Literal["XBackendTrafficPolicy"] = "XBackendTrafficPolicy"
    spec: XBackendTrafficPolicySpec
    """Which Services, and what holds for them."""

    @classmethod
    def of(
        cls,
        name: str,
        *services: Service,
        retry_constraint: RetryConstraint | None = None,
        session: SessionPersistence | None = None,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a policy for Services of its namespace.

        Args:
            name: its name.
            services: the Services.
            retry_constraint: how many of the requests may be retries.
            session: sessions of the requests that no rule has sessions for.
            namespace: its namespace.
            labels: its labels.
            annotations: its annotations.
        """
        refs = tuple(
            LocalPolicyTargetReference(group="", kind="Service", name=one.name) for one in services
        )
        return cls(
            metadata=ObjectMeta.of(name, namespace, labels, annotations),
            spec=XBackendTrafficPolicySpec(
                target_refs=refs,
                **given(retry_constraint=retry_constraint, session_persistence=session),
            ),
        )
