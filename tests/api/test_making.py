"""Models made in Python come to what people write in YAML."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import yaml
from pydantic import ValidationError

from kgw.api import (
    AccessLog,
    Backend,
    BackendRef,
    BackendTLSPolicy,
    ConfigMap,
    DirectResponse,
    EndpointSlice,
    Filter,
    Gateway,
    GatewayClass,
    GRPCBackendRef,
    GRPCFilter,
    GRPCRoute,
    GRPCRouteMatch,
    GRPCRule,
    HTTPBackendRef,
    HTTPListenerPolicy,
    HTTPRoute,
    HTTPSettings,
    Listener,
    ListenerPolicy,
    ListenerSet,
    LocalRateLimit,
    Namespace,
    ParentReference,
    PathMatch,
    PolicyTargetReference,
    ProxyProtocol,
    ReferenceGrant,
    Retry,
    RouteMatch,
    Rule,
    Secret,
    Service,
    ServiceImport,
    ServicePort,
    SessionPersistence,
    TCPRoute,
    TLSRoute,
    TrafficPolicy,
    UDPRoute,
    XBackend,
    XBackendTrafficPolicy,
    XMesh,
    loads,
)
from kgw.api.gateway.x_backend_traffic_policy import BudgetDetails, RetryConstraint
from kgw.api.kinds import HOMES
from kgw.config import Config

if TYPE_CHECKING:
    from kgw.api import Resource

GATEWAY = Gateway.of("edge", 8080)
USERS = Service.of("users")
CERTIFICATE = Secret.tls("t", b"c", b"k", namespace="far")
AUTHORITIES = ConfigMap.of("ca", {"ca.crt": "x"})
FAR = Gateway.of("g", 80, namespace="far")
ROUTE = HTTPRoute.of("users", GATEWAY, Rule.of(to=USERS))

#: What is made, and the manifest that it comes to.
MADE: list[tuple[Resource, str]] = [
    (
        GATEWAY,
        """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: kgateway
  listeners: [{name: http, port: 8080, protocol: HTTP}]
""",
    ),
    (
        Gateway.of(
            "edge",
            Listener.of(443, hostname="*.example.org", certificate="edge-tls"),
            Listener.of(9000, "TCP", name="db"),
            class_name="other",
            namespace="prod",
            labels={"a": "b"},
            annotations={"kgw.dev/max-connections": "10"},
        ),
        """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: edge
  namespace: prod
  labels: {a: b}
  annotations: {kgw.dev/max-connections: "10"}
spec:
  gatewayClassName: other
  listeners:
  - name: https
    hostname: "*.example.org"
    port: 443
    protocol: HTTPS
    tls: {certificateRefs: [{name: edge-tls}]}
  - {name: db, port: 9000, protocol: TCP}
""",
    ),
    (
        Gateway.of(
            "edge", Listener.of(443, certificate=Secret.tls("t", b"c", b"k", namespace="far"))
        ),
        """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: kgateway
  listeners:
  - name: https
    port: 443
    protocol: HTTPS
    tls: {certificateRefs: [{namespace: far, name: t}]}
""",
    ),
    (
        Gateway.of("edge", 80, addresses=["10.200.0.9"], listener_sets="Same"),
        """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: kgateway
  listeners: [{name: http, port: 80, protocol: HTTP}]
  addresses: [{value: 10.200.0.9}]
  allowedListeners: {namespaces: {from: Same}}
""",
    ),
    (
        ListenerSet.of("team", GATEWAY, 8081),
        """
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: team}
spec:
  parentRef: {name: edge}
  listeners: [{name: http, port: 8081, protocol: HTTP}]
""",
    ),
    (
        ListenerSet.of("team", FAR, Listener.of(80, hostname="a.example"), namespace="near"),
        """
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: team, namespace: near}
spec:
  parentRef: {namespace: far, name: g}
  listeners: [{name: http, port: 80, protocol: HTTP, hostname: a.example}]
""",
    ),
    (
        Gateway.waypoint("way"),
        """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: way}
spec:
  gatewayClassName: kgateway-waypoint
  listeners: [{name: proxy, port: 15088, protocol: istio.io/PROXY}]
