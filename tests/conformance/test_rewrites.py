"""Rewrites of hosts and paths."""

from __future__ import annotations

from tests.conformance import rules
from tests.conformance.infra import Infra, route
from tests.conformance.suite import conformance

CHANGES = rules.request_headers(
    set={"X-Header-Set": "set-overwrites-values"},
    add={"X-Header-Add": "header-val-1", "X-Header-Add-Append": "header-val-2"},
    remove=["X-Header-Remove"],
)

SENT = {
    "X-Header-Remove": "remove-val",
    "X-Header-Add-Append": "append-val-1",
    "X-Header-Set": "set-val",
}

RECEIVED = {
    "x-header-set": "set-overwrites-values",
    "x-header-add": "header-val-1",
    "x-header-add-append": "append-val-1,header-val-2",
    "x-header-remove": None,
}


@conformance("HTTPRouteRewriteHost")
def test_HTTPRouteRewriteHost(infra: Infra) -> None:
    v2 = rules.backend("infra-backend-v2")
    text = rules.text(
        rules.rule("/one", rules.rewrite(hostname="one.example.org")),
        rules.rule(None, rules.rewrite(hostname="example.org"), to=v2),
        rules.rule(
            "/rewrite-host-and-modify-headers",
            rules.rewrite(hostname="test.example.org"),
            CHANGES,
            to=v2,
        ),
    )
    infra.apply(route(text, hostnames=["rewrite.example"]))
    infra.accepted("same-namespace", "route")

    for path, backend, host in (
        ("/one", "infra-backend-v1", "one.example.org"),
        ("/two", "infra-backend-v2", "example.org"),
        ("/rewrite-host-and-modify-headers", "infra-backend-v2", "test.example.org"),
    ):
        reply = infra.request("same-namespace", path, host="rewrite.example", headers=SENT)
        assert (reply.backend, reply.seen["host"], reply.seen["path"]) == (backend, host, path)
    assert {name: reply.received(name) for name in RECEIVED} == RECEIVED


@conformance("HTTPRouteRewritePath")
def test_HTTPRouteRewritePath(infra: Infra) -> None:
    infra.apply(
        route(
            rules.text(
                rules.rule("/prefix/one", rules.rewrite(prefix="/one")),
                rules.rule("/strip-prefix", rules.rewrite(prefix="/")),
                rules.rule("/full/one", rules.rewrite(full="/one")),
                rules.rule(
                    "/full/rewrite-path-and-modify-headers", rules.rewrite(full="/test"), CHANGES
                ),
                rules.rule(
                    "/prefix/rewrite-path-and-modify-headers",
                    rules.rewrite(prefix="/prefix"),
                    CHANGES,
                ),
            )
        )
    )

    infra.accepted("same-namespace", "route")
    for asked, path in (
        ("/prefix/one/two", "/one/two"),
        ("/prefix/one/two?a=/prefix/one", "/one/two?a=/prefix/one"),
        ("/strip-prefix/three", "/three"),
        ("/strip-prefix", "/"),
        ("/full/one/two", "/one"),
        ("/full/one/two?a=b", "/one?a=b"),
    ):
        reply = infra.request("same-namespace", asked)
        assert (reply.backend, reply.seen["path"]) == ("infra-backend-v1", path)
    for asked, path in (
        ("/full/rewrite-path-and-modify-headers/test", "/test"),
        ("/prefix/rewrite-path-and-modify-headers/one", "/prefix/one"),
    ):
        reply = infra.request("same-namespace", asked, headers=SENT)
        assert (reply.backend, reply.seen["path"]) == ("infra-backend-v1", path)
        assert {name: reply.received(name) for name in RECEIVED} == RECEIVED


@conformance("HTTPRouteBackendURLRewrite")
def test_HTTPRouteBackendURLRewrite(infra: Infra) -> None:
    infra.apply(
        route(
            rules.text(
                rules.rule(
                    "/full", to=rules.backend(filters=[rules.rewrite(full="/rewritten-full")])
                ),
                rules.rule(
                    "/prefix", to=rules.backend(filters=[rules.rewrite(prefix="/rewritten-prefix")])
                ),
            )
        )
    )

    infra.accepted("same-namespace", "route")
    for asked, path in (
        ("/full/original", "/rewritten-full"),
        ("/prefix/original", "/rewritten-prefix/original"),
    ):
        reply = infra.request("same-namespace", asked)
        assert (reply.backend, reply.seen["path"]) == ("infra-backend-v1", path)
