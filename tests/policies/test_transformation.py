"""TrafficPolicy `transformation`: what templates make of requests and of their responses."""

from __future__ import annotations

import base64
import re
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from tests.policies.manifests import BASE, policy

import kgw
from kgw._native import template
from kgw.api.kgateway.traffic.transformation import Transformation
from kgw.attach.effective import NOTHING
from kgw.translate.policies import transformation

if TYPE_CHECKING:
    from kgw.testing import Gateway, GatewayFactory

pytestmark = pytest.mark.fields("TrafficPolicy.spec.transformation")

LOG = """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: HTTPListenerPolicy
metadata: {name: log}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]
  accessLog:
  - fileSink:
      path: /dev/stdout
      jsonFormat: {user: "%DYNAMIC_METADATA(app:user)%", size: "%DYNAMIC_METADATA(app:size)%"}
"""


def transforming(kgw_proxy: GatewayFactory, *more: Any, **halves: Any) -> Gateway:
    return kgw_proxy([BASE, policy({"transformation": halves}), *more])


# === Heads ===


def test_fields_of_requests_are_set_added_and_removed_in_this_order(
    kgw_proxy: GatewayFactory,
) -> None:
    gateway = transforming(
        kgw_proxy,
        request={
            "set": [
                {"name": "x-a", "value": '{{ request_header("x-b") }}!'},
                {"name": "x-gone", "value": '{{ header("x-none") }}'},
                {"name": "x-empty"},
                {"name": "x-both", "value": "set"},
            ],
            "add": [
                {"name": "x-c", "value": "plain"},
                {"name": "x-both", "value": "added"},
                {"name": "x-skipped", "value": '{{ header("x-none") }}'},
            ],
            "remove": ["x-d", "X-Both"],
        },
    )
    sent = {"x-a": "old", "x-b": "b", "x-c": "c", "x-d": "d", "x-gone": "g", "x-empty": "e"}
    answer = gateway.get("/", headers=sent)
    answer.expect(
        received={
            "headers": {
                "x-a": "b!",
                "x-b": "b",
                "x-d": None,
                "x-gone": None,
                "x-empty": None,
                "x-both": None,
                "x-skipped": None,
            }
        }
    )
    assert answer.received is not None
    assert answer.received.headers.all("x-c") == ["c", "plain"]


def test_pseudo_fields_say_what_is_asked_for(kgw_proxy: GatewayFactory) -> None:
    gateway = transforming(
        kgw_proxy,
        request={
            "set": [
                {"name": ":path", "value": "/v1{{ request_header(':path') }}"},
                {"name": ":method", "value": "PUT"},
                {"name": ":authority", "value": "{{ header(':method') | lower }}.example"},
            ]
        },
        response={
            "set": [
                {"name": ":status", "value": "{% if header(':status') == '200' %}203{% endif %}"},
                {"name": "x-asked", "value": "{{ request_header(':path') }}"},
            ]
        },
    )
    answer = gateway.get("/a?b=c").expect(status=203, headers={"x-asked": "/v1/a?b=c"})
    assert answer.received is not None
    assert (answer.received.method, answer.received.target) == ("PUT", "/v1/a?b=c")
    assert answer.received.headers["host"] == "get.example"


@pytest.mark.parametrize(("before", "after"), [(200, 204), (200, 304), (204, 200), (304, 203)])
def test_an_answer_with_a_body_stays_one(
    before: int, after: int, kgw_proxy: GatewayFactory
) -> None:
    gateway = transforming(kgw_proxy, response={"set": [{"name": ":status", "value": f"{after}"}]})
    # The next answer on the connection, if a client took the body for none.
    body = b"" if before in (204, 304) else b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad"
    gateway.backend("api").responds(before, body=body)
    address = next(iter(gateway.addresses.values()))[0]
    with socket.create_connection(address, timeout=5) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 2)
        client.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: client.recv(65_536), b""))
    for _ in range(2):
        head, _, received = received.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        if (before in (204, 304)) == (after in (204, 304)):
            assert status == after
        else:
            assert status == before
        assert received.startswith(body)
        received = received.removeprefix(body)
    assert received == b""


