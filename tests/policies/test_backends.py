"""Backends of kgateway: hosts that are listed, in the place of a Service."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.policies.manifests import BASE

import kgw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgw.testing import GatewayFactory

pytestmark = pytest.mark.fields(
    "Backend.spec.static",
    "Backend.spec.type",
    "BackendConfigPolicy.spec.connectTimeout",
    "BackendConfigPolicy.spec.targetRefs",
    "BackendConfigPolicy.spec.targetSelectors",
    "BackendConfigPolicy.spec.tls",
    "TrafficPolicy.spec.autoHostRewrite",
    without=(
        "BackendConfigPolicy.spec.tls.allowRenegotiation",
        "BackendConfigPolicy.spec.tls.alpnProtocols",
        "BackendConfigPolicy.spec.tls.files",
        "BackendConfigPolicy.spec.tls.insecureSkipVerify",
        "BackendConfigPolicy.spec.tls.parameters",
        "BackendConfigPolicy.spec.tls.secretRef",
        "BackendConfigPolicy.spec.tls.simpleTLS",
        "BackendConfigPolicy.spec.tls.sni",
        "BackendConfigPolicy.spec.tls.verifySubjectAltNames",
    ),
)

ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: out}
spec:
  parentRefs: [{name: edge}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /out}}]
    backendRefs: [{group: gateway.kgateway.dev, kind: Backend, name: hosts}]
"""


def backend(*hosts: tuple[str, int], namespace: str = "default", **more: Any) -> dict[str, Any]:
    static = {"hosts": [{"host": host, "port": port} for host, port in hosts], **more}
    return {
        "apiVersion": "gateway.kgateway.dev/v1alpha1",
        "kind": "Backend",
        "metadata": {"name": "hosts", "namespace": namespace, "labels": {"app": "hosts"}},
        "spec": {"static": static},
    }


def config(*more: dict[str, Any], route: str = ROUTE) -> kgw.Config:
    return kgw.Config.from_objects([*yaml.safe_load_all(BASE), yaml.safe_load(route), *more])


def clusters(of: kgw.Config) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = of.ir["clusters"]
    return {name: one for name, one in found.items() if name.startswith("backend_")}


def codes(of: kgw.Config) -> set[str]:
    return {one.code for one in of.findings}


@contextmanager
def server(name: str) -> Iterator[int]:
    """A server that says its name and the host that it was asked for; gives its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    piece = connection.recv(65536)
                    if not piece:
                        break
                    head += piece
                host = [one for one in head.split(b"\r\n") if one.lower().startswith(b"host:")]
                body = name.encode() + b" " + b"".join(host)
                length = str(len(body)).encode()
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: "
                    + length
                    + b"\r\n\r\n"
                    + body
                )

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        # Closing alone does not end a call of `accept`.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def ask(address: tuple[str, int], path: str, host: str = "shop.example") -> str:
    with socket.create_connection(address, timeout=10) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    return answer.decode()


def until(seconds: float) -> Iterator[None]:
    """Goes on until the time is over: names are looked up in a time of their own."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.02)  # looks again, until the time is over


def test_requests_go_to_its_hosts_in_turn() -> None:
    with server("one") as one, server("two") as two:
        made = config(backend(("127.0.0.1", one), ("127.0.0.1", two)))
        with kgw.Proxy(made, bind="127.0.0.1:0") as proxy:
            ((address,),) = proxy.addresses.values()
            answers = [ask(address, "/out") for _ in range(4)]
    assert {"one" in each for each in answers} == {True, False}
    # The host stays what clients ask for.
    assert all("host: shop.example" in each.lower() for each in answers)


def test_a_request_reaches_it(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, ROUTE, backend(("192.0.2.1", 8080))])
    answer = gateway.get("http://shop.example/out").expect(status=200, backend="hosts")
    assert answer.received is not None
    assert answer.received.headers["host"] == "shop.example"


def test_addresses_are_endpoints() -> None:
    found = clusters(config(backend(("192.0.2.1", 8080), ("2001:db8::1", 81))))
    (cluster,) = found.values()
    assert cluster["endpoints"] == ["192.0.2.1:8080", "[2001:db8::1]:81"]
    assert "protocol" not in cluster


def test_a_name_is_looked_up() -> None:
    (cluster,) = clusters(config(backend(("api.example.com", 443)))).values()
    assert cluster["dns"] == {"hostname": "api.example.com", "port": 443}


