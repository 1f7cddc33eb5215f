"""TrafficPolicy `acl`: which clients may send requests, by their addresses."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
from tests.policies.manifests import BASE, listener_policy, policy

import kgw
from kgw.translate import PolicyOptions

if TYPE_CHECKING:
    from kgw.testing import Gateway, GatewayFactory

pytestmark = pytest.mark.fields(
    "ListenerPolicy.spec.default.httpSettings.accessLog",
    "ListenerPolicy.spec.default.httpSettings.xffNumTrustedHops",
    "ListenerPolicy.spec.default.proxyProtocol",
    "ListenerPolicy.spec.targetRefs",
    "TrafficPolicy.spec.acl",
    without=(
        "ListenerPolicy.spec.default.httpSettings.accessLog.fileSink.stringFormat",
        "ListenerPolicy.spec.default.httpSettings.accessLog.filter",
        "ListenerPolicy.spec.default.httpSettings.accessLog.grpcService",
        "ListenerPolicy.spec.default.httpSettings.accessLog.openTelemetry",
        "ListenerPolicy.spec.default.proxyProtocol.allowRequestsWithoutProxyProtocol",
    ),
)

#: The client's address is what a PROXY header says, and logs have why a client was denied.
EDGE = listener_policy(
    {
        "proxyProtocol": {},
        "httpSettings": {
            "accessLog": [
                {
                    "fileSink": {
                        "path": "/dev/null",
                        "jsonFormat": {
                            "why": "%DYNAMIC_METADATA(dev.kgateway.http.acl:blocked-by)%"
                        },
                    }
                }
            ]
        },
    }
)


def acl(*rules: dict[str, Any], default: str = "allow", **more: Any) -> dict[str, Any]:
    """An access list as the spec of a policy."""
    return {"acl": {"defaultAction": default, "rules": list(rules), **more}}


def deny(*cidrs: str, name: str | None = None) -> dict[str, Any]:
    """A rule."""
    return {"cidrs": list(cidrs), "action": "deny"} | ({} if name is None else {"name": name})


def allow(*cidrs: str) -> dict[str, Any]:
    """A rule."""
    return {"cidrs": list(cidrs), "action": "allow"}


HOLES = acl(
    deny("10.1.2.3", name="host"),
    allow("10.1.0.0/16", "2001:db8:1::/48"),
    deny("10.0.0.0/8", "2001:db8::/32", name="site"),
    deny("192.168.0.0/16"),
)


@pytest.mark.parametrize(
    ("client", "why"),
    [
        ("10.1.2.3", "host"),
        ("10.1.2.4", None),
        ("10.2.0.1", "site"),
        ("11.0.0.1", None),
        ("192.168.1.1", "rule"),
    ],
)
def test_the_longest_prefix_decides_and_is_noted(
    kgw_proxy: GatewayFactory, client: str, why: str | None
) -> None:
    gateway = kgw_proxy([BASE, EDGE, policy(HOLES)])
    answer = gateway.get("/", source=client)
    if why is None:
        answer.expect(status=200, backend="api")
    else:
        answer.expect(status=403, backend=None, body="", details="http-acl:_denied_by_policy")
        assert answer.flags == ""
    assert answer.access_log == ({"why": why},)
    assert gateway.stats()["acl_blocked"] == (why is not None)


def status_of(gateway: Gateway, header: bytes) -> int:
    """The status of a request behind a PROXY header."""
    ((address,),) = gateway.addresses.values()
    with socket.create_connection(address, timeout=10) as client:
        client.sendall(header + b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        return int(client.recv(65536).split(b" ")[1])


def test_networks_of_ipv6_are_for_clients_of_ipv6(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, EDGE, policy(HOLES)])
    for client, status in (
        ("2001:db8::1", 403),
        ("2001:db8:1::1", 200),
        ("2001:db9::1", 200),
        # One of IPv4 inside IPv6 is one of IPv4.
        ("::ffff:10.2.0.1", 403),
        ("::ffff:10.1.2.4", 200),
        ("::10.2.0.1", 200),
    ):
        header = f"PROXY TCP6 {client} 2001:db8::ff 4000 80\r\n".encode()
        assert status_of(gateway, header) == status, client


def test_clients_of_no_network_have_the_default(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, EDGE, policy(acl(allow("10.0.0.0/8"), default="deny"))])
    gateway.get("/", source="10.9.9.9").expect(status=200)
    answer = gateway.get("/", source="11.9.9.9").expect(status=403)
    assert answer.access_log == ({"why": "default"},)


def test_without_rules_the_default_is_for_all(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy({"acl": {"defaultAction": "deny"}})])
    gateway.get("/").expect(status=403)


def test_the_answer_is_as_configured(kgw_proxy: GatewayFactory) -> None:
    answer = {
        "statusCode": 451,
        "headers": [{"name": "Retry-After", "value": "60"}, {"name": "X-A", "value": "b c"}],
        "blockedByHeaderName": "X-Blocked-By",
    }
    gateway = kgw_proxy(
        [BASE, EDGE, policy(acl(deny("10.0.0.0/8", name="lab"), denyResponse=answer))]
    )
    gateway.get("/", source="10.0.0.1").expect(
        status=451, headers={"retry-after": "60", "x-a": "b c", "x-blocked-by": "lab"}, body=""
    )
    gateway.get("/", source="11.0.0.1").expect(
        status=200, headers={"retry-after": None, "x-blocked-by": None}
    )


def test_a_client_that_a_proxy_in_front_states_counts(kgw_proxy: GatewayFactory) -> None:
    trusting = listener_policy({"httpSettings": {"xffNumTrustedHops": 1}})
    gateway = kgw_proxy([BASE, trusting, policy(acl(deny("203.0.113.0/24")))])
    for stated, status in (
        ("203.0.113.7", 403),
        ("198.51.100.1", 200),
        # Who is behind the client cannot be trusted.
        ("198.51.100.1, 203.0.113.7", 403),
        ("203.0.113.7, 198.51.100.1", 200),
    ):
        gateway.get("/", headers={"x-forwarded-for": stated}).expect(status=status)


def test_a_client_that_only_says_who_it_is_is_not_believed(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy(acl(deny("127.0.0.0/8")))])
    gateway.get("/", headers={"x-forwarded-for": "203.0.113.7"}).expect(status=403)


def test_a_client_without_a_known_address_is_denied(kgw_proxy: GatewayFactory) -> None:
    """A PROXY header of the family AF_UNSPEC says that there is a client, and not which."""
    gateway = kgw_proxy([BASE, EDGE, policy(acl(allow("0.0.0.0/0", "::/0")))])
    gateway.get("/", source="10.0.0.1").expect(status=200)
    assert status_of(gateway, b"\r\n\r\n\x00\r\nQUIT\n\x21\x00\x00\x00") == 403
    # LOCAL is whoever is in front itself.
    assert status_of(gateway, b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00") == 200


def test_a_list_of_a_rule_takes_the_place_of_the_gateways(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(
        [
            BASE,
            EDGE,
            policy(acl(deny("10.0.0.0/8")), kind="Gateway", target="edge"),
            policy(acl(deny("11.0.0.0/8")), "api", section="api"),
        ]
    )
    assert gateway.get("/", source="10.0.0.1").status == 403
    assert gateway.get("/", source="11.0.0.1").status == 200
    assert gateway.get("/api", source="10.0.0.1").status == 200
    assert gateway.get("/api", source="11.0.0.1").status == 403


def test_lists_that_are_merged_are_one(kgw_proxy: GatewayFactory) -> None:
    """Of the same network the stronger policy's rule counts, and it says the rest."""
    strong = acl(allow("10.1.0.0/16"), deny("10.0.0.0/8", name="strong"))
    weak = acl(
        deny("10.1.0.0/16", name="weak"),
        deny("10.1.2.0/24", name="narrow"),
        default="deny",
        denyResponse={"statusCode": 451},
    )
    merge = PolicyOptions.of(merge='{"trafficPolicy": {"acl": "DeepMerge"}}')
    weighty = {"kgateway.dev/policy-weight": "1"}
    gateway = kgw_proxy(
        [BASE, EDGE, policy(strong, "strong", annotations=weighty), policy(weak, "weak")],
        policies=merge,
    )
    found = {
        client: (gateway.get("/", source=client).status, gateway.answers[-1].access_log[0])
        for client in ("10.1.9.9", "10.1.2.3", "10.2.0.1", "11.0.0.1")
    }
    assert found == {
        "10.1.9.9": (200, {"why": None}),
        "10.1.2.3": (451, {"why": "narrow"}),
        "10.2.0.1": (451, {"why": "strong"}),
        "11.0.0.1": (200, {"why": None}),
    }


