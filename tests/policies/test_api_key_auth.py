"""TrafficPolicy `apiKeyAuth`: requests have to have a key of a client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.policies.manifests import BASE, grant, policy, secret

import kgw

if TYPE_CHECKING:
    from kgw.testing import GatewayFactory

pytestmark = pytest.mark.fields(
    "TrafficPolicy.spec.apiKeyAuth",
    without=(
        "TrafficPolicy.spec.apiKeyAuth.secretRef.group",
        "TrafficPolicy.spec.apiKeyAuth.secretRef.namespace",
    ),
)

KEYS = secret("keys", {"alice": "k-alice-1", "bob": "k-bob-2\n", "nobody": ""})

MISSING: dict[str, Any] = {
    "status": 401,
    "body": "Client authentication failed.",
    "details": "missing_api_key",
}
UNKNOWN: dict[str, Any] = {
    "status": 401,
    "body": "Client authentication failed.",
    "details": "unknown_api_key",
}


def keyed(**more: Any) -> dict[str, Any]:
    """The spec of a policy whose keys are in a Secret."""
    return {"apiKeyAuth": {"secretRef": {"name": "keys"}, **more}}


def test_the_field_api_key_is_looked_at_if_nothing_is_said(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, KEYS, policy(keyed())])
    gateway.get("/").expect(backend=None, flags="", **MISSING)
    gateway.get("/", headers={"api-key": "k-alice-2"}).expect(backend=None, **UNKNOWN)
    gateway.get("/", headers={"api-key": ""}).expect(backend=None, **MISSING)
    gateway.get("/", headers={"Api-Key": "k-alice-1"}).expect(
        status=200, received={"headers": {"api-key": None}}
    )
    gateway.get("/", headers={"api-key": "Bearer k-bob-2"}).expect(status=200)
    stats = gateway.stats()
    assert stats["api_key_auth_allowed"] == 2
    assert stats["api_key_auth_unauthorized"] == 2
    assert stats["api_key_auth_forbidden"] == 1


def test_places_are_looked_at_in_their_order(kgw_proxy: GatewayFactory) -> None:
    sources = [{"query": "key", "header": "x-key"}, {"cookie": "key"}]
    spec = keyed(keySources=sources, clientIdHeader="x-client")
    gateway = kgw_proxy([BASE, KEYS, policy(spec)])
    gateway.get("/", headers={"api-key": "k-alice-1"}).expect(**MISSING)
    gateway.get("/?a=1&key=k-alice-1&b=%20").expect(
        status=200, received={"target": "/?a=1&b=%20", "headers": {"x-client": "alice"}}
    )
    gateway.get("/", headers={"cookie": "a=b; key=k-bob-2; c=d"}).expect(
        status=200, received={"headers": {"x-client": "bob", "cookie": "a=b; c=d"}}
    )
    # Of one source the field is before the query, and that before the next one's cookie.
    headers = {"x-key": "k-bob-2", "cookie": "key=nonsense"}
    gateway.get("/?key=k-alice-1", headers=headers).expect(
        status=200,
        received={
            "target": "/",
            "headers": {"x-client": "bob", "x-key": None, "cookie": None},
        },
    )
    gateway.get("/?key=k-alice-1", headers={"x-key": "nonsense"}).expect(**UNKNOWN)


def test_a_client_does_not_say_itself_who_it_is(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, KEYS, policy(keyed(clientIdHeader="x-client"))])
    headers = {"api-key": "k-alice-1", "x-client": "root"}
    gateway.get("/", headers=headers).expect(
        status=200, received={"headers": {"x-client": "alice"}}
    )


def test_the_backend_gets_the_key_if_it_is_to(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, KEYS, policy(keyed(forwardCredential=True))])
    gateway.get("/", headers={"api-key": "k-alice-1"}).expect(
        status=200, received={"headers": {"api-key": "k-alice-1"}}
    )


def test_changes_of_the_secret_are_live(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, KEYS, policy(keyed())])
    gateway.get("/", headers={"api-key": "k-alice-1"}).expect(status=200)
    gateway.apply([BASE, secret("keys", {"alice": "new"}), policy(keyed())])
    gateway.get("/", headers={"api-key": "k-alice-1"}).expect(**UNKNOWN)
    gateway.get("/", headers={"api-key": "new"}).expect(status=200)


def test_secrets_may_be_selected_by_labels(kgw_proxy: GatewayFactory) -> None:
    spec = {
        "apiKeyAuth": {
            "secretSelector": {"matchLabels": {"team": "a"}},
            "clientIdHeader": "x-client",
        }
    }
    labels = {"team": "a", "more": "x"}
    one = secret("one", {"alice": "k-1"}, labels=labels)
    two = secret("two", {"bob": "k-2", "alice": "k-1"}, labels=labels)
    other = secret("other", {"eve": "k-3"}, labels={"team": "b"})
    elsewhere = secret("one", {"carl": "k-4"}, namespace="infra", labels=labels)
    gateway = kgw_proxy([BASE, one, other, elsewhere, policy(spec)])

    def client(key: str) -> str | None:
        answer = gateway.get("/", headers={"api-key": key})
        if answer.received is None:
            assert answer.status == 401
            return None
        return answer.received.headers["x-client"]

    assert [client(key) for key in ("k-1", "k-2", "k-3", "k-4")] == ["alice", None, None, None]
    # One that comes counts at once; the same client may have the same key twice.
    gateway.apply([BASE, one, two, other, elsewhere, policy(spec)])
    assert [client(key) for key in ("k-1", "k-2", "k-3", "k-4")] == ["alice", "bob", None, None]
    gateway.apply([BASE, one, elsewhere, grant("infra", "Secret"), policy(spec)])
    assert [client(key) for key in ("k-1", "k-2", "k-4")] == ["alice", None, "carl"]


def test_it_is_turned_off_where_a_rule_says_so(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(
        [
            BASE,
            KEYS,
            policy(keyed(), kind="Gateway", target="edge"),
            policy({"apiKeyAuth": {"disable": {}}}, "open", section="api"),
        ]
    )
    gateway.get("/").expect(status=401)
    gateway.get("/api").expect(status=200)


def test_its_first_name_is_known(kgw_proxy: GatewayFactory) -> None:
    old = policy({"apiKeyAuthentication": keyed()["apiKeyAuth"]})
    gateway = kgw_proxy([BASE, KEYS, old])
    (finding,) = gateway.config.findings
    assert finding.code == "KGW601"
    assert "`apiKeyAuthentication` has a successor, `apiKeyAuth`" in finding.message
    gateway.get("/").expect(**MISSING)
    gateway.get("/", headers={"api-key": "k-alice-1"}).expect(status=200)


def test_in_shadow_everybody_passes_and_keeps_the_key(kgw_proxy: GatewayFactory) -> None:
    spec = policy(keyed(), annotations={"kgw.dev/shadow": "true"})
    gateway = kgw_proxy([BASE, KEYS, spec])
    gateway.get("/").expect(status=200)
    gateway.get("/", headers={"api-key": "k-alice-1"}).expect(
        status=200, received={"headers": {"api-key": "k-alice-1"}}
    )
    assert gateway.stats()["shadow_denied"] == 1


@pytest.mark.parametrize(
    ("auth", "message"),
    [
        ({"secretRef": {"name": "none"}}, "Secret default/none not found"),
        ({"secretRef": {"name": "x", "kind": "ConfigMap"}}, "a ConfigMap cannot hold API keys"),
        ({"secretRef": {"name": "empty"}}, "there are no API keys in the Secrets"),
        ({"secretSelector": {"matchLabels": {"no": "body"}}}, "no Secret has the labels"),
        ({"secretRef": {"name": "twice"}}, "clients 'a' and 'b' have the same API key"),
        (
            {"secretRef": {"name": "keys"}, "clientIdHeader": "host"},
            "header field host cannot be changed by a filter",
        ),
        (
            {"secretRef": {"name": "keys"}, "keySources": [{"header": "a b"}]},
            "'a b' is not a header field name",
        ),
    ],
)
def test_what_cannot_be_used_takes_its_targets_out_of_service(
    kgw_proxy: GatewayFactory, auth: dict[str, Any], message: str
) -> None:
    inside: list[Any] = [
        BASE,
        KEYS,
        secret("empty", {"a": ""}),
        secret("twice", {"a": "the-same", "b": "the-same"}),
        policy({"apiKeyAuth": auth}),
    ]
    with pytest.raises(kgw.ConfigError) as raised:
        kgw_proxy(inside)
    assert message in str(raised.value)
    assert "the-same" not in str(raised.value)
    gateway = kgw_proxy(inside, strict=False)
    gateway.get("/", headers={"api-key": "k-alice-1"}).expect(status=500, backend=None)


@pytest.mark.parametrize(
    ("auth", "message"),
    [
        ({}, "exactly one of the fields in [secretRef secretSelector disable] must be set"),
        (
            {"disable": {}, "secretRef": {"name": "keys"}},
            "exactly one of the fields in [secretRef secretSelector disable] must be set",
        ),
        (
            {"secretRef": {"name": "keys"}, "keySources": [{}]},
            "at least one of the fields in [header query cookie] must be set",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(
    kgw_proxy: GatewayFactory, auth: dict[str, Any], message: str
) -> None:
    with pytest.raises(kgw.ConfigError) as raised:
        kgw_proxy([BASE, KEYS, policy({"apiKeyAuth": auth})])
    assert message in str(raised.value)
