"""Redirects: the status and every part of the new address."""

from __future__ import annotations

from urllib.parse import urlsplit

from tests.conformance import rules
from tests.conformance.infra import Infra, route
from tests.conformance.suite import conformance

#: The request's host is an address, as the suite's client has it.
OWN, ELSEWHERE = "127.0.0.1", "example.org"


def location(
    infra: Infra, path: str, status: int, method: str = "GET"
) -> tuple[str, str | None, int, str]:
    """Scheme, host, port and path of the address that a request is sent to."""
    infra.accepted("same-namespace", "route")
    reply = infra.request("same-namespace", path, method=method, host=OWN)
    assert reply.status == status, (path, reply.status)
    address = reply.header("location")
    assert address is not None
    parts = urlsplit(address)
    default = 443 if parts.scheme == "https" else 80
    return parts.scheme, parts.hostname, parts.port or default, parts.path


@conformance("HTTPRouteRedirectHostAndStatus")
def test_HTTPRouteRedirectHostAndStatus(infra: Infra) -> None:
    infra.apply(
        route(
            rules.text(
                rules.rule("/hostname-redirect", rules.redirect(hostname=ELSEWHERE), to=[]),
                rules.rule(
                    "/host-and-status", rules.redirect(hostname=ELSEWHERE, statusCode=301), to=[]
                ),
            )
        )
    )

    for path, status in (("/hostname-redirect", 302), ("/host-and-status", 301)):
        assert location(infra, path, status) == ("http", ELSEWHERE, 80, path)


@conformance("HTTPRouteRedirectPath")
def test_HTTPRouteRedirectPath(infra: Infra) -> None:
    prefix, full = "/replacement-prefix", "/replacement-full"
    infra.apply(
        route(
            rules.text(
                rules.rule("/original-prefix", rules.redirect(prefix=prefix), to=[]),
                rules.rule("/full", rules.redirect(full="/full-path-replacement"), to=[]),
                rules.rule(
                    "/path-and-host", rules.redirect(hostname=ELSEWHERE, prefix=prefix), to=[]
                ),
                rules.rule(
                    "/path-and-status", rules.redirect(prefix=prefix, statusCode=301), to=[]
                ),
                rules.rule(
                    "/full-path-and-host", rules.redirect(hostname=ELSEWHERE, full=full), to=[]
                ),
                rules.rule(
                    "/full-path-and-status", rules.redirect(full=full, statusCode=301), to=[]
                ),
            )
        )
    )

    for asked, status, host, path in (
        ("/original-prefix/lemon", 302, OWN, f"{prefix}/lemon"),
        ("/full/path/original", 302, OWN, "/full-path-replacement"),
        ("/path-and-host", 302, ELSEWHERE, prefix),
        ("/path-and-status", 301, OWN, prefix),
        ("/full-path-and-host", 302, ELSEWHERE, full),
        ("/full-path-and-status", 301, OWN, full),
    ):
        assert location(infra, asked, status) == ("http", host, 80, path)


@conformance("HTTPRouteRedirectPort")
def test_HTTPRouteRedirectPort(infra: Infra) -> None:
    cases = (
        ("/port", 302, OWN, rules.redirect(port=8083)),
        ("/port-and-host", 302, ELSEWHERE, rules.redirect(port=8083, hostname=ELSEWHERE)),
        ("/port-and-status", 301, OWN, rules.redirect(port=8083, statusCode=301)),
        (
            "/port-and-host-and-status",
            302,
            ELSEWHERE,
            rules.redirect(port=8083, hostname=ELSEWHERE, statusCode=302),
        ),
    )
    infra.apply(route(rules.text(*(rules.rule(path, one, to=[]) for path, _, _, one in cases))))

    for path, status, host, _ in cases:
        assert location(infra, path, status) == ("http", host, 8083, path)


@conformance("HTTPRouteRedirectScheme")
def test_HTTPRouteRedirectScheme(infra: Infra) -> None:
    cases = (
        ("/scheme", 302, OWN, rules.redirect(scheme="https")),
        ("/scheme-and-host", 302, ELSEWHERE, rules.redirect(scheme="https", hostname=ELSEWHERE)),
        ("/scheme-and-status", 301, OWN, rules.redirect(scheme="https", statusCode=301)),
        (
            "/scheme-and-host-and-status",
            302,
            ELSEWHERE,
            rules.redirect(scheme="https", hostname=ELSEWHERE, statusCode=302),
        ),
    )
    infra.apply(route(rules.text(*(rules.rule(path, one, to=[]) for path, _, _, one in cases))))

    for path, status, host, _ in cases:
        assert location(infra, path, status) == ("https", host, 443, path)


def check_status(infra: Infra, path: str, status: int) -> None:
    infra.apply(route(rules.text(rules.rule(path, rules.redirect(statusCode=status), to=[]))))

    for method in ("GET", "POST"):
        found = location(infra, path, status, method)
        assert found == ("http", OWN, 80, path)


@conformance("HTTPRoute303Redirect")
def test_HTTPRoute303Redirect(infra: Infra) -> None:
    check_status(infra, "/see-other", 303)


@conformance("HTTPRoute307Redirect")
def test_HTTPRoute307Redirect(infra: Infra) -> None:
    check_status(infra, "/temporary", 307)


@conformance("HTTPRoute308Redirect")
def test_HTTPRoute308Redirect(infra: Infra) -> None:
    check_status(infra, "/permanent", 308)


@conformance("HTTPRouteBackendRequestRedirect")
def test_HTTPRouteBackendRequestRedirect(infra: Infra) -> None:
    infra.apply(
        route(
            rules.text(
                rules.rule(
                    "/full",
                    to=rules.backend(filters=[rules.redirect(full="/redirected-full")]),
                ),
                rules.rule(
                    "/prefix",
                    to=rules.backend(filters=[rules.redirect(prefix="/redirected-prefix")]),
                ),
            )
        )
    )

    for asked, path in (
        ("/full/original", "/redirected-full"),
        ("/prefix/original", "/redirected-prefix/original"),
    ):
        assert location(infra, asked, 302) == ("http", OWN, 80, path)
    assert not infra.requests["gateway-conformance-infra/infra-backend-v1"]
