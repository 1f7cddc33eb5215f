"""The filters of an HTTPRoute rule or backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import Field, Strict, StringConstraints, model_validator

from kgw.api.base import Model, Port, contradiction
from kgw.api.names import Group, HeaderName, HeaderValue, Kind, ObjectName, PreciseHostname

if TYPE_CHECKING:
    from collections.abc import Iterable


class HTTPHeader(Model):
    """A header field to set or add."""

    name: HeaderName
    value: HeaderValue


class HeaderModifier(Model):
    """Header fields to set, add and remove."""

    set: Annotated[tuple[HTTPHeader, ...], Field(max_length=16)] = ()
    add: Annotated[tuple[HTTPHeader, ...], Field(max_length=16)] = ()
    remove: Annotated[tuple[str, ...], Field(max_length=16)] = ()


class PathModifier(Model):
    """A new path."""

    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    replace_full_path: Annotated[str, StringConstraints(max_length=1024)] | None = None
    replace_prefix_match: Annotated[str, StringConstraints(max_length=1024)] | None = None

    @model_validator(mode="after")
    def _rules(self) -> Self:
        full = self.type == "ReplaceFullPath"
        if full and self.replace_full_path is None:
            raise contradiction(
                "replaceFullPath must be specified when type is set to ReplaceFullPath", "type"
            )
        if not full and self.replace_prefix_match is None:
            raise contradiction(
                "replacePrefixMatch must be specified when type is set to ReplacePrefixMatch",
                "type",
            )
        if full and self.replace_prefix_match is not None:
            raise contradiction(
                "type must be ReplacePrefixMatch when replacePrefixMatch is set", "type"
            )
        if not full and self.replace_full_path is not None:
            raise contradiction("type must be ReplaceFullPath when replaceFullPath is set", "type")
        return self


class RequestRedirect(Model):
    """An answer that sends the client elsewhere."""

    scheme: Literal["http", "https"] | None = None
    hostname: PreciseHostname | None = None
    path: PathModifier | None = None
    port: Port | None = None
    status_code: Literal[301, 302, 303, 307, 308] = 302


class URLRewrite(Model):
    """A new host or path towards the backend."""

    hostname: PreciseHostname | None = None
    path: PathModifier | None = None


class LocalObjectReference(Model):
    """An object of the same namespace."""

    group: Group
    kind: Kind
    name: ObjectName


class RequestMirror(Model):
    """A copy of each request, or of a share of them, to another backend."""

    backend_ref: Any
    percent: Annotated[int, Strict(), Field(ge=0, le=100)] | None = None
    fraction: Any = None

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.percent is not None and self.fraction is not None:
            raise contradiction(
                "Only one of percent or fraction may be specified in HTTPRequestMirrorFilter",
                "fraction",
            )
        return self


#: The field of each filter type.
FIELDS: Final = {
    "RequestHeaderModifier": "request_header_modifier",
    "ResponseHeaderModifier": "response_header_modifier",
    "RequestMirror": "request_mirror",
    "RequestRedirect": "request_redirect",
    "URLRewrite": "url_rewrite",
    "ExtensionRef": "extension_ref",
    "CORS": "cors",
    "ExternalAuth": "external_auth",
}

#: Filters that may stand only once in a list.
UNIQUE: Final = (
    "RequestHeaderModifier",
    "ResponseHeaderModifier",
    "RequestRedirect",
    "URLRewrite",
    "CORS",
    "ExternalAuth",
)


class Filter(Model):
    """One filter: a type and the field of that type."""

    type: Literal[
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestMirror",
        "RequestRedirect",
        "URLRewrite",
        "ExtensionRef",
        "CORS",
        "ExternalAuth",
    ]
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_mirror: RequestMirror | None = None
    request_redirect: RequestRedirect | None = None
    url_rewrite: URLRewrite | None = None
    extension_ref: LocalObjectReference | None = None
    cors: Any = None
    external_auth: Any = None

    @model_validator(mode="after")
    def _rules(self) -> Self:
        for kind, field in FIELDS.items():
            given = getattr(self, field) is not None
            if given == (kind == self.type):
                continue
            name = type(self).model_fields[field].alias
            if given:
                raise contradiction(
                    f"filter.{name} must be nil if the filter.type is not {kind}", str(name)
                )
            raise contradiction(f"filter.{name} must be specified for {kind} filter.type", "type")
        return self


def filter_rules(filters: Iterable[Filter]) -> None:
    """Checks the rules between the filters of one list.

    Raises:
        ValueError: if a filter is repeated, or redirect and rewrite are combined.
    """
    seen: set[str] = set()
    for number, one in enumerate(filters):
        if {*seen, one.type} >= {"RequestRedirect", "URLRewrite"}:
            raise contradiction(
                "May specify either httpRouteFilterRequestRedirect or "
                "httpRouteFilterRequestRewrite, but not both",
                "filters",
                number,
                "type",
            )
        if one.type in seen and one.type in UNIQUE:
            message = f"{one.type} filter cannot be repeated"
            raise contradiction(message, "filters", number, "type")
        seen.add(one.type)
