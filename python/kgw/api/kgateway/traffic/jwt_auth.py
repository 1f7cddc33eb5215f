"""Who calls, by signed tokens."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from kgw.api.base import Model, contradiction
from kgw.api.kgateway.traffic.disable import PolicyDisable
from kgw.api.names import NamespaceName, ObjectName


class IssuersReference(Model):
    """A GatewayExtension with a `jwt`."""

    name: ObjectName
    """The name of the extension."""
    namespace: NamespaceName | None = None
    """Its namespace, if it is not the policy's."""


class JWTAuthentication(Model):
    """Requests have a token of an issuer; exactly one of the fields."""

    extension_ref: IssuersReference | None = None
    """The GatewayExtension that says who issues tokens, with a `jwt`."""
    disable: PolicyDisable | None = None
    """Requests need no token, whatever less specific policies say."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.extension_ref is None) == (self.disable is None):
            raise contradiction("exactly one of the fields in [extensionRef disable] must be set")
        return self