""",
    ),
    (
        HTTPRoute.of(
            "api",
            "edge",
            Rule.of(
                "/v1",
                PathMatch.exact("/health"),
                to="users:80",
                filters=[
                    Filter.request_headers(set={"a": "1"}, add={"b": "2"}, remove=["c"]),
                    Filter.response_headers(remove=["server"]),
                    Filter.rewrite(hostname="inner.example.org"),
                    Filter.mirror("far/next:80", fraction=(1, 3)),
                    Filter.mirror(Service.of("new", 8080), percent=5),
                    Filter.cross_origin("https://*.a.org", methods=["PUT"], credentials=True),
                    Filter.external("GRPC", "auth:9000", headers=["x-a"], max_body=100),
                    Filter.python("auth"),
                ],
                timeout="3s",
                backend_timeout=timedelta(seconds=1),
                name="main",
            ),
            Rule.of(
                RouteMatch.of("/", method="POST", headers={"x-beta": "1"}, query={"q": "z"}),
                RouteMatch.of(PathMatch.regex("/[a-z]+")),
                to=[BackendRef.of("users:80", weight=9), Service.of("new", 8080, namespace="far")],
            ),
            Rule.of("/old", filters=[Filter.redirect(prefix="/v1", status=301)]),
            Rule.of(
                "/llm",
                filters=[
                    Filter.external(
                        "HTTP", "auth:80", path="/check", headers=["a"], answer_headers=["b"]
                    )
                ],
                to=XBackend.of("llm", "llm.example"),
            ),
            Rule.of(to=HTTPBackendRef.of("far/users:80")),
            hostnames=["example.org"],
        ),
        """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: api}
spec:
  parentRefs: [{name: edge}]
  hostnames: [example.org]
  rules:
  - name: main
    matches:
    - path: {type: PathPrefix, value: /v1}
    - path: {type: Exact, value: /health}
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier:
        set: [{name: a, value: "1"}]
        add: [{name: b, value: "2"}]
        remove: [c]
    - type: ResponseHeaderModifier
      responseHeaderModifier: {remove: [server]}
    - type: URLRewrite
      urlRewrite: {hostname: inner.example.org}
    - type: RequestMirror
      requestMirror:
        backendRef: {namespace: far, name: next, port: 80}
        fraction: {numerator: 1, denominator: 3}
    - type: RequestMirror
      requestMirror: {backendRef: {name: new, port: 8080}, percent: 5}
    - type: CORS
      cors: {allowOrigins: ["https://*.a.org"], allowMethods: [PUT], allowCredentials: true}
    - type: ExternalAuth
      externalAuth:
        protocol: GRPC
        backendRef: {name: auth, port: 9000}
        grpc: {allowedHeaders: [x-a]}
        forwardBody: {maxSize: 100}
    - type: ExtensionRef
      extensionRef: {group: kgw.dev, kind: PythonFilter, name: auth}
    backendRefs: [{name: users, port: 80}]
    timeouts: {request: 3s, backendRequest: 1s}
  - matches:
    - path: {type: PathPrefix, value: /}
      headers: [{name: x-beta, value: "1"}]
      queryParams: [{name: q, value: z}]
      method: POST
    - path: {type: RegularExpression, value: "/[a-z]+"}
    backendRefs:
    - {name: users, port: 80, weight: 9}
    - {namespace: far, name: new, port: 8080}
  - matches: [{path: {type: PathPrefix, value: /old}}]
    filters:
    - type: RequestRedirect
      requestRedirect:
        path: {type: ReplacePrefixMatch, replacePrefixMatch: /v1}
        statusCode: 301
  - matches: [{path: {type: PathPrefix, value: /llm}}]
    filters:
    - type: ExternalAuth
      externalAuth:
        protocol: HTTP
        backendRef: {name: auth, port: 80}
        http: {path: /check, allowedHeaders: [a], allowedResponseHeaders: [b]}
    backendRefs: [{group: gateway.networking.x-k8s.io, kind: XBackend, name: llm}]
  - backendRefs: [{namespace: far, name: users, port: 80}]
""",
    ),
    (
        HTTPRoute.of(
            "api",
            [
                USERS,
                ParentReference.of(Gateway.of("g", 80, namespace="far"), section="http", port=80),
            ],
        ),
        """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: api}
spec:
  parentRefs:
  - {group: "", kind: Service, name: users}
  - {namespace: far, name: g, sectionName: http, port: 80}
