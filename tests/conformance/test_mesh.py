"""Routes of Services in the mesh (GAMMA)."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from tests.conformance.calls import call
from tests.conformance.infra import CONSUMER, MESH, conditions, route
from tests.conformance.mesh import Mesh, location
from tests.conformance.shares import expect_shares
from tests.conformance.suite import conformance

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import grpc
    from tests.conformance.infra import Infra


@pytest.fixture
def mesh(infra: Infra) -> Iterator[Mesh]:
    """The cluster with the suite's mesh in it."""
    with Mesh(infra) as mesh:
        yield mesh


def to(version: int, port: int = 8080) -> str:
    return f"backendRefs: [{{name: echo-v{version}, port: {port}}}]"


def parent(service: str = "echo", port: int | None = 80, namespace: str = "") -> str:
    more = (f", port: {port}" if port else "") + (f", namespace: {namespace}" if namespace else "")
    return f'{{group: "", kind: Service, name: {service}{more}}}'


def serve(mesh: Mesh, rules: str, *, kind: str = "HTTPRoute", port: int | None = 80) -> None:
    """Attaches a route to the service, which accepts it."""
    mesh.infra.apply(route(rules, parent(port=port), namespace=MESH, kind=kind))
    found = conditions(mesh.infra.parent(kind, "route", MESH, name="echo"))
    assert found["Accepted"] == ("True", "Accepted")


PREFIX = "matches: [{path: {type: PathPrefix, value: %s}}]"


@conformance("MeshBasic")
def test_MeshBasic(mesh: Mesh) -> None:
    mesh.infra.apply()
    assert mesh.client().request().status == 200


@conformance("MeshHTTPRouteSimpleSameNamespace")
def test_MeshHTTPRouteSimpleSameNamespace(mesh: Mesh) -> None:
    serve(mesh, f"- {to(1)}")
    reply = mesh.client().request()
    assert (reply.backend, reply.seen["namespace"]) == ("echo-v1", MESH)


@conformance("MeshTrafficSplit")
def test_MeshTrafficSplit(mesh: Mesh) -> None:
    exact = "matches: [{path: {type: Exact, value: /v%d}}]"
    serve(mesh, "\n".join(f"- {{{exact % one}, {to(one, 80)}}}" for one in (1, 2)), port=None)
    client = mesh.client()
    assert [client.request(path).outcome for path in ("/v1", "/v2")] == ["echo-v1", "echo-v2"]
    # A service that has a route answers nothing else.
    assert client.request("/v3").status == 404


@conformance("MeshHTTPRouteMatching")
def test_MeshHTTPRouteMatching(mesh: Mesh) -> None:
    def rule(path: str, version: str, number: int) -> str:
        by_path = f"{{path: {{type: PathPrefix, value: {path}}}}}"
        by_header = f"{{headers: [{{name: version, value: {version}}}]}}"
        return f"- {{matches: [{by_path}, {by_header}], {to(number)}}}"

    serve(mesh, "\n".join([rule("/", "one", 1), rule("/v2", "two", 2)]))
    client = mesh.client()
    for path, headers, outcome in [
        ("/", {}, "echo-v1"),
        ("/example", {}, "echo-v1"),
        ("/", {"Version": "one"}, "echo-v1"),
        ("/v2", {}, "echo-v2"),
        ("/v2/example", {}, "echo-v2"),
        ("/", {"Version": "two"}, "echo-v2"),
        ("/v2/", {}, "echo-v2"),
        # A prefix is of whole segments.
        ("/v2example", {}, "echo-v1"),
        ("/foo/v2/example", {}, "echo-v1"),
    ]:
        reply = client.request(path, headers=headers)
        assert reply.outcome == outcome, (path, headers)
        reply.passed(path, "echo")


