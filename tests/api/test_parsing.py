"""What is found in a single object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.translate.support import load

from kgw.api import HTTPRoute, Opaque, Service, TrafficPolicy, parse
from kgw.diagnostics import CODES
from kgw.source.memory import RawObject

if TYPE_CHECKING:
    from kgw.diagnostics import Finding


def route(spec: str) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: route}}
spec: {spec}
"""


def only(text: str) -> Finding:
    (finding,) = load(text).findings
    assert finding.code in CODES
    return finding


def test_an_unknown_field_is_kept_and_reported_with_a_suggestion() -> None:
    parsed = load(route("{rules: [{matchs: []}]}"))
    (finding,) = parsed.findings
    assert (finding.code, str(finding.severity)) == ("KGW203", "warning")
    assert finding.field == "spec.rules[0].matchs"
    assert finding.hint == "did you mean `matches`?"
    assert finding.location is not None
    assert finding.location.line == 5
    (resource,) = parsed.resources
    assert isinstance(resource, HTTPRoute)
    assert resource.spec.rules[0].model_extra == {"matchs": []}


def test_snake_case_is_not_an_alias_in_manifests() -> None:
    finding = only(route("{parent_refs: []}"))
    assert (finding.code, finding.hint) == ("KGW203", "did you mean `parentRefs`?")


