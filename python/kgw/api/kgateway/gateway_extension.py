"""GatewayExtension: a service that policies use, and how it is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from kgw.api.base import Model, Remark, contradiction
from kgw.api.kgateway.extension.ext_auth import ExtAuthProvider
from kgw.api.kgateway.extension.ext_proc import ExtProcProvider
from kgw.api.kgateway.extension.jwt import JWT
from kgw.api.kgateway.extension.rate_limit import RateLimitProvider
from kgw.api.kinds import KGATEWAY_GROUP
from kgw.api.meta import Resource
from kgw.diagnostics import Severity

#: The kinds of extensions: fields of the spec, of which an extension has exactly one.
EXTENSIONS: Final = ("ext_auth", "ext_proc", "jwt", "oauth2", "rate_limit")


class GatewayExtensionSpec(Model):
    """What a GatewayExtension says; exactly one of its kinds."""

    unsupported: ClassVar[Mapping[str, Severity]] = {"oauth2": Severity.ERROR}

    type: Literal["ExtAuth", "ExtProc", "JWT", "OAuth2", "RateLimit"] | None = None
    """The kind once more, as kgateway 2.0 and 2.1 want it; later versions ignore it."""
    ext_auth: ExtAuthProvider | None = None
    """A service that decides about requests."""
    ext_proc: ExtProcProvider | None = None
    """A service that processes requests and their answers."""
    jwt: JWT | None = None
    """Who issues tokens, and the keys that they are signed with."""
    rate_limit: RateLimitProvider | None = None
    """Who keeps global rate limits."""

    @property
    def extension(self) -> str | None:
        """Which kind it is, as a name of a field."""
        given = (name for name in EXTENSIONS if getattr(self, name, None) is not None)
        return next(given, None)

    @model_validator(mode="after")
    def _rules(self) -> Self:
        given = [name for name in EXTENSIONS if getattr(self, name, None) is not None]
        given += [name for name in self.unsupported if name in (self.model_extra or {})]
        if len(given) != 1:
            words = "extAuth extProc jwt oauth2 rateLimit"
            message = f"exactly one of the fields in [{words}] must be set"
            raise contradiction(message)
        return self


class GatewayExtension(Resource):
    """A service that policies use."""

    group: ClassVar[str] = KGATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)

    api_version: str = f"{KGATEWAY_GROUP}/v1alpha1"
    kind: Literal["GatewayExtension"] = "GatewayExtension"
    spec: GatewayExtensionSpec = Field(default_factory=GatewayExtensionSpec)
    """What the extension is."""

    def remarks(self) -> Iterator[Remark]:
        """A field that has no meaning any more."""
        if self.spec.type is not None:
            text = "`type` has no meaning any more: the other field says what kind it is"
            path = ("spec", "type")
            yield Remark("KGW602", Severity.INFO, text, path, hint="leave it out")
