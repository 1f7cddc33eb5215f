"""HTTPListenerPolicy: HTTP settings of a Gateway's listeners; ListenerPolicy followed it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from kgw.api.kgateway.access_log import AccessLog
from kgw.api.kgateway.http_settings import HTTPSettings
from kgw.api.kgateway.targets import (
    KGATEWAY_GROUP,
    TargetRefs,
    TargetSelectors,
    target_refs,
    target_rules,
)
from kgw.api.meta import ObjectMeta, Resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kgw.api.base import Remark
    from kgw.api.gateway.gateway import Gateway
    from kgw.api.kgateway.listener_policy import Part


class HTTPListenerPolicySpec(HTTPSettings):
    """What an HTTPListenerPolicy says."""

    target_refs: TargetRefs = ()
    """The Gateways that the policy is for."""
    target_selectors: TargetSelectors = ()
    """The Gateways that the policy is for, by labels."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        target_rules(self.target_refs, self.target_selectors, ("Gateway",), "Gateway resource")
        return self


class HTTPListenerPolicy(Resource):
    """HTTP settings for all listeners of a Gateway."""

    group: ClassVar[str] = KGATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)

    api_version: str = f"{KGATEWAY_GROUP}/v1alpha1"
    kind: Literal["HTTPListenerPolicy"] = "HTTPListenerPolicy"
    spec: HTTPListenerPolicySpec = Field(default_factory=HTTPListenerPolicySpec)
    """Which Gateways, and the settings of their listeners."""

    @classmethod
    def of(
        cls,
        name: str,
        *gateways: Gateway,
        access_log: AccessLog | Iterable[AccessLog],
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a policy that logs the requests of Gateways; its other settings are in its spec."""
        logs = (access_log,) if isinstance(access_log, AccessLog) else tuple(access_log)
        return cls(
            metadata=ObjectMeta.of(name, namespace, labels, annotations),
            spec=HTTPListenerPolicySpec(target_refs=target_refs(gateways), access_log=logs),
        )

    def parts(self, port: int) -> tuple[Part, ...]:
        """What holds for a listener's port, and where it stands in the object."""
        del port
        return ((self.spec, ("spec",)),)

    def every_settings(self) -> Iterator[tuple[HTTPSettings, tuple[str | int, ...]]]:
        """All HTTP settings of the policy, and where they stand in the object."""
        yield self.spec, ("spec",)

    def remarks(self) -> Iterator[Remark]:
        """Values that are not kept to."""
        return self.spec.unkept(("spec",))
