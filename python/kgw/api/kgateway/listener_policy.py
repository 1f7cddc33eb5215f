"""ListenerPolicy: settings of a Gateway's listeners, for all or by port."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Final, Self

from pydantic import Field, model_validator

from kgw.api.base import Model, Port, contradiction, repeated
from kgw.api.kgateway.http_settings import HTTPSettings
from kgw.api.kgateway.targets import KGATEWAY_GROUP, TargetRefs, TargetSelectors, target_rules
from kgw.api.meta import Resource
from kgw.diagnostics import Severity


class ListenerConfig(Model):
    """Settings of a listener."""

    unsupported: ClassVar[Mapping[str, Severity]] = dict.fromkeys(
        (
            "clientCertificateValidation",
            "perConnectionBufferLimitBytes",
            "proxyProtocol",
            "tcpKeepalive",
            "transportSocketConnectTimeout",
        ),
        Severity.ERROR,
    )

    http_settings: HTTPSettings = Field(default_factory=HTTPSettings)


class ListenerPortConfig(Model):
    """Settings of the listeners of one port, which replace the default ones altogether."""

    port: Port
    listener: ListenerConfig = Field(default_factory=ListenerConfig)


class ListenerPolicySpec(Model):
    """What a ListenerPolicy says."""

    target_refs: TargetRefs = ()
    target_selectors: TargetSelectors = ()
    default: ListenerConfig | None = None
    per_port: Annotated[tuple[ListenerPortConfig, ...], Field(max_length=64)] = ()

    @model_validator(mode="after")
    def _rules(self) -> Self:
        target_rules(self.target_refs, self.target_selectors, ("Gateway",), "Gateway resource")
        twice = repeated(one.port for one in self.per_port)
        if twice is not None:
            raise contradiction("perPort ports must be unique", "perPort", twice, "port")
        return self


class ListenerPolicy(Resource):
    """Settings for the listeners of a Gateway."""

    group: ClassVar[str] = KGATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)

    spec: ListenerPolicySpec = Field(default_factory=ListenerPolicySpec)

    def settings(self, port: int) -> tuple[HTTPSettings, tuple[str | int, ...]]:
        """The settings for a listener's port, and where they stand in the object."""
        for index, one in enumerate(self.spec.per_port):
            if one.port == port:
                return one.listener.http_settings, _of_port(index)
        default = self.spec.default or ListenerConfig()
        return default.http_settings, _DEFAULT

    def every_settings(self) -> Iterator[tuple[HTTPSettings, tuple[str | int, ...]]]:
        """All settings of the policy, and where they stand in the object."""
        if self.spec.default is not None:
            yield self.spec.default.http_settings, _DEFAULT
        for index, one in enumerate(self.spec.per_port):
            yield one.listener.http_settings, _of_port(index)


_DEFAULT: Final = ("spec", "default", "httpSettings")


def _of_port(index: int) -> tuple[str | int, ...]:
    return ("spec", "perPort", index, "listener", "httpSettings")