@conformance("MeshHTTPRouteQueryParamMatching")
def test_MeshHTTPRouteQueryParamMatching(mesh: Mesh) -> None:
    def match(animal: str | None, path: str | None = None, version: str | None = None) -> str:
        parts = []
        if path:
            parts.append(f"path: {{type: PathPrefix, value: {path}}}")
        if version:
            parts.append(f"headers: [{{name: version, value: {version}}}]")
        if animal:
            parts.append(f"queryParams: [{{name: animal, value: {animal}}}]")
        return f"{{{', '.join(parts)}}}"

    rules = [
        ([match("whale")], 1),
        ([match("dolphin")], 2),
        ([match("whale", "/path1")], 1),
        ([match("whale", None, "one")], 2),
        ([match("shark", "/path3"), match("kraken", "/path4", "three")], 1),
        ([match(None, "/path5")], 1),
        ([match("hydra")], 2),
    ]
    serve(mesh, "\n".join(f"- {{matches: [{', '.join(each)}], {to(one)}}}" for each, one in rules))
    client = mesh.client()
    for path, version, outcome in [
        ("/?animal=whale", None, "echo-v1"),
        ("/?animal=dolphin", None, "echo-v2"),
        ("/?animal=whale&otherparam=irrelevant", None, "echo-v1"),
        ("/?animal=dolphin&color=yellow", None, "echo-v2"),
        ("/?color=blue", None, 404),
        ("/?animal=dog", None, 404),
        ("/?animal=whaledolphin", None, 404),
        ("/", None, 404),
        ("/path1?animal=whale", None, "echo-v1"),
        ("/?animal=whale", "one", "echo-v2"),
        ("/path3?animal=shark", None, "echo-v1"),
        ("/path4?animal=kraken", "three", "echo-v1"),
        ("/?animal=shark", None, 404),
        ("/path4?animal=kraken", None, 404),
        # The longer path goes before the parameter.
        ("/path5?animal=hydra", None, "echo-v1"),
    ]:
        headers = {"version": version} if version else {}
        reply = client.request(path, headers=headers)
        assert reply.outcome == outcome, (path, version)
        reply.passed(path, "echo")


@conformance("MeshHTTPRouteWeight")
def test_MeshHTTPRouteWeight(mesh: Mesh) -> None:
    refs = "{name: echo-v1, port: 8080, weight: 70}, {name: echo-v2, port: 8080, weight: 30}"
    serve(mesh, f"- backendRefs: [{refs}]")
    expect_shares(mesh.client().shares, {"echo-v1": 0.7, "echo-v2": 0.3})


@conformance("MeshHTTPRouteNamedRule")
def test_MeshHTTPRouteNamedRule(mesh: Mesh) -> None:
    named, unnamed = PREFIX % "/named", PREFIX % "/unnamed"
    serve(mesh, f"- {{name: named-rule, {named}, {to(1)}}}\n- {{{unnamed}, {to(2)}}}")
    client = mesh.client()
    assert client.request("/named").outcome == "echo-v1"
    assert client.request("/unnamed").outcome == "echo-v2"


# === Filters ===


def edits(
    set: Mapping[str, str] | None = None,
    add: Mapping[str, str] | None = None,
    remove: tuple[str, ...] = (),
) -> str:
    """A header modifier as a manifest has it."""

    def pairs(given: Mapping[str, str] | None) -> list[dict[str, str]]:
        return [{"name": name, "value": value} for name, value in (given or {}).items()]

    return json.dumps({"set": pairs(set), "add": pairs(add), "remove": list(remove)})


def numbered(what: str, count: int) -> dict[str, str]:
    return {f"X-Header-{what}-{one}": f"header-{what.lower()}-{one}" for one in range(1, count + 1)}


_MODIFIERS = {
    "/set": edits({"X-Header-Set": "set-overwrites-values"}),
    "/add": edits(add={"X-Header-Add": "add-appends-values"}),
    "/remove": edits(remove=("X-Header-Remove",)),
    "/multiple": edits(
        numbered("Set", 2), numbered("Add", 3), ("X-Header-Remove-1", "X-Header-Remove-2")
    ),
    "/case-insensitivity": edits(
        {"X-Header-Set": "header-set"}, {"X-Header-Add": "header-add"}, ("X-Header-Remove",)
    ),
}

