"""Backends that are whichever host a request names."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trustme
import yaml
from tests.policies.manifests import BASE
from tests.policies.test_backends import ROUTE, ask, clusters, codes, server, until

import kgw
from kgw.translate import Options, PolicyOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgw.testing import GatewayFactory

pytestmark = pytest.mark.fields("Backend.spec.dynamicForwardProxy")

AUTHORITY = trustme.CA()

TRUSTING = PolicyOptions(forward_to_loopback=True)


def backend(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.kgateway.dev/v1alpha1",
        "kind": "Backend",
        "metadata": {"name": "hosts"},
        "spec": {"dynamicForwardProxy": spec},
    }


def policy(**spec: Any) -> dict[str, Any]:
    target = {"group": "gateway.kgateway.dev", "kind": "Backend", "name": "hosts"}
    return {
        "apiVersion": "gateway.kgateway.dev/v1alpha1",
        "kind": "BackendConfigPolicy",
        "metadata": {"name": "settings"},
        "spec": {"targetRefs": [target], **spec},
    }


def config(
    *more: dict[str, Any], route: str = ROUTE, policies: PolicyOptions = TRUSTING
) -> kgw.Config:
    objects = [*yaml.safe_load_all(BASE), yaml.safe_load(route), *more]
    return kgw.Config.from_objects(objects, options=Options(policies=policies))


def status(answer: str) -> str:
    return answer.split(" ", 2)[1]


def test_requests_go_to_the_host_that_they_name() -> None:
    with (
        server("one") as one,
        server("two") as two,
        kgw.Proxy(config(backend()), bind="127.0.0.1:0") as proxy,
    ):
        ((address,),) = proxy.addresses.values()
        for name, port in (("one", one), ("two", two), ("one", one)):
            answer = ask(address, "/out", f"127.0.0.1:{port}")
            assert answer.endswith(f"\r\n\r\n{name} host: 127.0.0.1:{port}"), answer
        assert proxy.stats()["forward_proxy_hosts"] == 2
        # A reload keeps what is known.
        looked_up = proxy.stats()["dns_lookup_total"]
        proxy.apply(config(backend(), policy(connectTimeout="3s")))
        assert "one" in ask(address, "/out", f"127.0.0.1:{one}")
        assert proxy.stats()["forward_proxy_hosts"] == 2
        assert proxy.stats()["dns_lookup_total"] == looked_up


def test_the_host_is_the_one_after_rewrites() -> None:
    route = (
        ROUTE
        + """
    filters: [{type: URLRewrite, urlRewrite: {hostname: localhost}}]
