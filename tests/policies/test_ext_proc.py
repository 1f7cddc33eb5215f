"""TrafficPolicy and GatewayExtension `extProc`: a service processes requests and answers."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.engine.harness import Peer, Response, Upstream, echo, get, post, refused_address
from tests.policies.manifests import BASE, extension, policy
from tests.rpc.processor import Processor, answer, immediate, set_header
from tests.rpc.processor import serving as processing

import kgw
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rpc.processor import Script

pytestmark = pytest.mark.fields(
    "GatewayExtension.spec.extProc",
    "TrafficPolicy.spec.extProc",
    without=(
        "GatewayExtension.spec.extProc.allowedProcessingModeOverrides.requestHeaderMode",
        "GatewayExtension.spec.extProc.allowedProcessingModeOverrides.requestTrailerMode",
        "GatewayExtension.spec.extProc.allowedProcessingModeOverrides.responseBodyMode",
        "GatewayExtension.spec.extProc.allowedProcessingModeOverrides.responseHeaderMode",
        "GatewayExtension.spec.extProc.allowedProcessingModeOverrides.responseTrailerMode",
        "GatewayExtension.spec.extProc.filterStage.weight",
        "TrafficPolicy.spec.extProc.extensionRef.namespace",
        "TrafficPolicy.spec.extProc.processingMode.requestHeaderMode",
        "TrafficPolicy.spec.extProc.processingMode.requestTrailerMode",
        "TrafficPolicy.spec.extProc.processingMode.responseBodyMode",
        "TrafficPolicy.spec.extProc.processingMode.responseTrailerMode",
    ),
)

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: processor}
spec: {ports: [{name: grpc, port: 9000}]}
"""

REF = {"extensionRef": {"name": "processor"}}
RQH, RSH, RQB = "request_headers", "response_headers", "request_body"


def provider(name: str = "processor", weight: int = 0, **members: Any) -> dict[str, Any]:
    """The extension."""
    ref = {"backendRef": {"name": "processor", "port": 9000}}
    service = ref | members.pop("service", {})
    found = extension(name, {"extProc": {"grpcService": service, **members}})
    if weight:
        found["metadata"]["annotations"] = {"kgateway.dev/policy-weight": str(weight)}
    return found


def processed(**members: Any) -> dict[str, Any]:
    """The policy."""
    return policy({"extProc": REF | members})


def config_of(*manifests: Any) -> kgw.Config:
    """One Gateway with one route, the processor's Service, and what else is given."""
    base = yaml.safe_load_all(BASE + "---" + SERVICE)
    return kgw.Config.from_objects([*base, *manifests])


def filters(*manifests: Any) -> list[dict[str, Any]]:
    """The filters of the route in the IR."""
    config = config_of(*manifests)
    assert not [one for one in config.findings if one.severity >= Severity.WARNING]
    found: list[dict[str, Any]]
    found = next(one["filters"] for one in config.ir["routes"].values() if "filters" in one)
    return found


def slice_of(name: str, address: str) -> dict[str, Any]:
    """Where a Service is."""
    host, port = address.split(":")
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [host], "conditions": {"ready": True}}],
        "ports": [{"name": "grpc" if name == "processor" else "http", "port": int(port)}],
    }


class Site:
    """A proxy with a processor."""

    def __init__(self, port: int, processor: Processor) -> None:
        self.port = port
        self.processor = processor

    def ask(self, request: bytes) -> Response:
        """Sends a request on a new connection."""
        peer = Peer(socket.create_connection(("127.0.0.1", self.port), 10))
        peer.send(request)
        response = peer.read_response()
        peer.close()
        return response


@contextlib.contextmanager
def site(script: Script, *manifests: Any, at: str | None = None) -> Iterator[Site]:
    """A proxy whose processor follows a script."""
    processor = Processor(script)
    with contextlib.ExitStack() as stack:
        upstream = Upstream(echo)
        stack.callback(upstream.close)
        address = at or stack.enter_context(processing(processor))
        objects = [
            *yaml.safe_load_all(BASE + "---" + SERVICE),
            slice_of("api", upstream.address),
            slice_of("processor", address),
            *manifests,
        ]
        proxy = kgw.Proxy(objects, workers=1, bind="127.0.0.1:0")
        running = stack.enter_context(proxy)
        ((where,),) = running.addresses.values()
        yield Site(where[1], processor)


