"""Client certificates that a ListenerPolicy asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.attach.test_policies import NEW, listener_policy
from tests.attach.test_tls_listeners import CERT, HTTP, gateway, https, listener, tls
from tests.translate.certificates import authority, config_map, secret
from tests.translate.support import EDGE, codes, load, run, run_all, verdict

if TYPE_CHECKING:
    from kgw.translate import Translation

pytestmark = pytest.mark.fields(
    "ListenerPolicy.spec.default.httpSettings.serverName", "ListenerPolicy.spec.perPort"
)

POLICY = "ListenerPolicy default/a"
REFS = "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]"
CLOSED = {"type": "passthrough", "forward": {"name": "", "backends": []}}
REQUIRED = {"ca": authority(), "mode": "require", "subject_alt_names": []}


def policy(
    validation: str = f"{REFS}, mode: Require", more: str = "", created: str = "2024-01-01"
) -> str:
    spec = f"default: {{clientCertificateValidation: {{{validation}}}}}\n  {more}"
    return listener_policy("a", NEW, spec, created)


def actions(found: Translation) -> dict[str, Any]:
    """What is done with the connections of each chain."""
    (only,) = [one for one in found.ir["listeners"] if one["traffic"]["type"] == "tls"]
    return {one["name"]: one["action"] for one in only["traffic"]["chains"]}


def asked(found: Translation, name: str = "https") -> Any:
    return actions(found)[name]["tls"].get("client_validation")


@pytest.mark.parametrize("mode", ["Require", "Optional"])
def test_a_policy_asks_clients_for_certificates(mode: str) -> None:
    given = policy(f"{REFS}, mode: {mode}")
    found = run(gateway(https()), secret("cert"), config_map("ca"), given)
    assert asked(found) == {**REQUIRED, "mode": mode.lower()}
    assert codes(found) == []
    assert verdict(found, POLICY, "Attached") == ("True", "Attached")


def test_authorities_that_can_be_used_are_enough() -> None:
    refs = (
        "caCertificateRefs: [{group: '', kind: ConfigMap, name: none}, "
        "{group: '', kind: ConfigMap, name: ca}], mode: Require"
    )
    found = run(gateway(https()), secret("cert"), config_map("ca"), policy(refs))
    assert asked(found) == REQUIRED
    assert codes(found) == ["KGW312"]


def test_settings_of_a_port_do_not_take_it_back() -> None:
    of_port = "perPort: [{port: 443, listener: {httpSettings: {serverName: me}}}]"
    found = run(gateway(https()), secret("cert"), config_map("ca"), policy(more=of_port))
    assert asked(found) == REQUIRED
    assert found.ir["listeners"][0]["http"] == {"server_name": "me"}


def test_it_cannot_be_said_of_a_port() -> None:
    spec = f"perPort: [{{port: 443, listener: {{clientCertificateValidation: {{{REFS}}}}}}}]"
    (finding,) = load(listener_policy("a", NEW, spec)).findings
    assert (finding.code, str(finding.severity)) == ("KGW203", "warning")


def test_a_policy_may_be_on_one_listener_of_a_port() -> None:
    given = policy().replace("name: edge", "name: edge, sectionName: b")
    texts = (gateway(https("a", hostname="a.example"), https("b")), secret("cert"))
    found = run(*texts, config_map("ca"), given)
    assert (asked(found, "a"), asked(found, "b")) == (None, REQUIRED)


def test_names_are_verified_with_the_authorities_of_a_policy() -> None:
    options = f"{CERT}, options: {{kgateway.dev/verify-subject-alt-names: a.example}}"
    texts = (gateway(https(tls=options)), secret("cert"), config_map("ca"))
    assert asked(run(*texts, policy()))["subject_alt_names"] == [
        {"type": "dns", "value": "a.example"}
    ]
    alone = run(*texts)
    assert codes(alone) == ["KGW423"]
    assert listener(alone, "https")["Accepted"] == ("False", "UnsupportedValue")


def test_what_the_gateway_itself_asks_goes_first() -> None:
    frontend = (
        "{frontend: {default: {validation: {caCertificateRefs: "
        "[{group: '', kind: ConfigMap, name: ca}], mode: AllowInsecureFallback}}}}"
    )
    texts = (gateway(https(), tls=frontend), secret("cert"), config_map("ca"))
    found = run(*texts, policy())
    assert asked(found)["mode"] == "insecure_fallback"
    assert codes(found) == ["KGW413", "KGW424"]


def test_of_two_policies_the_older_asks() -> None:
    newer = policy(f"{REFS}, mode: Optional").replace("name: a,", "name: b,")
    old = policy(created="2023-01-01")
    found = run(gateway(https()), secret("cert"), config_map("ca"), old, newer)
    assert asked(found)["mode"] == "require"
    assert codes(found) == ["KGW411"]


@pytest.mark.parametrize(
    "wrong",
    [
        policy(),
        policy(f"{REFS}, mode: Always"),
        policy(more="perPort: [{port: 443, listener: {httpSettings: {tracing: {}}}}]"),
    ],
    ids=["authorities", "refused", "unsupported"],
)
def test_a_policy_that_cannot_be_used_takes_tls_listeners_out_of_service(wrong: str) -> None:
    given = [] if wrong == policy() else [config_map("ca")]
    found, findings = run_all(gateway(https(), HTTP), secret("cert"), *given, wrong)
    assert [one.code for one in findings if one.severity == "error"] != []
    assert [one["id"] for one in found.ir["listeners"]] == ["default/edge/http"]
    assert listener(found, "https")["Programmed"] == ("False", "Invalid")
    assert listener(found, "http")["Programmed"] == ("True", "Programmed")
    assert verdict(found, POLICY, "Accepted") == ("False", "Invalid")


def test_the_name_of_a_listener_out_of_service_is_closed() -> None:
    given = policy().replace("name: edge", "name: edge, sectionName: a")
    found = run(gateway(https("a", hostname="a.example"), https("b")), secret("cert"), given)
    assert actions(found)["a"] == CLOSED
    assert actions(found)["b"]["type"] == "http"


def test_a_broken_policy_that_does_not_ask_leaves_them_in_service() -> None:
    broken = listener_policy("a", NEW, "default: {httpSettings: {tracing: {}}}")
    found, _ = run_all(gateway(https()), secret("cert"), broken)
    assert actions(found)["https"]["type"] == "http"


def test_without_tls_nobody_can_be_asked() -> None:
    assert codes(run(EDGE, config_map("ca"), policy())) == ["KGW413"]
    passthrough = run(gateway(tls("tls")), config_map("ca"), policy())
    assert codes(passthrough) == ["KGW413"]
