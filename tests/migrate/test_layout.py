"""What is rewritten keeps its comments, order and layout, whatever these are."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kgw.migrate import rewrite
from kgw.migrate.diff import HIDDEN, diff

HEAD = "apiVersion: gateway.kgateway.dev/v1alpha1\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(
            "kind: HTTPListenerPolicy # old\nspec:\n  # whom\n  targetRefs:\n  - {name: a}\n\n"
            "  # what\n  serverName: x   # why\n\n  accessLog:\n  - fileSink:\n      path: a\n"
            "      stringFormat: |\n        one\n\n        two\n# end\n",
            "kind: ListenerPolicy # old\nspec:\n  # whom\n  targetRefs:\n  - {name: a}\n\n"
            "  default:\n    httpSettings:\n"
            "      # what\n      serverName: x   # why\n\n      accessLog:\n      - fileSink:\n"
            "          path: a\n          stringFormat: |\n            one\n\n            two\n"
            "# end\n",
            id="comments and blocks of text",
        ),
        pytest.param(
            "kind: HTTPListenerPolicy\nspec:\n    serverName: x\n    targetRefs: []\n"
            "    acceptHttp10: true",
            "kind: ListenerPolicy\nspec:\n    default:\n      httpSettings:\n"
            "        serverName: x\n        acceptHttp10: true\n    targetRefs: []",
            id="settings on both sides, and no last line break",
        ),
        pytest.param(
            'kind: "HTTPListenerPolicy"\nspec: {targetRefs: [], serverName: "}", '
            "acceptHttp10: no}\n",
            'kind: "ListenerPolicy"\nspec: {targetRefs: [], default: {httpSettings: '
            '{serverName: "}", acceptHttp10: no}}}\n',
            id="braces",
        ),
        pytest.param(
            "kind: HTTPListenerPolicy\nspec: {serverName: 'it''s', targetRefs: [],\n"
            "  acceptHttp10: true}\n",
            "kind: ListenerPolicy\nspec: {targetRefs: [], default: {httpSettings: "
            "{serverName: 'it''s', acceptHttp10: true}}}\n",
            id="braces on two lines",
        ),
        pytest.param(
            "kind: HTTPListenerPolicy\nspec:\n  targetRefs: []\n",
            "kind: ListenerPolicy\nspec:\n  targetRefs: []\n",
            id="no settings",
        ),
        pytest.param(
            "kind: TrafficPolicy\nspec: {extAuth: {enablement: DisableAll}, "
            "'jwt': {disable: {}}}\n",
            "kind: TrafficPolicy\nspec: {extAuth: {disable: {}}, 'jwtAuth': {disable: {}}}\n",
            id="names in quotes",
        ),
        pytest.param(
            "kind: Backend\nspec: {static: {}, type: Static}\n",
            "kind: Backend\nspec: {static: {}}\n",
            id="the last one in braces",
        ),
        pytest.param(
            "kind: Backend\nspec: {type: Static, static: {}}\n",
            "kind: Backend\nspec: {static: {}}\n",
            id="the first one in braces",
        ),
        pytest.param(
            "kind: Backend\nspec:\n  type: Static # so it is\n  static: {}\n",
            "kind: Backend\nspec:\n  # so it is\n  static: {}\n",
            id="a line",
        ),
    ],
)
@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_of_a_document(old: str, new: str, line_break: str) -> None:
    before, after = ((HEAD + one).replace("\n", line_break) for one in (old, new))
    found = rewrite(before, "text")
    assert found.left == ()
    assert found.text == after


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("HTTPListenerPolicy", {"serverName": 'a,\\"}', "targetRefs": [], "acceptHttp10": True}),
        ("HTTPListenerPolicy", {"targetRefs": [], "accessLog": [{"fileSink": {"path": "a"}}]}),
        ("Backend", {"type": "Static", "static": {"hosts": []}}),
        ("Backend", {"static": {"hosts": []}, "type": "Static"}),
        ("TrafficPolicy", {"jwt": {}, "extAuth": {"enablement": "DisableAll"}}),
    ],
)
def test_of_json(kind: str, spec: dict[str, object], indent: int | None) -> None:
    one = {"apiVersion": HEAD.split()[1], "kind": kind, "metadata": {"name": "a"}, "spec": spec}
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [one, one]}, indent=indent)
    found = rewrite(text, "text")
    assert found.left == ()
    first, second = json.loads(found.text)["items"]
    assert first == second
    assert first["kind"] != "HTTPListenerPolicy"
    assert not {"type", "jwt", "serverName"} & first["spec"].keys()
    assert rewrite(found.text, "text").changes == ()


def test_other_documents_stay_as_they_are() -> None:
    other = "# one\n\na:   [1,2]\n--- # two\nkind: Secret\ndata: {a: b}\n---\n"
    text = f"{other}{HEAD}kind: Backend\nspec:\n  type: Static\n  static: {{}}\n...\n---\nb:  1"
    found = rewrite(text, "text")
    assert found.text == text.replace("  type: Static\n", "")


def test_what_would_lose_a_comment_is_told_and_left() -> None:
    text = (
        f"{HEAD}kind: HTTPListenerPolicy\nspec: {{\n  idleTimeout: 5s, # five is enough\n"
        "  targetRefs: [],\n  serverName: x }\n"
    )
    found = rewrite(text, "text")
    assert found.text == text
    assert [one.code for one in found.left] == ["KGW603"]


def test_what_is_merged_from_elsewhere_is_told_and_left() -> None:
    text = (
        f"{HEAD}kind: TrafficPolicy\nmetadata: {{name: a}}\n"
        "spec:\n  jwt: {disable: {}}\n---\n"
        f"{HEAD}kind: HTTPListenerPolicy\nmetadata: {{name: b}}\n"
        "spec:\n  <<: {serverName: x}\n  acceptHttp10: true\n"
    )
    found = rewrite(text, "text")
    assert "jwtAuth" in found.text
    assert "kind: HTTPListenerPolicy" in found.text
    assert [(one.code, one.resource) for one in found.left] == [
        ("KGW603", "HTTPListenerPolicy default/b")
    ]


def test_what_cannot_be_read_is_told_and_left() -> None:
    text = f"{HEAD}kind: Backend\nspec:\n  type: Static\n---\na: [\n"
    found = rewrite(text, "text")
    assert found.text == text
    assert found.changes == ()
    assert found.left[0].code.startswith("KGW1")


# What the yaml package writes as it is, and reads as the end of a line (YAML 1.1, not 1.2).
BREAKS = "\x85\u2028\u2029"
TEXT = st.text(st.characters(exclude_characters=BREAKS), max_size=12)
SCALAR = st.one_of(st.booleans(), st.integers(0, 9), TEXT)
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    settings=st.dictionaries(
        st.sampled_from(["serverName", "accessLog", "acceptHttp10", "targetRefs"]),
        VALUE,
        min_size=1,
    ),
    flow=st.sampled_from([None, True, False]),
)
def test_of_any_settings(settings: dict[str, object], flow: bool | None) -> None:
    one = {"apiVersion": HEAD.split()[1], "kind": "HTTPListenerPolicy", "spec": settings}
    text = yaml.safe_dump(one, default_flow_style=flow, allow_unicode=True, sort_keys=False)
    found = rewrite(text, "text")
    if found.left:  # told, and nothing of it is done
        assert found.text == text
        return
    moved = {name: value for name, value in settings.items() if name != "targetRefs"}
    spec = {name: value for name, value in settings.items() if name == "targetRefs"}
    wanted = {**one, "kind": "ListenerPolicy", "spec": spec}
    if moved:
        spec["default"] = {"httpSettings": moved}
    assert yaml.safe_load(found.text) == wanted


def test_a_diff_shows_nothing_of_secrets() -> None:
    text = (
        "kind: Secret\nstringData:\n  a: hidden\n---\n"
        f"{HEAD}kind: Backend\nspec:\n  type: Static\n  static: {{}}\n---\n"
        "kind: Secret\nstringData:\n  a: hidden\n"
    )
    shown = diff(text, rewrite(text, "text").text, "text")
    assert "-  type: Static\n" in shown
    assert "hidden" not in shown
    whole = json.dumps({"kind": "List", "items": [{"kind": "Secret", "data": {"a": "hidden"}}]})
    assert diff(whole, whole + " ", "text").count(HIDDEN) == 2


@pytest.mark.parametrize(
    "secret",
    [
        {"apiVersion": "v1", "data": {"token": "aGlkZGVu"}, "kind": "Secret"},
        {"kind": "Secret", "apiVersion": "v1", "stringData": {"token": "aGlkZGVu"}},
    ],
)
def test_a_changed_line_with_a_secret_on_it_is_not_shown(secret: dict[str, object]) -> None:
    old = {"apiVersion": HEAD.split()[1], "kind": "HTTPListenerPolicy", "spec": {"idleTimeout": 1}}
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [secret, old]})
    found = rewrite(text, "text")
    assert found.changes
    shown = diff(text, found.text, "text")
    assert "aGlkZGVu" not in shown
    assert HIDDEN in shown
