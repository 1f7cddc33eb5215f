"""What becomes of a request, and why: listener, route, backend, answer, policies."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from tests.translate.certificates import issued, secret
from tests.translate.support import MESH

import kgw
from kgw.explaining import Explanation, Question, explain
from kgw.explaining.words import describe
from kgw.proxyproto import MeshIdentity
from kgw.testing.configuration import configuration
from kgw.translate import AddressPool, Options

ROOT = Path(__file__).parents[2]

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: kgateway
  listeners:
  - {name: http, port: 80, protocol: HTTP}
"""

SERVICES = "".join(
    f"""
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{clusterIP: 10.96.0.{number}, ports: [{{port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{port: 8080}}]
endpoints: [{{addresses: [10.1.0.{number}]}}]
"""
    for number, name in enumerate(("one", "two"), 1)
)


def route(rules: str, *, name: str = "web", created: str = "", more: str = "") -> str:
    stamp = f", creationTimestamp: '{created}'" if created else ""
    return f"""
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}{stamp}}}
spec:
  parentRefs: [{{name: edge}}]
  {more}
  rules: {rules}
"""


def asked(
    manifests: str, url: str = "http://web.example/", method: str = "GET", **options: Any
) -> Explanation:
    """Explains a request, of manifests whose errors do not matter."""
    found = explain(configuration([manifests + SERVICES]), Question.of(method, url, **options))
    json.dumps(found.to_json())  # whatever it is, programs can read it
    assert str(found)
    return found


ONE = "[{backendRefs: [{name: one, port: 80}]}]"

# === Listeners ===


def test_the_listener_with_the_most_specific_hostname_takes_a_request() -> None:
    found = asked(
        GATEWAY
        + """
  - {name: wide, port: 80, protocol: HTTP, hostname: "*.example"}
  - {name: exact, port: 80, protocol: HTTP, hostname: web.example}
  - {name: other, port: 80, protocol: HTTP, hostname: other.test}
  - {name: admin, port: 8080, protocol: HTTP}
"""
        + route(ONE)
    )

    said = {one.listener.rpartition("/")[2]: one.reason for one in found.listeners}
    assert said == {
        "http": "hostname * is less specific than web.example",
        "wide": "hostname *.example is less specific than web.example",
        "exact": "hostname web.example is the most specific one for host web.example",
        "other": "hostname other.test does not match host web.example",
        "admin": "port 8080, not 80",
    }
    assert [one.listener for one in found.listeners if one.taken] == ["default/edge/exact"]
    assert [one.place for one in found.listeners if one.taken] == ["<text>:11:5"]


def test_a_port_that_nobody_has_is_no_answer() -> None:
    found = asked(GATEWAY + route(ONE), "http://web.example:81/")

    assert found.closed == "no listener takes http on port 81"
    assert found.answer is None
    assert found.candidates == ()


def test_a_listener_of_datagrams_takes_no_request_for_its_port() -> None:
    udp = "listeners:\n  - {name: udp, port: 80, protocol: UDP}"
    found = asked(GATEWAY.replace("listeners:", udp) + route(ONE))

    said = {one.listener.rpartition("/")[2]: one.reason for one in found.listeners}
    assert said["udp"] == "protocol UDP is for no requests"
    assert [one.listener for one in found.listeners if one.taken] == ["default/edge/http"]
    assert found.route is not None


def test_a_listener_that_is_named_is_dialled_whatever_the_port() -> None:
    found = asked(GATEWAY + route(ONE), "http://web.example:81/", listener="edge/http")

    assert found.route is not None


def test_of_two_gateways_one_has_to_be_named(tmp_path: Path) -> None:
    inner = GATEWAY.replace("name: edge", "name: inner")
    (tmp_path / "all.yaml").write_text(f"{GATEWAY}---{inner}{route(ONE)}{SERVICES}")
    # Each Gateway has an address of its own, as in a cluster: port 80 is there twice.
    ports = {"default/edge/http": 0, "default/inner/http": 0}
    config = kgw.load(tmp_path, options=Options(ports=ports))

    with pytest.raises(ValueError, match="Say which one: default/edge, default/inner"):
        explain(config, Question.of("GET", "http://web.example/"))
    named = explain(config, Question.of("GET", "http://web.example/", gateway="edge"))
    assert named.route is not None
    with pytest.raises(ValueError, match="no 'nobody'; the Gateways that are served: default/"):
        explain(config, Question.of("GET", "http://web.example/", gateway="nobody"))


