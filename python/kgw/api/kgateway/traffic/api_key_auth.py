"""API keys."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from kgw.api.base import Bool, Model, contradiction
from kgw.api.gateway.references import SecretObjectReference
from kgw.api.kgateway.traffic.disable import PolicyDisable
from kgw.api.names import Labels

_Place = Annotated[str, StringConstraints(min_length=1, max_length=256)]

#: The header field that a key is in if nothing else is said.
HEADER = "api-key"


class APIKeySource(Model):
    """Where a request may have a key; at least one of the fields, which are looked at in order."""

    header: _Place | None = None
    """The name of a header field."""
    query: _Place | None = None
    """The name of a parameter of the query."""
    cookie: _Place | None = None
    """The name of a cookie."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.header is None and self.query is None and self.cookie is None:
            raise contradiction("at least one of the fields in [header query cookie] must be set")
        return self


class LabelSelector(Model):
    """Objects of the policy's namespace, by their labels."""

    match_labels: Labels
    """Labels that they have."""


class APIKeyAuth(Model):
    """Requests have to have a key of a client; exactly one of the last three fields."""

    key_sources: Annotated[tuple[APIKeySource, ...], Field(max_length=16)] = ()
    """Where a request may have a key, the first place first; the header field ``api-key`` if none
    is given."""
    client_id_header: str | None = None
    """The name of a header field that tells the upstream the client."""
    forward_credential: Bool = False
    """Whether the upstream gets the key as well."""
    secret_ref: SecretObjectReference | None = None
    """A Secret with keys by the names of the clients."""
    secret_selector: LabelSelector | None = None
    """All Secrets that have some labels, with the same."""
    disable: PolicyDisable | None = None
    """Nobody is asked for a key, whatever less specific policies say."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        given = (self.secret_ref, self.secret_selector, self.disable)
        if len([one for one in given if one is not None]) != 1:
            raise contradiction(
                "exactly one of the fields in [secretRef secretSelector disable] must be set"
            )
        return self