_MODIFIED: list[tuple[str, dict[str, str], dict[str, str | None]]] = [
    (
        "/set",
        {"Some-Other-Header": "val"},
        {"Some-Other-Header": "val", "X-Header-Set": "set-overwrites-values"},
    ),
    (
        "/set",
        {"Some-Other-Header": "val", "X-Header-Set": "some-other-value"},
        {"Some-Other-Header": "val", "X-Header-Set": "set-overwrites-values"},
    ),
    (
        "/add",
        {"Some-Other-Header": "val"},
        {"Some-Other-Header": "val", "X-Header-Add": "add-appends-values"},
    ),
    (
        "/add",
        {"X-Header-Add": "some-other-value"},
        {"X-Header-Add": "some-other-value,add-appends-values"},
    ),
    ("/remove", {"X-Header-Remove": "val"}, {"X-Header-Remove": None}),
    (
        "/multiple",
        {
            "X-Header-Set-2": "set-val-2",
            "X-Header-Add-2": "add-val-2",
            "X-Header-Remove-2": "remove-val-2",
            "Another-Header": "another-header-val",
        },
        {
            "X-Header-Set-1": "header-set-1",
            "X-Header-Set-2": "header-set-2",
            "X-Header-Add-1": "header-add-1",
            "X-Header-Add-2": "add-val-2,header-add-2",
            "X-Header-Add-3": "header-add-3",
            "Another-Header": "another-header-val",
            "X-Header-Remove-1": None,
            "X-Header-Remove-2": None,
        },
    ),
    (
        "/case-insensitivity",
        {
            "x-header-set": "original-val-set",
            "x-header-add": "original-val-add",
            "x-header-remove": "original-val-remove",
            "Another-Header": "another-header-val",
        },
        {
            "X-Header-Set": "header-set",
            "X-Header-Add": "original-val-add,header-add",
            "Another-Header": "another-header-val",
            "X-Header-Remove": None,
        },
    ),
]


def expect_modified(mesh: Mesh) -> None:
    client = mesh.client()
    for path, given, expected in _MODIFIED:
        reply = client.request(path, headers=given)
        assert (reply.outcome, reply.seen["path"]) == ("echo-v1", path)
        assert {name: reply.received(name) for name in expected} == expected, path


def modifier(text: str) -> str:
    return f"filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {text}}}]"


@conformance("MeshHTTPRouteRequestHeaderModifier")
def test_MeshHTTPRouteRequestHeaderModifier(mesh: Mesh) -> None:
    rules = [f"- {{{PREFIX % path}, {modifier(one)}, {to(1)}}}" for path, one in _MODIFIERS.items()]
    serve(mesh, "\n".join(rules))
    expect_modified(mesh)


@conformance("MeshHTTPRouteBackendRequestHeaderModifier")
def test_MeshHTTPRouteBackendRequestHeaderModifier(mesh: Mesh) -> None:
    rules = [
        f"- {{{PREFIX % path}, backendRefs: [{{name: echo-v1, port: 8080, {modifier(one)}}}]}}"
        for path, one in _MODIFIERS.items()
    ]
    serve(mesh, "\n".join(rules))
    expect_modified(mesh)


