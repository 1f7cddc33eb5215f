"""Each form of an earlier version means what its successor means, and is rewritten to that."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest

import kgw
from kgw import api
from kgw.config import load
from kgw.diagnostics import Severity
from kgw.migrate import rewrite
from kgw.source.files import parse_text

#: The public key of RFC 7517, appendix A.1.
KEYS = json.dumps(
    {
        "keys": [
            {
                "kty": "EC",
                "crv": "P-256",
                "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
                "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
            }
        ]
    }
)

BASE = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: edge
  annotations:
    PRIORITY: ShallowMergePreferParent
spec:
  gatewayClassName: kgateway
  listeners: [{name: http, port: 8080, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: edge}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /hosts}}]
    backendRefs: [{group: gateway.kgateway.dev, kind: Backend, name: hosts}]
  - backendRefs: [{name: api, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: api}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: gateway.kgateway.dev/v1alpha1
kind: Backend
metadata: {name: hosts}
spec:
  static: {hosts: [{host: 10.0.0.1, port: 80}]}
---
apiVersion: gateway.kgateway.dev/v1alpha1
kind: GatewayExtension
metadata: {name: auth}
spec:
  extAuth: {httpService: {backendRef: {name: api, port: 80}}}
---
apiVersion: gateway.kgateway.dev/v1alpha1
kind: GatewayExtension
metadata: {name: issuers}
spec:
  jwt:
    providers:
    - name: a
      issuer: a
      jwks: {local: {inline: 'KEYS'}}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {ann: k-1}
---
apiVersion: gateway.kgateway.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: all}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]
  extAuth: {extensionRef: {name: auth}}
---
apiVersion: gateway.kgateway.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: web}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}]
  rbac: {policy: {matchExpressions: ["true"]}}
""".replace("PRIORITY", "kgateway.dev/inherited-policy-priority").replace("KEYS", KEYS)

SETTINGS = """---
apiVersion: gateway.kgateway.dev/v1alpha1
kind: HTTPListenerPolicy
metadata: {name: log}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]
  serverName: here
  accessLog:
  - fileSink: {path: /dev/stdout, stringFormat: "%PROTOCOL%\\n"}
"""

NEW_SETTINGS = """---
apiVersion: gateway.kgateway.dev/v1alpha1
kind: ListenerPolicy
metadata: {name: log}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]
  default:
    httpSettings:
      serverName: here
      accessLog:
      - fileSink: {path: /dev/stdout, stringFormat: "%PROTOCOL%\\n"}
"""

RBAC = '  rbac: {policy: {matchExpressions: ["true"]}}\n'


class Form(NamedTuple):
    """What was written in place of something, and what it is now."""

    place: str
    old: str
    new: str
    code: str = "KGW601"
    path: str = ""


FORMS = {
    "the kind HTTPListenerPolicy": Form("", SETTINGS, NEW_SETTINGS, path="kind"),
    "extAuth.enablement": Form(
        RBAC,
        "  extAuth: {enablement: DisableAll}\n",
        "  extAuth: {disable: {}}\n",
        path="spec.extAuth.enablement",
    ),
    "apiKeyAuthentication": Form(
        RBAC,
        "  apiKeyAuthentication: {secretRef: {name: keys}}\n",
        "  apiKeyAuth: {secretRef: {name: keys}}\n",
        path="spec.apiKeyAuthentication",
    ),
    "jwt": Form(
        RBAC,
        "  jwt: {extensionRef: {name: issuers}}\n",
        "  jwtAuth: {extensionRef: {name: issuers}}\n",
        path="spec.jwt",
    ),
    "the annotation of delegation": Form(
        "    kgateway.dev/inherited-policy-priority:",
        "    delegation.kgateway.dev/inherited-policy-priority:",
        "    kgateway.dev/inherited-policy-priority:",
        path="metadata.annotations.delegation.kgateway.dev/inherited-policy-priority",
    ),
    "the type of a Backend": Form(
        "  static:", "  type: Static\n  static:", "  static:", "KGW602", "spec.type"
    ),
    "the type of a GatewayExtension": Form(
        "  extAuth: {http",
        "  type: ExtAuth\n  extAuth: {http",
        "  extAuth: {http",
        "KGW602",
        "spec.type",
    ),
}