def test_names_and_addresses_are_hosts_together() -> None:
    found = config(
        backend(("api.example.com", 443), ("192.0.2.1", 444), ("eu.example.com", 445)),
        {
            "apiVersion": "gateway.kgateway.dev/v1alpha1",
            "kind": "BackendConfigPolicy",
            "metadata": {"name": "names"},
            "spec": {
                "targetRefs": [
                    {"group": "gateway.kgateway.dev", "kind": "Backend", "name": "hosts"}
                ],
                "dns": {"refreshRate": "7s"},
            },
        },
    )
    assert not found.errors
    (cluster,) = clusters(found).values()
    assert cluster["endpoints"] == ["192.0.2.1:444"]
    assert cluster["dns"] == {
        "hostname": "api.example.com",
        "port": 443,
        "more": [{"hostname": "eu.example.com", "port": 445}],
        "refresh_ms": 7000,
    }


def test_a_name_that_is_not_found_leaves_the_others() -> None:
    with server("one") as one, server("two") as two:
        made = config(backend(("nobody.invalid", 80), ("localhost", one), ("127.0.0.1", two)))
        with kgw.Proxy(made, bind="127.0.0.1:0") as proxy:
            ((address,),) = proxy.addresses.values()
            # Until the name is looked up there is the address alone, and the name may have another
            # address, where nobody is.
            names: set[str] = set()
            for _ in until(10):
                answer = ask(address, "/out")
                names |= {name for name in ("one", "two") if f"\r\n{name} " in answer}
                if len(names) == 2:
                    break
    assert names == {"one", "two"}


def test_requests_may_ask_for_the_host_that_they_go_to() -> None:
    policy = {
        "apiVersion": "gateway.kgateway.dev/v1alpha1",
        "kind": "TrafficPolicy",
        "metadata": {"name": "names"},
        "spec": {
            "targetRefs": [
                {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "out"}
            ],
            "autoHostRewrite": True,
        },
    }
    with server("one") as one, server("two") as two:
        made = config(backend(("localhost", one), ("127.0.0.1", two)), policy)
        with kgw.Proxy(made, bind="127.0.0.1:0") as proxy:
            ((address,),) = proxy.addresses.values()
            seen = {}
            for _ in until(10):
                answer = ask(address, "/out")
                if " 200 " in answer:
                    name, _, host = answer.rpartition("\r\n")[2].partition(" ")
                    seen[name] = host.lower()
                if len(seen) == 2:
                    break
    assert seen == {"one": "host: localhost", "two": "host: 127.0.0.1"}


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("http2", "http2"),
        ("grpc", "http2"),
        ("grpc-web", "http2"),
        ("kubernetes.io/h2c", "http2"),
        ("kubernetes.io/ws", None),
    ],
)
def test_its_protocol_is_what_it_says(protocol: str, expected: str | None) -> None:
    found = config(backend(("192.0.2.1", 80), appProtocol=protocol))
    (cluster,) = clusters(found).values()
    assert cluster.get("protocol") == expected
    (action,) = [one["action"] for name, one in found.ir["routes"].items() if "/out/" in name]
    assert action.get("upgrades") == (["websocket"] if expected is None else None)


def test_it_is_accepted() -> None:
    found = config(backend(("192.0.2.1", 80)))
    assert not found.errors
    (status,) = [one for key, one in found.statuses.items() if key.kind == "Backend"]
    assert [(one.status, one.reason, one.message) for one in status.conditions] == [
        ("True", "Accepted", "Backend accepted")
    ]


def test_a_reference_has_no_port() -> None:
    found = config(
        backend(("192.0.2.1", 80)), route=ROUTE.replace("name: hosts", "name: hosts, port: 80")
    )
    assert any("includes a port" in one.message for one in found.findings)
    assert not clusters(found)


def test_one_that_is_missing_is_reported() -> None:
    found = config()
    assert "KGW307" in codes(found)


@pytest.mark.parametrize("kind", ["aws", "gcp", "priorityGroups"])
def test_kinds_that_are_not_supported_have_no_connections(kind: str) -> None:
    given = backend(("192.0.2.1", 80))
    given["spec"] = {kind: {}}
    found = config(given)
    assert "KGW501" in codes(found)
    assert not clusters(found)


