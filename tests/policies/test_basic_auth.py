"""TrafficPolicy `basicAuth`: users and passwords."""

from __future__ import annotations

import base64
import hashlib
import http.client
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from tests.policies.manifests import BASE, grant, policy, secret

import kgw
from kgw.api import TrafficPolicy

if TYPE_CHECKING:
    from kgw.testing import Gateway, GatewayFactory

pytestmark = pytest.mark.fields("TrafficPolicy.spec.basicAuth")

#: What `htpasswd -B -C 5` writes for the password ``secret``; this one is by glibc's `crypt`.
BCRYPT = "$2y$05$CCCCCCCCCCCCCCCCCCCCC.pIKrLVkBX9/OvQMSygY1pWEVn72t6na"


def sha(password: str) -> str:
    """The hash of a password as `htpasswd -s` writes it."""
    digest = hashlib.sha1(password.encode()).digest()
    return "{SHA}" + base64.b64encode(digest).decode()


def named(user: str, password: str) -> dict[str, str]:
    """The header field of a user."""
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"authorization": f"Basic {token}"}


def users(*entries: str) -> dict[str, Any]:
    """The spec of a policy with users."""
    return {"basicAuth": {"users": list(entries)}}


def from_secret(**ref: str) -> dict[str, Any]:
    """The spec of a policy whose users are in a Secret."""
    return {"basicAuth": {"secretRef": {"name": "users", **ref}}}


def test_who_names_no_user_is_asked_to(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy(users(f"alice:{sha('secret')}"))])
    answer = gateway.get("/a?b=c", host="example.org:80").expect(
        status=401,
        backend=None,
        body="User authentication failed. Missing username and password.",
        details="no_credential_for_basic_auth",
        headers={
            "www-authenticate": 'Basic realm="http://example.org:80/a?b=c"',
            "content-type": "text/plain",
        },
    )
    assert answer.flags == ""
    assert gateway.stats()["basic_auth_denied"] == 1


@pytest.mark.parametrize(
    ("user", "password", "passes"),
    [
        ("alice", "secret", True),
        ("bob", "other:with:colons", True),
        ("alice", "other:with:colons", False),
        ("alice", "", False),
        ("eve", "secret", False),
        ("", "", False),
    ],
)
def test_a_user_has_to_know_the_password(
    kgw_proxy: GatewayFactory, user: str, password: str, passes: bool
) -> None:
    entries = ("# people", "", f"alice:{sha('secret')}", f" bob:{sha('other:with:colons')} ")
    gateway = kgw_proxy([BASE, policy(users(*entries))])
    answer = gateway.get("/", headers=named(user, password))
    if passes:
        # As in Envoy, the backend sees who asks.
        answer.expect(status=200, received={"headers": named(user, password)})
        assert gateway.stats()["basic_auth_allowed"] == 1
    else:
        answer.expect(
            status=401,
            body="User authentication failed. Invalid username/password combination.",
            details="invalid_credential_for_basic_auth",
        )


@pytest.mark.parametrize(
    ("field", "body", "details"),
    [
        (
            "Bearer x",
            "User authentication failed. Expected 'Basic' authentication scheme.",
            "invalid_scheme_for_basic_auth",
        ),
        (
            "Basic " + base64.b64encode(b"alice").decode(),
            "User authentication failed. Invalid basic credential format.",
            "invalid_format_for_basic_auth",
        ),
    ],
)
def test_what_is_no_user_and_password_is_told(
    kgw_proxy: GatewayFactory, field: str, body: str, details: str
) -> None:
    gateway = kgw_proxy([BASE, policy(users(f"alice:{sha('secret')}"))])
    answer = gateway.get("/", headers={"authorization": field})
    answer.expect(status=401, body=body, details=details)


def test_passwords_of_bcrypt_are_checked_once_and_then_remembered(
    kgw_proxy: GatewayFactory,
) -> None:
    gateway = kgw_proxy([BASE, policy(users(f"alice:{BCRYPT}", f"bob:{sha('x')}"))])

    def checks() -> int:
        return gateway.stats()["basic_auth_checked"]

    gateway.get("/", headers=named("alice", "wrong")).expect(status=401)
    assert checks() == 1
    for _ in range(3):
        gateway.get("/", headers=named("alice", "secret")).expect(status=200)
        assert checks() == 2
    # What is wrong is not remembered, and a name that nobody has takes as long as one that is had.
    gateway.get("/", headers=named("alice", "wrong")).expect(status=401)
    gateway.get("/", headers=named("eve", "secret")).expect(
        status=401, details="invalid_credential_for_basic_auth"
    )
    gateway.get("/", headers=named("eve", "secret")).expect(status=401)
    assert checks() == 5
    gateway.get("/", headers=named("bob", "x")).expect(status=200)
    assert checks() == 5


def test_many_may_ask_at_once(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy(users(f"alice:{BCRYPT}"))])

    ((address,),) = gateway.addresses.values()

    def ask(number: int) -> tuple[bool, int]:
        right = number % 2 == 0
        password = "secret" if right else f"wrong {number}"
        client = http.client.HTTPConnection(*address, timeout=30)
        client.request("GET", "/", headers=named("alice", password))
        status = client.getresponse().status
        client.close()
        return right, status

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(ask, range(24)))
    assert all(status == (200 if right else 401) for right, status in found)


