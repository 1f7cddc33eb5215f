"""Services that decide about requests, as policies use them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from kgw.api.base import Model, contradiction
from kgw.api.kgateway.request_body import BufferSettings
from kgw.api.kgateway.traffic.disable import PolicyDisable
from kgw.api.names import NamespaceName, ObjectName


class ExtensionReference(Model):
    """A GatewayExtension."""

    name: ObjectName
    """The name of the extension."""
    namespace: NamespaceName | None = None
    """Its namespace, if it is not the policy's."""


class ExtAuthPolicy(Model):
    """A service decides about requests; exactly one of the first two fields."""

    extension_ref: ExtensionReference | None = None
    """The GatewayExtension with the service, which is of kind ``extAuth``."""
    disable: PolicyDisable | None = None
    """No service decides, whatever less specific policies say."""
    with_request_body: BufferSettings | None = None
    """The bodies that it is told, in place of those that the extension says."""
    context_extensions: dict[str, str] = Field(default_factory=dict)
    """What a service over gRPC is told in addition."""

    enablement: Literal["DisableAll"] | None = None
    """What kgateway 2.0 had for ``disable``."""

    @property
    def is_disabled(self) -> bool:
        """Whether no service decides."""
        return self.disable is not None or self.enablement is not None

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.extension_ref is None) != self.is_disabled:
            raise contradiction("exactly one of the fields in [extensionRef disable] must be set")
        return self
