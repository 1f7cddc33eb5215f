"""What listener policies make of access logs and of local replies, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from tests.translate.support import EDGE, codes, condition, load, run, run_all, verdict

pytestmark = pytest.mark.fields(
    "ListenerPolicy.spec.default.httpSettings.accessLog.filter",
    "ListenerPolicy.spec.default.httpSettings.accessLog.grpcService",
    "ListenerPolicy.spec.default.httpSettings.accessLog.openTelemetry",
    "ListenerPolicy.spec.default.httpSettings.localReplies",
    without=(
        "ListenerPolicy.spec.default.httpSettings.accessLog.filter.orFilter",
        "ListenerPolicy.spec.default.httpSettings.localReplies.defaultBodyFormat.contentType",
        "ListenerPolicy.spec.default.httpSettings.localReplies.defaultBodyFormat.json",
        "ListenerPolicy.spec.default.httpSettings.localReplies.mappers.bodyFormatOverride.text",
    ),
)

COLLECTOR = """
apiVersion: v1
kind: Service
metadata: {name: logs}
spec: {clusterIP: 10.0.0.9, ports: [{name: telemetry, port: 4317}]}
---
apiVersion: v1
kind: Service
metadata: {name: logs, namespace: other}
spec: {clusterIP: 10.0.0.8, ports: [{name: telemetry, port: 4317}]}
"""

GRANT = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: grant, namespace: other}
spec:
  from: [{group: gateway.kgateway.dev, kind: ListenerPolicy, namespace: default}]
  to: [{group: "", kind: Service}]
"""


def policy(settings: dict[str, Any]) -> str:
    """A ListenerPolicy with these HTTP settings."""
    return yaml.safe_dump(
        {
            "apiVersion": "gateway.kgateway.dev/v1alpha1",
            "kind": "ListenerPolicy",
            "metadata": {"name": "logs"},
            "spec": {
                "targetRefs": [
                    {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}
                ],
                "default": {"httpSettings": settings},
            },
        }
    )


def log_policy(*logs: dict[str, Any]) -> str:
    return policy({"accessLog": list(logs)})


def file_log(filter: dict[str, Any]) -> dict[str, Any]:
    return {"fileSink": {"path": "/log", "stringFormat": "x"}, "filter": filter}


def service(**more: Any) -> dict[str, Any]:
    return {"backendRef": {"name": "logs", "port": 4317}, "logName": "requests", **more}


def refusals(*texts: str) -> list[str]:
    _, findings = run_all(EDGE, COLLECTOR, *texts)
    return [one.message for one in findings if one.severity == "error"]