def test_an_address_is_one_gateways(tmp_path: Path) -> None:
    inner = GATEWAY.replace("name: edge", "name: inner")
    (tmp_path / "all.yaml").write_text(f"{GATEWAY}---{inner}{route(ONE)}{SERVICES}")
    config = kgw.load(tmp_path, options=Options(pool=AddressPool("10.200.0.0/29")))
    (edge,) = (one["value"] for one in statuses(config, "edge")["addresses"])

    found = explain(config, Question.of("GET", f"http://{edge}/", headers={"Host": "web.example"}))
    said = {one.listener: one.reason for one in found.listeners}
    assert said["default/inner/http"] == f"address {edge} is another Gateway's"
    assert found.route is not None


def statuses(config: kgw.Config, gateway: str) -> dict[str, Any]:
    """The status of a Gateway, as Kubernetes has it."""
    (found,) = (
        status
        for key, status in config.statuses.items()
        if (key.kind, key.name) == ("Gateway", gateway)
    )
    return found.to_json()


def test_listeners_of_a_set_are_the_gateways_too() -> None:
    listener_set = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more}
spec:
  parentRef: {name: edge}
  listeners: [{name: http, port: 80, protocol: HTTP, hostname: set.example}]
"""
    gateway = GATEWAY.replace("spec:", "spec:\n  allowedListeners: {namespaces: {from: Same}}")
    attached = route(ONE, name="set").replace("{name: edge}", "{kind: ListenerSet, name: more}")
    away = attached.replace("name: set", "name: away").replace(
        "rules:", "hostnames: [away.example]\n  rules:"
    )
    found = asked(gateway + listener_set + attached + away, "http://set.example/")

    (taken,) = (one for one in found.listeners if one.taken)
    assert taken.listener == "default/edge/default/more/http"
    assert found.route is not None
    assert found.route.name == "default/set/0/0"
    assert [one.resource for one in found.unattached] == ["HTTPRoute default/away"]
    assert found.branches[0].sent is not None


def test_the_place_of_a_listener_that_is_not_served_says_why() -> None:
    found = asked(
        GATEWAY
        + """
  - {name: tls, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: nothing}]}}
""",
        "https://web.example/",
    )

    (tls,) = (one for one in found.listeners if one.listener.endswith("/tls"))
    assert tls.reason == "not served: Secret default/nothing not found"
    assert found.closed is not None


# === TLS ===

HTTPS = """
  - {name: a, port: 443, protocol: HTTPS, hostname: a.example,
     tls: {certificateRefs: [{name: cert}]}}
  - {name: b, port: 443, protocol: HTTPS, hostname: b.example,
     tls: {certificateRefs: [{name: cert}]}}
  - {name: pass, port: 443, protocol: TLS, hostname: pass.example, tls: {mode: Passthrough}}
---
""" + secret("cert", "a.example", "b.example")


def test_the_server_name_chooses_and_the_host_of_another_listener_is_misdirected() -> None:
    manifests = GATEWAY + HTTPS + route(ONE)

    found = asked(manifests, "https://a.example/")
    assert [one.listener for one in found.listeners if one.taken] == ["default/edge/a"]
    assert found.branches[0].sent is not None
    assert ("x-forwarded-proto", "https") in found.branches[0].sent.fields

    found = asked(manifests, "https://a.example/", headers={"Host": "b.example"})
    assert found.answer is not None
    assert found.answer.status == 421
    assert found.answer.why == "the host belongs to another listener than the connection"

    found = asked(manifests, "https://b.example/", sni="a.example")
    assert found.answer is not None
    assert found.answer.status == 421


def test_a_server_name_that_nobody_has_is_no_answer() -> None:
    found = asked(GATEWAY + HTTPS, "https://c.example/")

    assert found.closed == "no listener of the port is for server name c.example"


def test_a_connection_that_is_passed_through() -> None:
    tls = route(ONE, more="hostnames: [pass.example]").replace("HTTPRoute", "TLSRoute")
    found = asked(GATEWAY + HTTPS + tls, "https://pass.example/")

    assert [one.backend for one in found.passed_on] == ["default/one:80"]
    assert found.answer is None
    assert "its bytes are passed on" in str(found)
    assert asked(GATEWAY + HTTPS, "https://pass.example/").closed is not None


# === Secrets ===


def test_what_is_in_secrets_is_not_shown() -> None:
    secrets = """