def test_a_secret_has_users_and_its_changes_are_live(kgw_proxy: GatewayFactory) -> None:
    def config(data: dict[str, str]) -> list[Any]:
        return [BASE, policy(from_secret()), secret("users", data)]

    first = config({".htpasswd": f"alice:{sha('1')}\nbob:{sha('2')}\n"})
    gateway = kgw_proxy(first, strict=False)
    gateway.get("/", headers=named("alice", "1")).expect(status=200)
    gateway.get("/", headers=named("bob", "2")).expect(status=200)
    gateway.apply(config({".htpasswd": f"alice:{sha('3')}\n"}))
    gateway.get("/", headers=named("alice", "1")).expect(status=401)
    gateway.get("/", headers=named("alice", "3")).expect(status=200)
    gateway.get("/", headers=named("bob", "2")).expect(status=401)
    # Without any nobody gets in, not even without a password.
    gateway.apply([BASE, policy(from_secret())])
    gateway.get("/", headers=named("alice", "3")).expect(status=500, backend=None)


def test_a_secret_may_be_elsewhere_under_another_key(kgw_proxy: GatewayFactory) -> None:
    spec = policy(from_secret(namespace="infra", key="people"))
    there = secret("users", {"people": f"alice:{sha('1')}"}, namespace="infra")
    gateway = kgw_proxy([BASE, spec, there, grant("infra", "Secret")])
    gateway.get("/", headers=named("alice", "1")).expect(status=200)
    gateway.get("/", headers=named("alice", "2")).expect(status=401)
    with pytest.raises(
        kgw.ConfigError, match="missing reference grant: nothing in namespace infra"
    ):
        kgw_proxy([BASE, spec, there])


def test_it_is_turned_off_where_a_rule_says_so(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(
        [
            BASE,
            policy(users(f"alice:{sha('1')}"), kind="Gateway", target="edge"),
            policy({"basicAuth": {"disable": {}}}, "open", section="api"),
        ]
    )
    gateway.get("/").expect(status=401)
    gateway.get("/api").expect(status=200)


def test_in_shadow_everybody_passes(kgw_proxy: GatewayFactory) -> None:
    spec = policy(users(f"alice:{BCRYPT}"), annotations={"kgw.dev/shadow": "true"})
    gateway = kgw_proxy([BASE, spec])
    gateway.get("/").expect(status=200)
    gateway.get("/", headers=named("alice", "wrong")).expect(status=200)
    gateway.get("/", headers=named("alice", "secret")).expect(status=200)
    assert gateway.stats()["shadow_denied"] == 2


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["alice"], "line 1 is no `user:hash`"),
        (["alice:plain"], "the hash of user 'alice' is neither {SHA} nor bcrypt"),
        (["a:{SHA}x"], "the hash of user 'a' is neither {SHA} nor bcrypt"),
        (["a:$apr1$abc$def"], "the hash of user 'a' is neither {SHA} nor bcrypt"),
        (
            ["a:" + BCRYPT.replace("$05$", "$15$")],
            "the hash of user 'a' costs too much to check: bcrypt of at most 14",
        ),
        (
            [f"a:{sha('1')}", f"a:{sha('2')}"],
            "user 'a' is listed twice with different hashes",
        ),
        (["# nobody"], "basic auth: there is no user"),
    ],
)
def test_users_that_cannot_be_used_take_the_targets_out_of_service(
    kgw_proxy: GatewayFactory, entries: list[str], message: str
) -> None:
    with pytest.raises(kgw.ConfigError) as raised:
        kgw_proxy([BASE, policy(users(*entries))])
    assert message in str(raised.value)
    inside: list[Any] = [
        BASE,
        policy(from_secret()),
        secret("users", {".htpasswd": "\n".join(entries)}),
    ]
    with pytest.raises(kgw.ConfigError) as raised:
        kgw_proxy(inside)
    assert message in str(raised.value)
    assert not any(one.partition(":")[2] in str(raised.value) for one in entries if ":" in one)
    gateway = kgw_proxy(inside, strict=False)
    gateway.get("/").expect(status=500, backend=None)


@pytest.mark.parametrize(
    ("auth", "message"),
    [
        ({}, "exactly one of the fields in [users secretRef disable] must be set"),
        (
            {"disable": {}, "users": ["a:b"]},
            "exactly one of the fields in [users secretRef disable] must be set",
        ),
        ({"users": []}, "at least 1 item"),
        ({"secretRef": {"name": "users"}}, "Secret default/users not found"),
        ({"secretRef": {"name": "there", "key": "x"}}, "does not contain key 'x'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    kgw_proxy: GatewayFactory, auth: dict[str, Any], message: str
) -> None:
    there = secret("there", {".htpasswd": ""})
    with pytest.raises(kgw.ConfigError) as raised:
        kgw_proxy([BASE, policy({"basicAuth": auth}), there])
    assert message in str(raised.value)


def test_hashes_are_in_no_text(kgw_proxy: GatewayFactory) -> None:
    made = TrafficPolicy.model_validate(policy(users(f"alice:{BCRYPT}")))
    assert BCRYPT not in repr(made)
    gateway: Gateway = kgw_proxy([BASE, policy(users(f"alice:{BCRYPT}"))])
    assert BCRYPT not in gateway.explain("GET", "/")
