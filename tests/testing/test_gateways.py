"""Gateways under test: what they serve, what their answers say, what reaches the backends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from tests.testing.manifests import EDGE, LIMIT, TWO_LISTENERS

import kgw
from kgw.testing import Gateway, NoAnswer, Reply

if TYPE_CHECKING:
    from kgw.testing import GatewayFactory, Received

WAYPOINT = Path(__file__).parents[2] / "examples" / "waypoint"
CLIENT = "spiffe://cluster.local/ns/default/sa/client"


# === Configurations ===


def test_text_paths_and_objects_can_be_given_together(
    kgw_proxy: GatewayFactory, tmp_path: Path
) -> None:
    (tmp_path / "limit.yaml").write_text(LIMIT)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "api"},
        "spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 8080}]},
    }
    gateway = kgw_proxy([EDGE, tmp_path, service])
    assert len(gateway.config.resources) == 5
    assert gateway.get("/api").status == 200


def test_models_and_a_config_can_be_given(kgw_proxy: GatewayFactory) -> None:
    config = kgw_proxy(EDGE).config
    assert kgw_proxy(config).get("/api").route == "default/web/api/0"
    assert kgw_proxy(config.resources).get("/api").route == "default/web/api/0"
    with pytest.raises(TypeError, match="a part of it is Gateway"):
        kgw_proxy([EDGE, config.resources[0]])


def test_all_errors_of_a_configuration_are_in_the_refusal(kgw_proxy: GatewayFactory) -> None:
    broken = EDGE.replace("{name: api, port: 8080}]\n", "{name: nobody, port: 8080}]\n")
    broken = broken.replace("{name: shop, port: 80}]\n", "{name: noone, port: 80}]\n")
    with pytest.raises(kgw.ConfigError, match=r"(?s)<text>:\d+:\d+.*nobody.*noone"):
        kgw_proxy(broken)
    gateway = kgw_proxy(broken, strict=False)
    assert gateway.get("/api").status == 500


def test_what_cannot_be_read_is_always_refused(kgw_proxy: GatewayFactory) -> None:
    with pytest.raises(kgw.ConfigError, match="KGW"):
        kgw_proxy("kind: Gateway\napiVersion: [\n", strict=False)


def test_another_configuration_can_be_applied(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(EDGE)
    gateway.backend("api").responds(201)
    gateway.apply([EDGE, LIMIT])
    assert [gateway.get("/api").status for _ in range(3)] == [201, 201, 429]
    assert gateway.get("/api").policies == ("TrafficPolicy default/limit",)
    with pytest.raises(kgw.ConfigError):
        gateway.apply("kind: Gateway\napiVersion: [\n")
    gateway.apply(EDGE)
    assert gateway.get("/api").status == 201


# === Answers ===


def test_an_answer_says_what_happened(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([EDGE, LIMIT])
    gateway.backend("api").responds(202, {"X-Kind": "fake"}, "hello")
    answer = gateway.post("/api/v1?x=1&y=a%20b", headers={"X-One": "1"}, json={"a": 1})
    assert (answer.status, answer.reason, answer.text) == (202, "Accepted", "hello")
    assert answer.headers["x-kind"] == "fake"
    assert answer.headers["X-Served-By"] == "edge"
    assert (answer.route, answer.backend) == ("default/web/api/0", "default/api")
    assert (answer.flags, answer.details) == ("", "via_upstream")
    assert answer.policies == ("TrafficPolicy default/limit",)
    assert answer.log["method"] == "POST"
    assert answer.log["path"] == "/api/v1?x=1&y=a%20b"
    assert answer.log["bytes_received"] == len(b'{"a": 1}')
    assert answer.access_log == ()
    assert answer.received is not None
    assert answer.received.json() == {"a": 1}
    assert answer.received.headers["x-team"] == "web"
    assert answer.received.query == {"x": "1", "y": "a b"}
    assert (answer.received.port, answer.received.path) == (8080, "/api/v1")
    assert repr(answer) == (
        "<Answer 202 to POST http://localhost/api/v1?x=1&y=a%20b: "
        "route default/web/api/0, backend default/api>"
    )
    assert gateway.answers[-1] is answer


def test_a_request_without_a_route_has_none(kgw_proxy: GatewayFactory) -> None:
    answer = kgw_proxy(EDGE).get("/shop")
    assert (answer.status, answer.route, answer.backend, answer.flags) == (404, None, None, "NR")
    assert answer.received is None
    assert answer.policies == ()


def test_each_answer_has_its_own_log_record_and_request(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(EDGE)
    answers = [gateway.get(f"/api/{number}") for number in range(20)]
    assert [answer.log["path"] for answer in answers] == [f"/api/{one}" for one in range(20)]
    received = [answer.received.target for answer in answers if answer.received]
    assert received == [f"/api/{one}" for one in range(20)]
    assert gateway.logs() == []


def test_large_bodies_pass_in_both_directions(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(EDGE)
    body = bytes(range(256)) * 4096
    gateway.backend("api").handles(lambda request: Reply(200, (), request.body))
    assert gateway.put("/api", body=body).body == body
    gateway.backend("api").responds(200, {"Transfer-Encoding": "chunked"}, body)
    assert gateway.get("/api").body == body
    chunked = b"400\r\n" + body[:1024] + b"\r\n0\r\n\r\n"
    answer = gateway.post("/api", headers={"Transfer-Encoding": "chunked"}, body=chunked)
    assert answer.received is not None
    assert answer.received.body == body[:1024]


def test_answers_without_bodies_are_answers(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(EDGE)
    gateway.backend("api").responds(200, (), "hello")
    head = gateway.head("/api")
    assert (head.body, head.headers["content-length"]) == (b"", "5")
    gateway.backend("api").responds(204)
    assert gateway.delete("/api").body == b""


def test_the_log_of_a_policy_is_there_in_its_own_form(kgw_proxy: GatewayFactory) -> None:
    policy = """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: ListenerPolicy