@pytest.mark.parametrize(
    ("spec", "code", "field", "legal"),
    [
        ("{rules: [{matches: [{path: {type: Prefix}}]}]}", "KGW206", "path.type", "PathPrefix"),
        ("{rules: [{matches: [{method: get}]}]}", "KGW206", "matches[0].method", "GET"),
        ("{hostnames: [Foo.example]}", "KGW207", "hostnames[0]", "lower case"),
        ("{hostnames: [10.0.0.1]}", "KGW208", "hostnames[0]", None),
        ("{rules: []}", "KGW207", "spec.rules", "at least 1 item"),
        ("{rules: {}}", "KGW205", "spec.rules", "a list"),
        ("{rules: [{timeouts: {request: 15}}]}", "KGW207", "timeouts.request", "1m30s"),
        ("{rules: [{timeouts: {request: 1.5h}}]}", "KGW207", "timeouts.request", "1m30s"),
        ("{rules: [{backendRefs: [{name: a, port: '80'}]}]}", "KGW205", "[0].port", "integer"),
        ("{rules: [{backendRefs: [{name: a, port: 0}]}]}", "KGW207", "[0].port", "equal to 1"),
        ("{rules: [{backendRefs: [{port: 80}]}]}", "KGW204", "backendRefs[0]", "name"),
        (
            "{rules: [{filters: [{type: RequestHeaderModifier, requestHeaderModifier: "
            "{set: [{name: 'a b', value: x}]}}]}]}",
            "KGW207",
            "set[0].name",
            "letters",
        ),
        (
            "{rules: [{filters: [{type: RequestHeaderModifier, requestHeaderModifier: "
            '{set: [{name: a, value: "x\\r\\ny"}]}}]}]}',
            "KGW207",
            "set[0].value",
            "visible ASCII",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_legal(
    spec: str, code: str, field: str, legal: str | None
) -> None:
    parsed = load(route(spec))
    (finding,) = parsed.findings
    assert (finding.code, str(finding.severity)) == (code, "error")
    assert finding.field.endswith(field)
    assert finding.resource == "HTTPRoute default/route"
    assert legal is None or (finding.legal is not None and legal in finding.legal)
    (kept,) = parsed.resources
    assert isinstance(kept, Opaque)
    assert kept.refused


@pytest.mark.parametrize(
    ("value", "shown", "hint"),
    [
        ("n", "false", "without quotes it is a boolean; put quotes around it"),
        ("1", "1", "without quotes it is a number; put quotes around it"),
        ("[a]", "['a']", None),
    ],
)
def test_a_text_that_yaml_reads_as_something_else_is_to_be_quoted(
    value: str, shown: str, hint: str | None
) -> None:
    match = f"{{rules: [{{matches: [{{headers: [{{name: a, value: {value}}}]}}]}}]}}"
    (finding,) = load(route(match)).findings
    assert finding.message == f"`{shown}` has the wrong type"
    assert finding.hint == hint


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "{parentRefs: [{name: a}, {name: a, port: 1}]}",
            "sectionName or port must be specified when parentRefs includes 2 or more",
        ),
        (
            "{parentRefs: [{name: a, port: 1}, {name: a, port: 1}]}",
            "sectionName or port must be unique",
        ),
        ("{rules: [{name: a}, {name: a}]}", "Rule name must be unique within the route"),
        (
            "{rules: [{backendRefs: [{name: a, port: 1}], filters: "
            "[{type: RequestRedirect, requestRedirect: {}}]}]}",
            "RequestRedirect filter must not be used together with backendRefs",
        ),
        (
            "{rules: [{filters: [{type: RequestRedirect, requestRedirect: {}}, "
            "{type: URLRewrite, urlRewrite: {}}]}]}",
            "May specify either httpRouteFilterRequestRedirect or",
        ),
        (
            "{rules: [{filters: [{type: URLRewrite, urlRewrite: {}}, "
            "{type: URLRewrite, urlRewrite: {}}]}]}",
            "URLRewrite filter cannot be repeated",
        ),
        (
            "{rules: [{matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, "
            "urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}]}",
            "exactly one PathPrefix match must be specified",
        ),
        (
            "{rules: [{filters: [{type: URLRewrite, urlRewrite: {path: "
            "{type: ReplaceFullPath}}}]}]}",
            "replaceFullPath must be specified",
        ),
        ("{rules: [{filters: [{type: URLRewrite}]}]}", "filter.urlRewrite must be specified"),
        (
            "{rules: [{filters: [{type: URLRewrite, urlRewrite: {}, requestRedirect: {}}]}]}",
            "filter.requestRedirect must be nil",
        ),
        (
            "{rules: [{timeouts: {request: 1s, backendRequest: 2s}}]}",
            "backendRequest timeout cannot be longer than request timeout",
        ),
        ("{rules: [{backendRefs: [{name: a}]}]}", "Must have port for Service reference"),
        ("{rules: [{matches: [{path: {value: a}}]}]}", "must be an absolute path"),
        ("{rules: [{matches: [{path: {value: /a//b}}]}]}", "must not contain '//'"),
        ("{rules: [{matches: [{path: {value: /a/..}}]}]}", "must not end with '/..'"),
        ("{rules: [{matches: [{path: {value: '/a b'}}]}]}", "must only contain"),
    ],
)
def test_fields_that_contradict_are_refused_in_the_words_of_the_crd(
    spec: str, message: str
) -> None:
    finding = only(route(spec))
    assert finding.code == "KGW208"
    assert message in finding.message


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("{parentRefs: [{name: b}, {name: a, port: 1}, {name: a}]}", "parentRefs[2]"),
        (
            "{parentRefs: [{name: b}, {name: a, port: 1}, {name: a, port: 1}]}",
            "parentRefs[2]",
        ),
        ("{rules: [{}, {name: a}, {}, {name: a}]}", "rules[3].name"),
        (
            "{rules: [{filters: [{type: RequestRedirect, requestRedirect: {}}, "
            "{type: URLRewrite, urlRewrite: {}}]}]}",
            "rules[0].filters[1].type",
        ),
        (
            "{rules: [{backendRefs: [{name: a, port: 1, filters: [{type: URLRewrite, urlRewrite: "
            "{}}, {type: URLRewrite, urlRewrite: {}}]}]}]}",
            "rules[0].backendRefs[0].filters[1].type",
        ),
        (
            "{rules: [{matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, "
            "urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}]}",
            "rules[0].filters[0].urlRewrite.path.type",
        ),
        (
            "{rules: [{filters: [{type: URLRewrite, urlRewrite: {}, requestRedirect: {}}]}]}",
            "rules[0].filters[0].requestRedirect",
        ),
        (
            "{rules: [{timeouts: {request: 1s, backendRequest: 2s}}]}",
            "rules[0].timeouts.backendRequest",
        ),
        ("{rules: [{matches: [{path: {value: a}}]}]}", "rules[0].matches[0].path.value"),
    ],
)
def test_a_contradiction_is_told_at_the_field_that_has_to_change(spec: str, field: str) -> None:
    assert only(route(spec)).field == f"spec.{field}"