def texts(form: Form) -> tuple[str, str]:
    """The manifests with the old form, and with the new one."""
    if not form.place:
        return BASE + form.old, BASE + form.new
    assert BASE.count(form.place) == 1
    return BASE.replace(form.place, form.old), BASE.replace(form.place, form.new)


def config(text: str) -> kgw.Config:
    """The configuration of a text that nothing is wrong with."""
    found, problems = parse_text(text, "text")
    assert problems == []
    made = kgw.Config.from_objects([one.object for one in found])
    assert made.errors == ()
    return made


def successors(made: kgw.Config) -> list[tuple[str, str]]:
    """The findings about forms of earlier versions: their codes and places."""
    return [
        (one.code, ".".join(map(str, one.path)))
        for one in made.findings
        if one.code in {"KGW601", "KGW602"}
    ]


@pytest.mark.parametrize("name", FORMS)
def test_it_means_what_its_successor_means(name: str) -> None:
    form = FORMS[name]
    old, new = (config(text) for text in texts(form))
    assert successors(old) == [(form.code, form.path)]
    assert successors(new) == []
    one, other = json.dumps(old.ir), json.dumps(new.ir)
    assert one.replace("HTTPListenerPolicy", "ListenerPolicy").replace(
        form.path, "-"
    ) == other.replace(form.path, "-")
    if name == "the annotation of delegation":
        # It does something at all.
        without = texts(form)[1].replace("ShallowMergePreferParent", "ShallowMergePreferChild")
        assert successors(config(without)) == []


@pytest.mark.parametrize("name", FORMS)
def test_it_is_rewritten_to_its_successor(name: str) -> None:
    old, new = texts(FORMS[name])
    found = rewrite(old, "text")
    assert found.text == new
    assert len(found.changes) == 1
    assert found.left == ()
    again = rewrite(new, "text")
    assert (again.text, again.changes, again.left) == (new, (), ())


def test_all_are_rewritten_at_once() -> None:
    text = wanted = BASE
    for form in (one for one in FORMS.values() if one.place and one.place != RBAC):
        text, wanted = text.replace(form.place, form.old), wanted.replace(form.place, form.new)
    text, wanted = text + SETTINGS, wanted + NEW_SETTINGS
    assert rewrite(text, "text").text == wanted
    assert successors(config(wanted)) == []


@pytest.mark.parametrize(
    ("old", "new"), [("jwt", "jwtAuth"), ("apiKeyAuthentication", "apiKeyAuth")]
)
def test_a_policy_does_not_say_both(old: str, new: str) -> None:
    inner = "{disable: {}}"
    text = BASE.replace(RBAC, f"  {old}: {inner}\n  {new}: {inner}\n")
    with pytest.raises(kgw.ConfigError, match=f"only one of {old} and {new}"):
        api.loads(text)
    found = rewrite(text, "text")
    assert found.text == text
    (left,) = found.left
    assert left.code == "KGW603"
    assert f"as `{new}` is there, too" in left.message


@pytest.mark.parametrize(
    ("kind", "spec", "code"),
    [
        ("TrafficPolicy", "{ai: {promptGuard: {}}}", "KGW501"),
        ("Backend", "{type: AI, ai: {llm: {}}}", "KGW501"),
        ("Backend", "{type: MCP, mcp: {targets: []}}", "KGW501"),
    ],
)
def test_what_has_no_successor_is_an_error(kind: str, spec: str, code: str) -> None:
    text = (
        "apiVersion: gateway.kgateway.dev/v1alpha1\n"
        f"kind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n"
    )
    (raw,), _ = parse_text(text, "text")
    _, findings = api.parse(raw)
    assert [one.code for one in findings if one.severity is Severity.ERROR] == [code]
    (left,) = rewrite(text, "text").left
    assert left.code == "KGW604"
    assert "2.2 on" in left.message


def test_the_examples_need_nothing_else(tmp_path: object) -> None:
    from pathlib import Path

    assert isinstance(tmp_path, Path)
    source = Path(__file__).parents[2] / "examples" / "waypoint"
    for file in source.glob("*.yaml"):
        found = rewrite(file.read_text(encoding="utf-8"), file.name)
        assert found.left == ()
        (tmp_path / file.name).write_text(found.text, encoding="utf-8")
    old, new = load([source]), load([tmp_path])
    assert [one.code for one in old.findings] == ["KGW601"]
    assert new.findings == ()
    assert len(new.resources) == len(old.resources)