metadata: {name: logs}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]
  default:
    httpSettings:
      accessLog:
      - fileSink: {path: /dev/stdout, stringFormat: "%REQ(:METHOD)% %RESPONSE_CODE%\\n"}
      - fileSink: {path: /dev/stdout, stringFormat: "%RESPONSE_CODE%"}
      - fileSink: {path: /dev/stdout, jsonFormat: {code: "%RESPONSE_CODE%", who: {a: "%REQ(A)%"}}}
"""
    answer = kgw_proxy([EDGE, policy]).get("/api", headers={"a": "b"})
    assert answer.access_log == ("GET 200\n", "200", {"code": 200, "who": {"a": "b"}})
    assert answer.policies == ("ListenerPolicy default/logs",)


# === Backends ===


def test_a_backend_echoes_unless_told_otherwise(kgw_proxy: GatewayFactory) -> None:
    seen = kgw_proxy(EDGE).get("/api?x", headers={"X-A": "1"}).json()
    assert (seen["backend"], seen["port"], seen["target"]) == ("default/api", 8080, "/api?x")
    assert seen["headers"]["x-a"] == "1"


def test_scripted_answers_come_in_order_and_then_the_standing_one(
    kgw_proxy: GatewayFactory,
) -> None:
    gateway = kgw_proxy(EDGE)
    backend = gateway.backend("default/api").responds(200, body="all")
    backend.responds(201, times=2).responds(202, times=1)
    assert [gateway.get("/api").status for _ in range(4)] == [201, 201, 202, 200]
    assert len(backend.requests) == 4
    backend.forget()
    with pytest.raises(AssertionError, match="no request reached backend default/api"):
        _ = backend.last


def test_a_handler_sees_the_request_and_its_exceptions_are_seen(
    kgw_proxy: GatewayFactory,
) -> None:
    gateway = kgw_proxy(EDGE)
    gateway.backend("api").handles(lambda request: Reply(200, (), request.path.upper()))
    assert gateway.get("/api/x").text == "/API/X"

    def broken(request: Received) -> Any:
        raise KeyError(request.method)

    gateway.backend("api").handles(broken)
    answer = gateway.get("/api")
    assert (answer.status, answer.text) == (
        500,
        "the handler of default/api raised KeyError('GET')",
    )
    gateway.backend("api").handles(lambda _: "no reply")  # type: ignore[arg-type, return-value]  # on purpose
    assert "a handler returns a Reply, not str" in gateway.get("/api").text


def test_a_backend_can_refuse_and_reset_and_come_back(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(EDGE)
    backend = gateway.backend("api")
    assert gateway.get("/api").status == 200
    backend.refuses()
    refused = gateway.get("/api")
    assert (refused.status, refused.received) == (503, None)
    assert "UF" in refused.flags
    backend.resets()
    reset = gateway.get("/api")
    assert (reset.status, reset.flags) == (503, "UC")
    assert reset.received is not None
    backend.responds(200, body="back")
    assert gateway.get("/api").text == "back"


def test_what_no_route_leads_to_is_no_backend(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(EDGE)
    assert sorted(gateway.backends) == ["default/api", "default/shop"]
    with pytest.raises(LookupError, match="the backends are: default/api, default/shop"):
        gateway.backend("apj")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"status": 100}, "100 is not the status of a final answer"),
        ({"delay": -1.0}, "a delay cannot be"),
        ({"times": 0}, "times must be at least 1"),
    ],
)
def test_impossible_answers_are_refused(
    kgw_proxy: GatewayFactory, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kgw_proxy(EDGE).backend("api").responds(**arguments)


def test_a_proxy_header_to_a_backend_is_read(kgw_proxy: GatewayFactory) -> None:
    policy = """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: BackendConfigPolicy