---
apiVersion: v1
kind: Secret
metadata: {name: token}
stringData: {authorization: Bearer TOPSECRET, x-short: PIN7}
---
apiVersion: v1
kind: Secret
metadata: {name: users}
stringData: {.htpasswd: "ann:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="}
---
apiVersion: gateway.kgateway.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: log-in}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}]
  basicAuth: {secretRef: {name: users}}
  headerModifiers:
    request:
      set:
      - {name: authorization, secretRef: {name: token}}
      - {name: x-short, secretRef: {name: token}}
      - {name: x-open, value: as it is}
"""
    url = "http://web.example/"
    basic = {"authorization": "Basic YW5uOnBhc3N3b3Jk"}
    found = asked(GATEWAY + route(ONE) + secrets, url, headers=basic)

    assert found.branches[0].sent is not None
    fields = dict(found.branches[0].sent.fields)
    assert (fields["authorization"], fields["x-short"]) == ("<secret>", "<secret>")
    assert fields["x-open"] == "as it is"
    for text in (str(found), repr(found), json.dumps(found.to_json())):
        assert "as it is" in text
        for one in ("TOPSECRET", "PIN7", "W6ph5Mm5"):
            assert one not in text


# === Candidates ===


def outcomes(found: Explanation) -> dict[str, str]:
    return {one.name.partition("/")[2]: one.reason for one in found.candidates}


def test_each_candidate_that_does_not_match_has_the_first_reason() -> None:
    rules = """
  - {matches: [{path: {type: Exact, value: /b}}]}
  - {matches: [{path: {value: /b}}]}
  - {matches: [{path: {type: RegularExpression, value: "/[b-z]"}}]}
  - {matches: [{method: POST, headers: [{name: x, value: v}]}]}
  - {matches: [{headers: [{name: X-One, value: "1"}]}]}
  - {matches: [{headers: [{name: x-two, value: "1"}]}]}
  - {matches: [{queryParams: [{name: q, value: "1"}]}]}
  - {matches: [{queryParams: [{name: r, type: RegularExpression, value: "[0-9]"}]}]}
