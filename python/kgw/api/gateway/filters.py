"""The filters of an HTTPRoute rule or backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from kgw.api.base import Model, Port, contradiction, given
from kgw.api.gateway.backend_object import BackendObjectReference
from kgw.api.gateway.cors import CORS
from kgw.api.gateway.external_auth import ExternalAuth
from kgw.api.gateway.mirror import Fraction, RequestMirror
from kgw.api.names import Group, HeaderName, HeaderValue, Kind, ObjectName, PreciseHostname

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgw.api.gateway.grpc_route import GRPCFilter
    from kgw.api.gateway.references import Backend


class HTTPHeader(Model):
    """A header field to set or add."""

    name: HeaderName
    """The name, in any case."""
    value: HeaderValue
    """The value."""


class HeaderModifier(Model):
    """Header fields to set, add and remove."""

    set: Annotated[tuple[HTTPHeader, ...], Field(max_length=16)] = ()
    """Fields that take the place of those of the same name."""
    add: Annotated[tuple[HTTPHeader, ...], Field(max_length=16)] = ()
    """Fields that stand beside those of the same name."""
    remove: Annotated[tuple[str, ...], Field(max_length=16)] = ()
    """Names of fields to take out."""

    @classmethod
    def of(
        cls,
        set: Mapping[str, str] | None = None,
        add: Mapping[str, str] | None = None,
        remove: Iterable[str] = (),
    ) -> Self:
        """Makes edits of header fields: values to set and add by name, and names to remove."""
        return cls(
            **given(
                set=tuple(HTTPHeader(name=name, value=text) for name, text in (set or {}).items()),
                add=tuple(HTTPHeader(name=name, value=text) for name, text in (add or {}).items()),
                remove=tuple(remove),
            )
        )


class PathModifier(Model):
    """A new path."""

    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    """Whether the whole path is replaced, or the prefix that matched."""
    replace_full_path: Annotated[str, StringConstraints(max_length=1024)] | None = None
    """The new path."""
    replace_prefix_match: Annotated[str, StringConstraints(max_length=1024)] | None = None
    """What takes the place of the prefix that matched."""

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
    """The scheme of the new address; by default the same."""
    hostname: PreciseHostname | None = None
    """The host of the new address; by default the same."""
    path: PathModifier | None = None
    """The path of the new address; by default the same."""
    port: Port | None = None
    """The port of the new address; by default that of the scheme, or of the listener."""
    status_code: Literal[301, 302, 303, 307, 308] = 302
    """The status code of the answer."""


class URLRewrite(Model):
    """A new host or path towards the backend."""

    hostname: PreciseHostname | None = None
    """The host that the backend is asked for."""
    path: PathModifier | None = None
    """The path that the backend is asked for."""


class LocalObjectReference(Model):
    """An object of the same namespace."""

    group: Group
    """The API group of the object."""
    kind: Kind
    """The kind of the object."""
    name: ObjectName
    """The name of the object."""


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
    """What the filter does; the field of that name says how."""
    request_header_modifier: HeaderModifier | None = None
    """Edits of the header of requests."""
    response_header_modifier: HeaderModifier | None = None
    """Edits of the header of responses."""
    request_mirror: RequestMirror | None = None
    """A copy of requests to another backend."""
    request_redirect: RequestRedirect | None = None
    """An answer that sends the client elsewhere."""
    url_rewrite: URLRewrite | None = None
    """A new host or path towards the backend."""
    extension_ref: LocalObjectReference | None = None
    """A filter by its name; ``kgw.dev`` PythonFilter is one of ``kgw.Proxy.filter``."""
    cors: CORS | None = None
    """Which pages of other origins may use the route."""
    external_auth: ExternalAuth | None = None
    """A service that decides about requests."""

    @classmethod
    def request_headers(
        cls,
        set: Mapping[str, str] | None = None,
        add: Mapping[str, str] | None = None,
        remove: Iterable[str] = (),
    ) -> Self:
        """Edits the header of requests."""
        edits = HeaderModifier.of(set, add, remove)
        return cls(type="RequestHeaderModifier", request_header_modifier=edits)

    @classmethod
    def response_headers(
        cls,
        set: Mapping[str, str] | None = None,
        add: Mapping[str, str] | None = None,
        remove: Iterable[str] = (),
    ) -> Self:
        """Edits the header of responses."""
        edits = HeaderModifier.of(set, add, remove)
        return cls(type="ResponseHeaderModifier", response_header_modifier=edits)

    @classmethod
    def redirect(
        cls,
        *,
        scheme: Literal["http", "https"] | None = None,
        hostname: str | None = None,
        port: int | None = None,
        path: str | None = None,
        prefix: str | None = None,
        status: Literal[301, 302, 303, 307, 308] | None = None,
    ) -> Self:
        """Sends the client elsewhere; *path* is a new path, *prefix* a new one for the match's."""
        fields = given(
            scheme=scheme,
            hostname=hostname,
            port=port,
            path=_path(path, prefix),
            status_code=status,
        )
        return cls(type="RequestRedirect", request_redirect=RequestRedirect(**fields))

    @classmethod
    def rewrite(
        cls, *, hostname: str | None = None, path: str | None = None, prefix: str | None = None
    ) -> Self:
        """Changes host or path for the backend; *prefix* is a new one for the match's."""
        fields = given(hostname=hostname, path=_path(path, prefix))
        return cls(type="URLRewrite", url_rewrite=URLRewrite(**fields))

    @classmethod
    def mirror(
        cls,
        target: Backend,
        *,
        percent: int | None = None,
        fraction: tuple[int, int] | None = None,
    ) -> Self:
        """Copies requests, or a share of them, to another backend.

        Args:
            target: a Service with one port, ``name:port``, or a reference.
            percent: the share of the requests, in percent.
            fraction: the share of the requests, as numerator and denominator.
        """
        share = given(
            percent=percent,
            fraction=fraction and Fraction(numerator=fraction[0], denominator=fraction[1]),
        )
        mirror = RequestMirror(backend_ref=_backend(target), **share)
        return cls(type="RequestMirror", request_mirror=mirror)

    @classmethod
    def cross_origin(
        cls,
        *origins: str,
        credentials: bool | None = None,
        methods: Iterable[str] = (),
        headers: Iterable[str] = (),
        expose: Iterable[str] = (),
        max_age: int | None = None,
    ) -> Self:
        """Lets pages of other origins use the route; ``*`` stands for all."""
        cors = CORS.of(
            *origins,
            credentials=credentials,
            methods=methods,
            headers=headers,
            expose=expose,
            max_age=max_age,
        )
        return cls(type="CORS", cors=cors)

    @classmethod
    def external(
        cls,
        protocol: Literal["HTTP", "GRPC"],
        target: Backend,
        *,
        path: str | None = None,
        headers: Iterable[str] = (),
        answer_headers: Iterable[str] = (),
        max_body: int | None = None,
    ) -> Self:
        """Asks a service whether requests may pass.

        Args:
            protocol: whether it is asked over HTTP, or called over gRPC.
            target: a Service with one port, ``name:port``, or a reference.
            path: what is put in front of the path of requests, over HTTP.
            headers: the header fields that the service is told; see `ExternalAuth`.
            answer_headers: the header fields of its answers that requests get, over HTTP.
            max_body: the longest body that it is told, in bytes; by default none is.
        """
        auth = ExternalAuth.of(
            protocol,
            _backend(target),
            path=path,
            allowed_headers=tuple(headers),
            allowed_response_headers=tuple(answer_headers),
            max_body=max_body,
        )
        return cls(type="ExternalAuth", external_auth=auth)

    @classmethod
    def python(cls, name: str) -> Self:
        """Calls the filter that `kgw.Proxy.filter` registered under a name."""
        reference = LocalObjectReference(group="kgw.dev", kind="PythonFilter", name=name)
        return cls(type="ExtensionRef", extension_ref=reference)

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


def _backend(target: Backend) -> BackendObjectReference:
    """A reference without a weight."""
    from kgw.api.gateway.references import BackendRef  # it imports filters

    ref = target if isinstance(target, BackendObjectReference) else BackendRef.of(target)
    fields = ref.model_dump(exclude_unset=True, include=set(BackendObjectReference.model_fields))
    return BackendObjectReference(**fields)


def _path(path: str | None, prefix: str | None) -> PathModifier | None:
    if path is not None and prefix is not None:
        raise ValueError("a path is replaced as a whole or in its prefix, not both")
    if path is not None:
        return PathModifier(type="ReplaceFullPath", replace_full_path=path)
    if prefix is not None:
        return PathModifier(type="ReplacePrefixMatch", replace_prefix_match=prefix)
    return None


def filter_rules(filters: Iterable[Filter | GRPCFilter]) -> None:
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