metadata: {name: proxy}
spec:
  targetRefs: [{group: "", kind: Service, name: api}]
  upstreamProxyProtocol: {version: V2}
"""
    answer = kgw_proxy([EDGE, policy]).get("/api", source="127.0.0.77")
    assert answer.received is not None
    assert answer.received.proxy is not None
    assert answer.received.proxy.source is not None
    assert answer.received.proxy.source[0] == "127.0.0.77"


def test_backends_speak_plain_http_whatever_the_manifests_ask_for(
    kgw_proxy: GatewayFactory,
) -> None:
    policy = """
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: tls}
spec:
  targetRefs: [{group: "", kind: Service, name: api}]
  validation: {hostname: api.example, wellKnownCACertificates: System}
"""
    h2c = EDGE.replace("{name: http, port: 80}", "{name: http2, port: 80}")
    gateway = kgw_proxy([h2c, policy])
    assert gateway.get("/api").backend == "default/api"
    assert gateway.get("/shop", headers={"x-beta": "1"}).backend == "default/shop"


def test_backends_outside_and_those_that_decide_are_fake_ones_too(
    kgw_proxy: GatewayFactory,
) -> None:
    llm = """
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {name: llm}
spec:
  type: ExternalHostname
  externalHostname: {hostname: api.example}
  port: {port: 443}
  tls: {mode: ServerOnly}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: llm}
spec:
  parentRefs: [{name: edge}]
  rules:
  - matches: [{path: {value: /llm}}]
    filters:
    - type: ExternalAuth
      externalAuth: {protocol: HTTP, backendRef: {name: shop, port: 80}, http: {path: /check}}
    backendRefs: [{group: gateway.networking.x-k8s.io, kind: XBackend, name: llm}]
