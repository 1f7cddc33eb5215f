"""Users and passwords."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from kgw.api.base import Model, contradiction
from kgw.api.kgateway.traffic.disable import PolicyDisable
from kgw.api.names import NamespaceName, ObjectName

#: The key under which a Secret has users if nothing else is said.
HTPASSWD = ".htpasswd"


class HtpasswdSecret(Model):
    """A Secret with users, as ``htpasswd`` writes them."""

    name: ObjectName
    """The name of the Secret."""
    namespace: NamespaceName | None = None
    """Its namespace; one other than the policy's must be allowed by a ReferenceGrant."""
    key: Annotated[str, StringConstraints(min_length=1)] = HTPASSWD
    """The key of the data."""


class BasicAuth(Model):
    """Requests have to name a user and the password; exactly one of the fields."""

    users: Annotated[tuple[str, ...], Field(max_length=256)] = Field(default=(), repr=False)
    """Users and the hashes of their passwords, as ``htpasswd`` writes them: ``{SHA}`` or bcrypt."""
    secret_ref: HtpasswdSecret | None = None
    """A Secret with the same."""
    disable: PolicyDisable | None = None
    """Nobody is asked for a password, whatever less specific policies say."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if len(self.model_fields_set & {"users", "secret_ref", "disable"}) != 1:
            raise contradiction(
                "exactly one of the fields in [users secretRef disable] must be set"
            )
        if "users" in self.model_fields_set and not self.users:
            raise contradiction("users should have at least 1 items", "users")
        return self
