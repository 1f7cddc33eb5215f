"""Which policy about a backend holds, what it comes to, and what its status says."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from tests.translate.support import EDGE, MESH, ROUTE, actions, codes, load, run, run_all, status

from kgw._native.engine import Engine
from kgw.translate import Options, translate

if TYPE_CHECKING:
    from kgw.translate import Translation

pytestmark = pytest.mark.fields(
    "BackendConfigPolicy.spec.commonHttpProtocolOptions",
    "BackendConfigPolicy.spec.http1ProtocolOptions",
    "BackendConfigPolicy.spec.tls.alpnProtocols",
    "BackendConfigPolicy.spec.tls.insecureSkipVerify",
    "BackendConfigPolicy.spec.tls.parameters",
    "BackendConfigPolicy.spec.tls.secretRef",
    "BackendConfigPolicy.spec.tls.simpleTLS",
    "BackendConfigPolicy.spec.tls.sni",
    "BackendConfigPolicy.spec.tls.verifySubjectAltNames",
    "BackendConfigPolicy.spec.upstreamProxyProtocol",
    without=(
        "BackendConfigPolicy.spec.commonHttpProtocolOptions.idleTimeout",
        "BackendConfigPolicy.spec.commonHttpProtocolOptions.maxHeadersCount",
        "BackendConfigPolicy.spec.commonHttpProtocolOptions.maxStreamDuration",
        "BackendConfigPolicy.spec.http1ProtocolOptions.overrideStreamErrorOnInvalidHttpMessage",
        "BackendConfigPolicy.spec.http1ProtocolOptions.preserveHttp1HeaderCase",
        "BackendConfigPolicy.spec.tls.parameters.ecdhCurves",
        "BackendConfigPolicy.spec.tls.parameters.signatureAlgorithms",
    ),
)

AUTHORITY = trustme.CA()
CA = AUTHORITY.cert_pem.bytes().decode()
LEAF = AUTHORITY.issue_cert("client.example")
CHAIN = LEAF.cert_chain_pems[0].bytes().decode()
KEY = LEAF.private_key_pem.bytes().decode()

TLS = "BackendTLSPolicy default/a"
CONFIG = "BackendConfigPolicy default/a"

WEB = "kube_default_web_80"

#: A Service with two ports, and a route to each.
PORTS = EDGE.replace(
    "ports: [{name: http, port: 80}]", "ports: [{name: http, port: 80}, {name: admin, port: 81}]"
)
ROUTES = ROUTE.replace(
    "rules: [{backendRefs: [{name: web, port: 80}]}]",
    "rules: [{backendRefs: [{name: web, port: 80}]}, "
    "{matches: [{path: {value: /admin}}], backendRefs: [{name: web, port: 81}]}]",
)


def config_map(text: str = CA, name: str = "ca", key: str = "ca.crt") -> str:
    return f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: {name}}}
data: {{{key}: {json.dumps(text)}}}
"""


def secret(**values: str) -> str:
    data = {
        key.replace("_", "."): base64.b64encode(text.encode()).decode()
        for key, text in values.items()
    }
    return f"""
apiVersion: v1
kind: Secret
metadata: {{name: pair}}
data: {json.dumps(data)}
"""


def tls_policy(
    name: str = "a",
    validation: str = "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]",
    *,
    target: str = "{group: '', kind: Service, name: web}",
    hostname: str = "web.example",
    created: str = "2024-01-01",
    version: str = "v1",
    more: str = "",
) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/{version}
kind: BackendTLSPolicy
metadata: {{name: {name}, generation: 3, creationTimestamp: {created}T00:00:00Z}}
spec:
  targetRefs: [{target}]
  validation: {{hostname: {hostname}, {validation}}}
  {more}
"""


def config_policy(
    spec: str,
    name: str = "a",
    *,
    target: str = "targetRefs: [{group: '', kind: Service, name: web}]",
    created: str = "2024-01-01",
) -> str:
    return f"""
apiVersion: gateway.kgateway.dev/v1alpha1
kind: BackendConfigPolicy
metadata: {{name: {name}, creationTimestamp: {created}T00:00:00Z}}
spec:
  {target}
  {spec}