"""
    found = asked(
        GATEWAY + route(rules),
        "http://web.example/a?q=2&q=1&r=x",
        headers=[("x-one", "2"), ("x-one", "3")],
    )

    assert outcomes(found) == {
        "web/0/0": "the path /a is not /b",
        "web/1/0": "the path /a is not below /b",
        "web/2/0": "the path /a is not what the expression /[b-z] says",
        "web/3/0": "the method is GET, not POST",
        "web/4/0": "header x-one is '2' and '3', not '1'",
        "web/5/0": "header x-two is absent",
        "web/6/0": "query parameter q is '2', not '1'",
        "web/7/0": "query parameter r is 'x', not what the expression [0-9] says",
    }
    assert found.answer is not None
    assert (found.answer.status, found.answer.details) == (404, "route_not_found")


@pytest.mark.parametrize(
    ("winner", "loser", "decided_by", "reason"),
    [
        (
            "path: {type: Exact, value: /a}",
            "path: {value: /a}",
            "path_kind",
            "an exact path goes before a path prefix",
        ),
        (
            "path: {type: RegularExpression, value: /a}",
            "path: {value: /a}",
            "path_kind",
            "a regular expression goes before a path prefix",
        ),
        ("path: {value: /a}", "path: {value: /}", "prefix_length", "prefix /a is longer than /"),
        (
            "method: GET",
            "headers: [{name: x, value: v}]",
            "method",
            "the selected match has a method, and this one has none",
        ),
        (
            "headers: [{name: x, value: v}]",
            "queryParams: [{name: q, value: '1'}]",
            "headers",
            "the selected match has more header matches (1, and this one 0)",
        ),
        (
            "queryParams: [{name: q, value: '1'}]",
            "path: {value: /}",
            "query",
            "the selected match has more query parameter matches (1, and this one 0)",
        ),
    ],
)
def test_a_match_that_is_outranked_says_by_what(
    winner: str, loser: str, decided_by: str, reason: str
) -> None:
    # The loser comes first in every other way: in the alphabet, and by its age.
    found = asked(
        GATEWAY
        + route(f"[{{matches: [{{{loser}}}]}}]", name="a", created="2020-01-01T00:00:00Z")
        + route(f"[{{matches: [{{{winner}}}]}}]", name="b"),
        "http://web.example/a?q=1",
        headers={"X": "v"},
    )

    selected, outranked = found.candidates
    assert (selected.name, selected.outcome) == ("default/b/0/0", "selected")
    assert (outranked.outcome, outranked.decided_by) == ("outranked", decided_by)
    assert outranked.reason == f"it matches, but {reason}"


def test_between_equal_matches_age_then_name_then_place_decide() -> None:
    both = "[{matches: [{path: {value: /}}, {path: {value: /}}]}, {}]"
    found = asked(
        GATEWAY
        + route(both, name="c", created="2024-01-02T03:04:05Z")
        + route("[{}]", name="d", created="2024-01-02T03:04:05Z")
        + route("[{}]", name="b", created="2024-01-02T03:04:06Z")
        + route("[{}]", name="a")
    )

    assert outcomes(found) == {
        "c/0/0": "selected",
        "c/0/1": "it matches, but match 0 comes before match 1",
        "c/1/0": "it matches, but rule 0 comes before rule 1",
        "d/0/0": "it matches, but default/c comes before default/d in the alphabet",
        "b/0/0": "it matches, but the selected route is older "
        "(2024-01-02T03:04:05Z, and this one 2024-01-02T03:04:06Z)",
        "a/0/0": "it matches, but the selected route is older "
        "(2024-01-02T03:04:05Z, and this one of unknown age)",
    }


def test_a_more_specific_hostname_decides_alone() -> None:
    found = asked(
        GATEWAY
        + route("[{matches: [{path: {value: /x}}]}]", name="exact", more="hostnames: [web.example]")
        + route(ONE, name="wide", more="hostnames: ['*.example']")
        + route(ONE, name="other", more="hostnames: [other.example]")
    )

    assert outcomes(found) == {
        "exact/0/0": "the path / is not below /x",
        "wide/0/0": "hostname web.example is more specific, and its routes decide alone",
    }
    assert found.other_hosts == ("other.example",)
    assert found.answer is not None
    assert found.answer.status == 404


def test_routes_that_are_not_attached_are_told_with_their_reason() -> None:
    found = asked(
        GATEWAY.replace("HTTP}", "HTTP, hostname: web.example}")
        + route(ONE, name="foreign", more="hostnames: [other.test]")
        + route(ONE)
    )

    assert [(one.resource, one.parent) for one in found.unattached] == [
        ("HTTPRoute default/foreign", "Gateway edge")
    ]
    assert found.unattached[0].reason.startswith("NoMatchingListenerHostname: no hostname of")
    assert outcomes(found) == {"web/0/0": "selected"}


def test_of_many_routes_those_that_came_closest_are_shown() -> None:
    far = "".join(
        f"\n  - {{matches: [{{path: {{type: Exact, value: /far/{n}}}}}]}}" for n in range(15)
    )
    near = "".join(
        f"\n  - {{matches: [{{queryParams: [{{name: q, value: '{n}'}}]}}]}}" for n in range(15)
    )
    found = asked(GATEWAY + route(far, name="far") + route(near, name="near") + route(ONE))

    text = str(found)
    assert len(found.candidates) == 31
    assert text.count("default/near/") == 15
    assert text.count("default/far/") == 4
    assert "default/web/0/0 (prefix /): selected" in text
    assert "and 11 more, which --all shows" in text
    assert "\n".join(describe(found, every=True)).count("default/far/") == 15


def test_the_path_is_told_in_the_form_in_which_it_is_matched() -> None:
    found = asked(GATEWAY + route(ONE), "http://web.example//a/./b/../%63?x=%2F")
    assert found.path == "/a/c?x=%2F"
    assert "matched as /a/c?x=%2F" in str(found)

    found = asked(GATEWAY + route(ONE), "http://web.example/%00")
    assert (found.path, found.candidates) == (None, ())
    assert found.answer is not None
    assert (found.answer.status, found.answer.details) == (400, "path_normalization_failed")


# === Outcomes ===

REWRITTEN = """[{
    matches: [{path: {value: /api}}],
    filters: [
      {type: URLRewrite, urlRewrite: {hostname: inner.example,
        path: {type: ReplacePrefixMatch, replacePrefixMatch: /v1}}},
      {type: RequestHeaderModifier, requestHeaderModifier: {
        set: [{name: x-env, value: prod}], remove: [x-debug]}},
      {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: x-by, value: kgw}]}}],
    backendRefs: [
      {name: one, port: 80, weight: 3},
      {name: two, port: 80, weight: 1, filters: [{type: RequestHeaderModifier,
        requestHeaderModifier: {add: [{name: x-canary, value: '1'}]}}]},
      {name: two, port: 80, weight: 0}],
    timeouts: {request: 3s}}]"""


def test_what_each_backend_gets() -> None:
    found = asked(
        GATEWAY + route(REWRITTEN),
        "http://web.example/api/x?q=1",
        headers={"X-Debug": "1", "X-Kept": "yes"},
    )

    one, two, none = found.branches
    assert [(b.backend, b.share) for b in found.branches] == [
        ("default/one:80", 0.75),
        ("default/two:80", 0.25),
        ("default/two:80", 0.0),
    ]
    assert one.endpoints == ("10.1.0.1:8080",)
    assert one.sent is not None
    assert two.sent is not None
    assert (one.sent.method, one.sent.target) == ("GET", "/v1/x?q=1")
    added = dict(one.sent.added)
    assert (added["Host"], added["x-env"]) == ("inner.example", "prod")
    assert added["x-request-id"] == "<random>"
    assert set(one.sent.removed) == {("Host", "web.example"), ("X-Debug", "1")}
    assert ("X-Kept", "yes") in one.sent.fields
    assert "x-canary" not in added
    assert dict(two.sent.added)["x-canary"] == "1"
    assert [one["type"] for one in two.filters] == ["request_headers"]
    assert 'filter request_headers: add [["x-canary", "1"]]' in str(found)
    assert dict(one.response_headers)["x-by"] == "kgw"
    assert none.sent is None
    assert found.action is not None
    assert found.action["request_timeout_ms"] == 3000


def test_an_explanation_is_the_same_each_time() -> None:
    manifests = GATEWAY + route(REWRITTEN)
    url = "http://web.example/api"

    assert asked(manifests, url).to_json() == asked(manifests, url).to_json()


def test_a_redirect_says_where_to() -> None:
    redirect = """[{matches: [{path: {value: /old}}], filters: [{type: RequestRedirect,
      requestRedirect: {scheme: https, statusCode: 301,
        path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]}]"""
    found = asked(GATEWAY + route(redirect), "http://web.example/old/x?q=1")

    assert found.answer is not None
    assert found.answer.status == 301
    assert found.answer.why == "a redirect to https://web.example/new/x?q=1"
    assert found.branches == ()


def test_a_backend_that_does_not_exist_is_500_for_its_share() -> None:
    both = "[{backendRefs: [{name: one, port: 80}, {name: nobody, port: 80}]}]"
    found = asked(GATEWAY + route(both))

    good, bad = found.branches
    assert good.sent is not None
    assert (bad.backend, bad.share) == (None, 0.5)
    assert bad.answer is not None
    assert (bad.answer.status, bad.answer.why) == (500, "Service default/nobody not found")
    assert found.faults == ("Service default/nobody not found",)
    assert found.answer is None


def test_a_rule_that_cannot_be_used_is_500_with_the_fault() -> None:
    broken = """[{filters: [{type: ExtensionRef, extensionRef:
      {group: example.test, kind: Magic, name: wand}}], backendRefs: [{name: one, port: 80}]}]"""
    found = asked(GATEWAY + route(broken))

    assert found.answer is not None
    assert found.answer.status == 500
    assert found.answer.why in found.faults
    assert "example.test/Magic is not supported" in found.answer.why


def test_a_rule_without_backends_is_500() -> None:
    found = asked(GATEWAY + route("[{}]"))

    assert found.answer is not None
    assert (found.answer.status, found.answer.why) == (500, "the rule has no backend")


def test_a_service_without_endpoints_is_503() -> None:
    service = """
---
apiVersion: v1
kind: Service
metadata: {name: empty}
spec: {clusterIP: 10.96.0.9, ports: [{port: 80}]}
"""
    found = asked(GATEWAY + service + route("[{backendRefs: [{name: empty, port: 80}]}]"))

    assert found.answer is not None
    assert (found.answer.status, found.answer.flags) == (503, "UH")
    assert found.answer.why == "the backend has no endpoint that is ready"
    assert [(one.backend, one.endpoints) for one in found.branches] == [("default/empty:80", ())]


def test_a_filter_that_asks_somebody_is_told_and_taken_to_agree() -> None:
    python = """[{filters: [{type: ExtensionRef, extensionRef:
      {group: kgw.dev, kind: PythonFilter, name: login}}], backendRefs: [{name: one, port: 80}]}]"""
    found = asked(GATEWAY + route(python))

    assert [one["filter"] for one in found.asked] == ["login"]
    assert found.branches[0].sent is not None


def test_copies_for_mirrors_are_shown_whatever_their_share() -> None:
    mirrored = """[{filters: [{type: RequestMirror, requestMirror:
      {backendRef: {name: two, port: 80}, percent: 10}}], backendRefs: [{name: one, port: 80}]}]"""
    for _ in range(5):  # of ten requests nine have no copy
        found = asked(GATEWAY + route(mirrored), "http://web.example/x?q=1")
        (branch,) = found.branches
        assert branch.sent is not None
        assert (branch.sent.backend, branch.sent.target) == ("default/one:80", "/x?q=1")
        assert [(one.backend, one.target) for one in branch.copies] == [
            ("default/two:80", "/x?q=1")
        ]
    assert "numerator 10, denominator 100" in str(found)
    assert "also sent to default/two:80" in str(found)

    found = asked(GATEWAY + route(mirrored.replace("two", "nobody")))
    assert found.faults == ("Service default/nobody not found",)
    assert found.branches[0].sent is not None


def test_a_copy_is_told_from_the_request_of_the_same_service() -> None:
    mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: one, port: 80}}}"
    of_rule = f"[{{filters: [{mirror}], backendRefs: [{{name: one, port: 80}}]}}]"
    of_backend = f"[{{backendRefs: [{{name: one, port: 80, filters: [{mirror}]}}]}}]"
    for rules in (of_rule, of_backend):
        (branch,) = asked(GATEWAY + route(rules)).branches
        assert branch.sent is not None
        (copy,) = branch.copies
        assert (branch.sent.backend, copy.backend) == ("default/one:80", "default/one:80")
        assert dict(branch.sent.fields)["Host"] == "web.example"
        assert dict(copy.fields)["Host"] == "web.example-shadow"


def test_policies_about_retries_and_sessions_have_their_origin() -> None:
    policy = """
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: budget}
spec:
  targetRefs: [{group: "", kind: Service, name: one}]
  retryConstraint: {budget: {percent: 33}}
  sessionPersistence: {sessionName: of-service}
"""
    found = str(asked(GATEWAY + route(ONE) + policy))
    assert "retryConstraint.budget.percent = 33 <- XBackendTrafficPolicy default/budget" in found
    assert (
        "sessionPersistence.sessionName = of-service <- XBackendTrafficPolicy default/budget"
        in found
    )

    own = ONE.replace("]}]", "], sessionPersistence: {sessionName: of-rule}}]")
    explained = asked(GATEWAY + route(own) + policy)
    (unused,) = [one for one in explained.settings if one.value == "of-service"]
    assert unused.unused is not None
    assert "HTTPRoute default/web" in unused.unused
    assert "of-service" not in str(explained)


def test_a_preflight_request_is_answered_by_the_proxy() -> None:
    cors = """[{filters: [{type: CORS, cors: {allowOrigins: ["https://a.example"],
      allowMethods: [PUT]}}], backendRefs: [{name: one, port: 80}]}]"""
    found = asked(
        GATEWAY + route(cors),
        method="OPTIONS",
        headers={"Origin": "https://a.example", "Access-Control-Request-Method": "PUT"},
    )

    assert found.answer is not None
    assert dict(found.answer.headers)["access-control-allow-origin"] == "https://a.example"
    assert found.branches[0].sent is None


def test_a_backend_that_redirects_answers_for_its_share() -> None:
    both = """[{backendRefs: [{name: one, port: 80}, {name: two, port: 80, filters: [
      {type: RequestRedirect, requestRedirect: {hostname: other.example}}]}]}]"""
    forwarded, redirected = asked(GATEWAY + route(both), "http://web.example/x").branches

    assert forwarded.sent is not None
    assert redirected.sent is None
    assert redirected.answer is not None
    assert redirected.answer.status == 302
    assert redirected.answer.why == "a redirect to http://other.example/x"


def test_a_call_of_grpc_has_its_fields() -> None:
    found = asked(GATEWAY + route(ONE), "http://web.example/pkg.S/M", "POST", grpc=True)
    assert found.branches[0].sent is not None
    assert ("content-type", "application/grpc") in found.branches[0].sent.fields

    found = asked(GATEWAY, "http://web.example/pkg.S/M", "POST", grpc=True)
    assert found.answer is not None
    assert dict(found.answer.headers)["grpc-status"] == "12"


# === Settings ===

POLICIES = """
---
apiVersion: gateway.kgateway.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: own}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}]
  rateLimit: {local: {tokenBucket: {maxTokens: 1, fillInterval: 60s}}}