def test_templates_see_the_message_as_it_came(kgw_proxy: GatewayFactory) -> None:
    gateway = transforming(
        kgw_proxy,
        request={
            "set": [
                {"name": "x-a", "value": "new"},
                {"name": "x-b", "value": "{{ header('x-a') }}"},
            ],
            "remove": ["x-a"],
        },
    )
    gateway.get("/", headers={"x-a": "old"}).expect(
        received={"headers": {"x-a": None, "x-b": "old"}}
    )


def test_responses_know_their_requests(kgw_proxy: GatewayFactory) -> None:
    gateway = transforming(
        kgw_proxy,
        response={
            "set": [
                {"name": "x-from", "value": "{{ header('x-up') }}/{{ request_header('x-user') }}"},
                {"name": "x-session", "value": "{{ get_cookie('sid') }}"},
            ],
            "remove": ["x-up"],
        },
    )
    gateway.backend("api").responds(200, {"x-up": "1"}, "hello")
    gateway.get("/", headers={"x-user": "ann", "cookie": "a=b; sid=42"}).expect(
        headers={"x-from": "1/ann", "x-session": "42", "x-up": None}, body="hello"
    )


def test_the_proxys_own_answers_are_transformed(kgw_proxy: GatewayFactory) -> None:
    limit = {"local": {"tokenBucket": {"maxTokens": 1, "fillInterval": "60s"}}}
    halves = {"response": {"set": [{"name": "x-status", "value": "{{ header(':status') }}"}]}}
    gateway = kgw_proxy([BASE, policy({"rateLimit": limit, "transformation": halves})])
    gateway.get("/").expect(status=200, headers={"x-status": "200"})
    gateway.get("/").expect(status=429, headers={"x-status": "429"}, body="local_rate_limited")


def test_a_template_that_fails_takes_its_field_with_it(kgw_proxy: GatewayFactory) -> None:
    bad = "{{ substring('a', -1) }}"
    gateway = transforming(
        kgw_proxy,
        request={
            "set": [{"name": "x-a", "value": bad}, {"name": "x-b", "value": "b"}],
            "add": [{"name": "x-c", "value": bad}],
        },
    )
    gateway.get("/", headers={"x-a": "1"}).expect(
        status=200, received={"headers": {"x-a": None, "x-b": "b", "x-c": None}}
    )
    assert gateway.stats()["transformation_template_failed"] == 2


def test_nothing_is_split_by_what_a_template_makes(kgw_proxy: GatewayFactory) -> None:
    gateway = transforming(
        kgw_proxy, request={"set": [{"name": "x-a", "value": "a\r\nx-evil: 1{{ '\n' }}b"}]}
    )
    gateway.get("/").expect(received={"headers": {"x-a": "a  x-evil: 1 b", "x-evil": None}})


def test_random_texts_are_of_one_request(kgw_proxy: GatewayFactory) -> None:
    value = "{{ replace_with_random('id', 'id') }}"
    gateway = transforming(kgw_proxy, request={"set": [{"name": "x-id", "value": value}]})
    seen = set()
    for _ in range(3):
        received = gateway.get("/").received
        assert received is not None
        assert len(base64.b64decode(received.headers["x-id"] + "==")) == 16
        seen.add(received.headers["x-id"])
    assert len(seen) == 3


# === Bodies ===


def test_the_members_of_a_json_body_are_variables(kgw_proxy: GatewayFactory) -> None:
    gateway = transforming(
        kgw_proxy,
        request={
            "set": [{"name": "x-model", "value": "{{ model }}"}],
            "body": {
                "parseAs": "AsJson",
                "value": '{"model": "{{ model }}-v2", "n": {{ messages | length }}}',
            },
        },
    )
    answer = gateway.post("/", json={"model": "llama3", "messages": [1, 2]})
    answer.expect(
        received={"headers": {"x-model": "llama3"}, "json": {"model": "llama3-v2", "n": 2}}
    )
    assert answer.received is not None
    assert answer.received.headers["content-length"] == str(len(answer.received.body))