""",
    ),
    (
        TrafficPolicy.of(
            "limit",
            ROUTE,
            PolicyTargetReference.of(GATEWAY, "http"),
            rate_limit=LocalRateLimit.of(3, per="60s", burst=5),
            timeout="10s",
        ),
        """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: limit}
spec:
  targetRefs:
  - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: users}
  - {group: gateway.networking.k8s.io, kind: Gateway, name: edge, sectionName: http}
  rateLimit:
    local: {tokenBucket: {maxTokens: 5, tokensPerFill: 3, fillInterval: 60s}}
  timeouts: {request: 10s}
""",
    ),
    (
        HTTPListenerPolicy.of(
            "log", GATEWAY, access_log=AccessLog.of(format={"code": "%RESPONSE_CODE%"})
        ),
        """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: HTTPListenerPolicy
metadata: {name: log}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]
  accessLog:
  - fileSink: {path: /dev/stdout, jsonFormat: {code: "%RESPONSE_CODE%"}}
""",
    ),
    (
        ListenerPolicy.of(
            "log",
            GATEWAY,
            http=HTTPSettings(access_log=(AccessLog.of("/tmp/log", "%PROTOCOL%\n"),)),
            proxy_protocol=ProxyProtocol(),
        ),
        r"""
apiVersion: gateway.kgateway.dev/v1alpha1
kind: ListenerPolicy
metadata: {name: log}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]
  default:
    httpSettings: {accessLog: [{fileSink: {path: /tmp/log, stringFormat: "%PROTOCOL%\n"}}]}
    proxyProtocol: {}
""",
    ),
    (
        Service.of("users", [ServicePort(name="a", port=1)], ips=["10.0.0.1", "fd00::1"]),
        """
apiVersion: v1
kind: Service
metadata: {name: users}
spec:
  clusterIP: 10.0.0.1
  clusterIPs: [10.0.0.1, "fd00::1"]
  ports: [{name: a, port: 1}]
""",
    ),
    (
        EndpointSlice.of(USERS, "127.0.0.1:9000", "127.0.0.2:9000"),
        """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: users-1, labels: {kubernetes.io/service-name: users}}
addressType: IPv4
endpoints: [{addresses: [127.0.0.1]}, {addresses: [127.0.0.2]}]
ports: [{port: 9000}]
""",
    ),
    (
        GRPCRoute.of(
            "greeter",
            [GATEWAY, ServiceImport.of("all", namespace="far")],
            GRPCRule.of(
                "helloworld.Greeter/SayHello",
                GRPCRouteMatch.of(method="Check", headers={"a": "b"}),
                to=[
                    "greeter:50051",
                    GRPCBackendRef(
                        name="b", port=1, filters=(GRPCFilter.response_headers(remove=["a"]),)
                    ),
                ],
                filters=[GRPCFilter.request_headers({"a": "b"}), GRPCFilter.python("p")],
                name="hello",
            ),
            GRPCRule.of("a.B", to=USERS),
            hostnames=["*.example.org"],
        ),
        """
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: greeter}
spec:
  parentRefs:
  - {name: edge}
  - {group: multicluster.x-k8s.io, kind: ServiceImport, namespace: far, name: all}
  hostnames: ["*.example.org"]
  rules:
  - name: hello
    matches:
    - method: {service: helloworld.Greeter, method: SayHello}
    - method: {method: Check}
      headers: [{name: a, value: b}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: a, value: b}]}
    - type: ExtensionRef
      extensionRef: {group: kgw.dev, kind: PythonFilter, name: p}
    backendRefs:
    - {name: greeter, port: 50051}
    - name: b
      port: 1
      filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [a]}}]
  - matches: [{method: {service: a.B}}]
    backendRefs: [{name: users, port: 80}]
""",
    ),
    (
        ServiceImport.of("users", 8080, ips=["10.2.0.1"]),
        """
apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceImport
metadata: {name: users}
spec: {ips: [10.2.0.1], ports: [{port: 8080}]}
""",
    ),
    (
        TCPRoute.of("db", GATEWAY, "db:5432"),
        """
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: db}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: db, port: 5432}]}]
""",
    ),
    (
        UDPRoute.of("dns", GATEWAY, "dns:53"),
        """
apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata: {name: dns}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: dns, port: 53}]}]
""",
    ),
    (
        TLSRoute.of("db", GATEWAY, "db:5432", hostnames=["db.example.org"]),
        """
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: db}
spec:
  parentRefs: [{name: edge}]
  hostnames: [db.example.org]
  rules: [{backendRefs: [{name: db, port: 5432}]}]
""",
    ),
    (
        BackendTLSPolicy.of(
            "tls",
            USERS,
            hostname="users.example.org",
            authorities=AUTHORITIES,
        ),
        """
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: tls}
spec:
  targetRefs: [{group: "", kind: Service, name: users}]
  validation:
    caCertificateRefs: [{group: "", kind: ConfigMap, name: ca}]
    hostname: users.example.org
""",
    ),
    (
        XBackend.of("llm", "llm.example", protocol="HTTP2"),
        """
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {name: llm}
spec:
  type: ExternalHostname
  externalHostname: {hostname: llm.example}
  port: {port: 443}
  protocol: HTTP2
  tls: {mode: ServerOnly}
""",
    ),
    (
        XBackend.of("llm", "llm.example", 8080),
        """
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {name: llm}
spec:
  type: ExternalHostname
  externalHostname: {hostname: llm.example}
  port: {port: 8080}
""",
    ),
    (
        BackendTLSPolicy.of("tls", USERS, hostname="users.example.org"),
        """
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: tls}
spec:
  targetRefs: [{group: "", kind: Service, name: users}]
  validation: {wellKnownCACertificates: System, hostname: users.example.org}
""",
    ),
    (
        HTTPRoute.of(
            "users",
            GATEWAY,
            Rule.of(
                to=USERS,
                retry=Retry.of(3, codes=[502, 503], backoff="100ms"),
                session=SessionPersistence.of_cookie("user", path="/u", lasting="1h"),
            ),
            Rule.of("/h", to=USERS, session=SessionPersistence.of_header("x-user", timeout="2h")),
        ),
        """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: users}
spec:
  parentRefs: [{name: edge}]
  rules:
  - backendRefs: [{name: users, port: 80}]
    retry: {attempts: 3, codes: [502, 503], backoff: 100ms}
    sessionPersistence:
      absoluteTimeout: 1h
      cookie: {name: user, path: /u, lifetimeType: Permanent}
  - matches: [{path: {value: /h, type: PathPrefix}}]
    backendRefs: [{name: users, port: 80}]
    sessionPersistence: {type: Header, absoluteTimeout: 2h, header: {name: x-user}}
""",
    ),
    (
        XBackendTrafficPolicy.of(
            "users",
            USERS,
            retry_constraint=RetryConstraint(budget=BudgetDetails(percent=10)),
            session=SessionPersistence.of_cookie(),
        ),
        """
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: users}
spec:
  targetRefs: [{group: "", kind: Service, name: users}]
  retryConstraint: {budget: {percent: 10}}
  sessionPersistence: {cookie: {}}
""",
    ),
    (
        ReferenceGrant.of("grant", USERS, Secret, kind=HTTPRoute, of="other"),
        """
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: grant}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: other}]
  to: [{group: "", kind: Service, name: users}, {group: "", kind: Secret}]
""",
    ),
    (
        GatewayClass.of("mine"),
        """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: mine}