---
apiVersion: gateway.kgateway.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: wide}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]
  rateLimit: {local: {tokenBucket: {maxTokens: 100, fillInterval: 1s}}}
  timeouts: {request: 7s}
---
apiVersion: gateway.kgateway.dev/v1alpha1
kind: ListenerPolicy
metadata: {name: listeners}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]
  default: {httpSettings: {idleTimeout: 30s}}
---
apiVersion: gateway.kgateway.dev/v1alpha1
kind: BackendConfigPolicy
metadata: {name: slow}
spec:
  targetRefs: [{group: "", kind: Service, name: one}]
  connectTimeout: 9s
"""


def test_every_field_that_counts_has_its_origin() -> None:
    gateway = GATEWAY.replace(
        "{name: edge}", "{name: edge, annotations: {kgw.dev/strict-paths: 'true'}}"
    )
    found = asked(gateway + route(ONE) + POLICIES)

    said = {(one.scope, one.field): (one.value, one.source, one.unused) for one in found.settings}
    assert said["request", "rateLimit.local.tokenBucket.maxTokens"] == (
        100,
        "TrafficPolicy default/wide",
        "TrafficPolicy default/own sets it",
    )
    counting = {
        (one.scope, one.field): (one.value, one.source)
        for one in found.settings
        if one.unused is None
    }
    assert counting == {
        ("rule", "backendRefs[0].name"): ("one", "HTTPRoute default/web"),
        ("rule", "backendRefs[0].port"): (80, "HTTPRoute default/web"),
        ("request", "rateLimit.local.tokenBucket.maxTokens"): (1, "TrafficPolicy default/own"),
        ("request", "rateLimit.local.tokenBucket.fillInterval"): (
            "60s",
            "TrafficPolicy default/own",
        ),
        ("request", "timeouts.request"): ("7s", "TrafficPolicy default/wide"),
        ("listener", "default.httpSettings.idleTimeout"): (
            "30s",
            "ListenerPolicy default/listeners",
        ),
        ("listener", "strict-paths"): ("true", "Gateway default/edge"),
        ("backend default/one:80", "connectTimeout"): (
            "9s",
            "BackendConfigPolicy default/slow",
        ),
    }
    places = {(one.field, one.source): one.place for one in found.settings}
    lines = (gateway + route(ONE) + POLICIES).splitlines()
    for (field, source), place in places.items():
        assert place is not None, (field, source)
        _, line, column = place.rsplit(":", 2)
        written = lines[int(line) - 1][int(column) - 1 :]
        value = next(o.value for o in found.settings if (o.field, o.source) == (field, source))
        assert written.strip("'\"").startswith(str(value)), (field, written)


def test_a_time_out_of_the_rule_counts_before_a_policys_and_the_default_last() -> None:
    own = "[{timeouts: {request: 3s}, backendRefs: [{name: one, port: 80}]}]"
    found = asked(GATEWAY + route(own) + POLICIES)
    (wide,) = (
        one for one in found.settings if one.field == "timeouts.request" and one.scope == "request"
    )
    assert wide.unused == "the rule says itself how long its requests may take"

    (default,) = (o for o in asked(GATEWAY + route(ONE)).settings if o.scope == "request")
    assert (default.value, default.source, default.place) == ("15s", "default, as kgateway's", None)


def test_certificates_are_not_shown() -> None:
    tls = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: tls}
spec:
  targetRefs: [{group: "", kind: Service, name: one}]
  validation: {hostname: one.example, wellKnownCACertificates: System}
"""
    _, key = issued("a.example", "b.example")
    found = asked(GATEWAY + HTTPS + route(ONE) + tls, "https://a.example/")

    text = json.dumps(found.to_json()) + str(found)
    assert "BEGIN" not in text
    assert key.splitlines()[1] not in text
    assert found.branches[0].connection["tls"]["sni"] == "one.example"
    fields = {one.field: one.value for one in found.settings if one.scope.startswith("backend")}
    assert fields["validation.hostname"] == "one.example"