def test_roots_of_any_json_and_members_named_like_functions(kgw_proxy: GatewayFactory) -> None:
    gateway = transforming(
        kgw_proxy,
        request={
            "set": [{"name": "x-first", "value": "{{ context()[0] }}"}],
            "body": {"parseAs": "AsJson", "value": "{{ header('x-a') }}:{{ context().header }}"},
        },
    )
    gateway.post("/", json=["a"]).expect(received={"headers": {"x-first": "a"}})
    gateway.post("/", json={"header": "own"}, headers={"x-a": "1"}).expect(
        received={"body": "1:own"}
    )


def test_bodies_of_responses(kgw_proxy: GatewayFactory) -> None:
    gateway = transforming(
        kgw_proxy,
        response={
            "body": {"value": "<{{ body() }}>"},
            "set": [{"name": "x-size", "value": "{{ body() | length }}"}],
        },
    )
    gateway.backend("api").responds(200, {"content-type": "text/plain"}, "hello")
    gateway.get("/").expect(
        body="<hello>",
        headers={"content-length": "7", "content-type": "text/plain", "x-size": "5"},
    )
    # What can have no body gets none.
    gateway.request("HEAD", "/").expect(status=200, body="")


def test_an_empty_body_has_no_type(kgw_proxy: GatewayFactory) -> None:
    gateway = transforming(
        kgw_proxy,
        request={"body": {"value": "{{ header('x-none') }}"}},
        response={"body": {"value": "{{ substring('a', -1) }}"}},
    )
    answer = gateway.post("/", json={"a": 1})
    answer.expect(
        status=200,
        body="",
        headers={"content-length": "0", "content-type": None},
        received={"body": "", "headers": {"content-length": "0", "content-type": None}},
    )


def test_a_request_without_a_body_can_get_one(kgw_proxy: GatewayFactory) -> None:
    gateway = transforming(kgw_proxy, request={"body": {"value": "made of {{ header(':path') }}"}})
    gateway.request("DELETE", "/a").expect(received={"body": "made of /a"})


@pytest.mark.parametrize(
    ("half", "body", "text"),
    [
        ({"body": {"parseAs": "AsJson"}}, "{", "json parsing error in transformation template"),
        (
            {"set": [{"name": "x-a", "value": "{{ model }}"}]},
            '{"model": 1}',
            "undeclared json variables in transformation template",
        ),
        (
            {"set": [{"name": "x-a", "value": "{{ model }}"}], "body": {"parseAs": "None"}},
            '{"model": 1}',
            "undeclared json variables in transformation template",
        ),
        (
            {"set": [{"name": "x-a", "value": "{{ model }}"}], "body": {"parseAs": "AsJson"}},
            "",
            "undeclared json variables in transformation template",
        ),
    ],
)
def test_what_templates_cannot_do_with_is_answered_400(
    kgw_proxy: GatewayFactory, half: dict[str, Any], body: str, text: str
) -> None:
    gateway = transforming(kgw_proxy, request=half)
    details = text.replace(" ", "_")
    gateway.post("/", body=body).expect(
        status=400, backend=None, body=text, flags="", details=details
    )
    gateway = transforming(kgw_proxy, response=half)
    gateway.backend("api").responds(200, {"content-type": "application/json"}, body)
    gateway.get("/").expect(status=400, body=text, details=details)


def test_bodies_that_are_too_long(kgw_proxy: GatewayFactory) -> None:
    body = {"value": "{{ body() | length }}", "kgw": {"maxBytes": "1Ki"}}
    gateway = transforming(kgw_proxy, request={"body": body})
    gateway.post("/", body="x" * 1024).expect(received={"body": "1024"})
    gateway.post("/", body="x" * 1025).expect(
        status=413, backend=None, body="Payload Too Large", details="request_payload_too_large"
    )
    gateway = transforming(kgw_proxy, response={"body": body})
    gateway.backend("api").responds(200, {}, "x" * 1025)
    gateway.get("/").expect(
        status=500, body="Internal Server Error", details="response_payload_too_large"
    )


def test_a_buffer_says_how_long_bodies_may_be(kgw_proxy: GatewayFactory) -> None:
    halves = {"request": {"body": {"value": "{{ body() | length }}"}}}
    spec = {"transformation": halves, "buffer": {"maxRequestSize": "2Mi"}}
    gateway = kgw_proxy([BASE, policy(spec)])
    gateway.post("/", body="x" * (3 << 19)).expect(received={"body": str(3 << 19)})
    gateway.post("/", body="x" * (1 << 21 | 1)).expect(status=413)