"""
    )
    with server("one") as one:
        made = config(backend(), route=route)
        (cluster,) = clusters(made).values()
        with kgw.Proxy(made, bind="127.0.0.1:0") as proxy:
            ((address,),) = proxy.addresses.values()
            # Nobody is at its port 80.
            assert status(ask(address, "/out", f"127.0.0.1:{one}")) == "503"
    assert cluster["forward_proxy"] == {"allow_loopback": True}


@pytest.mark.parametrize(
    "host", ["nobody.invalid", "a..b", "localhost:0", "[::1", "169.254.169.254", "0.0.0.0"]
)
def test_hosts_that_there_are_not_have_nobody(host: str) -> None:
    with kgw.Proxy(config(backend()), bind="127.0.0.1:0") as proxy:
        ((address,),) = proxy.addresses.values()
        answer = ask(address, "/out", host)
    assert status(answer) in ("400", "503")
    assert status(answer) == "400" or answer.endswith("no healthy upstream")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "[::1]", "[::ffff:127.0.0.1]"])
def test_this_machine_is_not_for_clients(host: str) -> None:
    with (
        server("one") as one,
        kgw.Proxy(config(backend(), policies=PolicyOptions()), bind="127.0.0.1:0") as proxy,
    ):
        ((address,),) = proxy.addresses.values()
        answer = ask(address, "/out", f"{host}:{one}")
    assert status(answer) == "503"
    assert answer.endswith("no healthy upstream")


def test_a_request_goes_round_once() -> None:
    with kgw.Proxy(config(backend()), bind="127.0.0.1:0") as proxy:
        ((address,),) = proxy.addresses.values()
        answer = ask(address, "/out", f"127.0.0.1:{address[1]}")
        assert status(answer) == "508"
        assert proxy.stats()["upstream_rq_total"] == 1


def test_there_are_so_many_hosts_and_no_more() -> None:
    with server("one") as one, kgw.Proxy(config(backend()), bind="127.0.0.1:0") as proxy:
        ((address,),) = proxy.addresses.values()
        with socket.create_connection(address, timeout=30) as client:
            reader = client.makefile("rb")
            found = []
            for number in range(1025):
                host = f"127.0.{number // 250}.{number % 250 + 1}:{one}"
                head = f"GET /out HTTP/1.1\r\nhost: {host}\r\n\r\n"
                client.sendall(head.encode())
                line = reader.readline()
                length = 0
                while (field := reader.readline()) != b"\r\n":
                    if field.lower().startswith(b"content-length:"):
                        length = int(field.split(b":")[1])
                body = reader.read(length)
                found.append((line.split()[1], body))
            assert found[-1] == (b"503", b"DNS cache overflow")
            assert [one[0] for one in found[:-1]].count(b"503") >= 1
        assert proxy.stats()["forward_proxy_hosts"] == 1024


@pytest.mark.parametrize(
    ("spec", "tls", "expected"),
    [
        ({}, None, None),
        ({"enableTls": True}, None, {"by_host": True, "trust": {"type": "system"}}),
        (
            {"enableTls": True},
            {"insecureSkipVerify": True},
            {"by_host": True, "trust": {"type": "insecure"}},
        ),
        (
            {},
            {"wellKnownCACertificates": "System", "sni": "a.example"},
            {"sni": "a.example", "trust": {"type": "system"}},
        ),
    ],
)
def test_tls_is_for_the_host(
    spec: dict[str, Any], tls: dict[str, Any] | None, expected: dict[str, Any] | None
) -> None:
    found = config(backend(**spec), *([] if tls is None else [policy(tls=tls)]))
    assert not found.errors, found.errors
    (cluster,) = clusters(found).values()
    assert cluster.get("tls") == expected


@contextmanager
def secure_server(*names: str) -> Iterator[int]:
    """A server with a certificate for some names; its answer is the name that it was asked for."""
    certificate = AUTHORITY.issue_cert(*names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    asked = ""

    def note(_: object, name: str | None, __: object) -> None:
        nonlocal asked
        asked = name or "-"

    context.sni_callback = note
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError), context.wrap_socket(plain, server_side=True) as connection:
                while not connection.recv(65536).endswith(b"\r\n\r\n"):
                    pass
                head = (
                    f"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {len(asked)}\r\n\r\n"
                )
                connection.sendall((head + asked).encode())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@pytest.mark.parametrize(
    ("names", "host", "expected"),
    [
        (("localhost",), "localhost", "200"),
        (("other.example",), "localhost", "503"),
        (("127.0.0.1",), "127.0.0.1", "200"),
        (("localhost",), "127.0.0.1", "503"),
    ],
)
def test_the_certificate_is_that_of_the_host(
    names: tuple[str, ...], host: str, expected: str
) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "ca"},
        "stringData": {"ca.crt": AUTHORITY.cert_pem.bytes().decode()},
    }
    made = config(
        backend(enableTls=True),
        policy(tls={"secretRef": {"name": "ca"}, "simpleTLS": True}),
        secret,
    )
    assert not made.errors, made.errors
    with secure_server(*names) as port, kgw.Proxy(made, bind="127.0.0.1:0") as proxy:
        ((address,),) = proxy.addresses.values()
        for _ in until(10):
            answer = ask(address, "/out", f"{host}:{port}")
            # `localhost` may have another address, where nobody is.
            if status(answer) == "200" or proxy.stats()["upstream_tls_fail"]:
                break
    assert status(answer) == expected, answer
    if expected == "200":
        assert answer.endswith("localhost" if host == "localhost" else "-")


def test_settings_of_names_are_for_hosts() -> None:
    found = config(backend(), policy(dns={"refreshRate": "7s", "jitter": "1s"}))
    (cluster,) = clusters(found).values()
    assert cluster["forward_proxy"] == {
        "allow_loopback": True,
        "refresh_ms": 7000,
        "jitter_ms": 1000,
    }
    assert "dns" not in cluster


@pytest.mark.parametrize(
    "spec",
    [
        {"outlierDetection": {"consecutive5xx": 3}},
        {
            "healthCheck": {
                "timeout": "1s",
                "interval": "5s",
                "unhealthyThreshold": 1,
                "healthyThreshold": 1,
                "http": {"path": "/"},
            }
        },
    ],
)
def test_no_host_stands_in_the_place_of_another(spec: dict[str, Any]) -> None:
    found = config(backend(), policy(**spec))
    assert codes(found) == {"KGW427"}
    assert not found.errors
    (cluster,) = clusters(found).values()
    assert not cluster.keys() & {"health_check", "outlier_detection"}


def test_it_is_reached_in_tests(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, ROUTE, backend()])
    answer = gateway.get("http://any.example/out").expect(status=200, backend="hosts")
    assert answer.received is not None
    assert answer.received.headers["host"] == "any.example"


def test_connections_name_no_host() -> None:
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
    found = kgw.Config.from_objects([*yaml.safe_load_all(objects), backend()])
    assert codes(found) == {"KGW427"}
    assert not clusters(found)


def test_requests_are_of_no_session() -> None:
    route = (
        ROUTE
        + """
    sessionPersistence: {sessionName: s}
"""
    )
    found = config(backend(), route=route)
    assert codes(found) == {"KGW427"}
    (action,) = [one["action"] for name, one in found.ir["routes"].items() if "/out/" in name]
    assert "sessions" not in action


@pytest.mark.parametrize(
    ("kind", "code"), [("DynamicForwardProxy", "KGW602"), ("Static", "KGW413")]
)
def test_the_historical_type_is_read(kind: str, code: str) -> None:
    given = backend()
    given["spec"]["type"] = kind
    assert codes(config(given)) == {code}
