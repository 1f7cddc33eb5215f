"""Findings: order, forms, suggestions, and that every code is documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kgw._native import manifest
from kgw.diagnostics import (
    CODES,
    Finding,
    Severity,
    format_path,
    render,
    render_all,
    sort,
    suggest,
)
from kgw.source import Origin

TEXT = """\
kind: HTTPRoute
spec:
  rules:
  - match:
    - path: {value: /日本, type: Prefix}
    name: x
"""


def origin() -> Origin:
    [document], _ = manifest.parse(TEXT)
    return Origin("routes.yaml", positions=document)


UNKNOWN = Finding(
    "KGW203",
    Severity.WARNING,
    "unknown field `match`",
    "HTTPRoute default/ollama",
    ("spec", "rules", 0, "match"),
    hint="did you mean `matches`?",
    source=origin(),
    key=True,
)
WRONG = Finding(
    "KGW206",
    Severity.ERROR,
    "`Prefix` is not a type of match",
    "HTTPRoute default/ollama",
    ("spec", "rules", 0, "match", 0, "path", "type"),
    legal="Exact, PathPrefix or RegularExpression",
    source=origin(),
)
MISSING = Finding(
    "KGW204",
    Severity.ERROR,
    "`backendRefs` is missing",
    path=("spec", "rules", 0, "backendRefs"),
    source=origin(),
)
BARE = Finding("KGW110", Severity.INFO, "there is no manifest")


def test_a_finding_shows_its_place_its_line_and_what_to_do() -> None:
    assert render(WRONG) == (
        "error[KGW206]: `Prefix` is not a type of match\n"
        " --> routes.yaml:5:32\n"
        "  |\n"
        "5 |     - path: {value: /日本, type: Prefix}\n"
        "  |                                  ^^^^^^\n"
        "  = resource: HTTPRoute default/ollama, field spec.rules[0].match[0].path.type\n"
        "  = legal: Exact, PathPrefix or RegularExpression"
    )


def test_a_wrong_name_is_marked_and_not_its_value() -> None:
    assert render(UNKNOWN) == (
        "warning[KGW203]: unknown field `match`\n"
        " --> routes.yaml:4:5\n"
        "  |\n"
        "4 |   - match:\n"
        "  |     ^^^^^\n"
        "  = resource: HTTPRoute default/ollama, field spec.rules[0].match\n"
        "  = help: did you mean `matches`?"
    )


def test_a_missing_field_is_shown_where_it_belongs() -> None:
    assert render(MISSING).splitlines()[1] == " --> routes.yaml:4:5"


def test_a_finding_without_a_file_says_what_it_can() -> None:
    assert render(BARE) == "info[KGW110]: there is no manifest"
    assert str(BARE) == "info[KGW110]: there is no manifest"
    assert BARE.to_json() == {
        "code": "KGW110",
        "severity": "info",
        "message": "there is no manifest",
    }


def test_colour_changes_nothing_but_the_colour() -> None:
    coloured = render(WRONG, color=True)
    assert coloured.startswith("\x1b[1;31merror[KGW206]\x1b[0m")
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == render(WRONG)


def test_a_message_cannot_steer_the_terminal() -> None:
    finding = Finding("KGW203", Severity.ERROR, "unknown field `\x1b[2J`", hint="\x07")
    assert "\x1b" not in render(finding)
    assert "\x07" not in render(finding)


def test_a_long_line_is_cut_around_the_mark() -> None:
    text = "a: [" + "x, " * 200 + "HERE, " + "y, " * 200 + "z]\n"
    [document], _ = manifest.parse(text)
    source = Origin("long.yaml", positions=document)
    finding = Finding("KGW205", Severity.ERROR, "no", path=("a", 200), source=source)
    line, mark = render(finding).splitlines()[3:5]
    assert len(line) < 140
    start = mark.index("^")
    assert line[start : start + len("HERE")] == "HERE"
    assert mark.strip(" |") == "^^^^"


def test_json_has_the_place() -> None:
    assert WRONG.to_json() == {
        "code": "KGW206",
        "severity": "error",
        "message": "`Prefix` is not a type of match",
        "resource": "HTTPRoute default/ollama",
        "field": "spec.rules[0].match[0].path.type",
        "legal": "Exact, PathPrefix or RegularExpression",
        "file": "routes.yaml",
        "line": 5,
        "column": 32,
        "endColumn": 38,
    }


def test_findings_are_read_from_top_to_bottom_and_once() -> None:
    assert sort([BARE, WRONG, UNKNOWN, MISSING, WRONG]) == [MISSING, UNKNOWN, WRONG, BARE]
    assert render_all([BARE, WRONG, UNKNOWN, MISSING]).endswith("\n\n2 errors, 1 warning, 1 info")
    assert render_all([]) == "no findings"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("spec", "rules", 0, "matches", 1, "path"), "spec.rules[0].matches[1].path"),
        (
            ("metadata", "labels", "app.kubernetes.io/name"),
            'metadata.labels["app.kubernetes.io/name"]',
        ),
        ((0, 'a"b'), '[0]["a\\"b"]'),
    ],
)
def test_paths_as_text(path: tuple[str | int, ...], text: str) -> None:
    assert format_path(path) == text


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("match", "matches"),
        ("rate_limit", "rateLimit"),
        ("RateLimit", "rateLimit"),
        ("ratelimits", "rateLimit"),
        ("matches", None),
        ("zzz", None),
        ("", None),
    ],
)
def test_did_you_mean(word: str, expected: str | None) -> None:
    assert suggest(word, ["matches", "rateLimit", "backendRefs"]) == expected


def test_every_code_is_documented_and_none_but_those() -> None:
    documented = re.findall(
        r"^\| `(KGW\d{3})` \| (.+) \|$", Path("docs/findings.md").read_text(), re.M
    )
    assert dict(documented) == CODES
    assert [code for code, _ in documented] == sorted(CODES)