"""
    gateway = kgw_proxy([EDGE, llm])
    answer = gateway.get("/llm")
    assert answer.backend == "default/llm"
    assert answer.received is not None
    assert answer.received.headers["host"] == "api.example"
    assert gateway.backend("default/shop").last.target == "/check/llm"
    gateway.backend("default/shop").responds(401, body="who?")
    assert (gateway.get("/llm").status, gateway.get("/llm").text) == (401, "who?")


# === Where requests go ===


def test_a_waypoint_is_called_as_the_mesh_does(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(WAYPOINT)
    answer = gateway.get("http://ollama/api", identity=CLIENT, source="10.1.2.3:4000")
    assert answer.status == 200
    assert answer.log["client_identity"] == CLIENT
    assert answer.log["client_address"] == "10.1.2.3:4000"
    assert answer.log["local_address"] == "10.96.238.187:80"
    assert answer.route == "default/ollama/0/0"
    assert answer.policies == (
        "TrafficPolicy default/ratelimit",
        "HTTPListenerPolicy default/access-logging",
    )
    (line,) = answer.access_log
    assert isinstance(line, dict)
    assert (line["authority"], line["response_code"], line["path"]) == ("ollama", 200, "/api")
    other = gateway.get("http://client.default.svc.cluster.local/")
    assert (other.backend, other.route) == ("default/client", "default/client:80")
    assert gateway.get("http://example.com/", to="ollama").log["authority"] == "example.com"
    assert gateway.get("/", to="default/ollama:80", host="x").log["authority"] == "x"
    assert gateway.get("http://10.96.143.111/").backend == "default/client"


def test_what_a_waypoint_does_not_serve_has_no_answer(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(WAYPOINT)
    with pytest.raises(NoAnswer, match=r"the waypoint serves no 10\.9\.9\.9:80"):
        gateway.get("http://10.9.9.9/")
    with pytest.raises(ValueError, match="serves no service nobody on port 80"):
        gateway.get("http://nobody/")
    with pytest.raises(ValueError, match="which service is called"):
        gateway.get("/")


def test_a_request_names_its_listener_if_there_are_several(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(TWO_LISTENERS)
    assert gateway.get("/", listener="admin").route == "default/admin/0/0"
    assert gateway.get("/", listener="default/edge/http").route == "default/web/0/0"
    assert gateway.get("http://localhost/").route == "default/web/0/0"
    assert gateway.get("http://localhost:9000/").route == "default/admin/0/0"
    for url, message in (
        ("/", r"more than one listener .* default/edge/admin \(http, port 9000\)"),
        ("http://localhost:1/", "no listener on port 1"),
        ("https://localhost/", "no listener for https on port 443"),
        ("ftp://localhost/", "neither a path"),
    ):
        with pytest.raises(ValueError, match=message):
            gateway.get(url)
    with pytest.raises(ValueError, match="no listener 'nobody'"):
        gateway.get("/", listener="nobody")


def test_identities_and_addresses_that_nobody_believes_are_refused(
    kgw_proxy: GatewayFactory,
) -> None:
    gateway = kgw_proxy(EDGE)
    with pytest.raises(ValueError, match="believes no identity"):
        gateway.get("/api", identity=CLIENT)
    with pytest.raises(ValueError, match=r"a client cannot come from 10\.0\.0\.1"):
        gateway.get("/api", source="10.0.0.1")
    with pytest.raises(ValueError, match="`to` names a mesh service"):
        gateway.get("/api", to="api")
    assert gateway.get("/api", source="127.0.0.9").log["client_address"].startswith("127.0.0.9:")


def test_a_listener_with_proxy_protocol_gets_a_header(kgw_proxy: GatewayFactory) -> None:
    policy = """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: ListenerPolicy
metadata: {name: proxy}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]
  default: {proxyProtocol: {}}
