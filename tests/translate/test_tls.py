"""TLS and TCP listeners in the representation: chains, tables and where connections go."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.attach.test_tls_listeners import CERT, frontend, gateway, https, tls
from tests.translate.certificates import authority, config_map, issued, secret
from tests.translate.support import ROUTE, codes, hosts, run, run_all, status, verdict

if TYPE_CHECKING:
    from kgw.translate import Translation

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.0.0.1, ports: [{name: tls, port: 443}]}
"""
CLOSED = {"type": "passthrough", "forward": {"name": "", "backends": []}}
WEB = {"cluster": "kube_default_web_443", "weight": 1}
TABLE = "gateway/default/edge/443"


def stream_route(
    name: str,
    hostnames: str = "",
    *,
    parent: str = "{name: edge}",
    backends: str = "{name: web, port: 443}",
    kind: str = "TLSRoute",
    version: str = "v1alpha2",
) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/{version}
kind: {kind}
metadata: {{name: {name}}}
spec:
  parentRefs: [{parent}]
  {hostnames and f"hostnames: {hostnames}"}
  rules: [{{backendRefs: [{backends}]}}]
"""


def http_route(name: str, hostnames: str = "[]", parent: str = "{name: edge}") -> str:
    text = ROUTE.replace("{name: route}", f"{{name: {name}}}").replace("{name: edge}", parent)
    return text.replace("spec:", f"spec:\n  hostnames: {hostnames}")


def chains(found: Translation) -> dict[str, dict[str, Any]]:
    (only,) = found.ir["listeners"]
    assert only["traffic"]["type"] == "tls"
    return {one["name"]: one for one in only["traffic"]["chains"]}


def served(found: Translation) -> dict[str, str]:
    """The chains by server name; empty where connections are closed."""
    return {
        name: "" if chain["action"] == CLOSED else chain["name"]
        for chain in chains(found).values()
        for name in chain["server_names"]
    }


# === HTTPS ===


def test_each_listener_of_a_port_has_a_chain_and_a_table_of_its_own() -> None:
    found = run(
        gateway(https("a", hostname="a.example"), https("any")),
        secret("cert"),
        http_route("all", parent="{name: edge}"),
        http_route("wide", "[b.example, a.example]", "{name: edge, sectionName: any}"),
    )
    assert [one["id"] for one in found.ir["listeners"]] == ["default/edge/a"]
    chain, key = issued("a.example")
    action = {"type": "http", "tls": {"certificates": [{"chain": chain, "key": key}]}}
    assert list(chains(found).values()) == [
        {
            "name": "a",
            "server_names": ["a.example"],
            "action": {**action, "route_table": f"{TABLE}/a"},
        },
        {"name": "any", "server_names": ["*"], "action": {**action, "route_table": f"{TABLE}/any"}},
    ]
    assert hosts(found, f"{TABLE}/a") == {
        "a.example": ["httproute/default/all/0/0"],
        "*": ["misdirected"],
    }
    assert hosts(found, f"{TABLE}/any") == {
        "*": ["httproute/default/all/0/0"],
        "a.example": ["misdirected"],
        "b.example": ["httproute/default/wide/0/0"],
    }
    assert found.ir["routes"][f"misdirected@{TABLE}/a"]["action"] == {
        "type": "direct",
        "status": 421,
    }


def test_a_listener_alone_misdirects_nothing() -> None:
    found = run(gateway(https(hostname="a.example")), secret("cert"))
    assert hosts(found, f"{TABLE}/https") == {"a.example": []}
    assert found.ir["routes"] == {}


def test_the_name_of_a_broken_listener_is_closed() -> None:
    bad = https("bad", "certificateRefs: [{name: none}]", "a.example")
    found = run(gateway(bad, https("any")), secret("cert"))
    assert served(found) == {"a.example": "", "*": "any"}
    assert hosts(found, f"{TABLE}/any") == {"*": [], "a.example": ["misdirected"]}


def test_names_that_listeners_quarrel_about_are_closed() -> None:
    found = run(
        gateway(https("a", hostname="a.example"), tls("b", hostname="a.example"), https("any")),
        secret("cert"),
    )
    assert served(found) == {"a.example": "", "*": "any"}


def test_options_narrow_tls() -> None:
    options = """
