"""The constrained strings of Kubernetes and the Gateway API, with what is legal in words."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Final

from pydantic import AfterValidator, StringConstraints

_LABEL: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*"
_TOKEN: Final = r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+"

_NAME: Final = rf"^{_SUBDOMAIN}$"
_NAMESPACE: Final = rf"^{_LABEL}$"
_GROUP: Final = rf"^$|^{_SUBDOMAIN}$"
_KIND: Final = r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"
_HOSTNAME: Final = rf"^(\*\.)?{_SUBDOMAIN}$"
_HEADER_NAME: Final = rf"^{_TOKEN}$"
_HEADER_VALUE: Final = r"^[!-~]+([\t ]?[!-~]+)*$"
_PROTOCOL: Final = rf"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$|^{_SUBDOMAIN}/[A-Za-z0-9]+$"
_CONTROLLER: Final = rf"^{_SUBDOMAIN}/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+$"
_QUALIFIED: Final = rf"^({_SUBDOMAIN}/)?([A-Za-z0-9][-A-Za-z0-9_.]{{0,61}})?[A-Za-z0-9]$"
_LABEL_VALUE: Final = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"

#: What a pattern means, for people.
LEGAL: Final[dict[str, str]] = {
    _NAME: "lower-case letters, digits, '-' and '.', starting and ending with a letter or digit",
    _NAMESPACE: "lower-case letters, digits and '-', starting and ending with a letter or digit",
    _GROUP: 'a DNS name such as gateway.networking.k8s.io, or "" for the core group',
    _KIND: "letters, digits and '-', starting with a letter",
    _HOSTNAME: "a DNS name in lower case, which may start with '*.'",
    _HEADER_NAME: "letters, digits and any of !#$%&'*+-.^_`|~",
    _HEADER_VALUE: "visible ASCII, words separated by one space or tab",
    _PROTOCOL: "HTTP, HTTPS, TLS, TCP, UDP or a domain-prefixed name such as istio.io/PROXY",
    _CONTROLLER: "a domain-prefixed path such as kgateway.dev/kgateway",
    _QUALIFIED: "up to 63 letters, digits, '-', '_' and '.', perhaps behind a DNS name and '/'",
    _LABEL_VALUE: "letters, digits, '-', '_' and '.', starting and ending with a letter or digit",
}


def _not_an_address(value: str) -> str:
    """Hostnames of the Gateway API may not be IP addresses."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return value
    raise ValueError("a hostname must not be an IP address")


#: Header fields that say how a message is framed, or where it goes: the proxy's own, in the engine.
RESERVED_FIELDS: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

Name = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=_NAME)]
ObjectName = Annotated[str, StringConstraints(min_length=1, max_length=253)]
NamespaceName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=_NAMESPACE)]
SectionName = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=_NAME)]
Group = Annotated[str, StringConstraints(max_length=253, pattern=_GROUP)]
Kind = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=_KIND)]
Hostname = Annotated[
    str,
    StringConstraints(min_length=1, max_length=253, pattern=_HOSTNAME),
    AfterValidator(_not_an_address),
]
PreciseHostname = Annotated[
    str,
    StringConstraints(min_length=1, max_length=253, pattern=_NAME),
    AfterValidator(_not_an_address),
]
HeaderName = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=_HEADER_NAME)]
HeaderValue = Annotated[
    str, StringConstraints(min_length=1, max_length=4096, pattern=_HEADER_VALUE)
]
Protocol = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=_PROTOCOL)]
ControllerName = Annotated[
    str, StringConstraints(min_length=1, max_length=253, pattern=_CONTROLLER)
]
QualifiedName = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=_QUALIFIED)]
LabelValue = Annotated[str, StringConstraints(max_length=63, pattern=_LABEL_VALUE)]
AnnotationValue = Annotated[str, StringConstraints(max_length=4096)]
Labels = dict[str, str]