"""
    answer = kgw_proxy([EDGE, policy]).get("/api", source="192.0.2.7:55")
    assert answer.log["client_address"] == "192.0.2.7:55"


# === Expectations ===


def test_all_that_is_wrong_is_said_with_all_that_is_known(kgw_proxy: GatewayFactory) -> None:
    answer = kgw_proxy([EDGE, LIMIT]).get("/api")
    answer.expect(
        status=200,
        route="default/web/api/0",
        backend="api",
        flags="",
        details="via_upstream",
        headers={"x-served-by": "edge", "x-none": None},
        contains='"port": 8080',
        log={"response_code": 200},
        policies=["TrafficPolicy default/limit"],
        received={"method": "GET", "path": "/api", "headers": {"x-team": "web"}, "body": ""},
    )
    with pytest.raises(AssertionError) as failure:
        answer.expect(
            status=429,
            backend=None,
            body=b"no",
            contains="nowhere",
            json=[],
            headers={"x-served-by": None},
            log={"nonsense": 1},
            policies=[],
            received={"query": {"x": "1"}, "json": {}},
        )
    text = str(failure.value)
    for part in (
        "GET http://localhost/api is not answered as expected:",
        "  status: expected 429, got 200",
        "  backend: expected none, got 'default/api'",
        "  body: expected 'no', got ",
        "  contains: expected 'nowhere' in the body, got ",
        "  json: expected [], got {'backend': 'default/api'",
        "  received.json: expected {}, got no JSON, but ''",
        "  headers.x-served-by: expected none, got 'edge'",
        "  log.nonsense: expected 1, got no such key in the record",
        "  policies: expected [], got ['TrafficPolicy default/limit']",
        "  received.query.x: expected '1', got none",
        "  GET /api at default/api:8080",
        "  x-team: web",
        "  default/web/api/0: prefix /api on *: selected",
        '  route_name: "default/web/api/0"',
    ):
        assert part in text
    with pytest.raises(ValueError, match="has no status"):
        answer.expect(received={"status": 200})


def test_what_did_not_arrive_is_missed(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(EDGE)
    with pytest.raises(AssertionError, match="received: expected a request, got none"):
        gateway.get("/nowhere").expect(received={"method": "GET"})


def test_routes_are_explained(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(EDGE)
    lines = gateway.explain("GET", "/shop").splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("default/web/1/0: prefix /shop")
    assert "x-beta" in lines[0].partition("on *: ")[2]
    beta = gateway.explain("GET", "/shop", headers={"x-beta": "1"})
    assert beta.splitlines()[0].endswith("selected")
    assert gateway.explain("GET", "http://other.example/x").endswith("the path does not match")


# === Programs of one's own ===


def test_other_clients_have_log_records_too(kgw_proxy: GatewayFactory) -> None:
    import http.client

    gateway = kgw_proxy(EDGE)
    connection = http.client.HTTPConnection(*gateway.addresses["default/edge/http"][0], timeout=10)
    connection.request("GET", "/api/own")
    assert connection.getresponse().status == 200
    connection.close()
    gateway.clock.advance(0)  # the gateway has seen the end of the connection
    assert [record["path"] for record in gateway.logs()] == ["/api/own"]
    assert gateway.stats()["generation"] == 1


def test_without_pytest_a_gateway_is_a_context_manager() -> None:
    with Gateway(EDGE) as gateway:
        assert gateway.get("/api").status == 200
        assert repr(gateway) == "<Gateway at 0 s, 1 answers>"
    gateway.close()
    assert gateway.backend("api").last.path == "/api"
    with pytest.raises(kgw.NotRunning, match="closed"):
        gateway.get("/api")
    with pytest.raises(kgw.NotRunning, match="started once"):
        gateway.__enter__()
    with pytest.raises(kgw.NotRunning, match="use it with `with`"):
        Gateway(EDGE).get("/api")


def test_filters_are_registered_before_the_start(kgw_proxy: GatewayFactory) -> None:
    def filters(proxy: kgw.Proxy) -> None:
        @proxy.filter("auth", routes=["default/web"])
        def auth(request: kgw.Request) -> kgw.Response | None:
            return None if "authorization" in request.headers else kgw.Response(401, "who?")

    gateway = kgw_proxy(EDGE, setup=filters)
    assert gateway.get("/api").status == 401
    assert gateway.get("/api", headers={"Authorization": "me"}).backend == "default/api"


async def in_a_task(gateway: Gateway) -> int:
    answer = await gateway.request_async("GET", "/api")
    return answer.status


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_requests_can_be_awaited(kgw_proxy: GatewayFactory, backend: str) -> None:
    import anyio

    gateway = kgw_proxy(EDGE)
    assert anyio.run(in_a_task, gateway, backend=backend) == 200


# === TLS ===


@pytest.fixture(scope="module")
def tls() -> str:
    """A Gateway that ends TLS for one name, and a Secret for it."""
    authority = trustme.CA()
    issued = authority.issue_cert("shop.example")
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "shop"},
        "stringData": {
            "tls.crt": b"".join(one.bytes() for one in issued.cert_chain_pems).decode(),
            "tls.key": issued.private_key_pem.bytes().decode(),
        },
    }
    edge = """
  - name: https
    port: 443
    protocol: HTTPS
    hostname: shop.example
    tls: {certificateRefs: [{name: shop}]}
"""
    whole = EDGE.replace("\n  - {name: http, port: 80, protocol: HTTP}\n", edge)
    assert whole != EDGE
    return f"{whole}---\n{json.dumps(secret)}\n"


def test_a_tls_listener_is_called_by_its_name(kgw_proxy: GatewayFactory, tls: str) -> None:
    gateway = kgw_proxy(tls)
    answer = gateway.get("https://shop.example/api")
    assert (answer.status, answer.route) == (200, "default/web/api/0")
    assert "selected" in gateway.explain("GET", "https://shop.example/api")
    with pytest.raises(NoAnswer, match=r"https://other\.example/ has no answer"):
        gateway.get("https://other.example/")
    with pytest.raises(ValueError, match="no listener for http on port 80"):
        gateway.get("http://shop.example/")
