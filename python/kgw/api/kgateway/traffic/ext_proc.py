"""Requests and answers that a service processes."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from kgw.api.base import Model, contradiction
from kgw.api.kgateway.processing_mode import ProcessingMode
from kgw.api.kgateway.traffic.disable import PolicyDisable
from kgw.api.names import NamespaceName, ObjectName


class ProcessorReference(Model):
    """A GatewayExtension with an `extProc`."""

    name: ObjectName
    """The name of the extension."""
    namespace: NamespaceName | None = None
    """Its namespace, if it is not the policy's."""


class ExtProcPolicy(Model):
    """The service is a GatewayExtension; exactly one of `extensionRef` and `disable`."""

    extension_ref: ProcessorReference | None = None
    """The GatewayExtension, with an `extProc`."""
    processing_mode: ProcessingMode | None = None
    """What the service is sent, instead of what its extension says."""
    disable: PolicyDisable | None = None
    """Nothing is processed, whatever less specific policies say."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.extension_ref is None) == (self.disable is None):
            raise contradiction("exactly one of the fields in [extensionRef disable] must be set")
        return self
