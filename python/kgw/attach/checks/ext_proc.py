"""Services that process messages: extensions that can be used."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgw.api.kgateway.extension.ext_proc import ExtProcProvider
    from kgw.api.kgateway.traffic.ext_proc import ExtProcPolicy
    from kgw.attach.checking import Checking
    from kgw.source.memory import FieldPath

#: A host, perhaps with a port.
_AUTHORITY: Final = re.compile(r"[A-Za-z0-9.\-_~!$&'()*+,;=%:\[\]]+")

#: An attribute: words with dots between them, or a header field.
_ATTRIBUTE: Final = re.compile(
    r"(request|response|source|destination|connection|upstream|xds|metadata|filter_state)"
    r"(\.[A-Za-z0-9_]+)*"
    r"|request\.headers\[(['\"])[A-Za-z0-9!#$%&*+\-.^_`|~]+\3\]"
)


def check(checking: Checking, processing: ExtProcPolicy, path: FieldPath) -> None:
    """Refuses references to what is no service that processes messages."""
    ref = processing.extension_ref
    if ref is None:
        return
    path = (*path, "extensionRef")
    state = checking.extension(ref.name, "ext_proc", path, ref.namespace)
    if state is None:
        return
    provider = state.extension.spec.ext_proc
    assert provider is not None  # it is of this kind
    for problem in _problems(provider):
        checking.fail("KGW430", f"{state.extension.key}: {problem}", (*path, "name"))
    options = provider.metadata_options
    if options is not None and options.forwarding is not None and options.forwarding.typed:
        message = f"{state.extension.key}: there is no typed metadata, so none is forwarded"
        checking.warn("KGW413", message, (*path, "name"))
    if provider.stat_prefix is not None:
        message = f"{state.extension.key}: statPrefix has no effect, counters are of all services"
        checking.warn("KGW413", message, (*path, "name"))


def _problems(provider: ExtProcProvider) -> Iterator[str]:
    """What of an extension the data plane would refuse."""
    authority = provider.grpc_service.authority
    if authority is not None and not _AUTHORITY.fullmatch(authority):
        yield f"authority {authority!r} is not a host"
    for name in provider.request_attributes:
        if not _ATTRIBUTE.fullmatch(name):
            yield f"{name!r} is not an attribute of a request"