kgateway.dev/min-tls-version: "1.3", kgateway.dev/max-tls-version: "1.3",
kgateway.dev/cipher-suites: "TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384",
kgateway.dev/alpn-protocols: "http/1.1"
""".replace("\n", " ")
    found = run(gateway(https(tls=f"{CERT}, options: {{{options}}}")), secret("cert"))
    ended = chains(found)["https"]["action"]["tls"]
    assert ended["parameters"] == {
        "min_version": "1.3",
        "max_version": "1.3",
        "cipher_suites": ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"],
    }
    assert ended["alpn"] == ["http/1.1"]
    none = f"{CERT}, options: {{kgateway.dev/alpn-protocols: allow-empty}}"
    found = run(gateway(https(tls=none)), secret("cert"))
    assert chains(found)["https"]["action"]["tls"]["alpn"] == []


def test_a_certificate_is_asked_of_the_clients_of_https() -> None:
    names = "{kgateway.dev/verify-subject-alt-names: 'b.example,spiffe://a/b'}"
    found = run(
        gateway(
            https(tls=f"{CERT}, options: {names}"),
            tls("tls", "Terminate", "b.example"),
            tls=frontend(),
        ),
        secret("cert"),
        config_map("ca"),
        stream_route("b"),
        SERVICE,
    )
    assert chains(found)["https"]["action"]["tls"]["client_validation"] == {
        "ca": authority(),
        "mode": "require",
        "subject_alt_names": [
            {"type": "dns", "value": "b.example"},
            {"type": "uri", "value": "spiffe://a/b"},
        ],
    }
    assert "client_validation" not in chains(found)["tls/default/b/0"]["action"]["tls"]


@pytest.mark.parametrize("place", ["default", "perPort", "listener"])
def test_client_certificates_are_asked_for_in_three_places(place: str) -> None:
    validation = (
        "{caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}, "
        "{group: '', kind: ConfigMap, name: none}], mode: AllowInsecureFallback}"
    )
    top, own = "", CERT
    if place == "listener":
        own = f"{CERT}, frontendValidation: {validation}"
    elif place == "default":
        top = f"{{frontend: {{default: {{validation: {validation}}}}}}}"
    else:
        ports = f"[{{port: 443, tls: {{validation: {validation}}}}}]"
        top = f"{{frontend: {{default: {{}}, perPort: {ports}}}}}"
    found = run(gateway(https(tls=own), tls=top), secret("cert"), config_map("ca"))
    # An authority that cannot be used leaves the others.
    assert chains(found)["https"]["action"]["tls"]["client_validation"] == {
        "ca": authority(),
        "mode": "insecure_fallback",
        "subject_alt_names": [],
    }
    assert codes(found) == ["KGW312", "KGW424"]


def test_what_a_port_says_replaces_the_default() -> None:
    top = frontend().replace("}}}}", "}}, perPort: [{port: 443, tls: {}}]}}")
    found = run(gateway(https(), tls=top), secret("cert"), config_map("ca"))
    assert "client_validation" not in chains(found)["https"]["action"]["tls"]


def test_a_changed_certificate_changes_its_own_chain_only() -> None:
    texts = (
        gateway(https("a", hostname="a.example"), https("b", "certificateRefs: [{name: two}]")),
    )
    routes = http_route("all")
    before = run(*texts, routes, secret("cert"), secret("two")).ir
    after = run(*texts, routes, secret("cert"), secret("two", "b.example")).ir
    assert before.keys() == after.keys()
    for part in ("route_tables", "routes", "clusters"):
        assert json.dumps(before[part]) == json.dumps(after[part])
    (old,), (new,) = before["listeners"], after["listeners"]
    first, second = new["traffic"]["chains"]
    assert first == old["traffic"]["chains"][0]
    certificates = second["action"]["tls"].pop("certificates")
    assert certificates != old["traffic"]["chains"][1]["action"]["tls"].pop("certificates")
    assert certificates[0]["chain"] == issued("b.example")[0]
    assert {**new, "traffic": None} == {**old, "traffic": None}
    assert second == old["traffic"]["chains"][1]


# === TLSRoute ===


def test_connections_are_passed_through_by_name() -> None:
    found = run(
        gateway(tls("tls")),
        SERVICE,
        stream_route("a", "[a.example, b.example]", version="v1"),
        stream_route("wild", "['*.example']", version="v1alpha3"),
    )
    forward = {"name": "default/a/0", "backends": [WEB]}
    assert chains(found)["tls/default/a/0"] == {
        "name": "tls/default/a/0",
        "server_names": ["a.example", "b.example"],
        "action": {"type": "passthrough", "forward": forward},
    }
    assert served(found) == {
        "a.example": "tls/default/a/0",
        "b.example": "tls/default/a/0",
        "*.example": "tls/default/wild/0",
        "*": "",
    }
    assert found.ir["clusters"].keys() == {"kube_default_web_443"}
    assert verdict(found, "TLSRoute default/a", "Accepted") == ("True", "Accepted")
    assert verdict(found, "TLSRoute default/a", "ResolvedRefs") == ("True", "ResolvedRefs")
    assert [one.attached_routes for one in status(found, "Gateway default/edge").listeners] == [2]
    assert codes(found) == []


@pytest.mark.parametrize(
    ("listener", "hostnames", "names"),
    [
        ("a.example", "[a.example]", ["a.example"]),
        ("*.example", "[a.example, a.test]", ["a.example"]),
        ("a.b.example", "['*.example']", ["a.b.example"]),
        ("*.b.example", "['*.example']", ["*.b.example"]),
        ("*.example", "['*.b.example']", ["*.b.example"]),
        ("*.example", "", ["*.example"]),
        ("", "", ["*"]),
    ],
)
def test_names_are_what_listener_and_route_have_in_common(
    listener: str, hostnames: str, names: list[str]
) -> None:
    found = run(gateway(tls("tls", hostname=listener)), SERVICE, stream_route("a", hostnames))
    assert chains(found)["tls/default/a/0"]["server_names"] == names


def test_a_route_without_a_common_name_is_not_accepted() -> None:
    found = run(gateway(tls("tls", hostname="a.test")), SERVICE, stream_route("a", "[a.example]"))
    assert verdict(found, "TLSRoute default/a", "Accepted") == (
        "False",
        "NoMatchingListenerHostname",
    )
    assert served(found) == {"a.test": ""}
    assert codes(found) == ["KGW402"]


def test_names_of_a_narrower_listener_are_its_own() -> None:
    found = run(
        gateway(tls("any"), tls("wild", hostname="*.example")),
        SERVICE,
        stream_route("a", "[a.example, a.test]", parent="{name: edge, sectionName: any}"),
    )
    assert served(found) == {"a.test": "any/default/a/0", "*": "", "*.example": ""}


def test_a_terminating_listener_passes_on_what_is_inside() -> None:
    found = run(
        gateway(
            tls("end", "Terminate", "end.example"),
            tls("pass", hostname="pass.example"),
            https(hostname="web.example"),
        ),
        secret("cert"),
        SERVICE,
        stream_route("all"),
    )
    chain, key = issued("a.example")
    assert chains(found)["end/default/all/0"]["action"] == {
        "type": "tcp",
        "tls": {"certificates": [{"chain": chain, "key": key}]},
        "forward": {"name": "default/all/0", "backends": [WEB]},
    }
    assert chains(found)["pass/default/all/0"]["action"]["type"] == "passthrough"
    assert chains(found)["https"]["action"]["type"] == "http"


def test_a_tcp_route_takes_the_names_that_no_tls_route_has() -> None:
    found = run(
        gateway(tls("end", "Terminate")),
        secret("cert"),
        SERVICE,
        stream_route("a", kind="TCPRoute"),
        stream_route("b", "[b.example]"),
    )
    assert served(found) == {"*": "end/default/a/0", "b.example": "end/default/b/0"}


def test_of_two_routes_for_a_name_the_older_is_served() -> None:
    young = stream_route("a", "[a.example, b.example]").replace(
        "{name: a}", "{name: a, creationTimestamp: '2024-01-02T00:00:00Z'}"
    )
    old = stream_route("b", "[a.example]").replace(
        "{name: b}", "{name: b, creationTimestamp: '2024-01-01T00:00:00Z'}"
    )
    found = run(gateway(tls("tls")), SERVICE, young, old)
    assert served(found) == {
        "a.example": "tls/default/b/0",
        "b.example": "tls/default/a/0",
        "*": "",
    }
    assert codes(found) == []


@pytest.mark.parametrize(
    ("backends", "reason", "code"),
    [
        ("{name: none, port: 443}", "BackendNotFound", "KGW307"),
        ("{name: web, port: 444}", "BackendNotFound", "KGW307"),
        ("{name: web, kind: Bucket, group: x.example}", "InvalidKind", "KGW309"),
        ("{name: web, namespace: other, port: 443}", "RefNotPermitted", "KGW308"),
    ],
)
def test_a_share_without_a_backend_is_closed(backends: str, reason: str, code: str) -> None:
    found = run(
        gateway(tls("tls")),
        SERVICE,
        SERVICE.replace("{name: web}", "{name: web, namespace: other}"),
        stream_route("a", backends="{name: web, port: 443, weight: 9}, " + backends),
    )
    assert chains(found)["tls/default/a/0"]["action"]["forward"]["backends"] == [
        {**WEB, "weight": 9},
        {"cluster": None, "weight": 1},
    ]
    assert verdict(found, "TLSRoute default/a", "ResolvedRefs") == ("False", reason)
    assert codes(found) == [code]


def test_a_route_for_another_kind_of_listener_is_not_allowed() -> None:
    found = run(
        gateway("{name: http, port: 80, protocol: HTTP}", https()),
        secret("cert"),
        SERVICE,
        stream_route("a"),
    )
    assert verdict(found, "TLSRoute default/a", "Accepted") == ("False", "NotAllowedByListeners")
    assert {one.attached_routes for one in status(found, "Gateway default/edge").listeners} == {0}
    http = run(gateway(tls("tls")), ROUTE)
    assert verdict(http, "HTTPRoute default/route", "Accepted") == (
        "False",
        "NotAllowedByListeners",
    )


@pytest.mark.parametrize("version", ["v1", "v1alpha3"])
def test_newer_versions_need_hostnames(version: str) -> None:
    _, findings = run_all(gateway(tls("tls")), SERVICE, stream_route("a", version=version))
    assert [(one.code, one.field) for one in findings] == [("KGW208", "spec.hostnames")]


def test_a_refused_route_closes_its_names() -> None:
    refused = stream_route("a", "[a.example, 1]", version="v1")
    found, _ = run_all(
        gateway(tls("tls")), SERVICE, refused, stream_route("b", "['*.example']", version="v1")
    )
    assert chains(found)["tls/default/a/0"] == {
        "name": "tls/default/a/0",
        "server_names": ["a.example"],
        "action": {"type": "passthrough", "forward": {"name": "default/a/0", "backends": []}},
    }
    assert verdict(found, "TLSRoute default/a", "Accepted") == ("False", "UnsupportedValue")


# === TCP ===


def tcp(name: str = "tcp", port: int = 90) -> str:
    return f"{{name: {name}, port: {port}, protocol: TCP}}"


def test_a_tcp_listener_passes_everything_on() -> None:
    backends = "{name: web, port: 443, weight: 3}, {name: web, port: 443, weight: 0}"
    found = run(
        gateway(tcp()), SERVICE, stream_route("a", kind="TCPRoute", version="v1", backends=backends)
    )
    (listener,) = found.ir["listeners"]
    assert listener["id"] == "default/edge/tcp"
    assert listener["traffic"] == {
        "type": "tcp",
        "forward": {
            "name": "default/a/0",
            "backends": [{**WEB, "weight": 3}, {**WEB, "weight": 0}],
        },
    }
    assert codes(found) == []


def test_a_tcp_listener_without_a_route_closes_connections() -> None:
    (listener,) = run(gateway(tcp())).ir["listeners"]
    assert listener["traffic"] == {"type": "tcp", "forward": {"name": "", "backends": []}}


def test_both_tcp_routes_are_attached_and_the_first_is_served() -> None:
    found = run(
        gateway(tcp()),
        SERVICE,
        stream_route("b", kind="TCPRoute"),
        stream_route("a", kind="TCPRoute"),
    )
    assert found.ir["listeners"][0]["traffic"]["forward"]["name"] == "default/a/0"
    assert [one.attached_routes for one in status(found, "Gateway default/edge").listeners] == [2]
    assert [(one.code, one.resource) for one in found.findings] == [
        ("KGW420", "TCPRoute default/b")
    ]


def test_a_tcp_route_has_one_rule_that_counts() -> None:
    route = stream_route("a", kind="TCPRoute").replace(
        "rules: [", "rules: [{name: first, backendRefs: [{name: web, port: 443}]}, "
    )
    found = run(gateway(tcp()), SERVICE, route)
    assert found.ir["listeners"][0]["traffic"]["forward"]["name"] == "default/a/first"
    assert [(one.code, one.field) for one in found.findings] == [("KGW420", "spec.rules[1]")]


@pytest.mark.parametrize(
    ("parent", "ports"),
    [
        ("{name: edge}", [90, 91]),
        ("{name: edge, port: 91}", [91]),
        ("{name: edge, sectionName: a}", [90]),
        ("{name: edge, sectionName: a, port: 91}", []),
    ],
)
def test_a_tcp_route_is_on_the_listeners_that_it_names(parent: str, ports: list[int]) -> None:
    found = run(
        gateway(tcp("a"), tcp("b", 91)), SERVICE, stream_route("a", kind="TCPRoute", parent=parent)
    )
    assert [
        int(one["bind"][0].rpartition(":")[2])
        for one in found.ir["listeners"]
        if one["traffic"]["forward"]["backends"]
    ] == ports
