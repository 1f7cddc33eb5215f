"""Filters of routes: header modifiers, redirects and rewrites."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.engine.harness import Peer, ok
from tests.scenario.stage import EDGE, MESH_NAMESPACE, WAYPOINT, route

if TYPE_CHECKING:
    from tests.scenario.stage import Stage

TO_WEB = "backendRefs: [{name: web, port: 80}]"


def filtered(*filters: str, path: str = "/", backends: str = TO_WEB) -> str:
    """A route whose one rule has filters."""
    return route(
        f"""
    - matches: [{{path: {{type: PathPrefix, value: {path}}}}}]
      filters: [{", ".join(filters)}]
      {backends}
    """
    )


# === Header modifiers ===


REQUEST = """{type: RequestHeaderModifier, requestHeaderModifier: {
    set: [{name: X-Set, value: new}],
    add: [{name: X-Add, value: more}],
    remove: [X-Remove]}}"""


def test_request_fields_are_set_added_and_removed(stage: Stage) -> None:
    stage.service("web")
    scene = stage.serve(EDGE, filtered(REQUEST))
    answer = scene.get(
        "/", "x-set: old", "X-SET: older", "x-add: first", "x-remove: secret", "x-keep: kept"
    )
    assert answer.received("x-set") == ["new"]
    assert ",".join(answer.received("x-add")) == "first,more"
    assert answer.received("x-remove") == []
    assert answer.received("x-keep") == ["kept"]
    bare = scene.get()
    assert (bare.received("x-set"), bare.received("x-add")) == (["new"], ["more"])


def test_response_fields_are_set_added_and_removed(stage: Stage) -> None:
    def script(peer: Peer) -> None:
        while True:
            peer.read_request()
            peer.send(ok(b"", "X-Set: old", "X-Add: first", "X-Remove: secret", "X-Keep: kept"))

    stage.service("web", script=script)
    modifier = REQUEST.replace("Request", "Response").replace("request", "response")
    answer = stage.serve(EDGE, filtered(modifier)).get()
    assert answer.sent("x-set") == ["new"]
    assert ",".join(answer.sent("x-add")) == "first,more"
    assert answer.sent("x-remove") == []
    assert answer.sent("x-keep") == ["kept"]


def test_a_backends_modifier_holds_for_that_backend_and_after_the_rules(stage: Stage) -> None:
    for name in ("one", "two"):
        stage.service(name)
    own = """filters: [{type: RequestHeaderModifier, requestHeaderModifier: {
        set: [{name: x-set, value: of-two}]}}]"""
    backends = f"backendRefs: [{{name: one, port: 80}}, {{name: two, port: 80, {own}}}]"
    scene = stage.serve(EDGE, filtered(REQUEST, backends=backends))
    seen = {(one.backend, *one.received("x-set")) for one in (scene.get() for _ in range(100))}
    assert seen == {("one", "new"), ("two", "of-two")}


# === Redirects: port and scheme ===


@pytest.mark.parametrize(
    ("listener", "redirect", "location"),
    [
        (80, "", "http://example.org/x?q=1"),
        (80, "port: 80", "http://example.org/x?q=1"),
        (80, "port: 8080", "http://example.org:8080/x?q=1"),
        (80, "scheme: https", "https://example.org/x?q=1"),
        (80, "scheme: https, port: 443", "https://example.org/x?q=1"),
        (80, "scheme: https, port: 8443", "https://example.org:8443/x?q=1"),
        (8080, "", "http://example.org:8080/x?q=1"),
        (8080, "port: 80", "http://example.org/x?q=1"),
        (8080, "scheme: https", "https://example.org/x?q=1"),
        (8080, "scheme: http", "http://example.org/x?q=1"),
    ],
)
def test_the_port_of_a_redirect(stage: Stage, listener: int, redirect: str, location: str) -> None:
    """The filter's, else its scheme's, else the listener's; the client's Host does not count."""
    fields = ", ".join(one for one in ("hostname: example.org", redirect) if one)
    gateway = EDGE.replace("8080", str(listener))
    redirecting = filtered(
        f"{{type: RequestRedirect, requestRedirect: {{{fields}}}}}", backends="backendRefs: []"
    )
    answer = stage.serve(gateway, redirecting).get("/x?q=1", host="client.example:1234")
    assert (answer.status, answer.sent("location")) == (302, [location])
    assert answer.body == b""


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_status_of_a_redirect(stage: Stage, status: int) -> None:
    redirecting = filtered(
        f"{{type: RequestRedirect, requestRedirect: {{scheme: https, statusCode: {status}}}}}",
        backends="backendRefs: []",
    )
    answer = stage.serve(EDGE, redirecting).get(host="own.host:1234")
    assert (answer.status, answer.sent("location")) == (status, ["https://own.host/"])


@pytest.mark.parametrize(
    ("path", "asked", "location"),
    [
        ("{type: ReplaceFullPath, replaceFullPath: /full}", "/old/a?q=1", "/full?q=1"),
        ("{type: ReplacePrefixMatch, replacePrefixMatch: /new}", "/old/a?q=1", "/new/a?q=1"),
        ("{type: ReplacePrefixMatch, replacePrefixMatch: /}", "/old/a", "/a"),
        ("{type: ReplacePrefixMatch, replacePrefixMatch: /}", "/old", "/"),
    ],
)
def test_the_path_of_a_redirect(stage: Stage, path: str, asked: str, location: str) -> None:
    redirecting = filtered(
        f"{{type: RequestRedirect, requestRedirect: {{scheme: https, path: {path}}}}}",
        path="/old",
        backends="backendRefs: []",
    )
    answer = stage.serve(EDGE, redirecting).get(asked)
    assert answer.sent("location") == [f"https://example.org{location}"]


def test_a_redirect_on_a_waypoint_names_the_services_port(stage: Stage) -> None:
    stage.service("web", "10.0.0.1", ports=(8000,))
    redirecting = filtered(
        "{type: RequestRedirect, requestRedirect: {hostname: new.host}}",
        backends="backendRefs: []",
    ).replace("{name: edge}", '{group: "", kind: Service, name: web}')
    answer = stage.serve(WAYPOINT, MESH_NAMESPACE, redirecting).call("10.0.0.1", port=8000)
    assert answer.sent("location") == ["http://new.host:8000/"]


# === Rewrites ===


@pytest.mark.parametrize(
    ("prefix", "replacement", "asked", "expected"),
    [
        ("/foo", "/xyz", "/foo/bar", "/xyz/bar"),
        ("/foo", "/xyz/", "/foo/bar", "/xyz/bar"),
        ("/foo/", "/xyz", "/foo/bar", "/xyz/bar"),
        ("/foo/", "/xyz/", "/foo/bar", "/xyz/bar"),
        ("/foo", "/xyz", "/foo", "/xyz"),
        ("/foo", "/xyz", "/foo/", "/xyz/"),
        ("/foo", '""', "/foo/bar", "/bar"),
        ("/foo", '""', "/foo/", "/"),
        ("/foo", '""', "/foo", "/"),
        ("/foo", "/", "/foo/", "/"),
        ("/foo", "/", "/foo", "/"),
        ("/foo", "/", "/foo/bar", "/bar"),
        ("/foo", "/xyz", "/foo?a=b", "/xyz?a=b"),
        ("/foo", "/xyz", "/foo/%2Fbar/foo?a=/foo//b", "/xyz/%2Fbar/foo?a=/foo//b"),
    ],
)
def test_a_prefix_is_replaced(
    stage: Stage, prefix: str, replacement: str, asked: str, expected: str
) -> None:
    stage.service("web")
    path = f"{{type: ReplacePrefixMatch, replacePrefixMatch: {replacement}}}"
    rewriting = filtered(f"{{type: URLRewrite, urlRewrite: {{path: {path}}}}}", path=prefix)
    answer = stage.serve(EDGE, rewriting).get(asked)
    assert answer.target == expected
    assert answer.received("x-envoy-original-path") == [asked]


def test_the_whole_path_and_the_host_are_replaced(stage: Stage) -> None:
    stage.service("web")
    rewrite = """{type: URLRewrite, urlRewrite: {
        hostname: inner.example, path: {type: ReplaceFullPath, replaceFullPath: /one}}}"""
    scene = stage.serve(EDGE, filtered(rewrite, REQUEST, path="/full"))
    answer = scene.get("/full/one/two?q=1", host="outer.example")
    assert answer.target == "/one?q=1"
    assert answer.received("host") == ["inner.example"]
    assert answer.received("x-set") == ["new"], "filters of one rule work together"


def test_without_a_rewrite_there_is_no_original_path(stage: Stage) -> None:
    stage.service("web")
    answer = stage.serve(EDGE, filtered(REQUEST)).get("/as/it/is")
    assert answer.target == "/as/it/is"
    assert answer.received("x-envoy-original-path") == []