@pytest.mark.parametrize("granted", [True, False])
def test_other_namespaces_need_a_grant(granted: bool) -> None:
    grant = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "ReferenceGrant",
        "metadata": {"name": "grant", "namespace": "far"},
        "spec": {
            "from": [
                {
                    "group": "gateway.networking.k8s.io",
                    "kind": "HTTPRoute",
                    "namespace": "default",
                }
            ],
            "to": [{"group": "gateway.kgateway.dev", "kind": "Backend"}],
        },
    }
    found = config(
        backend(("192.0.2.1", 80), namespace="far"),
        *([grant] if granted else []),
        route=ROUTE.replace("name: hosts", "name: hosts, namespace: far"),
    )
    assert bool(clusters(found)) is granted
    assert ("KGW308" in codes(found)) is not granted


def test_policies_of_backends_are_for_it() -> None:
    target = {"group": "gateway.kgateway.dev", "kind": "Backend", "name": "hosts"}
    tls = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "BackendTLSPolicy",
        "metadata": {"name": "tls"},
        "spec": {
            "targetRefs": [target],
            "validation": {"hostname": "api.example.com", "wellKnownCACertificates": "System"},
        },
    }
    selector = {**target, "matchLabels": {"app": "hosts"}}
    del selector["name"]
    settings = {
        "apiVersion": "gateway.kgateway.dev/v1alpha1",
        "kind": "BackendConfigPolicy",
        "metadata": {"name": "settings"},
        "spec": {"targetSelectors": [selector], "connectTimeout": "7s"},
    }
    found = config(backend(("api.example.com", 443)), tls, settings)
    assert not found.errors
    (cluster,) = clusters(found).values()
    assert cluster["tls"] == {"trust": {"type": "system"}, "sni": "api.example.com"}
    assert cluster["connect_timeout_ms"] == 7000


def test_tls_of_a_config_policy_expects_the_name_of_a_host() -> None:
    policy = {
        "apiVersion": "gateway.kgateway.dev/v1alpha1",
        "kind": "BackendConfigPolicy",
        "metadata": {"name": "tls"},
        "spec": {
            "targetRefs": [{"group": "gateway.kgateway.dev", "kind": "Backend", "name": "hosts"}],
            "tls": {"wellKnownCACertificates": "System"},
        },
    }
    (cluster,) = clusters(config(backend(("api.example.com", 443)), policy)).values()
    assert cluster["tls"]["subject_alt_names"] == [{"type": "dns", "value": "api.example.com"}]


def test_the_historical_type_is_read() -> None:
    given = backend(("192.0.2.1", 80))
    given["spec"]["type"] = "Static"
    found = config(given)
    assert [one.code for one in found.findings] == ["KGW602"]
    given["spec"]["type"] = "AWS"
    assert codes(config(given)) == {"KGW413"}


def test_connections_go_there(kgw_proxy: GatewayFactory) -> None:
    objects = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: kgateway
  listeners: [{name: tcp, port: 9000, protocol: TCP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: tcp}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{group: gateway.kgateway.dev, kind: Backend, name: hosts}]}]
"""
    found = kgw.Config.from_objects([*yaml.safe_load_all(objects), backend(("192.0.2.1", 80))])
    assert not found.errors
    assert [one["endpoints"] for one in clusters(found).values()] == [["192.0.2.1:80"]]


def test_a_change_is_seen(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(config(backend(("192.0.2.1", 80))))
    gateway.get("/out").expect(status=200)
    gateway.apply(config(backend(("192.0.2.2", 81))))
    answer = gateway.get("/out").expect(status=200)
    (cluster,) = clusters(gateway.config).values()
    assert cluster["endpoints"] == ["192.0.2.2:81"]
    assert answer.backend == "default/hosts"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "exactly one of the fields in [aws static dynamicForwardProxy gcp priorityGroups]"),
        ({"static": {"hosts": []}}, "`[]` is out of bounds"),
        ({"static": {"hosts": [{"host": "", "port": 1}]}}, "`''` is out of bounds"),
        ({"static": {"hosts": [{"host": "a"}]}}, "required"),
    ],
)
def test_what_the_crd_refuses_is_refused(spec: dict[str, Any], message: str) -> None:
    given = backend(("192.0.2.1", 80))
    given["spec"] = spec
    found = config(given)
    assert any(message in one.message for one in found.findings), found.findings
