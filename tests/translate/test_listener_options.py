"""What listener policies and annotations make of a listener."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.attach.test_policies import NEW, OLD, listener_policy
from tests.translate.support import EDGE, MESH, codes, load, run, run_all, status, verdict

from kgw._native.engine import Engine
from kgw.api import HTTPListenerPolicy, ListenerPolicy
from kgw.api.gateway.options import OPTIONS, PREFIX
from kgw.translate import Options, settings, translate

pytestmark = pytest.mark.fields(
    "ListenerPolicy.spec.default.httpSettings.acceptHttp10",
    "ListenerPolicy.spec.default.httpSettings.defaultHostForHttp10",
    "ListenerPolicy.spec.default.httpSettings.forwardClientCertDetails.details.chain",
    "ListenerPolicy.spec.default.httpSettings.generateRequestId",
    "ListenerPolicy.spec.default.httpSettings.http2ProtocolOptions",
    "ListenerPolicy.spec.default.httpSettings.maxRequestsPerConnection",
    "ListenerPolicy.spec.default.httpSettings.preserveExternalRequestId",
    "ListenerPolicy.spec.default.httpSettings.preserveHttp1HeaderCase",
    "ListenerPolicy.spec.default.httpSettings.serverHeaderTransformation",
    "ListenerPolicy.spec.default.httpSettings.skipXFFAppend",
    "ListenerPolicy.spec.default.httpSettings.upgradeConfig",
    "ListenerPolicy.spec.default.httpSettings.uuidRequestIdConfig",
    "ListenerPolicy.spec.default.httpSettings.xffTrustedCIDRs",
    "ListenerPolicy.spec.default.proxyProtocol.allowRequestsWithoutProxyProtocol",
    without=(
        "ListenerPolicy.spec.default.httpSettings.uuidRequestIdConfig.useRequestIdForTraceSampling",
    ),
)

ROOT = Path(__file__).parents[2]

#: A value for each setting of HTTP connections that is not its default, and what it becomes.
HTTP: dict[str, tuple[str, dict[str, Any]]] = {
    "acceptHttp10": ("true", {"accept_http_10": True}),
    "defaultHostForHttp10": ("a.example", {"default_host_for_http_10": "a.example"}),
    "earlyRequestHeaderModifier": (
        "{set: [{name: x-a, value: '1'}], add: [{name: x-b, value: '2'}], remove: [x-c]}",
        {"early": {"headers": {"set": [["x-a", "1"]], "add": [["x-b", "2"]], "remove": ["x-c"]}}},
    ),
    "forwardClientCertDetails": (
        "{mode: AppendForward, details: {cert: true, chain: true, dns: true, uri: true}}",
        {
            "early": {
                "client_certificate": {
                    "mode": "append_forward",
                    "cert": True,
                    "chain": True,
                    "dns": True,
                    "subject": False,
                    "uri": True,
                }
            }
        },
    ),
    "generateRequestId": ("false", {"request_id": {"generate": False}}),
    "healthCheck": ("{path: /healthz}", {"early": {"health_check_path": "/healthz"}}),
    "http2ProtocolOptions": (
        "{maxConcurrentStreams: 7, initialStreamWindowSize: 128Ki, "
        "initialConnectionWindowSize: 1048577, allowConnect: false}",
        {
            "http2": {
                "max_concurrent_streams": 7,
                "initial_stream_window_size": 131_072,
                "initial_connection_window_size": 1_048_577,
                "allow_connect": False,
            }
        },
    ),
    "idleTimeout": ("1m", {"idle_timeout_ms": 60_000}),
    "maxHeadersCount": ("50", {"max_fields": 50}),
    "maxRequestHeadersKb": ("8", {"max_head_bytes": 8192}),
    "maxRequestsPerConnection": ("9", {"max_requests_per_connection": 9}),
    "preserveExternalRequestId": ("true", {"request_id": {"preserve_external": True}}),
    "preserveHttp1HeaderCase": ("true", {}),
    "proxy100Continue": ("true", {"early": {"proxy_100_continue": True}}),
    "serverHeaderTransformation": ("AppendIfAbsent", {"server_header": "append_if_absent"}),
    "serverName": ("me", {"server_name": "me"}),
    "skipXFFAppend": ("true", {"skip_xff_append": True}),
    "streamIdleTimeout": ("500ms", {"stream_idle_timeout_ms": 500}),
    "stripHostPortMode": ("AnyPort", {"early": {"strip_host_port": "any"}}),
    "stripTrailingHostDot": ("true", {"early": {"strip_trailing_host_dot": True}}),
    "upgradeConfig": (
        "{enabledUpgrades: [WebSocket, CONNECT]}",
        {"upgrades": ["connect", "websocket"]},
    ),
    "useRemoteAddress": ("false", {"use_remote_address": False}),
    "uuidRequestIdConfig": (
        "{packTraceReason: false, useRequestIdForTraceSampling: false}",
        {"request_id": {"packs_trace_reason": False, "samples_traces": False}},
    ),
    "xffNumTrustedHops": ("2", {"xff_trusted_hops": 2}),
}

#: The same for the annotations.
ANNOTATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "codec": ("HTTP2", {"http": {"codec": "http2"}}),
    "connection-balance": ("Exact", {"balance": "exact"}),
    "escaped-slashes": (
        "UnescapeAndRedirect",
        {"http": {"escaped_slashes": "unescape_and_redirect"}},
    ),
    "buffer-bytes": ("64Ki", {"http": {"buffer_bytes": 65_536}}),
    "headers-with-underscores": ("Drop", {"http": {"underscores": "drop"}}),
    "http2-max-frame-size": ("32Ki", {"http": {"http2": {"max_frame_size": 32_768}}}),
    "max-connection-duration": ("1h", {"http": {"max_connection_duration_ms": 3_600_000}}),
    "max-connections": ("1k", {"max_connections": 1000}),
    "max-target-bytes": ("4Ki", {"http": {"max_target_bytes": 4096}}),
    "merge-slashes": ("false", {"http": {"merge_slashes": False}}),
    "normalize-path": ("false", {"http": {"normalize_path": False}}),
    "request-head-timeout": ("5s", {"http": {"request_head_timeout_ms": 5000}}),
    "request-id-in-response": ("true", {"http": {"request_id": {"in_response": True}}}),
    "request-timeout": ("0s", {"http": {"request_timeout_ms": 0}}),
    "strict-paths": ("true", {"http": {"strict_paths": True}}),
    "strip-client-address": ("false", {"http": {"strip_client_address": False}}),
}

#: Those about the PROXY protocol, with their fields.
PROXY: dict[str, tuple[str, dict[str, Any]]] = {
    "proxy-protocol-max-bytes": ("232", {"max_header_bytes": 232}),
    "proxy-protocol-timeout": ("3s", {"header_timeout_ms": 3000}),
    "proxy-protocol-v1": ("false", {"accept_v1": False}),
}

PROXY_POLICY = listener_policy("p", NEW, "default: {proxyProtocol: {}}")

TWO_LISTENERS = EDGE.replace(
    "protocol: HTTP}]", "protocol: HTTP}, {name: b, port: 81, protocol: HTTP}]"
)


def annotated(pairs: dict[str, str], text: str = EDGE, name: str = "edge") -> str:
    lines = ", ".join(f"{PREFIX}{key}: '{value}'" for key, value in pairs.items())
    return text.replace(f"{{name: {name}}}", f"{{name: {name}, annotations: {{{lines}}}}}", 1)


def listener(*texts: str) -> dict[str, Any]:
    (only,) = run(*texts).ir["listeners"]
    return {
        name: value
        for name, value in only.items()
        if name not in ("id", "bind", "traffic", "access_logs") and value
    }


# === Settings of policies ===


@pytest.mark.parametrize("setting", HTTP)
def test_a_setting_of_either_kind_of_policy_reaches_the_listener(setting: str) -> None:
    value, expected = HTTP[setting]
    line = f"{setting}: {value}"
    found = {"http": expected} if expected else {}
    assert listener(EDGE, listener_policy("a", OLD, line)) == found
    assert listener(EDGE, listener_policy("a", NEW, f"default: {{httpSettings: {{{line}}}}}")) == (
        found
    )
    of_port = f"perPort: [{{port: 80, listener: {{httpSettings: {{{line}}}}}}}]"
    assert listener(EDGE, listener_policy("a", NEW, of_port)) == found


def test_trusted_networks_reach_the_listener_in_canonical_form() -> None:
    text = "useRemoteAddress: false\n  xffTrustedCIDRs: [10.1.2.3/8, 'fd00::1/8']"
    assert listener(EDGE, listener_policy("a", OLD, text)) == {
        "http": {"use_remote_address": False, "xff_trusted_cidrs": ["10.0.0.0/8", "fd00::/8"]}
    }


@pytest.mark.parametrize(
    ("older", "newer", "kept"),
    [
        (
            "useRemoteAddress: true",
            "useRemoteAddress: false\n  xffTrustedCIDRs: [10.0.0.0/8]",
            {"use_remote_address": True},
        ),
        (
            "xffNumTrustedHops: 1",
            "useRemoteAddress: false\n  xffTrustedCIDRs: [10.0.0.0/8]",
            {"use_remote_address": False, "xff_trusted_hops": 1},
        ),
        (
            "useRemoteAddress: false\n  xffTrustedCIDRs: [10.0.0.0/8]",
            "xffNumTrustedHops: 1",
            {"use_remote_address": False, "xff_trusted_cidrs": ["10.0.0.0/8"]},
        ),
    ],
)
def test_of_settings_of_two_policies_that_contradict_the_older_counts(
    older: str, newer: str, kept: dict[str, Any]
) -> None:
    found = run(
        EDGE,
        listener_policy("z", OLD, older, "2023-01-01"),
        listener_policy("a", OLD, newer, "2024-01-01"),
    )
    assert found.ir["listeners"][0]["http"] == kept
    (idle,) = [one for one in found.findings if one.code == "KGW413"]
    assert idle.resource == "HTTPListenerPolicy default/a"
    assert idle.field.startswith("spec.xff")


@pytest.mark.parametrize(
    ("settings", "code", "field"),
    [
        ("xffTrustedCIDRs: [10.0.0.0/8]", "KGW208", "xffTrustedCIDRs"),
        (
            "{useRemoteAddress: true, xffTrustedCIDRs: [10.0.0.0/8]}",
            "KGW208",
            "useRemoteAddress",
        ),
        (
            "{useRemoteAddress: false, xffTrustedCIDRs: [10.0.0.0/8], xffNumTrustedHops: 1}",
            "KGW208",
            "xffNumTrustedHops",
        ),
        ("{useRemoteAddress: false, xffTrustedCIDRs: [10.0.0.1]}", "KGW207", "xffTrustedCIDRs[0]"),
        (
            "{useRemoteAddress: false, xffTrustedCIDRs: [10.0.0.0/33]}",
            "KGW207",
            "xffTrustedCIDRs[0]",
        ),
        ("serverHeaderTransformation: Append", "KGW206", "serverHeaderTransformation"),
        ("maxRequestsPerConnection: -1", "KGW207", "maxRequestsPerConnection"),
        (
            "http2ProtocolOptions: {initialStreamWindowSize: 64k}",
            "KGW207",
            "http2ProtocolOptions.initialStreamWindowSize",
        ),
        (
            "http2ProtocolOptions: {initialStreamWindowSize: 1.5Mi}",
            "KGW207",
            "http2ProtocolOptions.initialStreamWindowSize",
        ),
        (
            "http2ProtocolOptions: {maxConcurrentStreams: 0}",
            "KGW207",
            "http2ProtocolOptions.maxConcurrentStreams",
        ),
        ("upgradeConfig: {enabledUpgrades: []}", "KGW207", "upgradeConfig.enabledUpgrades"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(
    settings: str, code: str, field: str
) -> None:
    whole = settings if settings.startswith("{") else f"{{{settings}}}"
    policy = listener_policy("a", NEW, f"default: {{httpSettings: {whole}}}")
    found, findings = run_all(EDGE, policy)
    (finding,) = findings
    assert (finding.code, str(finding.severity)) == (code, "error")
    assert finding.field == f"spec.default.httpSettings.{field}"
    assert found.ir["listeners"][0]["http"] == {}
    assert verdict(found, "ListenerPolicy default/a", "Accepted") == ("False", "Invalid")


def test_the_case_of_header_names_is_kept_whatever_a_policy_says() -> None:
    policy = listener_policy(
        "a", NEW, "default: {httpSettings: {preserveHttp1HeaderCase: false, serverName: me}}"
    )
    found, findings = run_all(EDGE, policy)
    assert [(one.code, str(one.severity)) for one in findings] == [("KGW501", "warning")]
    assert found.ir["listeners"][0]["http"] == {"server_name": "me"}


# === The PROXY protocol ===


@pytest.mark.parametrize(
    ("text", "optional"), [("{}", False), ("{allowRequestsWithoutProxyProtocol: true}", True)]
)
def test_a_policy_asks_for_the_proxy_protocol(text: str, optional: bool) -> None:
    policy = listener_policy("a", NEW, f"default: {{proxyProtocol: {text}}}")
    assert listener(EDGE, policy) == {"proxy_protocol": {"optional": optional, "accept_v1": True}}


@pytest.mark.parametrize("option", PROXY)
def test_options_of_the_proxy_protocol(option: str) -> None:
    value, expected = PROXY[option]
    assert listener(annotated({option: value}), PROXY_POLICY) == {
        "proxy_protocol": {"optional": False, "accept_v1": True} | expected
    }
    (waypoint,) = run(annotated({option: value}, MESH, "way")).ir["listeners"]
    assert "proxy_protocol" not in waypoint
    assert expected.items() <= waypoint["traffic"].items()


@pytest.mark.parametrize("option", PROXY)
def test_options_of_the_proxy_protocol_without_it_have_no_effect(option: str) -> None:
    found = run(annotated({option: PROXY[option][0]}))
    assert codes(found) == ["KGW413"]
    assert "proxy_protocol" not in found.ir["listeners"][0]


def test_the_header_of_a_waypoint_is_not_optional() -> None:
    policy = PROXY_POLICY.replace("name: edge", "name: way")
    assert codes(run(MESH, policy)) == []
    found = run(MESH, policy.replace("{}", "{allowRequestsWithoutProxyProtocol: true}"))
    assert codes(found) == ["KGW413"]
    assert "proxy_protocol" not in found.ir["listeners"][0]


# === Annotations ===


@pytest.mark.parametrize("option", ANNOTATIONS)
def test_an_annotation_reaches_the_listener(option: str) -> None:
    value, expected = ANNOTATIONS[option]
    assert run(annotated({option: value})).ir["listeners"][0].items() >= expected.items()


def test_an_annotation_for_one_listener_goes_before_one_for_all() -> None:
    pairs = {"max-connections": "5", "max-connections.b": "6", "merge-slashes.b": "false"}
    found = run(annotated(pairs, TWO_LISTENERS)).ir["listeners"]
    assert {one["id"]: (one["max_connections"], one["http"]) for one in found} == {
        "default/edge/http": (5, {}),
        "default/edge/b": (6, {"merge_slashes": False}),
    }


def test_of_listeners_that_share_a_port_the_first_with_an_option_counts() -> None:
    shared = EDGE.replace(
        "protocol: HTTP}]",
        "protocol: HTTP}, {name: b, port: 80, hostname: b.example, protocol: HTTP}]",
    )
    assert listener(annotated({"max-connections.b": "6", "max-connections": "5"}, shared)) == {
        "max_connections": 6
    }


@pytest.mark.parametrize(
    ("pairs", "code", "severity", "hint"),
    [
        ({"max-conections": "5"}, "KGW203", "warning", "`kgw.dev/max-connections`"),
        ({"max_connections.http": "5"}, "KGW203", "warning", "`kgw.dev/max-connections.http`"),
        ({"max-connections.htp": "5"}, "KGW303", "error", "`kgw.dev/max-connections.http`"),
        ({"max-connections": "-1"}, "KGW207", "error", None),
        ({"max-connections": "4294967296"}, "KGW207", "error", None),
        ({"merge-slashes": "yes"}, "KGW207", "error", None),
        ({"escaped-slashes": "reject"}, "KGW207", "error", "`Reject`"),
        ({"codec": "http2"}, "KGW207", "error", "`HTTP2`"),
        ({"request-timeout": "5"}, "KGW207", "error", None),
        ({"http2-max-frame-size": "16383"}, "KGW207", "error", None),
    ],
)
def test_a_wrong_annotation_is_told_with_what_may_be_meant(
    pairs: dict[str, str], code: str, severity: str, hint: str | None
) -> None:
    found, findings = run_all(annotated(pairs))
    (finding,) = findings
    assert (finding.code, str(finding.severity)) == (code, severity)
    assert finding.path[:2] == ("metadata", "annotations")
    assert finding.hint == (hint and f"did you mean {hint}?")
    served = severity == "warning"
    assert bool(found.ir["listeners"]) == served
    if not served:
        (accepted, *_) = status(found, "Gateway default/edge").conditions
        assert (accepted.type, accepted.reason) == ("Accepted", "InvalidParameters")


# === The tables ===


def struct(name: str) -> dict[str, str]:
    """The fields of a structure of the representation, with their types."""
    folder = ROOT / "rust/kgw-engine/src/config/ir"
    source = "".join((folder / name).read_text() for name in ("mod.rs", "early.rs"))
    match = re.search(rf"pub struct {name} \{{\n(.*?)\n\}}", source, re.DOTALL)
    assert match is not None
    return dict(re.findall(r"^    pub (\w+): (.+),$", match[1], re.MULTILINE))


def fields(name: str, prefix: str) -> set[str]:
    """The fields of a structure and of the structures in it."""
    found = set()
    for field, kind in struct(name).items():
        if kind in (
            "ClientCertificateField",
            "Early",
            "Http2Options",
            "HeaderMutation",
            "RequestIdOptions",
        ):
            found |= fields(kind, f"{prefix}{field}.")
        else:
            found.add(prefix + field)
    return found


def leaves(value: dict[str, Any], prefix: str = "") -> set[str]:
    found = set()
    for key, item in value.items():
        found |= leaves(item, f"{prefix}{key}.") if isinstance(item, dict) else {prefix + key}
    return found


def everything() -> tuple[str, str]:
    """A Gateway and a policy that set all that can be set together."""
    lines = [f"{key}: {value}" for key, (value, _) in HTTP.items() if key != "xffNumTrustedHops"]
    lines.append("xffTrustedCIDRs: [10.0.0.0/8]")
    text = f"default: {{proxyProtocol: {{}}, httpSettings: {{{', '.join(lines)}}}}}"
    pairs = {key: value for key, (value, _) in (ANNOTATIONS | PROXY).items()}
    return annotated(pairs), listener_policy("a", NEW, text)


def test_every_option_of_a_listener_can_be_set_by_a_resource() -> None:
    reached = leaves(listener(*everything()))
    reached |= leaves(listener(EDGE, listener_policy("a", OLD, "xffNumTrustedHops: 2")))
    assert reached == (
        fields("HttpOptions", "http.")
        | fields("ProxyProtocol", "proxy_protocol.")
        | {"balance", "max_connections"}
    )


def test_the_engine_takes_every_option() -> None:
    options = Options(bind=("127.0.0.1",), ports={"default/edge/http": 0})
    ir = translate(load(*everything()).resources, options).ir
    engine = Engine(workers=1)
    engine.start(json.dumps(ir).encode())
    try:
        assert engine.problems() == []
    finally:
        engine.drain()
        engine.join(5.0)


def test_every_setting_of_a_policy_is_in_the_table() -> None:
    names: set[str] = set()
    for text in ("{}", "{proxyProtocol: {}, transportSocketConnectTimeout: 1s}"):
        (policy,) = load(listener_policy("a", NEW, f"default: {text}")).resources
        assert isinstance(policy, ListenerPolicy)
        for part, _ in policy.parts(80):
            names |= type(part).model_fields.keys()
    (old,) = load(listener_policy("a", OLD, "serverName: a")).resources
    assert isinstance(old, HTTPListenerPolicy)
    assert names - {"http_settings"} == settings.POLICY.keys() | settings.APART


def test_the_tables_do_not_set_the_same_field() -> None:
    of_policies = {field for field, _ in settings.POLICY.values()}
    assert of_policies & set(settings.ANNOTATED.values()) == {"http.buffer_bytes"}


def test_the_documented_annotations_are_those_of_the_table() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    rows = re.findall(r"^\| `kgw\.dev/([a-z0-9-]+)` \| ([^|]+) \|", text, re.MULTILINE)
    assert rows == [(one.name, one.form.legal) for one in OPTIONS]