@pytest.mark.parametrize("parse_as", ["AsString", "None"])
def test_a_body_that_nobody_looks_at_may_be_long(kgw_proxy: GatewayFactory, parse_as: str) -> None:
    value = "{{ header(':path') }}{{ header(':status') }}"
    half = {"set": [{"name": "x-a", "value": value}], "body": {"parseAs": parse_as}}
    gateway = transforming(kgw_proxy, request=half, response=half)
    # Longer than any body that is looked at as a whole.
    body = b"x" * (1 << 21)
    answer = gateway.post("/", body=body).expect(
        status=200, received={"body": body, "headers": {"x-a": "/"}}
    )
    assert answer.headers["x-a"] == "200"


# === Metadata and merging ===


def test_what_is_noted_is_in_access_logs(kgw_proxy: GatewayFactory) -> None:
    def note(key: str, value: str) -> dict[str, Any]:
        return {"namespace": "app", "key": key, "value": {"stringValue": value}}

    gateway = transforming(
        kgw_proxy,
        LOG,
        request={
            "dynamicMetadata": [
                note("user", "{{ header('x-user') }}"),
                note("none", "{{ header('x-none') }}"),
            ]
        },
        response={
            "dynamicMetadata": [note("size", "{{ body() | length }}")],
            "set": [{"name": "x-user", "value": "{{ dynamic_metadata('app:user') }}"}],
        },
    )
    gateway.backend("api").responds(200, {}, "hello")
    answer = gateway.get("/", headers={"x-user": "ann"}).expect(headers={"x-user": "ann"})
    assert answer.access_log == ({"user": "ann", "size": "5"},)


def test_the_most_specific_transformation_counts(kgw_proxy: GatewayFactory) -> None:
    def setting(name: str) -> dict[str, Any]:
        return {"transformation": {"request": {"set": [{"name": name, "value": "1"}]}}}

    gateway = kgw_proxy(
        [BASE, policy(setting("x-route")), policy(setting("x-rule"), "rule", section="api")]
    )
    gateway.get("/").expect(received={"headers": {"x-route": "1", "x-rule": None}})
    gateway.get("/api").expect(received={"headers": {"x-route": None, "x-rule": "1"}})


def test_what_is_merged_deeply_is_one_transformation() -> None:
    """The strongest first: lists follow one another, and the last body counts, as in kgateway."""
    halves = [
        {"set": [{"name": "x-a", "value": "1"}], "body": {"value": "strong"}},
        {"set": [{"name": "x-a", "value": "2"}], "remove": ["x-b"], "body": {"value": "weak"}},
        {"add": [{"name": "x-c", "value": "3"}]},
    ]
    values = [Transformation.model_validate({"request": half}) for half in halves]
    settings: Any = tuple(SimpleNamespace(value=value) for value in values)
    context: Any = SimpleNamespace(effective=NOTHING)
    assert transformation.filters(settings, context) == [
        {
            "type": "transformation",
            "request": {
                "set": [["x-a", "1"], ["x-a", "2"]],
                "add": [["x-c", "3"]],
                "remove": ["x-b"],
                "metadata": [],
                "parse_as": "string",
                "body": "weak",
            },
        }
    ]


def test_in_shadow_nothing_changes(kgw_proxy: GatewayFactory) -> None:
    half = {"set": [{"name": "x-a", "value": "1"}], "body": {"parseAs": "AsJson", "value": "2"}}
    spec = {"transformation": {"request": half}}
    gateway = kgw_proxy([BASE, policy(spec, annotations={"kgw.dev/shadow": "true"})])
    gateway.post("/", body="no JSON").expect(
        status=200, received={"body": "no JSON", "headers": {"x-a": None}}
    )
    assert gateway.stats()["shadow_denied"] == 1


# === What is refused ===


def test_every_function_of_the_page_is_there() -> None:
    page = Path(__file__).parents[2] / "docs" / "transformation.md"
    table = page.read_text().partition("| function | |")[2].partition("\n\n")[0]
    names = set(re.findall(r"`(\w+)\(", table)) | {"range", "dict", "namespace", "debug"}
    assert len(names) == 22
    assert [template.check(f"{{{{ {name}('a') }}}}") for name in names] == [None] * 22