def test_in_shadow_nobody_is_denied(kgw_proxy: GatewayFactory) -> None:
    trial = policy(acl(deny("127.0.0.0/8")), annotations={"kgw.dev/shadow": "true"})
    gateway = kgw_proxy([BASE, trial])
    gateway.get("/").expect(status=200)
    assert gateway.stats()["shadow_denied"] == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (acl(deny("172.18.0.0/12")), "acl: invalid CIDR '172.18.0.0/12' (host bits set)"),
        (acl(deny("10.0.0.0/33")), "acl: invalid CIDR '10.0.0.0/33' (neither"),
        (acl(deny("10.0.0.0/255.0.0.0")), "(neither a network nor an address)"),
        (acl(deny("fe80::1%eth0")), "(neither a network nor an address)"),
        (acl(deny("a")), "acl: invalid CIDR 'a'"),
        (acl(denyResponse={"statusCode": 101}), "101 is not the status of a final answer"),
        (
            acl(denyResponse={"headers": [{"name": "Content-Length", "value": "1"}]}),
            "header field Content-Length cannot be changed by a filter",
        ),
        (acl(denyResponse={"headers": [{"name": "x", "value": "1\n"}]}), "the value is none"),
        (acl(denyResponse={"blockedByHeaderName": "a b"}), "'a b' is not a header field name"),
    ],
)
def test_what_cannot_be_used_takes_its_targets_out_of_service(
    kgw_proxy: GatewayFactory, spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(kgw.ConfigError) as raised:
        kgw_proxy([BASE, policy(spec)])
    assert message in str(raised.value)
    gateway = kgw_proxy([BASE, policy(spec)], strict=False)
    gateway.get("/").expect(status=500, backend=None)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            acl(denyResponse={}),
            "at least one of the fields in [statusCode headers blockedByHeaderName] must be set",
        ),
        ({"acl": {"defaultAction": "Deny"}}, "allow"),
        (acl({"cidrs": [], "action": "deny"}), "cidrs"),
    ],
)
def test_what_is_no_access_list_is_refused(
    kgw_proxy: GatewayFactory, spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(kgw.ConfigError) as raised:
        kgw_proxy([BASE, policy(spec)])
    assert message in str(raised.value)
