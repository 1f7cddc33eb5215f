"""TrafficPolicy `cors`: which pages of other origins may use a route."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.policies.manifests import BASE, policy

import kgw

if TYPE_CHECKING:
    from kgw.testing import Gateway, GatewayFactory
    from kgw.testing.answer import Answer

pytestmark = pytest.mark.fields("TrafficPolicy.spec.cors")

PREFIX = "access-control-"


def cors(**more: Any) -> dict[str, Any]:
    """The spec of a policy."""
    return {"cors": {"allowOrigins": ["https://a.example"], **more}}


def told(answer: Answer) -> dict[str, str]:
    """What an answer says about origins."""
    fields = answer.headers.items()
    return {
        name.lower().removeprefix(PREFIX): value
        for name, value in fields
        if name.lower().startswith(PREFIX)
    }


def preflight(gateway: Gateway, origin: str, url: str = "/") -> Answer:
    """Asks what a page may do."""
    headers = {
        "origin": origin,
        "access-control-request-method": "PUT",
        "access-control-request-headers": "x-1, x-2",
    }
    return gateway.options(url, headers=headers)


def test_a_preflight_request_is_answered(kgw_proxy: GatewayFactory) -> None:
    spec = cors(
        allowMethods=["GET", "PUT"],
        allowHeaders=["X-1"],
        exposeHeaders=["x-out"],
        allowCredentials=True,
        maxAge=600,
    )
    gateway = kgw_proxy([BASE, policy(spec)])
    answer = preflight(gateway, "https://a.example")
    answer.expect(status=200, backend=None, details="cors_response", body="")
    assert told(answer) == {
        "allow-origin": "https://a.example",
        "allow-credentials": "true",
        "allow-methods": "GET, PUT",
        "allow-headers": "X-1",
        "expose-headers": "x-out",
        "max-age": "600",
    }
    assert gateway.stats()["cors_preflight"] == 1


def test_without_more_it_says_for_how_long_the_answer_holds(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy(cors())])
    found = told(preflight(gateway, "https://a.example"))
    assert found == {"allow-origin": "https://a.example", "max-age": "5"}


def test_all_methods_and_fields_may_be_allowed(kgw_proxy: GatewayFactory) -> None:
    spec = cors(allowMethods=["*"], allowHeaders=["*"], exposeHeaders=["*"])
    gateway = kgw_proxy([BASE, policy(spec)])
    found = told(preflight(gateway, "https://a.example"))
    assert (found["allow-methods"], found["allow-headers"]) == ("PUT", "x-1, x-2")


def test_an_answer_says_who_may_read_it(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy(cors(exposeHeaders=["x-out"]))])
    gateway.backend("api").responds(headers={"access-control-allow-origin": "*"})
    answer = gateway.get("/", headers={"origin": "https://a.example"}).expect(status=200)
    assert told(answer) == {"allow-origin": "https://a.example", "expose-headers": "x-out"}
    answer = gateway.get("/", headers={"origin": "https://b.example"}).expect(status=200)
    assert told(answer) == {}


@pytest.mark.parametrize(
    ("pattern", "allowed", "not_allowed"),
    [
        ("*", "https://anything.example:1234", "null"),
        ("*", "chrome-extension://abcdef", "https://a/b"),
        ("https://*.a.example", "https://x.y.a.example", "https://a.example"),
        ("https://*.a.example", "https://x.a.example", "https://x.a.example:8443"),
        ("https://a*", "https://abc.example:8443", "https://b.example"),
        ("https://*", "https://abc.example:8443", "http://abc.example"),
        ("https://a.*.example", "https://a.b.example", "https://a.example"),
        ("app://local", "app://local", "app://other"),
        ("http://a.example:8080", "http://a.example:8080", "http://a.example"),
    ],
)
def test_patterns_are_kgateways(
    kgw_proxy: GatewayFactory, pattern: str, allowed: str, not_allowed: str
) -> None:
    gateway = kgw_proxy([BASE, policy(cors(allowOrigins=[pattern]))])
    assert told(preflight(gateway, allowed))["allow-origin"] == allowed
    assert told(preflight(gateway, not_allowed)) == {}


def test_a_filter_of_a_rule_has_precedence(kgw_proxy: GatewayFactory) -> None:
    own = BASE.replace(
        "backendRefs: [{name: api, port: 80}]\n  - name: rest",
        "filters: [{type: CORS, cors: {allowOrigins: ['https://b.example']}}]\n"
        "    backendRefs: [{name: api, port: 80}]\n  - name: rest",
    )
    gateway = kgw_proxy([own, policy(cors())])
    assert told(preflight(gateway, "https://a.example", "/api")) == {}
    found = told(preflight(gateway, "https://b.example", "/api"))
    assert found["allow-origin"] == "https://b.example"
    assert told(preflight(gateway, "https://a.example"))["allow-origin"] == "https://a.example"


def test_it_is_turned_off_where_a_rule_says_so(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(
        [
            BASE,
            policy(cors(), kind="Gateway", target="edge"),
            policy({"cors": {"disable": {}}}, "off", section="api"),
        ]
    )
    assert told(preflight(gateway, "https://a.example"))["allow-origin"] == "https://a.example"
    preflight(gateway, "https://a.example", "/api").expect(status=200, backend="api")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"allowOrigins": ["*", "https://a"]}, "AllowOrigins cannot contain '*' alongside"),
        ({"allowMethods": ["*", "GET"]}, "AllowMethods cannot contain '*' alongside"),
        ({"allowHeaders": ["*", "x-a"]}, "AllowHeaders cannot contain '*' alongside"),
        ({"allowOrigins": ["https://a", "https://a"]}, "duplicate value"),
        ({"allowOrigins": ["a"]}, "a scheme and a host"),
        ({"maxAge": 0}, "1"),
    ],
)
def test_what_makes_no_sense_is_refused(
    kgw_proxy: GatewayFactory, spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(kgw.ConfigError) as raised:
        kgw_proxy([BASE, policy({"cors": spec})])
    assert message in str(raised.value)