@conformance("MeshHTTPRouteRewritePath")
def test_MeshHTTPRouteRewritePath(mesh: Mesh) -> None:
    edits = """{type: RequestHeaderModifier, requestHeaderModifier: {
      set: [{name: X-Header-Set, value: set-overwrites-values}],
      add: [{name: X-Header-Add, value: header-val-1},
            {name: X-Header-Add-Append, value: header-val-2}],
      remove: [X-Header-Remove]}}"""

    def rule(prefix: str, path: str, more: str = "") -> str:
        rewrite = f"{{type: URLRewrite, urlRewrite: {{path: {path}}}}}"
        return f"- {{{PREFIX % prefix}, filters: [{rewrite}{more}], {to(1, 80)}}}"

    def start(path: str) -> str:
        return f"{{type: ReplacePrefixMatch, replacePrefixMatch: {path}}}"

    def full(path: str) -> str:
        return f"{{type: ReplaceFullPath, replaceFullPath: {path}}}"

    both = "rewrite-path-and-modify-headers"
    rules = [
        rule("/prefix/one", start("/one")),
        rule("/strip-prefix", start("/")),
        rule("/full/one", full("/one")),
        rule(f"/full/{both}", full("/test"), f", {edits}"),
        rule(f"/prefix/{both}", start("/prefix"), f", {edits}"),
    ]
    serve(mesh, "\n".join(rules))
    client = mesh.client()
    for path, rewritten in [
        ("/prefix/one/two", "/one/two"),
        ("/strip-prefix/three", "/three"),
        ("/strip-prefix", "/"),
        ("/full/one/two", "/one"),
    ]:
        reply = client.request(path)
        assert (reply.outcome, reply.seen["path"]) == ("echo-v1", rewritten)
    headers = {
        "X-Header-Remove": "remove-val",
        "X-Header-Add-Append": "append-val-1",
        "X-Header-Set": "set-val",
    }
    for path, rewritten in [
        (f"/full/{both}/test", "/test"),
        (f"/prefix/{both}/one", "/prefix/one"),
    ]:
        reply = client.request(path, headers=headers)
        assert (reply.outcome, reply.seen["path"]) == ("echo-v1", rewritten)
        assert reply.received("X-Header-Add") == "header-val-1"
        assert reply.received("X-Header-Add-Append") == "append-val-1,header-val-2"
        assert reply.received("X-Header-Set") == "set-overwrites-values"
        assert reply.received("X-Header-Remove") is None


# === Redirects ===


def expect_redirects(mesh: Mesh, cases: dict[str, tuple[str, int, dict[str, Any]]]) -> None:
    """Serves a redirect for each path, and follows none of them.

    Args:
        mesh: the mesh.
        cases: by path: the filter, the status, and what the location says that the request did not.
    """
    rules = [
        f"- {{{PREFIX % path}, filters: [{{type: RequestRedirect, requestRedirect: {given}}}]}}"
        for path, (given, _, _) in cases.items()
    ]
    serve(mesh, "\n".join(rules))
    client = mesh.client()
    for path, (_, status, changed) in cases.items():
        same = {"scheme": "http", "host": "echo", "port": None, "path": path}
        for method in ("GET", "POST"):
            reply = client.request(path, method=method)
            assert reply.status == status
            assert location(reply) == {**same, **changed}, path


@conformance("MeshHTTPRouteRedirectHostAndStatus")
def test_MeshHTTPRouteRedirectHostAndStatus(mesh: Mesh) -> None:
    elsewhere = {"host": "example.org"}
    expect_redirects(
        mesh,
        {
            "/hostname-redirect": ("{hostname: example.org}", 302, elsewhere),
            "/host-and-status": ("{hostname: example.org, statusCode: 301}", 301, elsewhere),
        },
    )


@conformance("MeshHTTPRouteRedirectPath")
def test_MeshHTTPRouteRedirectPath(mesh: Mesh) -> None:
    start = "path: {type: ReplacePrefixMatch, replacePrefixMatch: /replacement-prefix}"
    full = "path: {type: ReplaceFullPath, replaceFullPath: /replacement-full}"
    org, moved = "hostname: example.org", "statusCode: 301"
    prefixed, whole = {"path": "/replacement-prefix"}, {"path": "/replacement-full"}
    expect_redirects(
        mesh,
        {
            "/original-prefix": (f"{{{start}}}", 302, prefixed),
            "/full": (f"{{{full}}}", 302, whole),
            "/path-and-host": (f"{{{start}, {org}}}", 302, {**prefixed, "host": "example.org"}),
            "/path-and-status": (f"{{{start}, {moved}}}", 301, prefixed),
            "/full-path-and-host": (f"{{{full}, {org}}}", 302, {**whole, "host": "example.org"}),
            "/full-path-and-status": (f"{{{full}, {moved}}}", 301, whole),
        },
    )
    client = mesh.client()
    found = [
        location(client.request(path))["path"] for path in ("/original-prefix/lemon", "/full/a")
    ]
    assert found == ["/replacement-prefix/lemon", "/replacement-full"]