spec: {controllerName: kgateway.dev/kgateway}
""",
    ),
    (
        XMesh.of("mine"),
        """
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XMesh
metadata: {name: mine}
spec: {controllerName: kgateway.dev/kgateway}
""",
    ),
    (
        Namespace.of("default", labels={"istio.io/use-waypoint": "way"}),
        "{apiVersion: v1, kind: Namespace, metadata: {name: default, "
        "labels: {istio.io/use-waypoint: way}}}",
    ),
    (
        Backend.of("db", "192.0.2.1:80", "[2001:db8::1]:81", app_protocol="http2"),
        "{apiVersion: gateway.kgateway.dev/v1alpha1, kind: Backend, metadata: {name: db}, "
        "spec: {static: {appProtocol: http2, hosts: [{host: 192.0.2.1, port: 80}, "
        "{host: '2001:db8::1', port: 81}]}}}",
    ),
    (
        DirectResponse.of("gone", 410, "It is gone."),
        "{apiVersion: gateway.kgateway.dev/v1alpha1, kind: DirectResponse, "
        "metadata: {name: gone}, spec: {status: 410, body: It is gone.}}",
    ),
    (
        ConfigMap.of("ca", {"ca.crt": "x"}, namespace="far"),
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: ca, namespace: far}, "
        "data: {ca.crt: x}}",
    ),
    (
        Secret.tls("t", b"c", b"k"),
        "{apiVersion: v1, kind: Secret, metadata: {name: t}, type: kubernetes.io/tls, "
        "data: {tls.crt: Yw==, tls.key: aw==}}",
    ),
    (
        Secret.of("t", {"a": b"b"}),
        "{apiVersion: v1, kind: Secret, metadata: {name: t}, data: {a: Yg==}}",
    ),
]


@pytest.mark.parametrize(
    ("made", "manifest"), MADE, ids=lambda one: one.kind if hasattr(one, "kind") else ""
)
def test_what_is_made_is_what_people_write(made: Resource, manifest: str) -> None:
    assert made.to_dict(secrets=True) == yaml.safe_load(manifest)
    assert [made] == loads(manifest)


def test_there_is_a_way_to_make_every_kind_but_three() -> None:
    # A BackendConfigPolicy is a dozen settings, none of which is the usual one; in Python, a Test
    # is a function; an extension is what its only field is.
    assert {made.kind for made, _ in MADE} == set(HOMES) - {
        "BackendConfigPolicy",
        "GatewayExtension",
        "Test",
    }


def test_a_service_is_made_with_the_slices_of_its_addresses() -> None:
    made = Service.at(
        "users",
        "127.0.0.1:9000",
        "127.0.0.1:9001",
        "[::1]:9000",
        "127.0.0.2:9000",
        app_protocol="kubernetes.io/h2c",
        namespace="far",
    )
    service, *slices = made
    assert service.spec.ports == (ServicePort(port=80, app_protocol="kubernetes.io/h2c"),)
    assert [
        (one.name, one.namespace, one.address_type, one.ports[0].port, len(one.endpoints))
        for one in slices
    ] == [
        ("users-1", "far", "IPv4", 9000, 2),
        ("users-2", "far", "IPv4", 9001, 1),
        ("users-3", "far", "IPv6", 9000, 1),
    ]
    assert all(one.service == "users" for one in slices)


def test_objects_that_refer_to_each_other_are_a_configuration_without_findings() -> None:
    users, *endpoints = Service.at("users", "127.0.0.1:9000")
    policy = TrafficPolicy.of("limit", ROUTE, rate_limit=LocalRateLimit.of(3))
    log = ListenerPolicy.of("log", GATEWAY, http=HTTPSettings(access_log=(AccessLog.of(),)))
    config = Config.from_objects([GATEWAY, ROUTE, users, *endpoints, policy, log])
    assert config.findings == ()
    assert len(config.listeners) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: BackendRef.of("users"), "is not NAME:PORT"),
        (lambda: BackendRef.of(Service.of("a", ())), "Service default/a has 0 TCP ports"),
        (lambda: EndpointSlice.of(USERS, "localhost:80"), "is not IP:PORT"),
        (lambda: EndpointSlice.of(USERS, "127.0.0.1:80", "127.0.0.1:81"), "of 2 slices"),
        (lambda: EndpointSlice.of(Service.of("a", ()), "127.0.0.1:80"), "has 0 ports"),
        (lambda: Filter.rewrite(path="/a", prefix="/b"), "not both"),
        (lambda: Filter.external("GRPC", "a:1", path="/"), "that speak HTTP"),
        (lambda: Rule.of(timeout="3 s"), "is not a duration"),
        (lambda: Rule.of(timeout=timedelta(microseconds=1)), "whole number of milliseconds"),
        (lambda: Rule.of(timeout=timedelta(seconds=-1)), "is from 0s to"),
    ],
)
def test_what_cannot_be_made_says_why(wrong: object, message: str) -> None:
    assert callable(wrong)
    with pytest.raises(ValueError, match=message):
        wrong()


def test_an_error_names_the_field_as_it_was_given_by_its_path() -> None:
    spec = {"parentRefs": [{"name": "a"}, {"section_name": "A"}]}
    with pytest.raises(ValidationError) as caught:
        HTTPRoute.model_validate({"metadata": {"name": "a"}, "spec": spec})
    assert {one["loc"] for one in caught.value.errors()} == {
        ("spec", "parentRefs", 1, "name"),
        ("spec", "parentRefs", 1, "section_name"),
    }