"""


def cluster(found: Translation, name: str = WEB) -> dict[str, Any]:
    return {key: value for key, value in found.ir["clusters"][name].items() if key != "endpoints"}


def conditions(found: Translation, resource: str) -> list[tuple[str, str, str, str]]:
    return [
        (what, one.type, one.status, one.reason)
        for what, one in status(found, resource).all_conditions()
    ]


def unconnected(found: Translation) -> bool:
    """Whether requests to the Service are answered 500 and go nowhere."""
    assert WEB not in found.ir["clusters"]
    (action,) = actions(found).values()
    return bool(action["backends"] == [{"cluster": None, "weight": 1, "filters": []}])


# === BackendTLSPolicy ===


@pytest.mark.parametrize("version", ["v1", "v1alpha3"])
def test_a_policy_asks_for_tls(version: str) -> None:
    found = run(EDGE, ROUTE, config_map(), tls_policy(version=version))
    assert cluster(found) == {"tls": {"trust": {"type": "ca", "value": CA}, "sni": "web.example"}}
    assert conditions(found, TLS) == [
        ("Gateway default/edge", "Accepted", "True", "Accepted"),
        ("Gateway default/edge", "ResolvedRefs", "True", "ResolvedRefs"),
    ]
    (entry,) = status(found, TLS).ancestors
    assert {one.observed_generation for one in entry.conditions} == {3}
    assert entry.ref["group"] == "gateway.networking.k8s.io"
    assert codes(found) == []


def test_the_authorities_of_the_system() -> None:
    found = run(EDGE, ROUTE, tls_policy(validation="wellKnownCACertificates: System"))
    assert cluster(found) == {"tls": {"trust": {"type": "system"}, "sni": "web.example"}}


def test_names_that_the_certificate_may_have() -> None:
    names = (
        "wellKnownCACertificates: System, subjectAltNames: [{type: Hostname, hostname: a.example}, "
        "{type: URI, uri: 'spiffe://cluster.local/ns/a/sa/b'}]"
    )
    found = run(EDGE, ROUTE, tls_policy(validation=names))
    assert cluster(found)["tls"]["subject_alt_names"] == [
        {"type": "dns", "value": "a.example"},
        {"type": "uri", "value": "spiffe://cluster.local/ns/a/sa/b"},
    ]


def test_authorities_in_a_secret_and_in_several_objects() -> None:
    other = trustme.CA().cert_pem.bytes().decode()
    refs = (
        "caCertificateRefs: [{group: '', kind: Secret, name: pair}, "
        "{group: '', kind: ConfigMap, name: ca}]"
    )
    found = run(EDGE, ROUTE, secret(ca_crt=other), config_map(), tls_policy(validation=refs))
    assert cluster(found)["tls"]["trust"] == {"type": "ca", "value": f"{other}\n{CA}"}


@pytest.mark.parametrize(
    ("given", "kind", "code", "reason"),
    [
        ("", "ConfigMap", "KGW312", "InvalidCACertificateRef"),
        (config_map(""), "ConfigMap", "KGW313", "InvalidCACertificateRef"),
        (config_map(key="ca.pem"), "ConfigMap", "KGW313", "InvalidCACertificateRef"),
        (config_map("no certificate"), "ConfigMap", "KGW313", "InvalidCACertificateRef"),
        (config_map(CA.replace("M", "N")), "ConfigMap", "KGW313", "InvalidCACertificateRef"),
        (config_map(), "Service", "KGW309", "InvalidKind"),
    ],
    ids=["missing", "empty", "key", "text", "malformed", "kind"],
)
def test_a_policy_without_authorities_leaves_its_service_without_connections(
    given: str, kind: str, code: str, reason: str
) -> None:
    refs = f"caCertificateRefs: [{{group: '', kind: {kind}, name: ca}}]"
    texts = [EDGE, ROUTE, tls_policy(validation=refs), *([given] if given else [])]
    found = run(*texts)
    assert codes(found) == [code]
    assert unconnected(found)
    assert conditions(found, TLS) == [
        ("Gateway default/edge", "Accepted", "False", "NoValidCACertificate"),
        ("Gateway default/edge", "ResolvedRefs", "False", reason),
    ]


def test_authorities_that_can_be_used_are_enough() -> None:
    refs = (
        "caCertificateRefs: [{group: '', kind: ConfigMap, name: none}, "
        "{group: '', kind: ConfigMap, name: ca}]"
    )
    found = run(EDGE, ROUTE, config_map(), tls_policy(validation=refs))
    assert cluster(found)["tls"]["trust"]["value"] == CA
    assert [one[2:] for one in conditions(found, TLS)] == [
        ("True", "Accepted"),
        ("False", "InvalidCACertificateRef"),
    ]


def test_other_sets_of_authorities_are_not_known() -> None:
    found = run(EDGE, ROUTE, tls_policy(validation="wellKnownCACertificates: one.example/Ours"))
    assert codes(found) == ["KGW501"]
    assert unconnected(found)


def test_of_two_policies_on_one_service_the_older_holds() -> None:
    found = run(
        EDGE,
        ROUTE,
        config_map(),
        tls_policy("a", hostname="new.example"),
        tls_policy("z", hostname="old.example", created="2023-01-01"),
    )
    assert cluster(found)["tls"]["sni"] == "old.example"
    assert conditions(found, TLS)[0][2:] == ("False", "Conflicted")
    assert conditions(found, "BackendTLSPolicy default/z")[0][2:] == ("True", "Accepted")
    assert codes(found) == ["KGW411"]


def test_the_older_policy_holds_even_if_it_cannot_be_used() -> None:
    broken = tls_policy(
        "z", "caCertificateRefs: [{group: '', kind: ConfigMap, name: none}]", created="2023-01-01"
    )
    assert unconnected(run(EDGE, ROUTE, config_map(), tls_policy("a"), broken))


def test_a_policy_of_a_port_holds_before_one_of_the_service() -> None:
    of_port = tls_policy(
        "b",
        target="{group: '', kind: Service, name: web, sectionName: admin}",
        hostname="admin.example",
    )
    found = run(PORTS, ROUTES, config_map(), tls_policy(), of_port)
    assert cluster(found)["tls"]["sni"] == "web.example"
    assert cluster(found, "kube_default_web_81")["tls"]["sni"] == "admin.example"
    for name in (TLS, "BackendTLSPolicy default/b"):
        assert conditions(found, name)[0][2:] == ("True", "Accepted")
    alone = run(PORTS, ROUTES, config_map(), of_port)
    assert cluster(alone) == {}


@pytest.mark.parametrize(
    ("target", "code", "reason", "hint"),
    [
        ("{group: '', kind: Service, name: webb}", "KGW302", "TargetNotFound", "`web`"),
        (
            "{group: '', kind: Service, name: web, sectionName: htp}",
            "KGW303",
            "TargetNotFound",
            "`http`",
        ),
        ("{group: apps, kind: Deployment, name: web}", "KGW309", "Invalid", None),
        (
            "{group: gateway.kgateway.dev, kind: Backend, name: web}",
            "KGW302",
            "TargetNotFound",
            None,
        ),
    ],
)
def test_a_target_that_does_not_exist_is_told(
    target: str, code: str, reason: str, hint: str | None
) -> None:
    found = run(EDGE, ROUTE, config_map(), tls_policy(target=target))
    (finding,) = found.findings
    assert (finding.code, finding.hint) == (code, hint and f"did you mean {hint}?")
    assert conditions(found, TLS)[0][2:] == ("False", reason)
    assert cluster(found) == {}


def test_a_policy_that_is_not_valid_leaves_its_service_without_connections() -> None:
    found, findings = run_all(EDGE, ROUTE, config_map(), tls_policy(hostname="Upper.example"))
    assert [one.code for one in findings] == ["KGW207"]
    assert unconnected(found)
    assert conditions(found, TLS)[0][2:] == ("False", "Invalid")


@pytest.mark.parametrize(
    ("validation", "field"),
    [
        ("subjectAltNames: []", ""),
        (
            "wellKnownCACertificates: System, "
            "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]",
            ".wellKnownCACertificates",
        ),
        (
            "wellKnownCACertificates: System, subjectAltNames: [{type: URI}]",
            ".subjectAltNames[0].type",
        ),
        (
            "wellKnownCACertificates: System, subjectAltNames: "
            "[{type: URI, uri: 'a://b', hostname: a.example}]",
            ".subjectAltNames[0].hostname",
        ),
    ],
)
def test_rules_between_fields_of_a_validation(validation: str, field: str) -> None:
    (finding,) = load(tls_policy(validation=validation)).findings
    assert (finding.code, finding.field) == ("KGW208", f"spec.validation{field}")


def test_targets_must_differ() -> None:
    twice = "{group: '', kind: Service, name: web}, {group: '', kind: Service, name: web"
    (finding,) = load(tls_policy(target=twice + "}")).findings
    assert (finding.code, finding.field) == ("KGW208", "spec.targetRefs[1]")
    (finding,) = load(tls_policy(target=twice + ", sectionName: a}")).findings
    assert (finding.code, finding.field) == ("KGW208", "spec.targetRefs[0]")


def test_a_service_of_a_waypoint_has_the_waypoint_as_its_ancestor() -> None:
    found = run(MESH, config_map(), tls_policy())
    assert conditions(found, TLS)[0] == ("Gateway default/way", "Accepted", "True", "Accepted")
    assert cluster(found)["tls"]["sni"] == "web.example"


def test_a_service_that_nobody_uses_is_its_own_ancestor() -> None:
    found = run(EDGE, config_map(), tls_policy())
    assert conditions(found, TLS)[0][0] == "Service default/web"


# === The certificate of a Gateway ===


def with_certificate(text: str = EDGE, ref: str = "{name: pair}") -> str:
    tls = f"  tls: {{backend: {{clientCertificateRef: {ref}}}}}\n  gatewayClassName"
    return text.replace("  gatewayClassName", tls, 1)


PAIR = secret(tls_crt=CHAIN, tls_key=KEY)


def gateway_conditions(found: Translation) -> dict[str, tuple[str, str]]:
    conditions = status(found, "Gateway default/edge").conditions
    return {one.type: (one.status, one.reason) for one in conditions}


def test_a_gateway_shows_its_certificate_to_backends_with_tls() -> None:
    found = run(with_certificate(), ROUTE, PAIR, config_map(), tls_policy())
    (name,) = found.ir["clusters"]
    assert name == f"{WEB}@default/edge"
    assert cluster(found, name)["tls"]["certificate"] == {"chain": CHAIN, "key": KEY}
    assert gateway_conditions(found)["ResolvedRefs"] == ("True", "ResolvedRefs")


def test_a_backend_without_tls_is_shown_none() -> None:
    assert cluster(run(with_certificate(), ROUTE, PAIR)) == {}


def test_a_certificate_of_a_policy_goes_first() -> None:
    other = AUTHORITY.issue_cert("other.example")
    chain = other.cert_chain_pems[0].bytes().decode()
    key = other.private_key_pem.bytes().decode()
    own = secret(tls_crt=chain, tls_key=key).replace("pair", "own")
    policy = config_policy("tls: {secretRef: {name: own}, sni: a.example}")
    found = run(with_certificate(), ROUTE, PAIR, own, policy)
    assert cluster(found)["tls"]["certificate"]["chain"] == chain


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ("{name: none}", "InvalidClientCertificateRef"),
        ("{kind: ConfigMap, name: pair}", "InvalidClientCertificateRef"),
        ("{name: pair, namespace: other}", "RefNotPermitted"),
    ],
)
def test_a_certificate_that_cannot_be_used_closes_connections_with_tls_only(
    ref: str, reason: str
) -> None:
    found = run(with_certificate(ref=ref), ROUTE, config_map(), tls_policy(), PAIR)
    assert gateway_conditions(found)["Accepted"] == ("True", "Accepted")
    assert gateway_conditions(found)["ResolvedRefs"] == ("False", reason)
    assert unconnected(found)
    assert cluster(run(with_certificate(ref=ref), ROUTE, PAIR)) == {}


# === BackendConfigPolicy ===


def test_settings_of_connections() -> None:
    spec = (
        "connectTimeout: 2s\n  commonHttpProtocolOptions: {maxRequestsPerConnection: 9}\n"
        "  upstreamProxyProtocol: {version: V2}"
    )
    found = run(EDGE, ROUTE, config_policy(spec))
    assert cluster(found) == {
        "connect_timeout_ms": 2000,
        "max_requests_per_connection": 9,
        "proxy_protocol": {"version": 2},
    }
    assert conditions(found, CONFIG) == [
        ("Gateway default/edge", "Accepted", "True", "Valid"),
        ("Gateway default/edge", "Attached", "True", "Attached"),
    ]


def test_the_version_of_the_proxy_protocol_is_1_unless_it_is_given() -> None:
    found = run(EDGE, ROUTE, config_policy("upstreamProxyProtocol: {}"))
    assert cluster(found) == {"proxy_protocol": {"version": 1}}


def with_annotations(text: str, **pairs: str) -> str:
    lines = json.dumps({f"kgw.dev/{key.replace('_', '-')}": one for key, one in pairs.items()})
    return text.replace("metadata: {", f"metadata: {{annotations: {lines}, ", 1)


V2 = config_policy("upstreamProxyProtocol: {version: V2}")


def test_tlvs_of_the_header_that_a_backend_gets() -> None:
    policy = with_annotations(
        V2, proxy_protocol_pass_tlvs="0xD0, 0xea", proxy_protocol_tlvs="0xE0=edge, 0xE1=é="
    )
    assert cluster(run(EDGE, ROUTE, policy)) == {
        "proxy_protocol": {
            "version": 2,
            "pass_tlvs": [0xD0, 0xEA],
            "tlvs": [[0xE0, list(b"edge")], [0xE1, list("é=".encode())]],
        }
    }


@pytest.mark.parametrize(
    ("pairs", "code"),
    [
        ({"proxy_protocol_pass_tlv": "0xD0"}, "KGW203"),
        ({"proxy_protocol_pass_tlvs": "0x03"}, "KGW207"),
        ({"proxy_protocol_pass_tlvs": "0x100"}, "KGW207"),
        ({"proxy_protocol_pass_tlvs": "0xD0,0xD0"}, "KGW207"),
        ({"proxy_protocol_pass_tlvs": ""}, "KGW207"),
        ({"proxy_protocol_tlvs": "0xD0=spiffe://cluster.local/ns/a/sa/b"}, "KGW207"),
        ({"proxy_protocol_tlvs": "0xE0"}, "KGW207"),
        ({"proxy_protocol_tlvs": f"0xE0={'a' * 1025}"}, "KGW207"),
    ],
)
def test_tlvs_that_cannot_be_sent(pairs: dict[str, str], code: str) -> None:
    found, findings = run_all(EDGE, ROUTE, with_annotations(V2, **pairs))
    assert [one.code for one in findings] == [code]
    assert cluster(found) == ({"proxy_protocol": {"version": 2}} if code == "KGW203" else {})


def test_version_1_has_no_tlvs() -> None:
    old = config_policy("upstreamProxyProtocol: {}")
    found, findings = run_all(EDGE, ROUTE, with_annotations(old, proxy_protocol_tlvs="0xE0=a"))
    assert [one.code for one in findings] == ["KGW208"]
    assert cluster(found) == {}


def test_a_policy_may_select_services_by_label() -> None:
    labelled = EDGE.replace(
        "kind: Service\nmetadata: {name: web}",
        "kind: Service\nmetadata: {name: web, labels: {a: b}}",
    )
    select = "targetSelectors: [{group: '', kind: Service, matchLabels: {a: b}}]"
    spec = "connectTimeout: 2s"
    assert cluster(run(labelled, ROUTE, config_policy(spec, target=select))) == {
        "connect_timeout_ms": 2000
    }
    found = run(EDGE, ROUTE, config_policy(spec, target=select))
    assert (cluster(found), codes(found)) == ({}, ["KGW304"])


def test_policies_merge_field_by_field_the_older_first() -> None:
    old = config_policy("connectTimeout: 1s", "z", created="2023-01-01")
    new = config_policy("connectTimeout: 2s\n  upstreamProxyProtocol: {}")
    found = run(EDGE, ROUTE, old, new)
    assert cluster(found) == {"connect_timeout_ms": 1000, "proxy_protocol": {"version": 1}}
    assert conditions(found, CONFIG)[1][2:] == ("True", "Merged")
    found = run(EDGE, ROUTE, old, config_policy("connectTimeout: 2s"))
    assert conditions(found, CONFIG)[1][2:] == ("False", "Overridden")
    assert codes(found) == ["KGW411"]


NAMES = [
    {"type": "dns", "value": name}
    for name in ("web.default.svc.cluster.local", "web.default.svc", "web.default", "web")
]


@pytest.mark.parametrize(
    ("tls", "expected"),
    [
        ("insecureSkipVerify: true", {"trust": {"type": "insecure"}}),
        (
            "wellKnownCACertificates: System, sni: a.example",
            {"trust": {"type": "system"}, "sni": "a.example"},
        ),
        (
            "wellKnownCACertificates: System",
            {"trust": {"type": "system"}, "subject_alt_names": NAMES},
        ),
        (
            "insecureSkipVerify: false, verifySubjectAltNames: [a.example, 'spiffe://a/b']",
            {
                "trust": {"type": "system"},
                "subject_alt_names": [
                    {"type": "dns", "value": "a.example"},
                    {"type": "uri", "value": "spiffe://a/b"},
                ],
            },
        ),
        (
            "insecureSkipVerify: true, alpnProtocols: [h2], parameters: "
            "{minVersion: '1.3', maxVersion: AUTO, cipherSuites: [TLS_AES_128_GCM_SHA256]}",
            {
                "trust": {"type": "insecure"},
                "alpn": ["h2"],
                "parameters": {
                    "min_version": "1.3",
                    "cipher_suites": ["TLS_AES_128_GCM_SHA256"],
                },
            },
        ),
        (
            "secretRef: {name: pair}, sni: a.example",
            {
                "trust": {"type": "ca", "value": CA},
                "sni": "a.example",
                "certificate": {"chain": CHAIN, "key": KEY},
            },
        ),
        (
            "secretRef: {name: pair}, sni: a.example, simpleTLS: true",
            {"trust": {"type": "ca", "value": CA}, "sni": "a.example"},
        ),
    ],
)
def test_tls_of_a_policy(tls: str, expected: dict[str, Any]) -> None:
    pair = secret(ca_crt=CA, tls_crt=CHAIN, tls_key=KEY)
    found = cluster(run(EDGE, ROUTE, pair, config_policy(f"tls: {{{tls}}}")))
    assert found["tls"] == expected


@pytest.mark.parametrize(
    ("alpn", "protocol"),
    [
        ("[]", None),
        ("[http/1.1]", None),
        ("[h2]", "http2"),
        ("[h2, http/1.1]", "auto"),
        ("[custom]", None),
    ],
)
def test_the_protocols_that_are_offered_choose_the_version_of_http(
    alpn: str, protocol: str | None
) -> None:
    tls = f"tls: {{insecureSkipVerify: true, alpnProtocols: {alpn}}}"
    assert cluster(run(EDGE, ROUTE, config_policy(tls))).get("protocol") == protocol
    declared = EDGE.replace("{name: http, port: 80}]}", "{port: 80, appProtocol: http2}]}")
    assert cluster(run(declared, ROUTE, config_policy(tls)))["protocol"] == "http2"


def test_a_secret_without_authorities_is_verified_by_those_of_the_system() -> None:
    pair = secret(tls_crt=CHAIN, tls_key=KEY)
    found = run(EDGE, ROUTE, pair, config_policy("tls: {secretRef: {name: pair}, sni: a.example}"))
    assert cluster(found)["tls"] == {
        "trust": {"type": "system"},
        "sni": "a.example",
        "certificate": {"chain": CHAIN, "key": KEY},
    }


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("", "KGW312"),
        (secret(other="x"), "KGW313"),
        (secret(tls_crt=CHAIN), "KGW313"),
        (secret(ca_crt="x"), "KGW313"),
        (secret(ca_crt=CA, tls_crt=CHAIN, tls_key="x"), "KGW313"),
    ],
    ids=["missing", "nothing", "half", "authorities", "key"],
)
def test_tls_that_cannot_be_used_leaves_a_service_without_connections(
    given: str, code: str
) -> None:
    policy = config_policy("connectTimeout: 1s\n  tls: {secretRef: {name: pair}}")
    found = run(EDGE, ROUTE, policy, *([given] if given else []))
    assert codes(found) == [code]
    assert unconnected(found)
    assert conditions(found, CONFIG)[0][2:] == ("False", "Invalid")


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ("tls: {insecureSkipVerify: true, wellKnownCACertificates: System}", "KGW208"),
        ("tls: {files: {rootCA: /none/a}}", "KGW482"),
        ("tls: {insecureSkipVerify: true, parameters: {ecdhCurves: [P-521]}}", "KGW481"),
        ("tls: {insecureSkipVerify: true, parameters: {maxVersion: '1.1'}}", "KGW501"),
        (
            "tls: {insecureSkipVerify: true, parameters: {minVersion: '1.3', maxVersion: '1.2'}}",
            "KGW208",
        ),
        ("connectTimeout: 1\n  tls: {insecureSkipVerify: true}", "KGW207"),
    ],
)
def test_a_policy_with_tls_that_is_not_valid_leaves_its_service_without_connections(
    spec: str, code: str
) -> None:
    found, findings = run_all(EDGE, ROUTE, config_policy(spec))
    assert [one.code for one in findings] == [code]
    assert unconnected(found)
    assert conditions(found, CONFIG)[0][2:] == ("False", "Invalid")


def test_a_policy_without_tls_that_is_not_valid_has_no_effect() -> None:
    found, _ = run_all(EDGE, ROUTE, config_policy("connectTimeout: 1"))
    assert cluster(found) == {}
    assert conditions(found, CONFIG)[0][2:] == ("False", "Invalid")


def test_an_older_policy_with_tls_shields_a_service_from_a_broken_one() -> None:
    old = config_policy(
        "tls: {wellKnownCACertificates: System, sni: a.example}", "z", created="2023-01-01"
    )
    found = run(EDGE, ROUTE, old, config_policy("tls: {secretRef: {name: none}}"))
    assert cluster(found)["tls"]["sni"] == "a.example"


@pytest.mark.parametrize(
    "spec",
    [
        "http1ProtocolOptions: {enableTrailers: false}",
        "loadBalancer: {random: {}}",
    ],
)
def test_what_only_tunes_is_a_warning_and_the_rest_counts(spec: str) -> None:
    found, findings = run_all(EDGE, ROUTE, config_policy(f"connectTimeout: 1s\n  {spec}"))
    assert [(one.code, str(one.severity)) for one in findings] == [("KGW501", "warning")]
    assert cluster(found) == {"connect_timeout_ms": 1000}


def test_tls_of_a_backend_tls_policy_goes_first() -> None:
    config = config_policy("tls: {insecureSkipVerify: true}")
    found = run(EDGE, ROUTE, config_map(), tls_policy(), config)
    assert cluster(found)["tls"]["trust"]["type"] == "ca"
    assert conditions(found, CONFIG)[1][2:] == ("False", "Overridden")
    broken = run(EDGE, ROUTE, tls_policy(), config)
    assert unconnected(broken)
    of_port = tls_policy(target="{group: '', kind: Service, name: web, sectionName: admin}")
    found = run(PORTS, ROUTES, config_map(), of_port, config)
    assert cluster(found)["tls"]["trust"]["type"] == "insecure"
    assert cluster(found, "kube_default_web_81")["tls"]["trust"]["type"] == "ca"
    assert conditions(found, CONFIG)[1][2:] == ("True", "Attached")


@pytest.mark.parametrize(
    ("target", "code", "reason"),
    [
        ("{group: '', kind: Service, name: webb}", "KGW302", "TargetNotFound"),
        ("{group: gateway.kgateway.dev, kind: Backend, name: web}", "KGW302", "TargetNotFound"),
        ("{group: networking.istio.io, kind: Hostname, name: web}", "KGW309", "Invalid"),
    ],
)
def test_a_target_that_cannot_be_used_is_told(target: str, code: str, reason: str) -> None:
    policy = config_policy("connectTimeout: 1s", target=f"targetRefs: [{target}]")
    found = run(EDGE, ROUTE, policy)
    assert codes(found) == [code]
    assert conditions(found, CONFIG)[0][2:] == ("False", reason)


def test_the_engine_takes_what_policies_make_of_a_cluster() -> None:
    texts = (
        PORTS,
        ROUTES,
        config_map(),
        secret(ca_crt=CA, tls_crt=CHAIN, tls_key=KEY),
        tls_policy(target="{group: '', kind: Service, name: web, sectionName: admin}"),
        config_policy(
            "connectTimeout: 1s\n  upstreamProxyProtocol: {version: V2}\n"
            "  tls: {secretRef: {name: pair}, alpnProtocols: [http/1.1], "
            "parameters: {minVersion: '1.2'}}"
        ),
    )
    options = Options(bind=("127.0.0.1",), ports={"default/edge/http": 0})
    ir = translate(load(*texts).resources, options).ir
    engine = Engine(workers=1)
    engine.start(json.dumps(ir).encode())
    try:
        assert engine.problems() == []
    finally:
        engine.drain()
        engine.join(5.0)