SLOW: dict[str, Any] = {"messageTimeout": "10s"}


def test_a_service_changes_requests_and_answers() -> None:
    script = {
        RQH: answer(RQH, headers=[set_header("x-a", "1")]),
        RSH: answer(RSH, headers=[set_header("x-b", "2")]),
    }
    with site(script, provider(**SLOW), processed()) as one:
        response = one.ask(get())
        assert response["x-b"] == "2"
        assert ["x-a", "1"] in json.loads(response.body)["headers"]


def test_a_service_answers_itself() -> None:
    with site({RQH: immediate(401, "who?")}, provider(**SLOW), processed()) as one:
        response = one.ask(get())
        assert (response.status, response.body) == (401, b"who?")


def test_the_policy_says_what_the_service_is_sent() -> None:
    script = {RQB: answer(RQB, body=b"new", remove=("content-length",))}
    mode = {"requestBodyMode": "BUFFERED", "responseHeaderMode": "SKIP"}
    by_extension = {"requestHeaderMode": "SKIP", "responseHeaderMode": "SKIP"}
    with site(
        script, provider(**SLOW, processingMode=by_extension), processed(processingMode=mode)
    ) as one:
        response = one.ask(post(b"old"))
        assert json.loads(response.body)["body"] == "new"
        assert [told.kind for told in one.processor.stream()] == [RQH, RQB]


@pytest.mark.parametrize(("fail_open", "status"), [(None, 200), (True, 200), (False, 500)])
def test_a_service_that_is_not_there(fail_open: bool | None, status: int) -> None:
    members: dict[str, Any] = {} if fail_open is None else {"failOpen": fail_open}
    with (
        refused_address() as address,
        site({}, provider(**members), processed(), at=address) as one,
    ):
        assert one.ask(get()).status == status


def test_it_is_turned_off_where_a_rule_says_so() -> None:
    off = policy({"extProc": {"disable": {}}}, "off", section="api")
    script = {RQH: immediate(403, "no")}
    with site(script, provider(**SLOW), processed(), off) as one:
        assert one.ask(get("/api")).status == 200
        assert one.ask(get("/")).status == 403


def test_every_option_is_in_the_ir() -> None:
    retry = {"attempts": 3, "backoff": {"baseInterval": "50ms", "maxInterval": "2s"}}
    (found,) = filters(
        provider(
            service={"authority": "p.example", "requestTimeout": "3s", "retry": retry},
            failOpen=False,
            processingMode={
                "requestHeaderMode": "DEFAULT",
                "responseHeaderMode": "SKIP",
                "requestBodyMode": "STREAMED",
                "responseBodyMode": "BUFFERED_PARTIAL",
                "requestTrailerMode": "SEND",
                "responseTrailerMode": "SKIP",
            },
            allowProcessingModeOverride=True,
            allowedProcessingModeOverrides=[{"requestBodyMode": "BUFFERED"}],
            messageTimeout="1s",
            maxMessageTimeout="5s",
            routeCacheAction="Clear",
            metadataOptions={"forwarding": {"untyped": ["a"]}},
            requestAttributes=["request.path"],
        ),
        processed(),
    )
    assert found.pop("cluster") is not None
    assert found == {
        "type": "ext_proc",
        "name": "default/processor",
        "authority": "p.example",
        "failure_mode_allow": False,
        "mode": {
            "response_header": "skip",
            "request_body": "streamed",
            "response_body": "buffered_partial",
            "request_trailer": "send",
            "response_trailer": "skip",
        },
        "allow_mode_override": True,
        "allowed_mode_overrides": [
            {
                "request_header": "send",
                "response_header": "send",
                "request_body": "buffered",
                "request_trailer": "skip",
                "response_trailer": "skip",
            }
        ],
        "message_timeout_ms": 1000,
        "max_message_timeout_ms": 5000,
        "open_timeout_ms": 3000,
        "retries": 3,
        "retry_interval_ms": 50,
        "retry_max_interval_ms": 2000,
        "route_cache_action": "clear",
        "forward_metadata": ["a"],
        "request_attributes": ["request.path"],
    }


def test_what_is_not_said_is_kgateways_default() -> None:
    (found,) = filters(provider(), processed())
    assert found.pop("cluster") is not None
    assert found == {
        "type": "ext_proc",
        "name": "default/processor",
        "authority": "processor.default",
        "failure_mode_allow": True,
        "mode": {},
    }