# === Filters ===


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (
            {"statusCodeFilter": {"op": "GE", "value": 500}},
            {"type": "status_code", "op": "ge", "value": 500},
        ),
        (
            {"durationFilter": {"op": "LE", "value": 0}},
            {"type": "duration", "op": "le", "value": 0},
        ),
        ({"notHealthCheckFilter": True}, {"type": "not_health_check"}),
        ({"notHealthCheckFilter": False}, {"type": "and", "filters": []}),
        ({"traceableFilter": True}, {"type": "traceable"}),
        (
            {"celFilter": {"match": "response.code >= 500"}},
            {"type": "cel", "expression": "response.code >= 500"},
        ),
        (
            {"headerFilter": {"header": {"name": "X-A", "value": "1"}}},
            {"type": "header", "name": "X-A", "value": {"exact": "1"}},
        ),
        (
            {"headerFilter": {"header": {"type": "RegularExpression", "name": "a", "value": "."}}},
            {"type": "header", "name": "a", "value": {"regex": "."}},
        ),
        (
            {"responseFlagFilter": {"flags": ["UH", "DC"]}},
            {"type": "response_flag", "flags": ["UH", "DC"]},
        ),
        (
            {"grpcStatusFilter": {"statuses": ["UNAUTHENTICATED", "OK"], "exclude": True}},
            {"type": "grpc_status", "statuses": [0, 16], "exclude": True},
        ),
        (
            {
                "runtimeFilter": {
                    "runtimeKey": "k",
                    "percentSampled": {"numerator": 5, "denominator": "TEN_THOUSAND"},
                    "useIndependentRandomness": True,
                }
            },
            {
                "type": "runtime",
                "key": "k",
                "numerator": 5,
                "denominator": 10_000,
                "independent": True,
            },
        ),
        (
            {
                "andFilter": [
                    {"traceableFilter": True},
                    {"orFilter": [{"notHealthCheckFilter": True}, {"traceableFilter": True}]},
                ]
            },
            {
                "type": "and",
                "filters": [
                    {"type": "traceable"},
                    {
                        "type": "or",
                        "filters": [{"type": "not_health_check"}, {"type": "traceable"}],
                    },
                ],
            },
        ),
    ],
)
def test_filters_are_what_is_logged(given: dict[str, Any], made: dict[str, Any]) -> None:
    found = run(EDGE, log_policy(file_log(given)))
    (log,) = found.ir["listeners"][0]["access_logs"]
    assert log["filter"] == made
    assert codes(found) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "exactly one of the fields in [statusCodeFilter "),
        ({"traceableFilter": True, "notHealthCheckFilter": True}, "exactly one of the fields in ["),
        ({"andFilter": [{"traceableFilter": True}]}, "andFilter"),
        ({"statusCodeFilter": {"op": "GT", "value": 1}}, "op"),
        ({"statusCodeFilter": {"op": "GE", "value": -1}}, "value"),
        ({"grpcStatusFilter": {"statuses": ["NOPE"]}}, "statuses"),
        ({"responseFlagFilter": {"flags": []}}, "flags"),
        ({"celFilter": {"match": "nothing.here"}}, "celFilter cannot be used"),
        ({"celFilter": {"match": "1 + 1"}}, "the result is never true or false"),
        ({"responseFlagFilter": {"flags": ["XX"]}}, 'unknown response flag "XX"'),
        ({"runtimeFilter": {"runtimeKey": ""}}, "runtimeKey"),
        (
            {"headerFilter": {"header": {"type": "RegularExpression", "name": "a", "value": "("}}},
            "headerFilter cannot be used",
        ),
    ],
)
def test_a_filter_that_cannot_be_used_makes_the_policy_invalid(
    given: dict[str, Any], message: str
) -> None:
    found, findings = run_all(EDGE, log_policy(file_log(given)))
    errors = [one for one in findings if one.severity == "error"]
    assert any(message in f"{one.field} {one.message}" for one in errors), errors
    assert verdict(found, "ListenerPolicy default/logs", "Accepted") == ("False", "Invalid")
    assert found.ir["listeners"][0]["access_logs"] == []


def test_a_wrong_condition_inside_of_others_is_found() -> None:
    wrong = {"responseFlagFilter": {"flags": ["XX"]}}
    given = {"andFilter": [{"traceableFilter": True}, {"orFilter": [wrong, wrong]}]}
    found = run(EDGE, log_policy(file_log(given)))
    fields = [one.field for one in found.findings]
    inside = "spec.default.httpSettings.accessLog[0].filter.andFilter[1].orFilter"
    assert fields == [f"{inside}[{number}].responseFlagFilter" for number in (0, 1)]


def test_a_sample_of_nothing_is_said_to_be_one() -> None:
    found = run(EDGE, log_policy(file_log({"runtimeFilter": {"runtimeKey": "k"}})))
    (log,) = found.ir["listeners"][0]["access_logs"]
    assert (log["filter"]["numerator"], log["filter"]["denominator"]) == (0, 100)
    assert codes(found) == ["KGW413"]


# === Services ===


def test_a_service_gets_all_that_is_said_of_it() -> None:
    given = service(
        authority="logs.example",
        maxReceiveMessageLength=1024,
        skipEnvoyHeaders=True,
        timeout="2s",
        initialMetadata=[{"key": "x-a", "value": "1"}, {"key": "x-b"}],
        retryPolicy={
            "numRetries": 3,
            "retryBackOff": {"baseInterval": "100ms", "maxInterval": "5s"},
        },
        additionalRequestHeadersToLog=["x-one"],
        additionalResponseHeadersToLog=["x-two"],
        additionalResponseTrailersToLog=["x-three"],
    )
    only = {"statusCodeFilter": {"op": "GE", "value": 500}}
    found = run(EDGE, COLLECTOR, log_policy({"grpcService": given, "filter": only}))
    (log,) = found.ir["listeners"][0]["access_log_services"]
    assert log == {
        "cluster": "kube_default_logs_4317_http2",
        "authority": "logs.example",
        "metadata": [["x-a", "1"], ["x-b", ""]],
        "timeout_ms": 2000,
        "retry": {"attempts": 3, "base_interval_ms": 100, "max_interval_ms": 5000},
        "max_answer_bytes": 1024,
        "skip_envoy_headers": True,
        "log_name": "requests",
        "node_cluster": "edge.default",
        "protocol": {
            "type": "envoy",
            "request_headers": ["x-one"],
            "response_headers": ["x-two"],
            "response_trailers": ["x-three"],
        },
        "filter": {"type": "status_code", "op": "ge", "value": 500},
    }
    assert found.ir["clusters"][log["cluster"]]["protocol"] == "http2"
    assert verdict(found, "ListenerPolicy default/logs", "Accepted") == ("True", "Valid")