# === The mesh ===


def mesh(url: str, **options: Any) -> Explanation:
    return explain(kgw.load(ROOT / "examples" / "waypoint"), Question.of("GET", url, **options))


@pytest.mark.parametrize(
    ("url", "to"),
    [
        ("http://ollama/", None),
        ("http://ollama.default.svc.cluster.local./", None),
        ("http://10.96.238.187/", None),
        ("http://anything.example/", "default/ollama"),
        ("http://anything.example/", "ollama:80"),
        ("http://anything.example/", "10.96.238.187:80"),
    ],
)
def test_a_service_is_named_as_clients_do(url: str, to: str | None) -> None:
    found = mesh(url, to=to)

    assert found.service == "default/ollama"
    assert found.route is not None
    assert found.route.name == "default/ollama/0/0"
    assert found.branches[0].endpoints == ("127.0.0.4:11434",)


def test_a_short_name_is_of_the_clients_namespace() -> None:
    who = MeshIdentity("cluster.local", "other", "sleep")

    assert mesh("http://ollama.default/", identity=who).service == "default/ollama"
    found = mesh("http://ollama/", identity=who)
    assert found.service is None
    assert found.closed is not None
    assert "no waypoint serves ollama:80" in found.closed


SERVICE = '{group: "", kind: Service, name: web, namespace: default}'