LIMIT = {"local": {"tokenBucket": {"maxTokens": 1, "fillInterval": "1s"}}}


@pytest.mark.parametrize(
    ("stage", "predicate", "first"),
    [
        (None, None, True),
        ("Fault", "Before", True),
        ("AuthN", "During", True),
        ("AuthZ", "After", True),
        ("RateLimit", "Before", True),
        ("RateLimit", "During", False),
        ("RateLimit", "After", False),
        ("Route", "Before", False),
        ("Route", "After", False),
    ],
)
def test_its_place_among_the_filters(stage: str, predicate: str, first: bool) -> None:
    members: dict[str, Any] = {}
    if stage is not None:
        members["filterStage"] = {"stage": stage, "predicate": predicate}
    found = filters(provider(**members), policy({"extProc": REF, "rateLimit": LIMIT}))
    kinds = [one["type"] for one in found]
    expected = ["ext_proc", "local_rate_limit"]
    assert kinds == (expected if first else expected[::-1])
    late = [one for one in found if one.get("after_router")]
    assert bool(late) == ((stage, predicate) == ("Route", "After"))
    assert not any("stage" in one for one in found)


def test_behind_the_router_it_sees_what_the_backend_will() -> None:
    late: dict[str, Any] = {"filterStage": {"stage": "Route", "predicate": "After"}}
    with site({}, provider(**SLOW, **late), processed()) as one:
        assert one.ask(get()).status == 200
        told = dict(one.processor.stream()[0].fields)
        assert "x-envoy-expected-rq-timeout-ms" not in told
        assert told[":path"] == "/"


@pytest.mark.parametrize(
    ("manifests", "message"),
    [
        ([processed()], "GatewayExtension default/processor not found"),
        (
            [
                processed(),
                extension("processor", {"rateLimit": {"grpcService": {}}}),
            ],
            "default/processor",
        ),
        (
            [provider(service={"authority": "a b"}), processed()],
            "authority 'a b' is not a host",
        ),
        (
            [provider(requestAttributes=["a b"]), processed()],
            "'a b' is not an attribute of a request",
        ),
    ],
)
def test_a_policy_that_cannot_be_followed_takes_its_routes_out_of_service(
    manifests: list[Any], message: str
) -> None:
    config = config_of(*manifests)
    assert any(message in one.message for one in config.findings), config.findings
    actions = [one["action"] for one in config.ir["routes"].values()]
    assert {action.get("status") for action in actions if action["type"] == "direct"} == {500}


def test_counters_are_of_all_services() -> None:
    config = config_of(provider(statPrefix="mine"), processed())
    assert [one.code for one in config.findings if "statPrefix" in one.message] == ["KGW413"]


def test_typed_metadata_is_no_metadata_of_kgw() -> None:
    options: dict[str, Any] = {"metadataOptions": {"forwarding": {"typed": ["a"]}}}
    config = config_of(provider(**options), processed())
    assert [one.code for one in config.findings if "typed metadata" in one.message] == ["KGW413"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"messageTimeout": "0s"}, "timeout must be at least 1ms."),
        ({"maxMessageTimeout": "0s"}, "timeout must be at least 1ms."),
        ({"service": {"requestTimeout": "0s"}}, "timeout must be at least 1ms."),
        ({"statPrefix": ""}, "statPrefix"),
        ({"routeCacheAction": "Keep"}, "routeCacheAction"),
        ({"filterStage": {}}, "stage"),
        ({"filterStage": {"stage": "Late"}}, "stage"),
        ({"processingMode": {"requestBodyMode": "SOME"}}, "requestBodyMode"),
        ({"metadataOptions": {"forwarding": {"untyped": []}}}, "untyped"),
    ],
)
def test_what_the_crd_refuses_is_refused(members: dict[str, Any], message: str) -> None:
    config = kgw.Config.from_objects([provider(**members)])
    assert any(message in f"{one.message} {one.path}" for one in config.findings)


@pytest.mark.parametrize("spec", [{}, REF | {"disable": {}}])
def test_a_policy_names_a_service_or_turns_off(spec: dict[str, Any]) -> None:
    config = kgw.Config.from_objects([policy({"extProc": spec})])
    message = "exactly one of the fields in [extensionRef disable] must be set"
    assert any(message in one.message for one in config.findings)