def test_a_collector_gets_records_of_a_resource() -> None:
    given: dict[str, Any] = {
        "grpcService": service(),
        "body": "%PROTOCOL%",
        "attributes": {
            "values": [
                {"key": "a", "value": {"stringValue": "%REQ(:METHOD)%"}},
                {
                    "key": "b",
                    "value": {
                        "arrayValue": [
                            {"stringValue": "1"},
                            {
                                "kvListValue": {
                                    "values": [{"key": "c", "value": {"stringValue": ""}}]
                                }
                            },
                        ]
                    },
                },
            ]
        },
        "resourceAttributes": {
            "values": [{"key": "service.name", "value": {"stringValue": "own"}}]
        },
    }
    found = run(EDGE, COLLECTOR, log_policy({"openTelemetry": given}))
    (log,) = found.ir["listeners"][0]["access_log_services"]
    assert log["authority"] == "logs.default"
    assert log["protocol"] == {
        "type": "open_telemetry",
        "builtin_labels": True,
        "body": {"string": "%PROTOCOL%"},
        "attributes": [
            ["a", {"string": "%REQ(:METHOD)%"}],
            ["b", {"array": [{"string": "1"}, {"key_values": [["c", {"string": ""}]]}]}],
        ],
        "resource_attributes": [
            ["service.name", {"string": "own"}],
            ["service.namespace", {"string": "default"}],
            ["k8s.namespace.name", {"string": "default"}],
            ["k8s.container.name", {"string": "kgw"}],
        ],
    }
    given = {"grpcService": service(), "disableBuiltinLabels": True}
    found = run(EDGE, COLLECTOR, log_policy({"openTelemetry": given}))
    (log,) = found.ir["listeners"][0]["access_log_services"]
    assert log["protocol"]["builtin_labels"] is False
    assert log["protocol"]["resource_attributes"][0] == ["service.name", {"string": "edge.default"}]


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ({"name": "logz", "port": 4317}, "Service default/logz not found"),
        ({"name": "logs", "port": 1}, "has no TCP port 1"),
        ({"name": "logs", "port": 4317, "namespace": "other"}, "no ReferenceGrant in namespace"),
        ({"name": "logs"}, "Must have port for Service reference"),
        ({"group": "a.example", "kind": "Nothing", "name": "logs"}, "is not a kind of backend"),
    ],
)
def test_a_service_that_cannot_be_resolved_makes_the_policy_invalid(
    ref: dict[str, Any], message: str
) -> None:
    text = log_policy({"grpcService": service(backendRef=ref)})
    found, findings = run_all(EDGE, COLLECTOR, text)
    assert any(message in one.message for one in findings)
    assert verdict(found, "ListenerPolicy default/logs", "Accepted") == ("False", "Invalid")
    assert "access_log_services" not in found.ir["listeners"][0]


def test_a_grant_permits_a_service_of_another_namespace() -> None:
    ref = {"name": "logs", "port": 4317, "namespace": "other"}
    text = log_policy({"grpcService": service(backendRef=ref)})
    found = run(EDGE, COLLECTOR, GRANT, text)
    (log,) = found.ir["listeners"][0]["access_log_services"]
    assert log["cluster"] == "kube_other_logs_4317_http2"
    assert codes(found) == []


