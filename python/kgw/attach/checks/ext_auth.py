"""Services that decide about requests: extensions that can be used."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from kgw.attach import decision_cache, native
from kgw.attach.checks import header_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgw.api import GatewayExtension
    from kgw.api.kgateway.extension.ext_auth import ExtAuthProvider, HttpAuthService
    from kgw.api.kgateway.traffic.ext_auth import ExtAuthPolicy
    from kgw.attach.checking import Checking
    from kgw.source.memory import FieldPath

#: A path, which has no query.
_PATH: Final = re.compile(r"/[!-\"$->@-~]*")

#: A host, perhaps with a port.
_AUTHORITY: Final = re.compile(r"[A-Za-z0-9.\-_~!$&'()*+,;=%:\[\]]+")


def check(checking: Checking, auth: ExtAuthPolicy, path: FieldPath) -> None:
    """Refuses references to what is no service that decides."""
    ref = auth.extension_ref
    if ref is None:
        return
    path = (*path, "extensionRef")
    state = checking.extension(ref.name, "ext_auth", path, ref.namespace)
    if state is None:
        return
    for problem in problems(state.extension):
        checking.fail("KGW430", f"{state.extension.key}: {problem}", (*path, "name"))
    if auth.with_request_body is not None and _is_cached(state.extension):
        message = f"{state.extension.key} remembers decisions, so it can be told no bodies"
        checking.fail("KGW430", message, (*path[:-1], "withRequestBody"))


def problems(extension: GatewayExtension) -> Iterator[str]:
    """What of an extension the data plane would refuse."""
    provider = extension.spec.ext_auth
    assert provider is not None
    yield from _names(provider.headers_to_forward)
    if provider.http_service is not None:
        yield from _http(provider.http_service)
    elif provider.grpc_service is not None:
        authority = provider.grpc_service.authority
        if authority is not None and not _AUTHORITY.fullmatch(authority):
            yield f"authority {authority!r} is not a host"
    text = extension.metadata.annotations.get(decision_cache.ANNOTATION)
    if text is not None:
        yield from _cache(text, provider)


def _is_cached(extension: GatewayExtension) -> bool:
    return decision_cache.ANNOTATION in extension.metadata.annotations


def _cache(text: str, provider: ExtAuthProvider) -> Iterator[str]:
    try:
        cache = decision_cache.parse(text)
    except ValueError as error:
        yield f"annotation {decision_cache.ANNOTATION}: {error}"
        return
    headers = (key.removeprefix("header:") for key in cache.keys if key.startswith("header:"))
    yield from _names(tuple(headers))
    if provider.with_request_body is not None:
        yield f"annotation {decision_cache.ANNOTATION}: decisions about bodies are not remembered"


def _http(service: HttpAuthService) -> Iterator[str]:
    prefix = service.path_prefix
    if prefix and not _PATH.fullmatch(prefix):
        yield f"pathPrefix {prefix!r} is not a path"
    request = service.authorization_request
    for name, value in request.headers_to_add.items() if request is not None else ():
        problem = header_names.problem(name) or native.operators_error(value)
        if problem is not None:
            yield f"headersToAdd {name}: {problem}"
    answer = service.authorization_response
    if answer is not None:
        yield from _names(answer.headers_to_backend)
        yield from _names(answer.headers_to_client)
        yield from _names(answer.headers_to_client_on_success)


def _names(names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        if not header_names.is_name(name):
            yield f"{name!r} is not a header field name"