@conformance("MeshHTTPRouteRedirectPort")
def test_MeshHTTPRouteRedirectPort(mesh: Mesh) -> None:
    org, port = "hostname: example.org", {"port": 8083}
    both = {**port, "host": "example.org"}
    expect_redirects(
        mesh,
        {
            "/port": ("{port: 8083}", 302, port),
            "/port-and-host": (f"{{port: 8083, {org}}}", 302, both),
            "/port-and-status": ("{port: 8083, statusCode: 301}", 301, port),
            "/port-and-host-and-status": (f"{{port: 8083, {org}, statusCode: 302}}", 302, both),
        },
    )


@conformance("MeshHTTPRouteSchemeRedirect")
def test_MeshHTTPRouteSchemeRedirect(mesh: Mesh) -> None:
    org, secure = "hostname: example.org", {"scheme": "https"}
    both = {**secure, "host": "example.org"}
    expect_redirects(
        mesh,
        {
            "/scheme": ("{scheme: https}", 302, secure),
            "/scheme-and-host": (f"{{scheme: https, {org}}}", 302, both),
            "/scheme-and-status": ("{scheme: https, statusCode: 301}", 301, secure),
            "/scheme-and-host-and-status": (
                f"{{scheme: https, {org}, statusCode: 302}}",
                302,
                both,
            ),
        },
    )


@conformance("MeshHTTPRoute303Redirect")
def test_MeshHTTPRoute303Redirect(mesh: Mesh) -> None:
    expect_redirects(mesh, {"/redirect": ("{statusCode: 303}", 303, {})})


@conformance("MeshHTTPRoute307Redirect")
def test_MeshHTTPRoute307Redirect(mesh: Mesh) -> None:
    expect_redirects(mesh, {"/redirect": ("{statusCode: 307}", 307, {})})


@conformance("MeshHTTPRoute308Redirect")
def test_MeshHTTPRoute308Redirect(mesh: Mesh) -> None:
    expect_redirects(mesh, {"/redirect": ("{statusCode: 308}", 308, {})})


# === What a route is for ===


def marked(value: str, version: int) -> str:
    """A rule for everything, which marks the answers."""
    edit = f"{{set: [{{name: X-Header-Set, value: {value}}}]}}"
    marks = f"filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {edit}}}]"
    return f"- {{{marks}, {to(version, 80)}}}"


@conformance("MeshFrontend")
def test_MeshFrontend(mesh: Mesh) -> None:
    mesh.infra.apply(route(marked("set", 2), parent("echo-v2", None), namespace=MESH))
    client = mesh.client()
    reply = client.request(to="echo-v2")
    assert (reply.outcome, reply.header("X-Header-Set")) == ("echo-v2", "set")
    # To the pod itself, past the service and its route.
    reply = client.request(to=mesh.pods["echo-v2"].address)
    assert (reply.outcome, reply.header("X-Header-Set")) == ("echo-v2", None)


@conformance("MeshFrontendHostname")
def test_MeshFrontendHostname(mesh: Mesh) -> None:
    mesh.infra.apply(route(marked("set", 2), parent("echo-v2", None), namespace=MESH))
    client = mesh.client()
    # The address decides, and not what the request says.
    reply = client.request(to="echo-v2", headers={"host": "echo-v1"})
    assert (reply.outcome, reply.header("X-Header-Set")) == ("echo-v2", "set")
    reply = client.request(to="echo-v1", headers={"host": "echo-v2"})
    assert (reply.outcome, reply.header("X-Header-Set")) == ("echo-v1", None)


@conformance("MeshPorts")
def test_MeshPorts(mesh: Mesh) -> None:
    mesh.infra.apply(
        route(marked("v1", 1), parent("echo-v1"), name="v1", namespace=MESH),
        route(marked("v2", 2), parent("echo-v2", None), name="v2", namespace=MESH),
    )
    client = mesh.client()
    for host, backend, value in [
        ("echo-v1", "echo-v1", "v1"),
        ("echo-v1:8080", "echo-v1", None),
        ("echo-v2", "echo-v2", "v2"),
        ("echo-v2:8080", "echo-v2", "v2"),
    ]:
        reply = client.request(to=host)
        assert (reply.outcome, reply.header("X-Header-Set")) == (backend, value), host