def test_an_interval_that_is_too_short_is_told_on_its_own_line() -> None:
    text = policy(
        "\n  rateLimit:\n    local:\n      tokenBucket:\n"
        "        maxTokens: 3\n        fillInterval: 10ms"
    )
    finding = only(text)
    assert finding.field == "spec.rateLimit.local.tokenBucket.fillInterval"
    assert finding.location is not None
    assert text.splitlines()[finding.location.line - 1].strip() == "fillInterval: 10ms"


def test_a_request_timeout_of_zero_bounds_nothing() -> None:
    text = route("{rules: [{timeouts: {request: 0s, backendRequest: 2s}}]}")
    assert load(text).findings == ()


def test_too_many_matches_are_refused() -> None:
    rule = "{matches: [" + "{method: GET}, " * 64 + "]}"
    assert "must be less than 128" in only(route(f"{{rules: [{rule}, {rule}, {{}}]}}")).message


def test_a_null_field_is_as_good_as_absent() -> None:
    parsed = load(route("{parentRefs: null, rules: [{name: null, matches: null}]}"))
    assert parsed.findings == ()
    (resource,) = parsed.resources
    assert isinstance(resource, HTTPRoute)
    assert resource.spec.rules[0].matches[0].path.value == "/"


def test_defaults_are_those_of_the_crd() -> None:
    (resource,) = load(route("{parentRefs: [{name: a}]}")).resources
    assert isinstance(resource, HTTPRoute)
    parent = resource.spec.parent_refs[0]
    assert (parent.group, parent.kind) == ("gateway.networking.k8s.io", "Gateway")
    assert resource.namespace == "default"
    (rule,) = resource.spec.rules
    assert (rule.matches[0].path.type, rule.matches[0].path.value) == ("PathPrefix", "/")


def test_several_errors_are_found_at_once() -> None:
    text = route("{hostnames: [A], rules: [{backendRefs: [{name: a, port: '1'}]}]}")
    assert sorted(one.code for one in load(text).findings) == ["KGW205", "KGW207"]


@pytest.mark.parametrize("value", [{}, {"kind": "Service"}, {"apiVersion": 1, "kind": "Service"}])
def test_what_has_no_kind_is_no_object(value: dict[str, Any]) -> None:
    resource, (finding,) = parse(RawObject(value))
    assert resource is None
    assert finding.code == "KGW201"


@pytest.mark.parametrize("metadata", [None, {}, {"name": ""}, {"name": ["a"]}])
def test_what_has_no_name_is_refused(metadata: Any) -> None:
    raw = {"apiVersion": "v1", "kind": "Service", "metadata": metadata}
    resource, (finding,) = parse(RawObject(raw))
    assert resource is None
    assert finding.code == "KGW202"


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("on", "the name `on` is a boolean here, not a string", '`name: "on"`'),
        ("0x1F", "the name `0x1F` is a number here, not a string", '`name: "0x1F"`'),
        ("1.10", "the name `1.10` is a number here, not a string", '`name: "1.10"`'),
    ],
)
def test_a_name_that_yaml_reads_as_something_else_is_to_be_quoted(
    name: str, message: str, hint: str
) -> None:
    parsed = load(f"{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}}}")
    (finding,) = parsed.findings
    assert (finding.code, finding.message) == ("KGW205", message)
    assert finding.hint == f"put quotes around it: {hint}"
    assert finding.field == "metadata.name"
    assert parsed.resources == ()