def of_service(kind: str, name: str, namespace: str, backend: str, more: str = "") -> str:
    return f"""
---
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  parentRefs: [{SERVICE}]
  {more}
  rules: [{{backendRefs: [{{name: {backend}, namespace: default, port: 80}}]}}]
"""


def test_clients_of_some_namespaces_have_routes_of_their_own() -> None:
    manifests = (
        MESH
        + of_service("HTTPRoute", "ours", "default", "web")
        + of_service("HTTPRoute", "theirs", "shop", "api")
    )
    shop = MeshIdentity("cluster.local", "shop", "cart")

    assert asked(manifests, "http://web.default/").route is not None
    found = asked(manifests, "http://web.default/", identity=shop)
    assert found.route is not None
    assert found.route.name == "shop/theirs/0/0"
    (taken,) = (one for one in found.listeners if one.taken)
    assert taken.reason.endswith("; the routes of the clients in namespace shop are used")
    found = asked(manifests, "http://web.default/")
    assert found.route is not None
    assert found.route.name == "default/ours/0/0"


def test_tls_to_a_service_is_passed_on_by_its_name() -> None:
    manifests = MESH + of_service("TLSRoute", "tls", "default", "api", "hostnames: [a.example]")

    found = asked(manifests, "https://a.example:80/", to="web")
    assert [one.backend for one in found.passed_on] == ["default/api:80"]
    found = asked(manifests, "https://b.example:80/", to="web")
    assert found.closed == "no TLSRoute is for server name b.example"
    assert asked(manifests, "http://web/").closed == "the service's TLSRoutes close what is no TLS"
    # A port for requests does not take encrypted ones.
    closed = asked(MESH, "https://web:80/").closed
    assert closed == "the service port carries requests, which are not encrypted"