@conformance("MeshConsumerRoute")
def test_MeshConsumerRoute(mesh: Mesh) -> None:
    rules = marked("set", 1).replace("name: echo-v1", f"name: echo-v1, namespace: {MESH}")
    mesh.infra.apply(route(rules, parent("echo-v1", None, MESH), namespace=CONSUMER))
    found = conditions(mesh.infra.parent("HTTPRoute", "route", CONSUMER, name="echo-v1"))
    assert found["Accepted"] == ("True", "Accepted")
    # A route of the mesh needs no grant.
    assert found["ResolvedRefs"] == ("True", "ResolvedRefs")
    to_service = f"echo-v1.{MESH}"
    reply = mesh.client(CONSUMER).request(to=to_service)
    assert (reply.outcome, reply.header("X-Header-Set")) == ("echo-v1", "set")
    reply = mesh.client(MESH).request(to=to_service)
    assert (reply.outcome, reply.header("X-Header-Set")) == ("echo-v1", None)


# === gRPC ===


@conformance("MeshGRPCRouteWeight")
def test_MeshGRPCRouteWeight(mesh: Mesh) -> None:
    refs = ", ".join(
        f"{{name: echo-v{one}, port: 7070, weight: {weight}}}"
        # The last one does not exist, and gets nothing.
        for one, weight in ((1, 70), (2, 30), (3, 0))
    )
    serve(mesh, f"- backendRefs: [{refs}]", kind="GRPCRoute", port=7070)

    def sample(opened: grpc.Channel) -> Counter[str]:
        return Counter(call(opened).outcome for _ in range(500))

    with mesh.client().channel("echo:7070") as opened:
        expect_shares(lambda: sample(opened), {"echo-v1": 0.7, "echo-v2": 0.3})


@conformance("MeshGRPCRouteRequestHeaderModifier")
def test_MeshGRPCRouteRequestHeaderModifier(mesh: Mesh) -> None:
    cases = {
        "set": (1, edits({"x-header-set": "set-overwrites-values"})),
        "add": (1, edits(add={"x-header-add": "add-appends-values"})),
        "remove": (1, edits(remove=("x-header-remove",))),
        "multi": (
            2,
            edits(
                numbered("Set", 2), numbered("Add", 2), ("x-header-remove-1", "x-header-remove-2")
            ),
        ),
    }
    rules = [
        f"- {{matches: [{{headers: [{{name: x-test-case, value: {name}}}]}}], "
        f"{modifier(text)}, {to(version, 7070)}}}"
        for name, (version, text) in cases.items()
    ]
    serve(mesh, "\n".join(rules), kind="GRPCRoute", port=7070)
    expected: list[tuple[str, str, dict[str, str], dict[str, str | None]]] = [
        (
            "set",
            "echo-v1",
            {"some-other-header": "stays", "x-header-set": "is-overwritten"},
            {"some-other-header": "stays", "x-header-set": "set-overwrites-values"},
        ),
        (
            "add",
            "echo-v1",
            {"x-header-add": "old"},
            {"x-header-add": "old,add-appends-values"},
        ),
        ("remove", "echo-v1", {"x-header-remove": "is-removed"}, {"x-header-remove": None}),
        (
            "multi",
            "echo-v2",
            {"x-header-set-2": "a", "x-header-add-2": "b", "x-header-remove-2": "c"},
            {
                "x-header-set-1": "header-set-1",
                "x-header-set-2": "header-set-2",
                "x-header-add-1": "header-add-1",
                "x-header-add-2": "b,header-add-2",
                "x-header-remove-1": None,
                "x-header-remove-2": None,
            },
        ),
    ]
    with mesh.client().channel("echo:7070") as opened:
        for name, backend, given, fields in expected:
            answer = call(opened, metadata={"x-test-case": name, **given})
            assert answer.outcome == backend, name
            wanted = {"x-test-case": name, **fields}
            assert {one: answer.received(one) for one in wanted} == wanted