def test_a_name_made_in_python_is_shown_as_yaml_would() -> None:
    raw = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": True}}
    _, (finding,) = parse(RawObject(raw))
    assert finding.message == "the name `true` is a boolean here, not a string"


@pytest.mark.parametrize(
    ("api", "kind", "field", "hint"),
    [
        ("gateway.networking.k8s.io/v1", "HTTPRout", "kind", "`kind: HTTPRoute`"),
        ("gateway.kgateway.dev/v1alpha1", "TraficPolicy", "kind", "`kind: TrafficPolicy`"),
        ("v1", "service", "kind", "`kind: Service`"),
        (
            "gateway.kgateway.io/v1alpha1",
            "TrafficPolicy",
            "apiVersion",
            "`apiVersion: gateway.kgateway.dev/v1alpha1`",
        ),
        (
            "gateway.kgateway.io/v1",
            "TraficPolicy",
            "kind",
            "`kind: TrafficPolicy` and `apiVersion: gateway.kgateway.dev/v1alpha1`",
        ),
        (
            "gateway.kgateway.io/v1alpha1",
            "DirectResponse",
            "apiVersion",
            "`apiVersion: gateway.kgateway.dev/v1alpha1`",
        ),
        ("v1", "HTTPRoute", "apiVersion", "`apiVersion: gateway.networking.k8s.io/v1`"),
        ("networking.k8s.io/v1", "Gateway", "apiVersion", "`apiVersion: gateway.networking.k8s"),
        ("apps/v1", "Service", "apiVersion", "`apiVersion: v1`"),
        ("example.com/v1", "TrafficPolicy", "apiVersion", "`apiVersion: gateway.kgateway.dev/v1"),
    ],
)
def test_a_kind_that_looks_like_one_of_ours_is_an_error(
    api: str, kind: str, field: str, hint: str
) -> None:
    parsed = load(f"{{apiVersion: {api}, kind: {kind}, metadata: {{name: a, namespace: b}}}}")
    (finding,) = parsed.findings
    assert (finding.code, str(finding.severity), finding.field) == ("KGW211", "error", field)
    assert finding.hint is not None
    assert finding.hint.startswith(f"did you mean {hint}")
    (kept,) = parsed.resources
    assert isinstance(kept, Opaque)
    assert str(kept.key) == f"{kind} b/a"


@pytest.mark.parametrize(
    ("api", "kind", "severity"),
    [
        ("apps/v1", "Deployment", "info"),
        ("v1", "ServiceAccount", "info"),
        ("v1", "Endpoints", "info"),
        ("cert-manager.io/v1", "Certificate", "info"),
        ("networking.k8s.io/v1", "NetworkPolicy", "info"),
        ("networking.istio.io/v1", "Gateway", "info"),
        ("serving.knative.dev/v1", "Service", "info"),
        ("policy.linkerd.io/v1beta3", "HTTPRoute", "info"),
        ("gateway.networking.x-k8s.io/v1alpha1", "XListenerSet", "info"),
        ("agentgateway.dev/v1alpha1", "AgentgatewayPolicy", "info"),
        ("inference.networking.k8s.io/v1", "InferencePool", "info"),
        ("specs.smi-spec.io/v1alpha4", "HTTPRouteGroup", "info"),
        ("gateway.networking.k8s.io/v1alpha2", "ReferencePolicy", "warning"),
        ("gateway.kgateway.dev/v1alpha1", "Upstream", "warning"),
    ],
)
def test_a_kind_of_others_is_kept_and_has_no_effect(api: str, kind: str, severity: str) -> None:
    spec = "{rules: [{backendRefs: [{name: a, port: 1}]}]}"
    parsed = load(f"{{apiVersion: {api}, kind: {kind}, metadata: {{name: a}}, spec: {spec}}}")
    (finding,) = parsed.findings
    assert (finding.code, str(finding.severity)) == ("KGW209", severity)
    (kept,) = parsed.resources
    assert isinstance(kept, Opaque)
    assert not kept.refused