def test_formats_of_records_are_looked_at() -> None:
    wrong = {"stringValue": "%NOPE%"}
    given = {
        "grpcService": service(),
        "body": "%NOPE%",
        "attributes": {
            "values": [
                {"key": "a", "value": wrong},
                {
                    "key": "b",
                    "value": {"kvListValue": {"values": [{"key": "c", "value": wrong}]}},
                },
                {"key": "d", "value": {"arrayValue": [wrong]}},
            ]
        },
    }
    found = run(EDGE, COLLECTOR, log_policy({"openTelemetry": given}))
    inside = "spec.default.httpSettings.accessLog[0].openTelemetry"
    values = f"{inside}.attributes.values"
    assert [one.field for one in found.findings] == [
        f"{values}[0].value.stringValue",
        f"{values}[1].value.kvListValue.values[0].value.stringValue",
        f"{values}[2].value.arrayValue[0].stringValue",
        f"{inside}.body",
    ]
    accepted = condition(found, "ListenerPolicy default/logs", "Accepted")
    assert (accepted.status, accepted.reason) == ("False", "Invalid")


def test_a_value_is_of_one_kind() -> None:
    for value in ({}, {"stringValue": "a", "arrayValue": []}):
        given = {
            "grpcService": service(),
            "attributes": {"values": [{"key": "a", "value": value}]},
        }
        (message,) = refusals(log_policy({"openTelemetry": given}))
        assert "exactly one of the fields in [stringValue arrayValue kvListValue]" in message


# === Local replies ===


def replies(**given: Any) -> str:
    return policy({"localReplies": given})


NOT_FOUND = {"statusCodeFilter": {"op": "EQ", "value": 404}}


def test_local_replies_are_changed_as_it_is_said() -> None:
    mapper = {
        "filter": NOT_FOUND,
        "statusCode": 410,
        "body": "gone",
        "bodyFormatOverride": {"json": {"code": "%RESPONSE_CODE%"}, "contentType": "a/b"},
        "headers": {
            "set": [{"name": "x-a", "value": "%PROTOCOL%"}],
            "add": [{"name": "x-b", "value": "1"}],
        },
    }
    found = run(EDGE, replies(mappers=[mapper], defaultBodyFormat={"text": "<%LOCAL_REPLY_BODY%>"}))
    assert found.ir["listeners"][0]["local_replies"] == {
        "mappers": [
            {
                "filter": {"type": "status_code", "op": "eq", "value": 404},
                "status": 410,
                "body": "gone",
                "body_format": {
                    "body": {"json": {"code": "%RESPONSE_CODE%"}},
                    "content_type": "a/b",
                },
                "set": [["x-a", "%PROTOCOL%"]],
                "add": [["x-b", "1"]],
            }
        ],
        "body_format": {"body": {"text": "<%LOCAL_REPLY_BODY%>"}},
    }
    assert codes(found) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "at least one of the fields in [mappers defaultBodyFormat] must be set"),
        ({"mappers": []}, "mappers"),
        (
            {"mappers": [{"filter": NOT_FOUND}]},
            "at least one of the fields in [statusCode body bodyFormatOverride headers]",
        ),
        ({"mappers": [{"statusCode": 410}]}, "filter"),
        ({"mappers": [{"filter": NOT_FOUND, "statusCode": 600}]}, "statusCode"),
        (
            {"mappers": [{"filter": NOT_FOUND, "headers": {"remove": ["a"]}}]},
            "Local reply mappers may only add or modify headers, not remove them",
        ),
        (
            {"mappers": [{"filter": NOT_FOUND, "headers": {}}]},
            "at least one of the fields in [set add remove] must be set",
        ),
        (
            {"defaultBodyFormat": {}},
            "exactly one of the fields in [json text] must be set",
        ),
        ({"defaultBodyFormat": {"text": "%NOPE%"}}, "unknown operator %NOPE%"),
        (
            {
                "mappers": [
                    {
                        "filter": NOT_FOUND,
                        "headers": {"set": [{"name": "content-length", "value": "1"}]},
                    }
                ]
            },
            "header field content-length cannot be changed",
        ),
        (
            {"mappers": [{"filter": {"responseFlagFilter": {"flags": ["XX"]}}, "statusCode": 410}]},
            'unknown response flag "XX"',
        ),
    ],
)
def test_changes_that_cannot_be_made_make_the_policy_invalid(
    given: dict[str, Any], message: str
) -> None:
    found, findings = run_all(EDGE, replies(**given))
    errors = [one for one in findings if one.severity == "error"]
    assert any(message in f"{one.field} {one.message}" for one in errors), errors
    assert verdict(found, "ListenerPolicy default/logs", "Accepted") == ("False", "Invalid")
    assert "local_replies" not in found.ir["listeners"][0]


def test_what_is_valid_alone_is_parsed_without_findings() -> None:
    assert not load(replies(defaultBodyFormat={"text": "a"})).findings
