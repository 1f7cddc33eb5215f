"""What is asked: a request, and how it gets to the proxy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgw.addresses import Address
    from kgw.proxyproto import MeshIdentity

__all__ = ["Question"]

_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_VISIBLE = re.compile(r"[!-~]+")
_VALUE = re.compile(r"[ -~\t\x80-\U0010ffff]*")

_GRPC = (("content-type", "application/grpc"), ("te", "trailers"))


@dataclass(frozen=True, slots=True)
class Question:
    """A request, and how it gets to the proxy."""

    method: str
    """The method."""
    scheme: str
    """``http`` or ``https``."""
    host: str
    """The host that is dialled, in lower case and without brackets."""
    port: int
    """The port that is dialled."""
    authority: str
    """The ``Host`` field."""
    target: str
    """The request target: path and query."""
    headers: tuple[tuple[str, str], ...] = ()
    """The other header fields, in their order."""
    server_name: str | None = None
    """The server name that a client asks for in TLS; none for ``http``, and for an IP address."""
    gateway: str | None = None
    """``[namespace/]name`` of the Gateway that is dialled, if it is told."""
    listener: str | None = None
    """``namespace/gateway/listener``, or its end, if it is told."""
    to: str | None = None
    """The service of the mesh that is called, ``[namespace/]name[:port]`` or ``VIP:port``, if it is
    another than the URL's."""
    identity: MeshIdentity | None = None
    """Who calls, as the mesh says it to a waypoint."""
    source: Address | None = None
    """Where from."""

    @classmethod
    def of(
        cls,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        sni: str | None = None,
        gateway: str | None = None,
        listener: str | None = None,
        to: str | None = None,
        identity: MeshIdentity | None = None,
        source: Address | None = None,
        grpc: bool = False,
    ) -> Question:
        """Makes a question of a URL.

        Args:
            method: the method.
            url: ``http://HOST[:PORT]/PATH`` or ``https://…``.
            headers: the header fields; one called ``Host`` takes the place of the URL's host.
            sni: the server name, if it is another than the URL's host.
            gateway: see the attribute, as for what follows.
            listener: see the attribute.
            to: see the attribute.
            identity: see the attribute.
            source: see the attribute.
            grpc: adds the fields that every gRPC call has.

        Raises:
            ValueError: no client would send this; the message says why.
        """
        if not _TOKEN.fullmatch(method):
            raise ValueError(f"{method!r} is not a method")
        if method == "CONNECT":
            raise ValueError("a CONNECT request has no path, so there is nothing to explain")
        if not _VISIBLE.fullmatch(url):
            encoded = quote(url, safe=_AS_IT_IS, errors="surrogateescape")
            raise ValueError(f"{url!r} has to be percent-encoded, perhaps as {encoded!r}")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"{url!r}: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not a URL: write http://HOST/PATH or https://HOST/PATH")
        target = parts.path or "/"
        if parts.query:
            target += f"?{parts.query}"
        authority = parts.netloc.rpartition("@")[2]
        fields = []
        for name, value in headers.items() if hasattr(headers, "items") else headers:
            if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
                raise ValueError(f"{name!r}: {value!r} is not a header field")
            if name.lower() == "host":
                authority = value
            else:
                fields.append((name, value))
        if grpc:
            known = {name.lower() for name, _ in fields}
            fields += [(name, value) for name, value in _GRPC if name not in known]
        name = sni
        if parts.scheme == "https" and name is None and not _is_address(parts.hostname):
            name = parts.hostname
        if sni is not None and parts.scheme != "https":
            raise ValueError("a server name is asked for in TLS: the URL has to be https://…")
        return cls(
            method=method,
            scheme=parts.scheme,
            host=parts.hostname,
            port=port if port is not None else 443 if parts.scheme == "https" else 80,
            authority=authority,
            target=target,
            headers=tuple(fields),
            server_name=None if name is None else name.lower().rstrip("."),
            gateway=gateway,
            listener=listener,
            to=to,
            identity=identity,
            source=source,
        )

    @property
    def secure(self) -> bool:
        """Whether the client speaks TLS."""
        return self.scheme == "https"

    @property
    def url(self) -> str:
        """The URL, for people: that of the request, not of what is dialled."""
        return f"{self.scheme}://{self.authority}{self.target}"

    @property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """All header fields that are sent."""
        return (("Host", self.authority), *self.headers)


_AS_IT_IS = "!#$%&'()*+,-./:;=?@[]_~"


def _is_address(host: str) -> bool:
    import ipaddress

    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