def test_a_version_that_is_not_served_is_refused() -> None:
    finding = only(
        "{apiVersion: gateway.networking.k8s.io/v1alpha2, kind: HTTPRoute, metadata: {name: a}}"
    )
    assert (finding.code, finding.field) == ("KGW210", "apiVersion")
    assert finding.legal is not None
    assert "gateway.networking.k8s.io/v1beta1" in finding.legal


def test_of_two_definitions_the_last_is_used() -> None:
    first = "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: 10.0.0.1}}"
    parsed = load(first, first.replace("10.0.0.1", "10.0.0.2"))
    assert [one.code for one in parsed.findings] == ["KGW301"]
    (service,) = parsed.resources
    assert isinstance(service, Service)
    assert [str(vip) for vip in service.vips()] == ["10.0.0.2"]


def policy(spec: str, kind: str = "TrafficPolicy") -> str:
    return f"""
apiVersion: gateway.kgateway.dev/v1alpha1
kind: {kind}
metadata: {{name: policy}}
spec: {spec}
"""


@pytest.mark.parametrize(
    ("kind", "spec", "field"),
    [
        ("TrafficPolicy", "{ai: {promptGuard: {}}}", "spec.ai"),
        ("TrafficPolicy", "{statPrefix: a}", "spec.statPrefix"),
    ],
)
def test_a_policy_field_that_is_not_enforced_is_an_error_of_the_policy(
    kind: str, spec: str, field: str
) -> None:
    parsed = load(policy(spec, kind))
    (finding,) = parsed.findings
    assert (finding.code, str(finding.severity), finding.field) == ("KGW501", "error", field)
    (resource,) = parsed.resources
    assert resource.defects == (finding,)


def test_a_route_field_that_is_not_done_is_a_warning() -> None:
    finding = only(route("{rules: [{sessionPersistence: {idleTimeout: 1h}}]}"))
    assert (finding.code, str(finding.severity)) == ("KGW501", "warning")


@pytest.mark.parametrize(
    ("bucket", "code"),
    [
        ("{maxTokens: 3}", "KGW204"),
        ("{maxTokens: 0, fillInterval: 1s}", "KGW207"),
        ("{maxTokens: 3, tokensPerFill: 0, fillInterval: 1s}", "KGW207"),
        ("{maxTokens: 3, fillInterval: 49ms}", "KGW208"),
        ("{maxTokens: true, fillInterval: 1s}", "KGW205"),
    ],
)
def test_a_token_bucket_has_bounds(bucket: str, code: str) -> None:
    assert only(policy(f"{{rateLimit: {{local: {{tokenBucket: {bucket}}}}}}}")).code == code


def test_a_token_bucket_gains_one_token_unless_it_is_told() -> None:
    text = policy("{rateLimit: {local: {tokenBucket: {maxTokens: 3, fillInterval: 1m}}}}")
    (resource,) = load(text).resources
    assert isinstance(resource, TrafficPolicy)
    assert resource.local_rate_limit is not None
    bucket = resource.local_rate_limit.token_bucket
    assert bucket is not None
    assert (bucket.tokens_per_fill, bucket.fill_interval) == (1, 60_000)


@pytest.mark.parametrize(
    ("kind", "target"), [("TrafficPolicy", "Service"), ("HTTPListenerPolicy", "HTTPRoute")]
)
def test_a_policy_has_only_targets_of_its_kinds(kind: str, target: str) -> None:
    finding = only(policy(f"{{targetRefs: [{{group: '', kind: {target}, name: a}}]}}", kind))
    assert finding.code == "KGW208"
    assert "targetRefs may only reference Gateway" in finding.message