@pytest.mark.parametrize(
    ("half", "code", "message"),
    [
        (
            {"set": [{"name": "x-a", "value": "a\n{{ nope() }}"}]},
            "KGW460",
            "the template cannot be used: line 2: there is no function nope()",
        ),
        ({"body": {"value": "{% if %}"}}, "KGW460", "unexpected end of block"),
        ({"add": [{"name": "x-a", "value": "{{ extraction('a') }}"}]}, "KGW460", "extraction()"),
        (
            {
                "dynamicMetadata": [
                    {"namespace": "a", "key": "b", "value": {"stringValue": "{{ 1 | nope }}"}}
                ]
            },
            "KGW460",
            "there is no filter nope",
        ),
        (
            {"body": {"kgw": {"stream": {"framing": "SSE", "value": "{{"}}}},
            "KGW460",
            "the template cannot be used",
        ),
        ({"set": [{"name": "Content-Length", "value": "1"}]}, "KGW407", "cannot be changed"),
        ({"remove": [":status"]}, "KGW407", ":status of a request"),
        ({"remove": ["a b"]}, "KGW407", "'a b' is not a header field name"),
    ],
)
def test_a_template_that_can_never_be_rendered_refuses_the_policy(
    kgw_proxy: GatewayFactory, half: dict[str, Any], code: str, message: str
) -> None:
    gateway = kgw_proxy([BASE, policy({"transformation": {"request": half}})], strict=False)
    found = [one for one in gateway.config.findings if one.code == code]
    assert [one for one in found if message in one.message], gateway.config.findings
    gateway.get("/").expect(status=500, backend=None)


@pytest.mark.parametrize(
    "half",
    [
        {"set": [{"name": "x-a", "value": "{{ model }}"}]},
        {"body": {"parseAs": "None", "value": "a"}},
    ],
)
def test_a_template_that_asks_for_what_is_not_there_is_warned_about(
    kgw_proxy: GatewayFactory, half: dict[str, Any]
) -> None:
    gateway = kgw_proxy([BASE, policy({"transformation": {"request": half}})])
    assert [one.code for one in gateway.config.findings if one.code == "KGW461"]


@pytest.mark.parametrize(
    ("half", "message"),
    [
        ({"set": [{"name": "", "value": "1"}]}, "at least 1 character"),
        ({"set": [{"name": "a", "value": "1"}, {"name": "a"}]}, "a is there before"),
        ({"add": [{"name": f"x-{n}"} for n in range(17)]}, "at most 16"),
        ({"remove": ["a", "a"]}, "a is there before"),
        ({"body": {"parseAs": "AsXml"}}, "AsJson"),
        (
            {"dynamicMetadata": [{"namespace": "a", "key": "b", "value": {}}]},
            "exactly one of the fields in [stringValue] must be set",
        ),
        (
            {"body": {"parseAs": "None", "kgw": {"stream": {"framing": "SSE"}}}},
            "stream needs a body that is parsed",
        ),
        ({"body": {"kgw": {"maxBytes": 0}}}, "maxBytes must be greater than 0"),
        (
            {"body": {"kgw": {"stream": {"framing": "SSE", "maxEventBytes": "1Gi"}}}},
            "maxEventBytes must be",
        ),
    ],
)
def test_what_the_crd_refuses_is_refused(half: dict[str, Any], message: str) -> None:
    config = kgw.Config.from_objects([policy({"transformation": {"response": half}})])
    said = [f"{one.message}: {one.legal}" for one in config.findings]
    assert any(message in one for one in said), said


def test_fields_of_responses_are_added(kgw_proxy: GatewayFactory) -> None:
    add = [
        {"name": "x-a", "value": '{{ header("x-b") }}!'},
        {"name": "x-skipped", "value": '{{ header("x-none") }}'},
    ]
    gateway = transforming(kgw_proxy, response={"add": add})
    gateway.backend("api").responds(200, headers={"x-a": "a", "x-b": "b"})
    answer = gateway.get("/").expect(status=200)
    assert answer.headers.all("x-a") == ["a", "b!"]
    assert "x-skipped" not in answer.headers
