"""Session persistence: requests of one client go to one backend (GEP-1619).

Version 1.6 of the Gateway API names the fields of the token otherwise (``sessionName``,
``cookieConfig``) than later ones (``cookie``, ``header``). Both are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import StringConstraints, model_validator

from kgw.api.base import Model, contradiction, given
from kgw.api.duration import Duration
from kgw.api.names import RESERVED_FIELDS, HeaderName
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from datetime import timedelta


class CookieConfig(Model):
    """The cookie that a session's token is in."""

    # Names of cookies and of header fields are made of the same characters (RFC 6265).
    name: HeaderName | None = None
    """The name of the cookie; by default one that no other rule has."""
    path: Annotated[str, StringConstraints(max_length=1024)] = "/"
    """The paths that clients send the cookie with."""
    lifetime_type: Literal["Permanent", "Session"] = "Session"
    """Whether the cookie lasts for `absoluteTimeout`, or until the client's own session ends."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        # What follows a semicolon would be another attribute.
        if not all(" " <= one <= "~" and one != ";" for one in self.path):
            raise contradiction("path must be of visible characters other than ';'", "path")
        return self


class HeaderConfig(Model):
    """The header field that a session's token is in."""

    name: HeaderName
    """The name of the field, of answers and of the requests that are to be of the session."""


class SessionPersistence(Model):
    """Requests of one client go to one backend, which a token names that the client sends."""

    # Gone since version 1.6 of the Gateway API.
    unsupported: ClassVar[Mapping[str, Severity]] = {"idleTimeout": Severity.WARNING}

    type: Literal["Cookie", "Header"] = "Cookie"
    """Where the token is."""
    absolute_timeout: Duration | None = None
    """The time from a session's beginning to its end; ``0s`` is no end."""
    cookie: CookieConfig | None = None
    """The cookie, for ``Cookie``."""
    header: HeaderConfig | None = None
    """The header field, for ``Header``."""
    session_name: Annotated[str, StringConstraints(max_length=128)] | None = None
    """The name of the cookie or field, as version 1.6 of the Gateway API has it."""
    cookie_config: CookieConfig | None = None
    """The cookie, as version 1.6 of the Gateway API has it."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.type != "Cookie":
            if self.cookie:
                raise contradiction("cookie must be nil if type is not Cookie", "cookie")
            if self.cookie_config:
                text = "cookieConfig can only be set with type Cookie"
                raise contradiction(text, "cookieConfig")
        if self.type != "Header" and self.header:
            raise contradiction("header must be nil if type is not Header", "header")
        if self.cookie and self.cookie_config:
            text = "cookie is another name of cookieConfig: give one of them"
            raise contradiction(text, "cookieConfig")
        if self.is_permanent and not self.absolute_timeout:
            raise contradiction(
                "AbsoluteTimeout must be specified when cookie lifetimeType is Permanent",
                "absoluteTimeout",
            )
        if self.session_name and not _is_token(self.session_name):
            raise contradiction("sessionName must be a name that a cookie can have", "sessionName")
        if self.type == "Header" and self.name and self.name.lower() in RESERVED_FIELDS:
            where = ("header", "name") if self.header else ("sessionName",)
            raise contradiction(f"header `{self.name}` has a meaning of its own", *where)
        return self

    @classmethod
    def of_cookie(
        cls,
        name: str | None = None,
        *,
        path: str | None = None,
        lasting: str | timedelta | None = None,
    ) -> Self:
        """Makes sessions whose token is in a cookie.

        Args:
            name: the name of the cookie; by default one that no other rule has.
            path: the paths that clients send it with; by default all.
            lasting: how long the cookie is kept, also when the client's own session has ended.
        """
        kind = None if lasting is None else "Permanent"
        timeout = None if lasting is None else Duration(lasting)
        cookie = CookieConfig(**given(name=name, path=path, lifetime_type=kind))
        return cls(cookie=cookie, **given(absolute_timeout=timeout))

    @classmethod
    def of_header(cls, name: str, *, timeout: str | timedelta | None = None) -> Self:
        """Makes sessions whose token is in a header field.

        Args:
            name: the name of the field.
            timeout: the time from a session's beginning to its end.
        """
        limit = None if timeout is None else Duration(timeout)
        header = HeaderConfig(name=name)
        return cls(type="Header", header=header, **given(absolute_timeout=limit))

    @property
    def name(self) -> str | None:
        """The name of the cookie or field, if one is given."""
        own = self.header if self.type == "Header" else self.cookie
        return (own.name if own is not None else None) or self.session_name or None

    @property
    def path(self) -> str:
        """The paths that clients send the cookie with."""
        cookie = self.cookie or self.cookie_config
        return (cookie.path if cookie is not None else "") or "/"

    @property
    def is_permanent(self) -> bool:
        """Whether the token is in a cookie that outlasts the client's own session."""
        cookie = self.cookie or self.cookie_config
        return cookie is not None and cookie.lifetime_type == "Permanent"


def _is_token(name: str) -> bool:
    """Whether a name is a token (RFC 9110 5.6.2)."""
    return all(one.isascii() and (one.isalnum() or one in "!#$%&'*+-.^_`|~") for one in name)