@pytest.mark.parametrize(
    "spec",
    [
        "{accessLog: [{fileSink: {path: /dev/stdout}}]}",
        "{accessLog: [{fileSink: {path: /dev/stdout, stringFormat: a, jsonFormat: {}}}]}",
    ],
)
def test_a_file_sink_has_exactly_one_format(spec: str) -> None:
    finding = only(policy(spec, "HTTPListenerPolicy"))
    assert "exactly one of the fields in [stringFormat jsonFormat]" in finding.message


def gateway(listeners: str) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: a}}
spec: {{gatewayClassName: kgateway, listeners: {listeners}}}
"""


@pytest.mark.parametrize(
    ("listeners", "message"),
    [
        (
            "[{name: a, port: 80, protocol: HTTP, tls: {certificateRefs: [{name: x}]}}]",
            "tls must not be specified",
        ),
        ("[{name: a, port: 80, protocol: TLS}]", "tls mode must be set"),
        (
            "[{name: a, port: 80, protocol: TCP, hostname: a.b}]",
            "hostname must not be specified",
        ),
        (
            "[{name: a, port: 80, protocol: HTTPS, tls: {mode: Passthrough}}]",
            "tls mode must be Terminate",
        ),
        (
            "[{name: a, port: 443, protocol: HTTPS, tls: {}}]",
            "certificateRefs or options must be specified",
        ),
        (
            "[{name: a, port: 80, protocol: HTTP}, {name: a, port: 81, protocol: HTTP}]",
            "Listener name must be unique",
        ),
        (
            "[{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTP}]",
            "Combination of port, protocol and hostname must be unique",
        ),
    ],
)
def test_listeners_of_a_gateway_have_rules(listeners: str, message: str) -> None:
    finding = only(gateway(listeners))
    assert finding.code == "KGW208"
    assert message in finding.message


def test_models_can_be_made_in_python() -> None:
    made = HTTPRoute.model_validate(
        {
            "api_version": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "a"},
            "spec": {"parent_refs": [{"name": "edge"}]},
        }
    )
    (read,) = load(
        "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: a}, "
        "spec: {parentRefs: [{name: edge}]}}"
    ).resources
    assert made.model_dump() == read.model_dump()


# === What parts have alike ===


def test_equal_backends_are_one_model() -> None:
    backends = "[{backendRefs: [{name: a, port: 80}]}, {backendRefs: [{name: a, port: 80}]}]"
    (found,) = load(route(f"{{rules: {backends}}}")).resources
    assert isinstance(found, HTTPRoute)
    first, second = found.spec.rules
    assert first.backend_refs[0] is second.backend_refs[0]
    assert first.backend_refs[0].model_fields_set == {"name", "port"}


@pytest.mark.parametrize("other", ["port: true", "port: '80'", "port: 80, weight: true"])
def test_what_only_compares_equal_is_not_the_same(other: str) -> None:
    one = "[{backendRefs: [{name: a, port: 80, weight: 1}, {name: a, port: 1}]}]"
    assert load(route(f"{{rules: {one}}}")).findings == ()
    finding = only(route(f"{{rules: [{{backendRefs: [{{name: a, {other}}}]}}]}}"))
    assert finding.code == "KGW205"


def test_fields_that_were_given_are_known_of_each_part() -> None:
    text = "{parentRefs: [{name: a, port: 1}, {name: b}], rules: [{name: x}, {name: z, odd: 1}]}"
    for _ in range(2):
        (found,) = load(route(text)).resources
        assert isinstance(found, HTTPRoute)
        assert [one.as_written() for one in found.spec.parent_refs] == [
            {"name": "a", "port": 1},
            {"name": "b"},
        ]
        assert [one.model_extra for one in found.spec.rules] == [{}, {"odd": 1}]
        assert [one.model_fields_set for one in found.spec.rules] == [{"name"}, {"name", "odd"}]