def test_a_grpc_route_is_a_candidate_as_any_other() -> None:
    calls = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls}
spec:
  parentRefs: [{name: edge}]
  rules:
  - matches: [{method: {type: RegularExpression, service: "shop[.].*", method: "Get.*"}}]
    backendRefs: [{name: two, port: 80}]
"""
    manifests = GATEWAY + calls + route(ONE)

    found = asked(manifests, "http://web.example/shop.Cart/GetItem", "POST", grpc=True)
    assert found.route is not None
    assert (found.route.name, found.route.resource) == (
        "default/calls/0/0",
        "GRPCRoute default/calls",
    )
    assert found.route.place is not None
    assert [one.backend for one in found.branches] == ["default/two:80"]
    assert not any(one.field == "timeouts.request" for one in found.settings)

    found = asked(manifests, "http://web.example/shop.Cart/Put", "POST", grpc=True)
    (call,) = (one for one in found.candidates if one.resource == "GRPCRoute default/calls")
    assert call.reason.startswith("the path /shop.Cart/Put is not what the expression ")
    assert "header" not in call.reason


# === Questions ===


@pytest.mark.parametrize(
    ("method", "url", "options", "message"),
    [
        ("GET", "/path", {}, "is not a URL"),
        ("GET", "ftp://x/", {}, "is not a URL"),
        ("G T", "http://x/", {}, "not a method"),
        ("CONNECT", "http://x/", {}, "no path"),
        ("GET", "http://x/a b", {}, "perhaps as 'http://x/a%20b'"),
        ("GET", "http://x:99999/", {}, "Port out of range"),
        ("GET", "http://x/", {"headers": {"a b": "c"}}, "not a header field"),
        ("GET", "http://x/", {"headers": {"a": "b\r\nc: d"}}, "not a header field"),
        ("GET", "http://x/", {"sni": "x"}, "in TLS"),
        ("GET", "http://x/", {"to": "x"}, "no waypoint is served"),
    ],
)
def test_a_question_that_is_none_is_refused(
    method: str, url: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        asked(GATEWAY, url, method, **options)


def test_nothing_is_bound() -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        found = asked(GATEWAY.replace("80,", f"{port},") + route(ONE), f"http://x:{port}/")
    assert found.branches[0].sent is not None
